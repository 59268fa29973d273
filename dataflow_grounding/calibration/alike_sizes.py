"""Which picture sizes stand for others, so that not every size has to be tried.

Where a model's boxes are right in one size, they are taken to be right in sizes alike. How alike
depends on what its numbers count: see `is_alike` for parts of the side, `is_covered` for pixels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from dataflow_grounding.boxes.coordinates import Scale
from dataflow_grounding.boxes.geometry import Size

# How far the ratio of two sides, areas or aspects may be from 1 for them to count as the same.
COVERED = 0.1
ALIKE = 3  # how many times as large one area may be, where numbers count parts of the side
MOST_OWN = 8  # the most probe pictures in a run's own sizes that a small run asks for
EVEN_MORE = 24  # the same for a run of any size
FOR_EACH = 60  # the number of pictures in a run for which it may ask for one more

Covers: TypeAlias = Callable[[Size, Iterable[Sequence[float]]], bool]
"""Whether one of the sizes that were measured stands for this size."""


def uncovered(
    sizes: Sequence[Size], measured: Sequence[Sequence[float]], covers: Covers, most: int = MOST_OWN
) -> list[Size]:
    """Choose few of a run's sizes to try, so that they cover those that nothing measured covers.

    The largest area is chosen first, then the smallest, then the others in their order; a size is
    left out where one that was chosen before covers it.

    Args:
        sizes: Width and height in pixels of pictures as sent, the commonest first.
        measured: The sizes that were tried before: each a width and a height.
        covers: Whether a size is covered by any of some others: `is_alike` or `is_covered`.
        most: How many sizes are chosen at the most.
    """
    not_covered = [size for size in dict.fromkeys(sizes) if not covers(size, measured)]
    by_area = sorted(not_covered, key=math.prod)
    largest = by_area[-1:]
    smallest = by_area[:1]
    chosen: list[Size] = []
    for size in dict.fromkeys([*largest, *smallest, *not_covered]):
        if len(chosen) < most and not covers(size, chosen):
            chosen.append(size)
    return chosen


def most_own(pictures: int) -> int:
    """Return how many probe pictures in its own sizes a run of this many pictures may ask for."""
    return min(EVEN_MORE, MOST_OWN + pictures // FOR_EACH)


def covers_for(scale: Scale) -> Covers:
    """Return the test by which sizes stand for others, where boxes are written in this scale."""
    return is_covered if scale == "px" else is_alike


def is_alike(size: Size, measured: Iterable[Sequence[float]]) -> bool:
    """Whether a size of about this shape, and of an area not too different, was measured.

    The larger area may be ALIKE times the smaller one.

    This is the test for numbers that count parts of the side. Resizing a picture doesn't change
    such numbers. Padding and cropping do, and these depend on the shape; and some servers treat
    small or large pictures in a way of their own.
    """
    for width, height in measured:
        width_ratio = size[0] / width
        height_ratio = size[1] / height
        is_same_shape = _is_near_one(width_ratio / height_ratio)
        if is_same_shape and 1 / ALIKE <= width_ratio * height_ratio <= ALIKE:
            return True
    return False


def is_covered(size: Size, measured: Iterable[Sequence[float]]) -> bool:
    """Whether a size was measured that is alike in both sides, in shape and in area.

    This is the test for numbers that count pixels: rules by which servers resize pictures go by a
    side, the area or the shape. All three have to be alike. Two sides that are each within a tenth
    may still make another shape (one longer, one shorter) or another area (both longer).
    """
    for width, height in measured:
        width_ratio = size[0] / width
        height_ratio = size[1] / height
        are_sides_near = _is_near_one(width_ratio) and _is_near_one(height_ratio)
        is_same_shape = _is_near_one(width_ratio / height_ratio)
        is_same_area = _is_near_one(width_ratio * height_ratio)
        if are_sides_near and is_same_shape and is_same_area:
            return True
    return False


def _is_near_one(ratio: float) -> bool:
    """Whether a ratio is within COVERED of 1."""
    return abs(ratio - 1) <= COVERED
