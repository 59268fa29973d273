"""Arguments that several commands take, and how they answer."""

import gc
import os
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, TypeVar

import click

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.terminal import answers_alone, say, say_json

F = TypeVar("F", bound=Callable[..., Any])


def spec_option_for(what: str) -> Callable[[F], F]:
    """`-e SPEC`, which may be given several times; `what` says what the spec is for: it may name
    code that prints.
    """
    names = ("-e", "--experiment_spec", "--experiment_spec_file", "spec_paths")
    text = f"{what}; given several times, later ones override earlier ones."
    option = click.option(*names, multiple=True, metavar="SPEC", help=text)
    return lambda command: option(answers_alone()(command))


spec_option = spec_option_for("The spec, a YAML file")


def _spec_keys(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion: the keys of every pipeline's spec that begin so."""
    from dataflow_grounding.jobs.registry import JOBS
    from dataflow_grounding.spec.problems import keys_of
    from dataflow_grounding.spec.schema import spec_with

    keys = dict.fromkeys(
        key for name, job in JOBS.items() for key in keys_of(spec_with(name, job.block))
    )
    return [f"{key}=" for key in keys if key.startswith(begun)]


overrides_argument = click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=_spec_keys
)


def answer(as_json: bool, found: Any, lines: Iterable[str], indent: int | None = None) -> None:
    """Print what was found: as JSON for programs, or these lines for people."""
    if as_json:
        say_json(found, indent)
    else:
        say("\n".join(lines), err=False)


def check_writable(path: str, image: str = "") -> None:
    """Raises SpecError, before anything is paid for, where a picture, made of `image`, can't be
    written.
    """
    from PIL import Image

    if os.path.exists(path) and os.path.exists(image) and os.path.samefile(path, image):
        raise SpecError(f"can't write {path}: it is the picture itself, choose another file")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise SpecError(f"can't write {path}: there is no folder {folder}")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise SpecError(f"can't write {path}: choose another file")
    if os.path.splitext(path)[1].lower() not in Image.registered_extensions():
        raise SpecError(
            f"can't write {path}: its ending should name a kind of picture, as .png or .jpg"
        )


def rarely_collect_garbage() -> None:
    """Let Python look for cycles less often: among a million records there are none, and looking
    takes a sixth.
    """
    gc.set_threshold(200_000, 50, 50)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options that several commands take, as one decorator."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


class Folder(click.Path):
    """A folder, or the address of one elsewhere, which is looked at later."""

    def convert(self, value: Any, *where: Any) -> Any:
        """The path or address."""
        return value if is_elsewhere(value) else super().convert(value, *where)


class Range(click.FloatRange):
    """Numbers between bounds."""

    def convert(self, value: Any, *where: Any) -> float:
        """The number; NaN, which no bound keeps out, is none."""
        number: float = super().convert(value, *where)
        return (
            number
            if number == number
            else self.fail(f"{value} is not in {self._describe_range()}.", *where)
        )
