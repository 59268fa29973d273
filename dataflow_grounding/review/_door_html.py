"""The page of a report in HTML: all that it shows before its scripts fill in records."""

import base64
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice, pairwise
from string import Template
from types import MappingProxyType
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.records import STATUSES, VERDICTS, JsonObject, is_number
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.summary import REMARKS, WARNINGS
from dataflow_grounding.evaluation.figures.counting import FIGURES
from dataflow_grounding.images.display import page_text
from dataflow_grounding.images.drawing import PAGE_PALETTE, text_color
from dataflow_grounding.review._record_view import MEANING
from dataflow_grounding.review._report_files import GENERATOR, script_json

# Scripts of a page, in this order, and its styles.
_SCRIPTS = ("record.js", "page.js")
_REVIEW_SCRIPTS = (
    "decisions.js",
    "phrases.js",
    "stage.js",
    "grid.js",
    "chooser.js",
    "single.js",
    "review.js",
)
# What one of both pages alone has in page.html.
_PARTS = re.compile("<!-- (report|review) -->\n(.*?)<!-- end -->\n", re.DOTALL)
_DOUBTS = ("doubtful", "unusual", "disputed", "suspect")
_FIGURES = (
    "images",
    "done",
    "failures",
    "captions",
    "expressions",
    *STATUSES,
    "regions",
    "pending",
    *VERDICTS,
    *_DOUBTS,
    "changed",
)
"""What the page counts, in order."""
_ALSO_ZERO = {"images", "done", "captions", "expressions", "grounded"}
"""Those that are shown where they are 0, too: then a run brought nothing."""
_MOST_BARS = 15  # of a chart; further rows are in a table below it
# Columns of the table of classes, with their heads: "undecided" is a check's word for a phrase.
_CLASS_COUNTS = {"pictures": "pictures", "boxes": "boxes", "none": "none", "undecided": "unclear"}
_MOST_ROWS = 200  # of a table; more make a page slow, and nobody reads them
# In SVG units, which are pixels.
_BAR_WIDTH = 200  # of the longest bar
_BAR_HEIGHT = 14
_CELL = 8  # a side of a cell of a heat map


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _style(is_review: bool) -> str:
    style = _file("colors.css") + _file("report.css")
    for number, color in enumerate(PAGE_PALETTE):
        ink = text_color(color)
        style += f":root {{ --c{number}: rgb{color}; --ink{number}: rgb{ink}; }}\n"
        style += f".c{number} {{ --c: var(--c{number}); --ink: var(--ink{number}); }}\n"
    return style + _file("review.css") if is_review else style


def door_html(
    about: JsonObject,
    inline: Iterable[str] = (),
    *,
    title: str,
    counts: Mapping[str, int] = MappingProxyType({}),
    failure_kinds: Mapping[str, int] = MappingProxyType({}),
    summary: JsonObject = MappingProxyType({}),
    plots: JsonObject | None = None,
    said_next_to_answers: str = "",
) -> Iterator[str]:
    """Yield the page in parts; a policy in it lets no script run but its own.

    `about` is what the scripts need to begin; `inline` has data as HTML. With a `review` in `about`
    it is the page of a review, which asks its server.
    """
    is_review = "review" in about
    style = _style(is_review)
    digest = hashlib.sha256(style.encode()).digest()
    nonce = secrets.token_urlsafe(16)
    kind = "review" if is_review else "report"
    html = _PARTS.sub(lambda part: part[2] if part[1] == kind else "", _file("page.html"))
    page = Template(html).substitute(
        generator=GENERATOR,
        title=page_text(blotted_message(title)),
        style=style,
        # what the page's Content-Security-Policy calls a style that it allows
        style_hash=f"sha256-{base64.b64encode(digest).decode()}",
        nonce=nonce,
        connect="'self'" if is_review else "'none'",
        facts=" · ".join(_facts(summary)),
        figures=_figures_html(counts),
        bar=_status_bar_html(counts),
        notes=_notes_html(summary, failure_kinds, said_next_to_answers),
        plots=_plots_html(plots) if plots else "",
        about=script_json(about),
    )
    before, after = page.split("<!-- data -->")
    yield before
    yield from inline
    for name in (*_SCRIPTS, *(_REVIEW_SCRIPTS if is_review else ())):
        yield f'<script nonce="{nonce}">\n{_file(name)}</script>\n'
    yield after


def _facts(summary: JsonObject) -> Iterator[str]:
    """Yield HTML for the line below the title: the model, and how long the run took."""
    if summary.get("model"):
        yield f"<bdi>{page_text(summary['model'])}</bdi>"
    seconds: Any = summary.get("seconds")
    if is_number(seconds) and not summary.get("already_complete"):
        took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
        # With stored replies (`replayed`) it took a part of the time: earlier runs took the rest.
        yield f"last run {took}" if summary.get("replayed") else took


def _figures_html(counts: Mapping[str, int]) -> str:
    cells = []
    for name in _FIGURES:
        number = counts.get(name)
        if number is None:  # it isn't known
            continue
        if number == 0 and name not in _ALSO_ZERO:
            continue
        style = name.replace(" ", "-") if number else "zero"  # report.css gives 0 no colour
        cells.append(
            f'<div class="s-{style}" title="{MEANING.get(name, "")}">'
            f"<dt>{name}</dt><dd>{number:,}</dd></div>"
        )
    return "".join(cells)


def _notes_html(
    summary: JsonObject, failure_kinds: Mapping[str, int], said_next_to_answers: str
) -> str:
    notes = summary.get("notes")
    lines = []
    box_format = summary.get("box_format")
    if isinstance(box_format, Mapping) and box_format.get("name"):
        # `from` says how the format is known, and of a measured one how precise boxes can be.
        lines.append(page_text(f"Box format: {box_format['name']} ({box_format.get('from')})"))
    # A warning is a noun and what is said of it: "2 answers dropped from replies: …".
    for name, (noun, warning) in {**WARNINGS, **REMARKS}.items():
        number = notes.get(name) if isinstance(notes, Mapping) else None
        if type(number) is int:  # not true, which `isinstance` would take for 1
            lines.append(page_text(f"{counted(number, noun)} {warning}"))
    if said_next_to_answers:
        lines.append(page_text(f"Said next to answers: {said_next_to_answers}"))
    if failure_kinds:
        most_common = Counter(failure_kinds).most_common()
        failed = [f"{page_text(kind)} {number:,}" for kind, number in most_common]
        lines.append(f"Failed: {', '.join(failed)}")
    return "".join(f'<p class="facts" dir="auto">{line}.</p>\n' for line in lines)


def _status_bar_html(counts: Mapping[str, int]) -> str:
    total = sum(counts.get(status, 0) for status in STATUSES)
    if not total:
        return ""
    parts = []
    begin = 0.0
    for status in STATUSES:
        percent = 100 * counts.get(status, 0) / total
        parts.append(
            f'<rect class="s-{status}" x="{begin:.3f}%" width="{percent:.3f}%" height="100%"/>'
        )
        begin += percent
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'


def _plots_html(figures: JsonObject) -> str:
    charts = []
    numbers = []
    for name, figure in FIGURES.items():
        value = figures.get(name)
        if value is None or value in ({}, []):
            continue
        kind = figure.kind
        title = figure.about[0].upper() + figure.about[1:]
        if kind == "table":
            charts.append(_class_table(title, value))
        elif kind == "names":
            charts.append(_bar_chart(title, value))
        elif kind == "grid":
            charts.append(_chart(title, _heat_map(value), _counts_by_ninth(value)))
        else:
            numbers.append((title, _number_text(kind, value)))
    shown = "".join([*charts, _table("Numbers", numbers)])
    return (
        '<details class="plots"><summary>Figures of the data'
        f" set</summary>\n<div>{shown}</div></details>"
    )


def _number_text(kind: str, value: Any) -> str:
    if kind == "spread":
        edges = f"5 % to 95 %: {value['p5']:g} to {value['p95']:g}"
        return f"mean {value['mean']:g}, median {value['median']:g}, {edges}"
    return f"{value:.1%}" if kind == "share" else f"{value:,}"


def _class_table(title: str, rows: Sequence[JsonObject]) -> str:
    counted_keys = list(_CLASS_COUNTS)
    if not any(row["undecided"] for row in rows):  # a phone's screen has little room
        counted_keys.remove("undecided")
    counted_heads = [_CLASS_COUNTS[key] for key in counted_keys]
    names = ("class", *counted_heads, "mean side")
    heads = "".join(f"<th scope=col>{page_text(head)}</th>" for head in names)
    lines = [_class_row(row, counted_keys) for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f'<tr><th scope="row">… ({len(rows):,})</th></tr>')
    label = page_text(title)
    body = f"<tr>{heads}</tr>{''.join(lines)}"
    table = f'<table class="classes" aria-label="{label}">{body}</table>'
    return f'<figure class="plot"><figcaption>{page_text(title)}</figcaption>{table}</figure>\n'


def _class_row(row: JsonObject, counted_keys: Sequence[str]) -> str:
    side = row["mean_side"]
    numbers = [f"{row[key]:,}" for key in counted_keys]
    numbers.append("–" if side is None else f"{side:,.0f} px")
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    return f'<tr><th scope="row"><bdi>{page_text(row["class"])}</bdi></th>{cells}</tr>'


def _bar_chart(title: str, counts: Mapping[str, int]) -> str:
    largest = max(1, *counts.values())  # bars are divided by it
    rows = []
    for name, number in islice(counts.items(), _MOST_ROWS):
        bar = f'<rect width="{_BAR_WIDTH * (number / largest):.1f}" height="{_BAR_HEIGHT}"/>'
        rows.append((name, _svg(_BAR_WIDTH, _BAR_HEIGHT, [bar]), f"{number:,}"))
    return _chart(title, _table(title, rows[:_MOST_BARS]), rows[_MOST_BARS:])


def _chart(title: str, shown: str, more: Sequence[Sequence[str]]) -> str:
    """Return a chart of HTML, `shown`, and of a table that opens when it is asked for."""
    table = f"<details><summary>More</summary>{_table(title, more)}</details>" if more else ""
    return (
        f'<figure class="plot"><figcaption>{page_text(title)}</figcaption>{shown}{table}</figure>\n'
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table; a row is its name, which is escaped, and cells, which are HTML already."""
    lines = []
    for name, *cells in rows:
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row"><bdi>{page_text(name)}</bdi></th>{row}</tr>')
    return (
        '<div class="numbers"><table'
        f' aria-label="{page_text(title)}">{"".join(lines)}</table></div>\n'
    )


def _heat_map(grid: Sequence[Sequence[int]]) -> str:
    most = max(max(row) for row in grid) or 1  # where no cell has anything, nothing is divided by 0
    side = _CELL * len(grid)
    size = f'width="{_CELL}" height="{_CELL}"'
    parts = [f'<rect class="ground" width="{side}" height="{side}"/>']
    for y, row in enumerate(grid):
        for x, number in enumerate(row):
            if number:
                corner = f'x="{x * _CELL}" y="{y * _CELL}"'
                # The root, so that cells with few are seen next to one with many.
                parts.append(f'<rect {corner} {size} fill-opacity="{(number / most) ** 0.5:.2f}"/>')
    return _svg(side, side, parts)


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} aria-hidden="true">{"".join(parts)}</svg>'


def _counts_by_ninth(grid: Sequence[Sequence[int]]) -> list[list[str]]:
    """Return sums of three by three parts: [["top", "1", "0", "2"], ["middle", …], …]."""
    # A screen reader can say these. A grid of 32 cells a side is cut at 0, 11, 21 and 32.
    cuts = [round(third * len(grid) / 3) for third in range(4)]
    rows = []
    for name, (top, bottom) in zip(("top", "middle", "bottom"), pairwise(cuts), strict=True):
        cells = [name]
        for left, right in pairwise(cuts):
            number = sum(sum(row[left:right]) for row in grid[top:bottom])
            cells.append(f"{number:,}")
        rows.append(cells)
    return rows
