"""Exact bounds of a share that a sample shows."""

import math
from functools import lru_cache

import numpy as np


@lru_cache(4096)
def clopper_pearson(hits: int, draws: int, level: float = 0.95) -> tuple[float, float]:
    """Return exact bounds of a share, where `hits` of `draws` had it (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    return _lower_bound(hits, draws, tail), 1 - _lower_bound(draws - hits, draws, tail)


def _lower_bound(hits: int, draws: int, tail: float) -> float:
    """Return the share of which a sample has `hits` or more with the chance `tail`."""
    if not hits:
        return 0.0
    # By bisection: a larger share makes as many hits likelier. In logarithms, because factorials of
    # large samples overflow.
    counts = np.arange(hits, draws + 1)
    # lgamma(n + 1) is the logarithm of n!
    log_divisors = [math.lgamma(n + 1) + math.lgamma(draws - n + 1) for n in counts]
    log_ways = math.lgamma(draws + 1) - np.array(log_divisors)
    low = 0.0
    high = 1.0
    while high - low > 1e-9:
        share = (low + high) / 2
        log_chances = log_ways + counts * math.log(share) + (draws - counts) * math.log1p(-share)
        if np.exp(log_chances).sum() < tail:
            low = share
        else:
            high = share
    return low
