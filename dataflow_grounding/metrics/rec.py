"""Referring expressions with one box each: accuracy as RefCOCO's papers and Ref-L4 (mAcc) have it."""

from __future__ import annotations

import numpy as np

from dataflow_grounding.metrics.overlaps import THRESHOLDS, Rules
from dataflow_grounding.metrics.sums import Sums, share


def rec_columns(wanted: np.ndarray, overlap: np.ndarray, iou: np.ndarray, rules: Rules) -> Sums:
    """What counts for each phrase with one gold box; `overlap` and `iou` are the first found box's, 0 without one."""
    one = wanted == 1
    right = rules.passes(overlap[:, None], THRESHOLDS) & one[:, None]
    return {"rec": one, "rec_right": right, "rec_iou": iou * one}


def rec_figures(sums: Sums) -> Sums:
    """Accuracy at IoU 0.5, 0.75, 0.9, its mean over 0.5:0.05:0.95, and mean IoU."""
    accuracy = share(sums["rec_right"], sums["rec"][..., None])
    at = {f"acc_{THRESHOLDS[n]:g}": accuracy[..., n] for n in (0, 5, 8)}
    return {**at, "macc": accuracy.mean(-1), "miou": share(sums["rec_iou"], sums["rec"])}
