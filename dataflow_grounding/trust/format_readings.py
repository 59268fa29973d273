"""The formats in which a reply's numbers may be read: the one asked for, and those like it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import (
    ORDERS,
    SCALES,
    BoxFormat,
    Order,
    Scale,
    to_xyxy,
)
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size

OUTSIDE = 0.05  # parts of the side that noise puts an edge out of the picture
NEARLY = 1.13  # times a format's range: a reply with larger numbers isn't in it
ALIKE = {999: 1000, 1024: 1000}  # scales that a single reply can't tell from another
HALF = 500  # a range that no model is known to use: where boxes crowd in a quarter of the picture


class SeenBox(NamedTuple):
    """A box as a reply wrote it: its four numbers, the order if the reply names one, its phrase."""

    numbers: Bbox
    order: Order | None
    phrase: str


class Sent(NamedTuple):
    """A picture as sent: its size in pixels, and the parts of its sides that aren't padding."""

    size: Size
    across: float = 1.0
    down: float = 1.0


class View(NamedTuple):
    """What the numbers of a format mean in a picture: the range of each axis."""

    left: float
    top: float
    width: float
    height: float
    most: float  # the largest number that a reply may hold
    log_area: float  # the logarithm of the range's area


class FormatReading:
    """One format in which a reply's numbers may be read."""

    def __init__(
        self, box_format: BoxFormat, *, axis_by_axis: bool = False, only_together: bool = False
    ) -> None:
        self.only_together = only_together  # all replies of a run may be in it, but no single one
        self.format = box_format
        self.axis_by_axis = axis_by_axis  # boxes are x1, x2, y1, y2
        self.name = f"x1, x2, y1, y2 of {box_format.scale}" if axis_by_axis else box_format.name

    def view(self, sent: Sent) -> View:
        """Return what numbers mean in a picture, without its padding at right and bottom."""
        # The numbers refer to the picture that was sent or, where the format's frame says so, to
        # what a server makes of it.
        canvas = self.format.canvas(sent.size)
        x_numbers_per_pixel, y_numbers_per_pixel = 1.0, 1.0
        if self.format.scale != "px":  # numbers are parts of the whole canvas
            whole_x, whole_y = self.format.limits(sent.size)
            x_numbers_per_pixel = whole_x / canvas.width
            y_numbers_per_pixel = whole_y / canvas.height
        left = x_numbers_per_pixel * canvas.left
        top = y_numbers_per_pixel * canvas.top
        width = x_numbers_per_pixel * canvas.image_width * sent.across
        height = y_numbers_per_pixel * canvas.image_height * sent.down
        most = NEARLY * max(left + width, top + height)
        return View(left, top, width, height, most, math.log(width * height))

    def corners(self, box: SeenBox, view: View) -> Bbox:
        """Return a box's corners as written, in parts of the sides; they may be turned."""
        numbers, order, _ = box
        order = order or self.format.order
        if self.axis_by_axis:
            x1, x2, y1, y2 = numbers
        elif order == "xyxy":
            x1, y1, x2, y2 = numbers
        else:
            x1, y1, x2, y2 = to_xyxy(numbers, order)
        left, top, width, height, _, _ = view
        return (x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height

    def proper(self, boxes: Sequence[SeenBox], view: View) -> list[Bbox] | None:
        """Return all boxes' corners; None if one is turned, or further out than noise explains."""
        all_corners = []
        for box in boxes:
            corners = self.corners(box, view)
            x1, y1, x2, y2 = corners
            if x1 > x2 or y1 > y2 or not is_inside(corners):
                return None
            all_corners.append(corners)
        return all_corners


def is_inside(box: Bbox) -> bool:
    """Whether a box, in parts of the sides, is out of its picture by no more than noise."""
    x1, y1, x2, y2 = box
    return x1 >= -OUTSIDE and y1 >= -OUTSIDE and x2 <= 1 + OUTSIDE and y2 <= 1 + OUTSIDE


def other_readings(asked: BoxFormat) -> list[FormatReading]:
    """Return the formats that may be mistaken for the one asked for, all in its frame."""
    scale = asked.scale
    if isinstance(scale, int):
        scale = ALIKE.get(scale, scale)  # 999 and 1024 are read as 1000
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    readings = []
    for name in _names_like(asked.order, scale):
        readings.append(FormatReading(find_box_format(name + frame, model="")))
    # The same numbers in another sequence: x1, x2, y1, y2.
    readings.append(FormatReading(asked, axis_by_axis=True))
    if scale == 1000:
        half = find_box_format(f"{asked.order}_{HALF}{frame}", model="")
        readings.append(FormatReading(half, only_together=True))
    return readings


def _names_like(order: Order, scale: Scale) -> list[str]:
    # every other order at its scale: yxyx_1000 for xyxy_1000
    names = [f"{other}_{scale}" for other in ORDERS if other != order]
    # every other scale, in its order and with x and y swapped: xyxy_px and yxyx_px
    swapped: dict[Order, Order] = {"xyxy": "yxyx", "yxyx": "xyxy"}
    orders = [order]
    if order in swapped:
        orders.append(swapped[order])
    for other_scale in SCALES:
        if other_scale != scale and other_scale not in ALIKE:
            names += [f"{each}_{other_scale}" for each in orders]
    return names
