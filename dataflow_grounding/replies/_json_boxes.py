"""Boxes and points in parsed JSON, whatever its keys and nesting."""

import re
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies import _json_shapes as shapes
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies._absence import missing_in, says_none
from dataflow_grounding.replies._conventions import apply_stated
from dataflow_grounding.replies._doubts import (
    doubt,
    is_no_answer,
    name_beside,
    places_box,
    remarks_of,
    says_absent,
)
from dataflow_grounding.replies._native import has_tokens, read_tokens
from dataflow_grounding.replies._pictures import CROP, is_crop, pictures_of
from dataflow_grounding.replies.json_text import MAX_DEPTH, decoded, holds_objects
from dataflow_grounding.replies.json_values import JsonObject, measured, nested, number
from dataflow_grounding.replies.reading import NOTHING_SAID, ParsedReply, RawBox, Said

_TAGS = lazy_pattern(r"</?\w{1,20}>|<\|\w{1,20}\|>")
_OF_BOXES = lazy_pattern(r"[_ -](?:bounding_?)?b?box(?:es)?(?:_2d)?$", re.IGNORECASE)  # "cat_bbox"
# An object with no other keys says nothing else of its box.
_OF_ITSELF = keys.BOX_KEYS.union(keys.LABEL_KEYS, keys.ID_KEYS, keys.SCORE_KEYS, ["evidence"])
# Empty under these keys, a list says nothing of boxes.
_LISTS_OF_WORDS = frozenset(["tags", *keys.LABEL_LIST_KEYS]) - keys.WRAPPERS
_TASK = lazy_pattern(r"<[A-Z_]{2,60}>")  # Florence-2's tasks, as keys of what they gave
_BRACKETED = lazy_pattern(r"\s*[\[({<]*\s*((?:[-+\d.eE,;\s]|(?<=\d)(?:px|%))+?)\s*[\])}>]*\s*")


def read_value(value: Any, parsed: ParsedReply, key: str, said: Said = NOTHING_SAID) -> None:
    """Add to `parsed` every box and point in one parsed array or object; `key` is the box key that
    was asked for.
    """
    _Walk(parsed, keys.plain_key(key)).value(value, said, boxy=False)


class _Walk:
    def __init__(self, parsed: ParsedReply, key: str) -> None:
        self.parsed, self.key = parsed, key
        self.box_keys = keys.BOX_KEYS | keys.QUAD_KEYS | keys.ORDER_KEYS.keys() | {key}
        self.depth = 0

    def value(self, value: Any, said: Said, *, boxy: bool, quad: bool = False) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:  # JSON in strings in JSON
            raise UnreadableReply(f"brackets are nested deeper than {MAX_DEPTH}")
        if isinstance(value, JsonObject):
            self.object(value, said, boxy=boxy)
        elif isinstance(value, list):
            self.array(value, said, boxy=boxy, quad=quad)
        elif boxy and value is None:
            self.parsed.lack(said)
        elif isinstance(value, str) and (boxy or has_tokens(value)):
            self.box_string(value, said)
        self.depth -= 1

    def box_string(self, text: str, said: Said) -> None:
        if not text.strip() or says_none(text):
            self.parsed.lack(said)
            return
        if has_tokens(text):
            within = ParsedReply(answer=self.parsed.answer)
            read_tokens(text, within)
            self.parsed.take(within, said)
            return
        match = _BRACKETED.fullmatch(_TAGS.sub("", text)) if len(text) < 200 else None
        if match is not None:
            self.array(re.split(r"[,;\s]+", match[1].strip(",; ")), said, boxy=True)
        else:
            self.parsed.drop(f"a box that is not a list of numbers: {text[:60]!r}", said)

    def array(self, items: list[Any], said: Said, *, boxy: bool, quad: bool = False) -> None:
        if not items or (boxy and all(item is None for item in items)):
            self.parsed.lack(said)
            return
        since = len(self.parsed.boxes)
        items, unit = measured(items)
        self.listed(items, said, boxy=boxy, quad=quad)
        self.parsed.state(since, None, unit)

    def listed(self, items: list[Any], said: Said, *, boxy: bool, quad: bool) -> None:
        kinds = "".join(
            "n" if number(item) is not None else "s" if isinstance(item, str) else "o"
            for item in items
        )
        count = kinds.count("n")
        if getattr(items, "cut", False) and 1 < count == len(items) < 4:
            self.parsed.drop("a box that is cut off", said)
        elif count >= 2 and "n" * count in kinds and "o" not in kinds:
            self.numbers(items, said, quad=quad)
        elif count + boxy > 1:  # several numbers, or one where a box was asked for
            self.broken(items, said)
        elif boxy and len(items) in (2, 4) and all(map(shapes.is_pair, items)):
            self.parsed.add(
                [value for corner in items for value in corner], said, corners=True, quad=True
            )
        else:
            self.mixed(items, said, boxy=boxy, quad=quad)

    def numbers(self, items: list[Any], said: Said, *, quad: bool) -> None:
        labels = tuple(item.strip() for item in items if number(item) is None and item.strip())
        self.parsed.add(
            [item for item in items if number(item) is not None],
            Said(labels).within(said),
            quad=quad,
        )

    def broken(self, items: list[Any], said: Said) -> None:
        self.parsed.add([item for item in items if not isinstance(item, (list, dict))], said)
        for item in nested(items):  # what follows a list that was never closed is in it
            self.value(item, NOTHING_SAID, boxy=False)

    def mixed(self, items: list[Any], said: Said, *, boxy: bool, quad: bool) -> None:
        label: tuple[str, ...] = ()
        before = self.parsed.size
        for item in shapes.labels_ahead(items):
            if boxy and isinstance(item, str) and _are_numbers(item):
                self.box_string(item, Said(label).within(said))
                label = ()
            elif isinstance(item, str):
                label = (item.strip(),)
            elif isinstance(item, (list, dict)):
                self.value(item, Said(label).within(said), boxy=boxy, quad=quad)
                label = ()
        if boxy and self.parsed.size == before:
            self.parsed.drop("a box that is not a list of numbers", said)

    # Objects

    def object(self, value: JsonObject, outer: Said, *, boxy: bool) -> None:
        if value.parts:
            self.repeated_keys(value, outer, boxy=boxy)
            return
        if shapes.is_empty(value):
            if boxy:
                self.parsed.lack(outer)
            else:
                self.parsed.drop("an empty object", outer)
            return
        fields = shapes.plain_fields(value)
        shapes.take_statuses(self.parsed, fields)
        own = self.said_by(value, fields)
        said = own.within(outer)
        if says_absent(fields):
            self.absent(value, fields, said)
            return
        since, absences = len(self.parsed.boxes), len(self.parsed.absences)
        has_box = self.own_boxes(value, fields, said)
        before = self.parsed.size
        self.children(value, said, named=bool(own.labels), has_box=has_box)
        if (
            own.labels
            and not has_box
            and self.parsed.size == before
            and not isinstance(fields.get("statuses"), list)
        ):
            self.parsed.drop(f"an object without a box: {own.labels[0][:60]!r}", said)
        for item in nested(value.loose):
            self.value(item, NOTHING_SAID, boxy=False)
        if len(self.parsed.boxes) > since:
            self.beside_boxes(fields, since)
        elif len(self.parsed.absences) > absences:
            why = doubt(fields, boxy=has_box and own != NOTHING_SAID)
            if why is not None:
                del self.parsed.absences[absences:]
                self.parsed.drop(why, said)

    def beside_boxes(self, fields: dict[str, Any], since: int) -> None:
        """Take what an object states of its boxes, those from the `since`-th on, and of the picture
        they are in.
        """
        if fields.keys() <= _OF_ITSELF:
            return
        apply_stated(self.parsed, since, fields)
        self.parsed.pictures.update(pictures_of(fields))
        if is_crop(fields):
            self.parsed.elsewhere = CROP

    def said_by(self, value: JsonObject, fields: dict[str, Any]) -> Said:
        """Return what an object says of itself, beside a box also under keys that aren't known."""
        own = shapes.said_by(value, fields)
        if fields.keys() <= _OF_ITSELF or not any(map(self.is_box_key, fields)):
            return own
        name = name_beside(fields) if not own.labels and own.id is None else None
        return replace(
            own, labels=own.labels or ((name,) if name else ()), remarks=remarks_of(value)
        )

    def absent(self, value: JsonObject, fields: dict[str, Any], said: Said) -> None:
        """Take an object that says that its thing is not there, unless it gives the thing's box."""
        beside = ParsedReply()
        _Walk(beside, self.key).own_boxes(value, fields, said)
        if any(any(raw.numbers) for raw in beside.boxes):
            self.parsed.drop("a box of what is said not to be there", said)
        else:
            self.parsed.lack(said)

    def repeated_keys(self, value: JsonObject, outer: Said, *, boxy: bool) -> None:
        said = outer
        for part in value.parts:
            # a part that names nothing goes on with what the one before it named
            own = shapes.said_by(part, shapes.plain_fields(part))
            said = own.within(outer) if own.labels or own.id is not None else said
            part.cut = value.cut and part is value.parts[-1]
            self.object(part, said, boxy=boxy)

    def own_boxes(self, value: JsonObject, fields: dict[str, Any], said: Said) -> bool:
        """Take an object's own box: under a box key; else coordinates with a key each; else an
        outline, or a point.
        """
        parsed, since = self.parsed, len(self.parsed.boxes)
        dropped = len(parsed.dropped)
        used = False
        lists = {
            key: item
            for key, item in fields.items()
            if isinstance(item, list) and not self.is_box_key(key)
        }
        boxes = {plain: item for plain, item in fields.items() if self.is_box_key(plain)}
        boxes = shapes.without_places(boxes, self.key)
        if len(boxes) > 1:
            boxes = shapes.one_of(boxes, self.key, self.parsed, said)
        for plain, item in boxes.items():
            used |= self.box_field(plain, item, lists, said)
        if (len(parsed.boxes), len(parsed.dropped)) == (since, dropped):
            found = shapes.take_corners(parsed, fields, said) or shapes.take_outline(
                parsed, fields, lists, said
            )
            used |= found or self.point(fields, said)
        if value.cut and not said.labels and said.id is None:
            shapes.drop_unlabelled(
                parsed, since, begun=any(key in fields for key in keys.LABEL_KEYS)
            )
        return used

    def is_box_key(self, plain: str) -> bool:
        return not self.box_keys.isdisjoint(keys.box_names(plain))

    def box_field(self, plain: str, item: Any, lists: dict[str, list[Any]], said: Said) -> bool:
        described = item is None or (isinstance(item, str) and not re.search(r"\d", item))
        if described and plain in ("location", "position", "region"):
            return False  # words such as "top left" are a description and no box
        boxes, since = self.parsed.boxes, len(self.parsed.boxes)
        self.value(item, said, boxy=True, quad=plain in keys.QUAD_KEYS)
        if "pixel" in plain and plain != self.key:
            self.parsed.state(since, None, "px")
        if plain in keys.ORDER_KEYS:
            boxes[since:] = [replace(raw, order=keys.ORDER_KEYS[plain]) for raw in boxes[since:]]
        shapes.take_lists_beside(self.parsed, since, lists)
        return True

    def point(self, fields: dict[str, Any], said: Said) -> bool:
        points = [
            item
            for key, item in fields.items()
            if key in keys.POINT_KEYS and isinstance(item, (list, dict))
        ]
        for item in points:
            self.value(item, said, boxy=False)
        point = shapes.pair([fields.get("x"), fields.get("y")])
        if point is not None and not points:
            self.parsed.put(RawBox("point", point, said, "xyxy"))
        return bool(points) or point is not None

    # What an object holds beside its own box

    def children(self, value: JsonObject, said: Said, *, named: bool, has_box: bool) -> None:
        talks = any(isinstance(item, str) and not says_none(item) for item in value.values())
        groups: dict[str, list[RawBox]] = {}
        for key, item in value.items():
            plain, since = keys.plain_key(key), len(self.parsed.boxes)
            if self.is_box_key(plain) or plain in keys.NO_CHILDREN:
                continue
            item = decoded(item)
            if not (named or has_box):
                self.labelled_or_wrapped(key, item, said, talks=talks)
            elif plain not in keys.LABEL_KEYS and holds_objects(item):
                # a further detection, not a colour or size
                self.value(item, NOTHING_SAID if has_box else _said_within(key, said), boxy=False)
                if has_box and not value.cut:  # a part without a name is not another thing
                    self.parsed.boxes[since:] = filter(shapes.is_named, self.parsed.boxes[since:])
            if len(self.parsed.boxes) > since:
                groups[plain] = self.parsed.boxes[since:]
        if len(groups) > 1:
            shapes.drop_considered(self.parsed, groups)

    def labelled_or_wrapped(self, key: str, item: Any, said: Said, *, talks: bool) -> None:
        plain = keys.plain_key(key)
        if item == [] and plain in _LISTS_OF_WORDS:
            return
        if plain in keys.WRAPPERS or _TASK.fullmatch(key):
            self.wrapped(plain, item, said)
        elif item is not None or not talks:
            inner = (
                Said(id=int(key))
                if re.fullmatch(r"\s*\d{1,9}\s*", key)
                else Said((_OF_BOXES.sub("", key).strip() or key,))
            )
            self.labelled_by_key(plain, item, inner.within(said))

    def wrapped(self, plain: str, item: Any, said: Said) -> None:
        """Take what is under a key that names nothing."""
        if is_no_answer(plain, item):
            return
        missing = missing_in(item) if isinstance(item, str) else None
        if item is None or missing is not None or shapes.is_empty(item):
            self.parsed.missing = missing
            self.parsed.lack(said)
        else:
            self.value(item, said, boxy=False)

    def labelled_by_key(self, plain: str, item: Any, said: Said) -> None:
        if isinstance(item, (list, dict)) or item is None:
            self.value(item, said, boxy=True)
        elif isinstance(item, str) and (has_tokens(item) or _are_numbers(item)):
            self.box_string(item, said)
        elif isinstance(item, str) and plain not in keys.FAULT_KEYS:
            missing = missing_in(item)
            if missing is not None and missing.answers_for(dict(enumerate(said.labels))):
                self.parsed.lack(said)


def _said_within(key: str, said: Said) -> Said:
    """Return what is said of a box under a key of an object without one: another thing's in
    `{"next_to": {…}}`.
    """
    return said if places_box(key) else Said((key.strip(),))


def _are_numbers(text: str) -> bool:
    """Whether a text is a list of several numbers and nothing else."""
    return (
        len(text) < 200
        and bool(re.search(r"\d[,;\s]", text))
        and _BRACKETED.fullmatch(text) is not None
    )
