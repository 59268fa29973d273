"""`merge`: put the shards of a run together."""

import click

from dataflow_grounding.jobs.merging import merge
from dataflow_grounding.review import report_folder
from dataflow_grounding.terminal import counted, say, say_json


@click.command("merge")
@click.argument("results", metavar="RESULTS", type=click.Path(exists=True, file_okay=False))
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the sums as one JSON object.")
def command(results: str, no_report: bool, as_json: bool) -> int:
    """Put RESULTS/shards together in RESULTS, in the input's order: what one machine would have left there.

    Exit codes: 0 all records done, 1 some failed, 2 a shard is missing, stopped or of another input.
    """
    summary = merge(results)["summary"]
    if summary["done"] and not no_report:
        say(f"report: {report_folder(results)[0]}")
    if as_json:
        say_json(summary)
    else:
        found = f"{counted(summary['images'], 'image')}: {summary['done']} done, {summary['failed']} failed"
        say(f"{found}\nresults: {summary['annotations']}", err=False)
    return 1 if summary["failures"] else 0
