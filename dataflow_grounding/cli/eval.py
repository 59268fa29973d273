"""`eval`: compare results with gold annotations."""

from __future__ import annotations

import os

import click

from dataflow_grounding.errors import InputError
from dataflow_grounding.metrics import score_boxes
from dataflow_grounding.rows import read_records
from dataflow_grounding.terminal import say, say_json


@click.command("eval")
@click.argument("results", metavar="RESULTS")
@click.option("--gold", required=True, metavar="FILE", help="Records with the right boxes, in the record schema.")
@click.option(
    "--iou", "threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="When a box is right."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(results: str, gold: str, threshold: float, as_json: bool) -> int:
    """Compare RESULTS (a folder or an annotations file) with gold annotations of the same images and captions."""
    path = os.path.join(results, "annotations.jsonl") if os.path.isdir(results) else results
    if not os.path.exists(path):
        raise InputError(f"no {path}: is {results} the results_dir of a finished run?")
    figures = score_boxes(read_records(path), read_records(gold), threshold).to_json()
    if not figures["gold_boxes"]:
        raise InputError(f"{gold} has no boxes: gold is records with `expressions` and their `instances`")
    if as_json:
        say_json(figures)
        return 0
    for name, value in figures.items():
        say(f"{name.replace('_', ' '):28} {'-' if value is None else value}", err=False)
    return 0
