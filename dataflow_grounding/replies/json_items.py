"""The boxes in a value of JSON.

An item is an object with one box. What holds items, and what may stand next to a box or a list, are
lists of keys in grammar.yaml. Under an unknown key stands no answer: boxes there make the reply
unreadable, and a number or a place next to a box makes the box unreadable.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.boxes.coordinates import Order, to_xyxy
from dataflow_grounding.replies.json_text import CutArray, CutObject, RepeatedKeys, strict_json
from dataflow_grounding.replies.labels import ids_of
from dataflow_grounding.replies.reading import Dropped, ParsedReply, RawBox, in_brackets
from dataflow_grounding.replies.tokens import read_tokens
from dataflow_grounding.replies.words import objection, other_thing, points_back, says_none, turns

LARGEST = 10**9  # that a coordinate may be, without its sign
_MOST_LEVELS = 8  # of objects and arrays around items
_MOST_BOXES = 5_000  # of a reply; no model is asked for so many, or has tokens for them
_COORDINATE = lazy_pattern(r"[-+]?(?:\d{1,12}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?")
_SEPARATORS = lazy_pattern(r"\s*[,;]\s*|\s+")
_TAG = lazy_pattern(r"</?b?box>")  # around numbers in a string, as Seed writes them
# Keys of two corners that are one box.
_CORNER_PAIRS = (("topleft", "bottomright"), ("lefttop", "rightbottom"))
_LONGEST_STRING = 200  # characters of a string with a box's numbers
EVIDENCE = (None, "seen", "inferred", "region")


class _NoItem(Exception):
    """An item whose box can't be used; the message says why."""


class _Boxes(NamedTuple):
    """The boxes under one key or set of keys; none where it says that nothing is there.

    Attributes:
        numbers: The numbers of each box.
        order: Their order, where the keys settle it.
        corners: Whether the numbers are two corners in any format.
    """

    numbers: list[tuple[float, ...]]
    order: Order | None = None
    corners: bool = False


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    """Return a key as keys are compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", key.lower())


@cache
def _keys(role: str) -> dict[str, int]:
    """Return the keys of a role, each with its place in the order of preference."""
    listed = load_table(__package__, "grammar.yaml")["keys"][role].split()
    return {key: place for place, key in enumerate(listed)}


@cache
def _corner_sets() -> list[tuple[Order, tuple[str, ...]]]:
    """Return each four keys that make one box, with the order that they settle."""
    sets: list[tuple[Order, tuple[str, ...]]] = []
    for order, lines in load_table(__package__, "grammar.yaml")["corners"].items():
        sets += [(order, tuple(line.split())) for line in lines]
    return sets


@cache
def _changing_keys() -> tuple[str, ...]:
    """Return parts of keys under which stands what may change a box's numbers."""
    return tuple(load_table(__package__, "grammar.yaml")["changing_keys"].split())


@cache
def _corner_names() -> frozenset[str]:
    """Return all keys that are one coordinate."""
    return frozenset(name for _, names in _corner_sets() for name in names)


def number(value: Any) -> float | None:
    """Return a coordinate as a number, also from a string such as "12.5".

    None for anything else: a bool, NaN, and what is larger than LARGEST.
    """
    if isinstance(value, str):
        value = value.strip()
        if _COORDINATE.fullmatch(value) is None or not value.isascii():
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None


def read_values(
    values: Sequence[Any], parsed: ParsedReply, phrases: Mapping[int, str], key: str
) -> None:
    """Add to `parsed` what values of JSON say: one value, or several that are one list.

    Args:
        values: The values.
        parsed: What was read so far.
        phrases: The phrases that were asked for, by id: a key may be one of them.
        key: The box key that was asked for.

    Raises:
        UnreadableReply: It is unclear what is an answer in them.
        TruncatedReply: They are cut off before anything is whole.
    """
    reader = _Reader(parsed, phrases, plain_key(key))
    reader.read(values[0] if len(values) == 1 else list(values), 1)
    if not parsed and parsed.truncated:
        raise TruncatedReply("the reply is cut off before its first whole box", "cut off")


class _Reader:
    """Adds what a value says to a parsed reply.

    Attributes:
        parsed: What was read so far.
        phrases: The phrases that were asked for, by id.
        texts: The phrases alone.
        key: The box key that was asked for, as keys are compared.
    """

    def __init__(self, parsed: ParsedReply, phrases: Mapping[int, str], key: str) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.texts = list(phrases.values())
        self.key = key

    def is_box_key(self, plain: str) -> bool:
        """Whether a box may stand under a key."""
        return plain == self.key or plain in _keys("box") or plain in _keys("outline")

    def read(self, value: Any, level: int, label: str | None = None) -> None:
        """Add what a value says that holds answers.

        Args:
            value: A list of items or boxes, an item, an object around them, null or a text.
            level: How many objects and arrays are around it, itself included.
            label: The phrase under which it stands, if it does.

        Raises:
            UnreadableReply: It holds something else.
        """
        if level > _MOST_LEVELS:
            raise _unknown("answers are nested too deeply")
        if value is None:
            self.parsed.absences.append(RawBox((), label))
        elif isinstance(value, list):
            self.read_list(value, level, label)
        elif isinstance(value, dict):
            self.read_object(value, level, label)
        elif isinstance(value, str):
            self.read_string(value, label)
        else:
            raise _unknown(f"{str(value)[:40]!r} stands where boxes should")

    def read_string(self, text: str, label: str | None) -> None:
        """Add what a string says: none, numbers of a box, JSON, or tokens.

        Raises:
            UnreadableReply: It says something else.
        """
        inner = strict_json(text)
        if inner is not None:
            self.read(inner, 2, label)
            return
        numbers = _numbers_in(text)
        if numbers is not None:
            self.add_box(numbers, RawBox((), label))
        elif "<loc_" in text:
            read_tokens(text, self.parsed)
        elif says_none(text, self.texts):
            self.parsed.absences.append(RawBox((), label))
        else:
            raise _unknown(f"{text[:40]!r} stands where boxes should")

    def read_list(self, items: list[Any], level: int, label: str | None) -> None:
        """Add what a list says: one box, or its items; an empty one says that nothing is there.

        Raises:
            UnreadableReply: It holds something else.
        """
        if isinstance(items, CutArray):
            self.parsed.truncated = True
        elif not items:
            self.parsed.absences.append(RawBox((), label))
            return
        if items and not any(isinstance(item, (dict, list)) for item in items):
            self.read_row(items, label)
            return
        texts: list[str] = []
        before = len(self.parsed.boxes)
        for item in items:
            if isinstance(item, dict):
                self.read_object(item, level + 1, label)
            elif isinstance(item, list) and item:
                self.read_list(item, level + 1, label)
            elif isinstance(item, str):
                texts.append(item)
            else:
                raise _unknown(f"{str(item)[:40]!r} stands in a list of boxes")
        have_labels = all(box.label for box in self.parsed.boxes[before:])
        for text in texts:
            if not self.is_harmless("", text, None if have_labels else self.texts):
                raise _unknown(f"{text[:40]!r} stands in a list of boxes")
            self.parsed.dropped.append(Dropped(f"{text[:40]!r} in a list of boxes", label))

    def read_row(self, items: list[Any], label: str | None) -> None:
        """Add a list without lists or objects: a box's numbers, perhaps with its label.

        Raises:
            UnreadableReply: It is a list of texts alone.
        """
        texts = [item for item in items if _is_text(item)]
        rest = [item for item in items if not _is_text(item)]
        if not rest:
            raise _unknown(f"{in_brackets(items)} stands where boxes should")
        for text in texts[1:]:
            if objection(text) is not None:
                rest = items  # which is dropped
        own = texts[0] if texts else label
        self.add_box(rest, RawBox((), own), shown=items)

    def add_box(self, values: Sequence[Any], box: RawBox, shown: Sequence[Any] = ()) -> None:
        """Add a box or a point with these numbers; other counts of numbers are dropped.

        Args:
            values: Its coordinates as written.
            box: What is known of it besides.
            shown: What a note shows in their place.
        """
        numbers = [number(value) for value in values]
        known = tuple(value for value in numbers if value is not None)
        if len(self.parsed.boxes) + len(self.parsed.dropped) > _MOST_BOXES:
            raise UnreadableReply(f"more than {_MOST_BOXES} boxes", "runaway")
        if len(known) == len(numbers) and len(known) in (2, 4):
            box.numbers = known
            (self.parsed.boxes if len(known) == 4 else self.parsed.points).append(box)
            return
        what = f"a box of {len(numbers)} numbers"
        if len(known) < len(numbers):
            what = "a box with a coordinate that is not a number"
        reason = f"{what}: {in_brackets(shown or values)}"
        self.parsed.dropped.append(Dropped(reason, box.label, box.id))

    def read_object(self, fields: dict[str, Any], level: int, label: str | None = None) -> None:
        """Add what an object says: it is an item, or it holds answers.

        Raises:
            UnreadableReply: It is neither, or a key has two values that differ.
        """
        if isinstance(fields, (RepeatedKeys, CutObject)):
            parts = _objects_in_a_row(fields.pairs)
            if len(parts) > 1:
                for part in parts:
                    self.read_object(part, level, label)
                self.parsed.truncated |= isinstance(fields, CutObject)
                return
            if any(fields[key] != value for key, value in fields.pairs):
                raise _unknown("an object has a key twice, with different values")
        if isinstance(fields, CutObject):
            self.parsed.truncated = True
            if not self.holds_answers(fields):
                return  # an item that is cut off
        if self.is_item(fields):
            self.read_item(fields, label)
        else:
            self.read_wrapper(fields, level, label)

    def is_item(self, fields: Mapping[str, Any]) -> bool:
        """Whether an object is one item: it has a box, or coordinates, or an id or a label."""
        if self.holds_answers(fields):
            return False
        for key in fields:
            plain = plain_key(key)
            if self.is_box_key(plain) or plain in _keys("point"):
                return True
        names = [key for key in fields if _is_coordinate(plain_key(key))]
        return len(names) > 1 or self.names_one_thing(fields)

    def names_one_thing(self, fields: Mapping[str, Any]) -> bool:
        """Whether an object without a box has a label or an id, and nothing that holds answers."""
        plain = {plain_key(key) for key in fields}
        return bool(plain & (_keys("label").keys() | _keys("id").keys()))

    def holds_answers(self, fields: Mapping[str, Any]) -> bool:
        """Whether a key of an object is known to hold items, or is a phrase."""
        for key, value in fields.items():
            plain = plain_key(key)
            is_wrapper = plain in _keys("wrapper") or plain in _keys("statuses")
            if is_wrapper and (not self.is_box_key(plain) or _holds_items(value)):
                return True
            if plain in _keys("label_list") or self.phrase_of_key(key) is not None:
                return True
        return False

    def phrase_of_key(self, key: str) -> str | None:
        """Return a key that is a phrase that was asked for, and no key of the grammar."""
        if self.phrases and not _is_known(plain_key(key)) and ids_of(key, self.phrases):
            return key
        return None

    def read_wrapper(self, fields: Mapping[str, Any], level: int, label: str | None) -> None:
        """Add what an object around items says.

        It has one key that holds them, or keys that are phrases. An empty list counts only where
        nothing else speaks.

        Raises:
            UnreadableReply: It holds none, several, or something next to them that may change them.
        """
        answers = {key: value for key, value in fields.items() if self.is_answer(key, value)}
        if not answers:
            raise _unknown("the JSON has no list of boxes that is known")
        by_phrase = {key: value for key, value in answers.items() if self.phrase_of_key(key)}
        if by_phrase and len(by_phrase) < len(answers):
            raise _unknown(f"boxes stand under {_quoted(answers)}")
        lists = {key: value for key, value in answers.items() if not by_phrase}
        if len(lists) > 1:
            lists = {key: value for key, value in lists.items() if value}
            if len(lists) > 1:
                raise _unknown(f"boxes stand under {_quoted(lists)}")
            lists = lists or dict(list(answers.items())[:1])
        before = len(self.parsed.boxes)
        labels = self.labels_next_to(fields)
        for key, value in lists.items():
            if labels is not None and isinstance(value, list) and len(labels) == len(value):
                pairs = list(zip(value, labels, strict=True))
                self.read_pairs(pairs, is_outline=plain_key(key) in _keys("outline"))
            elif labels:
                raise _unknown(f"{len(labels)} labels stand next to another number of boxes")
            else:
                self.read(value, level + 1, label)
        for key, value in by_phrase.items():
            self.read(value, level + 1, key)
        self.read_statuses(fields)
        found = len(self.parsed.boxes) - before
        for key, value in fields.items():
            if key not in answers:
                self.check_next_to_answer(key, value, found)

    def is_answer(self, key: str, value: Any) -> bool:
        """Whether items stand under a key of an object around them."""
        plain = plain_key(key)
        if self.phrase_of_key(key) is not None:
            return True
        if plain in _keys("thinking") or not (plain in _keys("wrapper") or self.is_box_key(plain)):
            return False
        return isinstance(value, (list, dict, str)) or value is None

    def labels_next_to(self, fields: Mapping[str, Any]) -> list[Any] | None:
        """Return the labels that stand in a list next to one of boxes; None without such a list."""
        for key, value in fields.items():
            if plain_key(key) in _keys("label_list") and isinstance(value, list):
                return value if value else None
        return None

    def read_pairs(self, pairs: Sequence[tuple[Any, Any]], *, is_outline: bool) -> None:
        """Add boxes, each with its label, from two lists that belong together."""
        for value, name in pairs:
            label = name.strip() if isinstance(name, str) else None
            try:
                boxes = _boxes_in(value, is_outline=is_outline)
            except _NoItem as error:
                self.parsed.dropped.append(Dropped(str(error), label))
                continue
            for numbers in boxes.numbers if boxes else ():
                self.add_box(numbers, RawBox((), label or None, corners=is_outline))

    def read_statuses(self, fields: Mapping[str, Any]) -> None:
        """Add the statuses that the embedded grounder gives phrases, and its reasons."""
        entries = fields.get("statuses")
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            phrase_id = _id_of(entry.get("id"))
            if phrase_id is not None and isinstance(entry.get("status"), str):
                self.parsed.statuses[phrase_id] = entry["status"]
                if isinstance(entry.get("reason"), str):
                    self.parsed.reasons[phrase_id] = entry["reason"]

    def check_next_to_answer(self, key: str, value: Any, found: int) -> None:
        """Refuse what stands next to a list of items and may change it.

        Args:
            key: The key next to the list.
            value: What stands there.
            found: How many boxes the list has. Next to none, only what says so may stand.

        Raises:
            UnreadableReply: It may change the answer.
        """
        plain = plain_key(key)
        is_known = plain in _keys("idle") or plain in _keys("label_list")
        if plain in _keys("statuses") or (is_known and found) or value in (None, "", [], {}):
            return
        if plain in _keys("count"):
            allowed = number(value) == found
        elif plain in _keys("found"):
            allowed = _truth(value) is bool(found)
        elif plain in _keys("absent"):
            allowed = _truth(value) is (not found)
        elif plain in _keys("status"):
            allowed = _is_done(value) or (not found and _says_nothing(value))
        elif plain in _keys("width") or plain in _keys("height") or plain in _keys("size"):
            allowed = self.add_size(plain, value)
        elif plain in _keys("thinking"):
            allowed = bool(found) and isinstance(value, str)
        elif found:
            boxes = self.parsed.boxes[-found:]
            have_labels = all(box.label for box in boxes)
            allowed = self.is_harmless(plain, value, None if have_labels else self.texts)
        elif plain in _keys("idle"):
            allowed = True
        else:
            allowed = isinstance(value, str) and says_none(value, self.texts)
            allowed = allowed and not any(part in plain for part in _changing_keys())
        if not allowed:
            raise _unknown(f"{key[:40]!r} stands next to the boxes, and may change them")

    def add_size(self, plain: str, value: Any) -> bool:
        """Note the size of the picture that the reply tells, and return whether it is one."""
        if isinstance(value, dict):
            for key, item in value.items():
                inner = plain_key(key)
                is_size = inner in _keys("width") or inner in _keys("height")
                if is_size and not self.add_size(inner, item):
                    return False
                if not is_size and not isinstance(item, str):
                    return False
            return True
        if isinstance(value, str):
            return plain in _keys("size") and objection(value.replace(".", "")) is None
        size = number(value)
        if size is None or plain in _keys("size"):
            return False
        self.parsed.sizes.append((0 if plain in _keys("width") else 1, size))
        return True

    def read_item(self, fields: Mapping[str, Any], label: str | None) -> None:
        """Add an item's boxes, or that its thing is not there; drop it where it can't be used."""
        own_key, own_label = _label_of(fields)
        label = own_label or label
        box = RawBox((), label)
        try:
            box.id = _own_id(fields)
            found = self.boxes_of(fields)
            has_box = bool(found and found.numbers and found.numbers != _points_of(fields))
            self.check_next_to_box(fields, own_key, box, has_box)
            for key in _keys("score"):
                for name, value in fields.items():
                    if plain_key(name) == key and box.score is None:
                        box.score = value
            evidence = fields.get("evidence")
            box.evidence = evidence if evidence in EVIDENCE else None
            self.add_item(box, found)
        except _NoItem as error:
            self.parsed.dropped.append(Dropped(str(error), label, box.id))

    def add_item(self, box: RawBox, found: _Boxes | None) -> None:
        """Add the boxes of an item; without any, that its thing is not there.

        Raises:
            _NoItem: It has neither a box nor anything that says so.
        """
        if found is None:
            raise _NoItem(f"an object without a box: {(box.label or '')[:40]!r}")
        if not found.numbers:
            self.parsed.absences.append(box)
        for numbers in found.numbers:
            self.add_box(
                numbers,
                RawBox(
                    (),
                    box.label,
                    box.id,
                    box.score,
                    box.evidence,
                    found.order,
                    corners=found.corners,
                ),
            )

    def boxes_of(self, fields: Mapping[str, Any]) -> _Boxes | None:
        """Return an item's boxes; with no numbers where it says that its thing isn't there.

        None where it says neither.

        Raises:
            _NoItem: It has boxes that differ, or something that is no box.
        """
        found: list[_Boxes] = []
        nulls: set[str] = set()
        for key, value in fields.items():
            plain = plain_key(key)
            if not self.is_box_key(plain):
                continue
            if value is None or value == [] or (isinstance(value, str) and says_none(value, ())):
                nulls.add(plain)
                continue
            boxes = _boxes_in(value, is_outline=plain in _keys("outline"))
            if boxes is not None:
                found.append(boxes)
            elif not isinstance(value, str) or objection(value) is not None or plain == self.key:
                raise _NoItem(f"{key[:20]!r} is no box: {_shown(value)}")
        found += _boxes_by_name(fields)
        if not found:
            found = [_Boxes([point]) for point in _points_of(fields)]
        if not found:
            return _Boxes([]) if nulls or _is_absent(fields) else None
        if self.key in nulls or any(_corners_of(boxes) != _corners_of(found[0]) for boxes in found):
            raise _NoItem("an object has several boxes, which differ")
        return found[0]

    def is_another_phrase(self, value: Any, label: str | None) -> bool:
        """Whether a further label of an item is a phrase, and the item's own is another one."""
        if not isinstance(value, str) or label is None:
            return False
        further = set(ids_of(value, self.phrases))
        return bool(further) and further.isdisjoint(ids_of(label, self.phrases))

    def is_harmless(self, plain: str, value: Any, things: Sequence[str] | None) -> bool:
        """Whether what stands under an unknown key can't change the boxes next to it.

        It is words, and where the boxes have no label these name no other thing.

        Args:
            plain: The key, as keys are compared.
            value: What stands there.
            things: The phrases that boxes without a label are of; None where they have labels.
        """
        if not isinstance(value, str) or any(part in plain for part in _changing_keys()):
            return False
        if objection(value) is not None or points_back(value):
            return False
        return things is None or not self.phrases or other_thing(value, things) is None

    def check_next_to_box(
        self, fields: Mapping[str, Any], own_key: str | None, box: RawBox, has_box: bool
    ) -> None:
        """Refuse what stands next to a box in its object and may change it.

        Args:
            fields: The object.
            own_key: The key of its label.
            box: Its label and id.
            has_box: Whether it has a box.

        Raises:
            _NoItem: It may change the box.
        """
        for key, value in fields.items():
            plain = plain_key(key)
            if value in (None, "", [], {}) or self.is_box_key(plain) or _is_coordinate(plain):
                continue
            if key == own_key or (not has_box and plain in _keys("point")):
                continue
            allowed = plain in _keys("idle") or plain in _keys("id")
            if plain in _keys("score"):
                allowed = has_box or number(value) == 0
            if plain in _keys("label") or plain in _keys("evidence"):
                allowed = not isinstance(value, (int, float)) and _denial(value) is None
                allowed = allowed and not self.is_another_phrase(value, box.label)
            elif plain in _keys("found"):
                allowed = _truth(value) is has_box
            elif plain in _keys("absent"):
                allowed = _truth(value) is (not has_box)
            elif plain in _keys("status"):
                allowed = _is_done(value) if has_box else _says_nothing(value)
            elif plain in _keys("count"):
                allowed = number(value) in ((1,) if has_box else (0,))
            elif plain in _keys("zero"):
                if number(value) != 0:
                    raise _unknown("the reply has boxes of several pictures")
                allowed = True
            elif plain in _keys("thinking"):
                allowed = isinstance(value, str) and _denial(value) is None
            elif not allowed:
                own = self.phrases.get(box.id or 0)
                things = self.texts if own is None else [own]
                allowed = self.is_harmless(plain, value, None if box.label else things)
            if not allowed:
                raise _NoItem(f"{key[:40]!r} stands next to a box, and may change it")


def _objects_in_a_row(pairs: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects that one is whose keys come again and again in the same order.

    Qwen3-VL leaves out the braces between: `{"object_name": …, "bbox": …, "object_name": …}`. A
    last one that isn't whole is left out. [] where the keys come in no such order.
    """
    keys = [key for key, _ in pairs]
    length = len(dict.fromkeys(keys))
    if length < 2 or len(keys) <= length:
        return []
    for i, key in enumerate(keys):
        if key != keys[i % length]:
            return []
    whole = len(keys) - len(keys) % length
    return [dict(pairs[i : i + length]) for i in range(0, whole, length)]


def _is_coordinate(plain: str) -> bool:
    """Whether a key is one coordinate, or one corner."""
    return plain in _corner_names() or any(plain in pair for pair in _CORNER_PAIRS)


def _holds_items(value: Any) -> bool:
    """Whether a value is a list with an object, or with a row of a label and numbers."""
    if not isinstance(value, list):
        return False
    for item in value:
        texts = item if isinstance(item, list) else ()
        if isinstance(item, dict) or any(_is_text(text) for text in texts):
            return True
    return False


def _is_text(value: Any) -> bool:
    """Whether a value is a string that is no number."""
    return isinstance(value, str) and number(value) is None


@cache
def _known_keys() -> frozenset[str]:
    """Return all keys of the grammar."""
    table = load_table(__package__, "grammar.yaml")["keys"]
    return _corner_names().union(*(_keys(role) for role in table))


def _is_known(plain: str) -> bool:
    """Whether a key is one of the grammar's."""
    return plain in _known_keys()


def _unknown(message: str) -> UnreadableReply:
    """Return the error that the JSON isn't in a known form."""
    return UnreadableReply(message, "unknown JSON")


def _quoted(fields: Mapping[str, Any]) -> str:
    """Return some keys as an error names them."""
    return " and ".join(repr(key[:40]) for key in list(fields)[:3])


def _shown(value: Any) -> str:
    """Return a value that is no box as a note shows it."""
    if isinstance(value, list):
        return in_brackets(value)
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _flat(items: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the values of several lists, one after the other."""
    return [value for item in items for value in item]


def _are_corners(items: Sequence[Any]) -> bool:
    """Whether a list is two pairs of numbers, which are one box."""
    return len(items) == 2 and all(
        isinstance(item, list) and len(item) == 2 and all(number(v) is not None for v in item)
        for item in items
    )


def _numbers_in(text: str) -> list[str] | None:
    """Return the numbers of a string that has nothing else, four or two of them; else None."""
    if len(text) > _LONGEST_STRING:
        return None
    text = _TAG.sub(" ", text).strip().strip("[]()").strip()
    parts = _SEPARATORS.split(text)
    if len(parts) not in (2, 4) or any(number(part) is None for part in parts):
        return None
    return parts


def _boxes_in(value: Any, *, is_outline: bool = False) -> _Boxes | None:
    """Return the boxes that stand under a box key; None where there is something else.

    They are four numbers, in a list or a string; named coordinates; two pairs; or a list of these.

    Args:
        value: What stands there.
        is_outline: Whether it is the corners of an outline, of which the box is returned.

    Raises:
        _NoItem: There is a box of another number of numbers, or one within a box.
    """
    if isinstance(value, str):
        numbers = _numbers_in(value)
        return None if numbers is None else _Boxes([_floats(numbers)])
    if isinstance(value, dict):
        boxes = _boxes_by_name(value)
        if len(boxes) != 1 or len(value) != 4:
            raise _NoItem("a box within a box, or with a coordinate missing")
        return boxes[0]
    if not isinstance(value, list) or not value:
        return None
    if is_outline:
        return _outlines_in(value)
    if not any(isinstance(item, (list, dict)) for item in value):
        return _Boxes([_floats(value)])
    if _are_corners(value):
        return _Boxes([_floats(_flat(value))], corners=True)
    numbers_of_all: list[tuple[float, ...]] = []
    for item in value:
        inner = _boxes_in(item) if isinstance(item, list) else None
        if inner is None or len(inner.numbers) != 1 or inner.corners:
            raise _NoItem("a list of boxes and other things")
        numbers_of_all += inner.numbers
    return _Boxes(numbers_of_all)


def _outlines_in(value: list[Any]) -> _Boxes:
    """Return the boxes around outlines, whose corners are x, y, x, y, … or [[x, y], …].

    Raises:
        _NoItem: A coordinate is no number.
    """
    if not any(isinstance(item, list) for item in value):
        return _Boxes([_hull(_floats(value, fewest=6))], corners=True)
    if all(isinstance(item, list) and len(item) == 2 for item in value):
        return _Boxes([_hull(_floats(_flat(value), fewest=6))], corners=True)
    boxes: list[tuple[float, ...]] = []
    for item in value:
        if not isinstance(item, list):
            raise _NoItem("a list of outlines and other things")
        boxes += _outlines_in(item).numbers
    return _Boxes(boxes, corners=True)


def _floats(values: Sequence[Any], fewest: int = 0) -> tuple[float, ...]:
    """Return the values of a box as numbers.

    Args:
        values: The values: four or two; of an outline, an even number.
        fewest: How many an outline has at the least; 0 for a box.

    Raises:
        _NoItem: One of them is none, or there is another number of them.
    """
    numbers = [number(value) for value in values]
    if any(value is None for value in numbers):
        raise _NoItem(f"a box with a coordinate that is not a number: {in_brackets(values)}")
    is_right = len(numbers) in (2, 4)
    if fewest:
        is_right = len(numbers) >= fewest and len(numbers) % 2 == 0
    if not is_right:
        raise _NoItem(f"a box of {len(numbers)} numbers: {in_brackets(values)}")
    return tuple(value for value in numbers if value is not None)


def _hull(corners: Sequence[float]) -> tuple[float, ...]:
    """Return the box around corners given as x, y, x, y, …"""
    xs, ys = corners[0::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _boxes_by_name(fields: Mapping[str, Any]) -> list[_Boxes]:
    """Return the boxes that an object's named coordinates are, of all sets that it has whole.

    Raises:
        _NoItem: A coordinate is no number, or belongs to no box.
    """
    plain = {plain_key(key): value for key, value in fields.items()}
    names = _corner_names() & plain.keys()
    used: set[str] = set()
    boxes: list[_Boxes] = []
    for order, corners in _corner_sets():
        if plain.keys() >= set(corners):
            numbers = _floats([plain[name] for name in corners])
            boxes.append(_Boxes([numbers], order, corners=order == "xyxy"))
            used.update(corners)
    for first, second in _CORNER_PAIRS:
        if first in plain and second in plain:
            boxes.append(_corner_pair(plain[first], plain[second]))
    if names - used:
        raise _NoItem(f"coordinates that are no box: {', '.join(sorted(names - used))}")
    return boxes


def _points_of(fields: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """Return the points of an object: two numbers under a key for a point."""
    points: list[tuple[float, ...]] = []
    for key, value in fields.items():
        if plain_key(key) in _keys("point") and isinstance(value, list) and len(value) == 2:
            points.append(_floats(value))
    return points


def _corner_pair(first: Any, second: Any) -> _Boxes:
    """Return the box between two named corners, each two numbers or an x and a y.

    Raises:
        _NoItem: They are something else.
    """
    corners = [first, second]
    are_named = all(isinstance(corner, dict) and corner.keys() == {"x", "y"} for corner in corners)
    if are_named:
        corners = [[corner["x"], corner["y"]] for corner in corners]
    if not _are_corners(corners):
        raise _NoItem("two corners without two numbers each")
    return _Boxes([_floats(_flat(corners))], "xyxy" if are_named else None, corners=True)


def _corners_of(boxes: _Boxes) -> list[tuple[float, ...]]:
    """Return boxes as two corners each, rounded, so that they can be compared.

    Boxes in the format's own order are compared as they are written.
    """
    corners: list[tuple[float, ...]] = []
    for numbers in boxes.numbers:
        in_corners = to_xyxy(numbers, boxes.order) if boxes.order else numbers
        corners.append(tuple(round(value, 4) for value in in_corners))
    return corners


def _label_of(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the key and the text of an item's preferred label, of several languages' the English.

    None for both where it has none.
    """
    found: tuple[int, str, str] | None = None
    for key, value in fields.items():
        place = _keys("label").get(plain_key(key))
        if isinstance(value, dict):
            texts = [text for text in value.values() if isinstance(text, str)]
            value = value.get("en", texts[0] if texts else None)
        if place is None or not isinstance(value, str) or not value.strip():
            continue
        if found is None or place < found[0]:
            found = (place, key, value.strip())
    return (None, None) if found is None else found[1:]


def _denial(value: Any) -> str | None:
    """Return a word that denies an item, in a text or in the texts of an object or a list."""
    if isinstance(value, (dict, list)):
        texts = value.values() if isinstance(value, dict) else value
        for text in texts:
            if not isinstance(text, str) or turns(text) is not None:
                return str(text)[:20]
        return None
    return turns(value) if isinstance(value, str) else None


def _own_id(fields: Mapping[str, Any]) -> int | None:
    """Return an item's id; None without one.

    Raises:
        _NoItem: It has two, which differ.
    """
    ids = {_id_of(value) for key, value in fields.items() if plain_key(key) in _keys("id")}
    ids.discard(None)
    if len(ids) > 1:
        raise _NoItem("an object has several ids")
    return ids.pop() if ids else None


def _id_of(value: Any) -> int | None:
    """Return a phrase's id, also from a string; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _truth(value: Any) -> bool | None:
    """Return whether a value says yes or no; None where it says neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    return None


def _is_done(value: Any) -> bool:
    """Whether a status says that all went well."""
    if isinstance(value, str):
        words = load_table(__package__, "grammar.yaml")["done"].split()
        return value.strip().lower() in words
    return value is True


def _says_nothing(value: Any) -> bool:
    """Whether a status says that nothing was found: "not_found"."""
    return isinstance(value, str) and says_none(value.replace("_", " "), ())


def _is_absent(fields: Mapping[str, Any]) -> bool:
    """Whether an object says of its thing that it is not there, as with `"found": false`."""
    for key, value in fields.items():
        plain = plain_key(key)
        if plain in _keys("found") and _truth(value) is False:
            return True
        if plain in _keys("absent") and _truth(value) is True:
            return True
        if plain in _keys("count") and number(value) == 0:
            return True
        if plain in _keys("status") and _says_nothing(value):
            return True
    return False
