"""The page of a report: what it says without scripts, the figures of its data set as charts, and
what may run in it.
"""

import base64
import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import accumulate, pairwise
from string import Template
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.records import STATUSES, is_number
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.summary import WARNINGS
from dataflow_grounding.extras.evaluation.figures.counting import FIGURES
from dataflow_grounding.extras.review._record_view import MEANING
from dataflow_grounding.extras.review._report_files import GENERATOR, script_json
from dataflow_grounding.images.display import page_text
from dataflow_grounding.images.drawing import PALETTE, text_color

_SCRIPTS = ("record.js", "report.js")
_FIGURES = ("images", "failures", "regions", "captions", "expressions", *STATUSES)
_FIGURES_IF_ANY = ("pending", "verified", "unverified", "doubtful", "suspect", "changed")
_MOST_BARS, _MOST_ROWS = 15, 200
_WIDTH, _HEIGHT, _CELL = 200, 14, 8  # of a bar, and of a cell each way, in SVG units


def page_file(name: str) -> str:
    """A file of a page as text: `report.css` with the colours of the palette, `--c0` and on, and
    the classes `.c0`.
    """
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    for n, color in enumerate(PALETTE if name == "report.css" else ()):
        text += f":root {{ --c{n}: rgb{color}; --ink{n}: rgb{text_color(color)}; }}\n"
        text += f".c{n} {{ --c: var(--c{n}); --ink: var(--ink{n}); }}\n"
    return text


def door_html(
    counts: Mapping[str, int],
    kinds: Mapping[str, int],
    about: Mapping[str, Any],
    inline: Iterable[str],
    *,
    title: str,
    summary: Mapping[str, Any],
    plots: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """The parts of the page.

    Args:
        counts, kinds: The figures by name, and how many failures there are of each kind.
        about: What the scripts need to begin.
        inline: Data that are part of the page, as HTML.
        title: The heading.
        summary: Shown of it: `model`, `seconds`, and `notes` that people should read.
        plots: The figures of the data set that `figures_of` found.
    """
    style, nonce = page_file("report.css"), secrets.token_urlsafe(16)
    page = Template(page_file("report.html")).substitute(
        generator=GENERATOR,
        title=page_text(blotted_message(title)),
        style=style,
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        nonce=nonce,
        facts=" · ".join(_facts(summary)),
        figures=_figures_html(counts),
        bar=_bar_html([counts.get(status, 0) for status in STATUSES]),
        notes=_notes_html(summary, kinds),
        plots=_plots_html(plots) if plots else "",
        about=script_json(about),
    )
    before, after = page.split("<!-- data -->")
    yield before
    yield from inline
    yield from (f'<script nonce="{nonce}">\n{page_file(name)}</script>\n' for name in _SCRIPTS)
    yield after


def _facts(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary.get("model"):
        yield f"<bdi>{page_text(summary['model'])}</bdi>"
    seconds: Any = summary.get("seconds")
    if is_number(seconds) and not summary.get("already_complete"):
        yield f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _figures_html(counts: Mapping[str, int]) -> str:
    return "".join(
        f'<div class="s-{name if counts[name] else "zero"}" title="{MEANING.get(name, "")}">'
        f"<dt>{name}</dt><dd>{counts[name]:,}</dd></div>"
        for name in (*_FIGURES, *_FIGURES_IF_ANY)
        if counts.get(name) or (name in counts and name in _FIGURES)
    )


def _notes_html(summary: Mapping[str, Any], kinds: Mapping[str, int]) -> str:
    """What the run noted, and why records failed, in words."""
    found = summary.get("notes")
    noted = found if isinstance(found, Mapping) else {}
    said = [
        f"{counted(noted[n], what)} {why}"
        for n, (what, why) in WARNINGS.items()
        if type(noted.get(n)) is int
    ]
    failed = ", ".join(f"{page_text(kind)} {n:,}" for kind, n in Counter(kinds).most_common())
    lines = [*map(page_text, said), *([f"Failed: {failed}"] if failed else [])]
    return "".join(f'<p class="facts" dir="auto">{line}.</p>\n' for line in lines)


def _bar_html(counts: Sequence[int]) -> str:
    shares = [100 * n / max(1, sum(counts)) for n in counts]
    begins = accumulate(shares, initial=0.0)
    parts = (
        f'<rect class="s-{status}" x="{x:.3f}%" width="{share:.3f}%" height="100%"/>'
        for status, x, share in zip(STATUSES, begins, shares, strict=False)
    )
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>' if any(counts) else ""


def _plots_html(figures: Mapping[str, Any]) -> str:
    """Charts with tables, then the single numbers in one table."""
    single, charts = [], list[str]()
    for name, row in FIGURES.items():
        value, kind, title = (
            figures.get(name),
            row.get("kind"),
            row["about"][0].upper() + row["about"][1:],
        )
        if value is None or value == {}:
            continue
        if kind in ("names", "bins"):
            most = max(1, *value.values())
            rows = [(key, _bar(n / most), f"{n:,}") for key, n in [*value.items()][:_MOST_ROWS]]
            charts.append(_chart(title, _table(title, rows[:_MOST_BARS]), rows[_MOST_BARS:]))
        elif kind == "grid":
            charts.append(_chart(title, _map(value), _thirds(value)))
        elif kind == "spread":
            edges = "5 % to 95 %: {p5:g} to {p95:g}".format(**value)
            single.append((title, f"mean {value['mean']:g}, median {value['median']:g}, {edges}"))
        else:
            single.append((title, f"{value:.1%}" if kind == "share" else f"{value:,}"))
    shown = "".join([*charts, _table("Numbers", single)])
    return (
        '<details class="plots"><summary>Figures of the data'
        f" set</summary>\n<div>{shown}</div></details>"
    )


def _chart(title: str, shown: str, more: Sequence[Sequence[str]]) -> str:
    table = f"<details><summary>More</summary>{_table(title, more)}</details>" if more else ""
    return (
        f'<figure class="plot"><figcaption>{page_text(title)}</figcaption>{shown}{table}</figure>\n'
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Rows of a name, which is text, and of cells, which are HTML."""
    cells = []
    for name, *others in rows:
        row = "".join(f"<td>{cell}</td>" for cell in others)
        cells.append(f'<tr><th scope="row"><bdi>{page_text(name)}</bdi></th>{row}</tr>')
    return (
        '<div class="numbers"><table'
        f' aria-label="{page_text(title)}">{"".join(cells)}</table></div>\n'
    )


def _bar(share: float) -> str:
    return _svg(_WIDTH, _HEIGHT, [f'<rect width="{_WIDTH * share:.1f}" height="{_HEIGHT}"/>'])


def _map(grid: Sequence[Sequence[int]]) -> str:
    """Where things are in their pictures: the more in a cell, the darker."""
    most, side, size = (
        max(map(max, grid)) or 1,
        _CELL * len(grid),
        f'width="{_CELL}" height="{_CELL}"',
    )
    cells = [
        f'<rect x="{x * _CELL}" y="{y * _CELL}" {size} fill-opacity="{(n / most) ** 0.5:.2f}"/>'
        for y, row in enumerate(grid)
        for x, n in enumerate(row)
        if n
    ]
    return _svg(side, side, [f'<rect class="ground" width="{side}" height="{side}"/>', *cells])


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} aria-hidden="true">{"".join(parts)}</svg>'


def _thirds(grid: Sequence[Sequence[int]]) -> list[list[str]]:
    """How much is in each ninth of the pictures."""
    cuts = [round(n * len(grid) / 3) for n in range(4)]
    bands = [
        [sum(map(sum, (row[a:b] for row in grid[c:d]))) for a, b in pairwise(cuts)]
        for c, d in pairwise(cuts)
    ]
    return [
        [name, *map("{:,}".format, band)]
        for name, band in zip(("top", "middle", "bottom"), bands, strict=True)
    ]
