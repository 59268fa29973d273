"""Finding boxes and points in a reply: as it was asked for, else whichever shape it has.

Most replies are in exactly the form that was asked for, and are read the short way.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.json_values import LARGEST, JsonObject
from dataflow_grounding.replies.reading import (
    NO_DETAILS,
    Details,
    ParsedReply,
    RawBox,
    with_entities_resolved,
)

_KEYS = frozenset(["id", "label", "score", "evidence"])  # that a box asked for may have
_NUMBERS = (int, float)  # types of a coordinate


def parse_reply(reply: str, key: str = "bbox_2d") -> ParsedReply:
    """Return a reply's boxes and points as written; `key` is the box key that was asked for.

    Raises:
        UnreadableReply: The reply has none, and doesn't say that there are none.
        TruncatedReply: The reply is cut off before its first complete box.
    """
    parsed = _read_as_asked(reply, key)
    if parsed is None:
        # here, with all shapes that there are: most runs meet none but the one asked for
        from dataflow_grounding.replies._any_shape import parse_any

        parsed = parse_any(reply, key)
    if "&" in reply:
        _resolve_entities(parsed)
    return parsed


def _resolve_entities(parsed: ParsedReply) -> None:
    """Resolve HTML's entities in all labels of a parsed reply, in place."""
    parsed.boxes[:] = [
        replace(raw, details=with_entities_resolved(raw.details)) for raw in parsed.boxes
    ]
    parsed.points[:] = [
        replace(raw, details=with_entities_resolved(raw.details)) for raw in parsed.points
    ]
    for i, dropped in enumerate(parsed.dropped):
        parsed.dropped[i] = dropped._replace(details=with_entities_resolved(dropped.details))


def _read_as_asked(reply: str, key: str) -> ParsedReply | None:
    """Return what a reply in exactly the form asked for says; None for any other reply.

    An empty list of objects is an absence of everything.

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
    """Return the boxes in `{"objects": […]}`; None for a reply of another shape.

    So it is where one object isn't as asked, or another key stands beside "objects".
    """
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

    It may have a score and an evidence as well, and no key besides, nor one twice. The label is
    stripped.

    Args:
        item: The object, or any other value.
        key: The key of the four numbers.
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
