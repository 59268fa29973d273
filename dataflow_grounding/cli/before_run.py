"""`check`, `estimate`: what a run would meet, and what it would send and cost. Neither sends
anything.
"""

from collections.abc import Iterator
from typing import Any

import click

from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.calibration.choice import REQUESTS
from dataflow_grounding.cli.arguments import (
    answer,
    overrides_argument,
    rarely_collect_garbage,
    spec_option,
)
from dataflow_grounding.jobs.checking import check_spec
from dataflow_grounding.jobs.estimating import estimate
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun


@click.command("check")
@spec_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@overrides_argument
def of_check(spec_paths: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> int:
    """List everything that is wrong with SPEC, its input and its images. Sends nothing. Exits with
    2 if there are problems.
    """
    found = check_spec(spec_paths, overrides)
    if as_json:
        say_json(vars(found))
    else:
        for remark in found.remarks:
            say(remark, err=False)
        for problem in found.problems:
            say(f"Problem: {problem}")
        counts = (
            f"{counted(found.records, 'record')} checked, {counted(len(found.problems), 'problem')}"
        )
        say(f"{counts}. Nothing was sent.", err=False)
    return 2 if found.problems else 0


@click.command("estimate")
@spec_option
@click.option("--pilot", type=click.IntRange(1), metavar="N", help="Only the first N records.")
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as one JSON object.")
@overrides_argument
def of_estimate(
    spec_paths: tuple[str, ...], pilot: int | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Estimate the requests, tokens and cost that SPEC's run still needs, per step and in total.
    Sends nothing.

    Stored replies cost nothing more. After a pilot, token counts are based on what the endpoint
    counted for it.
    """
    rarely_collect_garbage()
    found = estimate(SpecRun(load_spec(spec_paths, overrides), pilot=pilot))
    answer(as_json, found, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    rows = [("step", "requests", "input", "cached", "output", "USD")]
    for step in [*found["steps"], {"step": "total", **found}]:
        counts = (f"{number:,}" for number in (step["requests"], *step["tokens"].values()))
        rows.append(
            (step["step"], *counts, "-" if step["cost_usd"] is None else f"{step['cost_usd']:.4f}")
        )
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    line = "  ".join([f"{{:{first}}}", *(f"{{:>{width}}}" for width in others)])
    yield from (line.format(*row) for row in rows)
    records = f"{counted(found['records'], 'record')}, {counted(found['stored'], 'reply')} stored"
    yield f"{found['model']}, {records}. Nothing was sent."
    if found["looked_at"] < found["records"]:
        yield f"Extrapolated from {found['looked_at']:,} of them."
    if found["measured"]:
        yield "Token counts are based on what the endpoint counted for the stored replies."
    elif found["image_rule"] == "assumed":
        yield (
            "How this model counts images isn't published: 1,000 tokens each are assumed. A pilot"
            " measures it."
        )
    if found["not_guessed"]:
        tasks = ", ".join(found["not_guessed"])
        yield (
            f"No reply to {tasks} can be made up here: requests that depend on one are not counted."
        )
    if found["calibration_first"]:
        yield f"The run starts with a calibration of the box format: {REQUESTS}."
    yield (
        f"Prices: {found['prices']}."
        if found["prices"]
        else "No known price: set vlm.prices to see the cost in USD."
    )
