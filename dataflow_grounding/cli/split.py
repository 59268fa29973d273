"""`split`: parts of results that have no picture in common."""

import re
from typing import Any

import click

from dataflow_grounding.cli.arguments import dataset_options
from dataflow_grounding.figures.splitting import split
from dataflow_grounding.terminal import counted, say, say_json


@click.command("split")
@click.argument("results", metavar="RESULTS")
@click.option("-o", "out", required=True, metavar="DIR", help="The folder to make, with one file per part.")
@click.option(
    "--ratios",
    default="0.8/0.1/0.1",
    show_default=True,
    metavar="A/B/C",
    help="How large train, val and test are; A/B: train and test.",
)
@click.option("--seed", default=0, show_default=True, help="Another seed gives other parts.")
@dataset_options
def command(results: str, out: str, ratios: str, as_json: bool, **more: Any) -> int:
    """Split RESULTS (a run's folder or a file of records) by picture; those that are nearly the same stay together."""
    weights = [float(part) if re.fullmatch(r"[0-9]*\.?[0-9]+", part) else 0 for part in ratios.split("/")]
    if len(weights) not in (2, 3) or min(weights) <= 0:
        raise click.UsageError("--ratios should be two or three numbers above 0: 0.8/0.2, 0.8/0.1/0.1")
    names = ["train", "val", "test"] if len(weights) == 3 else ["train", "test"]
    done = split(results, out, dict(zip(names, weights, strict=True)), **more)
    if as_json:
        say_json(done)
        return 0
    for name, count in done["parts"].items():
        say(f"{out}/{name}.jsonl: {', '.join(counted(number, what[:-1]) for what, number in count.items())}", err=False)
    say(f"nearly the same as an earlier picture, and in its part: {counted(done['alike'], 'picture')}")
    say(f"can't be read, and told apart by path alone: {counted(done['unread'], 'picture')}")
    return 0
