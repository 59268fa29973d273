"""Figures as Markdown, for a terminal and for a file."""

from collections.abc import Mapping, Sequence
from typing import Any


def figures_page(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """What `Evaluation.to_json` says as tables; with a second run under `compared`, both beside each other."""
    runs = [figures]
    heads = ["measure", names[0], "95 %"]
    if other := figures.get("compared"):
        runs += [other["figures"], {**other["difference"], "intervals": other["intervals"]}]
        heads += [names[1], "95 %", "difference", "95 %"]
    rows, missing = [], []
    for name in (name for name, value in figures.items() if not isinstance(value, (Mapping, list))):
        row = [shown for run in runs for shown in (_shown(run.get(name)), _interval(run["intervals"].get(name)))]
        rows += [[name, *row]] if any(row) else []
        missing += [name] if figures[name] is None else []
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
    line = "| " + " | ".join(f"{{:{width}}}" for width in widths) + " |"
    return "\n".join(line.format(*row) for row in [cells[0], ["-" * width for width in widths], *cells[1:]])


def _interval(edges: Sequence[float] | None) -> str:
    return "" if edges is None else f"{edges[0]:.3f} to {edges[1]:.3f}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
