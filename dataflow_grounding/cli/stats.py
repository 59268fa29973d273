"""`stats`: what a data set is like, and what to do about it before training."""

import math
import os
from typing import Any

import click

from dataflow_grounding.cli.arguments import dataset_options
from dataflow_grounding.figures.counting import FIGURES, advice_on, figures_of
from dataflow_grounding.terminal import say, say_json

_SHADES = " .:-=+*#%@"


@click.command("stats")
@click.argument("results", metavar="RESULTS…", nargs=-1, required=True)
@click.option(
    "--test-ids",
    type=click.File(encoding="utf-8-sig", errors="replace"),
    default=os.devnull,
    help="Ids of pictures that are tested on elsewhere, in lines.",
)
@dataset_options
def command(results: tuple[str, ...], as_json: bool, **more: Any) -> int:
    """Show figures of RESULTS (folders of runs or files of records), and what to do about each before training.

    Of several, as of the parts of a split, the figures are of all together, and leaks those between them.
    """
    figures = figures_of(results, **more)
    advice = advice_on(figures)
    if as_json:
        say_json({**figures, "advice": advice})
        return 0
    for name, row in FIGURES.items():
        say(f"{row['about']}: {_shown(figures[name], row.get('kind'))}", err=False)
        if name in advice:
            say(f"  → {advice[name]}", err=False)
    return 0


def _shown(value: Any, kind: str | None) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if kind == "grid":  # two cells as one: letters are twice as high as wide
        rows = [[a + b for a, b in zip(*value[y : y + 2], strict=True)] for y in range(0, len(value), 2)]
        most = max(map(max, rows))
        return "".join("\n  " + "".join(_SHADES[math.ceil(9 * count / most)] for count in row) for row in rows)
    if isinstance(value, dict):
        listed = ", ".join(f"{name} {count:,}" for name, count in list(value.items())[:10])
        return (listed or "none") + (f", … ({len(value):,})" if len(value) > 10 else "")
    return f"{value:,}"
