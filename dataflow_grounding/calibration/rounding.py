"""To which multiples a server rounds the sides of a picture: what the small probe pictures tell."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding.calibration.seen import Seen
from dataflow_grounding.geometry import Size

FACTORS = (14, 16, 20, 24, 28, 32, 48, 56, 64)  # patches, and patches merged, of the vision encoders in use
WAYS: dict[str, Callable[[float], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}
SURE = 16.0  # chi-squared by which a rounding has to be worse than the best to be out of the question
SYSTEMATIC = 0.003  # what models are off by beside chance, as a share of the side


class Rounding(NamedTuple):
    """Sides are brought to multiples of `factor` px: to the nearest, `down` or `up`."""

    factor: int = 1
    way: str = "nearest"

    @property
    def has_frame(self) -> bool:
        """Whether pictures can be sent with any sides, and numbers read by the frame's name."""
        return self.way == "nearest"

    @property
    def frame(self) -> str:
        """The frame's name in a box format."""
        return f"round_{self.factor}" if self.factor > 1 else "sent"

    def scale(self, side: int) -> float:
        """What a side is multiplied with."""
        return max(self.factor, WAYS[self.way](side / self.factor) * self.factor) / side


ROUNDINGS = (Rounding(), *(Rounding(factor, way) for factor in FACTORS for way in WAYS))


def plausible_roundings(measured: Sequence[Seen]) -> list[Rounding]:
    """The roundings that the scales of these pictures don't rule out, the best first; none where all of them are ruled out.

    The pictures should be ones that no other limit touches.
    """
    sides = [(one.sent[axis], one.scale[axis], one.error[axis]) for one in measured for axis in (0, 1)]
    costs = {rounding: _cost(rounding, sides) for rounding in ROUNDINGS}
    best = min(costs.values(), default=0.0)
    if best > len(sides) + 5 * math.sqrt(2 * len(sides)):
        return []
    return sorted((r for r in ROUNDINGS if costs[r] - best < SURE), key=lambda r: costs[r])


def _cost(rounding: Rounding, sides: Sequence[tuple[int, float, float]]) -> float:
    return sum(
        min(((scale / rounding.scale(side) - 1) / math.hypot(error, SYSTEMATIC)) ** 2, 100.0)
        for side, scale, error in sides
    )


@lru_cache(maxsize=64)
def discerning_sizes(min_pixels: int, roundings: tuple[Rounding, ...], seed: int) -> list[Size]:
    """Two sizes of little more than `min_pixels` square pixels on whose sides these roundings differ the most."""
    draw = random.Random(seed)
    best: tuple[float, list[Size]] = (-1.0, [])
    for _ in range(60):
        sizes = [_size(min_pixels * draw.uniform(1.05, 1.4), draw.uniform(0.4, 1.0)) for _ in range(2)]
        wide, (height, width) = sizes
        worst = min(
            sum((a.scale(side) - b.scale(side)) ** 2 for side in (*wide, width, height))
            for a, b in itertools.combinations([*roundings, Rounding(), Rounding(28)], 2)
            if a != b
        )
        if worst > best[0]:
            best = worst, [wide, (width, height)]
    return best[1]


def _size(area: float, shape: float) -> Size:
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
