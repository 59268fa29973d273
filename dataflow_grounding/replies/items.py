"""The boxes in a value of JSON.

An item is an object with one box. What holds items, and what may be next to a box or a list, are
lists of keys in grammar.yaml, each a role. A key whose role contradicts a box drops its item
(NoBox), or refuses the reply (UnreadableReply) if it is next to a list. Any other key next to boxes
is a part of the remark. Boxes under an unknown key alone are no answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.replies.families import read_tokens
from dataflow_grounding.replies.json_boxes import (
    Boxes,
    NoBox,
    add_boxes,
    boxes_by_name,
    boxes_in,
    is_coordinate,
    number,
    numbers_in,
)
from dataflow_grounding.replies.json_text import (
    CutArray,
    CutObject,
    RepeatedKeys,
    plain_key,
    strict_json,
)
from dataflow_grounding.replies.labels import ids_of, phrase_named
from dataflow_grounding.replies.nothing import grammar_words, says_none
from dataflow_grounding.replies.reading import (
    EVIDENCE,
    Dropped,
    ParsedReply,
    RawBox,
    in_brackets,
    key_remark,
)
from dataflow_grounding.replies.refusals import saw_no_picture

_MOST_LEVELS = 8  # of objects and arrays around items
_MOST_BOXES = 5_000  # of a reply; no model is asked for more, or has the tokens to write them
_MOST_REMARKS = 20  # of a reply: the first ones fill what is kept
_EMPTY: tuple[object, ...] = (None, "", [], {})
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
_NOBODY = RawBox(())  # without a label and an id


@cache
def _roles() -> dict[str, list[str]]:
    roles: dict[str, list[str]] = {}
    for role, keys in load_table(__package__, "grammar.yaml")["keys"].items():
        for key in keys.split():
            roles.setdefault(key, []).append(role)
    return roles


@cache
def _label_keys() -> list[str]:
    """The preferred ones come first."""
    keys: list[str] = load_table(__package__, "grammar.yaml")["keys"]["label"].split()
    return keys


@lru_cache(maxsize=1024)  # each key of an item is asked for many roles, and items have the same
def has_role(key: str, *roles: str) -> bool:
    """Whether a key has any of these roles in grammar.yaml."""
    return not set(roles).isdisjoint(_roles().get(plain_key(key), ()))


def read_values(
    values: Sequence[object],
    parsed: ParsedReply,
    phrases: Mapping[int, str],
    box_key: str,
    list_key: str = "",
) -> None:
    """Add the boxes of a reply's values to `parsed`; both keys are those that were asked for."""
    reader = _Reader(parsed, phrases, plain_key(box_key), plain_key(list_key))
    answer = values[0] if len(values) == 1 else list(values)  # several are items without their list
    reader.read(answer, 1, _NOBODY)
    if not parsed and parsed.truncated:
        raise TruncatedReply("the reply is cut off before its first whole box", "cut off")


def only_answer(values: list[object]) -> list[object]:
    """Return the values of the reply's one answer. Refuse several whole answers that differ."""
    if len(values) > 1 and are_parts(values):  # a list for each phrase becomes one list of all
        return [{"objects": [item for value in values for item in _items_of(value)]}]
    if len(values) < 2 or not any(map(_is_whole_answer, values)):
        return values  # items without their list, or a single answer
    if any(value != values[0] for value in values):
        raise UnreadableReply("the reply has several answers", "several answers")
    return values[:1]


def are_parts(values: Sequence[object]) -> bool:
    """Whether all items have ids, and no two values share one: one answer, phrase by phrase."""
    seen: set[int | None] = {None}
    for value in values:
        items = _items_of(value)
        ids = {id_of(item.get("id")) if isinstance(item, dict) else None for item in items}
        if not ids or seen & ids:
            return False
        seen |= ids
    return True


def _items_of(value: object) -> list[object]:
    """Return the items of {"objects": [{…}]}, of [{…}] or of {"id": 1, …}; none if cut off."""
    if isinstance(value, dict) and "id" in value:
        return [value]
    if isinstance(value, dict) and len(value) == 1 and has_role(next(iter(value)), "wrapper"):
        value = next(iter(value.values()))
    return value if isinstance(value, list) and not isinstance(value, CutArray) else []


def _is_whole_answer(value: object) -> bool:
    """[], [{…}] and {"objects": [{…}]} are; a box [1, 2, 3, 4] and {"bbox": …} aren't."""
    if isinstance(value, list):
        return not value or any(isinstance(item, (dict, list)) for item in value)
    return isinstance(value, dict) and any(
        has_role(key, "wrapper") and (inner in (None, []) or _has_items(inner))
        for key, inner in value.items()
    )


class _Reader:
    """Adds what a value says to a parsed reply. Both keys are as `plain_key` makes them.

    What is above a value is handed down: the count of objects and arrays around it, itself
    included, and a box without numbers, whose label or id is the key above it.
    """

    def __init__(
        self, parsed: ParsedReply, phrases: Mapping[int, str], box_key: str, list_key: str
    ) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.texts = list(phrases.values())
        self.box_key = box_key
        self.list_key = list_key

    def read(self, value: object, level: int, above: RawBox) -> None:
        """Add what a value says: boxes, or that there are none."""
        if level > _MOST_LEVELS:
            raise _unknown("answers are nested too deeply")
        if len(self.parsed.boxes) + len(self.parsed.dropped) > _MOST_BOXES:
            raise UnreadableReply(f"more than {_MOST_BOXES} boxes", "runaway")
        if isinstance(value, dict):
            self.read_object(value, level, above)
        elif isinstance(value, list) and (value or isinstance(value, CutArray)):
            self.read_list(value, level, above)
        elif value in (None, []) or (isinstance(value, str) and says_none(value, self.texts)):
            self.parsed.absences.append(above)
        elif not isinstance(value, str):
            raise _no_boxes(value)
        elif "<loc_" in value:
            read_tokens(value, self.parsed, self.phrases)
        elif (inner := strict_json(value)) is not None:  # JSON within JSON
            self.read(inner, level + 1, above)
        elif numbers_in(value) is not None:
            add_boxes(value, above, self.parsed)
        else:
            raise _no_boxes(value)

    def read_list(self, items: list[object], level: int, above: RawBox) -> None:
        """Add the one box of `[1, 2, 3, 4]` or `["cup", 1, 2, 3, 4]`, or all items of a list."""
        if isinstance(items, CutArray):
            self.parsed.truncated = True
            # the last text may be cut off, too, so none is read
            items = [item for item in items if not isinstance(item, str)]
            if not items:
                return  # what was to come isn't known: it doesn't say that nothing is there
        has_items = any(isinstance(item, (dict, list)) for item in items)
        texts = [item for item in items if isinstance(item, str) and number(item) is None]
        if not has_items and len(texts) < len(items):
            numbers = [item for item in items if item not in texts]
            label = texts[0] if texts else above.label
            self.parsed.remarks += texts[1:]
            add_boxes(numbers, replace(above, label=label), self.parsed)
            return
        for item in items:
            if isinstance(item, (dict, list)) and item != []:
                self.read(item, level + 1, above)
            elif isinstance(item, str) and has_items:
                self.parsed.remarks.append(item)
                reason = f"{item[:40]!r} in a list of boxes"
                self.parsed.dropped.append(Dropped(reason, above.label, above.id))
            else:  # an empty list, too
                raise _no_boxes(item)

    def read_object(self, fields: dict[str, object], level: int, above: RawBox) -> None:
        """Add what an object says: several items, a phrase under each id, one item, or a list."""
        if len(fields) > _MOST_BOXES:
            raise UnreadableReply(f"an object has more than {_MOST_BOXES} keys", "runaway")
        # A CutObject is a RepeatedKeys by its class alone: so the keys are counted.
        if isinstance(fields, RepeatedKeys) and len(fields) < len(fields.pairs):
            self.read_objects_in_a_row(fields, level, above)
            return
        is_cut = isinstance(fields, CutObject)
        self.parsed.truncated |= is_cut
        if fields and all(id_of(key) in self.phrases for key in fields):
            for key, value in fields.items():  # {"1": [10, 20, 30, 40], "2": null}
                self.read(value, level + 1, RawBox((), id=id_of(key)))
        elif any(self.holds_items(key, value) for key, value in fields.items()):
            self.read_wrapper(fields, level, above)
        elif is_cut:
            return  # it is an item, and what would have followed may change its box
        elif (inner := _in_envelope(fields)) is not None:
            self.read(inner, level + 1, above)
        elif any(map(self.is_key_of_item, fields)):
            self.read_item(fields, above)
        else:
            raise _no_list()

    def is_key_of_item(self, key: str) -> bool:
        is_of_box = self.is_box_key(key) or is_coordinate(key)
        return is_of_box or has_role(key, "label", "id", "found", "absent")

    def read_objects_in_a_row(self, fields: RepeatedKeys, level: int, above: RawBox) -> None:
        """Add objects without their braces: `{"name": …, "bbox": …, "name": …, "bbox": …}`."""
        # Qwen3-VL leaves the braces out. No other object has its keys in another order, and only
        # the text's end may leave the last one without some of them.
        count = len(fields)  # of different keys
        keys = [key for key, _ in fields.pairs]
        is_cut = isinstance(fields, CutObject)
        are_in_turn = all(key == keys[i % count] for i, key in enumerate(keys))
        if count < 2 or not are_in_turn or (len(keys) % count and not is_cut):
            raise _unknown("an object has a key twice")
        for start in range(0, len(keys) - count + 1, count):
            self.read_object(dict(fields.pairs[start : start + count]), level, above)
        self.parsed.truncated |= is_cut

    def is_box_key(self, key: str) -> bool:
        return plain_key(key) == self.box_key or has_role(key, "box", "outline", "point")

    def is_phrase(self, key: str) -> bool:
        """Whether a key is a phrase that was asked for, and no key of the grammar."""
        is_known = plain_key(key) in _roles() or self.is_wrapper(key) or self.is_box_key(key)
        return not is_known and not is_coordinate(key) and bool(ids_of(key, self.phrases))

    def holds_items(self, key: str, value: object) -> bool:
        """Whether a key makes an object one that holds items, rather than an item."""
        # "boxes" is a key of a box, too: an item may have "boxes": [[1, 2, 3, 4]], while
        # "boxes": [{"bbox": [1, 2, 3, 4]}] holds items.
        if self.is_wrapper(key):
            return not self.is_box_key(key) or _has_items(value)
        return has_role(key, "label_list") or self.is_phrase(key)

    def is_wrapper(self, key: str) -> bool:
        return has_role(key, "wrapper") or (bool(self.list_key) and plain_key(key) == self.list_key)

    def read_wrapper(self, fields: Mapping[str, object], level: int, above: RawBox) -> None:
        """Add `{"objects": [{…}, {…}]}`, or phrases: `{"a cup": [1, 2, 3, 4], "a plate": null}`."""
        phrase_keys = [key for key in fields if self.is_phrase(key)]
        list_keys = self.list_keys_of(fields)
        answers = [*phrase_keys[:1], *list_keys]  # all phrases together are one
        if len(answers) > 1:
            raise _unknown(f"boxes are under {' and '.join(answers)[:80]}")
        if not answers:
            raise _no_list()
        count_before = len(self.parsed.boxes)
        for key in phrase_keys:
            self.read(fields[key], level + 1, replace(above, label=key))
        label_keys = [key for key in fields if has_role(key, "label_list")]
        for key in list_keys:
            labels = fields[label_keys[0]] if label_keys else None
            if labels:
                self.read_parallel(fields[key], labels, is_outline=has_role(key, "outline"))
            else:
                self.read(fields[key], level + 1, above)
        self.read_statuses(fields.get("statuses"))  # the embedded grounder's, of phrases
        box_count = len(self.parsed.boxes) - count_before
        read_keys = {*phrase_keys, *list_keys, *(label_keys if list_keys else ())}
        for key, value in fields.items():
            if key in read_keys or value in _EMPTY or self.add_not_found(key, value):
                continue
            # Next to phrases that are keys, it may be a phrase that is misspelt.
            may_be_misspelt = bool(phrase_keys) and _may_be_answer(key, value)
            if may_be_misspelt or self.contradicts(key, value, box_count):
                raise _unknown(f"{key[:40]!r} is next to the boxes, and contradicts them")

    def list_keys_of(self, fields: Mapping[str, object]) -> list[str]:
        """The keys whose values are items or boxes."""
        keys: list[str] = []
        without_box: list[str] = []  # `"bbox": []`, or `"location": "on the left"`
        for key, value in fields.items():
            is_known = self.is_wrapper(key) or self.is_box_key(key)
            if not is_known or isinstance(value, (int, float)):
                continue
            has_box = bool(value) and not _is_in_words(value)
            (keys if has_box or not self.is_box_key(key) else without_box).append(key)
        return keys or without_box[:1]

    def read_parallel(self, values: object, names: object, *, is_outline: bool) -> None:
        """Add boxes and their labels, from two lists that belong together."""
        if not isinstance(values, list) or not isinstance(names, list) or len(values) != len(names):
            raise _unknown("a list of labels is next to another number of boxes")
        for value, name in zip(values, names, strict=True):
            label = name.strip() if isinstance(name, str) else ""
            add_boxes(value, RawBox((), label or None), self.parsed, is_outline=is_outline)

    def read_statuses(self, entries: object) -> None:
        """Keep `[{"id": 2, "status": "ambiguous", "reason": "…"}]`; pass over anything else."""
        for entry in entries if isinstance(entries, list) else ():
            phrase_id = id_of(entry.get("id")) if isinstance(entry, dict) else None
            if phrase_id is not None and isinstance(entry.get("status"), str):
                self.parsed.statuses[phrase_id] = entry["status"]
                if isinstance(entry.get("reason"), str):
                    self.parsed.reasons[phrase_id] = entry["reason"]

    def read_item(self, fields: Mapping[str, object], above: RawBox) -> None:
        """Add an item or its absence, or drop it."""
        label_key, label = _label_of(fields)
        score = next((fields[key] for key in fields if has_role(key, "score")), None)
        evidence = fields.get("evidence")
        item = replace(above, label=label or above.label, score=score)
        item.evidence = str(evidence) if evidence in EVIDENCE[1:] else None
        try:
            own_id = _own_id(fields)
            if above.id is not None and own_id not in (None, above.id):
                raise _unknown(f"under {above.id} is a box with another id")
            item.id = above.id if own_id is None else own_id
            found = self.boxes_of(fields)
            if found is None:
                raise NoBox(f"an object without a box: {(item.label or '')[:40]!r}")
            self.check_other_keys(fields, item, label_key, len(found.numbers))
        except NoBox as error:
            self.parsed.dropped.append(Dropped(str(error), item.label, item.id))
            return
        for numbers in found.numbers:
            box = replace(item, numbers=numbers, order=found.order, corners=found.corners)
            self.parsed.add(box)
        if not found.numbers:
            self.parsed.absences.append(item)

    def boxes_of(self, fields: Mapping[str, object]) -> Boxes | None:
        """Return an item's boxes: empty if its thing isn't there, None if it says nothing of it."""
        found = boxes_by_name(fields)  # one for each set of names, such as x1, y1, x2 and y2
        keys_with_null: list[str] = []
        for key, value in fields.items():
            if not self.is_box_key(key) or (has_role(key, "point") and not _is_point(value)):
                continue
            if value in (None, []) or (isinstance(value, str) and says_none(value, ())):
                keys_with_null.append(plain_key(key))
                continue
            boxes = boxes_in(value, is_outline=has_role(key, "outline"))
            if boxes is not None:
                found.append(boxes)
            elif not isinstance(value, str) or plain_key(key) == self.box_key:
                # under another key, it may be words: `"location": "on the left"`
                raise NoBox(f"{key[:20]!r} is no box: {str(value)[:40]!r}")
        # a point counts only where there is no box
        found = [boxes for boxes in found if len(boxes.numbers[0]) == 4] or found
        if not found:
            is_absent = bool(keys_with_null) or any(
                _count_said(*pair) == 0 for pair in fields.items()
            )
            return Boxes([]) if is_absent else None
        # A model may write one box in two ways. If they are equal, it is one box.
        do_differ = any(boxes.as_corners() != found[0].as_corners() for boxes in found)
        # "bbox_2d" was asked for: `"bbox_2d": null, "location": […]` is a contradiction, and
        # `"bbox_2d": […], "location": null` is one box.
        if do_differ or self.box_key in keys_with_null:
            raise NoBox("an object has several boxes, which differ")
        return found[0]

    def check_other_keys(
        self, fields: Mapping[str, object], item: RawBox, label_key: str | None, box_count: int
    ) -> None:
        """Read an item's keys but those of its box. Refuse it if one contradicts the box."""
        phrase_id = phrase_named(item.id, item.label, self.phrases)
        for key, value in fields.items():
            is_of_box = self.is_box_key(key) or is_coordinate(key)
            if value in _EMPTY or (is_of_box and not _is_in_words(value)):
                continue
            if key == label_key or has_role(key, "id"):
                continue
            # a further label may be another phrase: `"label": "a cup", "name": "a fork"`
            is_name = isinstance(value, str) and has_role(key, "label")
            named = ids_of(str(value), self.phrases) if is_name else []
            names_another = bool(named) and phrase_id is not None and phrase_id not in named
            if names_another or self.contradicts(key, value, box_count):
                raise NoBox(f"{key[:40]!r} is next to a box, and contradicts it")

    def contradicts(self, key: str, value: object, box_count: int) -> bool:
        """Whether a key's role contradicts the boxes next to it. A key without a role doesn't: it
        is kept for the remark. A size is kept in `parsed`.
        """
        if box_count == 0 and _may_be_answer(key, value):
            return True
        as_number = number(value)
        said = _count_said(key, value)
        if said is not None:
            return said != (box_count if has_role(key, "count") else box_count > 0)
        if has_role(key, "size") and isinstance(value, (list, dict)):
            # {"width": 640, "count": 2}, whose keys are as next to the boxes, or [640, 480]
            sides = (
                value
                if isinstance(value, dict)
                else dict(zip(("width", "height"), value, strict=False))
            )
            return any(self.contradicts(*side, box_count) for side in sides.items())
        if has_role(key, "zero") and as_number is not None:
            if as_number:  # "image_index": 1
                raise _unknown("the reply has boxes of several pictures")
        elif has_role(key, "width", "height") and as_number is not None:
            self.parsed.sizes.append((0 if has_role(key, "width") else 1, as_number))
        elif not _says_nothing_more(key, value) and len(self.parsed.remarks) < _MOST_REMARKS:
            self.parsed.remarks.append(key_remark(key, value))
        return False

    def add_not_found(self, key: str, value: object) -> bool:
        """Keep the absent phrases of `"not_found": [2]`, also by their names. False for any other
        value.
        """
        if not has_role(key, "absent") or not isinstance(value, (list, str)):
            return False
        named: list[int] = []
        for name in value if isinstance(value, list) else [value]:
            phrase_id = id_of(name)
            if phrase_id is not None and phrase_id in self.phrases:
                named.append(phrase_id)
            elif isinstance(name, str):
                named += ids_of(name, self.phrases)
        self.parsed.not_found += named
        return bool(named)


def _in_envelope(fields: Mapping[str, object]) -> object:
    """Return the answer in {"reply": {"objects": [{…}]}}; None for other objects."""
    if len(fields) > 1 or not has_role(next(iter(fields), ""), "envelope"):
        return None
    value = next(iter(fields.values()))
    if isinstance(value, str):
        value = strict_json(value)  # {"message": "not found"} is what a server says
    return value if isinstance(value, (dict, list)) else None


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and None not in map(number, value)


def _has_items(value: object) -> bool:
    """[{"bbox": [1, 2, 3, 4]}] and [["cup", 1, 2, 3, 4]] have; [[1, 2, 3, 4]] has bare boxes."""
    for item in value if isinstance(value, list) else ():
        inner = item if isinstance(item, list) else []
        has_text = any(isinstance(part, str) and number(part) is None for part in inner)
        if isinstance(item, dict) or has_text:
            return True
    return False


def _may_be_answer(key: str, value: object) -> bool:
    """Whether a value has a box in it, or says that no picture came."""
    if has_role(key, "idle", "statuses"):
        return False
    return saw_no_picture(value) if isinstance(value, str) else _count_of_numbers(value) >= 4


def _count_of_numbers(value: object) -> int:
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return sum(map(_count_of_numbers, items))
    return int(number(value) is not None)


def _is_in_words(value: object) -> bool:
    """Whether a value is a text, and neither a box, "10, 20, 30, 40", nor a coordinate, "10"."""
    return isinstance(value, str) and number(value) is None and numbers_in(value) is None


def _unknown(message: str) -> UnreadableReply:
    return UnreadableReply(message, "unknown JSON")


def _no_list() -> UnreadableReply:
    return _unknown("the JSON has no list of boxes that is known")


def _no_boxes(value: object) -> UnreadableReply:
    shown = in_brackets(value) if isinstance(value, list) else repr(str(value)[:40])
    return _unknown(f"{shown} is where boxes should be")


def _label_of(fields: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Of several labels, return the one whose key grammar.yaml names first, and that key."""
    labels: list[tuple[int, str, str]] = []
    for key, value in fields.items():
        if isinstance(value, dict):  # in several languages: {"zh": "杯子", "en": "cup"}
            texts = [text for text in value.values() if isinstance(text, str)]
            value = value.get("en", texts[0] if texts else None)
        if has_role(key, "label") and isinstance(value, str) and value.strip():
            # "label" and "Label" are one key of grammar.yaml: of these, the alphabet's first counts
            labels.append((_label_keys().index(plain_key(key)), key, value.strip()))
    return min(labels)[1:] if labels else (None, None)


def _own_id(fields: Mapping[str, object]) -> int | None:
    values = [fields[key] for key in fields if has_role(key, "id") and fields[key] not in _EMPTY]
    ids = {id_of(value) for value in values}
    if None in ids or len(ids) > 1:
        raise NoBox(f"an object whose id is no number: {values[0]!r:.40}")
    return ids.pop() if ids else None


def id_of(value: object) -> int | None:
    """Return the whole number that a reply states as an id, as a text, too; None for others."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count_said(key: str, value: object) -> float | None:
    """How many boxes a key says there are, where true is any; None if it says nothing of it."""
    if has_role(key, "count"):
        return number(value)  # "total": 3
    truth = _TRUTHS.get(value.strip().lower()) if isinstance(value, str) else value
    is_denied = truth is False
    if has_role(key, "absent") and isinstance(truth, bool):
        return is_denied  # "missing": true
    if has_role(key, "found") and isinstance(truth, bool):
        return truth  # "visible": false
    if has_role(key, "status") and isinstance(value, str):
        is_denied |= says_none(value.replace("_", " "), ())
    # "status": "not found", "success": false, "score": false
    return False if is_denied and has_role(key, "status", "score") else None


def _says_nothing_more(key: str, value: object) -> bool:
    """Whether a key next to boxes that doesn't contradict them is no remark either."""
    if has_role(key, "status"):  # "status": "found"
        return value is True or str(value).strip().lower() in grammar_words("done")
    is_evidence = has_role(key, "evidence") and value in EVIDENCE
    is_score = has_role(key, "score") and number(value) is not None
    return is_evidence or is_score or has_role(key, "idle", "statuses")
