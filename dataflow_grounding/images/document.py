"""A document as a page of one file: the figures of a bench.

Such pages run no script and load nothing. They share their look with the report and the review:
all of these begin with `colors.css`. What is called text here is escaped by these functions; what
is called HTML goes into the page as it is.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.images.display import page_text


def page_colors() -> str:
    """Return the styles that all pages begin with: colours for light and dark, and letters."""
    return _file("colors.css")


def safe(value: Any) -> str:
    """Return a value as text of a page: keys blotted out, escaped and cut as `page_text` does.

    Example:
        >>> safe("a <b> & c")
        'a &lt;b&gt; &amp; c'
    """
    return page_text(blotted_message(str(value)))


def style_hash(style: str) -> str:
    """Return what a page's Content-Security-Policy calls a style that it allows.

    It is `sha256-` with the digest of the style in base64.
    """
    digest = hashlib.sha256(style.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def document_page(
    title: str,
    header: str,
    sections: Iterable[str],
    footer: str,
    *,
    style: str = "",
) -> str:
    """Return a document as the HTML of a whole page.

    Args:
        title: The heading, as text.
        header: What comes below it, as HTML.
        sections: As `section` returns them.
        footer: HTML that fits into a paragraph.
        style: CSS of this page alone, which goes after that of all documents.
    """
    style = page_colors() + _file("document.css") + style
    return Template(_file("document.html")).substitute(
        title=safe(title),
        header=header,
        sections="\n".join(sections),
        footer=footer,
        style=style,
        style_hash=style_hash(style),
    )


def facts(*texts: str) -> str:
    """Return short facts, as text, as a paragraph of HTML whose lines break only between them.

    Example:
        >>> facts("3 pictures", "seed 1")
        '<p class="facts"><span>3 pictures</span> · <span>seed 1</span></p>'
    """
    return f'<p class="facts">{" · ".join(f"<span>{safe(text)}</span>" for text in texts)}</p>'


def section(heading: str, content: str) -> str:
    """Return a section of a page: the heading is text, the content is HTML."""
    return f"<section><h2>{safe(heading)}</h2>{content}</section>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of pairs of text, each a word and what is said of it, as HTML.

    Example:
        >>> definitions([("IoU", "how far boxes overlap")])
        '<dl><div><dt>IoU</dt><dd>how far boxes overlap</dd></div></dl>'
    """
    lines = [f"<div><dt>{safe(word)}</dt><dd>{safe(text)}</dd></div>" for word, text in pairs]
    return f"<dl>{''.join(lines)}</dl>"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: What it says; `""` or `"-"` for nothing.
        below: Smaller text below it, for instance an interval.
    """

    value: str
    below: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        name: The head of the row.
        cells: The cells after it; a text for a cell that has only a value.
    """

    name: str
    cells: Sequence[Cell | str]


def table(head: str, heads: Sequence[str], rows: Iterable[TableRow]) -> str:
    """Return a table as HTML. On a narrow screen, each figure is next to its column's head.

    Args:
        head: The head of the column with the rows' names, as text.
        heads: Those of the other columns, in order.
        rows: The rows, with a cell for each of `heads`.
    """
    columns = "".join(f'<th scope="col">{safe(text)}</th>' for text in (head, *heads))
    body = "\n".join(_row_html(row, heads) for row in rows)
    # what may have to be scrolled is reached by keyboard
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{safe(head)}"><table>'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _row_html(row: TableRow, heads: Sequence[str]) -> str:
    html = f'<th scope="row">{safe(row.name)}</th>'
    for cell, head in zip(row.cells, heads, strict=True):
        html += _cell_html(cell if isinstance(cell, Cell) else Cell(cell), head)
    return f"<tr>{html}</tr>"


def _cell_html(cell: Cell, head: str) -> str:
    look = ' class="none"' if cell.value == "-" else ""
    below = f"<small>{safe(cell.below)}</small>" if cell.below else ""
    return f'<td data-label="{safe(head)}"{look}>{safe(cell.value)}{below}</td>'


def readable_time(when: str) -> str:
    """Return a time in UTC, as JSON files have it, as people write it; any other text as it is.

    Example:
        >>> readable_time("2026-11-24T07:06:24Z")
        '2026-11-24 07:06 UTC'
    """
    day, _, clock = when.partition("T")
    return f"{day} {clock[:5]} UTC" if clock.endswith("Z") else when


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
