"""What a file said of a picture, kept with its record, so that an export of the same format says it
again.

A record has it in the column `imported`: the `format`, the `items` of the picture in the form of
that format's own module (annotations, lines, regions), and which of them were `read` as boxes. A
box that was read has `imported`, too: the number of its `item`, and the `text` and `bbox` that were
made of it. Other formats pass over both.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of, clamp
from dataflow_grounding.data.records import is_box
from dataflow_grounding.formats.format import Phrase, Sample

COLUMN = "imported"
NO_BOX = -1


class Mark(NamedTuple):
    """A box to be written, or an item of the source that was not read as one.

    Attributes:
        item: What the source has of it; None of a box that is new.
        phrase: Whose box it is; None of an item that was not read.
        number: Of the box among the phrase's; NO_BOX of a phrase that has none.
        is_moved: Whether the box is no longer the one of the item.
        text: The words that were read of the item.
        number_of_item: Its number among the source's.
    """

    item: Any
    phrase: Phrase | None = None
    number: int = 0
    is_moved: bool = False
    text: str = ""
    number_of_item: int = -1

    @property
    def is_renamed(self) -> bool:
        """Whether the phrase has other words than those that were read of the item."""
        return self.phrase is not None and self.phrase.expression["text"] != self.text

    @property
    def box(self) -> Bbox | None:
        """The box; None where there is none."""
        if self.phrase is None or self.number == NO_BOX:
            return None
        return self.phrase.boxes[self.number]


def keep(read: dict[str, Any], item: int, text: str) -> dict[str, Any]:
    """Return what was read with the number of its item: an instance, or a phrase without any."""
    source = {"item": item, "text": text}
    if "bbox" in read:
        source["bbox"] = read["bbox"]
    return {**read, COLUMN: source}


def column(format: str, items: Sequence[Any], **own: Any) -> dict[str, Any]:
    """Return the column of a record, in an object of its own; which items are read isn't in it yet.

    Args:
        format: The format's name.
        items: What the source has of the picture, as JSON.
        own: What else the format keeps.
    """
    return {COLUMN: {"format": format, "items": list(items), **own}}


def with_read(own: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the column's value with the numbers of the items that became boxes, as `read`."""
    read = set()
    for expression in expressions:
        for holder in (expression, *expression["instances"]):
            if COLUMN in holder:
                read.add(holder[COLUMN]["item"])
    return {**own, "read": sorted(read)}


def kept(record: Mapping[str, Any], format: str) -> Mapping[str, Any]:
    """Return what the format's import kept of a record; empty for that of another format."""
    own = record.get(COLUMN)
    if not isinstance(own, Mapping) or own.get("format") != format:
        return {}
    items = own.get("items")
    read = own.get("read")
    if not isinstance(items, list) or not isinstance(read, list):
        return {}
    numbers = range(len(items))
    return own if all(type(number) is int and number in numbers for number in read) else {}


def comes_without_boxes(record: Mapping[str, Any], format: str) -> bool:
    """Whether the format's import read no box of a picture of which it kept something."""
    own = kept(record, format)
    return bool(own) and not own["read"] and not record.get("expressions")


def marks_of(sample: Sample, format: str) -> Iterator[Mark]:
    """Yield what is to be written of a sample: the source's items in their order, then new boxes.

    Items that were read and have no box any more are left out. A second box of one item is new,
    unless it is the same one, as of another phrase.
    """
    own = kept(sample.record, format)
    items: Sequence[Any] = own.get("items", ())
    read = set(own.get("read", ()))
    marks_of_item: dict[int, Mark] = {}
    new = []
    for phrase in sample.phrases:
        for number in range(len(phrase.boxes)) or (NO_BOX,):
            mark = _mark(phrase, number, items, sample.size)
            item = mark.number_of_item
            if item not in read:
                new.append(Mark(None, phrase, number))
            elif item not in marks_of_item:
                marks_of_item[item] = mark
            elif marks_of_item[item].box != mark.box:
                new.append(Mark(None, phrase, number))
    for number, item in enumerate(items):
        if number in marks_of_item:
            yield marks_of_item[number]
        elif number not in read:
            yield Mark(item)
    yield from new


def _mark(phrase: Phrase, number: int, items: Sequence[Any], size: Size) -> Mark:
    # Without an item where the box is new, or somebody has written something else into the column.
    holder = phrase.expression if number == NO_BOX else phrase.expression["instances"][number]
    source: Any = holder.get(COLUMN)
    if not isinstance(source, Mapping):
        return Mark(None, phrase, number)
    item = source.get("item")
    if type(item) is not int or item not in range(len(items)):
        return Mark(None, phrase, number)
    is_moved = False
    if number != NO_BOX:
        box: Any = source.get("bbox")
        is_moved = not is_box(box) or clamp(box_of(box), size) != phrase.boxes[number]
    return Mark(items[item], phrase, number, is_moved, str(source.get("text")), item)


class OwnIds:
    """Gives ids of a source back where they are free, and others above the largest."""

    def __init__(self) -> None:
        self._taken = NumberTable()  # hashes of ids
        self._last = 0  # the number that was given last to what is new

    def rise(self, largest: int) -> None:
        """Leave numbers up to `largest` to a source."""
        self._last = max(self._last, largest)

    def id_of(self, own: Any = None) -> Any:
        """Return `own` where no other has it, else a new number."""
        if not isinstance(own, (int, float, str)) or self._is_taken(own):
            own = self._last + 1
            while self._is_taken(own):
                own += 1
            self._last = own
        self._taken.set(hash(own), 1)
        return own

    def _is_taken(self, own: Any) -> bool:
        return self._taken.get(hash(own)) is not None
