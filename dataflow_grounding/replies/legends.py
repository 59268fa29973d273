"""The order and the unit that a reply itself states for its numbers."""

from __future__ import annotations

import re
from dataclasses import replace

from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.frames import Order
from dataflow_grounding.replies.json_keys import CORNERS, ORDER_KEYS, plain_key
from dataflow_grounding.replies.parsed_reply import RawBox

_NAME = r"(?:[xy]_?(?:min|max|\d|center)?|(?:min|max|center|c)_?[xy]|left|top|right|bottom|w(?:idth)?|h(?:eight)?)"
LEGEND = re.compile(
    rf"[\[(]?(?<![\w.])({_NAME}(?:(?:\s*[,/;|]\s*|\s+){_NAME}){{3}})(?!\w|\s*[=:]\s*[\d.])[\])]?"
    r"|\b(?:bbox_|box_)?(xyxy|yxyx|xywh|cxcywh|ltrb|ltwh|tlbr|tlwh)\b",
    re.IGNORECASE,
)
_WORD = r"(?:(px|pixels?)|%|per ?cent(?:ages?)?)(?!\w)"
_UNIT = re.compile(rf"(?:absolute\s+)?{_WORD}(?:[\s_-]+coord\w*)?", re.IGNORECASE)
_IN_UNIT = re.compile(
    rf"(?:\b(?:in|as|are|absolute)\s+(?:[a-z]+\s+)?|[(\[]\s*){_WORD}|\b(pixel) coordinates", re.IGNORECASE
)


def stated_order(text: str) -> Order | None:
    """Return the order of the numbers that a text states, or None. Raises UnreadableReply for several or others."""
    stated = {_order(match[1], match[2]) for match in LEGEND.finditer(text)}
    if len(stated) > 1 or None in stated:
        raise UnreadableReply("the reply states an order of coordinates that is not clear")
    return next(iter(stated), None)


def stated_unit(text: str, *, alone: bool = False) -> str | None:
    """Return the unit that a text states for boxes, "px" or "%"; None for none. `alone`: it says nothing else."""
    match = _UNIT.fullmatch(text.strip()) if alone else _IN_UNIT.search(text)
    return None if match is None else "px" if any(match.groups()) else "%"


def apply(boxes: list[RawBox], since: int, order: Order | None, unit: str | None) -> None:
    """Give the boxes from the `since`-th on an order and a unit, where they have none of their own."""
    if order or unit:
        boxes[since:] = [replace(raw, order=raw.order or order, unit=raw.unit or unit) for raw in boxes[since:]]


def _order(names: str | None, word: str | None) -> Order | None:
    if names is None:
        return ORDER_KEYS.get((word or "").lower())
    four = [plain_key(name) for name in re.findall(_NAME, names, re.IGNORECASE)]
    for corners, order in CORNERS:
        if four == list(corners):
            return order
        if order == "xyxy" and four == [corners[i] for i in (1, 0, 3, 2)]:
            return "yxyx"
    return None
