"""The formats that a reply's numbers may be in, and the box that they mean in each."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, frame_of, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.watch._box_statistics import LEAST_SIDE, BoxShape

ALIKE = {999: 1000, 1024: 1000}  # scales that a reply's numbers don't tell from another
TRANSPOSED: dict[Order, Order] = {"xyxy": "yxyx", "yxyx": "xyxy"}


class SeenBox(NamedTuple):
    """A box as a reply wrote it.

    Attributes:
        numbers: Its four numbers, in the reply's order.
        order: The order that names of coordinates state; None where only the format says.
        phrase: What it is said to be the box of.
    """

    numbers: Bbox
    order: Order | None
    phrase: str


def largest_of(boxes: Sequence[SeenBox]) -> float:
    """The largest number of all boxes; minus infinity without any."""
    return max((max(box.numbers) for box in boxes), default=-math.inf)


def indices_by_phrase(boxes: Sequence[SeenBox]) -> dict[str, list[int]]:
    """Which of the boxes are of each phrase."""
    indices: dict[str, list[int]] = {}
    for index, box in enumerate(boxes):
        indices.setdefault(box.phrase, []).append(index)
    return indices


class Sent(NamedTuple):
    """A picture as it was sent.

    Attributes:
        size: Its width and height in pixels.
        across, down: The part of the width and of the height that the picture itself takes, the
            rest being padding.
    """

    size: Size
    across: float = 1.0
    down: float = 1.0


class Meaning(NamedTuple):
    """What a box's numbers mean in one format.

    Attributes:
        corners: x1, y1, x2, y2 in parts of the picture's sides, the lower number first.
        box: The same as it is compared with other boxes.
        log_scale: The logarithm of how much area of numbers one of BoxShape's figures stands for:
            what turns a density of these into one of the numbers, which can be compared between
            formats.
    """

    corners: Bbox
    box: BoxShape
    log_scale: float


class Reading:
    """One format in which a reply's numbers may be read."""

    def __init__(self, box_format: BoxFormat) -> None:
        self.format = box_format
        self.name = box_format.name
        self._limits = lru_cache(maxsize=4096)(box_format.limits)
        self._aspect = lru_cache(maxsize=4096)(self._log_aspect)

    def of(self, box: SeenBox, sent: Sent) -> Meaning:
        """What a box means in a picture."""
        width, height = self._limits(sent.size)
        x1, y1, x2, y2 = to_xyxy(box.numbers, box.order or self.format.order)
        turned = 0
        if x1 > x2:
            x1, x2 = x2, x1
            turned += 1
        if y1 > y2:
            y1, y2 = y2, y1
            turned += 1
        left = x1 / width
        right = x2 / width
        top = y1 / height
        bottom = y2 / height
        across = math.log(min(max(right - left, LEAST_SIDE), 1e6))
        down = math.log(min(max(bottom - top, LEAST_SIDE), 1e6))
        size = (across + down) / 2
        shape = BoxShape(
            (left + right) / 2 / sent.across,
            (top + bottom) / 2 / sent.down,
            size - math.log(sent.across * sent.down) / 2,
            across - down + self._aspect(sent.size),
            max(-left, -top, right - 1, bottom - 1, 0.0),
            turned,
        )
        return Meaning((left, top, right, bottom), shape, -2 * math.log(width * height) - 2 * size)

    def may_hold(self, largest: float, sent: Sent) -> bool:
        """Whether the largest of all numbers is within the format's range, or nearly."""
        return largest <= 1.13 * max(self._limits(sent.size))

    def _log_aspect(self, sent: Size) -> float:
        canvas = frame_of(self.format.frame, sent)
        return math.log(canvas.width / canvas.height)


def other_readings(asked: BoxFormat) -> list[Reading]:
    """The formats that may be taken for the one asked for.

    These are each other order at the same scale, each other scale in the same order, and with x and
    y swapped.
    """
    scale = asked.scale
    if isinstance(scale, int):
        scale = ALIKE.get(scale, scale)
    other_scales = [known for known in SCALES if known not in (scale, *ALIKE)]
    names = [f"{order}_{scale}" for order in ORDERS if order != asked.order]
    names += [f"{asked.order}_{other_scale}" for other_scale in other_scales]
    if asked.order in TRANSPOSED:
        transposed = TRANSPOSED[asked.order]
        names += [f"{transposed}_{other_scale}" for other_scale in other_scales]
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    return [Reading(find_box_format(name + frame, "")) for name in names]
