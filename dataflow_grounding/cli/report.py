"""`report`: write pages that show the results."""

import click

from dataflow_grounding.review import report_folder
from dataflow_grounding.terminal import counted, say, say_json


@click.command("report")
@click.argument("results", type=click.Path(exists=True, file_okay=False))
@click.option("-o", "out", metavar="FILE", help="Where to write it; RESULTS/report.html unless given.")
@click.option("--image-root", metavar="DIR", help="Where the images are, if not where the run found them.")
@click.option("--json", "as_json", is_flag=True, help="Print path and count as one JSON object.")
def command(results: str, out: str | None, image_root: str | None, as_json: bool) -> int:
    """Write HTML pages of the folder RESULTS: failures, pictures with boxes, captions, counts. They need no network."""
    path, shown = report_folder(results, out, image_root)
    if as_json:
        say_json({"report": path, "records": shown})
    else:
        say(f"{path}: {counted(shown, 'record')}", err=False)
    return 0
