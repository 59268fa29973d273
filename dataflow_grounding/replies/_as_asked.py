"""Replies that keep to the letter of what was asked for, as most do: they are read without looking
any further.
"""

from functools import lru_cache
from typing import Any

from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.json_values import JsonObject, number
from dataflow_grounding.replies.reading import NOTHING_SAID, ParsedReply, RawBox, Said


def read_as_asked(reply: str, key: str) -> ParsedReply | None:
    """Return what a reply says that keeps to the letter of what was asked for, as most do; None for
    any other.
    """
    boxes = _boxes_as_asked(reply, key)
    return (
        None
        if boxes is None
        else ParsedReply([*boxes], absences=[] if boxes else [(NOTHING_SAID, 0)])
    )


@lru_cache(maxsize=1)  # whoever watches over a run's boxes looks at a reply right before it is read
def _boxes_as_asked(reply: str, key: str) -> tuple[RawBox, ...] | None:
    scan = strict_json(reply)
    data = scan.found[0].value if scan is not None else None
    objects = (
        data.get("objects")
        if isinstance(data, JsonObject) and len(data) == 1 and not data.parts
        else None
    )
    if not isinstance(objects, list):
        return None
    boxes = tuple(raw for item in objects if (raw := _as_asked(item, key)) is not None)
    return boxes if len(boxes) == len(objects) else None


def _as_asked(item: Any, key: str) -> RawBox | None:
    known = {"id", "label", key, "score", "evidence"}
    if not isinstance(item, JsonObject) or item.parts or not item.keys() <= known:
        return None
    numbers, label, phrase_id, evidence = (
        item.get(name) for name in (key, "label", "id", "evidence")
    )
    if (
        not isinstance(numbers, list)
        or [type(n) in (int, float) and number(n) == n for n in numbers] != [True] * 4
    ):
        return None
    if (
        type(phrase_id) is not int
        or not isinstance(label, str)
        or not label.strip()
        or evidence not in keys.EVIDENCE
    ):
        return None
    return RawBox(
        "box", tuple(numbers), Said((label.strip(),), phrase_id, item.get("score"), evidence)
    )
