"""`stats`: what a data set is like, and what to do about it before training."""

from __future__ import annotations

import os
from typing import Any

import click

from dataflow_grounding.cli.arguments import dataset_options, words_option
from dataflow_grounding.figures.counting import FIGURES, advice_on, figures_of, heat_map
from dataflow_grounding.figures.duplicates import known_id
from dataflow_grounding.records import dump_text
from dataflow_grounding.rows import write_text
from dataflow_grounding.terminal import say, say_json


@click.command("stats")
@click.argument("results", metavar="RESULTS…", nargs=-1, required=True)
@words_option("--synonyms", "Words that mean one thing, in a line; which lines are mixed is told.", str.lower)
@words_option("--test-ids", "Ids of pictures that are tested on elsewhere, in lines.", known_id)
@click.option("-o", "out", metavar="FOLDER", help="Write figures.json and places.svg, where boxes are, into it.")
@dataset_options
def command(results: tuple[str, ...], out: str | None, as_json: bool, **more: Any) -> int:
    """Show figures of RESULTS (folders of runs or files of records), and what to do about each before training.

    Of several, as of the parts of a split, the figures are of all together, and leaks those between them.
    """
    figures = figures_of(results, **more)
    advice = advice_on(figures)
    if out:
        write_text(os.path.join(out, "figures.json"), dump_text({**figures, "advice": advice}, 2) + "\n")
        write_text(os.path.join(out, "places.svg"), heat_map(figures["places"]))
    if as_json:
        say_json({**figures, "advice": advice})
        return 0
    for name, row in FIGURES.items():
        if row.get("kind") != "grid":
            say(f"{row['about']}: {_shown(figures[name], row.get('kind'))}", err=False)
        if name in advice:
            say(f"  → {advice[name]}", err=False)
    return 0


def _shown(value: Any, kind: str | None) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if isinstance(value, dict):
        listed = ", ".join(f"{name} {count:,}" for name, count in list(value.items())[:10])
        return (listed or "none") + (f", … ({len(value):,})" if len(value) > 10 else "")
    return f"{value:,}"
