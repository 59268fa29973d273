"""In which pixels a model counts.

The size at which it saw each probe picture is fitted freely, with no rule of resizing assumed.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dataflow_grounding.boxes.coordinates import BoxFormat, Order, frame_of, to_xyxy
from dataflow_grounding.boxes.geometry import Size, ordered
from dataflow_grounding.calibration.probes import PicturesDisagree, ProbedPicture, by

Array: TypeAlias = NDArray[np.float64]

UNEVEN = 0.04  # how differently x and y may be scaled
ROUNDED_PX = 32  # what rounding to multiples does to a side
LEAST_ANSWERS = 4  # boxes in a picture, without which nothing is told from it
LEAST_EDGES = 6  # edges that have to lie on a line
# edges further out are left out: models write no numbers beyond the picture, which pulls their
# mean in
BORDER = 0.99
OFF = 0.006  # by which models that count in parts of the side may be off throughout a picture
ONCE_OFF = 0.02  # by which one scale or shift may be
SURELY_OFF = 2.5  # measuring errors beyond that
MOST_OFF = 2.0  # chi-squared for each scale and shift, from which on they are off by more
SYSTEMATIC = 0.003  # what models are off by beside chance, as a share of the side
ROUNDS = 6
UNTRIMMED = 1.15  # by how much the deviation is larger than that of the edges which are kept
MOST_SHOWN = 8  # pictures in a message


class Expected(NamedTuple):
    """How a SeenSize's `scale` and `shift` should turn out, for x and y each."""

    scale: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)


class Gap(NamedTuple):
    """How far a measured figure is from the expected one, and its standard error."""

    gap: float
    error: float

    def is_within(self, allowed: float, errors: float) -> bool:
        """Whether the gap is no larger than is allowed, beyond so many standard errors."""
        return abs(self.gap) <= allowed + errors * self.error

    def chi_squared(self, systematic: float) -> float:
        """The gap's square in standard errors, with an error that all figures share."""
        return (self.gap / math.hypot(self.error, systematic)) ** 2


@dataclass(frozen=True)
class SeenSize:
    """How large a model saw one picture, for x and y each.

    Attributes:
        sent: Width and height of the picture as sent.
        scale: Numbers for a pixel as sent.
        error: Standard error of `scale`, relative.
        shift: The number at the first edge, as a share of the side.
        shift_error: Standard error of `shift`.
    """

    sent: Size
    scale: tuple[float, float]
    error: tuple[float, float]
    shift: tuple[float, float]
    shift_error: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture as the model saw it."""
        return self.sent[0] * self.scale[0], self.sent[1] * self.scale[1]

    @property
    def reduced(self) -> float:
        """How much less the model saw than was sent: 0.5 for half the width and height."""
        return math.sqrt(self.scale[0] * self.scale[1])

    @property
    def reduced_error(self) -> float:
        """Standard error of `reduced`, relative."""
        return math.hypot(*self.error) / 2

    def scale_gaps(self, expected: Expected) -> list[Gap]:
        """How far the scales are from those expected, as a share of them."""
        across = Gap(self.scale[0] / expected.scale[0] - 1, self.error[0])
        down = Gap(self.scale[1] / expected.scale[1] - 1, self.error[1])
        return [across, down]

    def shift_gaps(self, expected: Expected) -> list[Gap]:
        """How far the shifts are from those expected, as shares of the side."""
        across = Gap(self.shift[0] - expected.shift[0], self.shift_error[0])
        down = Gap(self.shift[1] - expected.shift[1], self.shift_error[1])
        return [across, down]

    def is_as_expected(self, expected: Expected, within: float) -> bool:
        """Whether the scales are those expected, and numbers begin at the first edge.

        `within` is the share of the side that they may be off by, beyond errors of measuring.
        """
        gaps = self.scale_gaps(expected)
        starts = self.shift_gaps(Expected(expected.scale))
        if not all(gap.is_within(within, 3) for gap in gaps + starts):
            return False
        mean = (gaps[0].gap + gaps[1].gap) / 2
        return Gap(mean, self.reduced_error).is_within(within, 3)


class Line(NamedTuple):
    """Numbers along one axis, as a line over the true edges.

    Attributes:
        scale: Numbers for a pixel, for a line through 0; `error` is its standard error, relative.
        shift: Where the line starts if it needn't go through 0, as a share of the side.
    """

    scale: float
    error: float
    shift: float
    shift_error: float


class AnsweredBoxes(NamedTuple):
    """A picture's boxes as they were answered, and as they were asked for.

    Attributes:
        written: x1, y1, x2, y2 in the numbers of the answers, lower ones first, (n, 4).
        asked: The same in pixels of the picture.
    """

    written: Array
    asked: Array


def answered_boxes(picture: ProbedPicture, order: Order) -> AnsweredBoxes | None:
    """The boxes of a picture, if answered in an order; None where there are too few."""
    answers = [answer for answer in picture.answers if len(answer.numbers) == 4]
    if len(answers) < LEAST_ANSWERS:
        return None
    corners = [ordered(to_xyxy(answer.numbers, answer.order or order)) for answer in answers]
    asked = [answer.asked for answer in answers]
    return AnsweredBoxes(np.array(corners), np.array(asked, dtype=float))


def sent_sizes(pictures: Iterable[SeenSize | ProbedPicture]) -> list[Size]:
    """The sizes in which pictures were sent."""
    return [picture.sent for picture in pictures]


def seen(picture: ProbedPicture, order: Order, frame: str) -> SeenSize | None:
    """A picture's size as its answers count it; None where too few boxes were answered."""
    boxes = answered_boxes(picture, order)
    if boxes is None:
        return None
    written, asked = boxes
    canvas = frame_of(frame, picture.sent)
    starts = (canvas.left, canvas.top)
    sides = (canvas.image_width, canvas.image_height)
    lines = []
    for axis in (0, 1):
        reduced = picture.sent[axis] / picture.size[axis]
        true = asked[:, axis::2].ravel() * reduced + starts[axis]
        line = _line(true, written[:, axis::2].ravel(), starts[axis] + sides[axis])
        if line is None:
            return None
        lines.append(line)
    x, y = lines
    return SeenSize(
        picture.sent,
        scale=(x.scale, y.scale),
        error=(x.error, y.error),
        shift=(x.shift, y.shift),
        shift_error=(x.shift_error, y.shift_error),
    )


def measured_in(pictures: Sequence[ProbedPicture], order: Order, frame: str) -> list[SeenSize]:
    """What was seen of each picture for which that can be told."""
    sizes = [seen(picture, order, frame) for picture in pictures]
    return [size for size in sizes if size is not None]


def _line(true: Array, written: Array, far: float) -> Line | None:
    """The robust line of written numbers over true edges; None where there is none.

    `far` is the far edge's place, in the pixels of `true`.
    """
    inner = true < BORDER * far
    true, written = true[inner], written[inner]
    # Ratios say little near 0.
    scale = float(np.median(written[true > 0.2 * far] / true[true > 0.2 * far]))
    if not scale > 0:
        return None
    kept = np.ones(len(true), dtype=bool)
    for _ in range(ROUNDS):
        off = np.abs(written - scale * true)
        limit = 3 * max(1.4826 * float(np.median(off)), 0.002 * scale * far)
        kept = off <= limit
        scale = float((written[kept] * true[kept]).sum() / (true[kept] ** 2).sum())
    if kept.sum() < LEAST_EDGES or not scale > 0:
        return None
    x, y = true[kept] / far, written[kept] / (scale * far)
    spread = x - x.mean()
    slope = float((spread * y).sum() / (spread**2).sum())
    shift = float(y.mean()) - slope * float(x.mean())
    left = float(((y - shift - slope * x) ** 2).sum())  # a shift that is there is no noise
    noise = max(UNTRIMMED * math.sqrt(left / (len(x) - 2)), 0.001)
    shift_error = noise * math.sqrt(1 / len(x) + float(x.mean()) ** 2 / float((spread**2).sum()))
    return Line(scale, noise / math.sqrt(float((x**2).sum())), shift, shift_error)


def pooled(measured: Sequence[SeenSize], expected: Callable[[Size], Expected]) -> Gap:
    """How far these pictures' scales are on average from what is `expected` for a size."""
    gaps: list[Gap] = []
    for picture in measured:
        gaps += picture.scale_gaps(expected(picture.sent))
    mean, weight = _weighted_mean(gaps)
    return Gap(mean, 1 / math.sqrt(weight))


def _weighted_mean(values_and_errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of values with standard errors, and its weight: one over its error's square."""
    weight = sum(1 / error**2 for _, error in values_and_errors)
    total = sum(value / error**2 for value, error in values_and_errors)
    return total / weight, weight


def check_even(measured: Sequence[SeenSize], frame: str | None = None) -> None:
    """Raises NoFit if x and y of one picture count differently.

    They count pixels or, with a `frame`, parts of its sides. A model that should count pixels may
    count parts of the side. Three measuring errors are allowed for.
    """
    if frame is None and constant_side(measured, "sent"):
        return
    for picture in measured:
        width, height = picture.sent if frame == "sent" else (1, 1)  # a square's sides are alike
        ratio = picture.scale[0] * width / (picture.scale[1] * height)
        allowed = UNEVEN
        if frame is None:
            allowed += ROUNDED_PX / min(picture.size)
        if abs(math.log(ratio)) - 3 * math.hypot(*picture.error) > allowed:
            raise PicturesDisagree(
                f"the pictures disagree: x and y of {by(picture.sent)} px count differently"
                f" ({sizes_in_words(measured)})"
            )


def check_whole(measured: Sequence[SeenSize], known: BoxFormat) -> None:
    """Raises NoFit where numbers don't run from 0 to the format's scale over the frame's sides.

    Then pictures lie in larger ones, of other shapes than the frame says.
    """
    total = 0.0
    for picture in measured:
        canvas = frame_of(known.frame, picture.sent)
        across = picture.scale[0] * canvas.width / float(known.scale) - 1
        down = picture.scale[1] * canvas.height / float(known.scale) - 1
        gaps = [Gap(across, picture.error[0]), Gap(down, picture.error[1])]
        gaps += picture.shift_gaps(Expected(picture.scale))
        total += sum(gap.chi_squared(OFF) for gap in gaps)
        # A server that pads to multiples moves boxes in some shapes alone: on average that is
        # little.
        if not all(gap.is_within(ONCE_OFF, SURELY_OFF) for gap in gaps):
            raise PicturesDisagree(
                f"the pictures disagree: {known.name} is off in those like {by(picture.sent)} px"
                f" ({sizes_in_words(measured)})"
            )
    if total > MOST_OFF * 4 * len(measured):
        raise PicturesDisagree(
            f"the pictures disagree: {known.name} is off by more in some of them"
            f" ({sizes_in_words(measured)})"
        )


class ConstantSide(NamedTuple):
    """The number that means the side of every picture, and the frame whose side it is."""

    number: int
    frame: str


def constant_side(measured: Sequence[SeenSize], frame: str) -> ConstantSide | None:
    """The number that means the side of every picture, if the model counts so and not in pixels."""
    if not measured:
        return None
    # Padding at the right and below doesn't move a pixel: numbers that seem to count pixels as
    # sent may be parts of such a square's side.
    frames = ["sent", "pad_square_corner"] if frame == "sent" else [frame]
    for name in frames:
        sides: list[tuple[float, float]] = []  # in numbers, and the standard error
        for picture in measured:
            for axis in (0, 1):
                length = picture.sent[axis] if name == "sent" else max(picture.sent)
                sides.append((picture.scale[axis] * length, picture.error[axis]))
        mean, _ = _weighted_mean(sides)
        spread = sum(Gap(side / mean - 1, error).chi_squared(SYSTEMATIC) for side, error in sides)
        if is_by_chance(spread, len(sides)):
            return ConstantSide(round(mean), name)
    return None


def is_by_chance(chi_squared: float, terms: int) -> bool:
    """Whether chance explains a sum of so many squares in standard errors."""
    return chi_squared <= terms + 5 * math.sqrt(2 * terms)


def sizes_in_words(measured: Sequence[SeenSize]) -> str:
    """The sizes as sent and as seen, in words: the largest ones, where there are many."""
    by_area = sorted(measured, key=lambda picture: math.prod(picture.sent), reverse=True)
    parts = []
    for picture in by_area[:MOST_SHOWN]:
        width, height = picture.size
        parts.append(f"{by(picture.sent)} seen as {width:.0f}x{height:.0f}")
    return "; ".join(parts)
