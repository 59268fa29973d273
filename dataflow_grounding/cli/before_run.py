"""`check`, `estimate`: what a run would meet, and what it would send and cost.

Neither sends anything.
"""

from collections.abc import Iterator

import click

from dataflow_grounding._util.terminal import counted, grouped, in_columns, say, say_json
from dataflow_grounding.cli.arguments import (
    answer,
    json_option,
    overrides_argument,
    pilot_option,
    spec_option,
)
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.jobs.checking import Findings, check_spec
from dataflow_grounding.jobs.estimating import estimate
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import ready_to_run
from dataflow_grounding.trust.choice import REQUESTS


@click.command("check")
@spec_option
@json_option
@overrides_argument
def check_command(spec_paths: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> int:
    """List everything that is wrong with SPEC, its input and its images. Sends nothing. Exits with
    2 if there are problems.
    """
    findings = check_spec(spec_paths, overrides)
    if as_json:
        say_json(vars(findings))
    else:
        _say_findings(findings)
    return 2 if findings.problems else 0


def _say_findings(findings: Findings) -> None:
    if findings.asks:
        say(f"A run asks {findings.asks}.", err=False)
    for remark in findings.remarks:
        say(remark, err=False)
    for problem in grouped(findings.problems):
        say(f"Problem: {problem}")
    records = counted(findings.records, "record")
    problems = counted(len(findings.problems), "problem")
    say(f"{records} checked, {problems}. Nothing was sent.", err=False)


@click.command("estimate")
@spec_option
@pilot_option
@json_option
@overrides_argument
def estimate_command(
    spec_paths: tuple[str, ...], pilot: int | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Estimate the requests, tokens and cost that SPEC's run still needs, per step and in total.
    Sends nothing.

    Stored replies cost nothing more. After a pilot, token counts are based on what the endpoint
    counted for it.
    """
    run = ready_to_run(load_spec(spec_paths, overrides), pilot=pilot)
    figures = estimate(run)
    answer(as_json, figures, _lines(figures))


def _lines(figures: JsonObject) -> Iterator[str]:
    yield from _table(figures)
    records = counted(figures["records"], "record")
    stored = counted(figures["stored"], "reply")
    yield f"A run asks {figures['asks']}: {records}, {stored} stored. Nothing was sent."
    if figures["not_counted"]:
        items = [f"{what} ({step})" for step, what in figures["not_counted"].items()]
        yield f"Not counted before generate --pilot: {', '.join(items)}."
    if figures["probes"]:
        yield (
            f"Of the requests, {figures['probes']:,} check the box format. Replies that can't be"
            " read are asked again."
        )
    if figures["looked_at"] < figures["records"]:
        yield f"Extrapolated from {figures['looked_at']:,} of them, drawn by chance."
    yield from _lines_on_method(figures)
    if figures["calibration_first"]:
        yield f"The run starts with a calibration of the box format: {REQUESTS}."
    if figures["prices"]:
        yield f"Prices: {figures['prices']}."
    else:
        yield "No known price: set vlm.prices to see the cost in USD."


def _lines_on_method(figures: JsonObject) -> Iterator[str]:
    """How the figures came about: rows times what one row takes, measured or stated."""
    if figures["measured"]:
        yield "Rows times what stored replies took. These are taken to be of these rows and words."
        return
    yield "Rows times a stated mean of each task: generate --pilot measures what a row takes."
    if figures["image_rule"] == "assumed":
        yield "How this model counts images isn't published: 1,000 tokens each are assumed."


def _table(figures: JsonObject) -> Iterator[str]:
    rows = [["step", "requests", "input", "cached", "output", "USD"]]
    for step in [*figures["steps"], {"step": "total", **figures}]:
        # `tokens` has input, cached and output, in the order of the columns.
        counts = [step["requests"], *step["tokens"].values()]
        cost = "-" if step["cost_usd"] is None else f"{step['cost_usd']:.4f}"
        shown_counts = [f"{count:,}" for count in counts]
        rows.append([step["step"], *shown_counts, cost])
    yield from in_columns(rows)
