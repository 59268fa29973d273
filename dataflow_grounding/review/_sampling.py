"""What reviewers said of a sample's boxes and phrases, and shares with bounds from that.

An item, a box or a phrase without one, is settled once a reviewer has judged it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from dataflow_grounding.boxes.geometry import COCO_SIZES, area, coco_size
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.review._index import items_of
from dataflow_grounding.review._overlay import Outcome, reviewer_verdict
from dataflow_grounding.review._record_view import phrases_of
from dataflow_grounding.review.reviewable import Place, Reviewable


@dataclass
class Share:
    """How many items of a sample are wrong, and what that says of all that it was drawn of.

    An open verdict counts as wrong in the share and the upper bound, and as right in the lower
    bound.
    """

    wrong: int
    unsettled: int
    looked_at: int
    of: int
    share: float | None
    low: float
    high: float
    phrases: int | None = None  # of which it is the share, where that isn't `of`

    def to_json(self) -> dict[str, float | None]:
        row: dict[str, float | None] = asdict(self)
        if self.phrases is None:
            del row["phrases"]
        return row


def settled_of(
    outcomes: Mapping[int, Mapping[str, Outcome]], places: Collection[Place]
) -> dict[Place, bool | None]:
    """Return for each item whether it is right as the pipeline wrote it; None if nobody decided.

    `outcomes` are those of the items' records, by index.
    """
    settled: dict[Place, bool | None] = dict.fromkeys(places)  # None for each
    for place in places:
        outcome = outcomes[place.record].get(place.item.id)
        if outcome is not None and outcome.before is not None:
            settled[place] = _is_right(outcome.before, outcome, place.item.box)
    return settled


def _is_right(original: Expression, outcome: Outcome, box: int | None) -> bool | None:
    """Return whether an item was right as the pipeline wrote it; None if nobody judged it."""
    after = outcome.after
    if after is None or after.text != original.text:
        return False
    if box is None:
        return False if after.instances else reviewer_verdict(after)  # a person drew one
    index = outcome.index_after(box)
    if index is None:  # it was deleted
        return False
    verdict = reviewer_verdict(after.instances[index])
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
            of_item = {"status": row.shown_status}
            if row.was_checked and not row.reviewed_by:  # by the pipeline
                method = row.verification.method if row.verification else "check"
                of_item["check"] = f"{method}: {row.verdict}"
            of_item["model"] = model
            if item.box is not None:
                of_item["size"] = COCO_SIZES[coco_size(area(row.instances[item.box].bbox))]
            if "class" in row.keys:
                of_item["class"] = row.stated_class or class_key(row.text)
            groups[Place(index, item)] = of_item
    return groups, phrase_count


def share_of_phrases(missed: Share, phrase_count: int) -> Share:
    """Return the share of all phrases: 1.25% if 10% of 50 without a box are missed, of 400."""
    # no phrase with a box can be missed
    part = missed.of / phrase_count if phrase_count else 0.0
    return replace(
        missed,
        share=missed.share and round(missed.share * part, 6),
        low=round(missed.low * part, 6),
        high=round(missed.high * part, 6),
        phrases=phrase_count,
    )


def shares_by_group(
    groups: Mapping[Place, Mapping[str, str]],
    verdicts_on_boxes: Mapping[Place, bool | None],
    level: float,
) -> dict[str, dict[str, Share]]:
    """Return the shares of boxes: {"size": {"large": …, "small": …}, "class": {…}}."""
    box_counts = Counter[tuple[str, str]]()  # by ("size", "large") and so on
    for place, groups_of_item in groups.items():
        if place.item.box is not None:
            box_counts.update(groups_of_item.items())
    # the verdicts on boxes of the sample, also by ("size", "large") and so on
    verdicts = defaultdict[tuple[str, str], list[bool | None]](list)
    for place, is_right in verdicts_on_boxes.items():
        for group in groups[place].items():
            verdicts[group].append(is_right)
    shares = defaultdict[str, dict[str, Share]](dict)
    for name, value in sorted(box_counts):
        group = (name, value)
        shares[name][value] = share_with_bounds(verdicts[group], box_counts[group], level)
    return shares


def share_with_bounds(verdicts: Sequence[bool | None], total: int, level: float) -> Share:
    """Return the share of what is wrong, with exact bounds.

    With 2 wrong and 5 right ones of 10, it is at least 20%, if the other three are right, and at
    most 50%, if they are wrong.
    """
    # It loads numpy, which takes a moment, and which a review without a sample does without.
    from dataflow_grounding.evaluation.metrics.bounds import clopper_pearson

    looked_at = len(verdicts)
    counts = Counter(verdicts)
    if total == 0:  # there is nothing that could be wrong, and nothing to look at
        return Share(0, 0, looked_at, total, 0.0, 0.0, 0.0)
    wrong = counts[False]
    not_right = looked_at - counts[True]  # wrong or open
    low, _ = clopper_pearson(wrong, looked_at, level)
    _, high = clopper_pearson(not_right, looked_at, level)
    return Share(
        wrong,
        counts[None],
        looked_at,
        total,
        round(not_right / looked_at, 6) if looked_at else None,
        round(max(low, wrong / total), 6),  # if all others were right
        round(min(high, 1 - counts[True] / total), 6),  # if all others were wrong
    )
