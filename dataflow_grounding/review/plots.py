"""Figures of a report: those of `stats` as small charts in SVG, each with its numbers in a table."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dataflow_grounding.figures.counting import FIGURES
from dataflow_grounding.review.door_html import page_text

_MOST_BARS, _MOST_ROWS = 15, 200
_ROW, _NAMES, _BARS, _WIDTH, _CELL = 20, 150, 200, 420, 8  # heights and widths in SVG units
_LONGEST = 22  # letters of a name beside its bar


def plots_html(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures that `figures_of` found, as HTML: charts with tables, then the single numbers in one table."""
    single = []
    for name, row in FIGURES.items():
        value, kind, title = figures.get(name), row.get("kind"), row["about"][0].upper() + row["about"][1:]
        if value is None or value == {}:
            continue
        if kind in ("names", "bins"):
            yield _figure(title, _bars(value), [(key, f"{n:,}") for key, n in value.items()])
        elif kind == "grid":
            yield _figure(title, _map(value), _thirds(value))
        elif kind == "spread":
            edges = "5 % to 95 %: {p5:g} to {p95:g}".format(**value)
            single.append((title, f"mean {value['mean']:g}, median {value['median']:g}, {edges}"))
        else:
            single.append((title, f"{value:.1%}" if kind == "share" else f"{value:,}"))
    yield _table("Numbers", single)


def _figure(title: str, svg: str, rows: Sequence[Sequence[str]]) -> str:
    table = f"<details><summary>Table</summary>{_table(title, rows[:_MOST_ROWS])}</details>"
    return f'<figure class="plot"><figcaption>{page_text(title)}</figcaption>{svg}{table}</figure>\n'


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    cells = []
    for name, *numbers in rows:
        row = "".join(f"<td>{page_text(n)}</td>" for n in numbers)
        cells.append(f'<tr><th scope="row"><bdi>{page_text(name)}</bdi></th>{row}</tr>')
    return f'<div class="numbers"><table aria-label="{page_text(title)}">{"".join(cells)}</table></div>\n'


def _bars(counts: Mapping[str, int]) -> str:
    shown, parts = list(counts.items())[:_MOST_BARS], []
    for place, (name, n) in enumerate(shown):
        y, width = place * _ROW, _BARS * n / max(1, *counts.values())
        short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
        parts.append(
            f'<text x="{_NAMES - 8}" y="{y + 14}" text-anchor="end">{page_text(short)}</text>'
            f'<rect x="{_NAMES}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}"/>'
            f'<text x="{_NAMES + width + 6:.1f}" y="{y + 14}" class="count">{n:,}</text>'
        )
    return _svg(_WIDTH, _ROW * len(shown), parts)


def _map(grid: Sequence[Sequence[int]]) -> str:
    """Where things are in their pictures: the more in a cell, the darker."""
    most, side = max(map(max, grid)) or 1, _CELL * len(grid)
    parts = [f'<rect class="ground" width="{side}" height="{side}"/>']
    for y, row in enumerate(grid):
        for x, n in enumerate(row):
            place = f'x="{x * _CELL}" y="{y * _CELL}" width="{_CELL}" height="{_CELL}"'
            parts += [f'<rect {place} fill-opacity="{(n / most) ** 0.5:.2f}"/>'] if n else []
    return _svg(side, side, parts)


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} aria-hidden="true">{"".join(parts)}</svg>'


def _thirds(grid: Sequence[Sequence[int]]) -> list[list[str]]:
    """How much is in each ninth of the pictures."""
    cuts = [round(n * len(grid) / 3) for n in range(4)]
    bands = [[sum(map(sum, (row[a:b] for row in grid[c:d]))) for a, b in pairwise(cuts)] for c, d in pairwise(cuts)]
    return [[name, *map("{:,}".format, band)] for name, band in zip(("top", "middle", "bottom"), bands, strict=True)]
