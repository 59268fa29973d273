"""Arguments that several commands take, and how they answer."""

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.terminal import only_answers, say, say_json

F = TypeVar("F", bound=Callable[..., Any])
_MOST_RECORDS = 10**12  # that a pilot may have
Completed = Callable[[click.Context, click.Parameter, str], list[str]]  # as click asks for it

any_path = click.Path(readable=False)
"""The type of a path, which shells complete; whether it is there is looked at later."""


def completed_from(names: Iterable[str]) -> Completed:
    """Return what makes shells complete an option's value from these names."""
    return lambda ctx, parameter, typed: [name for name in names if name.startswith(typed)]


def spec_option_for(what: str) -> Callable[[F], F]:
    """Return a decorator that gives a command `-e SPEC`, once or several times: `spec_paths`."""
    names = ("-e", "--experiment_spec", "--experiment_spec_file", "spec_paths")
    text = f"{what}; given several times, later ones override earlier ones."
    option = click.option(*names, multiple=True, metavar="SPEC", type=any_path, help=text)
    # A spec may name code that prints: only the command's answer goes to standard output.
    return lambda command: option(only_answers()(command))


spec_option = spec_option_for("The spec, a YAML file")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

image_root_option = click.option(
    "--image-root",
    metavar="DIR",
    type=any_path,
    help="Where the pictures are, if they have moved since the run.",
)


pilot_option = click.option(
    "--pilot",
    type=click.IntRange(1, _MOST_RECORDS),
    metavar="N",
    help="Only N records, evenly spread over the input.",
)


overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


def answer(as_json: bool, figures: Any, lines: Iterable[str], indent: int | None = None) -> None:
    """Print figures as JSON for programs, or lines for people, on standard output."""
    if as_json:
        say_json(figures, indent)
    else:
        say("\n".join(lines), err=False)


def mention_reviewed_file(results: str) -> None:
    """Say, where a command takes the run's own file, that there are reviewed results."""
    if not os.path.isdir(results):
        return
    reviewed = os.path.join(results, "annotations.reviewed.jsonl")
    note = "Note: this is as the run left it. To take what reviewers left,"
    decided_at = _written_at(os.path.join(results, "reviews.jsonl"))
    applied_at = _written_at(reviewed)
    has_decisions_to_apply = decided_at > applied_at
    has_reviewed_file = applied_at > 0
    if has_decisions_to_apply:
        say(f"{note} run `dataflowgrounding apply {results}`, and name {reviewed}.")
    elif has_reviewed_file:
        say(f"{note} name {reviewed}.")


def _written_at(path: str) -> int:
    """In nanoseconds; 0 where there is no such file."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Folder(click.Path):
    """A local folder, or a remote address, which is looked at later."""

    def convert(self, value: Any, *where: Any) -> Any:
        return value if is_remote(value) else super().convert(value, *where)


class Range(click.FloatRange):
    """The type of an option's value: a number between bounds."""

    def convert(self, value: Any, *where: Any) -> float:
        """Read a number; any other value is refused, also NaN, which no bound keeps out."""
        number: float = super().convert(value, *where)
        if math.isnan(number):
            self.fail(f"{value} is not in {self._describe_range()}.", *where)
        return number
