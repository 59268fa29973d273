"""Phrase grounding: recall of the first k boxes, as on Flickr30k Entities (MDETR's evaluator)."""

from __future__ import annotations

import numpy as np

from dataflow_grounding.metrics.annotations import Boxes
from dataflow_grounding.metrics.overlaps import Overlaps, Rules
from dataflow_grounding.metrics.sums import Sums, share

_FIRST = {"r1": 1.0, "r5": 5.0, "r10": 10.0, "rall": np.inf}


def hulls(boxes: Boxes) -> Boxes:
    """For each phrase the one box around all of its boxes; none where it has none (MERGED-BOX, Plummer 2015)."""
    some = boxes.counts > 0
    corners = np.zeros((int(some.sum()), 4))
    if len(corners):
        first = boxes.starts[:-1][some]
        corners[:, :2] = np.minimum.reduceat(boxes.corners[:, :2], first)
        corners[:, 2:] = np.maximum.reduceat(boxes.corners[:, 2:], first)
    return Boxes(np.concatenate([[0], np.cumsum(some)]), corners, np.full(len(corners), np.nan))


def recall_columns(kind: str, wanted: np.ndarray, overlaps: Overlaps, rules: Rules) -> Sums:
    """Whether, of each phrase that has gold boxes, one of the first k found boxes meets a gold box; `kind` names it."""
    best = np.full(len(wanted), np.inf)
    right = rules.passes(overlaps.overlap, rules.threshold)
    np.minimum.at(best, overlaps.phrase[right], overlaps.rank[right])
    return {"boxed": wanted > 0, f"{kind}_right": best[:, None] < np.array(list(_FIRST.values()))}


def recall_figures(kind: str, sums: Sums) -> Sums:
    """Recall at 1, 5, 10, and of all boxes (the upper bound)."""
    recall = share(sums[f"{kind}_right"], sums["boxed"][..., None])
    return {f"{name}_{kind}": recall[..., n] for n, name in enumerate(_FIRST)}
