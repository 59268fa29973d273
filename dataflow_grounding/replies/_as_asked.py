"""Replies in exactly the form that was asked for, as most are: they are read the short way."""

from functools import lru_cache
from typing import Any

from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.json_values import LARGEST, JsonObject
from dataflow_grounding.replies.reading import NO_DETAILS, Details, ParsedReply, RawBox

_KEYS = frozenset(["id", "label", "score", "evidence"])
_NUMBERS = (int, float)


def read_as_asked(reply: str, key: str) -> ParsedReply | None:
    """Return what a reply in exactly the form asked for says; None for any other reply.

    Args:
        reply: The reply.
        key: The box key that was asked for.
    """
    boxes = _boxes_as_asked(reply, key)
    if boxes is None:
        return None
    absences = [] if boxes else [(NO_DETAILS, 0)]
    return ParsedReply(list(boxes), absences=absences)


@lru_cache(maxsize=1)  # whoever watches over a run's boxes looks at a reply right before it is read
def _boxes_as_asked(reply: str, key: str) -> tuple[RawBox, ...] | None:
    """Return the boxes in `{"objects": […]}`; None for a reply of another shape."""
    scan = strict_json(reply)
    if scan is None:
        return None
    data = scan.items[0].value
    if not isinstance(data, JsonObject) or len(data) != 1 or data.parts:
        return None
    objects = data.get("objects")
    if not isinstance(objects, list):
        return None
    boxes: list[RawBox] = []
    for item in objects:
        box = _box_as_asked(item, key)
        if box is None:
            return None
        boxes.append(box)
    return tuple(boxes)


def _box_as_asked(item: Any, key: str) -> RawBox | None:
    """Return the box of an object with an id, a label and four numbers; None for any other.

    It may have a score and an evidence as well, and no key besides, nor one twice.
    """
    if not isinstance(item, JsonObject) or item.parts:  # it has parts where a key is repeated
        return None
    for name in item:
        if name != key and name not in _KEYS:
            return None
    numbers = item.get(key)
    if not isinstance(numbers, list) or len(numbers) != 4:
        return None
    for coordinate in numbers:
        # a bool is no coordinate, nor is what JSON doesn't have, such as NaN
        if type(coordinate) not in _NUMBERS or not -LARGEST <= coordinate <= LARGEST:
            return None
    phrase_id = item.get("id")
    label = item.get("label")
    if type(phrase_id) is not int or not isinstance(label, str) or not label.strip():
        return None
    evidence = item.get("evidence")
    if evidence not in keys.EVIDENCE:  # None is among these: it may be left out
        return None
    details = Details((label.strip(),), phrase_id, item.get("score"), evidence)
    return RawBox("box", tuple(numbers), details)
