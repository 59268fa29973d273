"""The boxes in a value of JSON.

An item is an object with one box. What holds items, and what may be next to a box or a list, are
lists of keys in grammar.yaml, each a role. Under an unknown key is no answer: boxes there make
the reply unreadable, and a number or a place next to a box makes that box unreadable.

An item is addressed if it names a phrase that was asked for, by its id or its label. Then it is
clear what its box is of, and only keys and words that are known to do harm count against it
(`harmful_key`). Next to other boxes, all that isn't known to be harmless counts against them
(`changing_key`). What counts against one item drops that item (NoBox); next to a list it refuses
the reply (UnreadableReply).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import load_table
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
from dataflow_grounding.replies.key_meanings import (
    key_affirms,
    key_changes,
    key_denies,
    key_says_cut,
    key_states,
    key_words,
    names_another,
)
from dataflow_grounding.replies.reading import (
    EVIDENCE,
    Dropped,
    KeyText,
    ParsedReply,
    RawBox,
    in_brackets,
)
from dataflow_grounding.replies.things import denies
from dataflow_grounding.replies.tokens import read_tokens
from dataflow_grounding.replies.words import (
    agrees_with_none,
    grammar_words,
    ids_of,
    objection,
    other_thing,
    phrase_named,
    points_back,
    says_none,
    share_a_word,
    turning_word,
)

_MOST_LEVELS = 8  # of objects and arrays around items
_MOST_BOXES = 5_000  # of a reply; no model is asked for more, or has the tokens to write them
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_ANYTHING = None  # in place of a list of the things that words may name
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
    values: Sequence[Any],
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


def only_answer(values: list[Any]) -> list[Any]:
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


def are_parts(values: Sequence[Any]) -> bool:
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


def _items_of(value: Any) -> list[Any]:
    """Return the items of {"objects": [{…}]}, of [{…}] or of {"id": 1, …}."""
    if isinstance(value, (CutArray, CutObject)):
        return []
    if isinstance(value, dict) and "id" in value:
        return [value]
    if isinstance(value, dict) and len(value) == 1 and has_role(next(iter(value)), "wrapper"):
        value = next(iter(value.values()))
    return value if isinstance(value, list) and not isinstance(value, CutArray) else []


def _is_whole_answer(value: Any) -> bool:
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

    def read(self, value: Any, level: int, label: str | None) -> None:
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
            read_tokens(text, self.parsed)
        elif says_none(text, self.texts):
            self.parsed.absences.append(RawBox((), label))
        else:
            raise _no_boxes(text)

    def read_list(self, items: list[Any], level: int, label: str | None) -> None:
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

    def read_items(self, items: list[Any], level: int, label: str | None) -> None:
        """Add the objects and lists in a list. Harmless texts between them are dropped."""
        count_before = len(self.parsed.boxes)
        for item in items:
            if isinstance(item, (dict, list)) and item != []:
                self.read(item, level + 1, label)
            elif not isinstance(item, str):  # an empty list, too
                raise _no_boxes(item)
        # A text next to a box without a label may be its label, so it may name the phrases alone.
        # Where all boxes have labels, a text may name anything.
        are_labelled = all(box.label for box in self.parsed.boxes[count_before:])
        things = _ANYTHING if are_labelled else self.texts
        for text in [item for item in items if isinstance(item, str)]:
            if not self.is_harmless(key="", value=text, things=things):
                raise _no_boxes(text)
            self.parsed.dropped.append(Dropped(f"{text[:40]!r} in a list of boxes", label))

    def read_plain_values(self, items: list[Any], label: str | None) -> None:
        """Add the one box of `[1, 2, 3, 4]` or `["cup", 1, 2, 3, 4]`."""
        texts = [item for item in items if isinstance(item, str) and number(item) is None]
        numbers = [item for item in items if item not in texts]
        own_label = texts[0] if texts else label  # the first text is the label
        if not numbers or any(objection(text) for text in texts[1:]):
            raise _no_boxes(items)
        add_boxes(numbers, RawBox((), own_label), self.parsed)

    def read_object(self, fields: dict[str, Any], level: int, label: str | None) -> None:
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
        # Qwen3-VL leaves the braces out. Any other object has its keys in another order.
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

    def read_by_id(self, fields: dict[str, Any], level: int) -> None:
        """Add what is under each key, which is a phrase's id, and give it that id."""
        parsed = self.parsed
        parsed.truncated |= isinstance(fields, CutObject)
        lists: list[list[Any]] = [parsed.boxes, parsed.points, parsed.absences, parsed.dropped]
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

    def holds_items(self, key: str, value: Any) -> bool:
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

    def read_wrapper(self, fields: Mapping[str, Any], level: int, label: str | None) -> None:
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
        others: dict[str, Any] = {}  # keys and values that were not read
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
        self.check_next_to(boxes, others)

    def read_list_under(
        self, key: str, fields: Mapping[str, Any], level: int, label: str | None
    ) -> None:
        """Add the items under a key, with their labels where another key has a list of these."""
        labels = next((fields[other] for other in fields if has_role(other, "label_list")), None)
        if labels:
            self.read_parallel(fields[key], labels, is_outline=has_role(key, "outline"))
        else:
            self.read(fields[key], level + 1, label)

    def check_next_to(self, boxes: Sequence[RawBox], others: Mapping[str, Any]) -> None:
        """Refuse boxes with other keys next to their list which may change them."""
        # What a model thought can only make its boxes doubtful. Without boxes, it is checked like
        # any other text: it may contradict that nothing is there.
        if boxes:
            others = self.without_thinking(others)
        are_addressed = bool(boxes) and all(self.address_of(box) is not None for box in boxes)
        if are_addressed:
            changing = self.harmful_key(others, own_id=None, box_count=len(boxes))
        else:
            changing = self.changing_key(others, len(boxes), self.things_of(boxes))
        if changing is not None:
            raise _unknown(f"{changing[:40]!r} is next to the boxes, and may change them")

    def without_thinking(self, others: Mapping[str, Any]) -> dict[str, Any]:
        """Return the other keys without those for thinking. Their texts are kept in `parsed`."""
        kept: dict[str, Any] = {}
        for key, value in others.items():
            if has_role(key, "thinking") and isinstance(value, str):
                self.parsed.texts.append(KeyText(key, value))
            else:
                kept[key] = value
        return kept

    def list_keys_of(self, fields: Mapping[str, Any]) -> list[str]:
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

    def is_list(self, key: str, value: Any) -> bool:
        """Whether a key is for items, and its value may be them: no number, true or false."""
        is_known = self.is_wrapper(key) or self.is_box_key(key)
        return is_known and (value is None or isinstance(value, (list, dict, str)))

    def read_parallel(self, values: Any, labels: Any, *, is_outline: bool) -> None:
        """Add boxes and their labels, from two lists that belong together."""
        are_lists = isinstance(values, list) and isinstance(labels, list)
        if not are_lists or len(values) != len(labels):
            raise _unknown("a list of labels is next to another number of boxes")
        for value, name in zip(values, labels, strict=True):
            label = name.strip() if isinstance(name, str) else ""
            add_boxes(value, RawBox((), label or None), self.parsed, is_outline=is_outline)

    def read_statuses(self, entries: Any) -> None:
        """Keep `[{"id": 2, "status": "ambiguous", "reason": "…"}]`; pass over anything else."""
        if not isinstance(entries, list):
            return
        for entry in entries:
            phrase_id = id_of(entry.get("id")) if isinstance(entry, dict) else None
            if phrase_id is not None and isinstance(entry.get("status"), str):
                self.parsed.statuses[phrase_id] = entry["status"]
                if isinstance(entry.get("reason"), str):
                    self.parsed.reasons[phrase_id] = entry["reason"]

    def read_item(self, fields: Mapping[str, Any], label: str | None) -> None:
        """Add an item or its absence, or drop it. `label` is for one without a label of its own."""
        own = _label_of(fields)
        item = RawBox((), own.text or label)  # its numbers are added below
        try:
            item.id = _own_id(fields)
            address = self.address_of(item)
            found = self.boxes_of(fields, is_addressed=address is not None)
            if found is None:
                raise NoBox(f"an object without a box: {(item.label or '')[:40]!r}")
            if address is not None and found.numbers:
                self.check_addressed_item(fields, address, own.key, len(found.numbers))
            else:  # no phrase is named, or the item says that its thing isn't there
                self.check_item(fields, item, own.key, found)
        except NoBox as error:
            self.parsed.dropped.append(Dropped(str(error), item.label, item.id))
            return
        if found.numbers:
            self.add_boxes_of_item(fields, item, found)
        else:
            self.parsed.absences.append(item)

    def add_boxes_of_item(self, fields: Mapping[str, Any], item: RawBox, found: Boxes) -> None:
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

    def boxes_of(self, fields: Mapping[str, Any], is_addressed: bool) -> Boxes | None:
        """Return an item's boxes: empty if its thing isn't there, None if it says nothing of it."""
        found = boxes_by_name(fields)  # one for each set of names, such as x1, y1, x2 and y2
        keys_with_null: list[str] = []
        for key, value in fields.items():
            if not self.is_box_key(key):
                continue
            if value in (None, []) or (isinstance(value, str) and says_none(value, ())):
                keys_with_null.append(plain_key(key))
                continue
            boxes = self.boxes_under(key, value, is_addressed)
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

    def boxes_under(self, key: str, value: Any, is_addressed: bool) -> Boxes | None:
        """Return the boxes under a key; None for words such as `"location": "on the left"`."""
        boxes = boxes_in(value, is_outline=has_role(key, "outline"))
        if boxes is not None:
            return boxes
        # Under the key that was asked for, there have to be boxes.
        are_words = isinstance(value, str) and plain_key(key) != self.box_key
        # Words next to an addressed box are judged later.
        if are_words and (is_addressed or objection(value) is None):
            return None
        raise NoBox(f"{key[:20]!r} is no box: {str(value)[:40]!r}")

    def is_of_box(self, key: str, value: Any) -> bool:
        is_point = has_role(key, "point") and isinstance(value, list)
        return is_point or self.is_box_key(key) or is_coordinate(key)

    def check_item(
        self, fields: Mapping[str, Any], item: RawBox, label_key: str | None, found: Boxes
    ) -> None:
        """Refuse an item whose other keys may change its box."""
        others: dict[str, Any] = {}
        for key, value in fields.items():
            if key == label_key or self.is_of_box(key, value):
                continue
            _check_picture(key, value)
            # A score above 0 says that there is a box, and contradicts `"bbox_2d": null`.
            if has_role(key, "score") and number(value) and not found.numbers:
                raise NoBox("a score is given, and no box")
            self.check_name(key, value, item.label)
            is_reason = not found.numbers and self.take_reason(key, value, item)
            if not is_reason and not has_role(key, "label", "evidence", "score", "id", "zero"):
                others[key] = value
        changing = self.changing_key(others, len(found.numbers), self.things_next_to(item))
        if changing is not None:
            raise NoBox(f"{changing[:40]!r} is next to a box, and may change it")

    def take_reason(self, key: str, value: Any, item: RawBox) -> bool:
        """Take a text on why an item has no box: "not in the picture" or "too blurry"."""
        if item.id is None or not isinstance(value, str) or not value.strip():
            return False
        phrase = self.phrases.get(item.id)
        if not phrase:
            return False
        if says_none(value, [phrase]) or says_none(f"it is {value}", [phrase]):
            return True  # an absence, of which nothing else is known
        roles = _roles().get(plain_key(key), [])
        is_key_of_reason = roles in ([], ["thinking"])  # [] for an unknown key, such as "note"
        if not is_key_of_reason or _may_change(key):
            return False
        # nobody knows whether the thing is there
        self.parsed.statuses[item.id] = "ambiguous"
        self.parsed.reasons[item.id] = f"the reply says {value[:80]!r}"
        self.parsed.texts.append(KeyText(key, value, item.id))
        return True

    def address_of(self, item: RawBox) -> int | None:
        """Return the phrase that an item names; one without a name is of the only phrase."""
        if item.id is None and not item.label and len(self.phrases) == 1:
            return next(iter(self.phrases))
        return phrase_named(item.id, item.label, self.phrases)

    def things_next_to(self, item: RawBox) -> list[str] | None:
        """Return what words next to an item's box may name."""
        if item.label:
            return _ANYTHING  # the label says what the box is of, so words may name what is near
        own_phrase = None if item.id is None else self.phrases.get(item.id)
        return self.texts if own_phrase is None else [own_phrase]

    def check_addressed_item(
        self, fields: Mapping[str, Any], phrase_id: int, label_key: str | None, box_count: int
    ) -> None:
        """Refuse an item with a phrase's box if other keys harm the box. Keep its texts."""
        others: dict[str, Any] = {}
        for key, value in fields.items():
            # "location" is a key for boxes, but "on the left" is judged as other texts are.
            is_in_words = isinstance(value, str) and not _has_box_in_words(value)
            is_box = self.is_of_box(key, value) and not is_in_words
            if key == label_key or is_box:
                continue
            _check_picture(key, value)
            if has_role(key, "label") and self.contradicts(key, value, phrase_id):
                raise NoBox(f"{key[:40]!r} is next to a box, and may change it")
            if not has_role(key, "id", "zero"):
                others[key] = value
        harmful = self.harmful_key(others, phrase_id, box_count)
        if harmful is not None:
            raise NoBox(f"{harmful[:40]!r} is next to a box, and may change it")

    def contradicts(self, key: str, value: Any, phrase_id: int) -> bool:
        """Whether a further label of an item is another phrase, or denies its own: "not a cup"."""
        if not isinstance(value, str):
            return False
        named_ids = ids_of(value, self.phrases)
        if named_ids and phrase_id not in named_ids:
            return True
        # A description may deny something else: "a cup that is not full".
        is_description = has_role(key, "kind") and len(value.split()) > 3
        return not is_description and denies(value, self.phrases[phrase_id])

    def harmful_key(
        self, fields: Mapping[str, Any], own_id: int | None, box_count: int | None = None
    ) -> str | None:
        """Return a key that makes the boxes next to it useless. Next to a list `own_id` is None."""
        for key, value in fields.items():
            if value not in _EMPTY and self.is_harmful(key, value, own_id, box_count):
                return key
        return None

    def is_harmful(self, key: str, value: Any, own_id: int | None, box_count: int | None) -> bool:
        """Judge by the key's roles first, then by its words, then by the value: in this order."""
        is_next_to_list = own_id is None
        if is_next_to_list and self.add_absences(key, value):
            return False  # "not_found": ["a fork"]; if the fork has a box, that is found later
        if is_next_to_list and _says_cut(key, value):
            self.parsed.truncated = True  # "complete": false; in an item it is said of the thing
            return False
        by_key = self.is_harmful_by_role(key, value, box_count)
        if by_key is None:
            by_key = self.is_harmful_by_words_of_key(key, value)
        if by_key is not None:  # the key settles it
            return by_key
        if isinstance(value, dict):
            return self.is_harmful_object(key, value, own_id, box_count)
        if isinstance(value, list):
            return self.is_harmful_list(key, value, own_id, box_count)
        return self.is_harmful_word(key, value, own_id)

    def is_harmful_by_words_of_key(self, key: str, value: Any) -> bool | None:
        """Judge a key whose own words settle it; None for other keys."""
        if names_another(key):  # "actual_object": "plate"
            return True
        if key_states(key) and isinstance(value, (str, int, float)):
            # "unit": "px" becomes "unit px", and "normalized": true becomes "normalized ". These
            # are judged later, with the box format.
            said = "" if value is True else str(value)
            self.parsed.stated.append(f"{' '.join(key_words(key))} {said}")
            return False
        if value is False or not key_changes(key, value):
            return None  # "cropped": false changes nothing
        affirms_boxes = value is True and key_affirms(key)  # "is_correct_format": true
        return not affirms_boxes  # "cropped": true

    def is_harmful_object(
        self, key: str, value: dict[str, Any], own_id: int | None, box_count: int | None
    ) -> bool:
        # "metadata": {"width": 640, "height": 480, "count": 2}: numbers under a key for sizes are
        # no box, and a count there is that of the boxes.
        if has_role(key, "size"):
            return self.harmful_key(value, own_id, box_count) is not None
        may_be_box = _count_of_numbers(value) > 1
        # no `box_count`: a count in an inner object may be of anything
        return may_be_box or self.harmful_key(value, own_id) is not None

    def is_harmful_list(
        self, key: str, value: list[Any], own_id: int | None, box_count: int | None
    ) -> bool:
        may_be_box = _count_of_numbers(value) > 1
        if may_be_box:
            return True
        items = value
        is_next_to_list = own_id is None
        if is_next_to_list:
            if self.add_said_of_phrases(key, value):
                return False
            items = [self.named_phrase(item) for item in value]  # "unresolved": [2]
        return any(self.is_harmful(key, item, own_id, box_count) for item in items)

    def add_absences(self, key: str, value: Any) -> bool:
        """Add the absent phrases of `"not_found": ["a fork"]`. False for any other value."""
        if not has_role(key, "absent") or not isinstance(value, list):
            return False
        ids = [ids_of(str(self.named_phrase(item)), self.phrases) for item in value]
        if not all(ids):
            return False
        self.parsed.absences += [RawBox((), id=own_id) for named in ids for own_id in named]
        return True

    def add_said_of_phrases(self, key: str, value: list[Any]) -> bool:
        """Keep `"uncertain": ["a dog"]` as a text to be judged later. False for other values."""
        begins_with_not = key_words(key)[:1] in (["not"], ["no"])
        if begins_with_not or not key_denies(key, truth=True):
            return False
        names = [str(self.named_phrase(item)) for item in value]
        if not all(ids_of(name, self.phrases) for name in names):
            return False
        words = " ".join(key_words(key))
        self.parsed.texts.append(KeyText(key, ". ".join(f"{name} is {words}" for name in names)))
        return True

    def named_phrase(self, value: Any) -> Any:
        """Return the phrase whose id a value is, as in `"unresolved": [2]`; else the value."""
        phrase_id = id_of(value)
        return value if phrase_id is None else self.phrases.get(phrase_id, value)

    def is_harmful_by_role(self, key: str, value: Any, box_count: int | None) -> bool | None:
        """Judge a key whose role settles it; None for other keys. A size is kept in `parsed`."""
        if has_role(key, "idle", "statuses"):  # "iscrowd": 1 is of no matter
            return False
        if has_role(key, "evidence") and value in EVIDENCE:
            return False
        if has_role(key, "zero") and number(value) is not None:
            return number(value) != 0  # "image_index": 1
        if box_count is not None and has_role(key, "count") and number(value) is not None:
            return number(value) != box_count  # "total": 3, next to two boxes
        if has_role(key, "status") and _is_done(value):
            return False  # "status": "found"
        if has_role(key, "status") and _says_nothing(value):
            return True  # "status": "not found", next to a box
        if has_role(key, "width", "height", "size") and not isinstance(value, (str, dict)):
            return not self.add_size(key, value)
        return None

    def is_harmful_word(self, key: str, value: Any, own_id: int | None) -> bool:
        """Judge a value that is true, false or a text; texts are kept, to be judged later."""
        truth = _truth(value) if has_role(key, "score") else _flag(value)
        if truth is not None and key_denies(key, truth):
            return True
        if truth is False and own_id is not None:
            names_own_thing = share_a_word(" ".join(key_words(key)), self.phrases[own_id])
            if names_own_thing:  # "is_cat": false
                return True
        is_flag_or_number = truth is not None or number(value) is not None
        if is_flag_or_number:
            if own_id is None and not _is_known(key, truth):
                # `"todo": 1` next to a list does no harm that is known. It is kept for the remark.
                self.parsed.texts.append(KeyText(key, str(value).lower()))
            return False
        if not isinstance(value, str):  # null or NaN
            return False
        if has_role(key, "absent") and ids_of(value, self.phrases):
            return True  # "missing": "the red cup"
        self.parsed.texts.append(KeyText(key, value, own_id))
        return False

    def check_name(self, key: str, value: Any, label: str | None) -> None:
        """Refuse an item with a further label that denies it, or that is another phrase."""
        is_score_in_words = isinstance(value, str) and has_role(key, "score")
        may_deny = is_score_in_words or has_role(key, "label", "evidence")
        denies_box = may_deny and _may_turn(value)  # "confidence": "none"
        if denies_box or self.names_another_thing(key, value, label):
            raise NoBox(f"{key[:40]!r} is next to a box, and may change it")

    def names_another_thing(self, key: str, value: Any, label: str | None) -> bool:
        """Whether a text is another phrase than the label, or a label without a word of it."""
        if not isinstance(value, str) or label is None:
            return False
        named_ids = ids_of(value, self.phrases)
        if named_ids and set(named_ids).isdisjoint(ids_of(label, self.phrases)):
            return True
        # "name": "the fox" next to "label": "cat"; a kind, such as "category": "animal", may differ
        is_label = has_role(key, "label") and not has_role(key, "kind")
        return is_label and not share_a_word(value, label)

    def things_of(self, boxes: Sequence[RawBox]) -> list[str]:
        """Return what words next to boxes may name: their labels, or the one phrase of all."""
        labels = [box.label for box in boxes if box.label]
        return labels if len(labels) == len(boxes) else self.texts

    def changing_key(
        self, fields: Mapping[str, Any], box_count: int, things: list[str] | None
    ) -> str | None:
        """Return a key that may change the boxes next to it, or contradict that there are none."""
        for key, value in fields.items():
            if value not in _EMPTY and not self.is_allowed(key, value, box_count, things):
                return key
        return None

    def is_allowed(self, key: str, value: Any, box_count: int, things: list[str] | None) -> bool:
        """Judge by the key's role, else by the value's words."""
        by_role = self.is_allowed_by_role(key, value, box_count)
        if by_role is not None:
            return by_role
        if box_count:
            return self.is_harmless(key, value, things)
        return self.agrees_with_no_box(key, value)

    def is_allowed_by_role(self, key: str, value: Any, box_count: int) -> bool | None:
        """Judge a key that has to agree with the number of boxes; None for other keys."""
        has_boxes = box_count > 0
        if has_role(key, "count"):  # "total": 2
            return number(value) == box_count
        if has_role(key, "found"):  # "visible": true
            return _truth(value) is has_boxes
        if not has_boxes and self.add_absences(key, value):
            return True
        if has_role(key, "absent"):  # "missing": false
            return _truth(value) is (not has_boxes)
        if has_role(key, "status"):  # "status": "ok"
            return _is_done(value) or (not has_boxes and _says_nothing(value))
        if has_role(key, "width", "height", "size"):
            return self.add_size(key, value)
        if has_role(key, "idle", "statuses"):
            return True
        return None

    def agrees_with_no_box(self, key: str, value: Any) -> bool:
        """Whether a text says that there is no box, or tells what is there instead."""
        may_change = _may_change(key)
        if isinstance(value, str) and says_none(value, self.texts):
            # `"error": "not found"` may be what a server says. A sentence is the model's.
            is_sentence = len(value.split()) > 3
            return is_sentence or not may_change
        if may_change or not isinstance(value, str):
            return False
        self.parsed.texts.append(KeyText(key, value))
        return agrees_with_none(value, self.texts, may_be_neutral=True)

    def is_harmless(self, key: str, value: Any, things: list[str] | None) -> bool:
        """Whether an unknown key has words that can't change its boxes, and name `things` alone."""
        may_change = _may_change(key)
        if may_change or not isinstance(value, str):
            return False
        if objection(value) is not None or points_back(value):
            return False
        if things is None or not self.phrases:
            return True  # it may name anything
        return other_thing(value, things) is None

    def add_size(self, key: str, value: Any) -> bool:
        """Keep a size of the picture. False where a value is neither one nor harmless words."""
        if isinstance(value, list) and len(value) == 2:  # [640, 480]
            value = {"width": value[0], "height": value[1]}
        if isinstance(value, dict):
            return all(self.add_size(inner_key, inner) for inner_key, inner in value.items())
        if isinstance(value, str):  # words such as "approx. half" are no size to compare
            return objection(value.replace(".", "")) is None
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


def _in_envelope(fields: Mapping[str, Any]) -> Any:
    """Return the answer in {"reply": {"objects": [{…}]}}; None for other objects."""
    if len(fields) != 1:
        return None
    key, value = next(iter(fields.items()))
    if isinstance(value, str):
        value = strict_json(value)  # {"message": "not found"} is what a server says
    return value if has_role(key, "envelope") and isinstance(value, (dict, list)) else None


def _has_items(value: Any) -> bool:
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


def _count_of_numbers(value: Any) -> int:
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return sum(map(_count_of_numbers, items))
    return int(number(value) is not None)


def _check_picture(key: str, value: Any) -> None:
    """Refuse boxes of another picture: `"image_index": 1`."""
    if has_role(key, "zero") and number(value) != 0:
        raise _unknown("the reply has boxes of several pictures")


def _has_box_in_words(text: str) -> bool:
    """Whether a text is a box, "10, 20, 30, 40", or one of its coordinates, "10"."""
    return number(text) is not None or boxes_in(text, is_outline=False) is not None


def _unknown(message: str) -> UnreadableReply:
    return UnreadableReply(message, "unknown JSON")


def _no_list() -> UnreadableReply:
    return _unknown("the JSON has no list of boxes that is known")


def _no_boxes(value: Any) -> UnreadableReply:
    shown = in_brackets(value) if isinstance(value, list) else repr(str(value)[:40])
    return _unknown(f"{shown} is where boxes should be")


class _Label(NamedTuple):
    """An item's label and its key; both None without one."""

    key: str | None = None
    text: str | None = None


def _label_of(fields: Mapping[str, Any]) -> _Label:
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


def _may_turn(value: Any) -> bool:
    """Whether a text, or one of several, has a word such as "not", which turns a label round."""
    if value in _EMPTY:
        return False
    if isinstance(value, str):
        return turning_word(value) is not None
    texts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(texts, list):
        return True  # "label": 3, which nobody can judge
    return any(not isinstance(text, str) or turning_word(text) is not None for text in texts)


def _points_of(fields: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """Return points such as `"center": [15, 30]`."""
    points: list[tuple[float, ...]] = []
    for key, value in fields.items():
        if has_role(key, "point") and isinstance(value, list) and len(value) == 2:
            x, y = number(value[0]), number(value[1])
            if x is not None and y is not None:
                points.append((x, y))
    return points


def _own_id(fields: Mapping[str, Any]) -> int | None:
    values = [value for key, value in fields.items() if has_role(key, "id")]
    ids = {id_of(value) for value in values if value not in _EMPTY}
    has_bad_id = None in ids
    if has_bad_id or len(ids) > 1:
        raise NoBox(f"an object whose id is no number: {values[0]!r:.40}")
    return ids.pop() if ids else None


def id_of(value: Any) -> int | None:
    """Return the whole number that a reply states as an id, as a text, too; None for others."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return _TRUTHS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _flag(value: Any) -> bool | None:
    """As `_truth`, but 1 and 0 are true and false, too."""
    truth = _truth(value)
    if truth is None and number(value) in (0, 1):
        return bool(number(value))
    return truth


def _may_change(key: str) -> bool:
    return any(part in plain_key(key) for part in grammar_words("changing_keys"))


def _says_cut(key: str, value: Any) -> bool:
    """As "complete": false, "has_more": true and "status": "incomplete" do."""
    truth = _flag(value)
    if truth is not None:
        return key_says_cut(key, truth)
    return has_role(key, "status") and isinstance(value, str) and key_says_cut(value, True)


def _is_known(key: str, truth: bool | None) -> bool:
    """As "success": true, "truncated": false and "id": 7 are."""
    if has_role(key, "score", "id", "count"):
        return True
    return truth is not None and (key_affirms(key) or key_says_cut(key, not truth))


def _is_done(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in grammar_words("done")
    return value is True


def _says_nothing(value: Any) -> bool:
    return isinstance(value, str) and says_none(value.replace("_", " "), ())


def _is_absent(fields: Mapping[str, Any]) -> bool:
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
