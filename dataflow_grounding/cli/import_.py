"""`import`: make another format's annotations records in a results folder."""

import os
from contextlib import suppress
from typing import Any

import click

from dataflow_grounding.cli.arguments import set_option
from dataflow_grounding.errors import InputError
from dataflow_grounding.formats import FORMATS, read
from dataflow_grounding.formats.imported import with_sizes
from dataflow_grounding.records import dump_text
from dataflow_grounding.rows import RowWriter, write_text
from dataflow_grounding.terminal import counted, say, say_json


@click.command("import")
@click.argument("path", type=click.Path(exists=True))
@click.option("--format", "format", required=True, metavar="F", help=f"{', '.join(FORMATS)}, or your module:Class.")
@click.option("-o", "out", required=True, metavar="RESULTS", help="The results folder to make.")
@click.option("--image-root", metavar="DIR", help="Where the pictures are, if not beside PATH.")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print path and count as one JSON object.")
def command(path: str, format: str, out: str, image_root: str | None, options: dict[str, Any], as_json: bool) -> int:
    """Make PATH, a file or folder in another tool's format, a results folder for `report`, `eval`, `export`."""
    folder = image_root or (path if os.path.isdir(path) else os.path.dirname(path)) or "."
    annotations = os.path.join(out, "annotations.jsonl")
    if os.path.exists(annotations):
        raise InputError(f"{annotations} is there already: choose another folder")
    writer = RowWriter(annotations)
    try:
        for record in with_sizes(read(path, format, image_root=image_root, **options), folder):
            writer.write(record)
        writer.commit()
    except BaseException:
        writer.discard()
        with suppress(OSError):  # what was there before stays
            os.rmdir(out)
        raise
    run = {"imported": {"format": format, "path": os.path.abspath(path)}, "image_folders": [os.path.abspath(folder)]}
    write_text(os.path.join(out, "run.json"), dump_text(run, 2) + "\n")
    if as_json:
        say_json({"annotations": annotations, "records": writer.count})
    else:
        say(f"{annotations}: {counted(writer.count, 'record')}", err=False)
    return 0
