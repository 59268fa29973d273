"""`cost`, `merge`, `report`: what a run's folder has in it."""

from collections.abc import Iterator
from typing import Any

import click

from dataflow_grounding._util.terminal import counted, telling
from dataflow_grounding.cli.arguments import Folder, answer
from dataflow_grounding.data.working_folder import sent, working_folder
from dataflow_grounding.engine.at_work import readable
from dataflow_grounding.extras.review import report_folder
from dataflow_grounding.extras.scale.merging import merge as merge_shards
from dataflow_grounding.jobs.costs import costs_of

_SHOWN = ("run.json", "annotations.jsonl", "failures.jsonl")  # what a report is made of


@click.command("cost")
@click.argument("results", type=Folder(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def cost(results: str, as_json: bool) -> None:
    """Show what the replies stored in the folder RESULTS cost, per step and for retries, samples
    and checks.
    """
    with readable(results, "run.json", replies=True) as folder:
        found = costs_of(folder)
    answer(as_json, found, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for step in [*found["steps"], {"step": "total", **found}]:
        yield f"{step['step']}: {_words(step)}"
        for part in ("retries", "samples", "checks"):
            if step.get(part, {}).get("requests"):
                yield f"  of which {part}: {_words(step[part])}"
    if found["cost_usd"] is None:
        yield "Some of it has no known price: set vlm.prices in the spec."


def _words(bill: dict[str, Any]) -> str:
    tokens = bill["tokens"]
    cost = "" if bill["cost_usd"] is None else f", {bill['cost_usd']:.4f} USD"
    given = f"{tokens['input']:,} tokens in ({tokens['cached']:,} cached), {tokens['output']:,} out"
    return f"{counted(bill['requests'], 'reply')}, {given}{cost}"


@click.command("merge")
@click.argument("results", type=Folder(exists=True, file_okay=False))
@click.option(
    "--of", type=click.IntRange(1), metavar="N", help="Of N shards, where there are others."
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the sums as one JSON object.")
def merge(results: str, of: int | None, no_report: bool, as_json: bool) -> int:
    """Put the shards in the folder RESULTS together there, in the input's order: what one machine
    would have left.

    Exit codes: 0 all records done, 1 some failed, 2 a shard is missing, stopped, or of another
    input, 4 none succeeded.
    """
    summary = merge_shards(results, of)["summary"]
    lines = [
        f"{counted(summary['images'], 'image')}: {summary['done']} done, {summary['failed']} failed"
    ]
    there = f"results: {summary['annotations']}"
    lines += [
        there if summary["done"] else f"no results were written: see {summary['failures_file']}"
    ]
    if summary["done"] and not no_report:
        lines += [f"report: {sent(report_folder(working_folder(results))[0])}"]
    answer(as_json, summary, lines)
    return (1 if summary["done"] else 4) if summary["failures"] else 0


@click.command("report")
@click.argument("results", type=Folder(exists=True, file_okay=False))
@click.argument("other", required=False, type=Folder(exists=True, file_okay=False))
@click.option("-o", "out_path", metavar="FILE", help="The page, if not RESULTS/report.html.")
@click.option(
    "--image-root", metavar="DIR", help="Where the images are, if not where the run found them."
)
@click.option("--single-file", "single", is_flag=True, help="Everything in one file.")
@click.option(
    "--copies", is_flag=True, help="Small copies of all pictures, to be moved without them."
)
@click.option("--json", "as_json", is_flag=True, help="Print path and count as one JSON object.")
def report(results: str, other: str | None, as_json: bool, **more: Any) -> None:
    """Write a page of the folder RESULTS: failures, boxes, captions, figures; with OTHER, where the
    two differ.
    """
    with (
        readable(results, *_SHOWN) as folder,
        readable(other or results, *_SHOWN) as second,
        telling("making the report") as tell,
    ):
        path, shown = report_folder(
            folder, other=second if other else None, on_progress=tell, **more
        )
        path = sent(path, ".html", ".js", ".webp", ".jpg", ".txt")
    answer(as_json, {"report": path, "records": shown}, [f"{path}: {counted(shown, 'record')}"])
