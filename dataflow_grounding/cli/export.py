"""`export`: write results in a format that a trainer reads."""

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click

from dataflow_grounding.cli.arguments import Range
from dataflow_grounding.formats import WRITTEN, write
from dataflow_grounding.formats.export import Exported
from dataflow_grounding.formats.selection import Selection
from dataflow_grounding.records import STATUSES
from dataflow_grounding.results_folder import image_folders_of, records_of
from dataflow_grounding.terminal import say, say_json

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-o", "out", required=True, metavar="PATH", help="A folder; or the data file alone, by its ending."),
    click.option(
        "--images",
        type=click.Choice(["copy", "link", "reference"]),
        help="Copy the pictures, upright (into a folder: the default), link to them, or leave them where they are.",
    ),
    click.option("--image-root", metavar="DIR", help="Where the pictures are, if not where the run found them."),
    click.option("--strict", is_flag=True, help="Refuse if anything is lost or left out."),
    click.option("--min-score", type=Range(0, 1), help="Boxes with this score or more."),
    click.option("--verified-only", is_flag=True, help="Expressions that a check confirmed."),
    click.option("--reviewed-only", is_flag=True, help="Expressions that a person looked at."),
    click.option(
        "--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Expressions of this status."
    ),
    click.option("--target", metavar="MODEL", help="The model family to be trained, for formats that write numbers."),
    click.option("--min-pixels", type=int, help="The trainer's own limits of a picture's area, for targets in pixels."),
    click.option("--max-pixels", type=int, help="As --min-pixels."),
    click.option("--trainer", metavar="NAME", help="Who resizes the pictures before training, for targets in pixels."),
    click.option("--classes", metavar="HOW", help="Categories of phrases: phrase, head, one, or a YAML map's file."),
    click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object."),
)


def writing_options(function: F) -> F:
    """The options of what writes a format."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), function)


_OF_FORMATS = ("target", "min_pixels", "max_pixels", "trainer", "classes")


def write_out(records: Any, format: str, folders: tuple[str, ...], settings: dict[str, Any]) -> int:
    """Write records as the options say, print what was written and lost, and return the exit code."""
    given = {name: settings[name] for name in _OF_FORMATS if settings[name] is not None}
    names = ("min_score", "verified_only", "reviewed_only")
    select = Selection(**{name: settings[name] for name in names}, statuses=settings["statuses"] or STATUSES)
    images, strict = settings["images"], settings["strict"]
    path = settings["out"]
    done = write(records, format, path, images=images, folders=folders, select=select, strict=strict, **given)
    if settings["as_json"]:
        keys = {"path": done.path, "format": format, **done.written, "lost": dict(done.lost)}
        say_json({**keys, "left_out": done.left_out, "reasons": done.reasons, "remarks": done.remarks})
    else:
        _tell(done, format)
    return 1 if done.left_out else 0


def _tell(done: Exported, format: str) -> None:
    counts = ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing to write"
    say(f"{done.path}: {counts}", err=False)
    if done.lost:
        say(f"{format} can't say, and this is lost: {done.losses()}")
    for remark in done.remarks:
        say(remark)
    if done.left_out:
        say(f"left out: {done.left_out} records, for example {'; '.join(done.reasons)}")


@click.command("export")
@click.argument("results", metavar="RESULTS")
@click.option("--format", "format", required=True, metavar="F", help=f"{', '.join(WRITTEN)}, or your module:Class.")
@writing_options
def command(results: str, format: str, image_root: str | None, **settings: Any) -> int:
    """Write RESULTS (a run's folder or a file of records) in a format that a trainer reads; say what is lost in it."""
    return write_out(records_of(results), format, image_folders_of(results, image_root), settings)
