"""Figures of a report: those of `stats` as small charts in SVG, each with its numbers in a table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding.figures.counting import FIGURES
from dataflow_grounding.review.door_html import page_text

_MOST_BARS = 15
_ROW, _NAMES, _BARS, _COUNTS = 20, 150, 200, 70  # heights and widths in SVG units
_LONGEST = 22  # letters of a name beside its bar
_CELL = 8


def plots_html(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures that `figures_of` found, as HTML: charts with tables, then the single numbers in one table."""
    single = []
    for name, row in FIGURES.items():
        value, kind = figures.get(name), row.get("kind")
        about = _sentence(row["about"])
        if kind in ("names", "bins") and value:
            yield _figure(about, _bars(value), ("", "count"), [(key, f"{n:,}") for key, n in value.items()])
        elif kind == "grid" and value:
            rows = [("", *(f"{n:,}" for n in row)) for row in _thirds(value)]
            yield _figure(about, _map(value), ("", "left", "middle", "right"), _labelled(rows))
        elif kind == "spread" and value:
            single.append(
                (
                    about,
                    f"mean {value['mean']:g}, median {value['median']:g}, 5 % to 95 %: "
                    f"{value['p5']:g} to {value['p95']:g}",
                )
            )
        elif value is not None and value != {} and kind != "grid":
            single.append((about, f"{value:.1%}" if kind == "share" else f"{value:,}"))
    yield _table("Numbers", ("", ""), single)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figure(title: str, svg: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    summary = "<summary>Table</summary>"
    inside = f"{svg}<details>{summary}{_table(title, heads, rows[:200])}</details>"
    return f'<figure class="plot"><figcaption>{page_text(title)}</figcaption>{inside}</figure>\n'


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{page_text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row"><bdi>{page_text(row[0])}</bdi></th>'
        + "".join(f"<td>{page_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    head = f"<tr>{head}</tr>" if any(heads) else ""
    return f'<div class="numbers"><table aria-label="{page_text(title)}">{head}{body}</table></div>\n'


def _bars(counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:_MOST_BARS]
    most = max(n for _, n in shown) or 1
    parts = []
    for place, (name, n) in enumerate(shown):
        y, width = place * _ROW, _BARS * n / most
        short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
        parts.append(
            f'<text x="{_NAMES - 8}" y="{y + 14}" text-anchor="end">{page_text(short)}</text>'
            f'<rect x="{_NAMES}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}"/>'
            f'<text x="{_NAMES + width + 6:.1f}" y="{y + 14}" class="count">{n:,}</text>'
        )
    return _svg(_NAMES + _BARS + _COUNTS, _ROW * len(shown), parts)


def _map(grid: Sequence[Sequence[int]]) -> str:
    """Where things are in their pictures: the more in a cell, the darker."""
    most = max(map(max, grid)) or 1
    cells = [
        f'<rect x="{x * _CELL}" y="{y * _CELL}" width="{_CELL}" height="{_CELL}" fill-opacity="{(n / most) ** 0.5:.2f}"/>'
        for y, row in enumerate(grid)
        for x, n in enumerate(row)
        if n
    ]
    side = _CELL * len(grid)
    return _svg(side, side, [f'<rect class="ground" width="{side}" height="{side}"/>', *cells])


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">{"".join(parts)}</svg>'


def _thirds(grid: Sequence[Sequence[int]]) -> list[list[int]]:
    third = [min(3 * place // len(grid), 2) for place in range(len(grid))]
    sums = [[0] * 3 for _ in range(3)]
    for y, row in enumerate(grid):
        for x, n in enumerate(row):
            sums[third[y]][third[x]] += n
    return sums


def _labelled(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    return [(name, *row[1:]) for name, row in zip(("top", "middle", "bottom"), rows, strict=True)]
