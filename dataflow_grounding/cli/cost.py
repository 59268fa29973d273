"""`cost`: what was paid for a run's folder."""

from collections.abc import Iterator

import click

from dataflow_grounding._util.terminal import counted
from dataflow_grounding.bucket import bucket
from dataflow_grounding.cli.arguments import Folder, answer, json_option
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.costs import PARTS, costs_of
from dataflow_grounding.serving.serving import FLEX

# Parts of a bill, by their keys in the figures, as they are called here.
_PARTS = {
    **{part: part for part in PARTS},
    "checks": "probe pictures",
    "kept": "from a gateway's cache",
    FLEX: FLEX,
}


@click.command("cost")
@click.argument("results", type=Folder(exists=True, file_okay=False))
@json_option
def cost(results: str, as_json: bool) -> None:
    """Show what the replies stored in the folder RESULTS cost, per step and for retries, samples,
    probe pictures, and those from a gateway's cache.
    """
    with bucket.copied(results, "run.json", replies=True) as folder:
        figures = costs_of(folder)
    answer(as_json, figures, _lines(figures))


def _lines(figures: JsonObject) -> Iterator[str]:
    for step in [*figures["steps"], {"step": "total", **figures}]:
        yield f"{step['step']}: {_words(step)}"
        for part, words in _PARTS.items():
            if step.get(part, {}).get("requests"):
                yield f"  of which {words}: {_words(step[part])}"
    if figures["cost_usd"] is None:
        yield (
            "Some of it has no known price (set vlm.prices in the spec), or the endpoint didn't"
            " report its tokens."
        )


def _words(bill: JsonObject) -> str:
    tokens = bill["tokens"]
    replies = counted(bill["requests"], "reply")
    if bill["cost_usd"] is None and not any(tokens.values()):
        return f"{replies}, tokens not reported"
    words = (
        f"{replies}, {tokens['input']:,} tokens in"
        f" ({tokens['cached']:,} cached), {tokens['output']:,} out"
    )
    if bill["cost_usd"] is None:
        return words
    return f"{words}, {bill['cost_usd']:.4f} USD"
