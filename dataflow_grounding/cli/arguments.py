"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dataflow_grounding.terminal import answers_alone

F = TypeVar("F", bound=Callable[..., Any])


def spec_option_for(what: str, *, required: bool = False) -> Callable[[F], F]:
    """`-e SPEC`, which may be given several times; `what` says what the spec is for: it may name code that prints."""
    names = ("-e", "--experiment_spec", "spec_paths")
    text = f"{what}; given several times, later ones override earlier ones."
    option = click.option(*names, required=required, multiple=True, metavar="SPEC", help=text)
    return lambda command: option(answers_alone()(command))


spec_option = spec_option_for("The spec, a YAML file", required=True)
