"""How sure a figure is, and which score to cut at.

Here are bootstrap samples of images, a test of two runs, exact bounds of a share.
"""

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np

K = TypeVar("K")
_WISHED_SHARES = (0.8, 0.9, 0.95, 0.99)  # of right boxes, for which `cuts` looks for a score


def bootstrap_sums(sums: dict[K, np.ndarray], draws: int = 1000) -> dict[K, np.ndarray]:
    """Sum columns, a value for each image, over bootstrap samples of the images (Efron 1979)."""
    table = np.stack(list(sums.values()), axis=1, dtype=float)
    images = len(table)
    # Images are drawn, not phrases, since the phrases of one image depend on each other. The same
    # number of images always gives the same samples, so that two runs can be subtracted.
    chance = np.random.default_rng(0)
    totals = []
    for _ in range(draws):
        images_drawn = chance.integers(0, images, images)
        times_drawn = np.bincount(images_drawn, minlength=images)  # by image
        totals.append(times_drawn @ table)  # each column's sum, weighted by these
    return dict(zip(sums, np.stack(totals, axis=1), strict=True))


def interval(values: np.ndarray) -> list[float] | None:
    """Return the ends of the middle 95 % of values that aren't NaN; None if all are."""
    numbers = values[~np.isnan(values)]
    if not numbers.size:
        return None
    low, high = np.quantile(numbers, [0.025, 0.975])
    # Adding 0 makes -0 a plain 0.
    return [round(float(low), 6) + 0.0, round(float(high), 6) + 0.0]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test (1947); 1 for counts that are equal."""
    # If neither run were better, each phrase that one run alone has right would be a coin toss
    # between the two. The p is the chance that one run then gets at most `fewer` of them.
    n = only_first + only_second
    fewer = min(only_first, only_second)
    chances = []  # that the first run has k of the n phrases
    for k in range(fewer + 1):
        # In logarithms, because the binomial coefficient overflows a float.
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        chances.append(math.exp(log_ways - n * math.log(2)))
    return min(1.0, 2 * sum(chances))


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


def kept_and_right(boxes: np.ndarray) -> np.ndarray:
    """Return what a cut at each score keeps, and how much of that is right.

    A row of `boxes` is a box's score, and 1 or 0 for right or wrong. A row of the result is a
    score, the share of all boxes that have it or more, and the share of these that are right. The
    highest score comes first.
    """
    scores, right = boxes.T
    # Each distinct score once, and for each box the index of its own. They are negated because
    # `unique` sorts the lowest first.
    negated_scores, score_index = np.unique(-scores, return_inverse=True)
    kept_count = np.cumsum(np.bincount(score_index))
    right_count = np.cumsum(np.bincount(score_index, weights=right))
    share_kept = kept_count / max(len(scores), 1)
    share_right = right_count / np.maximum(kept_count, 1)
    return np.stack([-negated_scores, share_kept, share_right], axis=1)


def cuts(curve: np.ndarray) -> list[dict[str, float]]:
    """Return, for each of _WISHED_SHARES that is reached, the lowest score to cut at for it."""
    cut_by_score: dict[float, dict[str, float]] = {}  # one may be the lowest for several shares
    for wished in _WISHED_SHARES:
        rows_with_share = curve[curve[:, 2] >= wished]
        if len(rows_with_share):
            score, kept, right = rows_with_share[-1].tolist()  # scores fall along the curve
            cut_by_score[score] = {"score": score, "kept": kept, "right": right}
    return list(cut_by_score.values())
