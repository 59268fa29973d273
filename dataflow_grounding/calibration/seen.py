"""In which pixels a model counts: the size at which it saw each probe picture, fitted freely, with no rule assumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dataflow_grounding.calibration.probes import Picture
from dataflow_grounding.frames import Order, frame_of, to_xyxy
from dataflow_grounding.geometry import Size, ordered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

BORDER = 0.99  # edges further out are left out: models don't write numbers beyond the picture, which pulls their mean inwards
ROUNDS = 6


@dataclass(frozen=True)
class Seen:
    """One picture as its numbers count it, for x and y each: `scale` is numbers for one pixel of the picture as sent,
    `error` its standard error, relative; `shift` the number at the picture's first edge, as a share of the side, and
    `shift_error` its standard error.
    """

    sent: Size
    scale: tuple[float, float]
    error: tuple[float, float]
    shift: tuple[float, float]
    shift_error: tuple[float, float]

    @property
    def reduced(self) -> float:
        """By how much the model saw less than was sent, as the side of a square: 0.5 for half the width and half the height."""
        return math.sqrt(self.scale[0] * self.scale[1])

    @property
    def reduced_error(self) -> float:
        """Standard error of `reduced`, relative."""
        return math.hypot(*self.error) / 2

    def gaps(self, expected: Callable[[int], float]) -> list[tuple[float, float, float, float]]:
        """For x and y: how far the scale is from what is `expected` for the side, its error, the shift and its error."""
        return [
            (abs(scale / expected(side) - 1), error, abs(shift), shift_error)
            for side, scale, error, shift, shift_error in zip(
                self.sent, self.scale, self.error, self.shift, self.shift_error, strict=True
            )
        ]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture as the model saw it."""
        return self.sent[0] * self.scale[0], self.sent[1] * self.scale[1]


def seen(picture: Picture, order: Order, frame: str) -> Seen | None:
    """What the answers to one picture say of its size, read in `order`; `frame` is `sent` or one that pads.

    Robust: a line through the first edge, by least squares over the edges within three deviations. None where fewer than
    four boxes came back.
    """
    import numpy as np

    canvas = frame_of(frame, picture.sent)
    answers = [a for a in picture.answers if len(a.numbers) == 4]
    if len(answers) < 4:
        return None
    written = np.array([ordered(to_xyxy(a.numbers, a.order or order)) for a in answers])
    asked = np.array([a.asked for a in answers], dtype=float)
    reduced = (picture.sent[0] / picture.size[0], picture.sent[1] / picture.size[1])
    axes = []
    for axis, (start, side) in enumerate(((canvas.left, canvas.image_width), (canvas.top, canvas.image_height))):
        true = asked[:, axis::2].ravel() * reduced[axis] + start
        line = _line(true, written[:, axis::2].ravel(), start + side)
        if line is None:
            return None
        axes.append(line)
    (sx, ex, ax, fx), (sy, ey, ay, fy) = axes
    return Seen(picture.sent, (sx, sy), (ex, ey), (ax, ay), (fx, fy))


def _line(true: Array, written: Array, far: float) -> tuple[float, float, float, float] | None:
    """Scale and its relative error, shift and its error (shares of `far`), of numbers that should be proportional."""
    import numpy as np

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
    noise = max(math.sqrt(float(((y - x) ** 2).sum()) / (len(x) - 1)), 0.001)
    spread = x - x.mean()
    slope = float((spread * y).sum() / (spread**2).sum())
    shift = float(y.mean()) - slope * float(x.mean())
    shift_error = noise * math.sqrt(1 / len(x) + float(x.mean()) ** 2 / float((spread**2).sum()))
    return scale, noise / math.sqrt(float((x**2).sum())), shift, shift_error


def pooled(measured: Sequence[Seen], expected: Callable[[int], float]) -> tuple[float, float]:
    """The mean of how far the scales of these pictures are from what is `expected` for a side, and its standard error."""
    gaps = [(one.scale[axis] / expected(one.sent[axis]) - 1, one.error[axis]) for one in measured for axis in (0, 1)]
    weight = sum(1 / error**2 for _, error in gaps)
    return sum(gap / error**2 for gap, error in gaps) / weight, 1 / math.sqrt(weight)


def constant_side(measured: Sequence[Seen], frame: str) -> tuple[int, str] | None:
    """The number that stands for the side of every picture, and the frame, where the model counts so and not in pixels."""
    for name in ("sent", "pad_square_corner") if frame == "sent" else (frame,):
        sides = [
            (one.scale[axis] * (one.sent[axis] if name == "sent" else max(one.sent)), one.error[axis])
            for one in measured
            for axis in (0, 1)
        ]
        weight = sum(1 / error**2 for _, error in sides)
        mean = sum(side / error**2 for side, error in sides) / weight
        worst = sum(((side / mean - 1) / math.hypot(error, 0.003)) ** 2 for side, error in sides)
        if worst <= len(sides) + 5 * math.sqrt(2 * len(sides)):
            return round(mean), name
    return None


def by(size: Size) -> str:
    """A size in words."""
    return f"{size[0]}x{size[1]}"
