"""`convert`: from one annotation format to another."""

from __future__ import annotations

import os
from typing import Any

import click

from dataflow_grounding.cli.export import write_out, writing_options
from dataflow_grounding.formats import read


@click.command("convert")
@click.argument("path", type=click.Path(exists=True))
@click.option("--from", "given", required=True, metavar="F", help="The format that it is in.")
@click.option("--to", "wanted", required=True, metavar="G", help="The format that is wanted.")
@click.option("--from-target", metavar="MODEL", help="The model family in whose numbers it is.")
@writing_options
def command(
    path: str, given: str, wanted: str, from_target: str | None, image_root: str | None, **settings: Any
) -> int:
    """Write PATH, a file or folder in one format, in another."""
    folder = image_root or (path if os.path.isdir(path) else os.path.dirname(path)) or "."
    options = {"target": from_target} if from_target else {}
    return write_out(read(path, given, image_root=image_root, **options), wanted, (folder,), settings)
