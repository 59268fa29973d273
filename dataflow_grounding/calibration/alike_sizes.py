"""Which sizes of pictures stand for others.

Where boxes are right in one, they are in those that are alike.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from dataflow_grounding.boxes.coordinates import Scale
from dataflow_grounding.boxes.geometry import Size

# of a side, by which a size may differ from one that was measured to be taken for the same
COVERED = 0.1
ALIKE = 3  # by how many times its area may, where numbers count parts of the side
MOST_OWN = 8  # probe pictures in a run's own sizes
EVEN_MORE = 24  # the same for a large run
FOR_EACH = 60  # pictures of a run, one probe picture more

Covers: TypeAlias = Callable[[Size, Iterable[Sequence[float]]], bool]
"""Whether one of the sizes that were measured stands for this size."""


def uncovered(
    sizes: Sequence[Size], measured: Sequence[Sequence[float]], covers: Covers, most: int = MOST_OWN
) -> list[Size]:
    """Return those of a run's `sizes` that stand for the ones which none `measured` covers.

    Sizes are as sent, the commonest first. Up to `most`, the largest and the smallest among them.
    """
    left = [size for size in dict.fromkeys(sizes) if not covers(size, measured)]
    by_area = sorted(left, key=math.prod)
    chosen: list[Size] = []
    for size in dict.fromkeys([*by_area[-1:], *by_area[:1], *left]):
        if len(chosen) < most and not covers(size, chosen):
            chosen.append(size)
    return chosen


def most_own(pictures: int) -> int:
    """How many probe pictures in its own sizes a run of so many pictures takes at the most."""
    return min(EVEN_MORE, MOST_OWN + pictures // FOR_EACH)


def covers_for(scale: Scale) -> Covers:
    """When a size stands for another, where boxes are written in this scale."""
    return is_covered if scale == "px" else is_alike


def is_alike(size: Size, measured: Iterable[Sequence[float]]) -> bool:
    """Whether a size of about this shape, and neither far larger nor far smaller, was measured.

    For numbers that count parts of the side: resizing doesn't change them, but padding and cropping
    do, which go by the shape, and so do servers that treat small or large pictures in a way of
    their own.
    """
    for known in measured:
        across = size[0] / known[0]
        down = size[1] / known[1]
        if _is_near_one(across / down) and 1 / ALIKE <= across * down <= ALIKE:
            return True
    return False


def is_covered(size: Size, measured: Iterable[Sequence[float]]) -> bool:
    """Whether a size was measured that is alike in both sides, in shape and in area.

    For numbers that count pixels: a side, the area and the shape are all that rules of resizing go
    by. Sides that differ by a tenth each in opposite ways make another shape, and in the same way
    another area.
    """
    for known in measured:
        across = size[0] / known[0]
        down = size[1] / known[1]
        are_sides_near = _is_near_one(across) and _is_near_one(down)
        if are_sides_near and _is_near_one(across / down) and _is_near_one(across * down):
            return True
    return False


def _is_near_one(ratio: float) -> bool:
    return abs(ratio - 1) <= COVERED
