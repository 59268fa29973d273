"""Boxes and points in parsed JSON, whatever its keys and nesting."""

import re
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies import _json_shapes as shapes
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies._absence import missing_in, says_none
from dataflow_grounding.replies._conventions import apply_stated_conventions
from dataflow_grounding.replies._doubts import (
    doubt_about,
    is_no_answer,
    name_beside,
    places_box,
    remarks_of,
    says_absent,
)
from dataflow_grounding.replies._native import has_tokens, read_tokens
from dataflow_grounding.replies._pictures import CROP, is_crop, pictures_of
from dataflow_grounding.replies.json_text import MAX_DEPTH, decode_json_string, holds_objects
from dataflow_grounding.replies.json_values import JsonObject, nested_values, number, split_off_unit
from dataflow_grounding.replies.reading import NO_DETAILS, Details, ParsedReply, RawBox

_TAGS = lazy_pattern(r"</?\w{1,20}>|<\|\w{1,20}\|>")
# The end of a key that names a box's thing: "_bbox" of "cat_bbox".
_OF_BOXES = lazy_pattern(r"[_ -](?:bounding_?)?b?box(?:es)?(?:_2d)?$", re.IGNORECASE)
# Keys of a box and its details. An object with no others states nothing else of its box.
_OF_ITSELF = keys.BOX_KEYS.union(keys.LABEL_KEYS, keys.ID_KEYS, keys.SCORE_KEYS, ["evidence"])
# Empty under these keys, a list says nothing of boxes.
_LISTS_OF_WORDS = frozenset(["tags", *keys.LABEL_LIST_KEYS]) - keys.WRAPPERS
_MAY_BE_WORDS = ("location", "position", "region")  # keys of boxes, but also of "top left"
_TASK = lazy_pattern(r"<[A-Z_]{2,60}>")  # Florence-2's tasks, as keys of what they gave
# A text of numbers and nothing else, perhaps with units and in brackets: "[1px, 2px]". The group is
# the numbers, "1px, 2px".
_BRACKETED = lazy_pattern(r"\s*[\[({<]*\s*((?:[-+\d.eE,;\s]|(?<=\d)(?:px|%))+?)\s*[\])}>]*\s*")
_LONGEST_BOX = 200  # characters of a text that may be a box, exclusive


def read_value(value: Any, parsed: ParsedReply, key: str, details: Details = NO_DETAILS) -> None:
    """Add to `parsed` every box and point in an array or object.

    Args:
        value: The array or object.
        parsed: What was read so far.
        key: The box key that was asked for.
        details: What the words beside the value say of it.

    Raises:
        UnreadableReply: It is unclear what belongs to which box, what is stated of the boxes isn't
            understood, or values are nested too deep.
    """
    _Walk(parsed, keys.plain_key(key)).add_value(value, details, expects_box=False)


class _Walk:
    """Walks through an array or object, and adds what it says to a parsed reply.

    Attributes:
        parsed: What was read so far.
        key: The box key that was asked for, as keys are compared.
        box_keys: All keys under which a box may stand, as keys are compared.
        depth: How many values are being added, each within the one before.

    Methods take these arguments:
        details: What is known of the value from around it.
        expects_box: Whether the value stands under a key or a label for a box, so that null or an
            empty list there says that the thing is not there.
        quad: Whether eight numbers are four corners.
    """

    def __init__(self, parsed: ParsedReply, key: str) -> None:
        self.parsed = parsed
        self.key = key
        self.box_keys = keys.BOX_KEYS | keys.QUAD_KEYS | keys.ORDER_KEYS.keys() | {key}
        self.depth = 0

    def add_value(
        self, value: Any, details: Details, *, expects_box: bool, quad: bool = False
    ) -> None:
        """Add the boxes and points of any value.

        Null is an absence where a box is expected. A text is read where one is, or if it has a
        model family's tokens. Other values are passed over.

        Raises:
            UnreadableReply: It is nested too deep.
        """
        self.depth += 1
        # What is read at once is no deeper, its texts and numbers included. JSON in strings may be.
        if self.depth > MAX_DEPTH + 1:
            raise UnreadableReply(f"brackets are nested deeper than {MAX_DEPTH}")
        if isinstance(value, JsonObject):
            self.add_object(value, details, expects_box=expects_box)
        elif isinstance(value, list):
            self.add_array(value, details, expects_box=expects_box, quad=quad)
        elif expects_box and value is None:
            self.parsed.add_absence(details)
        elif isinstance(value, str) and (expects_box or has_tokens(value)):
            self.add_box_text(value, details)
        self.depth -= 1

    def add_box_text(self, text: str, details: Details) -> None:
        """Add the box that a text is: words for none, a model family's tokens, or numbers."""
        if not text.strip() or says_none(text):
            self.parsed.add_absence(details)
            return
        if has_tokens(text):
            within = ParsedReply(answer=self.parsed.answer)
            read_tokens(text, within)
            self.parsed.add_part(within, details)
            return
        numbers = None
        if len(text) < _LONGEST_BOX:
            numbers = _BRACKETED.fullmatch(_TAGS.sub("", text))
        if numbers is None:
            self.parsed.drop(f"a box that is not a list of numbers: {text[:60]!r}", details)
        else:
            self.add_array(re.split(r"[,;\s]+", numbers[1].strip(",; ")), details, expects_box=True)

    def add_array(
        self, items: list[Any], details: Details, *, expects_box: bool, quad: bool = False
    ) -> None:
        """Add the boxes of an array; an empty one says that the thing is not there.

        So does one of nulls where a box is expected. A unit of all its items, as in ["1px", "2px"],
        is that of its boxes.
        """
        if not items or (expects_box and all(item is None for item in items)):
            self.parsed.add_absence(details)
            return
        since = len(self.parsed.boxes)
        items, unit = split_off_unit(items)
        self.add_list(items, details, expects_box=expects_box, quad=quad)
        self.parsed.set_conventions(since, None, unit)

    def add_list(
        self, items: list[Any], details: Details, *, expects_box: bool, quad: bool
    ) -> None:
        """Add a list as what its items make it.

        That is, in this order: a box that the text's end cuts off; numbers in a row, perhaps with
        labels, which are one box; numbers among other things; two or four pairs, which are the
        corners of one box; or several values.
        """
        letters = "".join(map(_letter_of_type, items))  # such as "snnnn" for a label and a box
        number_count = letters.count("n")
        in_a_row = "n" * number_count in letters
        is_all_numbers = number_count == len(items)
        if getattr(items, "cut", False) and is_all_numbers and number_count in (2, 3):
            self.parsed.drop("a box that is cut off", details)
        elif number_count >= 2 and in_a_row and "o" not in letters:
            self.add_list_of_numbers(items, details, quad=quad)
        elif number_count >= 2 or (number_count == 1 and expects_box):
            self.add_broken_list(items, details)
        elif expects_box and len(items) in (2, 4) and all(map(shapes.is_pair, items)):
            coordinates: list[Any] = []
            for corner in items:
                coordinates += corner
            self.parsed.add_numbers(coordinates, details, corners=True, quad=True)
        else:
            self.add_mixed_list(items, details, expects_box=expects_box, quad=quad)

    def add_list_of_numbers(self, items: list[Any], details: Details, *, quad: bool) -> None:
        """Add a list of numbers as a box; texts around them are its labels."""
        labels: list[str] = []
        coordinates: list[Any] = []
        for item in items:
            if number(item) is not None:
                coordinates.append(item)
            elif item.strip():
                labels.append(item.strip())
        self.parsed.add_numbers(
            coordinates, Details(tuple(labels)).completed_by(details), quad=quad
        )

    def add_broken_list(self, items: list[Any], details: Details) -> None:
        """Add a list of numbers that has other things in it, and the boxes of these.

        All that is no array or object is added as one box, which is dropped if any is no number.
        """
        self.parsed.add_numbers(
            [item for item in items if not isinstance(item, (list, dict))], details
        )
        for item in nested_values(items):  # what follows a list that was never closed is in it
            self.add_value(item, NO_DETAILS, expects_box=False)

    def add_mixed_list(
        self, items: list[Any], details: Details, *, expects_box: bool, quad: bool
    ) -> None:
        """Add a list of boxes or objects, each with the text right before it as its label.

        Where a box is expected, texts of numbers are boxes, too, and a list that gives nothing is
        dropped.

        Raises:
            UnreadableReply: It is unclear which labels belong to which boxes.
        """
        label: tuple[str, ...] = ()
        size_before = self.parsed.size
        for item in shapes.labels_before_boxes(items):
            if expects_box and isinstance(item, str) and _are_numbers(item):
                self.add_box_text(item, Details(label).completed_by(details))
                label = ()
            elif isinstance(item, str):
                label = (item.strip(),)
            elif isinstance(item, (list, dict)):
                self.add_value(
                    item, Details(label).completed_by(details), expects_box=expects_box, quad=quad
                )
                label = ()
        if expects_box and self.parsed.size == size_before:
            self.parsed.drop("a box that is not a list of numbers", details)

    # Objects

    def add_object(self, value: JsonObject, outer: Details, *, expects_box: bool) -> None:
        """Add the boxes of an object, or that its thing is not there.

        `outer` is what is known of it from around it. An empty object is an absence where a box is
        expected, and else dropped.
        """
        if value.parts:
            self.add_parts_of_object(value, outer, expects_box=expects_box)
            return
        if shapes.is_empty(value):
            if expects_box:
                self.parsed.add_absence(outer)
            else:
                self.parsed.drop("an empty object", outer)
            return
        fields = shapes.plain_fields(value)
        if shapes.is_coco_document(fields):
            self.parsed.ends_in_size = True
        shapes.add_statuses(self.parsed, fields)
        own = self.details_of_object(value, fields)
        details = own.completed_by(outer)
        if says_absent(fields):
            self.add_absent_object(value, fields, details)
        else:
            self.add_present_object(value, fields, own, details)

    def add_present_object(
        self, value: JsonObject, fields: dict[str, Any], own: Details, details: Details
    ) -> None:
        """Add the boxes of an object that doesn't say that its thing is not there.

        One with a label and no box is dropped.

        Args:
            value: The object.
            fields: Its `plain_fields`.
            own: Its own details.
            details: These, with what is known of it from around it.
        """
        boxes_before = len(self.parsed.boxes)
        absences_before = len(self.parsed.absences)
        has_box = self.add_own_boxes(value, fields, details)
        size_before = self.parsed.size
        self.add_children(value, details, has_label=bool(own.labels), has_box=has_box)
        nothing_inside = not has_box and self.parsed.size == size_before
        if own.labels and nothing_inside and not isinstance(fields.get("statuses"), list):
            self.parsed.drop(f"an object without a box: {own.labels[0][:60]!r}", details)
        for item in nested_values(value.loose):
            self.add_value(item, NO_DETAILS, expects_box=False)
        if len(self.parsed.boxes) > boxes_before:
            self.set_stated_conventions(fields, boxes_before)
        elif len(self.parsed.absences) > absences_before:
            reason = doubt_about(fields, of_one_thing=has_box and own != NO_DETAILS)
            if reason is not None:  # what was added isn't said for sure
                del self.parsed.absences[absences_before:]
                self.parsed.drop(reason, details)

    def set_stated_conventions(self, fields: dict[str, Any], since: int) -> None:
        """Set what an object states of its boxes, and of the picture that they are in.

        Its boxes are those from the index `since` on.

        Raises:
            UnreadableReply: What it states is not understood.
        """
        if fields.keys() <= _OF_ITSELF:
            return
        apply_stated_conventions(self.parsed, since, fields)
        self.parsed.pictures.update(pictures_of(fields))
        if is_crop(fields):
            self.parsed.elsewhere = CROP

    def details_of_object(self, value: JsonObject, fields: dict[str, Any]) -> Details:
        """Return an object's own details.

        Beside a box these are also a name under a key that isn't known, such as "species", if there
        is neither a label nor an id; and remarks, which may take the box back.
        """
        own = shapes.details_in(value, fields)
        if fields.keys() <= _OF_ITSELF or not any(map(self.is_box_key, fields)):
            return own
        labels = own.labels
        if not labels and own.id is None:
            name = name_beside(fields)
            if name:
                labels = (name,)
        return replace(own, labels=labels, remarks=remarks_of(value))

    def add_absent_object(
        self, value: JsonObject, fields: dict[str, Any], details: Details
    ) -> None:
        """Add that an object's thing is not there, unless it has a box all the same.

        Then that is dropped, and nothing else added. A box of zeros is none.
        """
        aside = ParsedReply()
        _Walk(aside, self.key).add_own_boxes(value, fields, details)
        if any(any(raw.numbers) for raw in aside.boxes):
            self.parsed.drop("a box of what is said not to be there", details)
        else:
            self.parsed.add_absence(details)

    def add_parts_of_object(self, value: JsonObject, outer: Details, *, expects_box: bool) -> None:
        """Add the parts of an object that has a key twice, one after the other.

        A part with neither a label nor an id has the details of the one before it.
        """
        details = outer
        last = value.parts[-1]
        for part in value.parts:
            own = shapes.details_in(part, shapes.plain_fields(part))
            if own.labels or own.id is not None:
                details = own.completed_by(outer)
            part.cut = value.cut and part is last
            self.add_object(part, details, expects_box=expects_box)

    def add_own_boxes(self, value: JsonObject, fields: dict[str, Any], details: Details) -> bool:
        """Add an object's own box, and return whether it has anything like one.

        The box stands under a box key. Where these give no box and nothing was dropped, it has a
        key for each coordinate, or is an outline or a point. A box whose label the text's end may
        have cut off is dropped.
        """
        parsed = self.parsed
        boxes_before = len(parsed.boxes)
        dropped_before = len(parsed.dropped)
        boxes: dict[str, Any] = {}
        lists: dict[str, list[Any]] = {}
        for plain, item in fields.items():
            if self.is_box_key(plain):
                boxes[plain] = item
            elif isinstance(item, list):
                lists[plain] = item
        boxes = shapes.without_place_keys(boxes, self.key)
        if len(boxes) > 1:
            boxes = shapes.choose_box_keys(boxes, self.key, parsed, details)
        has_box = False
        for plain, item in boxes.items():
            if self.add_box_field(plain, item, lists, details):
                has_box = True
        if len(parsed.boxes) == boxes_before and len(parsed.dropped) == dropped_before:
            has_box = self.add_coordinates(fields, lists, details) or has_box
        if value.cut and not details.labels and details.id is None:
            begun = any(key in fields for key in keys.LABEL_KEYS)
            shapes.drop_unlabelled(parsed, boxes_before, begun=begun)
        return has_box

    def add_coordinates(
        self, fields: dict[str, Any], lists: dict[str, list[Any]], details: Details
    ) -> bool:
        """Add an object's box of named coordinates, or its outline, or its point.

        Returns whether it has one of them.
        """
        return (
            shapes.add_corners(self.parsed, fields, details)
            or shapes.add_outline(self.parsed, fields, lists, details)
            or self.add_points(fields, details)
        )

    def is_box_key(self, plain: str) -> bool:
        """Whether a box may stand under a key, also one such as "bbox1" or "finalbbox"."""
        return not self.box_keys.isdisjoint(keys.box_names(plain))

    def add_box_field(
        self, plain: str, item: Any, lists: dict[str, list[Any]], details: Details
    ) -> bool:
        """Add what stands under a box key, and return whether it can be a box.

        It can't where the key may have words such as "top left", and no number stands there. The
        boxes take an order or "pixel" from the key, and labels, scores and ids from the lists.

        Args:
            plain: The key, as keys are compared.
            item: What stands under it.
            lists: The other lists of the object.
            details: What is known of the box.
        """
        no_numbers = item is None or (isinstance(item, str) and not re.search(r"\d", item))
        if no_numbers and plain in _MAY_BE_WORDS:
            return False
        parsed = self.parsed
        since = len(parsed.boxes)
        self.add_value(item, details, expects_box=True, quad=plain in keys.QUAD_KEYS)
        if "pixel" in plain and plain != self.key:
            parsed.set_conventions(since, None, "px")
        if plain in keys.ORDER_KEYS:
            order = keys.ORDER_KEYS[plain]
            for i in range(since, len(parsed.boxes)):
                parsed.boxes[i] = replace(parsed.boxes[i], order=order)
        shapes.set_details_from_lists(parsed, since, lists)
        return True

    def add_points(self, fields: dict[str, Any], details: Details) -> bool:
        """Add the points of an object: those under keys for points, else its x and y as one.

        Returns whether it has any, or an array or object under a key for them.
        """
        has_points = False
        for key, item in fields.items():
            if key in keys.POINT_KEYS and isinstance(item, (list, dict)):
                has_points = True
                self.add_value(item, details, expects_box=False)
        point = shapes.pair([fields.get("x"), fields.get("y")])
        if point is not None and not has_points:
            # The keys say which number is x: it is first, also where the format has y first.
            self.parsed.add_raw_box(RawBox("point", point, details, order="xyxy"))
        return has_points or point is not None

    # What an object holds beside its own box

    def add_children(
        self, value: JsonObject, details: Details, *, has_label: bool, has_box: bool
    ) -> None:
        """Add the boxes of an object's values that aren't its own box.

        How a value is read depends on the object:
        - It has neither a label nor a box: `add_unlabelled` reads every value.
        - It has a box: values that hold objects are parts of its thing, or other things.
        - It has a label alone: values that hold objects may be its box.

        Args:
            value: The object.
            details: What is known of it.
            has_label: Whether it has a label of its own.
            has_box: Whether it has a box of its own.
        """
        has_words = any(isinstance(item, str) and not says_none(item) for item in value.values())
        groups: dict[str, list[RawBox]] = {}  # key → the boxes under it
        for key, item in value.items():
            plain = keys.plain_key(key)
            if self.is_box_key(plain) or plain in keys.NO_CHILDREN:
                continue
            since = len(self.parsed.boxes)
            item = decode_json_string(item)
            if not has_label and not has_box:
                self.add_unlabelled(key, item, details, has_words=has_words)
            elif plain in keys.LABEL_KEYS or not holds_objects(item):
                continue  # a colour or size, and no further detection
            elif has_box:
                self.add_parts_of_thing(item, whole=not value.cut)
            else:
                self.add_value(item, _details_under_key(key, details), expects_box=False)
            if len(self.parsed.boxes) > since:
                groups[plain] = self.parsed.boxes[since:]
        if len(groups) > 1:
            shapes.drop_contradicting_boxes(self.parsed, groups)

    def add_parts_of_thing(self, item: Any, *, whole: bool) -> None:
        """Add the boxes in a value of an object that has a box of its own.

        Those without a label or id are left out, as they are no other things. Where the object is
        cut off (`whole` is false), they are kept.
        """
        since = len(self.parsed.boxes)
        self.add_value(item, NO_DETAILS, expects_box=False)
        if whole:
            other_things = [raw for raw in self.parsed.boxes[since:] if shapes.is_named(raw)]
            self.parsed.boxes[since:] = other_things

    def add_unlabelled(self, key: str, item: Any, details: Details, *, has_words: bool) -> None:
        """Add the boxes in a value of an object that has neither a label nor a box of its own.

        The key is the value's label ("cat_bbox" names a cat) or id ("3"), unless it is one that
        names nothing.

        Args:
            key: The value's key.
            item: The value.
            details: What is known of the object.
            has_words: Whether the object has words, so that null is no answer.
        """
        plain = keys.plain_key(key)
        if item == [] and plain in _LISTS_OF_WORDS:
            return
        if plain in keys.WRAPPERS or _TASK.fullmatch(key):
            self.add_wrapped(plain, item, details)
        elif item is not None or not has_words:
            if re.fullmatch(r"\s*\d{1,9}\s*", key):
                key_details = Details(id=int(key), id_of_phrase=True)
            else:
                key_details = Details((_OF_BOXES.sub("", key).strip() or key,))
            self.add_labelled(plain, item, key_details.completed_by(details))

    def add_wrapped(self, plain: str, item: Any, details: Details) -> None:
        """Add the boxes under a key that names nothing.

        Null, an empty object and words such as "none" are an absence. A message or tool call with
        nothing in it is passed over.
        """
        if is_no_answer(plain, item):
            return
        missing = missing_in(item) if isinstance(item, str) else None
        if item is None or missing is not None or shapes.is_empty(item):
            self.parsed.missing = missing
            self.parsed.add_absence(details)
        else:
            self.add_value(item, details, expects_box=False)

    def add_labelled(self, plain: str, item: Any, details: Details) -> None:
        """Add what stands under a key that is its label.

        That is boxes; null, for an absence; or words that say that the thing, or anything at all,
        is not there, though not under a key for faults. Other words and numbers are passed over.
        """
        if isinstance(item, (list, dict)) or item is None:
            self.add_value(item, details, expects_box=True)
        elif isinstance(item, str) and (has_tokens(item) or _are_numbers(item)):
            self.add_box_text(item, details)
        elif isinstance(item, str) and plain not in keys.FAULT_KEYS:
            missing = missing_in(item)
            if missing is not None and missing.denies(details.labels):
                self.parsed.add_absence(details)


def _letter_of_type(item: Any) -> str:
    """Return `n` for a number, also one in a text; `s` for any other text; `o` for the rest."""
    if number(item) is not None:
        return "n"
    return "s" if isinstance(item, str) else "o"


def _details_under_key(key: str, details: Details) -> Details:
    """Return the details of a box that an object without one has under a key.

    They are the object's where the key says that the box is its own. In `{"next_to": {…}}` the box
    is another thing's, and the key names it.
    """
    if places_box(key):
        return details
    return Details((key.strip(),))


def _are_numbers(text: str) -> bool:
    """Whether a text is a list of several numbers and nothing else, but for brackets and units."""
    if len(text) >= _LONGEST_BOX or not re.search(r"\d[,;\s]", text):
        return False
    return _BRACKETED.fullmatch(text) is not None
