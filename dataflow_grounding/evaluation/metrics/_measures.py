"""Each measure as a ratio of two sums.

A phrase, and a caption, has columns: for each measure what it adds to the numerator, and for each
denominator what it adds to that. Columns are summed over an image, a group of phrases, all images
or a bootstrap sample, and `figures_from_sums` divides.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.boxes.matching import first_free
from dataflow_grounding.evaluation.metrics.pairs import (
    MOST_PAIRS,
    THRESHOLDS,
    Overlap,
    PairedRecord,
    Row,
    Rules,
    boxes_of,
    nearest,
    one_to_one,
    overlaps_of,
)

Span = tuple[int, int]  # [start, end) in a caption
ScoredVerdict = tuple[float, bool]  # a box's score, and whether the box is right
# a phrase of such a status without boxes may be in the picture all the same
_OPEN_STATUSES = ("ambiguous", "unsupported", "pending", "failed")
MEASURES_OF = {
    "one": ("acc_0.5", "acc_0.75", "acc_0.9", "macc", "miou"),
    "boxed": (
        "r1_any",
        "r5_any",
        "r10_any",
        "t_acc",
    ),
    "absent": ("n_acc",),
    "judged": ("gprec_f1", "grounded_share"),
    "boxes_where_gold": ("pmf1",),
    "boxes": ("precision",),
    "gold_boxes": ("recall",),
    "recall": ("mean_iou_of_right_boxes",),
    "spans": ("span_exact_f1", "span_overlap_f1"),
    "span_boxes": ("joint",),
}
"""Column of a denominator → columns of the measures that are divided by it.

`one` counts phrases with one gold box, `boxed` those with any, `absent` those that the gold says
have none, `judged` both; `boxes` and `gold_boxes` count boxes of judged phrases,
`boxes_where_gold` both kinds together where the gold has any. The column `recall`, a count of right
boxes, is a denominator too.
"""
_BINS = 10  # of scores, for the calibration error


def phrase_columns(
    gold: Mapping[str, Any], found: Mapping[str, Any] | None, rules: Rules
) -> tuple[dict[str, float], list[ScoredVerdict]]:
    """Return what a phrase adds to each sum, and for each scored box whether it is right."""
    gold_boxes = boxes_of(gold)
    overlaps = overlaps_of(boxes_of(found), gold_boxes)
    judged = is_judged(gold)  # else it has 0 where boxes are counted, and no scored boxes
    scored: list[ScoredVerdict] = []
    if found and judged:
        scored = _scored_verdicts(found, overlaps, rules)
    counted_boxes = rules.counted_boxes(found)  # indices, without boxes below the score cut
    counted_overlaps = [overlap for overlap in overlaps if overlap.found in counted_boxes]
    matched = one_to_one(counted_overlaps, rules)
    # Both sides say what is in the picture: the answer can be right.
    answered = judged and found is not None and is_judged(found)
    found_count = len(counted_boxes) if judged else 0
    columns = {
        **_first_box_columns(overlaps, has_one_gold_box=len(gold_boxes) == 1),
        **_rank_columns(overlaps, rules),
        **_box_set_columns(matched, len(gold_boxes), found_count, answered, rules),
        "boxed": bool(gold_boxes),
        "judged": judged,
        "absent": judged and not gold_boxes,
        "scored_boxes": len(scored),
        **_calibration_columns(scored),
    }
    return columns, scored


def is_judged(phrase: Mapping[str, Any]) -> bool:
    """Return whether a phrase says what is in the picture: its boxes, or that there is none."""
    return bool(phrase["instances"]) or phrase.get("status") not in _OPEN_STATUSES


def _scored_verdicts(
    found: Mapping[str, Any], overlaps: list[Overlap], rules: Rules
) -> list[ScoredVerdict]:
    right = set[int]()  # indices of found boxes
    for overlap in one_to_one(overlaps, rules):
        if overlap.iou >= rules.threshold:
            right.add(overlap.found)
    scored = []
    # Boxes below the cut, too: they show which cut would be good.
    for index, box in enumerate(found["instances"]):
        if box["score"] is not None:
            scored.append((box["score"], index in right))
    return scored


def _calibration_columns(scored: list[ScoredVerdict]) -> dict[str, float]:
    """Return how far scores are off, summed by score: `bin_3` has those from 0.3 up to 0.4."""
    # The expected calibration error is made of the bins' absolute sums (Guo 2017).
    bins = [0.0] * _BINS
    for score, is_right in scored:
        number = min(int(score * _BINS), _BINS - 1)  # a score of 1 is in the last one
        bins[number] += int(is_right) - score
    return {f"bin_{number}": difference for number, difference in enumerate(bins)}


def _first_box_columns(overlaps: list[Overlap], has_one_gold_box: bool) -> dict[str, float]:
    """Return the columns of the first found box, which is the surest."""
    ious_of_first_box = [overlap.iou for overlap in overlaps if overlap.found == 0]
    first_iou = max(ious_of_first_box, default=0.0)
    # All but `first_iou` are measures of phrases for one thing.
    iou = first_iou if has_one_gold_box else 0.0
    is_right_at = {threshold: iou >= threshold for threshold in THRESHOLDS}
    return {
        "one": has_one_gold_box,
        "acc_0.5": is_right_at[0.5],
        "acc_0.75": is_right_at[0.75],
        "acc_0.9": is_right_at[0.9],
        "macc": sum(is_right_at.values()) / len(THRESHOLDS),  # the mean of all ten
        "miou": iou,
        "first_iou": first_iou,
    }


def _rank_columns(overlaps: list[Overlap], rules: Rules) -> dict[str, float]:
    """Return Flickr30k's measures: whether one of the first 1, 5, 10 boxes is right."""
    columns: dict[str, float] = {}
    for most in (1, 5, 10):
        first_boxes = [overlap for overlap in overlaps if overlap.found < most]
        columns[f"r{most}_any"] = any(overlap.iou >= rules.threshold for overlap in first_boxes)
    return columns


def _box_set_columns(
    matched: list[Overlap], gold_count: int, found_count: int, answered: bool, rules: Rules
) -> dict[str, float]:
    right = [overlap.iou for overlap in matched if overlap.iou >= rules.threshold]
    thresholds_reached = 0  # by all boxes together
    for overlap in matched:
        for threshold in THRESHOLDS:
            if overlap.iou >= threshold:
                thresholds_reached += 1
    # Each is a numerator. MEASURES_OF says by which column it is divided, once both are summed: so
    # precision and recall are both the number of right boxes.
    return {
        "boxes": found_count,
        "gold_boxes": gold_count,
        "precision": len(right),
        "recall": len(right),
        "mean_iou_of_right_boxes": sum(right),
        "grounded_share": found_count > 0,
        # all gold boxes found, and no other box
        "gprec_f1": answered and len(right) == gold_count == found_count,
        # the thing is there, and the answer says so; it is absent, and the answer says so
        "t_acc": gold_count > 0 and found_count > 0,
        "n_acc": answered and gold_count == 0 and found_count == 0,
        # The numerator of F1 is twice the right boxes. Here it is the mean over all thresholds.
        "pmf1": 2 * thresholds_reached / len(THRESHOLDS),
        "boxes_where_gold": gold_count + found_count if gold_count else 0,
    }


def caption_columns(record: PairedRecord, rules: Rules) -> dict[str, float]:
    """Return a record's columns of its caption's spans, and their boxes, on both sides."""
    # All are 0 where the two captions differ: their spans can't be compared.
    gold: dict[Span, list[Bbox]] = {}
    found: dict[Span, list[Bbox]] = {}
    if record.found is None or _caption_of(record.found) == _caption_of(record.gold):
        gold = _boxes_by_span(record.gold)
        found = _boxes_by_span(record.found) if record.found else {}
    equal_spans = gold.keys() & found.keys()
    right_boxes = 0
    for span in equal_spans:
        for overlap in one_to_one(overlaps_of(found[span], gold[span]), rules):
            if overlap.iou >= rules.threshold:
                right_boxes += 1
    # All three measures are F1: twice what both sides share, by what each side has.
    return {
        "span_exact_f1": 2 * len(equal_spans),
        "span_overlap_f1": 2 * _count_overlapping_spans(gold, found),
        "joint": 2 * right_boxes,
        "spans": len(gold) + len(found),
        "span_boxes": sum(map(len, gold.values())) + sum(map(len, found.values())),
    }


def _caption_of(record: Row) -> Any:
    return record["cleaned_caption"] or record["caption"]


def _boxes_by_span(record: Row) -> dict[Span, list[Bbox]]:
    by_span = defaultdict[Span, list[Bbox]](list)
    for phrase in record["expressions"]:
        span = phrase.get("char_span")
        if span:
            by_span[span[0], span[1]] += boxes_of(phrase)
    return {span: sorted(boxes) for span, boxes in by_span.items()}


def _count_overlapping_spans(gold: Iterable[Span], found: Iterable[Span]) -> int:
    """Return how many pairs of spans overlap, the longest overlap first, no span twice."""
    found_spans = sorted(found)
    gold_spans = list(gold)
    # Of more than MOST_PAIRS possible pairs, only spans that begin near each other are compared.
    most_compared = len(found_spans)
    if len(gold_spans) * len(found_spans) > MOST_PAIRS:
        most_compared = max(MOST_PAIRS // len(gold_spans), 1)
    overlapping = []
    for gold_span in gold_spans:
        for place in nearest(found_spans, gold_span, most_compared):
            found_span = found_spans[place]
            start = max(gold_span[0], found_span[0])
            end = min(gold_span[1], found_span[1])
            shared_letters = end - start
            if shared_letters > 0:
                overlapping.append((-shared_letters, gold_span, found_span))
    overlapping.sort()
    longest_first = [(gold_span, found_span) for _, gold_span, found_span in overlapping]
    return len(first_free(longest_first))


def figures_from_sums(sums: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Return every measure by its name; NaN where there is nothing to divide by."""
    # A sum may be a number, or an array with a value for each bootstrap sample.
    figures = {}
    # This order of the sums is also the order in which figures are shown.
    for denominator in sums:
        for name in MEASURES_OF.get(denominator, ()):
            shown_name = name
            if name in ("precision", "recall"):
                shown_name = f"{name}_at_iou_{rules.threshold:g}"
            figures[shown_name] = share(sums[name], sums[denominator])
    boxes_of_both = sums["boxes"] + sums["gold_boxes"]
    figures[f"f1_at_iou_{rules.threshold:g}"] = share(2 * sums["recall"], boxes_of_both)
    figures["il_mcc"] = _matthews(sums)
    figures["cgf1"] = figures["pmf1"] * figures["il_mcc"]
    differences = sum(np.abs(sums[f"bin_{number}"]) for number in range(_BINS))
    figures["ece"] = share(differences, sums["scored_boxes"])
    return figures


def _matthews(sums: Mapping[str, Any]) -> Any:
    """Return Matthews' correlation of both sides' verdicts on whether phrases are there."""
    # The gold has no phrase with boxes, or none without: NaN. All answers are alike: 0.
    present = sums["boxed"]
    absent = sums["absent"]
    true_positives = sums["t_acc"]
    true_negatives = sums["n_acc"]
    false_positives = absent - true_negatives
    false_negatives = present - true_positives
    said_present = true_positives + false_positives
    said_absent = present + absent - said_present
    # Where all answers are alike, this product and the numerator are 0. With 1 in place of the
    # product, the correlation is 0, not NaN.
    said_product = np.maximum(said_present * said_absent, 1)
    agreement = true_positives * true_negatives - false_positives * false_negatives
    return share(agreement, np.sqrt(said_product * present * absent))


def share(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)
