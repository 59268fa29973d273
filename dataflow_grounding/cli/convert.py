"""`convert`: from one annotation format to another."""

import os
from typing import Any

import click

from dataflow_grounding.cli.arguments import set_option
from dataflow_grounding.cli.export import write_out, writing_options
from dataflow_grounding.formats import read


@click.command("convert")
@click.argument("path", type=click.Path(exists=True))
@click.option("--from", "given", required=True, metavar="F", help="The format that it is in.")
@click.option("--to", "wanted", required=True, metavar="G", help="The format that is wanted.")
@set_option
@writing_options
def command(
    path: str, given: str, wanted: str, image_root: str | None, options: dict[str, Any], **settings: Any
) -> int:
    """Write PATH, a file or folder in one format, in another."""
    folder = image_root or (path if os.path.isdir(path) else os.path.dirname(path)) or "."
    return write_out(read(path, given, image_root=image_root, **options), wanted, (folder,), settings)
