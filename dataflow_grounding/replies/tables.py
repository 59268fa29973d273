"""Tables and lists of values whose first line names the columns: the names settle the order of the coordinates."""

from __future__ import annotations

import re
from typing import NamedTuple

from dataflow_grounding.frames import Order
from dataflow_grounding.replies.json_keys import CORNERS, LABEL_KEYS, plain_key
from dataflow_grounding.replies.parsed_reply import ParsedReply, RawBox, Said, number

_SEPARATORS = "|\t;,"
_RULE = re.compile(r"[\s|:+=-]+")
_MARKUP = " *`\"'_"


class Columns(NamedTuple):
    """Where a table has its four coordinates and its labels; `width` is how many columns it has."""

    separator: str
    width: int
    coordinates: tuple[int, ...]
    order: Order
    label: int | None

    def take_row(self, line: str, parsed: ParsedReply) -> bool:
        """Add the box of one row to `parsed`; False if the line is not one of the table's."""
        cells = _cells(line, self.separator)
        if _RULE.fullmatch(line):
            return True
        if len(cells) != self.width:
            if sum(number(cell) is not None for cell in cells) >= 4:
                parsed.drop(f"a row that doesn't fit its table: {line.strip()[:60]!r}")
                return True
            return False
        numbers = [number(cells[i]) for i in self.coordinates]
        label = cells[self.label] if self.label is not None else ""
        said = Said((label,) if label else ())
        known = tuple(value for value in numbers if value is not None)
        if len(known) == 4:
            parsed.put(RawBox("box", known, said, self.order))
        else:
            parsed.add([cells[i] for i in self.coordinates], said)
        return True


def columns_of(line: str) -> Columns | None:
    """Return the columns that a line names, when coordinates are among them."""
    for separator in _SEPARATORS if len(line) > 6 else "":
        if line.count(separator) < 3:
            continue
        names = [plain_key(cell) for cell in _cells(line[:1000], separator)]
        for corners, order in CORNERS:
            if all(names.count(corner) == 1 for corner in corners):
                coordinates = tuple(names.index(corner) for corner in corners)
                label = next((names.index(key) for key in LABEL_KEYS if key in names), None)
                others = [i for i, name in enumerate(names) if name and i not in coordinates]
                label = others[0] if label is None and others else label
                return Columns(separator, len(names), coordinates, order, label)
    return None


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip(_MARKUP) for cell in line.split(separator)]
