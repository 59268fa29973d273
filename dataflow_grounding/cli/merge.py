"""`merge`: what shards left, put together."""

import os

import click

from dataflow_grounding._util.terminal import counted
from dataflow_grounding.cli.arguments import Folder, answer, json_option
from dataflow_grounding.review import report_folder
from dataflow_grounding.scale.merging import merge as merge_shards


@click.command("merge")
@click.argument("results", type=Folder(exists=True, file_okay=False))
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@json_option
def merge(results: str, no_report: bool, as_json: bool) -> int:
    """Merge the shards in the folder RESULTS, in the input's order. RESULTS then has what one
    machine would have written.

    Exit codes: 0 all records done, 1 some failed, 2 a shard is missing, stopped, or of another
    input, 4 none succeeded.
    """
    summary = merge_shards(results)["summary"]
    lines = [
        f"{counted(summary['images'], 'image')}: {summary['done']} done, {summary['failed']} failed"
    ]
    if summary["done"]:
        lines.append(f"results: {summary['annotations']}")
    else:
        lines.append(f"no results were written: see {summary['failures_file']}")
    if summary["done"] and not no_report:
        page, _ = report_folder(os.path.dirname(summary["annotations"]))
        lines.append(f"report: {page}")
    answer(as_json, summary, lines)
    if not summary["failures"]:  # counts by kind, also of records that were written
        return 0
    return 1 if summary["done"] else 4
