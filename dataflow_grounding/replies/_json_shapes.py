"""The shapes that coordinates take in JSON, such as named corners, pairs and outlines.

And an object's details beside them.
"""

import re
from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_values import JsonObject, hull, number, split_off_unit
from dataflow_grounding.replies.reading import Details, Note, ParsedReply, RawBox

_A_NUMBER = lazy_pattern(r"(?<![\w.])[-+]?\d[\d.]*")
# What makes a text a name: two letters, or one that isn't Latin, as in "猫".
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}|[^\W\d_a-zA-Z]")
_MOST_LOOKED_AT = 1000  # characters of a value that may be a box
_NUMBERS_OF_BOX = 3  # at least, also of one that is not quite whole


def plain_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's fields by `plain_key` of their keys; of two alike, the last counts."""
    return {keys.plain_key(key): item for key, item in value.items()}


def details_in(value: JsonObject, fields: Mapping[str, Any]) -> Details:
    """Return an object's own labels, id, score and evidence; `fields` are its `plain_fields`.

    Labels come once each, in order of preference. Evidence of another name than the known ones is
    left out.
    """
    labels: dict[str, None] = {}  # each once, in their order
    for text in _labels_in(value, fields):
        if text.strip():
            labels[text.strip()] = None
    evidence = fields.get("evidence")
    if evidence not in keys.EVIDENCE:
        evidence = None
    own_id, is_of_phrase = _id_in(fields)
    return Details(tuple(labels), own_id, _score_in(fields), evidence, id_of_phrase=is_of_phrase)


def is_coco_document(fields: Mapping[str, Any]) -> bool:
    """Return whether an object is a COCO document: annotations that name things by number.

    Its boxes are x, y, width and height; those who write one from memory may mean corners.
    """
    annotations = fields.get("annotations")
    if not isinstance(annotations, list):
        return False
    for item in annotations:
        if isinstance(item, dict) and "category_id" in item and "bbox" in item:
            return True
    return False


def _id_in(fields: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Return the number under the first key for an id that has one, and whether it is a phrase's.

    None if it isn't whole. That it is a phrase's the key says: `id` may be a box's own number. A
    number as the phrase itself is its id.
    """
    for key in ("phrase", "expression"):
        value = fields.get(key)
        if type(value) is int:
            return value, True
    for key in keys.ID_KEYS:
        value = number(fields.get(key))
        if value is not None and value == int(value):
            return int(value), key != "id"
        if value is not None:
            break
    return None, False


def _score_in(fields: Mapping[str, Any]) -> Any:
    """Return what stands under the first key for a score that isn't null; None for none."""
    for key in keys.SCORE_KEYS:
        if fields.get(key) is not None:
            return fields[key]
    return None


def _labels_in(value: JsonObject, fields: Mapping[str, Any]) -> list[str]:
    """Return the labels of an object, the preferred ones first.

    They stand under keys for labels, under others that begin with "name" or "label", and without a
    key.
    """
    labels = [fields[key] for key in keys.LABEL_KEYS if key in fields]
    for key, item in fields.items():
        if key.startswith(("name", "label")) and key not in keys.LABEL_KEYS:
            labels.append(item)
    texts: list[str] = []
    for label in labels:
        if isinstance(label, dict):
            texts += _translations(label)
        elif isinstance(label, str):
            texts.append(label)
    return texts + [item for item in value.loose if isinstance(item, str)]


def _translations(label: Mapping[str, Any]) -> list[str]:
    """Return the texts of a label in several languages, by language, the English one first."""
    english: list[str] = []
    others: list[str] = []
    for language, text in label.items():
        if not isinstance(text, str):
            continue
        if language == "en":
            english.append(text)
        else:
            others.append(text)
    return english + others


def is_empty(value: Any) -> bool:
    """Whether a value is an object that holds nothing."""
    return isinstance(value, JsonObject) and not value and not value.loose


def add_corners(parsed: ParsedReply, fields: Mapping[str, Any], details: Details) -> bool:
    """Add an object's box whose four coordinates, or two corners, have a key each.

    As in `{"x1": 1, "y1": 2, "x2": 3, "y2": 4}` and `{"top_left": [1, 2], "bottom_right": [3, 4]}`.
    Returns whether all keys of a box are there, also where its coordinates are no numbers and it is
    dropped.

    Args:
        parsed: What was read so far.
        fields: The object's `plain_fields`.
        details: What is known of the object.
    """
    for names, order in keys.CORNERS:
        if all(name in fields for name in names):
            since = len(parsed.boxes)
            values, unit = split_off_unit([fields[name] for name in names])
            parsed.add_numbers(values, details)
            parsed.set_conventions(since, order, unit)
            return True
    for first_key, last_key in keys.CORNER_PAIRS:
        first = pair(fields.get(first_key))
        last = pair(fields.get(last_key))
        if first and last:
            # corners with an x and a y need no order; of lists it is that which was asked for
            own_order: Order | None = "xyxy" if isinstance(fields[first_key], dict) else None
            parsed.add_raw_box(RawBox("box", (*first, *last), details, own_order, corners=True))
            return True
    return False


def add_outline(
    parsed: ParsedReply, fields: Mapping[str, Any], lists: Mapping[str, list[Any]], details: Details
) -> bool:
    """Add the boxes around an object's polygons, and return whether there are any.

    True also for a list of them that is cut off, which is dropped.

    Args:
        parsed: What was read so far.
        fields: The object's `plain_fields`.
        lists: The lists among them, which may be labels.
        details: What is known of the object.
    """
    since = len(parsed.boxes)
    value = _outline_field(fields)
    # A list is marked as cut off, too, where one in it is.
    if isinstance(value, list) and getattr(value, "cut", False):
        parsed.drop("an outline that is cut off", details)
        return True
    for corners in _outlines(value):
        parsed.add_raw_box(RawBox("box", hull(corners), details, corners=True))
    set_details_from_lists(parsed, since, lists)
    return len(parsed.boxes) > since


def _outline_field(fields: Mapping[str, Any]) -> Any:
    """Return the first list under a key for an outline; else what stands under a key like "_".

    That is one without letters and digits. None where there is neither.
    """
    for key, item in fields.items():
        if key in keys.OUTLINE_KEYS and isinstance(item, list):
            return item
    return fields.get("")


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
    x = number(value[0])
    y = number(value[1])
    if x is None or y is None:
        return None
    return x, y


def _outlines(value: Any) -> list[list[float]]:
    """Return the corners of each polygon in a value, as x, y, x, y, …; none for no list.

    Polygons may stand in lists of lists, however deep.
    """
    if not isinstance(value, list):
        return []
    corners = _corners(value)
    if corners:
        return [corners]
    outlines: list[list[float]] = []
    for item in value:
        outlines += _outlines(item)
    return outlines


def _corners(value: list[Any]) -> list[float]:
    """Return the numbers of a list of two pairs or more, or of an even number of them from 4 on.

    [] for any other list.
    """
    corners: list[float] = []
    for item in value:
        corner = pair(item)
        if corner is not None:
            corners += corner
    are_all_pairs = len(corners) == 2 * len(value)
    if are_all_pairs and len(value) >= 2:
        return corners
    numbers: list[float] = []
    for item in value:
        coordinate = number(item)
        if coordinate is None:
            return []
        numbers.append(coordinate)
    if len(numbers) >= 4 and len(numbers) % 2 == 0:
        return numbers
    return []


def set_details_from_lists(parsed: ParsedReply, since: int, lists: Mapping[str, list[Any]]) -> None:
    """Set the labels, scores and ids of boxes from lists beside them, in place.

    Labels are in the list under a key for them; of several boxes also under any key, if it has a
    text for each. Scores and ids stand under their keys. A list of another length than that of the
    boxes is left out; of labels with a note.

    Args:
        parsed: What was read so far.
        since: The index of the first of the boxes in `parsed.boxes`; they go to the end.
        lists: The lists of their object, by keys as keys are compared.
    """
    count = len(parsed.boxes) - since
    labels = _labels_beside(count, lists)
    if labels is not None and len(labels) != count:
        parsed.notes.append(
            Note("labels_ignored", "the lists of boxes and labels differ in length")
        )
    elif labels is not None:
        parsed.set_details(since, "labels", [(text.strip(),) for text in labels])
    for key, item in lists.items():
        if len(item) != count:
            continue
        if key in ("scores", "confidences", "confidence", "score"):
            parsed.set_details(since, "score", item)
        if key in ("ids", "phraseids") and all(type(entry) is int for entry in item):
            parsed.set_details(since, "id", item)


def _labels_beside(count: int, lists: Mapping[str, list[Any]]) -> list[str] | None:
    """Return the first list of texts that is meant as the labels of `count` boxes; None for none.

    A list under a key for labels is meant so whatever its length, which the caller compares. Under
    other keys a list is where it has `count` texts, of two boxes or more.
    """
    for key in keys.LABEL_LIST_KEYS:
        texts = lists.get(key)
        if texts and _are_texts(texts):
            return texts
    if count < 2:
        return None
    for texts in lists.values():
        if len(texts) == count and _are_texts(texts):
            return texts
    return None


def _are_texts(items: list[Any]) -> bool:
    """Whether all items are texts."""
    return all(isinstance(item, str) for item in items)


def drop_unlabelled(parsed: ParsedReply, since: int, *, begun: bool) -> None:
    """Drop the boxes of an object that is cut off if they have lost their label by that.

    They have if their object begins one, or if earlier boxes have a label or an id. Those with a
    label or an id stay.

    Args:
        parsed: What was read so far.
        since: The index of the first of the boxes in `parsed.boxes`; they go to the end.
        begun: Whether their object has a key for a label.
    """
    if not begun and not any(is_named(raw) for raw in parsed.boxes[:since]):
        return
    kept: list[RawBox] = []
    for raw in parsed.boxes[since:]:
        if is_named(raw):
            kept.append(raw)
        else:
            parsed.drop("a box whose label is cut off")
    parsed.boxes[since:] = kept


def drop_contradicting_boxes(parsed: ParsedReply, groups: Mapping[str, list[RawBox]]) -> None:
    """Drop boxes of one thing that differ from key to key.

    If there is only one key for the answer, its boxes stay, and the others are removed without
    being added to `dropped`.

    Args:
        parsed: What was read so far.
        groups: Key → the boxes that an object has under it.
    """
    answer_keys = [key for key in groups if key in keys.WRAPPERS or keys.REFINED.search(key)]
    unclear = _things_that_differ(groups)
    to_drop: dict[int, RawBox] = {}
    for key, group in groups.items():
        if answer_keys == [key]:
            continue
        for raw in group:
            if _thing_of(raw) in unclear:
                to_drop[id(raw)] = raw
    parsed.boxes[:] = [raw for raw in parsed.boxes if id(raw) not in to_drop]
    if len(answer_keys) == 1:
        return
    for raw in to_drop.values():
        parsed.drop(f"boxes of one thing under {' and '.join(groups)[:60]}", raw.details)


def _thing_of(raw: RawBox) -> tuple[tuple[str, ...], int | None]:
    """Return what tells a box's thing from others: its first label and its id."""
    return raw.details.labels[:1], raw.details.id


def _things_that_differ(groups: Mapping[str, list[RawBox]]) -> set[Any]:
    """Return the things, as `_thing_of` tells them, that have other boxes under another key."""
    boxes_by_thing: dict[Any, dict[str, set[tuple[float, ...]]]] = {}
    for key, group in groups.items():
        for raw in group:
            by_key = boxes_by_thing.setdefault(_thing_of(raw), {})
            by_key.setdefault(key, set()).add(raw.numbers)
    differing: set[Any] = set()
    for thing, by_key in boxes_by_thing.items():
        first = next(iter(by_key.values()))
        if any(boxes != first for boxes in by_key.values()):
            differing.add(thing)
    return differing


def without_place_keys(boxes: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object's box keys and values without keys for a place that hold no box.

    `location: [200, 150]` beside a box is such a point. Where no value may be a box, all of them
    are returned.

    Args:
        boxes: Key, as keys are compared → value.
        key: The box key that was asked for, which always stays.
    """
    possible_boxes = {plain: item for plain, item in boxes.items() if _may_be_box(item)}
    if not possible_boxes:
        return boxes
    result = {
        plain: item for plain, item in boxes.items() if plain not in keys.PLACE_KEYS or plain == key
    }
    result.update(possible_boxes)
    return result


def _may_be_box(value: Any) -> bool:
    """Whether a value has three numbers or more, as a box that is whole or nearly so."""
    return len(_A_NUMBER.findall(str(value)[:_MOST_LOOKED_AT])) >= _NUMBERS_OF_BOX


def choose_box_keys(
    boxes: dict[str, Any], key: str, parsed: ParsedReply, details: Details
) -> dict[str, Any]:
    """Return those of an object's box keys that count, with their values.

    Refined ones such as `final_bbox` do, or else the one asked for. Of those with equal values the
    first does; of `bbox1`, `bbox2` and so on all do. Where it is unclear which one does, all are
    dropped, and {} is returned.

    Args:
        boxes: The object's box keys and what stands under them.
        key: The box key that was asked for.
        parsed: What was read so far.
        details: What is known of the object.
    """
    boxes = _preferred_keys(boxes, key)
    texts = {str(item) for item in boxes.values()}
    if len(texts) == 1:
        first = next(iter(boxes))
        return {first: boxes[first]}
    if len({plain.rstrip("0123456789") for plain in boxes}) == 1:
        return boxes
    parsed.drop(f"boxes under {' and '.join(boxes)[:60]} in one object", details)
    return {}


def _preferred_keys(boxes: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the keys that are refined; else the one asked for; else all.

    Where any has numbers, those without are left out first.
    """
    with_numbers = {plain: item for plain, item in boxes.items() if re.search(r"\d", str(item))}
    boxes = with_numbers or boxes
    refined = {plain: item for plain, item in boxes.items() if keys.REFINED.search(plain)}
    if refined:
        return refined
    if key in boxes:
        return {key: boxes[key]}
    return boxes


def is_named(raw: RawBox) -> bool:
    """Whether a box has a label or an id."""
    return bool(raw.details.labels) or raw.details.id is not None


def add_statuses(parsed: ParsedReply, fields: Mapping[str, Any]) -> None:
    """Add to `parsed` the embedded grounder's statuses of phrases, and its reasons.

    They stand as `"statuses": [{"id": 1, "status": "ambiguous", "reason": "…"}]`; an entry of
    another form is passed over.
    """
    entries = fields.get("statuses")
    if not isinstance(entries, list):
        return
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        phrase_id = entry.get("id")
        status = entry.get("status")
        if type(phrase_id) is int and isinstance(status, str):
            parsed.statuses[phrase_id] = status
            if isinstance(entry.get("reason"), str):
                parsed.reasons[phrase_id] = entry["reason"]


def labels_before_boxes(items: list[Any]) -> list[Any]:
    """Return lists of numbers and labels so that each label stands before its box.

    `[[1, 2, 3, 4], "dog"]` becomes `["dog", [1, 2, 3, 4]]`. Other items are returned as they are.

    Raises:
        UnreadableReply: It is unclear which labels belong to which boxes.
    """
    if not _begins_with_box_before_labels(items):
        return items
    boxes = items[0::2]
    labels = items[1::2]
    unclear = "it is unclear which labels belong to which boxes in a list of both"
    if len(boxes) != len(labels):
        raise UnreadableReply(unclear)
    in_order: list[Any] = []
    for box, label in zip(boxes, labels, strict=True):
        if not is_four_numbers(box) or not isinstance(label, str):
            raise UnreadableReply(unclear)
        in_order += [label, box]
    return in_order


def _begins_with_box_before_labels(items: list[Any]) -> bool:
    """Whether the first item is four numbers, and there are texts, each of them a name.

    The name of an order, such as "xyxy", is none.
    """
    has_labels = False
    for item in items:
        if not isinstance(item, str):
            continue
        if not _LETTERS.search(item) or keys.plain_key(item) in keys.ORDER_KEYS:
            return False
        has_labels = True
    return has_labels and is_four_numbers(items[0])


def is_four_numbers(value: Any) -> bool:
    """Whether a value is a list of four numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(number(item) is not None for item in value)
    )
