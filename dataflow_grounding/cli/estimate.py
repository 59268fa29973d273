"""`estimate`: requests, tokens and cost of a run before it sends anything."""

from typing import Any

import click

from dataflow_grounding.calibration.choice import REQUESTS
from dataflow_grounding.cli.arguments import overrides_argument, spec_option
from dataflow_grounding.jobs.estimating import estimate
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.terminal import counted, say, say_json


@click.command("estimate")
@spec_option
@click.option("--pilot", type=click.IntRange(1), metavar="N", help="Only the first N records.")
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as one JSON object.")
@overrides_argument
def command(spec_paths: tuple[str, ...], pilot: int | None, as_json: bool, overrides: tuple[str, ...]) -> int:
    """Estimate the requests, tokens and cost that SPEC's run still needs, per step and in total. Sends nothing.

    Stored replies cost nothing more. After a pilot, token counts are based on what the endpoint counted for it.
    """
    found = estimate(SpecRun(load_spec(spec_paths, overrides), pilot=pilot)).to_json()
    if as_json:
        say_json(found)
    else:
        say("\n".join(_lines(found)), err=False)
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    head = ("step", "requests", "input", "cached", "output", "USD")
    rows = [head]
    for step in [*found["steps"], {"step": "total", **found}]:
        tokens = step["tokens"]
        cost = "-" if step["cost_usd"] is None else f"{step['cost_usd']:.4f}"
        counts = (f"{n:,}" for n in (step["requests"], tokens["input"], tokens["cached"], tokens["output"]))
        rows.append((step["step"], *counts, cost))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines.append(
        f"{found['model']}, {counted(found['records'], 'record')}, {counted(found['stored'], 'reply')} stored. "
        "Nothing was sent."
    )
    if found["looked_at"] < found["records"]:
        lines.append(f"Extrapolated from {found['looked_at']:,} of them.")
    if found["measured"]:
        lines.append("Token counts are based on what the endpoint counted for the stored replies.")
    elif found["image_rule"] == "assumed":
        lines.append(
            "How this model counts images isn't published: 1,000 tokens each are assumed. A pilot measures it."
        )
    if found["not_guessed"]:
        tasks = ", ".join(found["not_guessed"])
        lines.append(f"No reply to {tasks} can be made up here: requests that depend on one are not counted.")
    if found["calibration_first"]:
        lines.append(f"The run starts with a calibration of the box format: {REQUESTS}.")
    lines.append(
        f"Prices: {found['prices']}." if found["prices"] else "No known price: set vlm.prices to see the cost in USD."
    )
    return lines
