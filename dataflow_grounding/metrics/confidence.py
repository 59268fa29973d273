"""Whether a score says how often a box is right, and which score to cut at."""

from __future__ import annotations

import numpy as np

from dataflow_grounding.metrics.sums import Sums, share

_WISHES = (0.8, 0.9, 0.95, 0.99)


def confidence_columns(scores: np.ndarray, right: np.ndarray) -> Sums:
    """What counts for each box that has a score; bins are ten of equal width, and up to 15 of equal mass."""
    values = np.unique(scores)
    if len(values) > 15:  # votes of few samples make few scores: each is a bin of its own
        values = np.unique(np.quantile(scores, np.arange(15) / 15, method="lower"))
    bins = {"width": np.minimum((scores * 10).astype(int), 9), "mass": np.searchsorted(values, scores, "right") - 1}
    apart = {f"apart_{kind}": np.eye(15)[which] * (right - scores)[:, None] for kind, which in bins.items()}
    return {"scored": np.ones(len(scores)), "brier": (scores - right) ** 2, **apart}


def confidence_figures(sums: Sums) -> Sums:
    """Expected calibration error (Guo 2017) by both kinds of bins, and Brier's score; 0 is best."""
    apart = {name: np.abs(sums[f"apart_{kind}"]).sum(-1) for name, kind in (("ece", "width"), ("ece_mass", "mass"))}
    return {name: share(part, sums["scored"]) for name, part in {**apart, "brier": sums["brier"]}.items()}


def auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """The chance that a right box has a higher score than a wrong one, ties half; None without boxes of either kind."""
    values, which = np.unique(scores, return_inverse=True)
    good, bad = (np.bincount(which[right == kind], minlength=len(values)) for kind in (True, False))
    below = np.cumsum(bad) - bad
    pairs = int(good.sum()) * int(bad.sum())
    return float((good * (below + bad / 2)).sum() / pairs) if pairs else None


def kept_and_right(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For each score that occurs, from the highest: score, share of boxes that have it or more, share of them right."""
    values, which = np.unique(-scores, return_inverse=True)
    kept, good = np.cumsum(np.bincount(which)), np.cumsum(np.bincount(which, weights=right))
    return np.stack([-values, kept / max(len(scores), 1), good / np.maximum(kept, 1)], axis=1)


def cuts(curve: np.ndarray) -> list[dict[str, float]]:
    """For each wished share of right boxes the lowest score that has it: "score ≥ s keeps x % at y % right"."""
    found = []
    for wish in _WISHES:
        reach = curve[curve[:, 2] >= wish]
        if len(reach):
            found.append(dict(zip(("score", "kept", "right"), map(float, reach[-1]), strict=True)))
    return [cut for n, cut in enumerate(found) if cut not in found[:n]]


def reliability(curve: np.ndarray) -> list[tuple[float, float]]:
    """Mean score and share of right boxes in each of ten bins of equal width, of what `kept_and_right` says."""
    kept, good = (np.diff(column, prepend=0) for column in (curve[:, 1], curve[:, 1] * curve[:, 2]))
    bins = np.minimum((curve[:, 0] * 10).astype(int), 9)
    boxes, right, scores = (np.bincount(bins, part, 10) for part in (kept, good, kept * curve[:, 0]))
    return [(s / n, r / n) for n, r, s in zip(boxes.tolist(), right.tolist(), scores.tolist(), strict=True) if n]
