"""To which multiples of pixels a server rounds the sides of pictures, before a model sees them.

Vision encoders cut pictures into patches, so that servers bring sides to multiples of a patch.
Answers about pictures seldom settle to which. So every rounding in use, and others that might be,
is compared with the sizes in which pictures were seen, by chi-squared; those that are not clearly
worse than the best remain plausible. The pictures looked at are those that no other limit reduces.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._seen_size import (
    FIGURES,
    SYSTEMATIC,
    Expected,
    SeenSize,
    is_by_chance,
)

# The multiples that are tried, in pixels: patches of vision encoders, one or several of them, that
# are in use or might be.
FACTORS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 30, 32, 36, 40, 42, 48, 56, 60, 64)
# How a side in multiples becomes a whole number of them, by the name of the way.
WAYS: dict[str, Callable[[float], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}
# A rounding is out of the question if its chi-squared is larger than the best one's by this much.
SURE = 16.0
SURE_OF_COMMON = 30.0  # the same for those that most servers have: none, 28 and 32
MOST_OF_ONE = 100.0  # one figure adds no more to chi-squared, so that one outlier doesn't decide
# The least-squares line through 0 over x from 0 to 1 is steeper by this for each unit that the
# numbers start above 0: the mean of x over the mean of its square, 1/2 over 1/3.
STEEPER = 1.5
DRAWS = 60  # pairs of sizes that are drawn; the most discerning is taken
# Drawn sizes have so many times the least area: little, as rounding shows most in small pictures.
AREA_OVER_LEAST = (1.05, 1.4)


class Rounding(NamedTuple):
    """How a server brings sides to multiples.

    Attributes:
        factor: The multiples, in pixels; 1 for no rounding.
        way: To the `nearest` of them, `down` or `up`: a key of WAYS.
        centered: The picture keeps its shape and lies in the middle of one with such sides, as
            llama.cpp pads it (mtmd-image.cpp); else it is stretched.
    """

    factor: int = 1
    way: str = "nearest"
    centered: bool = False

    @property
    def frame(self) -> str | None:
        """The frame's name in a box format; None where no box format has such a frame."""
        if self.factor == 1:
            return "sent"
        if self.way == "nearest" and not self.centered:
            return f"round_{self.factor}"
        return None

    def expected(self, sent: Size) -> Expected:
        """Return the scales and shifts that should be measured in a picture sent in this size.

        A centered picture begins behind padding. A SeenSize's scale is nevertheless that of a line
        through 0, which is then steeper, by STEEPER of the padding's share of the side. Its shift
        is in parts of the side as that line has it, and so smaller than the padding.
        """
        scale_x = self._rounded(sent[0]) / sent[0]
        scale_y = self._rounded(sent[1]) / sent[1]
        if not self.centered:
            return Expected((scale_x, scale_y))
        scale = min(scale_x, scale_y)  # the picture keeps its shape and fills one of the two sides
        # How wide the padding on the left, and on the top, is, as a share of the picture's side.
        left = (scale_x / scale - 1) / 2
        top = (scale_y / scale - 1) / 2
        steeper_x = 1 + STEEPER * left
        steeper_y = 1 + STEEPER * top
        return Expected(
            scale=(scale * steeper_x, scale * steeper_y), shift=(left / steeper_x, top / steeper_y)
        )

    def _rounded(self, side: int) -> int:
        """Return a side in pixels, rounded to a multiple in this way; one multiple at the least."""
        return max(self.factor, WAYS[self.way](side / self.factor) * self.factor)


COMMON = (Rounding(), Rounding(28), Rounding(32))  # what most servers do; see SURE_OF_COMMON


def _all_roundings() -> list[Rounding]:
    """Return no rounding first, then each of FACTORS in each of WAYS, stretched and centered."""
    roundings = [Rounding()]
    for centered in (False, True):
        for factor in FACTORS:
            roundings += [Rounding(factor, way, centered) for way in WAYS]
    return roundings


ROUNDINGS = tuple(_all_roundings())  # what measured sizes are compared with


def plausible_roundings(measured: Sequence[SeenSize]) -> list[Rounding]:
    """Return the roundings that these pictures don't rule out, those that fit best first.

    There are none where even the best one fits worse than chance explains, and without pictures
    there are all ROUNDINGS. The pictures should be such as no other limit reduces.
    """
    costs: dict[Rounding, float] = {}
    for rounding in ROUNDINGS:
        costs[rounding] = sum(_cost(rounding, picture) for picture in measured)
    best = min(costs.values())
    if not is_by_chance(best, FIGURES * len(measured)):
        return []
    plausible = []
    for rounding, cost in costs.items():
        margin = SURE_OF_COMMON if rounding in COMMON else SURE
        if cost - best < margin:
            plausible.append(rounding)
    return sorted(plausible, key=lambda rounding: costs[rounding])


def _cost(rounding: Rounding, picture: SeenSize) -> float:
    """Return how badly a rounding explains a picture: chi-squared of two scales and two shifts."""
    expected = rounding.expected(picture.sent)
    gaps = picture.scale_gaps(expected.scale) + picture.shift_gaps(expected.shift)
    return sum(min(gap.chi_squared(SYSTEMATIC), MOST_OF_ONE) for gap in gaps)


@lru_cache(maxsize=64)
def discerning_sizes(min_pixels: int, roundings: tuple[Rounding, ...], seed: int) -> list[Size]:
    """Return two sizes in which these roundings, and the common ones, can best be told apart.

    DRAWS pairs of sizes are drawn at random, and the pair is taken in which the two most alike
    roundings differ the most.

    Args:
        min_pixels: The least area in square pixels; AREA_OVER_LEAST says how much larger sizes are.
        roundings: What is to be told apart.
        seed: The seed of the drawing; one seed always gives the same sizes.

    Returns:
        A wide size and a tall one. The list is cached, and not to be changed.
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
    """Draw a wide or square size with little more than `min_pixels` square pixels."""
    area = min_pixels * draw.uniform(*AREA_OVER_LEAST)
    height_over_width = draw.uniform(0.4, 1.0)
    return round(math.sqrt(area / height_over_width)), round(math.sqrt(area * height_over_width))


def _least_apart(roundings: Sequence[Rounding], sizes: Sequence[Size]) -> float:
    """Return how far apart the two most alike of the roundings are, in pictures of these sizes.

    That is the squared distance between all scales and shifts that are expected of them. There have
    to be two roundings.
    """
    expected = []
    for rounding in roundings:
        expected.append([np.ravel(rounding.expected(size)) for size in sizes])
    # One row for each rounding: two scales and two shifts for each size.
    table = np.array(expected).reshape(len(roundings), -1)
    distances = ((table[:, None] - table[None]) ** 2).sum(axis=2)  # of each rounding from each
    each_pair_once = np.triu_indices(len(roundings), 1)  # above the diagonal
    return float(distances[each_pair_once].min())
