"""Masks of boxes: the column `segmentation` of an instance, in pixels of the upright picture.

It is a list of polygons, each x1, y1, x2, y2 and so on; or COCO's RLE: `size` is height and width,
`counts` the lengths of runs down the columns, outside and inside in turn, as a list or as COCO's
text. Both are what COCO has, and neither is ever made of the other, which would lose something.
Source: pycocotools' maskApi.c.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, intersection
from dataflow_grounding.boxes.rle import MOST_PIXELS, check_rle, rle_of, runs_of
from dataflow_grounding.data.bad_entries import BadEntries, count_with_first
from dataflow_grounding.data.records import dump_text, is_number

if TYPE_CHECKING:
    from dataflow_grounding.boxes.rle import Pixels

KEY = "segmentation"
STALE = "masks that don't fit their box"
UNREADABLE = "masks of no use"
SEVERAL = "masks of several polygons"
NO_POLYGON = "masks that are no polygon"


def is_polygons(mask: Any) -> bool:
    """Whether a mask is a list of polygons, and no RLE."""
    return isinstance(mask, list)


def checked(mask: Any, size: Size | None) -> Any:
    """Return a mask as it is. Raises BrokenRow with what is wrong with it.

    `size` is the picture's width and height, None where it isn't known.
    """
    if isinstance(mask, Mapping):
        check_rle(mask, size)
        return mask
    if not isinstance(mask, list) or not mask:
        raise BrokenRow("a mask should be polygons, or an object with counts and size")
    for polygon in mask:
        _check_polygon(polygon)
    if size is not None and area(intersection(bounds(mask), (0, 0, *size))) <= 0:
        raise BrokenRow("the polygon is outside of its picture")
    return mask


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list) or not all(map(is_number, polygon)):
        raise BrokenRow("a polygon should be a list of numbers, x and y in turn")
    if len(polygon) < 6 or len(polygon) % 2:
        raise BrokenRow(f"a polygon of {len(polygon)} numbers: three points or more have 6, 8 …")


def bounds(mask: Any) -> Bbox:
    """Return the box around a checked mask."""
    if is_polygons(mask):
        xs = [x for polygon in mask for x in polygon[::2]]
        ys = [y for polygon in mask for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    height = mask["size"][0]
    columns: list[int] = []
    rows: list[int] = []
    for start, end in _spans_inside(runs_of(mask)):
        columns += (start // height, (end - 1) // height)
        goes_on = columns[-2] != columns[-1]  # over the end of a column
        rows += (0, height - 1) if goes_on else (start % height, (end - 1) % height)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def _spans_inside(runs: Sequence[int]) -> list[tuple[int, int]]:
    ends = [*accumulate(runs)]
    spans = zip(ends[0::2], ends[1::2], strict=False)
    return [(start, end) for start, end in spans if start < end]


def square_pixels(mask: Any) -> float:
    """Return the area of a checked mask; parts that two of its polygons share count twice."""
    if not is_polygons(mask):
        return sum(runs_of(mask)[1::2])
    return sum(map(_area_of_polygon, mask))


def _area_of_polygon(polygon: Sequence[float]) -> float:
    xs = polygon[::2]
    ys = polygon[1::2]
    corners = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in corners)) / 2


def in_picture(part: "Pixels", left: int, top: int, size: Size) -> dict[str, Any]:
    """Return the RLE of a mask that is stated for a part of its picture.

    Raises BrokenRow where the part isn't within the picture, or has no pixel.
    """
    import numpy as np

    height, width = part.shape
    check_part(left, top, (width, height), size)
    if not part.any():
        raise BrokenRow("the mask has no pixel")
    whole = np.zeros((size[1], size[0]), dtype=bool)
    whole[top : top + height, left : left + width] = part
    return rle_of(whole)


def check_part(left: int, top: int, sides: Size, size: Size) -> None:
    """Raise BrokenRow where a part, of `sides`, isn't in its picture, or that is too large."""
    if size[0] * size[1] > MOST_PIXELS:
        raise BrokenRow(f"the mask is of a picture of more than {MOST_PIXELS:,} px")
    if not (0 <= left <= size[0] - sides[0] and 0 <= top <= size[1] - sides[1]):
        raise BrokenRow("the mask reaches out of its picture")


def digest(mask: Any) -> str:
    """Return a short digest of a mask."""
    return hashlib.blake2b(dump_text(mask).encode(), digest_size=8).hexdigest()


def without(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a box without its mask."""
    return {name: value for name, value in instance.items() if name != KEY}


def usable(
    mask: Any, box: Any, size: Size | None, where: str, passed_over: Counter[str]
) -> dict[str, Any]:
    """Return an object with `segmentation` of a file's mask; empty if the mask is useless.

    A mask that is wrong, or doesn't meet its box, is counted. `box` is None if the file has none.
    """
    try:
        checked(mask, size)
        if box is not None and area(intersection(bounds(mask), box_of(box))) <= 0:
            raise BrokenRow("the mask is outside of its box")
    except BrokenRow as error:
        count_unusable(passed_over, where, error)
        return {}
    return {KEY: mask}


def count_unusable(passed_over: Counter[str], where: str, why: object) -> None:
    """Count a useless mask; the report on all of them names the first."""
    count_with_first(passed_over, UNREADABLE, f"{where}: {why}")


def lose_object(bad: BadEntries, where: str, why: Exception) -> None:
    """Take in that an object is left out because its mask, which is all it has, is useless."""
    said = f"no {why} in it" if isinstance(why, KeyError) else str(why)
    bad.note_object(f"{where}: the mask is of no use ({said})")
