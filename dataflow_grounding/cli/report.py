"""`report`: a page that shows a run's folder."""

import click

from dataflow_grounding._util.terminal import counted, progress
from dataflow_grounding.bucket import bucket
from dataflow_grounding.cli.arguments import answer, any_path, image_root_option, json_option
from dataflow_grounding.review.results import report_folder

# files of a run that a report is made of; where the folder is remote, they are brought here
_REPORTED_FILES = ("run.json", "annotations.jsonl", "failures.jsonl")


@click.command("report")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.argument("other", metavar="[OTHER]", type=any_path, required=False)
@click.option(
    "-o", "out_path", metavar="FILE", type=any_path, help="The page, if not RESULTS/report.html."
)
@image_root_option
@click.option("--single-file", "single", is_flag=True, help="Put everything into one file.")
@click.option(
    "--copies",
    is_flag=True,
    help="Make small copies of all pictures, so the page can be moved without them.",
)
@json_option
def report(
    results: str,
    other: str | None,
    out_path: str | None,
    image_root: str | None,
    single: bool,
    copies: bool,
    as_json: bool,
) -> None:
    """Write a page of the folder RESULTS: failures, boxes, captions, figures; with OTHER, where the
    two differ.
    """
    with (
        bucket.copied(results, *_REPORTED_FILES) as folder,
        # without OTHER it is the first folder once more, and isn't used
        bucket.copied(other or results, *_REPORTED_FILES) as other_folder,
        progress("making the report") as tell,
    ):
        path, record_count = report_folder(
            folder,
            out_path,
            image_root,
            other=other_folder if other else None,
            single=single,
            copies=copies,
            on_progress=tell,
        )
    lines = [f"{path}: {counted(record_count, 'record')}"]
    answer(as_json, {"report": path, "records": record_count}, lines)
