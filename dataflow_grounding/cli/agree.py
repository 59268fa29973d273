"""`agree`: how far two annotators agree."""

import click

from dataflow_grounding.metrics import Rules, agreement
from dataflow_grounding.terminal import say, say_json


@click.command("agree")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--plus-one", is_flag=True, help="x2 and y2 are pixels that belong to the box.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(first: str, second: str, plus_one: bool, as_json: bool) -> int:
    """Show how far two annotators agree: A and B are folders or annotations files of the same images and captions."""
    figures = agreement(first, second, Rules(plus_one=plus_one))
    if as_json:
        say_json(figures)
        return 0
    for name, value in figures.items():
        say(f"{name.replace('_', ' '):28} {'-' if value is None else value}", err=False)
    return 0
