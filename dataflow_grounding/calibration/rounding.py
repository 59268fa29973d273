"""To which multiples a server rounds the sides of a picture: what the small probe pictures tell."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding.calibration.seen import SeenSize
from dataflow_grounding.geometry import Size

# Patches of vision encoders, one or several of them: what is in use, and what might be.
FACTORS = (12, 14, 16, 18, 20, 24, 28, 30, 32, 36, 40, 42, 48, 56, 60, 64)
WAYS: dict[str, Callable[[float], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}
SURE = 16.0  # chi-squared by which a rounding has to be worse than the best to be out of the question
SURE_OF_COMMON = 30.0  # the same for those that most servers have: none, 28 and 32
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


COMMON = (Rounding(), Rounding(28), Rounding(32))
ROUNDINGS = (Rounding(), *(Rounding(factor, way) for factor in FACTORS for way in WAYS))


def plausible_roundings(measured: Sequence[SeenSize]) -> list[Rounding]:
    """The roundings that these pictures, touched by no other limit, don't rule out, the best first; perhaps none."""
    sides = [(one.sent[axis], one.scale[axis], one.error[axis]) for one in measured for axis in (0, 1)]
    costs = {rounding: _cost(rounding, sides) for rounding in ROUNDINGS}
    best = min(costs.values(), default=0.0)
    if best > len(sides) + 5 * math.sqrt(2 * len(sides)):
        return []
    plausible = [r for r in ROUNDINGS if costs[r] - best < (SURE_OF_COMMON if r in COMMON else SURE)]
    return sorted(plausible, key=lambda rounding: costs[rounding])


def _cost(rounding: Rounding, sides: Sequence[tuple[int, float, float]]) -> float:
    return sum(
        min(((scale / rounding.scale(side) - 1) / math.hypot(error, SYSTEMATIC)) ** 2, 100.0)
        for side, scale, error in sides
    )


@lru_cache(maxsize=64)
def discerning_sizes(min_pixels: int, roundings: tuple[Rounding, ...], seed: int) -> list[Size]:
    """Two sizes of little more than `min_pixels` square pixels on whose sides these roundings differ the most."""
    import numpy as np

    draw = random.Random(seed)
    compared = list(dict.fromkeys([*roundings, *COMMON]))
    best: tuple[float, list[Size]] = (-1.0, [])
    for _ in range(60):
        wide, (height, width) = (_size(min_pixels * draw.uniform(1.05, 1.4), draw.uniform(0.4, 1.0)) for _ in range(2))
        scales = np.array([[one.scale(side) for side in (*wide, width, height)] for one in compared])
        apart = ((scales[:, None] - scales[None]) ** 2).sum(axis=2)
        worst = float(apart[np.triu_indices(len(compared), 1)].min())
        if worst > best[0]:
            best = worst, [wide, (width, height)]
    return best[1]


def _size(area: float, shape: float) -> Size:
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
