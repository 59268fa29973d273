"""`import`, `convert`, `export`: from another format, to another one."""

import os
import shutil
import tempfile
from collections import Counter
from contextlib import closing
from typing import Any

import click

from dataflow_grounding._util.errors import InputError, told_as
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.cli.arguments import Range, answer, rarely_collect_garbage, together
from dataflow_grounding.data.records import STATUSES, dump_text
from dataflow_grounding.data.results_folder import image_folders_of, records_of
from dataflow_grounding.data.rows import RowWriter, write_text
from dataflow_grounding.extras.formats import FORMATS, WRITTEN, find_format, folder_of, read, write
from dataflow_grounding.extras.formats.base import Format
from dataflow_grounding.extras.formats.export import Selection
from dataflow_grounding.extras.formats.export_folder import is_alone
from dataflow_grounding.extras.formats.reading import with_sizes

_writing_options = together(
    click.option(
        "-o",
        "out",
        required=True,
        metavar="PATH",
        help="A folder; or the data file alone, by its ending.",
    ),
    click.option(
        "--images",
        type=click.Choice(["copy", "link", "reference"]),
        help=(
            "Copy the pictures, upright (into a folder: the default), link to them, or leave them"
            " where they are."
        ),
    ),
    click.option(
        "--image-root",
        metavar="DIR",
        help="Where the pictures are, if not where the run found them.",
    ),
    click.option("--strict", is_flag=True, help="Refuse if anything is lost or left out."),
    click.option("--min-score", type=Range(0, 1), help="Boxes with this score or more."),
    click.option("--verified-only", is_flag=True, help="Expressions that a check confirmed."),
    click.option("--keep-rejected", is_flag=True, help="Rejected boxes, too."),
    click.option("--reviewed-only", is_flag=True, help="Expressions that a person looked at."),
    click.option(
        "--status",
        "statuses",
        multiple=True,
        type=click.Choice(STATUSES),
        help="Expressions of this status.",
    ),
    click.option(
        "--target",
        metavar="MODEL",
        help="The model family to be trained, for formats that write numbers.",
    ),
    click.option(
        "--min-pixels",
        type=int,
        help="The trainer's own limits of a picture's area, for targets in pixels.",
    ),
    click.option("--max-pixels", type=int, help="As --min-pixels."),
    click.option(
        "--trainer",
        metavar="NAME",
        help="Who resizes the pictures before training, for targets in pixels.",
    ),
    click.option(
        "--classes",
        metavar="HOW",
        help="Categories of phrases: phrase, head, one, or a YAML map's file.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object."),
)


def _named(
    ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any]:
    pairs = {
        name: value
        for name, equals, value in (text.partition("=") for text in given)
        if equals and name
    }
    if len(pairs) < len(given) or pairs.keys() & {"path", "format", "image_root"}:
        raise click.BadParameter(
            "should be an option of the format, as offset=1, and each once", ctx, parameter
        )
    return {name: int(value) if value.isdecimal() else value for name, value in pairs.items()}


_SET_HELP = "An option of the format that is read."
_set_option = click.option(
    "--set", "options", multiple=True, callback=_named, metavar="NAME=VALUE", help=_SET_HELP
)


@click.command("import")
@click.argument("path", type=click.Path(exists=True))
@click.option(
    "--format",
    "format",
    required=True,
    metavar="F",
    help=f"{', '.join(FORMATS)}, or your module:Class.",
)
@click.option("-o", "out", required=True, metavar="RESULTS", help="The results folder to make.")
@click.option("--image-root", metavar="DIR", help="Where the pictures are, if not beside PATH.")
@_set_option
@click.option("--json", "as_json", is_flag=True, help="Print path and count as one JSON object.")
def import_(
    path: str, format: str, out: str, image_root: str | None, options: dict[str, Any], as_json: bool
) -> None:
    """Make PATH, a file or folder in another tool's format, a results folder for `report`, `eval`,
    `export`.
    """
    rarely_collect_garbage()
    annotations, folder = os.path.join(out, "annotations.jsonl"), image_root or folder_of(path)
    if os.path.exists(annotations):
        raise InputError(f"{annotations} is there already: choose another folder")
    made, new = find_format(format, **options), not os.path.exists(out)
    made.pictures = made.pictures or out
    with told_as(InputError, f"can't write {annotations}"):
        writer = RowWriter(annotations)  # what another import makes meanwhile isn't ours to remove
    try:
        with closing(writer):
            for record in with_sizes(read(path, made, image_root=image_root), folder):
                writer.write(record)
            writer.commit()
    except BaseException:
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise
    run = {
        "imported": {"format": format, "path": os.path.abspath(path)},
        "image_folders": [absolute(folder)],
    }
    write_text(os.path.join(out, "run.json"), dump_text(run, 2) + "\n")
    told = f"{annotations}: {counted(writer.count, 'record')}"
    found = {"annotations": annotations, "records": writer.count, "left_out": +made.passed_over}
    answer(as_json, found, [told, *_told(+made.passed_over)])


@click.command("convert")
@click.argument("path", type=click.Path(exists=True))
@click.option("--from", "given", required=True, metavar="F", help="The format that it is in.")
@click.option("--to", "wanted", required=True, metavar="G", help="The format that is wanted.")
@_set_option
@_writing_options
def convert(
    path: str,
    given: str,
    wanted: str,
    image_root: str | None,
    options: dict[str, Any],
    **settings: Any,
) -> int:
    """Write PATH, a file or folder in one format, in another."""
    made = find_format(given, **options)
    folders, out = [image_root or folder_of(path)], settings["out"]
    # of an own format: by any ending
    alone = is_alone(out, FORMATS.get(wanted, {"file": out})["file"])
    if made.packs and settings["images"] == "link" and image_root is None:
        raise InputError(
            f"the pictures are in {path} itself: leave --images link out, or name their"
            " --image-root"
        )
    with tempfile.TemporaryDirectory() as unpacked:
        if made.packs and settings["images"] in (None, "copy") and not alone:
            made.pictures = unpacked
            folders.append(unpacked)
        return _write(
            read(path, made, image_root=image_root), wanted, tuple(folders), made, **settings
        )


@click.command("export")
@click.argument("results", metavar="RESULTS")
@click.option(
    "--format",
    "format",
    required=True,
    metavar="F",
    help=f"{', '.join(WRITTEN)}, or your module:Class.",
)
@_writing_options
def export(results: str, format: str, image_root: str | None, **settings: Any) -> int:
    """Write RESULTS (a run's folder or a file of records) in a format that a trainer reads; say
    what is lost in it.
    """
    if os.path.isdir(results) and os.path.exists(
        reviewed := os.path.join(results, "annotations.reviewed.jsonl")
    ):
        say(f"Note: this is as the run left it. To export what reviewers left, name {reviewed}.")
    return _write(
        records_of(results), format, image_folders_of(results, image_root), None, **settings
    )


def _told(passed_over: Counter[str]) -> list[str]:
    """What reading left out, in a line; none where that is nothing."""
    counts = ", ".join(f"{what} ({count:,})" for what, count in passed_over.items())
    return [f"left out: {counts}"] * bool(counts)


def _write(
    records: Any, format: str, folders: tuple[str, ...], read_as: Format | None, **settings: Any
) -> int:
    rarely_collect_garbage()
    out, as_json = settings.pop("out"), settings.pop("as_json")
    wanted = {
        name: settings.pop(name)
        for name in ("min_score", "verified_only", "reviewed_only", "keep_rejected")
    }
    select = Selection(**wanted, statuses=settings.pop("statuses") or STATUSES)
    given = {name: value for name, value in settings.items() if value is not None}
    done = write(records, format, out, folders=folders, select=select, **given)
    passed_over = +read_as.passed_over if read_as else Counter[str]()
    if as_json:
        keys = {"path": done.path, "format": format, **done.written, "lost": dict(done.lost)}
        keys |= {"not_read": passed_over} if read_as else {}
        say_json(
            {**keys, "left_out": done.left_out, "reasons": done.reasons, "remarks": done.remarks}
        )
        return 1 if done.left_out else 0
    counts = (
        ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing to write"
    )
    say(f"{done.path}: {counts}", err=False)
    if done.lost:
        say(f"{format} can't say, and this is lost: {done.losses()}")
    for remark in (*_told(passed_over), *done.remarks):
        say(remark)
    if done.left_out:
        say(f"left out: {done.left_out} records, for example {'; '.join(done.reasons)}")
    return 1 if done.left_out else 0
