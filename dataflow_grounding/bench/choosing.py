"""Which way of asking is best on a user's own pictures."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dataflow_grounding.bench.ways import WAYS, Plain

_DRAWS = 4000  # bootstrap samples: some hundred lie outside of an interval of many ways
_ALPHA = 0.05  # how likely any of the intervals may miss


class Gain(NamedTuple):
    """How much better a way is than the first, in mean F1; all intervals together hold with 95%."""

    way: str
    value: float
    low: float
    high: float


class Choice(NamedTuple):
    """The way that was chosen, the first of the ways, and what the others gain on that."""

    best: str
    first: str
    gains: list[Gain]


def choice_of(document: Mapping[str, Any], first_way: str) -> Choice:
    """Return the way that gains most of those whose whole interval is above 0, or the first."""
    scores_by_way: dict[str, list[float]] = {}  # the mean F1 of each picture, in the same order
    for way, measured in document["ways"].items():
        scores_by_way[way] = measured["figures"]["scores"]
    others = [way for way in scores_by_way if way != first_way]
    gains = []
    for way in others:
        differences = np.array(scores_by_way[way]) - np.array(scores_by_way[first_way])
        # Each interval may miss so seldom that all together miss in _ALPHA of cases (Bonferroni).
        low, high = interval_of_mean(differences, _ALPHA / len(others))
        gains.append(Gain(way, float(differences.mean()), low, high))
    better = [gain for gain in gains if gain.low > 0]
    best_way = first_way
    if better:
        best_way = max(better, key=lambda gain: gain.value).way
    return Choice(best_way, first_way, gains)


def interval_of_mean(values: np.ndarray, alpha: float = _ALPHA) -> tuple[float, float]:
    """Return the middle 1 - alpha of the means of bootstrap samples."""
    chance = np.random.default_rng(0)  # arrays of one length get the same samples
    count = len(values)
    means = []
    for _ in range(_DRAWS):
        drawn_indices = chance.integers(0, count, count)  # as many as there are values
        means.append(values[drawn_indices].mean())
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def gain_lines(choice: Choice) -> Iterator[list[str]]:
    """Yield the rows of the table of gains, the heads first."""
    yield ["way", f"gain on {choice.first}", "interval"]
    for gain in choice.gains:
        yield [gain.way, f"{gain.value:+.3f}", f"{gain.low:+.3f} to {gain.high:+.3f}"]


def verdict_of(choice: Choice) -> str:
    if choice.best == choice.first:
        return f"best: {choice.first}, as no other way was shown to be better."
    [gain] = [gain for gain in choice.gains if gain.way == choice.best]
    points = f"{100 * gain.value:+.1f} points of F1 against {choice.first}"
    return f"best: {gain.way} ({keys_of(gain.way)}), {points}."


def keys_of(way: str) -> str:
    """Return the keys of a spec that ask in a way, in words."""
    keys: dict[str, Any] = getattr(WAYS[way], "keys", {})  # the way `spans` has none
    not_default = [f"{key}: {value}" for key, value in keys.items() if value != Plain.keys[key]]
    return ", ".join(not_default) or "the default keys"
