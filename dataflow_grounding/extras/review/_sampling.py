"""What reviewers said of a sample's boxes and phrases, and shares with bounds from that."""

import os
import random
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.boxes.geometry import area, box_of, iou
from dataflow_grounding.data.records import VERDICTS
from dataflow_grounding.extras.review._decisions import Decisions
from dataflow_grounding.extras.review._overlay import Truth, version_of, word_of
from dataflow_grounding.extras.review._record_view import Expression, expressions_of
from dataflow_grounding.extras.review.queues import Item, Reviewable, records_with_keys

SIZES = ("small, < 32² px", "medium, < 96² px", "large")  # COCO's
SIZE_AREAS = (32**2, 96**2)  # square pixels from which a box is medium, and large
GOLD_IOU = 0.5  # from which a box is the gold's
LEAST_MIXED_IN = 10  # items that gold knows, in a sample


def settled_of(
    reviewable: Reviewable, decisions: Decisions, items: Collection[Item]
) -> dict[Item, bool | None]:
    """Which items are right as the pipeline left them.

    None where nobody decided on these boxes, or a blind second review says otherwise.
    """
    settled: dict[Item, bool | None] = {}
    for item in items:
        key = reviewable.keys[item.record]
        original = expressions_of(reviewable.record(item.record))[item.id]
        words: dict[str, bool | None] = {}
        for who, standing in decisions.standing.items():
            truth = standing.truths.get(key, {}).get(item.id)
            if truth and version_of(truth.before) == version_of(original):
                words[who] = _is_right(original, truth, item.box)
        first = words.get("")
        is_disputed = first is not None and (not first) in words.values()
        settled[item] = None if is_disputed else first
    return settled


def _is_right(original: Expression, truth: Truth, box: int | None) -> bool | None:
    """What a reviewer says of a box under its phrase, or of a phrase without a box, as it was.

    None where no word stands on it.
    """
    after = truth.expression
    if not after or after["text"] != original["text"]:
        return False
    if box is None:
        return False if after["instances"] else word_of(after)
    judged = truth.box(box)
    return word_of(judged) if judged else False


def gold_answers(reviewable: Reviewable, gold: str) -> dict[Item, bool]:
    """Which items are right, of those that a file of right boxes has the phrases of.

    Phrases are the same by record and text, a box is right from IoU 0.5.

    Raises InputError where it comes from these reviews, can't be read, or has none of the phrases.
    """
    if os.path.realpath(gold) in map(os.path.realpath, reviewable.files):
        raise InputError(
            f"{gold} is what is reviewed, or comes of it: gold has to be somebody else's"
        )
    gold_boxes = _gold_boxes(gold)
    answers: dict[Item, bool] = {}
    for item in reviewable.items:
        right = gold_boxes.get((reviewable.keys[item.record], item.text))
        if right is None:
            continue
        if item.box is None:
            answers[item] = not right
        else:
            own = box_of(_instance_of(reviewable, item)["bbox"])
            answers[item] = any(iou(own, box_of(bbox)) >= GOLD_IOU for bbox in right)
    if not answers:
        raise InputError(
            f"{gold} has none of the phrases of {reviewable.files.annotations}, by image_id and"
            " text"
        )
    return answers


def _gold_boxes(gold: str) -> dict[tuple[str, str], list[Any]]:
    """The right boxes of phrases that were looked for, by record and text. Raises InputError."""
    boxes = defaultdict[tuple[str, str], list[Any]](list)
    for key, record in records_with_keys(gold):
        for row in expressions_of(record).values():
            if row["instances"] or row.get("status") == "none":
                right = boxes[key, row["text"]]
                for instance in row["instances"]:
                    if instance.get("verified") is not False:
                        right.append(instance["bbox"])
    return boxes


def _instance_of(reviewable: Reviewable, item: Item) -> dict[str, Any]:
    """The box of an item that has one, as the pipeline left it."""
    row = expressions_of(reviewable.record(item.record))[item.id]
    instance: dict[str, Any] = row["instances"][item.box]
    return instance


def mixed_in(known: Collection[Item], sample: Sequence[Item]) -> list[Item]:
    """Which of the items that gold knows are mixed into a sample, unseen.

    It is one for ten of the sample, and ten at least.
    """
    unseen = sorted(set(known) - set(sample), key=str)
    wanted = max(LEAST_MIXED_IN, len(sample) // 10)
    return random.Random(0).sample(unseen, min(len(unseen), wanted))


def groups_of(reviewable: Reviewable) -> dict[Item, dict[str, str]]:
    """The groups of each item, by name: its box's `size`, its `status`, its `model` and `check`.

    The last is what a check of the pipeline said, where there was one.
    """
    groups: dict[Item, dict[str, str]] = {}
    for place, items in groupby(reviewable.items, lambda item: item.record):
        record = reviewable.record(place)
        rows = expressions_of(record)
        model = str(record.get("model") or "unknown")
        for item in items:
            row = rows[item.id]
            own = {"status": item.status, "model": model}
            if item.box is not None:
                box = box_of(row["instances"][item.box]["bbox"])
                own["size"] = SIZES[bisect(SIZE_AREAS, area(box))]
            if "verified" in row and not row.get("reviewed_by"):
                own["check"] = _check_of(row)
            groups[item] = own
    return groups


def _check_of(row: Expression) -> str:
    """What a check of the pipeline said of an expression, and which check."""
    verification = row.get("verification")
    method = verification.get("method") if isinstance(verification, Mapping) else "check"
    verified = row["verified"]
    return f"{method}: {VERDICTS[verified if isinstance(verified, bool) else None]}"


def figures(
    groups: Mapping[Item, Mapping[str, str]],
    settled: Mapping[Item, bool | None],
    level: float = 0.95,
) -> dict[str, Any]:
    """The figures of a sample: how many boxes are wrong, and how many phrases were missed.

    Args:
        groups: Of all items, as `groups_of` gives them.
        settled: Of the sample's items, which are right.
        level: Of the bounds.

    Returns:
        `boxes`, a `figure`; the same `by` the name of groups and group; and `phrases_missed`, whose
        counts are of phrases without a box, and its shares of all phrases.
    """
    group_sizes = Counter[tuple[str, str]]()
    phrases = 0
    phrases_without_box = 0
    for item, own in groups.items():
        if item.box is not None:
            group_sizes.update(own.items())
        else:
            phrases_without_box += 1
        if not item.box:  # a phrase is counted by its first box, or by having none
            phrases += 1

    box_words: list[bool | None] = []
    phrase_words: list[bool | None] = []
    group_words = defaultdict[tuple[str, str], list[bool | None]](list)
    for item, is_right in settled.items():
        if item.box is None:
            phrase_words.append(is_right)
            continue
        box_words.append(is_right)
        for name, group in groups[item].items():
            group_words[name, group].append(is_right)

    by = defaultdict[str, dict[str, Any]](dict)
    for name, group in sorted(group_sizes):
        by[name][group] = figure(group_words[name, group], group_sizes[name, group], level)
    missed = figure(phrase_words, phrases_without_box, level)
    missed["phrases"] = phrases
    for name in ("share", "low", "high"):
        if missed[name]:
            missed[name] = round(missed[name] * phrases_without_box / phrases, 6)
    boxes = figure(box_words, len(groups) - phrases_without_box, level)
    return {"boxes": boxes, "phrases_missed": missed, "by": by}


def figure(
    words: Sequence[bool | None], of: int | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Counts of what is right, wrong and open, and the share of what is not right, with bounds.

    What is open counts as wrong, but not for the lower bound. Of a whole of `of`, bounds go no
    further than what was not looked at leaves open.

    Example:
        >>> figure([True] * 48 + [False, None], 1000)["high"]
        0.137138
    """
    from dataflow_grounding.extras.evaluation.metrics.confidence import clopper_pearson

    looked_at = len(words)
    counts = Counter(words)
    right = counts[True]
    wrong = counts[False]
    low, _ = clopper_pearson(wrong, looked_at, level)
    _, high = clopper_pearson(looked_at - right, looked_at, level)
    told: dict[str, Any] = {"wrong": wrong, "unsettled": counts[None], "looked_at": looked_at}
    share = round((looked_at - right) / looked_at, 6) if looked_at else None
    if of is not None:
        told["of"] = of
        low = max(low, wrong / max(of, 1))
        high = min(high, 1 - right / of) if of else 0.0
        if of == 0 and not looked_at:
            share = 0.0
    return {**told, "share": share, "low": round(low, 6), "high": round(high, 6)}
