"""Outlines of boxes: the column `outline` of an instance, one polygon in its upright picture.

It is a list of pixels, x1, y1, x2, y2 and so on.
"""

from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp, intersection, iou
from dataflow_grounding.data.records import is_number

KEY = "outline"
STALE = "outlines that don't fit their box"
OTHER_BOX = 0.5  # px: a box whose edges are further from those around an outline is another one
_FITS = 0.5  # IoU of a box with the one around its outline: a box may hold what is hidden, too


def checked(outline: Any, size: Size | None) -> list[float]:
    """Return an outline as it is. Raises BrokenRow with what is wrong with it."""
    if not isinstance(outline, list) or not all(map(is_number, outline)):
        raise BrokenRow("a polygon should be a list of numbers, x and y in turn")
    if len(outline) < 6 or len(outline) % 2:
        raise BrokenRow(f"a polygon of {len(outline)} numbers: three points or more have 6, 8 …")
    if size is not None and area(intersection(bounds(outline), (0, 0, *size))) <= 0:
        raise BrokenRow("the polygon is outside of its picture")
    return outline


def bounds(outline: Sequence[float]) -> Bbox:
    xs = outline[::2]
    ys = outline[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def points_of(outline: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(outline[::2], outline[1::2], strict=True))


def inside(outline: Sequence[float], size: Size) -> list[float]:
    """Return an outline with the points beyond its picture put to the edge."""
    return [min(max(number, 0), size[i % 2]) for i, number in enumerate(outline)]


def square_pixels(outline: Sequence[float]) -> float:
    """Return the area of an outline, by the shoelace formula."""
    xs = outline[::2]
    ys = outline[1::2]
    corners = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in corners)) / 2


def fits(outline: Any, box: Any, size: Size | None) -> bool:
    """Whether something is an outline of numbers as they should be, and may be that of a box."""
    try:
        around = bounds(checked(outline, size))
    except BrokenRow:
        return False
    return may_be_around(around, box_of(box), size)


def may_be_around(around: Bbox, box: Bbox, size: Size | None) -> bool:
    """Whether a box, and that around an outline, may be of one thing, by what is in the picture."""
    if size is not None:
        around = clamp(around, size)
        box = clamp(box, size)
    return iou(around, box) >= _FITS


def is_around(box: Bbox, outline: Sequence[float], size: Size) -> bool:
    """Whether a box is the upright one around an outline; only what is in the picture counts."""
    edges = zip(clamp(bounds(outline), size), clamp(box, size), strict=True)
    return all(abs(one - other) <= OTHER_BOX for one, other in edges)
