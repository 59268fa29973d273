"""Figures as functions of sums: what counts for a phrase adds up for an image, a group, a data set, a random draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

Sums: TypeAlias = dict[str, np.ndarray]  # name → what is summed; its first axis is phrases, images or draws, or none
_AT_A_TIME = 50  # draws


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their ratio; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(whole > 0, np.divide(part, whole), np.nan)
    return ratio


def summed(columns: Mapping[str, np.ndarray], index: np.ndarray, length: int) -> Sums:
    """Add up the rows of each column that have the same number in `index`, from 0 to `length` - 1."""
    sums = {name: np.zeros((length, *column.shape[1:])) for name, column in columns.items()}
    for name, column in columns.items():
        np.add.at(sums[name], index, column)
    return sums


def draws_of(sums: Sums, figures_of: Callable[[Sums], Sums], draws: int = 1000, seed: int = 0) -> Sums:
    """Each figure of `draws` bootstrap samples of the images (Efron 1979), as arrays.

    Images are drawn, not phrases, as phrases of one image hang together. The same seed and number of images draw the
    same images, so that the draws of two runs can be subtracted.
    """
    [images] = {len(column) for column in sums.values()}
    table = np.concatenate([column.reshape(images, -1) for column in sums.values()], axis=1, dtype="f4")
    chance, drawn = np.random.default_rng(seed), []
    for start in range(0, draws, _AT_A_TIME):
        samples = [chance.integers(0, images, images) for _ in range(min(_AT_A_TIME, draws - start))]
        drawn.append(np.stack([np.bincount(sample, minlength=images) for sample in samples]).astype("f4") @ table)
    totals, at = np.concatenate(drawn), 0
    of_draws: Sums = {}
    for name, column in sums.items():
        width = math.prod(column.shape[1:])
        of_draws[name] = totals[:, at : at + width].reshape(draws, *column.shape[1:])
        at += width
    return figures_of(of_draws)


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
