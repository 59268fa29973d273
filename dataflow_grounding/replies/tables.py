"""A Markdown table with a header, whose rows are items: | label | bbox |."""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_boxes import is_coordinate, numbers_in
from dataflow_grounding.replies.json_items import has_role

_RULE = lazy_pattern(r"\|(?:\s*:?-+:?\s*\|)+")  # below the header
# A header that names the numbers of a cell: Bounding Box (x1, y1, x2, y2)
_NAMES = lazy_pattern(r"[\w ]*[(\[]\s*(\w+),\s*(\w+),\s*(\w+),\s*(\w+)\s*[)\]]")
_EMPHASIS = " \t*`"  # around what is in a cell


class Table(NamedTuple):
    """The rows of a table as objects, the words around it, and whether it breaks off."""

    items: list[dict[str, str]]
    before: str
    after: str
    truncated: bool


def find_table(text: str) -> Table | None:
    """Return the first table of a text if it has boxes, else None."""
    lines = [line.strip() for line in text.splitlines()]
    lines_with_cells = [i for i, line in enumerate(lines) if _has_cells(line)]
    if len(lines_with_cells) < 2:
        return None  # a header alone says nothing
    first = lines_with_cells[0]
    line_count = len(list(takewhile(_has_cells, lines[first:])))  # up to the first line of words
    end = first + line_count
    header = _cells(lines[first])
    if not any(map(_is_of_boxes, header)):
        return None
    if len(set(header)) < len(header):
        raise UnreadableReply("the table has a column twice", "broken table")
    rows = [line for line in lines[first + 1 : end] if not _RULE.fullmatch(line)]
    # Only the text's last line may be a row that breaks off.
    is_cut = bool(rows) and end == len(lines) and not _is_whole(rows[-1], header)
    if is_cut:
        rows.pop()
    elif not rows:
        return None  # a table without rows doesn't say that nothing is there
    for row in rows:
        if not _is_whole(row, header):
            raise UnreadableReply(f"a row of the table is broken: {row[:40]!r}", "broken table")
    items = [_item(header, _cells(row)) for row in rows]
    before = "\n".join(lines[:first])
    after = "\n".join(lines[end:])
    return Table(items, before, after, truncated=is_cut)


def _has_cells(line: str) -> bool:
    return line.startswith("|")


def _is_of_boxes(name: str) -> bool:
    """Whether a column has coordinates: "bbox", "x1", "Box (x1, y1, x2, y2)"."""
    return bool(_names_in(name)) or is_coordinate(name) or has_role(name, "box")


def _item(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Return {"label": "cup", "bbox": "[1, 2, 3, 4]"} of a row."""
    item: dict[str, str] = {}
    for name, cell in zip(header, cells, strict=True):
        names = _names_in(name)
        numbers = numbers_in(cell) or []
        if names and len(names) == len(numbers):  # under "Box (x1, y1, x2, y2)"
            item.update(zip(names, numbers, strict=True))
        else:
            item[name] = cell
    return item


def _names_in(name: str) -> list[str]:
    match = _NAMES.fullmatch(name)
    names = list(match.groups()) if match is not None else []
    return names if all(map(is_coordinate, names)) else []


def _cells(row: str) -> list[str]:
    return [cell.strip(_EMPHASIS) for cell in row.strip("|").split("|")]


def _is_whole(row: str, header: Sequence[str]) -> bool:
    return row.endswith("|") and row.count("|") == len(header) + 1
