"""The formats that a reply's numbers may be in, and the box that they mean in each.

Each format is a `FormatReading`.

To compare formats, a density of the box's figures is turned into one of the numbers as written, by
the determinant of that change of variables; Meaning.log_scale is its logarithm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.watch._box_statistics import LEAST_SIDE, BoxShape

LONGEST_SIDE = 1e6  # in parts of the picture's: hostile numbers may be any
NEARLY_IN_RANGE = 1.13  # times a format's highest number: what a reply in it may still hold
ALIKE = {999: 1000, 1024: 1000}  # scales that a reply's numbers don't tell from another
TRANSPOSED: dict[Order, Order] = {"xyxy": "yxyx", "yxyx": "xyxy"}  # orders, with x and y swapped


class SeenBox(NamedTuple):
    """A box as a reply wrote it.

    Attributes:
        numbers: Its four numbers, in the reply's order.
        order: The order, where the reply names the coordinates; None where only the format says it.
        phrase: The phrase that the reply gives the box to.
    """

    numbers: Bbox
    order: Order | None
    phrase: str


def largest_of(boxes: Sequence[SeenBox]) -> float:
    """Return the largest number in all boxes; minus infinity without any."""
    return max((max(box.numbers) for box in boxes), default=-math.inf)


def indices_by_phrase(boxes: Sequence[SeenBox]) -> dict[str, list[int]]:
    """Return, for each phrase that has boxes, their indices, in the order of first boxes."""
    indices: dict[str, list[int]] = {}
    for index, box in enumerate(boxes):
        indices.setdefault(box.phrase, []).append(index)
    return indices


class Sent(NamedTuple):
    """A picture as it was sent.

    Attributes:
        size: Its width and height in pixels.
        across: The part of the width that the picture itself takes; the rest is padding.
        down: The part of the height that it takes.
    """

    size: Size
    across: float = 1.0
    down: float = 1.0


class Meaning(NamedTuple):
    """What a box's numbers mean in one format.

    Attributes:
        corners: x1, y1, x2, y2 in parts of the picture's sides, the lower number first.
        box: The same as it is compared with other boxes.
        log_scale: What is added to the logarithm of a density over BoxShape's figures, to make it
            one over the numbers as written, which can be compared between formats.
    """

    corners: Bbox
    box: BoxShape
    log_scale: float


class View(NamedTuple):
    """A picture as the numbers of one format see it, worked out once for all boxes in it.

    Attributes:
        width: The number that stands for the whole width, padding included.
        height: The number that stands for the whole height.
        across: The part of the width that isn't padding.
        down: The part of the height that isn't padding.
        log_area: The logarithm of width times height.
        log_part: Half the logarithm of the part of the area that isn't padding.
        log_aspect: The logarithm of width over height, in pixels, of what the numbers refer to.
    """

    width: float
    height: float
    across: float
    down: float
    log_area: float
    log_part: float
    log_aspect: float


class FormatReading:
    """One format in which a reply's numbers may be read."""

    def __init__(self, box_format: BoxFormat) -> None:
        self.format = box_format
        self.name = box_format.name
        # A run's pictures have few sizes, and every box of every reply is read in some six formats.
        self._view = lru_cache(maxsize=4096)(self._view_of)

    def _view_of(self, sent: Sent) -> View:
        """Work out how this format's numbers see a picture."""
        width, height = self.format.limits(sent.size)
        canvas = self.format.canvas(sent.size)
        return View(
            width,
            height,
            sent.across,
            sent.down,
            math.log(width * height),
            math.log(sent.across * sent.down) / 2,
            math.log(canvas.width / canvas.height),
        )

    def meaning_of(self, box: SeenBox, sent: Sent) -> Meaning:
        """Return what a box means in a picture, if it is read in this format.

        An order that the reply names goes before the format's.
        """
        corners, shape, log_scale = self.figures_of(box, sent)
        return Meaning(corners, BoxShape(*shape), log_scale)

    def figures_of(
        self, box: SeenBox, sent: Sent
    ) -> tuple[Bbox, tuple[float, float, float, float, float, int], float]:
        """Return the same as `meaning_of`, as plain tuples in the order of Meaning and BoxShape.

        Each box of each reply is read in some six formats, so that making the objects would be
        costly.
        """
        width, height, part_across, part_down, log_area, log_part, log_aspect = self._view(sent)
        numbers, order, _ = box
        order = order or self.format.order
        x1, y1, x2, y2 = numbers if order == "xyxy" else to_xyxy(numbers, order)
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
        across = _log_side(right - left)
        down = _log_side(bottom - top)
        size = (across + down) / 2
        beyond = 0.0
        if left < 0 or top < 0 or right > 1 or bottom > 1:
            beyond = max(-left, -top, right - 1, bottom - 1)
        shape = (
            (left + right) / 2 / part_across,
            (top + bottom) / 2 / part_down,
            size - log_part,
            across - down + log_aspect,
            beyond,
            turned,
        )
        return (left, top, right, bottom), shape, -2 * log_area - 2 * size

    def may_hold(self, largest: float, sent: Sent) -> bool:
        """Whether the largest number of a reply is within the format's range, or nearly."""
        view = self._view(sent)
        return largest <= NEARLY_IN_RANGE * max(view.width, view.height)


def _log_side(side: float) -> float:
    """Return the logarithm of a box's side, in parts of the picture's, kept within bounds.

    The side may be 0, or any number that a hostile reply has.
    """
    if side < LEAST_SIDE:
        side = LEAST_SIDE
    elif side > LONGEST_SIDE:
        side = LONGEST_SIDE
    return math.log(side)


def other_readings(asked: BoxFormat) -> list[FormatReading]:
    """Return the formats that may be mistaken for the one that was asked for.

    They are every other order at the same scale, and every other scale in the same order and, where
    it has corners, with x and y swapped; all in the same frame. Of scales that are ALIKE, only 1000
    is among them.
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
    return [FormatReading(find_box_format(name + frame, "")) for name in names]


@dataclass(frozen=True)
class JudgedReply:
    """One reply's boxes, read as asked, and how much more likely its numbers are in other formats.

    Attributes:
        boxes: The boxes as the reply wrote them.
        sent: The picture as it was sent.
        meanings: What each box means in the format that was asked for.
        ratios: For each other format, by name, the log-likelihood ratio to the one asked for.
        unknown: The same for a format that nobody knows, in which boxes may be anywhere.
        likeliest: The name of the format with the highest of the `ratios`; None where the numbers
            fit none.
    """

    boxes: Sequence[SeenBox]
    sent: Sent
    meanings: Sequence[Meaning]
    ratios: dict[str, float]
    unknown: float
    likeliest: str | None

    @property
    def ratio(self) -> float:
        """The highest of the ratios; minus infinity where the numbers fit no other format."""
        return self.ratios[self.likeliest] if self.likeliest else -math.inf
