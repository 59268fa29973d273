"""To which multiples a server brings the sides of pictures that no other limit touches: what is
still plausible.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._seen import Expected, SeenSize

# Patches of vision encoders, one or several of them: what is in use, and what might be.
FACTORS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 30, 32, 36, 40, 42, 48, 56, 60, 64)
WAYS: dict[str, Callable[[float], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}
# chi-squared by which a rounding has to be worse than the best to be out of the question
SURE = 16.0
SURE_OF_COMMON = 30.0  # the same for those that most servers have: none, 28 and 32
# a line that has to go through 0 is steeper where numbers start later: mean over mean square of 0
# to 1
STEEPER = 1.5
SYSTEMATIC = 0.003  # what models are off by beside chance, as a share of the side


class Rounding(NamedTuple):
    """Sides are brought to multiples of `factor` px: to the nearest, `down` or `up`. `centered`:
    the picture keeps its shape and lies in the middle of one with such sides (llama.cpp pads so:
    mtmd-image.cpp), else it is stretched.
    """

    factor: int = 1
    way: str = "nearest"
    centered: bool = False

    @property
    def frame(self) -> str | None:
        """The frame's name in a box format; None where there is none for it."""
        if self.factor == 1:
            return "sent"
        return f"round_{self.factor}" if self.way == "nearest" and not self.centered else None

    def expected(self, sent: Size) -> Expected:
        """How a picture of this size should be seen, by the line that SeenSize has through a
        picture's first edge.
        """
        rounded = [
            max(self.factor, WAYS[self.way](side / self.factor) * self.factor) for side in sent
        ]
        x, y = (side / plain for side, plain in zip(rounded, sent, strict=True))
        if not self.centered:
            return Expected((x, y))
        scale = min(x, y)
        starts = (x / scale - 1) / 2, (y / scale - 1) / 2  # as shares of the side
        steeper = 1 + STEEPER * starts[0], 1 + STEEPER * starts[1]
        return Expected(
            (scale * steeper[0], scale * steeper[1]),
            (starts[0] / steeper[0], starts[1] / steeper[1]),
        )


COMMON = (Rounding(), Rounding(28), Rounding(32))
ROUNDINGS = (
    Rounding(),
    *(Rounding(factor, way) for factor in FACTORS for way in WAYS),
    *(Rounding(factor, way, True) for factor in FACTORS for way in WAYS),
)


def plausible_roundings(measured: Sequence[SeenSize]) -> list[Rounding]:
    """The roundings that these pictures, touched by no other limit, don't rule out, the best first;
    perhaps none.
    """
    costs = {rounding: sum(_cost(rounding, one) for one in measured) for rounding in ROUNDINGS}
    best, terms = min(costs.values(), default=0.0), 4 * len(measured)
    if best > terms + 5 * math.sqrt(2 * terms):
        return []
    plausible = [
        r for r in ROUNDINGS if costs[r] - best < (SURE_OF_COMMON if r in COMMON else SURE)
    ]
    return sorted(plausible, key=lambda rounding: costs[rounding])


def _cost(rounding: Rounding, one: SeenSize) -> float:
    """How badly it explains a picture: squares of the gaps of both sides' scales and shifts, in
    standard errors.
    """
    expected = rounding.expected(one.sent)
    gaps = [*zip(one.gaps(expected), one.error, strict=True)]
    gaps += [
        (at - should, error)
        for at, should, error in zip(one.shift, expected.shift, one.shift_error, strict=True)
    ]
    return sum(min((gap / math.hypot(error, SYSTEMATIC)) ** 2, 100.0) for gap, error in gaps)


@lru_cache(maxsize=64)
def discerning_sizes(min_pixels: int, roundings: tuple[Rounding, ...], seed: int) -> list[Size]:
    """Two sizes of little more than `min_pixels` square pixels on whose sides these roundings
    differ the most.
    """
    draw = random.Random(seed)
    compared = list(dict.fromkeys([*roundings, *COMMON]))
    best: tuple[float, list[Size]] = (-1.0, [])
    for _ in range(60):
        wide, (height, width) = (
            _size(min_pixels * draw.uniform(1.05, 1.4), draw.uniform(0.4, 1.0)) for _ in range(2)
        )
        sizes = [wide, (width, height)]
        views = np.array([[np.ravel(one.expected(size)) for size in sizes] for one in compared])
        views = views.reshape(len(compared), -1)
        apart = ((views[:, None] - views[None]) ** 2).sum(axis=2)
        worst = float(apart[np.triu_indices(len(compared), 1)].min())
        if worst > best[0]:
            best = worst, sizes
    return best[1]


def _size(area: float, shape: float) -> Size:
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
