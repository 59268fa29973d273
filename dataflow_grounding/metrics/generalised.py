"""Phrases with any number of boxes, none too: gRefCOCO's measures, density F1, cgF1, precision and recall of boxes."""

from __future__ import annotations

import numpy as np

from dataflow_grounding.metrics.overlaps import THRESHOLDS, Overlaps, Rules
from dataflow_grounding.metrics.pairs import Pairs
from dataflow_grounding.metrics.sums import Sums, share, summed


def set_columns(found: np.ndarray, pairs: Pairs, matched: Overlaps, rules: Rules) -> Sums:
    """What counts for each phrase that is judged: its numbers of gold and found boxes, and which are `matched`."""
    wanted, answered = pairs.gold.boxes.counts, pairs.judged & (pairs.partner >= 0)
    found = found * pairs.judged
    passed = rules.passes(matched.overlap, rules.threshold)
    right_at = rules.passes(matched.overlap[:, None], THRESHOLDS)
    columns = {"right": passed, "right_at": right_at, "iou": matched.iou * passed}
    columns = summed(columns, matched.phrase, len(wanted))
    right, right_at = columns["right"], columns["right_at"]
    there, said = wanted > 0, found > 0
    wrong = ~there & (said | (pairs.judged & ~answered))  # no answer is not "there is none"
    f1 = share(2 * right_at, (wanted + found)[:, None]) * np.minimum(1.0, wanted / np.maximum(found, 1))[:, None]
    return {
        **columns,
        "perfect": (right == wanted) & (right == found) & answered,
        "gold": wanted,
        "found": found,
        "said": said,
        "density": np.where(there[:, None], f1, 0.0),
        "found_there": found * there,
        "confusion": np.stack([there & said, there & ~said, wrong, ~there & ~wrong & answered], axis=1),
    }


def set_figures(sums: Sums) -> Sums:
    """Measures of sets of boxes, in [0, 1] but for MCC and with it cgF1, in [-1, 1].

    gprec_f1, n_acc, t_acc: Pr@(F1=1), N-acc and T-acc of gRefCOCO (arXiv 2308.16182).
    density_f1: of HumanRef (Rex-Thinker), over phrases that have gold boxes, mean over ten thresholds of IoU.
    il_mcc, pmf1, cgf1: of SAM 3 (facebookresearch/sam3, sam3/eval/cgf1_eval.py), where each phrase of an image is a
        sample of its own: the correlation of "said to be there" with "is there"; micro F1 over phrases that are there,
        mean over the ten thresholds; their product. SAM 3 prints a hundred times pmf1 and cgf1, keeps scores from 0.5
        on, and matches for the largest sum of IoU where we take the largest IoU first.
    """
    tp, fn, fp, tn = (sums["confusion"][..., n] for n in range(4))
    phrases, density = tp + fn + fp + tn, share(sums["density"], (tp + fn)[..., None])
    pmf1 = share(2 * sums["right_at"], (sums["gold"] + sums["found_there"])[..., None]).mean(-1)
    margins = (tp + fp) * (tn + fn)
    both = (tp + fn) * (fp + tn)  # without phrases of either kind there is nothing to tell apart
    mcc = np.where(both > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(margins * both, 1)), np.nan)
    return {
        "gprec_f1": share(sums["perfect"], phrases),
        "n_acc": share(tn, fp + tn),
        "t_acc": share(tp, tp + fn),
        "cgf1": pmf1 * mcc,
        "pmf1": pmf1,
        "il_mcc": mcc,
        "density_f1": density.mean(-1),
        "density_f1_0.5": density[..., 0],
        "grounded_share": share(sums["said"], phrases),
    }


def box_figures(sums: Sums, threshold: float) -> Sums:
    """Precision and recall of all boxes; found ones of phrases that the gold doesn't have (`extra`) are wrong."""
    return {
        f"precision_at_iou_{threshold:g}": share(sums["right"], sums["found"] + sums["extra"]),
        f"recall_at_iou_{threshold:g}": share(sums["right"], sums["gold"]),
        "mean_iou_of_right_boxes": share(sums["iou"], sums["right"]),
    }
