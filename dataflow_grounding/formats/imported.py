"""What a file said of a picture, kept with its record, so that an export of the same format says it
again.

A record has it in the column `imported`: the `format`, the `items` of the picture in the form of
that format's own module (annotations, lines, regions), and which of them were `read` as boxes. A
box that was read has `imported`, too: the number of its `item`, the `text` and `bbox` that were
made of it. Other formats pass over both.
"""

from abc import abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dataflow_grounding.boxes.geometry import Bbox, Size, box_of, clamp
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import JsonObject, Record, Update, is_box
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.format import Format, Phrase, Sample

COLUMN = "imported"
NO_BOX = -1
_NO_ITEM = -1


class Mark(NamedTuple):
    """A box that is to be written, or a phrase that has none."""

    phrase: Phrase
    number: int  # of the phrase's box, from 0; NO_BOX for a phrase that has none
    is_moved: bool = False  # whether the box is another than that of the item that it came from
    text: str = ""  # the words that were read of that item

    @property
    def is_renamed(self) -> bool:
        return self.phrase.expression.text != self.text

    @property
    def box(self) -> Bbox | None:
        return None if self.number == NO_BOX else self.phrase.boxes[self.number]

    @property
    def outline(self) -> Sequence[float] | None:
        return None if self.number == NO_BOX else self.phrase.outline(self.number)

    def has_other_area(self, was_upright: bool) -> bool:
        """Whether the area is another than the item's, which `was_upright` or had an outline."""
        # Somebody may have drawn an outline of a box that was upright. An outline that was there
        # changes only with its box.
        return self.is_moved or (was_upright and self.outline is not None)

    @property
    def score(self) -> float | None:
        return None if self.number == NO_BOX else self.phrase.scores[self.number]


@dataclass
class Source:
    """What a source had of a sample's picture, and what became of it."""

    sample: Sample
    own: JsonObject  # the column `imported`; empty if the sample is of no file of the format
    items: Sequence[Any]
    marks: dict[int, Mark] = field(default_factory=dict)  # by their item's number
    # Numbers of items that aren't written again: they have lost their box, or an earlier record of
    # the picture has written them.
    gone: set[int] = field(default_factory=set)
    new: list[Mark] = field(default_factory=list)  # boxes of no item

    def leave_out_items_of_no_box(self) -> None:
        """Leave out what no box came from: an earlier record of the picture has written it."""
        self.gone.update(set(range(len(self.items))) - self.marks.keys())


class ReturningFormat(Format):
    """A format whose export gives back what its import has kept, first and in its order."""

    @abstractmethod
    def item_back(self, item: Any, mark: Mark, source: Source) -> Any:
        """Return an item of the source as it should be written: itself if nothing has changed."""

    @abstractmethod
    def new_items(self, mark: Mark, source: Source) -> Iterable[Any]:
        """Return the items of a box that the source doesn't have."""

    def thing(self, phrase: Phrase) -> str:
        """Return the phrase's class; "" where it states none, and is in the file as it is."""
        return class_key(phrase.expression.stated_class)

    def source_of(self, sample: Sample) -> Source:
        """Return what the source had, and what became of it; an item is written once."""
        own = kept_of(sample.record, self.name)
        source = Source(sample, own, own.get("items", ()))
        read_items = set(own.get("read", ()))
        for phrase in sample.phrases:
            box_numbers = range(len(phrase.boxes)) or (NO_BOX,)  # the phrase itself may be an item
            for number in box_numbers:
                item, mark = _item_and_mark(phrase, number, sample.size)
                if item not in read_items:  # _NO_ITEM, or of a damaged column
                    source.new.append(mark)
                    continue
                first_mark = source.marks.setdefault(item, mark)
                # Of two phrases with one item, the second is written only if its box differs.
                if mark.box != first_mark.box:
                    source.new.append(mark)
        source.gone = read_items - source.marks.keys()  # their boxes aren't in the sample any more
        return source

    def is_rest(self, item: Any) -> bool:
        """Return whether an item that isn't read as a box says something of its picture."""
        return True

    def has_rest(self, record: Record) -> bool:
        """Return whether a source says something of a record's picture besides its boxes."""
        # In the source of a sample without phrases, all items that were read as boxes are `gone`.
        # Those that are left are the rest. The sample's name and size make no difference to that.
        empty_sample = Sample(file_name="", size=(1, 1), caption="", phrases=[], record=record)
        source = self.source_of(empty_sample)
        rest = set(range(len(source.items))) - source.gone
        return any(self.is_rest(source.items[number]) for number in rest)

    def goes_back_empty(self, record: Record, is_without_boxes: bool) -> bool:
        """Return whether a picture goes back without any box, because it came so or has a rest."""
        own = kept_of(record, self.name)
        # It came without boxes, and nobody has added one.
        came_empty = bool(own) and not own["read"]
        is_still_empty = came_empty and not record.get("expressions")
        if is_still_empty:
            return True
        # Its boxes were rejected or taken away, and something else goes back, such as a crowd.
        return is_without_boxes and self.has_rest(record)

    def items_of(self, source: Source) -> Iterator[Any]:
        """Yield what is written of a picture: its source's items as they are now, then new ones."""
        for number, item in enumerate(source.items):
            if number in source.gone:
                continue
            mark = source.marks.get(number)
            yield item if mark is None else self.item_back(item, mark, source)
        for mark in source.new:
            yield from self.new_items(mark, source)


class Origin(NamedTuple):
    """What a box, or a phrase without one, was made of in an imported file."""

    item: int | None  # its number; None where the file gets nothing back
    text: str
    bbox: Bbox | None  # as it was read


def origin_of(holder: Expression | Instance) -> Origin | None:
    """Return what was read there; None for what is new, or where the column is damaged."""
    source: Any = holder.extra.get(COLUMN)
    if not isinstance(source, Mapping):
        return None
    item: Any = source.get("item")
    bbox: Any = source.get("bbox")
    return Origin(
        item if type(item) is int else None,
        str(source.get("text")),
        box_of(bbox) if is_box(bbox) else None,
    )


def has_right_outline(instance: Instance, size: Size) -> bool:
    """Whether an outline fits its box: roughly as it was read, closely once the box was moved."""
    # Sources have boxes that differ from their outlines.
    if instance.outline is None or not outlines.fits(instance.outline, instance.bbox, size):
        return False
    origin = origin_of(instance)
    if origin is None or origin.bbox is None:
        return True
    # To cut a box to its picture, as this package does, isn't to move it.
    is_moved = instance.bbox not in (origin.bbox, clamp(origin.bbox, size))
    if not is_moved:
        return True
    return outlines.is_around(instance.bbox, instance.outline, size)


def with_item_number(read: dict[str, Any], item: int, text: str) -> dict[str, Any]:
    """Return what was read with its item: {"item": 3, "text": "a dog", "bbox": […]}."""
    source = {"item": item, "text": text}
    if "bbox" in read:
        source["bbox"] = read["bbox"]
    return {**read, COLUMN: source}


def column(format: str, items: Sequence[Any], **own: Any) -> Update:
    """Return a record's column, which doesn't say yet what items are read."""
    return {COLUMN: {"format": format, "items": list(items), **own}}


def with_read(own: JsonObject, expressions: Sequence[JsonObject]) -> JsonObject:
    """Return the column's value with the numbers of the items that became boxes, as `read`."""
    read = set()
    for expression in expressions:
        for holder in (expression, *expression["instances"]):
            if COLUMN in holder:
                read.add(holder[COLUMN]["item"])
    return {**own, "read": sorted(read)}


def kept_of(record: JsonObject, format: str) -> JsonObject:
    """Return what the format's import kept of a record; empty if it is another's, or damaged."""
    own = record.get(COLUMN)
    if not isinstance(own, Mapping) or own.get("format") != format:
        return {}
    items = own.get("items")
    read = own.get("read")
    if not isinstance(items, list) or not isinstance(read, list):
        return {}
    numbers = range(len(items))
    if not all(type(number) is int and number in numbers for number in read):
        return {}
    return own


def item_of(instance: Instance, items: Container[int]) -> int | None:
    """Return the number of the item that an instance came from, if it is one of `items`."""
    origin = origin_of(instance)
    return origin.item if origin is not None and origin.item in items else None


def _item_and_mark(phrase: Phrase, number: int, size: Size) -> tuple[int, Mark]:
    """Return a box's item, _NO_ITEM if it is new, and its mark; NO_BOX is the phrase itself."""
    origin = origin_of(
        phrase.expression if number == NO_BOX else phrase.expression.instances[number]
    )
    if origin is None or origin.item is None:
        return _NO_ITEM, Mark(phrase, number)
    if number == NO_BOX:
        return origin.item, Mark(phrase, number, is_moved=False, text=origin.text)
    is_moved = True  # also where the column is damaged
    if origin.bbox is not None:
        # as boxes of a sample are cut
        is_moved = clamp(origin.bbox, size) != phrase.boxes[number]
    return origin.item, Mark(phrase, number, is_moved, origin.text)
