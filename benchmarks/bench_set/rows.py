"""The lines of docs/bench.md's table for a `bench.json`, computed again from its replies.

`python -m benchmarks.bench_set.rows benchmarks/bench_rows/my-model.json` prints them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.bench.document import read_document
from dataflow_grounding.bench.scoring import scored

FIGURES = ("precision_at_iou_0.5", "recall_at_iou_0.5", "n_acc", "il_mcc", "span_exact_f1")
"""The columns between the way and the replies."""


def lines_of(path: Path) -> Iterator[str]:
    """Yield a line for each way of the file.

    Raises InputError for a file that is no bench.json, or isn't about all pictures.
    """
    document = read_document(str(path))
    if document["pictures"] is not None:
        raise InputError(f"{path}: a row is about all pictures: leave out --pictures")
    document = scored(document, path=str(path))
    model = document["model"].replace("`", "'").replace("|", "/")
    for way, of_way in document["ways"].items():
        figures = of_way["figures"]
        cells = [_cell(figures["all"].get(name)) for name in FIGURES]
        replies = f"[{path.name}](../benchmarks/bench_rows/{path.name})"
        yield f"| {' | '.join([f'`{model}`', _way(way, figures), *cells, replies])} |"


def _way(way: str, figures: Mapping[str, Any]) -> str:
    """Return a way's name, with what is to be known of its figures."""
    unchecked = figures["counts"]["unchecked"]
    phrases = figures["all"]["phrases"]
    return f"`{way}`, {unchecked} of {phrases} phrases unchecked" if unchecked else f"`{way}`"


def _cell(figure: Mapping[str, Any] | None) -> str:
    """Return a figure with its interval, to three and two digits; "" for none."""
    if figure is None or figure["value"] is None:
        return ""
    text = _number(figure["value"], 3)
    if figure["interval"] is None:
        return text
    low, high = figure["interval"]
    between = "–" if low >= 0 else " to "
    return f"{text} ({_number(low, 2)}{between}{_number(high, 2)})"


def _number(value: float, digits: int) -> str:
    """Return a number without the 0 before its point: `.988`, `-.68`, `1.00`."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="+", help="a bench.json")
    for path in parser.parse_args().file:
        try:
            print("\n".join(lines_of(path)))
        except InputError as error:
            raise SystemExit(str(error)) from None
