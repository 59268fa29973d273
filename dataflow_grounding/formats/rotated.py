"""Rotated boxes: outlines of four corners that are a rectangle.

Tools state one as an upright box and a turn in degrees, clockwise as the picture is seen: about the
top left corner (Label Studio) or the middle (CVAT). Corners begin with the top left one of the box
before its turn, and go on clockwise. Sources: label_studio_sdk/converter/utils.py
(convert_annotation_to_yolo_obb); cvat's dataset_manager/formats/transformations.py
(RotatedBoxesToPolygons).
"""

import cmath
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.data.records import is_number
from dataflow_grounding.formats import outlines

_OFF = 0.1  # px: where a corner misses that of a rectangle by more, there is no rectangle
_DECIMALS = 6  # of a pixel
_DECIMALS_OF_DEGREES = 9  # by which a corner that is far away moves less than that
_FARTHEST = 1e9  # px: no picture has a number near it, and squares of larger ones may overflow
_MOST_DEGREES = 3600  # tools may count on after a full turn; many more turns are a damaged number


# What tools call an angle; none of these is read, as nothing says of what and in which unit it is.
_OTHER_ANGLES = ("angle", "theta", "rotate", "rotation_angle", "bbox_angle", "bbox_rotation")


def degrees_in(*holders: Any) -> float:
    """Return the `rotation` in degrees that an entry, or a part of it, states; 0 for none.

    Raises BrokenRow for an angle of another name, unless it is 0.
    """
    for holder in holders:
        if not isinstance(holder, Mapping):
            continue
        for name in _OTHER_ANGLES:
            angle = holder.get(name)
            if is_number(angle) and angle != 0:
                raise BrokenRow(f"{name!r} is {angle}, and only 'rotation' in degrees is read")
        degrees: Any = holder.get("rotation")
        if is_number(degrees) and degrees != 0:
            return float(degrees)
    return 0.0


class Rectangle(NamedTuple):
    """A rectangle: its middle, its sides before its turn, and degrees clockwise, from 0 to 360."""

    middle: complex  # x and y
    width: float
    height: float
    degrees: float

    def before_turn(self, *, about_middle: bool) -> Bbox:
        """Return the upright box that this was before a turn about its middle, or its corner."""
        sides = complex(self.width, self.height)
        start = self.middle - sides / 2 if about_middle else self.corners()[0]
        end = start + sides
        edges = (start.real, start.imag, end.real, end.imag)
        return box_of([round(edge, _DECIMALS) for edge in edges])

    def corners(self) -> list[complex]:
        # To multiply by `turn` turns a vector by the degrees, and to multiply by 1j turns it by 90:
        # clockwise, because y grows downwards.
        turn = cmath.rect(1, math.radians(self.degrees))
        along = self.width / 2 * turn
        across = self.height / 2 * turn * 1j
        return [
            self.middle - along - across,
            self.middle + along - across,
            self.middle + along + across,
            self.middle - along + across,
        ]


def turned(
    box: Bbox, degrees: Any, passed_over: Counter[str], *, about_middle: bool
) -> dict[str, Any]:
    """Return `bbox` and outline of a box that is turned about its middle or top left corner."""
    if not is_number(degrees) or abs(degrees) > _MOST_DEGREES:
        raise BrokenRow(f"the rotation {degrees!r:.40} should be degrees, from 0 to 360")
    x1, y1, x2, y2 = box
    has_area = x1 < x2 and y1 < y2 and all(map(math.isfinite, box))
    if not has_area or math.fmod(degrees, 360) == 0:
        return {"bbox": [*box]}
    corner_to_middle = complex(x2 - x1, y2 - y1) / 2
    if not about_middle:  # the corner stays, and the middle is turned about it
        corner_to_middle *= cmath.rect(1, math.radians(degrees))
    rectangle = Rectangle(complex(x1, y1) + corner_to_middle, x2 - x1, y2 - y1, degrees)
    outline = []
    for corner in rectangle.corners():
        outline += [round(corner.real, _DECIMALS), round(corner.imag, _DECIMALS)]
    passed_over["rotated boxes, of which the upright box around and the corners are read"] += 1
    return {"bbox": [*outlines.bounds(outline)], outlines.KEY: outline}


def of_corners(corners: list[float], size: Size) -> tuple[list[float], list[float] | None]:
    """Return the box of four corners, and them as the outline unless they are an upright box."""
    x1, y1, x2, y2 = outlines.bounds(corners)
    if x1 == x2 or y1 == y2:  # an import leaves out boxes without an area, and counts them
        return [x1, y1, x2, y2], None
    first, *others = _points(corners)
    # Twice the areas of the triangles of the first corner and two others: 0 for three on one line.
    areas = [abs(_cross(one - first, other - first)) for one, other in combinations(others, 2)]
    if max(areas) < _OFF**2:
        raise BrokenRow("its four corners are on one line")
    outlines.checked(corners, size)
    clockwise = [x1, y1, x2, y1, x2, y2, x1, y2]
    counter_clockwise = [x1, y1, x1, y2, x2, y2, x2, y1]
    is_upright = corners in (clockwise, counter_clockwise)
    return [x1, y1, x2, y2], None if is_upright else corners


def rotated_box_of(outline: Sequence[float]) -> Rectangle | None:
    """Return an outline as a rotated box; None where it is no rectangle, or isn't turned."""
    if len(outline) != 8 or max(map(abs, outline)) > _FARTHEST:
        return None
    first, second, third, fourth = _points(outline)
    if _cross(second - first, third - first) < 0:  # counter-clockwise: now they go clockwise
        second, fourth = fourth, second
    clockwise = [first, second, third, fourth]
    rectangle = _nearest_rectangle(clockwise)
    pairs = zip(rectangle.corners(), clockwise, strict=True)
    is_near = all(abs(corner - stated) <= _OFF for corner, stated in pairs)
    has_area = min(rectangle.width, rectangle.height) > _OFF
    is_turned = rectangle.degrees != 0
    if is_near and has_area and is_turned:
        return rectangle
    return None


def _nearest_rectangle(clockwise: Sequence[complex]) -> Rectangle:
    first, second, third, fourth = clockwise
    # Numbers were rounded, so that two opposite sides may differ a little: their mean counts.
    along = (second - first + third - fourth) / 2  # x and y of the top side, from left to right
    across = (fourth - first + third - second) / 2  # of the left side, downwards
    # Turned back by 90 degrees, `across` has the direction of `along`. The longer of the two counts
    # more for the sum, because rounding changes its direction less.
    direction = along - across * 1j
    degrees = round(math.degrees(cmath.phase(direction)), _DECIMALS_OF_DEGREES) % 360
    middle = (first + second + third + fourth) / 4
    return Rectangle(middle, abs(along), abs(across), degrees)


def smallest_around(outline: Sequence[float]) -> list[float]:
    """Return the corners of the smallest rectangle around an outline, as ultralytics takes it."""
    import cv2  # takes a tenth of a second, and few exports have other outlines
    import numpy

    points = numpy.array(outline, numpy.float32).reshape(-1, 2)
    corners: list[float] = cv2.boxPoints(cv2.minAreaRect(points)).flatten().tolist()
    return corners


def _points(outline: Sequence[float]) -> list[complex]:
    return [complex(x, y) for x, y in outlines.points_of(outline)]


def _cross(one: complex, other: complex) -> float:
    """Above 0 where the way from one to the other is clockwise, because y grows downwards."""
    return one.real * other.imag - one.imag * other.real
