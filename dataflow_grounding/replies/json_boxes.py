"""The numbers of a box in JSON: four in a list or a string, named coordinates, an outline.

Two numbers are a point, and are read, too: the caller says what to do with it. An outline is a
polygon, of which the box around it is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.boxes.coordinates import Order, to_xyxy
from dataflow_grounding.replies.json_text import RepeatedKeys, plain_key
from dataflow_grounding.replies.reading import (
    LARGEST,
    Dropped,
    ParsedReply,
    RawBox,
    in_brackets,
)

_COORDINATE = lazy_pattern(r"[-+]?(?:\d{1,12}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?")
_SEPARATORS = lazy_pattern(r"\s*[,;]\s*|\s+")
_TAG = lazy_pattern(r"</?b?box>")  # around numbers in a string, as Seed writes them
_LONGEST_STRING = 200  # characters of a string with a box's numbers


class NoBox(Exception):
    """Something that should be a box and can't be used as one; the message says why."""


class Boxes(NamedTuple):
    """The boxes under one key or set of keys; none if it says that nothing is there."""

    numbers: list[tuple[float, ...]]
    order: Order | None = None  # where the keys settle it
    corners: bool = False  # whether they are two corners in any format

    def as_corners(self) -> list[tuple[float, ...]]:
        """Return the boxes as they are compared: rounded, as corners if keys settle the order."""
        corners: list[tuple[float, ...]] = []
        for numbers in self.numbers:
            in_corners = to_xyxy(numbers, self.order) if self.order else numbers
            # x + width may differ from x2 in the last digit
            corners.append(tuple(round(value, 4) for value in in_corners))
        return corners


@cache
def _corner_sets() -> list[tuple[Order, tuple[str, ...]]]:
    """Such as ("xyxy", ("xmin", "ymin", "xmax", "ymax"))."""
    sets: list[tuple[Order, tuple[str, ...]]] = []
    for order, lines in load_table(__package__, "grammar.yaml")["corners"].items():
        sets += [(order, tuple(line.split())) for line in lines]
    return sets


@cache
def _coordinates() -> frozenset[str]:
    return frozenset(name for _, names in _corner_sets() for name in names)


def is_coordinate(key: str) -> bool:
    return plain_key(key) in _coordinates()


def number(value: object) -> float | None:
    """Return a number, also of "12.5"; None for a bool, NaN, or one larger than LARGEST."""
    if isinstance(value, str):
        value = value.strip()
        if _COORDINATE.fullmatch(value) is None or not value.isascii():
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None


def numbers_in(text: str) -> list[str] | None:
    """Return the four or two numbers of a string, as texts; None if it has anything else."""
    if len(text) > _LONGEST_STRING:
        return None
    text = _TAG.sub(" ", text).strip()
    while text[:1] + text[-1:] in ("[]", "()"):  # "[(1, 2, 3, 4)]"
        text = text[1:-1].strip()
    parts = _SEPARATORS.split(text)
    are_numbers = all(number(part) is not None for part in parts)
    return parts if are_numbers and len(parts) in (2, 4) else None


def boxes_in(value: object, *, is_outline: bool) -> Boxes | None:
    """Return the boxes that a value is, or those around its outlines; None for other values."""
    if isinstance(value, str):
        numbers = numbers_in(value)
        return None if numbers is None else Boxes([_floats(numbers)])
    if isinstance(value, dict):
        return _named_box(value)
    if not isinstance(value, list) or not value:
        return None
    if is_outline:
        return Boxes(_boxes_around_outlines(value), corners=True)
    has_no_lists = not any(isinstance(item, (list, dict)) for item in value)
    if has_no_lists:  # [1, 2, 3, 4]
        return Boxes([_floats(value)])
    if len(value) == 2 and all(isinstance(item, list) and len(item) == 2 for item in value):
        # [[1, 2], [3, 4]]
        return Boxes([_floats(_flat(value))], corners=True)
    return _boxes_in_list(value)


def add_boxes(value: object, box: RawBox, parsed: ParsedReply, *, is_outline: bool = False) -> None:
    """Add the boxes or points that a value is, with all else of `box`, or note that it is none."""
    try:
        boxes = boxes_in(value, is_outline=is_outline)
        if boxes is None:
            raise NoBox(f"no box: {str(value)[:60]!r}")
    except NoBox as error:
        parsed.dropped.append(Dropped(str(error), box.label, box.id))
        return
    for numbers in boxes.numbers:
        parsed.add(replace(box, numbers=numbers, corners=box.corners or boxes.corners))


def _named_box(fields: dict[str, object]) -> Boxes:
    """{"x1": 1, "y1": 2, "x2": 3, "y2": 4}, and nothing else."""
    boxes = boxes_by_name(fields)
    has_other_keys = not all(map(is_coordinate, fields))
    if len(boxes) != 1 or has_other_keys or isinstance(fields, RepeatedKeys):
        raise NoBox("a box within a box, or with a coordinate missing")
    return boxes[0]


def _boxes_in_list(items: list[object]) -> Boxes:
    """Such as [[1, 2, 3, 4], [5, 6, 7, 8]]."""
    all_numbers: list[tuple[float, ...]] = []
    for item in items:
        inner = boxes_in(item, is_outline=False) if isinstance(item, list) else None
        # A list of pairs of corners, [[[1, 2], [3, 4]], …], isn't a known form either.
        if inner is None or len(inner.numbers) != 1 or inner.corners:
            raise NoBox("a list of boxes and other things")
        all_numbers += inner.numbers
    return Boxes(all_numbers)


def boxes_by_name(fields: Mapping[str, object]) -> list[Boxes]:
    """Return a box for each whole set of names in an object, such as x1, y1, x2 and y2."""
    value_of_name = {plain_key(key): value for key, value in fields.items()}
    used: set[str] = set()
    boxes: list[Boxes] = []
    for order, names in _corner_sets():
        if value_of_name.keys() >= set(names):
            numbers = _floats([value_of_name[name] for name in names])
            boxes.append(Boxes([numbers], order, corners=order == "xyxy"))
            used.update(names)
    left_over = (_coordinates() & value_of_name.keys()) - used  # names of sets that aren't whole
    if left_over:
        raise NoBox(f"coordinates that are no box: {', '.join(sorted(left_over))}")
    return boxes


def _boxes_around_outlines(value: list[object]) -> list[tuple[float, ...]]:
    """[[x, y], …] and [x, y, x, y, …] are one outline; a list of these is several."""
    pairs = [item for item in value if isinstance(item, list) and len(item) == 2]
    items = _flat(pairs) if len(pairs) == len(value) else value
    is_one_outline = not any(isinstance(item, list) for item in items)
    if is_one_outline:
        numbers = _floats(items, is_outline=True)
        xs, ys = numbers[0::2], numbers[1::2]
        return [(min(xs), min(ys), max(xs), max(ys))]
    boxes: list[tuple[float, ...]] = []
    for outline in items:
        if not isinstance(outline, list):
            raise NoBox("a list of outlines and other things")
        boxes += _boxes_around_outlines(outline)
    return boxes


def _floats(values: Sequence[object], *, is_outline: bool = False) -> tuple[float, ...]:
    numbers: list[float] = []
    for value in values:
        as_number = number(value)
        if as_number is None:
            raise NoBox(f"a box with a coordinate that is not a number: {in_brackets(values)}")
        numbers.append(as_number)
    count = len(numbers)
    is_point_or_box = count in (2, 4)
    are_corners_of_outline = count >= 6 and count % 2 == 0
    is_as_expected = are_corners_of_outline if is_outline else is_point_or_box
    if not is_as_expected:
        raise NoBox(f"a box of {count} numbers: {in_brackets(values)}")
    return tuple(numbers)


def _flat(items: Sequence[Sequence[object]]) -> list[object]:
    return [value for item in items for value in item]
