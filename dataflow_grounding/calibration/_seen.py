"""In which pixels a model counts: the size at which it saw each probe picture, fitted freely, with
no rule assumed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dataflow_grounding.boxes.coordinates import BoxFormat, Order, frame_of, to_xyxy
from dataflow_grounding.boxes.geometry import Size, ordered
from dataflow_grounding.calibration.probes import PicturesDisagree, ProbedPicture, by

Array: TypeAlias = NDArray[np.float64]

# how differently x and y may be scaled, and what rounding to multiples does to a side
UNEVEN, ROUNDED_PX = 0.04, 32
# edges further out are left out: models write no numbers beyond the picture, which pulls their mean
# in
BORDER = 0.99
OFF = 0.006  # by which models that count in parts of the side may be off throughout a picture
# by which one scale or shift may be, and measuring errors beyond that
ONCE_OFF, SURELY_OFF = 0.02, 2.5
MOST_OFF = 2.0  # chi-squared for each scale and shift, from which on they are off by more
ROUNDS = 6
UNTRIMMED = 1.15  # by how much the deviation is larger than that of the edges which are kept


class Expected(NamedTuple):
    """How a SeenSize's `scale` and `shift` should turn out, for x and y each."""

    scale: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class SeenSize:
    """One picture, for x and y each: `scale` is numbers for a pixel as sent, `error` its standard
    error, relative; `shift` is the number at the first edge as a share of the side, `shift_error`
    its standard error.
    """

    sent: Size
    scale: tuple[float, float]
    error: tuple[float, float]
    shift: tuple[float, float]
    shift_error: tuple[float, float]

    @property
    def reduced(self) -> float:
        """How much less the model saw than was sent, as the side of a square: 0.5 for half the
        width and height.
        """
        return math.sqrt(self.scale[0] * self.scale[1])

    @property
    def reduced_error(self) -> float:
        """Standard error of `reduced`, relative."""
        return math.hypot(*self.error) / 2

    def gaps(self, expected: Expected) -> list[float]:
        """How far the scales are from those expected, as a share of them."""
        return [
            scale / should - 1 for scale, should in zip(self.scale, expected.scale, strict=True)
        ]

    def is_as_expected(self, expected: Expected, within: float) -> bool:
        """Whether the scales are those `expected`, and no shift is there, `within` that share and
        the errors.
        """
        gaps = self.gaps(expected)
        single = all(
            abs(gap) <= within + 3 * error for gap, error in zip(gaps, self.error, strict=True)
        )
        level = all(
            abs(at) <= within + 3 * error
            for at, error in zip(self.shift, self.shift_error, strict=True)
        )
        return single and level and abs(sum(gaps) / 2) <= within + 3 * self.reduced_error

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture as the model saw it."""
        return self.sent[0] * self.scale[0], self.sent[1] * self.scale[1]


def seen(picture: ProbedPicture, order: Order, frame: str) -> SeenSize | None:
    """A picture's size as its answers count it: a robust line through the first edge. None for
    under 4 boxes.
    """
    canvas = frame_of(frame, picture.sent)
    answers = [a for a in picture.answers if len(a.numbers) == 4]
    if len(answers) < 4:
        return None
    written = np.array([ordered(to_xyxy(a.numbers, a.order or order)) for a in answers])
    asked = np.array([a.asked for a in answers], dtype=float)
    reduced = (picture.sent[0] / picture.size[0], picture.sent[1] / picture.size[1])
    axes = []
    for axis, (start, side) in enumerate(
        ((canvas.left, canvas.image_width), (canvas.top, canvas.image_height))
    ):
        true = asked[:, axis::2].ravel() * reduced[axis] + start
        line = _line(true, written[:, axis::2].ravel(), start + side)
        if line is None:
            return None
        axes.append(line)
    return SeenSize(picture.sent, *zip(*axes, strict=True))


def measured_in(pictures: Sequence[ProbedPicture], order: Order, frame: str) -> list[SeenSize]:
    """What was seen of each picture for which that can be told."""
    return [one for picture in pictures if (one := seen(picture, order, frame)) is not None]


def _line(true: Array, written: Array, far: float) -> tuple[float, float, float, float] | None:
    """Scale and its relative error, shift and its error (shares of `far`), of numbers that should
    be proportional.
    """
    inner = true < BORDER * far
    true, written = true[inner], written[inner]
    scale = float(np.median(written[true > 0.2 * far] / true[true > 0.2 * far]))
    if not scale > 0:
        return None
    kept = np.ones(len(true), dtype=bool)
    for _ in range(ROUNDS):
        off = np.abs(written - scale * true)
        limit = 3 * max(1.4826 * float(np.median(off)), 0.002 * scale * far)
        kept = off <= limit
        scale = float((written[kept] * true[kept]).sum() / (true[kept] ** 2).sum())
    if kept.sum() < 6 or not scale > 0:
        return None
    x, y = true[kept] / far, written[kept] / (scale * far)
    spread = x - x.mean()
    slope = float((spread * y).sum() / (spread**2).sum())
    shift = float(y.mean()) - slope * float(x.mean())
    left = float(((y - shift - slope * x) ** 2).sum())  # a shift that is there is no noise
    noise = max(UNTRIMMED * math.sqrt(left / (len(x) - 2)), 0.001)
    shift_error = noise * math.sqrt(1 / len(x) + float(x.mean()) ** 2 / float((spread**2).sum()))
    return scale, noise / math.sqrt(float((x**2).sum())), shift, shift_error


def pooled(
    measured: Sequence[SeenSize], expected: Callable[[Size], Expected]
) -> tuple[float, float]:
    """How far these pictures' scales are on average from what is `expected` for a size, and its
    standard error.
    """
    gaps = [
        pair
        for one in measured
        for pair in zip(one.gaps(expected(one.sent)), one.error, strict=True)
    ]
    weight = sum(1 / error**2 for _, error in gaps)
    return sum(gap / error**2 for gap, error in gaps) / weight, 1 / math.sqrt(weight)


def check_even(measured: Sequence[SeenSize], frame: str | None = None) -> None:
    """Raises NoFit if x and y of one picture count differently: pixels, or with a `frame` parts of
    its sides.

    A model that should count pixels may count parts of the side. Three measuring errors are allowed
    for.
    """
    if frame is None and constant_side(measured, "sent"):
        return
    for one in measured:
        width, height = one.sent if frame == "sent" else (1, 1)  # a square's sides are alike
        ratio = one.scale[0] * width / (one.scale[1] * height)
        most = UNEVEN + (ROUNDED_PX / min(one.size) if frame is None else 0)
        if abs(math.log(ratio)) - 3 * math.hypot(*one.error) > most:
            raise PicturesDisagree(
                f"the pictures disagree: x and y of {by(one.sent)} px count differently"
                f" ({shown(measured)})"
            )


def check_whole(measured: Sequence[SeenSize], known: BoxFormat) -> None:
    """Raises NoFit where numbers don't run from 0 to the format's scale over the frame's sides:
    pictures lie in larger ones, of other shapes than the frame says.
    """
    total = 0.0
    for one in measured:
        canvas = frame_of(known.frame, one.sent)
        shares = [
            scale * side / float(known.scale) - 1
            for scale, side in zip(one.scale, (canvas.width, canvas.height), strict=True)
        ]
        terms = [
            *zip(shares, one.error, strict=True),
            *zip(one.shift, one.shift_error, strict=True),
        ]
        total += sum((gap / math.hypot(error, OFF)) ** 2 for gap, error in terms)
        # A server that pads to multiples moves boxes in some shapes alone: on average that is
        # little.
        if any(abs(gap) > ONCE_OFF + SURELY_OFF * error for gap, error in terms):
            raise PicturesDisagree(
                f"the pictures disagree: {known.name} is off in those like {by(one.sent)} px"
                f" ({shown(measured)})"
            )
    if total > MOST_OFF * 4 * len(measured):
        raise PicturesDisagree(
            f"the pictures disagree: {known.name} is off by more in some of them"
            f" ({shown(measured)})"
        )


def constant_side(measured: Sequence[SeenSize], frame: str) -> tuple[int, str] | None:
    """The number that means the side of every picture, and the frame, if the model counts so and
    not in pixels.
    """
    for name in (
        () if not measured else ("sent", "pad_square_corner") if frame == "sent" else (frame,)
    ):
        sides = [
            (
                one.scale[axis] * (one.sent[axis] if name == "sent" else max(one.sent)),
                one.error[axis],
            )
            for one in measured
            for axis in (0, 1)
        ]
        weight = sum(1 / error**2 for _, error in sides)
        mean = sum(side / error**2 for side, error in sides) / weight
        worst = sum(((side / mean - 1) / math.hypot(error, 0.003)) ** 2 for side, error in sides)
        if worst <= len(sides) + 5 * math.sqrt(2 * len(sides)):
            return round(mean), name
    return None


def shown(measured: Sequence[SeenSize]) -> str:
    """The sizes as sent and as seen, in words: the largest ones, where there are many."""
    largest = sorted(measured, key=lambda one: math.prod(one.sent), reverse=True)[:8]
    return "; ".join(
        f"{by(one.sent)} seen as {one.size[0]:.0f}x{one.size[1]:.0f}" for one in largest
    )
