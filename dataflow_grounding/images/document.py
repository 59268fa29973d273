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
    """Return a value as text of a page: keys blotted out, escaped and cut as `page_text` does."""
    return page_text(blotted_message(str(value)))


def style_hash(style: str) -> str:
    """Return what a page's Content-Security-Policy calls a style that it allows."""
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
    """Return a whole page; `title` is text, all else is HTML."""
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
    """Return short facts as a paragraph whose lines break only between them."""
    return f'<p class="facts">{" · ".join(f"<span>{safe(text)}</span>" for text in texts)}</p>'


def section(heading: str, content: str) -> str:
    """Return a section of a page: the heading is text, the content is HTML."""
    return f"<section><h2>{safe(heading)}</h2>{content}</section>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    lines = [f"<div><dt>{safe(word)}</dt><dd>{safe(text)}</dd></div>" for word, text in pairs]
    return f"<dl>{''.join(lines)}</dl>"


@dataclass(frozen=True)
class Cell:
    """A cell with smaller text below it; the value is "-" for nothing."""

    value: str
    below: str = ""


@dataclass(frozen=True)
class TableRow:
    name: str
    cells: Sequence[Cell | str]


def table(head: str, heads: Sequence[str], rows: Iterable[TableRow]) -> str:
    """Return a table as HTML. On a narrow screen, each figure is next to its column's head."""
    columns = "".join(f'<th scope="col">{safe(text)}</th>' for text in (head, *heads))
    body = "\n".join(_row_html(row, heads) for row in rows)
    # by `tabindex`, a table that has to be scrolled is reached by keyboard
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{safe(head)}"><table>'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _row_html(row: TableRow, heads: Sequence[str]) -> str:
    html = f'<th scope="row">{safe(row.name)}</th>'
    for stated, head in zip(row.cells, heads, strict=True):
        cell = stated if isinstance(stated, Cell) else Cell(stated)
        css_class = ' class="none"' if cell.value == "-" else ""
        below = f"<small>{safe(cell.below)}</small>" if cell.below else ""
        html += f'<td data-label="{safe(head)}"{css_class}>{safe(cell.value)}{below}</td>'
    return f"<tr>{html}</tr>"


def readable_time(when: str) -> str:
    """Return a time in UTC, as JSON files have it, as people write it; any other text as it is."""
    day, _, clock = when.partition("T")
    return f"{day} {clock[:5]} UTC" if clock.endswith("Z") else when


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
