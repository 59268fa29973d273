"""To which multiples a server brings the sides of pictures that no other limit touches.

Answers seldom settle that: what is found is which roundings are still plausible.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._seen import SYSTEMATIC, Expected, SeenSize, is_by_chance

# Patches of vision encoders, one or several of them: what is in use, and what might be.
FACTORS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 30, 32, 36, 40, 42, 48, 56, 60, 64)
WAYS: dict[str, Callable[[float], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}
# chi-squared by which a rounding has to be worse than the best to be out of the question
SURE = 16.0
SURE_OF_COMMON = 30.0  # the same for those that most servers have: none, 28 and 32
MOST_OF_ONE = 100.0  # chi-squared that one figure may add
# a line that has to go through 0 is steeper where numbers start later: mean over mean square of 0
# to 1
STEEPER = 1.5
DRAWS = 60  # pairs of sizes, of which the most discerning is taken


class Rounding(NamedTuple):
    """How a server brings sides to multiples.

    Attributes:
        factor: The multiples, in pixels.
        way: To the `nearest` of them, `down` or `up`.
        centered: The picture keeps its shape and lies in the middle of one with such sides, as
            llama.cpp pads it (mtmd-image.cpp); else it is stretched.
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
        """How a picture of this size should be seen.

        That is the line that SeenSize has through a picture's first edge.
        """
        x = self._rounded(sent[0]) / sent[0]
        y = self._rounded(sent[1]) / sent[1]
        if not self.centered:
            return Expected((x, y))
        scale = min(x, y)
        # where the picture begins, as a share of its side
        left = (x / scale - 1) / 2
        top = (y / scale - 1) / 2
        steeper_x = 1 + STEEPER * left
        steeper_y = 1 + STEEPER * top
        return Expected(
            scale=(scale * steeper_x, scale * steeper_y), shift=(left / steeper_x, top / steeper_y)
        )

    def _rounded(self, side: int) -> int:
        return max(self.factor, WAYS[self.way](side / self.factor) * self.factor)


COMMON = (Rounding(), Rounding(28), Rounding(32))


def _all_roundings() -> list[Rounding]:
    roundings = [Rounding()]
    for centered in (False, True):
        for factor in FACTORS:
            roundings += [Rounding(factor, way, centered) for way in WAYS]
    return roundings


ROUNDINGS = tuple(_all_roundings())


def plausible_roundings(measured: Sequence[SeenSize]) -> list[Rounding]:
    """The roundings that these pictures don't rule out, the best first; perhaps none.

    No other limit touches the pictures.
    """
    costs: dict[Rounding, float] = {}
    for rounding in ROUNDINGS:
        costs[rounding] = sum(_cost(rounding, picture) for picture in measured)
    best = min(costs.values())
    if not is_by_chance(best, 4 * len(measured)):
        return []
    plausible = []
    for rounding, cost in costs.items():
        if cost - best < (SURE_OF_COMMON if rounding in COMMON else SURE):
            plausible.append(rounding)
    return sorted(plausible, key=lambda rounding: costs[rounding])


def _cost(rounding: Rounding, picture: SeenSize) -> float:
    """How badly a rounding explains a picture: chi-squared of both sides' scales and shifts."""
    expected = rounding.expected(picture.sent)
    gaps = picture.scale_gaps(expected) + picture.shift_gaps(expected)
    return sum(min(gap.chi_squared(SYSTEMATIC), MOST_OF_ONE) for gap in gaps)


@lru_cache(maxsize=64)
def discerning_sizes(min_pixels: int, roundings: tuple[Rounding, ...], seed: int) -> list[Size]:
    """Two sizes on whose sides these roundings differ the most.

    They have little more than `min_pixels` square pixels; one is wide, one is tall.
    """
    draw = random.Random(seed)
    compared = list(dict.fromkeys([*roundings, *COMMON]))
    most_apart = -1.0
    best: list[Size] = []
    for _ in range(DRAWS):
        wide = _drawn_size(draw, min_pixels)
        height, width = _drawn_size(draw, min_pixels)
        sizes = [wide, (width, height)]
        apart = _least_apart(compared, sizes)
        if apart > most_apart:
            most_apart = apart
            best = sizes
    return best


def _drawn_size(draw: random.Random, min_pixels: int) -> Size:
    area = min_pixels * draw.uniform(1.05, 1.4)
    shape = draw.uniform(0.4, 1.0)
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))


def _least_apart(roundings: Sequence[Rounding], sizes: Sequence[Size]) -> float:
    """How far apart the two most alike of the roundings are, in pictures of these sizes."""
    views = []
    for rounding in roundings:
        views.append([np.ravel(rounding.expected(size)) for size in sizes])
    table = np.array(views).reshape(len(roundings), -1)
    apart = ((table[:, None] - table[None]) ** 2).sum(axis=2)
    return float(apart[np.triu_indices(len(roundings), 1)].min())
