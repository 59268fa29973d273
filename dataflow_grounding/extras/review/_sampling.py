"""What reviewers found of a sample's boxes and phrases as the pipeline left them, and shares with
bounds from that.
"""

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


def settled_of(
    reviewable: Reviewable, decisions: Decisions, items: Collection[Item]
) -> dict[Item, bool | None]:
    """Which items are right as the pipeline left them; None where nobody decided on these boxes, or
    a blind second review says otherwise.
    """
    found: dict[Item, bool | None] = {}
    for item in items:
        key, words = reviewable.keys[item.record], dict[str, "bool | None"]()
        original = expressions_of(reviewable.record(item.record))[item.id]
        for who, said in decisions.standing.items():
            truth = said.truths.get(key, {}).get(item.id)
            if truth and version_of(truth.before) == version_of(original):
                words[who] = _is_right(original, truth, item.box)
        stands = words.get("")
        found[item] = None if stands is None or (not stands) in words.values() else stands
    return found


def _is_right(original: Expression, truth: Truth, box: int | None) -> bool | None:
    """Whether a reviewer accepted a box, or that there is none, as it was under its phrase as it
    was; None: no word.
    """
    after, judged = truth.expression, truth.expression if box is None else truth.box(box)
    other = not after or after["text"] != original["text"] or (box is None and after["instances"])
    return False if other or not judged else word_of(judged)


def gold_answers(reviewable: Reviewable, gold: str) -> dict[Item, bool]:
    """Which items are right, of those that a file of right boxes has the phrases of, by record and
    text: from IoU 0.5.

    Raises InputError where it comes from these reviews, can't be read, or has none of the phrases.
    """
    if os.path.realpath(gold) in map(os.path.realpath, reviewable.files):
        raise InputError(
            f"{gold} is what is reviewed, or comes of it: gold has to be somebody else's"
        )
    boxes, found = defaultdict[Any, list[Any]](list), dict[Item, bool]()
    for key, record in records_with_keys(gold):
        for row in expressions_of(record).values():
            if row["instances"] or row.get("status") == "none":
                boxes[key, row["text"]] += [
                    i["bbox"] for i in row["instances"] if i.get("verified") is not False
                ]
    for item in reviewable.items:
        if (right := boxes.get((reviewable.keys[item.record], item.text))) is not None:
            found[item] = not right
            if item.box is not None:
                own = expressions_of(reviewable.record(item.record))[item.id]["instances"][
                    item.box
                ]["bbox"]
                found[item] = any(iou(box_of(own), box_of(bbox)) >= 0.5 for bbox in right)
    if not found:
        raise InputError(
            f"{gold} has none of the phrases of {reviewable.files.annotations}, by image_id and"
            " text"
        )
    return found


def mixed_in(known: Collection[Item], sample: Sequence[Item]) -> list[Item]:
    """Which of the items that gold knows are mixed into a sample, unseen: one for ten of it, and
    ten at least.
    """
    others = sorted({*known} - {*sample}, key=str)
    return random.Random(0).sample(others, min(len(others), max(10, len(sample) // 10)))


def groups_of(reviewable: Reviewable) -> dict[Item, dict[str, str]]:
    """Of each item its box's size, its status, model, and what a check of the pipeline said, where
    there was one.
    """
    found = dict[Item, dict[str, str]]()
    for place, items in groupby(reviewable.items, lambda item: item.record):
        record = reviewable.record(place)
        rows, model = expressions_of(record), str(record.get("model") or "unknown")
        for item in items:
            row = rows[item.id]
            found[item] = {"status": item.status, "model": model}
            if item.box is not None:
                found[item]["size"] = SIZES[
                    bisect((32**2, 96**2), area(box_of(row["instances"][item.box]["bbox"])))
                ]
            if "verified" in row and not row.get("reviewed_by"):
                told, said = row.get("verification"), row["verified"]
                method = told.get("method") if isinstance(told, Mapping) else "check"
                found[item]["check"] = (
                    f"{method}: {VERDICTS[said if isinstance(said, bool) else None]}"
                )
    return found


def figures(
    groups: Mapping[Item, Mapping[str, str]],
    settled: Mapping[Item, bool | None],
    level: float = 0.95,
) -> dict[str, Any]:
    """Of a sample, of which `settled` says what is right, from all items, which have `groups`:
    `boxes`, the same `by` group, and `phrases_missed`, whose counts are of phrases without a box,
    its shares of all phrases.
    """
    of = Counter(
        group for item, own in groups.items() for group in own.items() if item.box is not None
    )
    said, by = defaultdict[Any, list["bool | None"]](list), defaultdict[str, dict[str, Any]](dict)
    for item, right in settled.items():
        for group in ["boxes", *groups[item].items()] if item.box is not None else ["phrases"]:
            said[group].append(right)
    for name, group in sorted(of):
        by[name][group] = figure(said[name, group], of[name, group], level)
    phrases, without = (
        sum(not item.box for item in groups),
        sum(item.box is None for item in groups),
    )
    missed = figure(said["phrases"], without, level)
    of_all = {
        name: missed[name] and round(missed[name] * without / phrases, 6)
        for name in ("share", "low", "high")
    }
    boxes = figure(said["boxes"], len(groups) - without, level)
    return {"boxes": boxes, "phrases_missed": {**missed, "phrases": phrases, **of_all}, "by": by}


def figure(
    said: Sequence[bool | None], of: int | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Counts, and the share of what is not right, with bounds; what is open counts as wrong, but
    not for the lower.

    Of a whole of `of`, bounds go no further than what was not looked at leaves open.

    Example:
        >>> figure([True] * 48 + [False, None], 1000)["high"]
        0.137138
    """
    from dataflow_grounding.extras.evaluation.metrics.confidence import clopper_pearson

    counts, n = Counter(said), len(said)
    low, high = (
        clopper_pearson(counts[False], n, level)[0],
        clopper_pearson(n - counts[True], n, level)[1],
    )
    if of is not None:
        low, high = (
            max(low, counts[False] / max(of, 1)),
            min(high, 1 - counts[True] / of if of else 0.0),
        )
    told = {
        "wrong": counts[False],
        "unsettled": counts[None],
        "looked_at": n,
        **({} if of is None else {"of": of}),
    }
    share = round((n - counts[True]) / n, 6) if n else 0.0 if of == 0 else None
    return {**told, "share": share, "low": round(low, 6), "high": round(high, 6)}
