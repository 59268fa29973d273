"""How sure a figure is: intervals of random draws of the images, and a test of two runs."""

import math

import numpy as np


def draws_of(sums: dict[str, np.ndarray], draws: int = 1000) -> dict[str, np.ndarray]:
    """What is summed per image, summed over bootstrap samples of the images (Efron 1979).

    Images are drawn, not phrases, as phrases of one image hang together. The same number of images draws the same ones,
    so that two runs can be subtracted.
    """
    table, chance = np.stack(list(sums.values()), axis=1, dtype=float), np.random.default_rng(0)
    images = len(table)
    counts = (np.bincount(chance.integers(0, images, images), minlength=images) for _ in range(draws))
    return dict(zip(sums, np.stack([count @ table for count in counts], axis=1), strict=True))


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of values, those that are NaN left out; None where all are."""
    there = values[~np.isnan(values)]
    return [round(float(edge), 4) for edge in np.quantile(there, [0.025, 0.975])] if there.size else None


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test (1947), of how many phrases one of two runs alone is right on.

    Example:
        >>> round(mcnemar(1, 5), 4)  # 2 · (1 + 6) / 2**6
        0.2188
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1))
    return min(1.0, 2 * sum(math.exp(log - n * math.log(2)) for log in ways))
