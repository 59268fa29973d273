"""COCO's average precision of phrases, in memory that grows by ten bytes a found box."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
_RECALLS = np.linspace(0, 1, 101)
_MOST_BOXES = 100  # of a phrase, the surest

Ranked = tuple[float, float, float, float, float | None]
"""A box's corners, and its score."""


class AveragePrecision:
    """AP over IoU 0.5:0.05:0.95, at 100 boxes a phrase, as pycocotools and faster-coco-eval reckon
    it.

    One class, "phrase"; each phrase of an image is ranked as an image of its own, so that what the
    gold doesn't ask for in an image is no false positive there (as in LVIS). Boxes without score
    come last, the first ones of all phrases before the second ones. Of phrases with equal scores a
    digest says which comes first, so that the order of the records doesn't count.

    Source: COCOeval of https://github.com/cocodataset/cocoapi: `evaluateImg` and `accumulate`.

    Example:
        >>> ap, dog = AveragePrecision(), {"instances": [{"bbox": [0, 0, 10, 10], "score": 0.9}]}
        >>> ap.add(dog, dog)
        >>> round(ap.value(), 4)
        1.0
    """

    def __init__(self) -> None:
        self._gold_boxes = 0
        self._digests = array("Q")  # of each found box: its phrase's place among equal scores
        self._scores = array("d")
        self._right = array("H")  # a bit for each threshold at which it has a gold box

    def add(self, gold: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        """Count a phrase: the gold's boxes, and those that were found."""
        phrase = [_ranked(gold), _ranked(found)]
        digest = int.from_bytes(hashlib.sha256(repr(phrase).encode()).digest()[:8], "big")
        wanted, given = phrase
        self._gold_boxes += len(wanted)
        scores = [
            -1.0 - place if box[4] is None else float(box[4]) for place, box in enumerate(given)
        ]
        order = sorted(range(len(given)), key=lambda place: -scores[place])[:_MOST_BOXES]
        for place, right in zip(
            order, _matches([given[place] for place in order], wanted), strict=True
        ):
            self._digests.append(digest)
            self._scores.append(scores[place])
            self._right.append(right)

    def value(self) -> float | None:
        """AP of all phrases, in [0, 1]; None without gold boxes."""
        if not self._gold_boxes:
            return None
        if not self._scores:
            return 0.0
        order = np.lexsort((np.frombuffer(self._digests, np.uint64), -np.frombuffer(self._scores)))
        right = np.frombuffer(self._right, np.uint16)[order]
        ranks = np.arange(1, len(right) + 1)
        precisions = []
        for bit in range(len(_THRESHOLDS)):
            true = np.cumsum(right >> bit & 1)
            best = np.maximum.accumulate((true / ranks)[::-1])[::-1]  # at this rank or a later one
            at = np.searchsorted(true / self._gold_boxes, _RECALLS, side="left")
            precisions.append(np.append(best, 0.0)[at])
        return float(np.mean(precisions))


def _ranked(phrase: Mapping[str, Any] | None) -> list[Ranked]:
    return [(*box["bbox"], box["score"]) for box in phrase["instances"]] if phrase else []


def _matches(given: Sequence[Ranked], wanted: Sequence[Ranked]) -> list[int]:
    """For each found box, the surest first, the thresholds (as bits) at which a gold box is left
    for it.

    Of several it takes the one with the largest IoU; of equal ones the last.
    """
    right = [0] * len(given)
    meeting = [
        [(iou, n) for n, box in enumerate(wanted) if (iou := _iou(one, box)) >= _THRESHOLDS[0]]
        for one in given
    ]
    for bit, threshold in enumerate(_THRESHOLDS):
        taken = set[int]()
        for place, near in enumerate(meeting):
            free = [pair for pair in near if pair[0] >= threshold and pair[1] not in taken]
            if free:
                taken.add(max(free)[1])
                right[place] |= 1 << bit
    return right


def _iou(one: Ranked, other: Ranked) -> float:
    """COCO's IoU, in its order of operations: of widths and heights, so that it rounds as COCO
    does.
    """
    x, y, w, h = one[0], one[1], one[2] - one[0], one[3] - one[1]
    x2, y2, w2, h2 = other[0], other[1], other[2] - other[0], other[3] - other[1]
    width = min(x + w, x2 + w2) - max(x, x2)
    height = min(y + h, y2 + h2) - max(y, y2)
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width) * height
    union = float(w) * h + float(w2) * h2 - shared
    return shared / union if union else 0.0
