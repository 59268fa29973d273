"""How sure a figure is: random draws of images, a test of two runs, exact bounds; and which score
to cut at.
"""

import math
from functools import lru_cache

import numpy as np


def draws_of(sums: dict[str, np.ndarray], draws: int = 1000) -> dict[str, np.ndarray]:
    """What is summed per image, summed over bootstrap samples of the images (Efron 1979).

    Images are drawn, not phrases, as phrases of one image hang together. The same number of images
    draws the same ones, so that two runs can be subtracted.
    """
    table, chance = np.stack(list(sums.values()), axis=1, dtype=float), np.random.default_rng(0)
    images = len(table)
    counts = (
        np.bincount(chance.integers(0, images, images), minlength=images) for _ in range(draws)
    )
    return dict(zip(sums, np.stack([count @ table for count in counts], axis=1), strict=True))


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of values, those that are NaN left out; None where all are."""
    there = values[~np.isnan(values)]
    return (
        [round(float(edge), 4) + 0.0 for edge in np.quantile(there, [0.025, 0.975])]
        if there.size
        else None
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test (1947), of how many phrases one of two runs alone is
    right on.

    Example:
        >>> round(mcnemar(1, 5), 4)  # 2 · (1 + 6) / 2**6
        0.2188
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)
    )
    return min(1.0, 2 * sum(math.exp(log - n * math.log(2)) for log in ways))


@lru_cache(4096)
def clopper_pearson(found: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a share of which `found` in `of` were drawn, exact by the binomial (Clopper and
    Pearson 1934).

    Example:
        >>> [round(bound, 4) for bound in clopper_pearson(4, 190)]
        [0.0058, 0.053]
    """
    return _lower(found, of, (1 - level) / 2), 1 - _lower(of - found, of, (1 - level) / 2)


def _lower(found: int, of: int, chance: float) -> float:
    """The share at which `found` or more in `of` have this chance, by bisection."""
    counts, low, high = np.arange(found, of + 1), 0.0, 1.0
    ways = math.lgamma(of + 1) - np.array(
        [math.lgamma(n + 1) + math.lgamma(of - n + 1) for n in counts]
    )
    while found and high - low > 1e-9:
        share = (low + high) / 2
        more = np.exp(ways + counts * math.log(share) + (of - counts) * math.log1p(-share)).sum()
        low, high = (share, high) if more < chance else (low, share)
    return low


def kept_and_right(boxes: np.ndarray) -> np.ndarray:
    """Of boxes, each a score and whether it is right: for each score the share that has it or more,
    and is right.
    """
    scores, right = boxes.T
    values, which = np.unique(-scores, return_inverse=True)
    kept, good = np.cumsum(np.bincount(which)), np.cumsum(np.bincount(which, weights=right))
    return np.stack([-values, kept / max(len(scores), 1), good / np.maximum(kept, 1)], axis=1)


def cuts(curve: np.ndarray) -> list[dict[str, float]]:
    """For each wished share of right boxes the lowest score that has it: "score ≥ s keeps x % at y
    % right".
    """
    reached = [curve[curve[:, 2] >= wish] for wish in (0.8, 0.9, 0.95, 0.99)]
    found = dict.fromkeys(tuple(reach[-1].tolist()) for reach in reached if len(reach))
    return [dict(zip(("score", "kept", "right"), cut, strict=True)) for cut in found]
