"""Figures as people see them: Markdown tables, charts as SVG files that stand alone, records of the
worst cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle
from typing import Any

import numpy as np

from dataflow_grounding.extras.evaluation.metrics.evaluating import Evaluation
from dataflow_grounding.images.display import page_text

_LEFT, _TOP, _SIDE = 60, 40, 360
_COLORS = ("#0b6bcb", "#d9480f", "#2f9e44", "#868e96")


def figures_page(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """What `Evaluation.to_json` says as tables; with a second run under `compared`, both beside
    each other.
    """
    runs = [figures]
    heads = ["measure", names[0], "95 %"]
    if other := figures.get("compared"):
        runs += [other["figures"], {**other["difference"], "intervals": other["intervals"]}]
        heads += [names[1], "95 %", "difference", "95 %"]
    rows, missing = [], []
    for name in (name for name, value in figures.items() if not isinstance(value, (Mapping, list))):
        row = [
            _shown(value) for run in runs for value in (run.get(name), run["intervals"].get(name))
        ]
        rows += [[name, *row]] if any(row) else []
        missing += [name] if figures[name] is None else []
    parts = [table(heads, rows), f"Nothing to measure: {', '.join(missing)}." if missing else ""]
    if other:
        test = other["mcnemar"]
        only = (
            f"{test['only_first_right']:,} expressions the first alone is right, on"
            f" {test['only_second_right']:,}"
        )
        parts.append(
            f"On {only} the second; if neither were better, p = {test['p']:.2g} (McNemar, exact)."
        )
        parts.append(f"What follows is of {names[0]} alone.")
    for kind, groups in figures["groups"].items():
        heads = [kind, *next(iter(groups.values()))]
        parts.append(
            table(heads, [[group, *map(_shown, row.values())] for group, row in groups.items()])
        )
    for cut in figures["cuts"]:
        parts.append(
            "score ≥ {score:.3g} keeps {kept:.1%} of the boxes, {right:.1%} of them right".format(
                **cut
            )
        )
    return "\n\n".join(filter(None, [*parts, *(f"Note: {note}" for note in figures["notes"])]))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other.

    Example:
        >>> print(table(["a", "b"], [["one", "2"]]))
        | a   | b |
        | --- | - |
        | one | 2 |
    """
    cells = [
        [cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (heads, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    line = "| " + " | ".join(f"{{:{width}}}" for width in widths) + " |"
    return "\n".join(
        line.format(*row) for row in [cells[0], ["-" * width for width in widths], *cells[1:]]
    )


def _shown(value: float | Sequence[float] | None) -> str:
    if isinstance(value, Sequence):
        return f"{value[0]:.3f} to {value[1]:.3f}"
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def line_chart(
    title: str, x_name: str, y_name: str, lines: Mapping[str, Sequence[Sequence[float]]]
) -> str:
    """An SVG of named lines; both axes run from 0 to 1.

    Example:
        >>> line_chart("Recall", "IoU", "share", {"a run": [(0, 1), (1, 0)]}).count("polyline")
        1
    """
    right, bottom, middle = _LEFT + _SIDE, _TOP + _SIDE, _SIDE / 2
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + 40}" height="{bottom + 60}"'
            ' font-family="Arial">'
        ),
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-weight="bold">{page_text(title)}</text>',
        (
            f'<text x="{_LEFT + middle}" y="{bottom + 44}"'
            f' text-anchor="middle">{page_text(x_name)}</text>'
        ),
        (
            f'<text transform="translate(18 {_TOP + middle})rotate(-90)"'
            f' text-anchor="middle">{page_text(y_name)}</text>'
        ),
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = _LEFT + tick * _SIDE, bottom - tick * _SIDE
        parts.append(f'<path d="M{_LEFT} {y}H{right}M{x} {_TOP}V{bottom}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for n, ((name, points), color) in enumerate(zip(lines.items(), cycle(_COLORS), strict=False)):
        places = " ".join(f"{_LEFT + x * _SIDE:.2f},{bottom - y * _SIDE:.2f}" for x, y in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_LEFT + 8}" y="{_TOP + 18 + 18 * n}"'
            f' fill="{color}">{page_text(name)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[dict[str, Any]]:
    """Records with the phrases that are not right, the smallest IoU of the first box first; `most`
    phrases.
    """
    overlap = run.columns["held"]
    worst = set(np.lexsort((overlap, run.right))[: min(most, (~run.right).sum())].tolist())
    places = count()
    for record in run.pairs:
        expressions = []
        for (gold, found), place in zip(record.phrases, places, strict=False):
            if place in worst:
                expressions.append({**gold, "text": f"{gold['text']} (gold)"})
                if found:
                    expressions.append(
                        {**found, "text": f"{found['text']} (found, IoU {overlap[place]:.2f})"}
                    )
        if expressions:
            yield {**record.gold, "expressions": expressions}
