"""Which score to cut at, and whether a score says how often a box is right."""

from __future__ import annotations

import numpy as np


def kept_and_right(boxes: np.ndarray) -> np.ndarray:
    """For each score that occurs, from the highest: score, share of boxes that have it or more, share of them right.

    Args:
        boxes: Score of each box, and whether it is right.
    """
    scores, right = boxes.T
    values, which = np.unique(-scores, return_inverse=True)
    kept, good = np.cumsum(np.bincount(which)), np.cumsum(np.bincount(which, weights=right))
    return np.stack([-values, kept / max(len(scores), 1), good / np.maximum(kept, 1)], axis=1)


def cuts(curve: np.ndarray) -> list[dict[str, float]]:
    """For each wished share of right boxes the lowest score that has it: "score ≥ s keeps x % at y % right"."""
    reached = [curve[curve[:, 2] >= wish] for wish in (0.8, 0.9, 0.95, 0.99)]
    found = dict.fromkeys(tuple(reach[-1].tolist()) for reach in reached if len(reach))
    return [dict(zip(("score", "kept", "right"), cut, strict=True)) for cut in found]


def reliability(curve: np.ndarray) -> list[tuple[float, float]]:
    """Mean score and share of right boxes in each of ten bins of equal width, of what `kept_and_right` says."""
    kept, good = (np.diff(column, prepend=0) for column in (curve[:, 1], curve[:, 1] * curve[:, 2]))
    bins = np.minimum((curve[:, 0] * 10).astype(int), 9)
    boxes, right, scores = (np.bincount(bins, part, 10) for part in (kept, good, kept * curve[:, 0]))
    return [(s / n, r / n) for n, r, s in zip(boxes.tolist(), right.tolist(), scores.tolist(), strict=True) if n]
