"""How large a model saw each probe picture, measured from the numbers that it wrote.

A server may resize a picture before the model sees it, and a model that counts pixels counts those
of the resized one. Along each axis, the written numbers are therefore a line over the true edges of
the rectangles. The slope of the line through 0 is how many numbers there are for a pixel as sent;
where a line of any start begins is the number at the picture's first edge. The lines are fitted by
least squares, with outliers left out; no rule of resizing is assumed. All tests here compare a
deviation with its standard error.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dataflow_grounding.boxes.coordinates import BoxFormat, Order, frame_of, to_xyxy
from dataflow_grounding.boxes.geometry import Size, ordered
from dataflow_grounding.calibration.probes import PicturesDisagree, ProbedPicture, size_text

Array: TypeAlias = NDArray[np.float64]

UNEVEN = 0.04  # how far the logarithm of x's scale over y's may be from 0
ROUNDED_PX = 32  # pixels by which rounding to multiples may change a side
# Standard errors by which a single figure may be off by chance.
CHANCE = 3
FIGURES = 4  # measured in each picture: a scale and a shift, of x and of y
LEAST_ANSWERS = 4  # fewer boxes in a picture tell nothing about its size
LEAST_EDGES = 6  # fewer edges near the line make no line
# Edges beyond this share of the side are left out: models write no numbers beyond the picture, so
# that errors there go inwards alone and pull the mean in.
BORDER = 0.99
OFF = 0.006  # share of the side that models counting parts of it are off by throughout a picture
ONCE_OFF = 0.02  # the most that a single scale or shift may be off
SURELY_OFF = 2.5  # standard errors that are allowed beyond that
MOST_OFF = 2.0  # mean chi-squared of all scales and shifts above which they are off by more
SYSTEMATIC = 0.003  # share of the side that models are off by beside chance
AWAY_FROM_0 = 0.2  # of the side, from which on ratios of numbers to edges tell the scale
ROUNDS = 6  # how often the line is fitted and outliers are left out anew
# Times the median of normal errors' absolute values is their standard deviation.
DEVIATION_PER_MEDIAN = 1.4826
LEAST_DEVIATION = 0.002  # share of the side that edges are taken to deviate by at the least
# Leaving out the outliers makes the rest look less noisy than it is, by about this factor.
UNTRIMMED = 1.15
LEAST_NOISE = 0.001  # share of the side, for the same reason, once outliers are left out
MOST_SHOWN = 8  # pictures in a message


NO_SHIFT = (0.0, 0.0)


class Gap(NamedTuple):
    """How far a measured figure is from the expected one, and its standard error."""

    gap: float
    error: float

    def is_within(self, allowed: float, errors: float) -> bool:
        """Whether the gap, in either direction, is at most `allowed` plus `errors` standard errors.

        `errors` is a number of standard errors, such as 3.
        """
        return abs(self.gap) <= allowed + errors * self.error

    def chi_squared(self, systematic: float) -> float:
        """Return the squared gap over its variance.

        The variance is that of the standard error plus that of a `systematic` error, by which
        models are off beside chance; both errors are given in the unit of the gap.
        """
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
    def seen(self) -> tuple[float, float]:
        """Width and height of the picture as the model saw it."""
        return self.sent[0] * self.scale[0], self.sent[1] * self.scale[1]

    @property
    def mean_scale_error(self) -> float:
        """Standard error of the mean scale of both sides, relative."""
        return math.hypot(*self.error) / 2

    def scale_gaps(self, expected: tuple[float, float]) -> list[Gap]:
        """Return how far the scales of x and y are from those expected, as shares of these."""
        across = Gap(self.scale[0] / expected[0] - 1, self.error[0])
        down = Gap(self.scale[1] / expected[1] - 1, self.error[1])
        return [across, down]

    def shift_gaps(self, expected: tuple[float, float]) -> list[Gap]:
        """Return how far the shifts of x and y are from those expected, as shares of the side."""
        across = Gap(self.shift[0] - expected[0], self.shift_error[0])
        down = Gap(self.shift[1] - expected[1], self.shift_error[1])
        return [across, down]

    def is_unshifted_at(self, scale: tuple[float, float], within: float) -> bool:
        """Whether the picture was seen at this scale, with 0 for its first edges.

        Args:
            scale: The scales of x and y that are expected.
            within: How far off each scale, each shift and the mean of both scales may be, beyond
                errors of measuring: a share of the scale, or of the side.
        """
        scale_gaps = self.scale_gaps(scale)
        shift_gaps = self.shift_gaps(NO_SHIFT)
        if not all(gap.is_within(within, CHANCE) for gap in scale_gaps + shift_gaps):
            return False
        # The mean is known more exactly than either scale.
        mean = (scale_gaps[0].gap + scale_gaps[1].gap) / 2
        return Gap(mean, self.mean_scale_error).is_within(within, CHANCE)


class Line(NamedTuple):
    """Numbers along one axis, as a line over the true edges.

    Attributes:
        scale: Numbers for a pixel: the slope of the line through 0.
        error: The standard error of `scale`, relative to it.
        shift: Where a line that needn't go through 0 starts, as a share of the side.
        shift_error: The standard error of `shift`.
    """

    scale: float
    error: float
    shift: float
    shift_error: float


class AnsweredBoxes(NamedTuple):
    """A picture's boxes as they were answered, and as they were asked for.

    Attributes:
        written: x1, y1, x2, y2 in the numbers of the answers, sorted so that x1 <= x2 and
            y1 <= y2; an array of shape (boxes, 4).
        asked: The true boxes in the same order and shape, in pixels of the picture as drawn.
    """

    written: Array
    asked: Array


def answered_boxes(picture: ProbedPicture, order: Order) -> AnsweredBoxes | None:
    """Return a picture's boxes, read in this `order` where an answer doesn't name its own.

    Answers without four numbers are left out. None where fewer than LEAST_ANSWERS remain.
    """
    answers = [answer for answer in picture.answers if len(answer.numbers) == 4]
    if len(answers) < LEAST_ANSWERS:
        return None
    corners = [ordered(to_xyxy(answer.numbers, answer.order or order)) for answer in answers]
    asked = [answer.asked for answer in answers]
    return AnsweredBoxes(np.array(corners), np.array(asked, dtype=float))


def sent_sizes(pictures: Iterable[SeenSize | ProbedPicture]) -> list[Size]:
    """Return the sizes in which the pictures were sent, in their order."""
    return [picture.sent for picture in pictures]


def measure_seen_size(picture: ProbedPicture, order: Order, frame: str) -> SeenSize | None:
    """Measure how large a model saw a picture, from its answers in an order and a frame.

    The `frame` (see boxes.coordinates.frame_of) says where the picture lies on the one that numbers
    refer to: padding moves its first edge. None where fewer than LEAST_ANSWERS boxes were answered,
    or the numbers along x or y lie on no line (see `_fit_line`).
    """
    boxes = answered_boxes(picture, order)
    if boxes is None:
        return None
    canvas = frame_of(frame, picture.sent)
    starts = (canvas.left, canvas.top)
    sides = (canvas.image_width, canvas.image_height)
    lines = []
    for axis in (0, 1):  # x, then y
        sent_per_drawn = picture.sent[axis] / picture.size[axis]
        # Columns 0 and 2 are x1 and x2, columns 1 and 3 are y1 and y2.
        edges = boxes.asked[:, axis::2].ravel() * sent_per_drawn + starts[axis]
        numbers = boxes.written[:, axis::2].ravel()
        line = _fit_line(edges, numbers, starts[axis] + sides[axis])
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


def measure_seen_sizes(
    pictures: Sequence[ProbedPicture], order: Order, frame: str
) -> list[SeenSize]:
    """Measure how large each picture was seen, as `measure_seen_size` does.

    Pictures for which that can't be told are left out.
    """
    sizes = [measure_seen_size(picture, order, frame) for picture in pictures]
    return [size for size in sizes if size is not None]


def _fit_line(edges: Array, numbers: Array, far: float) -> Line | None:
    """Fit a robust line to written numbers over true edges.

    A line through 0 is fitted by least squares, in rounds: edges that are more than three standard
    deviations off are left out of the next one. The edges that are kept also tell the shift, and
    both standard errors. Edges beyond BORDER are left out from the beginning.

    Args:
        edges: Where the rectangles' edges truly are along one axis, in pixels of the frame.
        numbers: What was written for each of them.
        far: Where the picture's far edge is, in the same pixels.

    Returns:
        The line; None where the numbers don't grow with the edges, or fewer than LEAST_EDGES are
        near it.
    """
    is_inner = edges < BORDER * far
    edges = edges[is_inner]
    numbers = numbers[is_inner]
    # Ratios say little near 0, where the edge is small and its error isn't.
    is_away_from_0 = edges > AWAY_FROM_0 * far
    scale = float(np.median(numbers[is_away_from_0] / edges[is_away_from_0]))
    if not scale > 0:  # nan, too, which is the median of nothing
        return None
    is_kept = np.ones(len(edges), dtype=bool)
    for _ in range(ROUNDS):
        off = np.abs(numbers - scale * edges)
        deviation = DEVIATION_PER_MEDIAN * float(np.median(off))
        deviation = max(deviation, LEAST_DEVIATION * scale * far)
        is_kept = off <= 3 * deviation
        kept_edges = edges[is_kept]
        scale = float((numbers[is_kept] * kept_edges).sum() / (kept_edges**2).sum())
    if is_kept.sum() < LEAST_EDGES or not scale > 0:
        return None
    return _line_of(edges[is_kept] / far, numbers[is_kept] / (scale * far), scale)


def _line_of(x: Array, y: Array, scale: float) -> Line:
    """Return the line of a known scale, with its shift and the standard errors of both.

    A line y = shift + slope * x that needn't go through 0 is fitted, by the usual formulas of
    simple linear regression.

    Args:
        x: True edges, as shares of the picture's far edge.
        y: What was written for them, as shares of the number that `scale` has for the far edge.
        scale: The slope of the line through 0, in numbers for a pixel.
    """
    count = len(x)
    mean_x = float(x.mean())
    from_mean = x - x.mean()
    sum_of_squares = float((from_mean**2).sum())
    slope = float((from_mean * y).sum()) / sum_of_squares
    shift = float(y.mean()) - slope * mean_x
    # The residuals are those of the line with a shift: a shift that is there is no noise.
    residual = float(((y - shift - slope * x) ** 2).sum())
    noise = max(UNTRIMMED * math.sqrt(residual / (count - 2)), LEAST_NOISE)
    scale_error = noise / math.sqrt(float((x**2).sum()))
    shift_error = noise * math.sqrt(1 / count + mean_x**2 / sum_of_squares)
    return Line(scale, scale_error, shift, shift_error)


def _weighted_mean(values_and_errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean of (value, standard error) pairs, and its weight: one over its variance.

    It is the inverse-variance weighted mean. Where errors are shares of their values, it is so for
    values that are nearly alike.
    """
    weight = sum(1 / error**2 for _, error in values_and_errors)
    total = sum(value / error**2 for value, error in values_and_errors)
    return total / weight, weight


def check_x_and_y_agree(measured: Sequence[SeenSize], frame: str | None = None) -> None:
    """Raise PicturesDisagree if numbers along x and y of one picture count differently.

    Args:
        measured: The pictures' sizes as the model saw them.
        frame: The frame whose sides' parts the numbers count; None where they seem to count pixels.
    """
    if frame is None and constant_side(measured, "sent"):
        return  # numbers count parts of the side after all, so that x and y differ rightly
    for picture in measured:
        # Parts of the picture's own sides are compared as numbers for the whole side. Pixels, and
        # parts of a padded square, whose sides are alike, are compared as they are.
        width, height = picture.sent if frame == "sent" else (1, 1)
        ratio = picture.scale[0] * width / (picture.scale[1] * height)
        allowed = UNEVEN
        if frame is None:  # sides in pixels may have been rounded, each by itself
            allowed += ROUNDED_PX / min(picture.seen)
        if abs(math.log(ratio)) - CHANCE * math.hypot(*picture.error) > allowed:
            raise PicturesDisagree(
                f"the pictures disagree: x and y of {size_text(picture.sent)} px count differently"
                f" ({sizes_in_words(measured)})"
            )


def check_scale_spans_sides(measured: Sequence[SeenSize], known: BoxFormat) -> None:
    """Raise PicturesDisagree unless numbers run from 0 to the format's scale over the frame's side.

    Where they don't, the server has put the pictures into larger ones, of other shapes than the
    format's frame says. Each scale and shift may be off by ONCE_OFF and SURELY_OFF standard errors,
    and all together by MOST_OFF in mean chi-squared.

    Args:
        measured: The pictures' sizes as the model saw them.
        known: A format whose scale is a number, not pixels.
    """
    total = 0.0  # chi-squared of all FIGURES of all pictures
    for picture in measured:
        canvas = frame_of(known.frame, picture.sent)
        across = picture.scale[0] * canvas.width / float(known.scale) - 1
        down = picture.scale[1] * canvas.height / float(known.scale) - 1
        gaps = [Gap(across, picture.error[0]), Gap(down, picture.error[1])]
        gaps += picture.shift_gaps(NO_SHIFT)
        total += sum(gap.chi_squared(OFF) for gap in gaps)
        # A server that pads to multiples moves boxes in some shapes alone. The mean over all
        # pictures, below, would hide that.
        if not all(gap.is_within(ONCE_OFF, SURELY_OFF) for gap in gaps):
            size = size_text(picture.sent)
            raise PicturesDisagree(
                f"the pictures disagree: {known.name} is off in those like {size} px"
                f" ({sizes_in_words(measured)})"
            )
    if total > MOST_OFF * FIGURES * len(measured):
        raise PicturesDisagree(
            f"the pictures disagree: {known.name} is off by more in some of them"
            f" ({sizes_in_words(measured)})"
        )


class ConstantSide(NamedTuple):
    """The number that means the side of every picture, and the frame whose side it is."""

    number: int
    frame: str


def constant_side(measured: Sequence[SeenSize], frame: str) -> ConstantSide | None:
    """Return the number that means the whole side of every picture, if there is one.

    There is where a model counts parts of the side, though its numbers were measured as pixels: the
    side comes to the same number, such as 1000, in pictures of all sizes. None where the sides
    differ by more than chance, as they do where pixels of several sizes are counted, and without
    any picture. One square picture can't tell pixels from parts.

    Args:
        measured: The pictures' sizes as the model saw them, measured in `frame`.
        frame: The frame whose side is meant; for "sent", pad_square_corner is tried after it.
    """
    if not measured:
        return None
    # Padding at the right and below doesn't move a pixel: numbers that seem to count pixels as
    # sent may be parts of such a square's side.
    frames = ["sent", "pad_square_corner"] if frame == "sent" else [frame]
    for name in frames:
        # Each side in numbers, and its standard error as a share of it.
        sides: list[tuple[float, float]] = []
        for picture in measured:
            for axis in (0, 1):
                # All other frames here are squares around the picture.
                length = picture.sent[axis] if name == "sent" else max(picture.sent)
                sides.append((picture.scale[axis] * length, picture.error[axis]))
        mean, _ = _weighted_mean(sides)
        spread = sum(Gap(side / mean - 1, error).chi_squared(SYSTEMATIC) for side, error in sides)
        if is_by_chance(spread, len(sides)):
            return ConstantSide(round(mean), name)
    return None


def is_by_chance(chi_squared: float, terms: int) -> bool:
    """Whether chance explains a chi-squared that is the sum of this many terms.

    Its mean is then the number of terms, and its variance twice that. It may be as large as the
    mean and five standard deviations.
    """
    return chi_squared <= terms + 5 * math.sqrt(2 * terms)


def sizes_in_words(measured: Sequence[SeenSize]) -> str:
    """Return sizes as sent and as seen, for a message: "640x480 seen as 320x240; …".

    The largest come first, MOST_SHOWN at most.
    """
    by_area = sorted(measured, key=lambda picture: math.prod(picture.sent), reverse=True)
    parts = []
    for picture in by_area[:MOST_SHOWN]:
        width, height = picture.seen
        parts.append(f"{size_text(picture.sent)} seen as {width:.0f}x{height:.0f}")
    return "; ".join(parts)
