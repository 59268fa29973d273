"""Each measure as a ratio of sums: what counts for a phrase adds up for an image, a group, a data set, a random draw."""

from __future__ import annotations

import numpy as np

from dataflow_grounding.metrics.annotations import Boxes
from dataflow_grounding.metrics.overlaps import THRESHOLDS, Overlaps, Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs

Columns = dict[str, np.ndarray]  # name → what counts for each phrase (or image, or draw)

WHOLES = {
    "one": ("acc_0.5", "acc_0.75", "acc_0.9", "macc", "miou"),
    "boxed": ("r1_any", "r5_any", "r10_any", "r1_merged", "r5_merged", "r10_merged", "t_acc", "density_f1"),
    "absent": ("n_acc",),
    "judged": ("gprec_f1", "grounded_share"),
    "boxes_there": ("pmf1",),
    "found": ("precision",),
    "gold": ("recall",),
    "recall": ("mean_iou_of_right_boxes",),
    "span_exact": ("span_exact_f1",),
    "span_overlap": ("span_overlap_f1",),
    "span_char": ("span_char_f1",),
    "spans_and_boxes": ("joint",),
}
"""What each measure is a share of: `one`, the phrases with one gold box; `boxed`, those with any. All are columns."""


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their ratio; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)


def first_columns(wanted: np.ndarray, overlap: np.ndarray, iou: np.ndarray, rules: Rules) -> Columns:
    """RefCOCO's and Ref-L4's (mAcc), of phrases with one gold box; `overlap` and `iou` are the first found box's."""
    one = wanted == 1
    right = {f"acc_{t:g}": rules.passes(overlap, t) * one for t in (0.5, 0.75, 0.9)}
    return {"one": one, **right, "macc": rules.passes(overlap[:, None], THRESHOLDS).mean(1) * one, "miou": iou * one}


def recall_columns(pairs: Pairs, overlaps: Overlaps, rules: Rules) -> Columns:
    """Flickr30k's: whether one of the first k boxes meets a gold box (ANY), or the box around them all (MERGED)."""
    gold = pairs.gold.boxes
    boxed = gold.counts > 0
    columns = {"boxed": boxed}
    low, high = (
        edge.reduceat(gold.corners[:, side], gold.starts[:-1][boxed]) if boxed.any() else np.zeros((0, 2))
        for edge, side in ((np.minimum, slice(0, 2)), (np.maximum, slice(2, 4)))
    )
    hulls = Boxes(np.append(0, np.cumsum(boxed)), np.concatenate([low, high], axis=1), np.empty(0))
    merged = overlaps_of(hulls, pairs.found.boxes, pairs.partner, rules)
    for kind, those in (("any", overlaps), ("merged", merged)):
        best, right = np.full(len(boxed), np.inf), rules.passes(those.overlap, rules.threshold)
        np.minimum.at(best, those.phrase[right], those.rank[right])
        columns |= {f"r{first}_{kind}": best < first for first in (1, 5, 10)}
    return columns


def set_columns(pairs: Pairs, overlaps: Overlaps, counts: np.ndarray, rules: Rules) -> Columns:
    """Measures of phrases with any number of boxes, none too; `counts` are the boxes that each found phrase has.

    gRefCOCO's Pr@(F1=1), N-acc and T-acc (arXiv 2308.16182); HumanRef's density F1; of SAM 3's cgF1 (sam3/eval/
    cgf1_eval.py) the F1 of boxes, and how often is said to be there what is there. All match the largest IoU first.
    """
    matched, wanted = one_to_one(overlaps, rules), pairs.gold.boxes.counts
    answered, found = pairs.judged & (pairs.partner >= 0), np.append(counts, 0)[pairs.partner] * pairs.judged

    def added(weights: np.ndarray) -> np.ndarray:
        return np.bincount(matched.phrase, weights, len(wanted))

    right_at = np.stack([added(rules.passes(matched.overlap, t)) for t in THRESHOLDS], axis=1)
    right, there, said = added(passed := rules.passes(matched.overlap, rules.threshold)), wanted > 0, found > 0
    f1 = 2 * right_at.mean(1) / np.maximum(wanted + found, 1)
    return {
        "judged": pairs.judged,
        "absent": pairs.judged & ~there,
        "found": found,
        "gold": wanted,
        "recall": right,
        "precision": right,
        "mean_iou_of_right_boxes": added(matched.iou * passed),
        "grounded_share": said,
        "gprec_f1": (right == wanted) & (right == found) & answered,
        "t_acc": there & said,
        "n_acc": ~there & ~said & answered,  # no answer is not "there is none"
        "density_f1": f1 * np.minimum(1.0, wanted / np.maximum(found, 1)),
        "pmf1": 2 * right_at.mean(1),
        "boxes_there": (wanted + found) * there,
    }


def confidence_columns(scores: np.ndarray, right: np.ndarray) -> Columns:
    """What counts for each box that has a score: in its one of ten bins, how far right is from the score."""
    bins = np.minimum((scores * 10).astype(int), 9)
    return {"scored": np.ones(len(scores)), **{f"bin_{n}": (right - scores) * (bins == n) for n in range(10)}}


def figures_of(sums: Columns) -> Columns:
    """Every measure whose sums are there; the calibration error (Guo 2017) and what of cgF1 is no ratio, too."""
    figures = {name: share(sums[name], sums[whole]) for whole in WHOLES if whole in sums for name in WHOLES[whole]}
    there, absent, tp, tn = (sums[name] for name in ("boxed", "absent", "t_acc", "n_acc"))
    said = tp + absent - tn
    spread = np.sqrt(np.maximum(said * (there + absent - said), 1) * there * absent)  # 0: nothing to tell apart
    figures["il_mcc"] = share(tp * tn - (absent - tn) * (there - tp), spread)
    figures["cgf1"] = figures["pmf1"] * figures["il_mcc"]
    if "scored" in sums:
        figures["ece"] = share(sum(np.abs(sums[f"bin_{n}"]) for n in range(10)), sums["scored"])
    return figures
