"""The shapes that coordinates take in JSON: named corners, pairs, outlines; and what an object says beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding.frames import Order
from dataflow_grounding.replies.json_keys import (
    CORNER_PAIRS,
    CORNERS,
    ID_KEYS,
    IMAGE_SIZE_KEYS,
    LABEL_KEYS,
    LABEL_LIST_KEYS,
    REFINED,
    SCORE_KEYS,
    WRAPPERS,
    plain_key,
)
from dataflow_grounding.replies.json_values import JsonObject
from dataflow_grounding.replies.legends import stated_order, stated_unit
from dataflow_grounding.replies.marks import Mark, Marks, Said, number
from dataflow_grounding.replies.none_words import says_none


class Cut(Exception):
    """The reply ends inside of a value that is of no use in parts."""


class NamedCorners(NamedTuple):
    """Coordinates as an object names them: any values, in the order that their names settle."""

    values: list[Any]
    order: Order


def plain_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's fields by their keys as keys are compared."""
    return {plain_key(key): item for key, item in value.items()}


def said_by(value: JsonObject, fields: Mapping[str, Any]) -> Said:
    """Return what an object says of itself; `fields` are its `plain_fields`."""
    labels = [fields[key] for key in LABEL_KEYS if key in fields]
    labels += [item for key, item in fields.items() if key.startswith(("name", "label")) and key not in LABEL_KEYS]
    texts: list[str] = []
    for label in labels:
        if isinstance(label, dict):
            inner = sorted((i for i in label.items() if isinstance(i[1], str)), key=lambda i: i[0] != "en")
            texts += [text for _, text in inner]
        elif isinstance(label, str):
            texts.append(label)
    texts += [item for item in value.loose if isinstance(item, str)]
    named = next((fields[key] for key in ID_KEYS if number(fields.get(key)) is not None), None)
    score = next((fields[key] for key in SCORE_KEYS if fields.get(key) is not None), None)
    evidence = fields.get("evidence")
    as_number = number(named)
    return Said(
        tuple(dict.fromkeys(text.strip() for text in texts if text.strip())),
        int(as_number) if as_number is not None and as_number == int(as_number) else None,
        score,
        evidence if evidence in ("seen", "inferred", "region") else None,
    )


def stated_by(fields: Mapping[str, Any]) -> tuple[Order | None, str | None]:
    """Return the order and the unit that an object's other fields state for its boxes."""
    said = [item for key, item in fields.items() if isinstance(item, (str, list)) and key not in LABEL_KEYS]
    texts = [item if isinstance(item, str) else ", ".join(item) for item in said if _are_texts([*item])]
    unit = next((unit for text in texts if len(text) < 30 and (unit := stated_unit(text, alone=True))), None)
    return stated_order("\n".join(text for text in texts if len(text) < 100)) if texts else None, unit


def stated_size(fields: Mapping[str, Any]) -> float | None:
    """Return the longer side of the image, in pixels, that an object states beside its boxes; None for none.

    Who writes it down writes pixels mostly. Sides such as 1000 by 1000 are the range of a relative format.
    """
    sizes = [(fields.get("imagewidth"), fields.get("imageheight"))]
    for key in IMAGE_SIZE_KEYS & fields.keys():
        item = fields[key]
        if isinstance(item, dict):
            sizes.append((item.get("width"), item.get("height")))
        elif isinstance(item, str):
            item = re.findall(r"\d+", item)
        if isinstance(item, list) and len(item) in (2, 3):
            sizes.append((item[0], item[1]))
    for size in sizes:
        sides = [side for item in size if (side := number(item)) is not None]
        if len(sides) == 2 and (sides[0] != sides[1] or sides[0] not in (1, 100, 999, 1000, 1024)):
            return max(sides)
    return None


def is_no(value: Any) -> bool:
    """Whether the value of a key such as "found" says no."""
    if isinstance(value, str):
        return value.strip().lower() in ("false", "no", "0") or says_none(value.replace("_", " "))
    return value is False or (type(value) is int and value == 0)


def named_corners(fields: Mapping[str, Any]) -> NamedCorners | None:
    """Return the four coordinates that have a key each, whatever their values are."""
    for names, order in CORNERS:
        if all(name in fields for name in names):
            return NamedCorners([fields[name] for name in names], order)
    return None


def corner_pair(fields: Mapping[str, Any], said: Said) -> Mark | None:
    """Return the box of two corners that have a key each, such as top_left and bottom_right."""
    for first, last in CORNER_PAIRS:
        pairs = pair(fields.get(first)), pair(fields.get(last))
        if pairs[0] and pairs[1]:
            by_name = isinstance(fields[first], dict)
            return Mark("box", (*pairs[0], *pairs[1]), said, "xyxy" if by_name else None, corners=True)
    return None


def are_pairs(items: Sequence[Any]) -> bool:
    """Whether a list has two corners, or four, each as a pair of numbers."""
    return len(items) in (2, 4) and all(is_pair(item) for item in items)


def is_pair(value: Any) -> bool:
    """Whether a value is an array of two numbers."""
    return isinstance(value, list) and pair(value) is not None


def pair(value: Any) -> tuple[float, float] | None:
    """Return the two numbers of a list, or of an object with x and y; None for anything else."""
    if isinstance(value, dict):
        fields = plain_fields(value)
        value = [fields.get("x"), fields.get("y")]
    if not isinstance(value, list) or len(value) != 2:
        return None
    x, y = number(value[0]), number(value[1])
    return None if x is None or y is None else (x, y)


def outlines(value: Any) -> list[list[float]]:
    """Return the corners of each polygon in a value, as x, y, x, y, …; raises Cut where one is cut off."""
    if not isinstance(value, list):
        return []
    if getattr(value, "cut", False):
        raise Cut
    pairs = [pair(item) for item in value]
    if len(pairs) >= 2 and None not in pairs:
        return [[coordinate for corner in pairs if corner for coordinate in corner]]
    numbers = [number(item) for item in value]
    if len(numbers) >= 4 and len(numbers) % 2 == 0 and None not in numbers:
        return [[coordinate for coordinate in numbers if coordinate is not None]]
    return [outline for item in value for outline in outlines(item)]


def take_lists_beside(marks: Marks, since: int, lists: Mapping[str, list[Any]]) -> None:
    """Give the boxes from the `since`-th on what lists of labels, scores and ids beside them say, entry by entry."""
    count = len(marks.boxes) - since
    texts = (lists[key] for key in LABEL_LIST_KEYS if lists.get(key) and _are_texts(lists[key]))
    labels = next(texts, None)
    if labels is None and count > 1:
        labels = next((item for item in lists.values() if len(item) == count and _are_texts(item)), None)
    if labels is not None and len(labels) != count:
        marks.notes.append("labels_ignored: the lists of boxes and labels differ in length")
    elif labels is not None:
        marks.say(since, labels=[(text.strip(),) for text in labels])
    for key, item in lists.items():
        if len(item) == count and key in ("scores", "confidences", "confidence", "score"):
            marks.say(since, score=item)
        if len(item) == count and key in ("ids", "phraseids") and all(type(entry) is int for entry in item):
            marks.say(since, id=item)


def _are_texts(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def drop_unlabelled(marks: Marks, since: int, *, begun: bool) -> None:
    """Drop the boxes from the `since`-th on that have no label, where the text was cut off before one by all appearance."""
    if not begun and not any(is_named(mark) for mark in marks.boxes[:since]):
        return
    for mark in marks.boxes[since:]:
        if not is_named(mark):
            marks.drop("a box whose label is cut off")
    marks.boxes[since:] = filter(is_named, marks.boxes[since:])


def drop_considered(marks: Marks, groups: Mapping[str, list[Mark]]) -> None:
    """Drop boxes of one thing that differ from key to key, but those under the only key that is a word for the answer."""
    boxes: dict[Any, dict[str, set[tuple[float, ...]]]] = {}
    for key, group in groups.items():
        for mark in group:
            boxes.setdefault((mark.said.labels[:1], mark.said.id), {}).setdefault(key, set()).add(mark.numbers)
    unclear = {name for name, by_key in boxes.items() if len(set(map(frozenset, by_key.values()))) > 1}
    answers = [key for key in groups if key in WRAPPERS or REFINED.search(key)]
    beside = [mark for key, group in groups.items() if answers != [key] for mark in group]
    gone = {id(mark): mark for mark in beside if (mark.said.labels[:1], mark.said.id) in unclear}
    marks.boxes[:] = [mark for mark in marks.boxes if id(mark) not in gone]
    for mark in gone.values() if len(answers) != 1 else ():
        marks.drop(f"boxes of one thing under {' and '.join(groups)[:60]}", mark.said)


def one_of(boxes: dict[str, Any], key: str, marks: Marks, said: Said) -> dict[str, Any]:
    """Return the box key that counts of several: a refined one, or the one that was asked for; `bbox1`, `bbox2` all do."""
    given = {plain: item for plain, item in boxes.items() if re.search(r"\d", str(item))} or boxes
    refined = {plain: item for plain, item in given.items() if REFINED.search(plain)}
    asked = {plain: item for plain, item in (refined or given).items() if refined or plain == key}
    given = asked or given
    if len({plain.rstrip("0123456789") for plain in given}) == 1 or len(set(map(str, given.values()))) == 1:
        return given if len({str(item) for item in given.values()}) > 1 else dict([*given.items()][:1])
    marks.drop(f"boxes under {' and '.join(given)[:60]} in one object", said)
    return {}


def is_named(mark: Mark) -> bool:
    """Whether a box has a label or an id."""
    return bool(mark.said.labels) or mark.said.id is not None


def take_statuses(marks: Marks, fields: Mapping[str, Any]) -> None:
    """Take the embedded grounder's statuses of phrases."""
    entries = fields.get("statuses")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("status"), str):
            marks.statuses[entry["id"]] = entry["status"]
            if isinstance(entry.get("reason"), str):
                marks.reasons[entry["id"]] = entry["reason"]
