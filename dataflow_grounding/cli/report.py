"""`report`: write a page that shows the results."""

from __future__ import annotations

import click

from dataflow_grounding.review import report_folder


@click.command("report")
@click.argument("results", type=click.Path(exists=True, file_okay=False))
@click.option("-o", "out", metavar="FILE", help="Where to write it; RESULTS/report.html unless given.")
@click.option("--image-root", metavar="DIR", help="Where the images are, if not where the run found them.")
def command(results: str, out: str | None, image_root: str | None) -> int:
    """Write one self-contained HTML page of the folder RESULTS: pictures, boxes, captions, counts, failures."""
    path, shown = report_folder(results, out, image_root)
    click.echo(f"{path}: {shown} records")
    return 0
