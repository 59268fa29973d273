"""What reviewers said of a sample's boxes and phrases, and shares with bounds from that.

An item, a box or a phrase without one, is settled once a reviewer has judged it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dataflow_grounding.boxes.geometry import COCO_SIZES, area, box_of, coco_size
from dataflow_grounding.data.classes import class_of
from dataflow_grounding.data.records import verdict_of, was_checked
from dataflow_grounding.data.verification import read_verification
from dataflow_grounding.formats.selection import status_of
from dataflow_grounding.review._index import items_of
from dataflow_grounding.review._overlay import Outcome, reviewer_verdict
from dataflow_grounding.review._record_view import Expression, phrases_of
from dataflow_grounding.review.reviewable import Place, Reviewable


def settled_of(reviewable: Reviewable, places: Collection[Place]) -> dict[Place, bool | None]:
    """Return for each item whether it is right as the pipeline wrote it; None if nobody decided."""
    settled: dict[Place, bool | None] = dict.fromkeys(places)  # None for each
    for place in places:
        outcome = reviewable.review_of(place.record).outcomes.get(place.item.id)
        if outcome is not None and outcome.before is not None:
            settled[place] = _is_right(outcome.before, outcome, place.item.box)
    return settled


def _is_right(original: Expression, outcome: Outcome, box: int | None) -> bool | None:
    """Return whether an item was right as the pipeline wrote it; None if nobody judged it."""
    after = outcome.after
    if after is None or after["text"] != original["text"]:
        return False
    if box is None:
        if after["instances"]:  # a person drew one
            return False
        return reviewer_verdict(after)
    index = outcome.index_after(box)
    if index is None:  # it was deleted
        return False
    verdict = reviewer_verdict(after["instances"][index])
    if verdict is None:  # perhaps it was shifted, and nobody judged it since
        return None
    is_redrawn = outcome.box_after(box) is None
    if is_redrawn:  # the verdict is on the new box: this one was wrong
        return False
    return verdict


def groups_of(
    reviewable: Reviewable, run_model: str = ""
) -> tuple[dict[Place, dict[str, str]], int]:
    """Return the groups that each item is in, and how many phrases there are.

    An item may be in {"size": "large", "status": "grounded", "class": "cup", "model": "gemini-3",
    "check": "ask: verified"}. `run_model` is that of records that name none.
    """
    groups: dict[Place, dict[str, str]] = {}
    phrase_count = 0
    for index in range(len(reviewable.keys)):
        record = reviewable.record(index)
        phrases = phrases_of(record)
        model = str(record.get("model") or run_model or "unknown")
        phrase_count += len(phrases.rows)
        for item in items_of(phrases):
            row = phrases.rows[item.id]
            of_item = {**_groups_of_phrase(row), "model": model}
            if item.box is not None:
                box = box_of(row["instances"][item.box]["bbox"])
                of_item["size"] = COCO_SIZES[coco_size(area(box))]
            if "class" in row:
                of_item["class"] = class_of(row)
            groups[Place(index, item)] = of_item
    return groups, phrase_count


def _groups_of_phrase(row: Expression) -> dict[str, str]:
    groups = {"status": status_of(row)}
    is_checked_by_pipeline = was_checked(row) and not row.get("reviewed_by")
    if is_checked_by_pipeline:
        verification = read_verification(row)
        method = verification.method if verification else "check"
        groups["check"] = f"{method}: {verdict_of(row)}"
    return groups


def sample_figures(
    groups: Mapping[Place, Mapping[str, str]],
    phrase_count: int,
    settled: Mapping[Place, bool | None],
    level: float = 0.95,
) -> dict[str, Any]:
    """Return how many boxes of a sample are wrong, and how many phrases were missed.

    `groups` and `phrase_count` are of the whole file; `settled` is of the sample.
    """
    verdicts_on_boxes = {
        place: right for place, right in settled.items() if place.item.box is not None
    }
    verdicts_on_phrases = [right for place, right in settled.items() if place.item.box is None]
    without_box = sum(place.item.box is None for place in groups)
    box_count = len(groups) - without_box
    return {
        "boxes": share_with_bounds([*verdicts_on_boxes.values()], box_count, level),
        "phrases_missed": _missed(verdicts_on_phrases, without_box, phrase_count, level),
        "by": _figures_by_group(groups, verdicts_on_boxes, level),
    }


def _missed(
    verdicts: Sequence[bool | None], without_box: int, phrase_count: int, level: float
) -> dict[str, Any]:
    missed = share_with_bounds(verdicts, without_box, level)  # no other phrase can be missed
    missed["phrases"] = phrase_count
    # The share is of all phrases: 1.25% if 10% of 50 without a box are missed, of 400 in all.
    for name in ("share", "low", "high"):
        if missed[name]:  # neither None nor 0
            missed[name] = round(missed[name] * without_box / phrase_count, 6)
    return missed


def _figures_by_group(
    groups: Mapping[Place, Mapping[str, str]],
    verdicts_on_boxes: Mapping[Place, bool | None],
    level: float,
) -> dict[str, dict[str, Any]]:
    """Return the figures of boxes: {"size": {"large": {…}, "small": {…}}, "class": {…}}."""
    box_counts = Counter[tuple[str, str]]()  # by ("size", "large") and so on
    for place, groups_of_item in groups.items():
        if place.item.box is not None:
            box_counts.update(groups_of_item.items())
    # the verdicts on boxes of the sample, also by ("size", "large") and so on
    verdicts = defaultdict[tuple[str, str], list[bool | None]](list)
    for place, is_right in verdicts_on_boxes.items():
        for group in groups[place].items():
            verdicts[group].append(is_right)
    figures = defaultdict[str, dict[str, Any]](dict)
    for name, value in sorted(box_counts):
        group = (name, value)
        figures[name][value] = share_with_bounds(verdicts[group], box_counts[group], level)
    return figures


def share_with_bounds(
    verdicts: Sequence[bool | None], total: int | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Return counts of a sample's verdicts, and the share of what is wrong, with exact bounds.

    An open verdict, None, counts as wrong in the share and the upper bound, and as right in the
    lower bound. The sample was drawn of `total` items. With 2 wrong and 5 right ones of 10, the
    share is at least 20%, if the other three are right, and at most 50%, if they are wrong.
    """
    # It loads numpy, which takes a moment, and which a review without a sample does without.
    from dataflow_grounding.evaluation.metrics.bounds import clopper_pearson

    looked_at = len(verdicts)
    counts = Counter(verdicts)
    right = counts[True]
    wrong = counts[False]
    not_right = looked_at - right  # wrong or open
    result: dict[str, Any] = {"wrong": wrong, "unsettled": counts[None], "looked_at": looked_at}
    if total is not None:
        result["of"] = total
    if total == 0:  # there is nothing that could be wrong, and nothing to look at
        return {**result, "share": 0.0, "low": 0.0, "high": 0.0}
    low, _ = clopper_pearson(wrong, looked_at, level)
    _, high = clopper_pearson(not_right, looked_at, level)
    if total is not None:
        low = max(low, wrong / total)  # if all others were right
        high = min(high, 1 - right / total)  # if all others were wrong
    share = round(not_right / looked_at, 6) if looked_at else None
    return {**result, "share": share, "low": round(low, 6), "high": round(high, 6)}
