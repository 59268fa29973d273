"""The boxes in a value of JSON.

An item is an object with one box. What holds items, and what may be next to a box or a list, are
lists of keys in grammar.yaml, each a role. A key whose role contradicts a box drops its item
(NoBox), or refuses the reply (UnreadableReply) if it is next to a list. Any other key next to boxes
is a part of the remark. Boxes under an unknown key alone are no answer.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

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
    reader.read(answer, level=1, label=None)
    if not parsed and parsed.truncated:
        raise TruncatedReply("the reply is cut off before its first whole box", "cut off")


def only_answer(values: list[object]) -> list[object]:
    """Return the values of the reply's one answer. Refuse several whole answers that differ."""
    if len(values) > 1 and are_parts(values):  # a list for each phrase becomes one list of all
        return [{"objects": [item for value in values for item in _items_of(value)]}]
    if len(values) < 2 or not any(map(_is_whole_answer, values)):
        return values  # items without their list, or a single answer
    # A model in a loop writes the same answer again and again, until the reply is cut off. So after
    # two whole answers, a last one that is cut off isn't compared with the first.
    is_loop_cut_off = len(values) > 2 and isinstance(values[-1], (CutArray, CutObject))
    to_compare = values[:-1] if is_loop_cut_off else values
    if any(value != values[0] for value in to_compare):
        raise UnreadableReply("the reply has several answers", "several answers")
    return values[:1]


def are_parts(values: Sequence[object]) -> bool:
    """Whether all items have ids, and no two values share one: one answer, phrase by phrase."""
    seen: set[int] = set()
    for value in values:
        items = _items_of(value)
        ids: set[int] = set()
        for item in items:
            item_id = id_of(item.get("id")) if isinstance(item, dict) else None
            if item_id is None:
                return False
            ids.add(item_id)
        if not items or seen & ids:
            return False
        seen |= ids
    return True


def _items_of(value: object) -> list[object]:
    """Return the items of {"objects": [{…}]}, of [{…}] or of {"id": 1, …}."""
    if isinstance(value, (CutArray, CutObject)):
        return []
    if isinstance(value, dict) and "id" in value:
        return [value]
    if isinstance(value, dict) and len(value) == 1 and has_role(next(iter(value)), "wrapper"):
        value = next(iter(value.values()))
    return value if isinstance(value, list) and not isinstance(value, CutArray) else []


def _is_whole_answer(value: object) -> bool:
    """[], [{…}] and {"objects": [{…}]} are; a box [1, 2, 3, 4] and {"bbox": …} aren't."""
    if isinstance(value, list):
        return not value or any(isinstance(item, (dict, list)) for item in value)
    if isinstance(value, dict):
        for key, inner in value.items():
            is_empty = inner in (None, [])
            if has_role(key, "wrapper") and (is_empty or _has_items(inner)):
                return True
    return False


class _Reader:
    """Adds what a value says to a parsed reply. Both keys are as `plain_key` makes them."""

    def __init__(
        self, parsed: ParsedReply, phrases: Mapping[int, str], box_key: str, list_key: str
    ) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.texts = list(phrases.values())
        self.box_key = box_key
        self.list_key = list_key

    def read(self, value: object, level: int, label: str | None) -> None:
        """Add what a value says. `level` counts the objects and arrays around it, itself included;
        `label` is the key above it, if that is a phrase.
        """
        if level > _MOST_LEVELS:
            raise _unknown("answers are nested too deeply")
        if len(self.parsed.boxes) + len(self.parsed.dropped) > _MOST_BOXES:
            raise UnreadableReply(f"more than {_MOST_BOXES} boxes", "runaway")
        if value is None:
            self.parsed.absences.append(RawBox((), label))
        elif isinstance(value, list):
            self.read_list(value, level, label)
        elif isinstance(value, dict):
            self.read_object(value, level, label)
        elif isinstance(value, str):
            self.read_string(value, level, label)
        else:
            raise _no_boxes(value)

    def read_string(self, text: str, level: int, label: str | None) -> None:
        """Add what a string says: JSON within JSON, a box's numbers, tokens, or a word for none."""
        inner = strict_json(text)
        if inner is not None:
            self.read(inner, level + 1, label)
        elif numbers_in(text) is not None:
            add_boxes(text, RawBox((), label), self.parsed)
        elif "<loc_" in text:
            read_tokens(text, self.parsed, self.phrases)
        elif says_none(text, self.texts):
            self.parsed.absences.append(RawBox((), label))
        else:
            raise _no_boxes(text)

    def read_list(self, items: list[object], level: int, label: str | None) -> None:
        """Add what a list says: one box, or its items; an empty one says that nothing is there."""
        if isinstance(items, CutArray):
            self.parsed.truncated = True
            # the last text may be cut off, too, so none is read
            items = [item for item in items if not isinstance(item, str)]
            if not items:
                return  # what was to come isn't known: it doesn't say that nothing is there
        elif not items:
            self.parsed.absences.append(RawBox((), label))
            return
        if any(isinstance(item, (dict, list)) for item in items):
            self.read_items(items, level, label)
        else:
            self.read_plain_values(items, label)

    def read_items(self, items: list[object], level: int, label: str | None) -> None:
        """Add the objects and lists in a list. Texts between them are no boxes."""
        for item in items:
            if isinstance(item, (dict, list)) and item != []:
                self.read(item, level + 1, label)
            elif isinstance(item, str):
                self.parsed.remarks.append(item)
                self.parsed.dropped.append(Dropped(f"{item[:40]!r} in a list of boxes", label))
            else:  # an empty list, too
                raise _no_boxes(item)

    def read_plain_values(self, items: list[object], label: str | None) -> None:
        """Add the one box of `[1, 2, 3, 4]` or `["cup", 1, 2, 3, 4]`."""
        texts = [item for item in items if isinstance(item, str) and number(item) is None]
        numbers = [item for item in items if item not in texts]
        own_label = texts[0] if texts else label  # the first text is the label
        if not numbers:
            raise _no_boxes(items)
        self.parsed.remarks += texts[1:]
        add_boxes(numbers, RawBox((), own_label), self.parsed)

    def read_object(self, fields: dict[str, object], level: int, label: str | None) -> None:
        """Add what an object says: several items, a phrase under each id, one item, or a list."""
        if len(fields) > _MOST_BOXES:
            raise UnreadableReply(f"an object has more than {_MOST_BOXES} keys", "runaway")
        # A CutObject is a RepeatedKeys by its class alone: so the keys are counted.
        if isinstance(fields, RepeatedKeys) and len(fields) < len(fields.pairs):
            self.read_objects_in_a_row(fields, level, label)
            return
        if fields and all(id_of(key) in self.phrases for key in fields):
            self.read_by_id(fields, level)  # {"1": [10, 20, 30, 40], "2": null}
            return
        is_cut = isinstance(fields, CutObject)
        self.parsed.truncated |= is_cut
        if any(self.holds_items(key, value) for key, value in fields.items()):
            self.read_wrapper(fields, level, label)
            return
        if is_cut:
            return  # it is an item, and what would have followed may change its box
        inner = _in_envelope(fields)
        if inner is not None:
            self.read(inner, level + 1, label)
        elif any(map(self.is_key_of_item, fields)):
            self.read_item(fields, label)
        else:
            raise _no_list()

    def is_key_of_item(self, key: str) -> bool:
        is_of_box = self.is_box_key(key) or is_coordinate(key)
        return is_of_box or has_role(key, "point", "label", "id", "found", "absent")

    def read_objects_in_a_row(self, fields: RepeatedKeys, level: int, label: str | None) -> None:
        """Add objects without their braces: `{"name": …, "bbox": …, "name": …, "bbox": …}`."""
        # Qwen3-VL leaves the braces out. object other object has its keys in another order.
        keys = [key for key, _ in fields.pairs]
        keys_per_object = len(fields)  # how many different keys there are
        are_in_turn = all(key == keys[i % keys_per_object] for i, key in enumerate(keys))
        object_count, keys_left = divmod(len(keys), keys_per_object)
        # Only the text's end may leave the last object without some of its keys.
        is_cut = isinstance(fields, CutObject)
        lacks_keys = keys_left > 0 and not is_cut
        if keys_per_object < 2 or not are_in_turn or lacks_keys:
            raise _unknown("an object has a key twice")
        for index in range(object_count):
            start = index * keys_per_object
            part = dict(fields.pairs[start : start + keys_per_object])
            self.read_object(part, level, label)
        self.parsed.truncated |= is_cut

    def read_by_id(self, fields: dict[str, object], level: int) -> None:
        """Add what is under each key, which is a phrase's id, and give it that id."""
        parsed = self.parsed
        parsed.truncated |= isinstance(fields, CutObject)
        lists: list[list[RawBox] | list[Dropped]] = [parsed.boxes, parsed.points]
        lists += [parsed.absences, parsed.dropped]
        for key, value in fields.items():
            phrase_id = id_of(key)
            counts_before = [len(items) for items in lists]
            self.read(value, level + 1, label=None)
            for items, count_before in zip(lists, counts_before, strict=True):
                new_items = items[count_before:]  # which this key has added
                for item in new_items:
                    if item.id not in (None, phrase_id):
                        raise _unknown(f"under {key[:20]!r} is a box with another id")
                    item.id = phrase_id

    def is_box_key(self, key: str) -> bool:
        return plain_key(key) == self.box_key or has_role(key, "box", "outline")

    def is_phrase(self, key: str) -> bool:
        """Whether a key is a phrase that was asked for, and no key of the grammar."""
        plain = plain_key(key)
        if not self.phrases or plain in _roles() or plain in (self.box_key, self.list_key):
            return False
        if is_coordinate(key):
            return False
        return bool(ids_of(key, self.phrases))

    def holds_items(self, key: str, value: object) -> bool:
        """Whether a key makes an object one that holds items, rather than an item."""
        if self.is_phrase(key) or has_role(key, "label_list", "statuses"):
            return True
        if not self.is_wrapper(key):
            return False
        # "boxes" is a key of a box, too: an item may have "boxes": [[1, 2, 3, 4]], while
        # "boxes": [{"bbox": [1, 2, 3, 4]}] holds items.
        return not self.is_box_key(key) or _has_items(value)

    def is_wrapper(self, key: str) -> bool:
        return has_role(key, "wrapper") or (bool(self.list_key) and plain_key(key) == self.list_key)

    def read_wrapper(self, fields: Mapping[str, object], level: int, label: str | None) -> None:
        """Add `{"objects": [{…}, {…}]}`, or phrases: `{"a cup": [1, 2, 3, 4], "a plate": null}`."""
        phrase_keys = [key for key in fields if self.is_phrase(key)]
        list_keys = self.list_keys_of(fields)
        _check_is_one_answer(phrase_keys, list_keys)
        count_before = len(self.parsed.boxes)
        keys_with_boxes = set(list_keys)
        for key in phrase_keys:
            count_before_key = len(self.parsed.boxes)
            self.read(fields[key], level + 1, label=key)
            if len(self.parsed.boxes) > count_before_key:
                keys_with_boxes.add(key)
        for key in list_keys:
            self.read_list_under(key, fields, level, label)
        self.read_statuses(fields.get("statuses"))  # the embedded grounder's, of phrases
        boxes = self.parsed.boxes[count_before:]
        others: dict[str, object] = {}  # keys and values that were not read
        for key, value in fields.items():
            if key in keys_with_boxes:
                continue
            # "coordinates" is a key for boxes, but "coordinates": "pixels" is a text next to them.
            is_text_next_to_boxes = bool(boxes) and isinstance(value, str)
            is_list_without_box = self.is_list(key, value)  # else it would be in `list_keys`
            are_labels = bool(list_keys) and has_role(key, "label_list")
            is_done = key in phrase_keys or is_list_without_box or are_labels
            if is_text_next_to_boxes or not is_done:
                others[key] = value
        self.read_next_to_list(boxes, others, are_phrases_keys=bool(phrase_keys))

    def read_list_under(
        self, key: str, fields: Mapping[str, object], level: int, label: str | None
    ) -> None:
        """Add the items under a key, with their labels where another key has a list of these."""
        labels = next((fields[other] for other in fields if has_role(other, "label_list")), None)
        if labels:
            self.read_parallel(fields[key], labels, is_outline=has_role(key, "outline"))
        else:
            self.read(fields[key], level + 1, label)

    def read_next_to_list(
        self, boxes: Sequence[RawBox], others: Mapping[str, object], *, are_phrases_keys: bool
    ) -> None:
        """Read the other keys next to a list. Refuse boxes that one of them contradicts."""
        for key, value in others.items():
            if value in _EMPTY or self.add_not_found(key, value):
                continue
            # Next to phrases that are keys, it may be a phrase that is misspelt.
            is_other_answer = (are_phrases_keys or not boxes) and _may_be_answer(key, value)
            if is_other_answer or self.contradicts(key, value, len(boxes)):
                raise _unknown(f"{key[:40]!r} is next to the boxes, and contradicts them")

    def list_keys_of(self, fields: Mapping[str, object]) -> list[str]:
        keys = [key for key, value in fields.items() if self.is_list(key, value)]
        if len(keys) < 2:
            return keys
        # Of several, `"bbox": []` and `"location": "on the left"` don't count: they have no box.
        list_keys: list[str] = []
        for key in keys:
            value = fields[key]
            is_in_words = isinstance(value, str) and not _has_box_in_words(value)
            has_value = bool(value) and not is_in_words
            if has_value or not self.is_box_key(key):
                list_keys.append(key)
        if not list_keys:  # all are for boxes and have none: one is enough to say that
            return keys[:1]
        return list_keys

    def is_list(self, key: str, value: object) -> bool:
        """Whether a key is for items, and its value may be them: no number, true or false."""
        is_known = self.is_wrapper(key) or self.is_box_key(key)
        return is_known and (value is None or isinstance(value, (list, dict, str)))

    def read_parallel(self, values: object, labels: object, *, is_outline: bool) -> None:
        """Add boxes and their labels, from two lists that belong together."""
        if not (isinstance(values, list) and isinstance(labels, list)):
            raise _unknown("a list of labels is next to another number of boxes")
        if len(values) != len(labels):
            raise _unknown("a list of labels is next to another number of boxes")
        for value, name in zip(values, labels, strict=True):
            label = name.strip() if isinstance(name, str) else ""
            add_boxes(value, RawBox((), label or None), self.parsed, is_outline=is_outline)

    def read_statuses(self, entries: object) -> None:
        """Keep `[{"id": 2, "status": "ambiguous", "reason": "…"}]`; pass over anything else."""
        if not isinstance(entries, list):
            return
        for entry in entries:
            phrase_id = id_of(entry.get("id")) if isinstance(entry, dict) else None
            if phrase_id is not None and isinstance(entry.get("status"), str):
                self.parsed.statuses[phrase_id] = entry["status"]
                if isinstance(entry.get("reason"), str):
                    self.parsed.reasons[phrase_id] = entry["reason"]

    def read_item(self, fields: Mapping[str, object], label: str | None) -> None:
        """Add an item or its absence, or drop it. `label` is for one without a label of its own."""
        own = _label_of(fields)
        item = RawBox((), own.text or label)  # its numbers are added below
        try:
            item.id = _own_id(fields)
            found = self.boxes_of(fields)
            if found is None:
                raise NoBox(f"an object without a box: {(item.label or '')[:40]!r}")
            self.read_other_keys(fields, item, own.key, len(found.numbers))
        except NoBox as error:
            self.parsed.dropped.append(Dropped(str(error), item.label, item.id))
            return
        if found.numbers:
            self.add_boxes_of_item(fields, item, found)
        else:
            self.parsed.absences.append(item)

    def add_boxes_of_item(self, fields: Mapping[str, object], item: RawBox, found: Boxes) -> None:
        score = next((fields[key] for key in fields if has_role(key, "score")), None)
        evidence = fields.get("evidence")
        if evidence not in EVIDENCE:
            evidence = None
        for numbers in found.numbers:
            box = RawBox(
                numbers,
                label=item.label,
                id=item.id,
                score=score,
                evidence=evidence,
                order=found.order,
                corners=found.corners,
            )
            self.parsed.add(box)

    def boxes_of(self, fields: Mapping[str, object]) -> Boxes | None:
        """Return an item's boxes: empty if its thing isn't there, None if it says nothing of it."""
        found = boxes_by_name(fields)  # one for each set of names, such as x1, y1, x2 and y2
        keys_with_null: list[str] = []
        for key, value in fields.items():
            if not self.is_box_key(key):
                continue
            if value in (None, []) or (isinstance(value, str) and says_none(value, ())):
                keys_with_null.append(plain_key(key))
                continue
            boxes = self.boxes_under(key, value)
            if boxes is not None:
                found.append(boxes)
        if not found:  # a point counts only where there is no box
            found = [Boxes([point]) for point in _points_of(fields)]
        if not found:
            is_said_absent = bool(keys_with_null) or _is_absent(fields)
            return Boxes([]) if is_said_absent else None
        # A model may write one box in two ways. If they are equal, it is one box.
        do_differ = any(boxes.as_corners() != found[0].as_corners() for boxes in found)
        # "bbox_2d" was asked for: `"bbox_2d": null, "location": […]` is a contradiction, and
        # `"bbox_2d": […], "location": null` is one box.
        if do_differ or self.box_key in keys_with_null:
            raise NoBox("an object has several boxes, which differ")
        return found[0]

    def boxes_under(self, key: str, value: object) -> Boxes | None:
        """Return the boxes under a key; None for words such as `"location": "on the left"`."""
        boxes = boxes_in(value, is_outline=has_role(key, "outline"))
        if boxes is not None:
            return boxes
        # Under the key that was asked for, there have to be boxes.
        if isinstance(value, str) and plain_key(key) != self.box_key:
            return None
        raise NoBox(f"{key[:20]!r} is no box: {str(value)[:40]!r}")

    def is_of_box(self, key: str, value: object) -> bool:
        is_point = has_role(key, "point") and isinstance(value, list)
        return is_point or self.is_box_key(key) or is_coordinate(key)

    def read_other_keys(
        self, fields: Mapping[str, object], item: RawBox, label_key: str | None, box_count: int
    ) -> None:
        """Read an item's keys but those of its box. Refuse it if one contradicts the box."""
        phrase_id = phrase_named(item.id, item.label, self.phrases)
        for key, value in fields.items():
            # "location" is a key for boxes, but "on the left" is a text next to one.
            is_in_words = isinstance(value, str) and not _has_box_in_words(value)
            is_box = self.is_of_box(key, value) and not is_in_words
            if value in _EMPTY or is_box or key == label_key or has_role(key, "id"):
                continue
            # A score above 0 says that there is a box, and contradicts `"bbox_2d": null`.
            if has_role(key, "score") and number(value) and not box_count:
                raise NoBox("a score is given, and no box")
            names_another = self.is_label_of_another(key, value, phrase_id)
            is_other_answer = not box_count and _may_be_answer(key, value)
            if names_another or is_other_answer or self.contradicts(key, value, box_count):
                raise NoBox(f"{key[:40]!r} is next to a box, and contradicts it")

    def is_label_of_another(self, key: str, value: object, phrase_id: int | None) -> bool:
        """Whether a further label of an item is another phrase: `"name": "a fork"`."""
        if not isinstance(value, str) or not has_role(key, "label") or has_role(key, "kind"):
            return False
        named_ids = ids_of(value, self.phrases)
        return bool(named_ids) and phrase_id is not None and phrase_id not in named_ids

    def contradicts(self, key: str, value: object, box_count: int) -> bool:
        """Whether a key's role contradicts the boxes next to it. A key without a role doesn't: it
        is kept for the remark. A size is kept in `parsed`.
        """
        has_boxes = box_count > 0
        if has_role(key, "zero") and number(value) is not None:
            if number(value) != 0:  # "image_index": 1
                raise _unknown("the reply has boxes of several pictures")
            return False
        if has_role(key, "count") and number(value) is not None:
            return number(value) != box_count  # "total": 3, next to two boxes
        truth = _flag(value)
        if has_role(key, "found") and truth is not None:  # "visible": false
            return truth is not has_boxes
        if has_role(key, "absent") and truth is not None:  # "missing": true
            return truth is has_boxes
        if has_role(key, "status") and (_says_nothing(value) or truth is False):
            return has_boxes  # "status": "not found", "success": false
        if has_role(key, "score") and (value is False or number(value) is not None):
            return value is False and has_boxes
        if has_role(key, "size") and isinstance(value, dict):
            # the keys in "metadata": {"width": 640, "count": 2} are as next to the boxes
            return any(self.contradicts(inner, value[inner], box_count) for inner in value)
        if not self.is_said_by_role(key, value):
            self.add_remark(key, value)
        return False

    def is_said_by_role(self, key: str, value: object) -> bool:
        """Whether a key that contradicts no box is no remark either. A size is kept."""
        if has_role(key, "width", "height", "size"):
            return self.add_size(key, value)
        if has_role(key, "status") and _is_done(value):
            return True  # "status": "found"
        is_evidence = has_role(key, "evidence") and value in EVIDENCE
        return is_evidence or has_role(key, "idle", "statuses")

    def add_remark(self, key: str, value: object) -> None:
        if len(self.parsed.remarks) < _MOST_REMARKS:
            self.parsed.remarks.append(key_remark(key, value))

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

    def add_size(self, key: str, value: object) -> bool:
        """Keep a size of the picture. False where a value is none."""
        if isinstance(value, list) and len(value) == 2:  # [640, 480]
            value = {"width": value[0], "height": value[1]}
        if isinstance(value, dict):
            return all(self.add_size(inner_key, inner) for inner_key, inner in value.items())
        side = number(value)
        if side is None or not has_role(key, "width", "height"):
            return False
        axis = 0 if has_role(key, "width") else 1
        self.parsed.sizes.append((axis, side))
        return True


def _check_is_one_answer(phrase_keys: Sequence[str], list_keys: Sequence[str]) -> None:
    """Take all phrases together for one answer, and each key for a list for another."""
    keys_of_answers = [*phrase_keys[:1], *list_keys]
    if not keys_of_answers:
        raise _no_list()
    if len(keys_of_answers) > 1:
        raise _unknown(f"boxes are under {' and '.join(keys_of_answers)[:80]}")


def _in_envelope(fields: Mapping[str, object]) -> object:
    """Return the answer in {"reply": {"objects": [{…}]}}; None for other objects."""
    if len(fields) != 1:
        return None
    key, value = next(iter(fields.items()))
    if isinstance(value, str):
        value = strict_json(value)  # {"message": "not found"} is what a server says
    return value if has_role(key, "envelope") and isinstance(value, (dict, list)) else None


def _has_items(value: object) -> bool:
    """[{"bbox": [1, 2, 3, 4]}] and [["cup", 1, 2, 3, 4]] have; [[1, 2, 3, 4]] has bare boxes."""
    if not isinstance(value, list):
        return False
    for item in value:
        if isinstance(item, dict):
            return True
        inner_values = item if isinstance(item, list) else []
        if any(isinstance(inner, str) and number(inner) is None for inner in inner_values):
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


def _has_box_in_words(text: str) -> bool:
    """Whether a text is a box, "10, 20, 30, 40", or one of its coordinates, "10"."""
    return number(text) is not None or boxes_in(text, is_outline=False) is not None


def _unknown(message: str) -> UnreadableReply:
    return UnreadableReply(message, "unknown JSON")


def _no_list() -> UnreadableReply:
    return _unknown("the JSON has no list of boxes that is known")


def _no_boxes(value: object) -> UnreadableReply:
    shown = in_brackets(value) if isinstance(value, list) else repr(str(value)[:40])
    return _unknown(f"{shown} is where boxes should be")


class _Label(NamedTuple):
    """An item's label and its key; both None without one."""

    key: str | None = None
    text: str | None = None


def _label_of(fields: Mapping[str, object]) -> _Label:
    """Of several labels, return the one whose key grammar.yaml names first."""
    labels: list[_Label] = []
    ranks: list[tuple[int, str]] = []
    for key, value in fields.items():
        if isinstance(value, dict):  # in several languages: {"zh": "杯子", "en": "cup"}
            texts = [text for text in value.values() if isinstance(text, str)]
            value = value.get("en", texts[0] if texts else None)
        if has_role(key, "label") and isinstance(value, str) and value.strip():
            labels.append(_Label(key, value.strip()))
            # "label" and "Label" are one key of grammar.yaml: of these, the alphabet's first counts
            ranks.append((_label_keys().index(plain_key(key)), key))
    return labels[ranks.index(min(ranks))] if labels else _Label()


def _points_of(fields: Mapping[str, object]) -> list[tuple[float, ...]]:
    """Return points such as `"center": [15, 30]`."""
    points: list[tuple[float, ...]] = []
    for key, value in fields.items():
        if has_role(key, "point") and isinstance(value, list) and len(value) == 2:
            x, y = number(value[0]), number(value[1])
            if x is not None and y is not None:
                points.append((x, y))
    return points


def _own_id(fields: Mapping[str, object]) -> int | None:
    values = [value for key, value in fields.items() if has_role(key, "id")]
    ids = {id_of(value) for value in values if value not in _EMPTY}
    has_bad_id = None in ids
    if has_bad_id or len(ids) > 1:
        raise NoBox(f"an object whose id is no number: {values[0]!r:.40}")
    return ids.pop() if ids else None


def id_of(value: object) -> int | None:
    """Return the whole number that a reply states as an id, as a text, too; None for others."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _truth(value: object) -> bool | None:
    if isinstance(value, str):
        return _TRUTHS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _flag(value: object) -> bool | None:
    """As `_truth`, but 1 and 0 are true and false, too."""
    truth = _truth(value)
    if truth is None and number(value) in (0, 1):
        return bool(number(value))
    return truth


def _is_done(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in grammar_words("done")
    return value is True


def _says_nothing(value: object) -> bool:
    return isinstance(value, str) and says_none(value.replace("_", " "), ())


def _is_absent(fields: Mapping[str, object]) -> bool:
    """As "found": false, "absent": true, "count": 0 and "status": "not_found" say."""
    for key, value in fields.items():
        if has_role(key, "found") and _truth(value) is False:
            return True
        if has_role(key, "absent") and _truth(value) is True:
            return True
        if has_role(key, "count") and number(value) == 0:
            return True
        if has_role(key, "status") and _says_nothing(value):
            return True
    return False
