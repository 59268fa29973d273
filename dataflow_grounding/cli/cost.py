"""`cost`: what was paid for a results folder."""

from typing import Any

import click

from dataflow_grounding.jobs.costs import costs_of
from dataflow_grounding.terminal import counted, say, say_json


@click.command("cost")
@click.argument("results", type=click.Path(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(results: str, as_json: bool) -> int:
    """Show what the replies stored in the folder RESULTS cost, per step and for retries, samples and checks."""
    found = costs_of(results)
    if as_json:
        say_json(found)
        return 0
    for step in [*found["steps"], {"step": "total", **found}]:
        say(f"{step['step']}: {_words(step)}", err=False)
        for part in ("retries", "samples", "checks"):
            if step.get(part, {}).get("requests"):
                say(f"  of which {part}: {_words(step[part])}", err=False)
    if found["cost_usd"] is None:
        say("Some of it has no known price: set vlm.prices in the spec.", err=False)
    return 0


def _words(bill: dict[str, Any]) -> str:
    tokens = bill["tokens"]
    cost = "" if bill["cost_usd"] is None else f", {bill['cost_usd']:.4f} USD"
    given = f"{tokens['input']:,} tokens in ({tokens['cached']:,} cached), {tokens['output']:,} out"
    return f"{counted(bill['requests'], 'reply')}, {given}{cost}"
