"""The shapes that coordinates take in JSON: named corners, pairs, outlines; and what an object says
beside them.
"""

import re
from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_values import JsonObject, hull, measured, number
from dataflow_grounding.replies.reading import Note, ParsedReply, RawBox, Said

_A_NUMBER = lazy_pattern(r"(?<![\w.])[-+]?\d[\d.]*")
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}|[^\W\d_a-zA-Z]")


def plain_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's fields by their keys as keys are compared."""
    return {keys.plain_key(key): item for key, item in value.items()}


def said_by(value: JsonObject, fields: Mapping[str, Any]) -> Said:
    """Return what an object says of itself; `fields` are its `plain_fields`."""
    named = next((fields[key] for key in keys.ID_KEYS if number(fields.get(key)) is not None), None)
    score = next((fields[key] for key in keys.SCORE_KEYS if fields.get(key) is not None), None)
    evidence = fields.get("evidence")
    as_number = number(named)
    return Said(
        tuple(dict.fromkeys(text.strip() for text in _labels_in(value, fields) if text.strip())),
        int(as_number) if as_number is not None and as_number == int(as_number) else None,
        score,
        evidence if evidence in keys.EVIDENCE else None,
    )


def _labels_in(value: JsonObject, fields: Mapping[str, Any]) -> list[str]:
    labels = [fields[key] for key in keys.LABEL_KEYS if key in fields]
    labels += [
        item
        for key, item in fields.items()
        if key.startswith(("name", "label")) and key not in keys.LABEL_KEYS
    ]
    texts: list[str] = []
    for label in labels:
        if isinstance(label, dict):
            inner = sorted(
                (i for i in label.items() if isinstance(i[1], str)), key=lambda i: i[0] != "en"
            )
            texts += [text for _, text in inner]
        elif isinstance(label, str):
            texts.append(label)
    return texts + [item for item in value.loose if isinstance(item, str)]


def is_empty(value: Any) -> bool:
    """Whether a value is an object that holds nothing."""
    return isinstance(value, JsonObject) and not value and not value.loose


def take_corners(parsed: ParsedReply, fields: Mapping[str, Any], said: Said) -> bool:
    """Take an object's box of four coordinates, or of two corners, that have a key each; False if
    there is none.
    """
    for names, order in keys.CORNERS:
        if all(name in fields for name in names):
            since = len(parsed.boxes)
            values, unit = measured([fields[name] for name in names])
            parsed.add(values, said)
            parsed.state(since, order, unit)
            return True
    for first, last in keys.CORNER_PAIRS:
        one, other = pair(fields.get(first)), pair(fields.get(last))
        if one and other:
            by_name = isinstance(fields[first], dict)
            parsed.put(
                RawBox("box", (*one, *other), said, "xyxy" if by_name else None, corners=True)
            )
            return True
    return False


def take_outline(
    parsed: ParsedReply, fields: Mapping[str, Any], lists: Mapping[str, list[Any]], said: Said
) -> bool:
    """Take the boxes around an object's polygons; `lists` stand beside them. False where there are
    none.
    """
    since = len(parsed.boxes)
    outlines = (
        key for key, item in fields.items() if key in keys.OUTLINE_KEYS and isinstance(item, list)
    )
    value = fields.get(next(outlines, ""))  # or under a key without a letter
    if isinstance(value, list) and getattr(value, "cut", False):
        # as all are that hold one which is
        parsed.drop("an outline that is cut off", said)
        return True
    for corners in _outlines(value):
        parsed.put(RawBox("box", hull(corners), said, corners=True))
    take_lists_beside(parsed, since, lists)
    return len(parsed.boxes) > since


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


def _outlines(value: Any) -> list[list[float]]:
    """Return the corners of each polygon in a value, as x, y, x, y, …"""
    if not isinstance(value, list):
        return []
    corners = _corners(value)
    return [corners] if corners else [outline for item in value for outline in _outlines(item)]


def _corners(value: list[Any]) -> list[float]:
    """Return the numbers of a list of pairs, or of an even number of numbers; none of any other."""
    pairs = [two for item in value if (two := pair(item)) is not None]
    if len(pairs) == len(value) >= 2:
        return [coordinate for corner in pairs for coordinate in corner]
    numbers = [one for item in value if (one := number(item)) is not None]
    return numbers if len(numbers) == len(value) >= 4 and len(numbers) % 2 == 0 else []


def take_lists_beside(parsed: ParsedReply, since: int, lists: Mapping[str, list[Any]]) -> None:
    """Give the boxes from the `since`-th on what lists beside them say, entry by entry: labels,
    scores and ids.

    Labels are in the list under a key for them; of several boxes also under any key, if it has a
    text for each.
    """
    count = len(parsed.boxes) - since
    texts = [*filter(None, map(lists.get, keys.LABEL_LIST_KEYS))]
    texts += [item for item in lists.values() if len(item) == count > 1]
    labels = next(filter(_are_texts, texts), None)
    if labels is not None and len(labels) != count:
        parsed.notes.append(
            Note("labels_ignored", "the lists of boxes and labels differ in length")
        )
    elif labels is not None:
        parsed.say(since, "labels", [(text.strip(),) for text in labels])
    for key, item in lists.items():
        if len(item) == count and key in ("scores", "confidences", "confidence", "score"):
            parsed.say(since, "score", item)
        if (
            len(item) == count
            and key in ("ids", "phraseids")
            and all(type(entry) is int for entry in item)
        ):
            parsed.say(since, "id", item)


def _are_texts(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def drop_unlabelled(parsed: ParsedReply, since: int, *, begun: bool) -> None:
    """Drop the boxes from the `since`-th on without a label, where the text was apparently cut off
    before one.
    """
    if not begun and not any(is_named(raw) for raw in parsed.boxes[:since]):
        return
    for raw in parsed.boxes[since:]:
        if not is_named(raw):
            parsed.drop("a box whose label is cut off")
    parsed.boxes[since:] = filter(is_named, parsed.boxes[since:])


def drop_considered(parsed: ParsedReply, groups: Mapping[str, list[RawBox]]) -> None:
    """Drop boxes of one thing that differ from key to key, except under the only key that is a word
    for the answer.
    """
    answers = [key for key in groups if key in keys.WRAPPERS or keys.REFINED.search(key)]
    beside = [raw for key, group in groups.items() if answers != [key] for raw in group]
    unclear = _things_that_differ(groups)
    gone = {id(raw): raw for raw in beside if (raw.said.labels[:1], raw.said.id) in unclear}
    parsed.boxes[:] = [raw for raw in parsed.boxes if id(raw) not in gone]
    for raw in gone.values() if len(answers) != 1 else ():
        parsed.drop(f"boxes of one thing under {' and '.join(groups)[:60]}", raw.said)


def _things_that_differ(groups: Mapping[str, list[RawBox]]) -> set[Any]:
    boxes: dict[Any, dict[str, set[tuple[float, ...]]]] = {}
    for key, group in groups.items():
        for raw in group:
            boxes.setdefault((raw.said.labels[:1], raw.said.id), {}).setdefault(key, set()).add(
                raw.numbers
            )
    return {
        thing for thing, by_key in boxes.items() if len(set(map(frozenset, by_key.values()))) > 1
    }


def without_places(boxes: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the values under box keys without points and descriptions beside a box, as
    `location: [200, 150]` is.
    """
    may_be = {plain: item for plain, item in boxes.items() if _may_be_box(item)}
    others = {
        plain: item for plain, item in boxes.items() if plain not in keys.PLACE_KEYS or plain == key
    }
    return {**others, **may_be} if may_be else boxes


def _may_be_box(value: Any) -> bool:
    """Whether a value has three numbers or more, as a box that is whole or nearly so."""
    return len(_A_NUMBER.findall(str(value)[:1000])) > 2


def one_of(boxes: dict[str, Any], key: str, parsed: ParsedReply, said: Said) -> dict[str, Any]:
    """Return which of several box keys counts: a refined one, or the one asked for; `bbox1`,
    `bbox2` all do.
    """
    given = {plain: item for plain, item in boxes.items() if re.search(r"\d", str(item))} or boxes
    refined = {plain: item for plain, item in given.items() if keys.REFINED.search(plain)}
    given = refined or {plain: item for plain, item in given.items() if plain == key} or given
    if (
        len({plain.rstrip("0123456789") for plain in given}) == 1
        or len(set(map(str, given.values()))) == 1
    ):
        return (
            given if len({str(item) for item in given.values()}) > 1 else dict([*given.items()][:1])
        )
    parsed.drop(f"boxes under {' and '.join(given)[:60]} in one object", said)
    return {}


def is_named(raw: RawBox) -> bool:
    """Whether a box has a label or an id."""
    return bool(raw.said.labels) or raw.said.id is not None


def take_statuses(parsed: ParsedReply, fields: Mapping[str, Any]) -> None:
    """Take the embedded grounder's statuses of phrases."""
    entries = fields.get("statuses")
    for entry in entries if isinstance(entries, list) else []:
        if (
            isinstance(entry, dict)
            and type(entry.get("id")) is int
            and isinstance(entry.get("status"), str)
        ):
            parsed.statuses[entry["id"]] = entry["status"]
            if isinstance(entry.get("reason"), str):
                parsed.reasons[entry["id"]] = entry["reason"]


def labels_ahead(items: list[Any]) -> list[Any]:
    """Return lists of numbers and labels so that each label stands before its box. Raises
    UnreadableReply if unclear.

    `[[1, 2, 3, 4], "dog"]` becomes `["dog", [1, 2, 3, 4]]`.
    """
    strings = [item for item in items if isinstance(item, str)]
    names = [
        text
        for text in strings
        if _LETTERS.search(text) and keys.plain_key(text) not in keys.ORDER_KEYS
    ]
    if not names or len(names) < len(strings) or not is_row(items[0]):
        return items
    boxes, labels = items[0::2], items[1::2]
    pairs = [*zip(boxes, labels, strict=False)]
    if len(boxes) != len(labels) or not all(
        is_row(box) and isinstance(label, str) for box, label in pairs
    ):
        raise UnreadableReply("it is unclear which labels belong to which boxes in a list of both")
    return [item for box, label in pairs for item in (label, box)]


def is_row(value: Any) -> bool:
    """Whether a value is a list of four numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(number(item) is not None for item in value)
    )
