"""Each measure as a ratio of sums: what counts for phrases and captions adds up for images, groups,
all, draws.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from dataflow_grounding.boxes.geometry import Bbox, around
from dataflow_grounding.boxes.matching import first_free
from dataflow_grounding.extras.evaluation.metrics.pairs import (
    THRESHOLDS,
    Overlap,
    PairedRecord,
    Row,
    Rules,
    one_to_one,
    overlaps_of,
)

Span = tuple[int, int]
# an expression without boxes may be there
_OPEN = ("ambiguous", "unsupported", "pending", "failed")
WHOLES = {
    "one": ("acc_0.5", "acc_0.75", "acc_0.9", "macc", "miou"),
    "boxed": (
        "r1_any",
        "r5_any",
        "r10_any",
        "r1_merged",
        "r5_merged",
        "r10_merged",
        "t_acc",
        "density_f1",
    ),
    "absent": ("n_acc",),
    "judged": ("gprec_f1", "grounded_share"),
    "boxes_there": ("pmf1",),
    "boxes": ("precision",),
    "gold_boxes": ("recall",),
    "recall": ("mean_iou_of_right_boxes",),
    "spans": ("span_exact_f1", "span_overlap_f1"),
    "span_letters": ("span_char_f1",),
    "span_boxes": ("joint",),
}
"""What each measure is a share of: `one`, the phrases with one gold box; `boxed`, those with any.
All are summed.
"""


def of_phrase(
    gold: Mapping[str, Any], found: Mapping[str, Any] | None, rules: Rules
) -> tuple[dict[str, float], list[tuple[float, bool]]]:
    """What counts for a phrase, and the score of each box that has one, and whether it is right."""
    wanted, given = rules.boxes_of(gold), rules.boxes_of(found)
    overlaps = overlaps_of(given, wanted, rules)
    merged = overlaps_of(given, [around(wanted)] if wanted else [], rules)
    right = {
        overlap.found
        for overlap in one_to_one(overlaps, rules)
        if rules.passes(overlap.held, rules.threshold)
    }
    judged = _says(gold)
    boxes = found["instances"] if found and judged else []
    scored = [(box["score"], n in right) for n, box in enumerate(boxes) if box["score"] is not None]
    bins = [0.0] * 10  # in each, how far right is from the score (Guo 2017)
    for score, is_right in scored:
        bins[min(int(score * 10), 9)] += is_right - score
    counted = rules.counted(found)
    matched = one_to_one([overlap for overlap in overlaps if overlap.found in counted], rules)
    answered = judged and found is not None and _says(found)
    columns = {
        **_of_first(overlaps, len(wanted) == 1, rules),
        **_of_rank("any", overlaps, rules),
        **_of_rank("merged", merged, rules),
        **_of_set(matched, len(wanted), len(counted) * judged, answered, rules),
        "boxed": bool(wanted),
        "judged": judged,
        "absent": judged and not wanted,
        "scored_boxes": len(scored),
        **{f"bin_{n}": apart for n, apart in enumerate(bins)},
    }
    return columns, scored


def _says(phrase: Mapping[str, Any]) -> bool:
    """Whether a phrase says what is there: no answer is not "there is none"."""
    return bool(phrase["instances"]) or phrase.get("status") not in _OPEN


def _of_first(overlaps: list[Overlap], one: bool, rules: Rules) -> dict[str, float]:
    """RefCOCO's and Ref-L4's, of phrases with one gold box."""
    held, iou = (
        max((pair[n] for pair in overlaps if pair.found == 0), default=0.0) for n in (0, 1)
    )
    right = [one and rules.passes(held, t) for t in THRESHOLDS]
    accuracy = {
        "acc_0.5": right[0],
        "acc_0.75": right[5],
        "acc_0.9": right[8],
        "macc": sum(right) / len(right),
    }
    return {"one": one, **accuracy, "miou": one * iou, "held": held}


def _of_rank(kind: str, overlaps: list[Overlap], rules: Rules) -> dict[str, float]:
    """Flickr30k's: whether one of the first boxes meets a gold box (ANY), or the box around them
    all (MERGED).
    """
    ranks = [overlap.found for overlap in overlaps if rules.passes(overlap.held, rules.threshold)]
    return {f"r{most}_{kind}": min(ranks, default=most) < most for most in (1, 5, 10)}


def _of_set(
    matched: list[Overlap], wanted: int, boxes: int, answered: bool, rules: Rules
) -> dict[str, float]:
    """Of gRefCOCO (gprec_f1, n_acc, t_acc; arXiv 2308.16182), HumanRef (density_f1), SAM 3
    (sam3/eval/cgf1_eval.py).
    """
    right = [overlap.iou for overlap in matched if rules.passes(overlap.held, rules.threshold)]
    twice = (
        2
        * sum(rules.passes(overlap.held, t) for overlap in matched for t in THRESHOLDS)
        / len(THRESHOLDS)
    )
    return {
        "boxes": boxes,
        "gold_boxes": wanted,
        "precision": len(right),
        "recall": len(right),
        "mean_iou_of_right_boxes": sum(right),
        "grounded_share": boxes > 0,
        "gprec_f1": answered and len(right) == wanted == boxes,
        "t_acc": wanted > 0 and boxes > 0,
        "n_acc": answered and wanted == boxes == 0,
        "density_f1": twice / max(wanted + boxes, 1) * min(1.0, wanted / max(boxes, 1)),
        "pmf1": twice,
        "boxes_there": (wanted + boxes) * (wanted > 0),
    }


def of_caption(record: PairedRecord, rules: Rules) -> dict[str, float]:
    """What counts for the spans of a record; nothing where the captions differ."""
    sides = (record.gold, record.found or {**record.gold, "expressions": []})
    one, other = (side["cleaned_caption"] or side["caption"] for side in sides)
    gold, found = (_spans(side, rules) if one == other else {} for side in sides)
    letters, theirs = ({n for span in spans for n in range(*span)} for spans in (gold, found))
    equal, right = gold.keys() & found.keys(), 0
    for span in equal:
        overlaps = overlaps_of(found[span], gold[span], rules)
        right += sum(
            rules.passes(pair.held, rules.threshold) for pair in one_to_one(overlaps, rules)
        )
    # the longest overlap first
    near = sorted((max(a[0], b[0]) - min(a[1], b[1]), a, b) for a in gold for b in found)
    return {
        "span_exact_f1": 2 * len(equal),
        "span_overlap_f1": 2 * len(first_free((a, b) for apart, a, b in near if apart < 0)),
        "span_char_f1": 2 * len(letters & theirs),
        "joint": 2 * right,
        "spans": len(gold) + len(found),
        "span_letters": len(letters) + len(theirs),
        "span_boxes": sum(map(len, (*gold.values(), *found.values()))),
    }


def _spans(record: Row, rules: Rules) -> dict[Span, list[Bbox]]:
    """The boxes of each span, of all its phrases, in an order of their own."""
    spans = defaultdict[Span, list[Bbox]](list)
    for phrase in record["expressions"]:
        if span := phrase.get("char_span"):
            spans[span[0], span[1]] += rules.boxes_of(phrase)
    return {span: sorted(boxes) for span, boxes in spans.items()}


def figures_of(sums: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Every measure whose sums are there, also those that are no ratios: MCC, cgF1, calibration
    error.
    """
    measured = (
        (name, sums[name], sums[whole])
        for whole in sums
        if whole in WHOLES
        for name in WHOLES[whole]
    )
    at = {name: f"{name}_at_iou_{rules.threshold:g}" for name in ("precision", "recall")}
    figures = {at.get(name, name): share(part, whole) for name, part, whole in measured}
    there, absent, tp, tn = (sums[name] for name in ("boxed", "absent", "t_acc", "n_acc"))
    said = tp + absent - tn
    # 0: nothing to tell apart
    spread = np.sqrt(np.maximum(said * (there + absent - said), 1) * there * absent)
    figures["il_mcc"] = share(tp * tn - (absent - tn) * (there - tp), spread)
    figures["cgf1"] = figures["pmf1"] * figures["il_mcc"]
    figures["ece"] = share(sum(np.abs(sums[f"bin_{n}"]) for n in range(10)), sums["scored_boxes"])
    return figures


def share(part: Any, whole: Any) -> Any:
    """Their ratio; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)
