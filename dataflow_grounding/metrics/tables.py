"""Figures as Markdown, for a terminal and for a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def figures_page(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """What `Evaluation.to_json` says as tables; with a second run under `compared`, both beside each other."""
    other = figures.get("compared")
    heads, rows = ["measure", names[0], "95 %"], []
    if other:
        heads += [names[1], "95 %", "difference", "95 %"]
    values = [name for name, value in figures.items() if not isinstance(value, (Mapping, list))]
    for name in values:
        row = [name, *_with_interval(figures, name)]
        if other:
            row += _with_interval(other["figures"], name)
            row += [_shown(other["difference"].get(name), "+"), _interval(other["intervals"].get(name))]
        if any(row[1:]):
            rows.append(row)
    missing = [name for name in values if figures[name] is None]
    parts = [table(heads, rows), f"Nothing to measure: {', '.join(missing)}." if missing else ""]
    if other:
        test = other["mcnemar"]
        only = f"{test['only_first_right']:,} expressions the first alone is right, on {test['only_second_right']:,}"
        parts.append(f"On {only} the second; if neither were better, p = {test['p']:.2g} (McNemar, exact).")
    for kind, groups in figures["groups"].items():
        heads = [kind, *next(iter(groups.values()))]
        parts.append(table(heads, [[group, *map(_shown, row.values())] for group, row in groups.items()]))
    for cut in figures["cuts"]:
        parts.append("score ≥ {score:.3g} keeps {kept:.1%} of the boxes, {right:.1%} of them right".format(**cut))
    return "\n\n".join(filter(None, [*parts, *(f"Note: {note}" for note in figures["notes"])]))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other.

    Example:
        >>> print(table(["a", "b"], [["one", "2"]]))
        | a   | b |
        | --- | - |
        | one | 2 |
    """
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    )


def _with_interval(figures: Mapping[str, Any], name: str) -> list[str]:
    return [_shown(figures[name]), _interval(figures["intervals"].get(name))]


def _interval(edges: Sequence[float] | None) -> str:
    return "" if edges is None else f"{edges[0]:.3f} to {edges[1]:.3f}"


def _shown(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}" if isinstance(value, float) else f"{value:,}"
