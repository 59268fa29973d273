"""Arithmetic of boxes: `(x1, y1, x2, y2)` in pixels, the origin at the image's top left corner.

x grows to the right and y downwards; sizes are (width, height).
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from statistics import median
from typing import TypeAlias

from dataflow_grounding.data.expressions import Bbox as Bbox
from dataflow_grounding.data.expressions import Instance

Size: TypeAlias = tuple[int, int]

COCO_SIZES = {"small": "small, < 32² px", "medium": "medium, < 96² px", "large": "large"}
"""What COCO calls boxes by their area, and the same with the bounds."""
_COCO_BOUNDS = (32**2, 96**2)  # square pixels from which a box is medium, and large
# Boxes with this IoU or more look like one. Those of two things, even in a crowd, hardly ever come
# so close.
MERGE_IOU = 0.9

LEAST_SIDE_SHARE = 0.07
"""Where boxes are compared, a side counts as at least this share of the image's longer side.

A model errs by a share of the picture, however small the thing is: it sees it in patches of 1 to 3%
of its side. At IoU 0.5, sides of 7% let two answers differ by 2.3% along one side, or 1.3% along
both.
"""


def box_of(numbers: Sequence[float]) -> Bbox:
    """Return four numbers as a box. Raises ValueError for any other count."""
    x1, y1, x2, y2 = numbers
    return x1, y1, x2, y2


def size_text(size: Size) -> str:
    """Return a size for messages: 640x480."""
    return f"{size[0]}x{size[1]}"


def area(bbox: Bbox) -> float:
    """Return the area in square pixels; 0 when the corners are the wrong way round.

    Example:
        >>> area((0, 0, 10, 5)), area((10, 5, 0, 0))
        (50, 0.0)
    """
    width = bbox[2] - bbox[0]
    height = bbox[3] - bbox[1]
    if width <= 0 or height <= 0:  # also where the other side is infinite
        return 0.0
    return width * height


def coco_size(square_pixels: float) -> str:
    """Return what COCO calls boxes of that area: `small`, `medium` or `large`."""
    return [*COCO_SIZES][bisect_right(_COCO_BOUNDS, square_pixels)]


def intersection(a: Bbox, b: Bbox) -> Bbox:
    """Return the part that both boxes cover; where they don't meet it has no area."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def around(boxes: Sequence[Bbox]) -> Bbox:
    """Return the smallest box that holds them all. Raises ValueError for none."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def iou(a: Bbox, b: Bbox) -> float:
    """Return intersection over union, in [0, 1]; 0 when neither box has an area."""
    shared = area(intersection(a, b))
    covered = area(a) + area(b) - shared
    return min(1.0, shared / covered) if covered > 0 else 0.0


def median_box(boxes: Sequence[Bbox]) -> Bbox:
    """Return the box whose edges are the medians of those of boxes. Raises ValueError for none."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return median(lefts), median(tops), median(rights), median(bottoms)


def enlarged_to(bbox: Bbox, least_side: float) -> Bbox:
    """Return the box, widened around its middle where a side is shorter than `least_side`."""
    x1, y1, x2, y2 = bbox
    margin_x = max(0.0, least_side - (x2 - x1)) / 2
    margin_y = max(0.0, least_side - (y2 - y1)) / 2
    return x1 - margin_x, y1 - margin_y, x2 + margin_x, y2 + margin_y


def nearest_pixels(bbox: Bbox) -> Bbox:
    """Return the edges as the nearest whole numbers; halves are rounded up."""
    x1, y1, x2, y2 = [math.floor(edge + 0.5) for edge in bbox]
    return x1, y1, x2, y2


def ordered(bbox: Bbox) -> Bbox:
    """Return the box with its corners sorted, so that x1 <= x2 and y1 <= y2."""
    if bbox[0] <= bbox[2] and bbox[1] <= bbox[3]:
        return bbox
    return (
        min(bbox[0], bbox[2]),
        min(bbox[1], bbox[3]),
        max(bbox[0], bbox[2]),
        max(bbox[1], bbox[3]),
    )


def clamp(bbox: Bbox, size: Size) -> Bbox:
    """Return the part of a box inside an image; corners that are the wrong way round stay so."""
    x1, y1, x2, y2 = bbox
    width, height = size
    if 0 <= x1 <= width and 0 <= y1 <= height and 0 <= x2 <= width and 0 <= y2 <= height:
        return x1, y1, x2, y2
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def whole_pixels(bbox: Bbox, size: Size) -> tuple[int, int, int, int]:
    """Round a box to whole pixels inside an image, at least 1 px each way, halves up. One outside
    is brought to the nearest edge. Raises ValueError for an image without pixels, or a coordinate
    that isn't finite.
    """
    x1, x2 = _whole_span(bbox[0], bbox[2], size[0])
    y1, y2 = _whole_span(bbox[1], bbox[3], size[1])
    return x1, y1, x2, y2


def _whole_span(low: float, high: float, length: int) -> tuple[int, int]:
    if length < 1 or not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"no whole pixels between {low} and {high} in a side of {length} px")
    first = math.floor(low + 0.5)
    first = min(max(first, 0), length - 1)  # a pixel is left for the end
    end = math.floor(high + 0.5)
    end = min(max(end, first + 1), length)
    return first, end


def without_duplicates(instances: Sequence[Instance], merge_iou: float | None) -> list[Instance]:
    """Return a phrase's instances in their order, each thing once (non-maximum suppression). Of
    instances that overlap by an IoU of `merge_iou`, the one with the highest score stays, of equal
    scores the first. With None, all stay.
    """
    if merge_iou is None or len(instances) < 2:
        return list(instances)
    boxes = [instance.bbox for instance in instances]
    scores = [-1.0 if instance.score is None else instance.score for instance in instances]
    best_first = sorted(range(len(boxes)), key=lambda index: -scores[index])
    indices = _indices_without_overlaps(boxes, best_first, merge_iou)
    return [instances[index] for index in indices]


def _indices_without_overlaps(
    boxes: Sequence[Bbox], best_first: Sequence[int], merge_iou: float
) -> list[int]:
    """The boxes that overlap no better one by `merge_iou`, in the order of the boxes."""
    # A thousand boxes would be half a million pairs. So a box is only compared with those whose
    # left edge is near its own, which are found by bisection.
    boxes_that_stay: list[tuple[float, int]] = []  # left edge and index of each, sorted
    for index in best_first:
        box = boxes[index]
        left, _, right, _ = box
        # A box that overlaps this one by `merge_iou` is at most 1 / merge_iou times as wide, so
        # that it begins at most `reach` to the left or right. The 1 px is for rounding.
        reach = abs(right - left) * (1 - merge_iou) / merge_iou + 1
        # Pairs of equal left edges are sorted by index: -1 is before all of them, inf after.
        first = bisect_left(boxes_that_stay, (left - reach, -1))
        end = bisect_right(boxes_that_stay, (left + reach, math.inf))
        near = [boxes[better] for _, better in boxes_that_stay[first:end]]
        # Equal boxes are asked for by themselves: without an area, their IoU is 0.
        is_same_thing = any(other == box or iou(box, other) >= merge_iou for other in near)
        if not is_same_thing:
            insort(boxes_that_stay, (left, index))
    return sorted(index for _, index in boxes_that_stay)
