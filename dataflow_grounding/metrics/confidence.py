"""Which score to cut at."""

import numpy as np


def kept_and_right(boxes: np.ndarray) -> np.ndarray:
    """Of boxes, each a score and whether it is right: for each score the share that has it or more, and is right."""
    scores, right = boxes.T
    values, which = np.unique(-scores, return_inverse=True)
    kept, good = np.cumsum(np.bincount(which)), np.cumsum(np.bincount(which, weights=right))
    return np.stack([-values, kept / max(len(scores), 1), good / np.maximum(kept, 1)], axis=1)


def cuts(curve: np.ndarray) -> list[dict[str, float]]:
    """For each wished share of right boxes the lowest score that has it: "score ≥ s keeps x % at y % right"."""
    reached = [curve[curve[:, 2] >= wish] for wish in (0.8, 0.9, 0.95, 0.99)]
    found = dict.fromkeys(tuple(reach[-1].tolist()) for reach in reached if len(reach))
    return [dict(zip(("score", "kept", "right"), cut, strict=True)) for cut in found]
