"""COCO's average precision of phrases."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
_RECALLS = np.linspace(0, 1, 101)  # at which COCO averages the precision
_MOST_BOXES = 100  # of a phrase, the surest
_DRAWS = 200  # bootstrap samples for an interval: each goes over all boxes ten times

ScoredBox = tuple[float, float, float, float, float | None]
"""A box's corners, and its score."""


class _Phrase(NamedTuple):
    image: int
    gold_boxes: int


class _Box(NamedTuple):
    """A predicted box; the `digest` of its phrase orders equal scores."""

    image: int
    digest: int
    score: float  # below 0 of a box without one
    right: int  # a bit for each threshold at which the box is right


_BOXES = np.dtype([("image", "u4"), ("digest", "u8"), ("score", "f8"), ("right", "u2")])


class AveragePrecision:
    """AP over IoU 0.5:0.05:0.95, at 100 boxes a phrase, as COCO's evaluators compute it.

    There is one class, "phrase". Each phrase of an image is evaluated as if it were an image of its
    own: what the gold doesn't ask for in an image is no false positive there (as in LVIS). Boxes
    without score rank last: first the first one of each phrase, then the second ones, and so on.

    Source: COCOeval of https://github.com/cocodataset/cocoapi: `evaluateImg` and `accumulate`;
    pycocotools and faster-coco-eval agree with it.
    """

    def __init__(self) -> None:
        self._phrases: list[_Phrase] = []
        self._boxes: list[_Box] = []

    def add(self, gold: Mapping[str, Any], found: Mapping[str, Any] | None, image: int = 0) -> None:
        """Count a phrase; the number of its image, from 0, is for `bootstrap_values` alone."""
        gold_boxes = _scored_boxes(gold)
        predicted = _scored_boxes(found)
        self._phrases.append(_Phrase(image, len(gold_boxes)))
        # Boxes of two phrases with equal scores are ranked by the phrases' digests. These are made
        # of the boxes alone, so that the order of phrases makes no difference.
        phrase_bytes = repr([gold_boxes, predicted]).encode()
        digest = int.from_bytes(hashlib.sha256(phrase_bytes).digest()[:8], "big")
        scores = []
        for index, (*_, score) in enumerate(predicted):
            # Without a score: -1, -2 and so on by its place, below every real score.
            scores.append(-1.0 - index if score is None else float(score))
        indices = sorted(range(len(predicted)), key=lambda index: -scores[index])
        surest = indices[:_MOST_BOXES]
        bits = _right_bits([predicted[index] for index in surest], gold_boxes)
        for index, right in zip(surest, bits, strict=True):
            self._boxes.append(_Box(image, digest, scores[index], right))

    def value(self) -> float | None:
        """Return the AP of all phrases, in [0, 1]; None without gold boxes."""
        gold_boxes = sum(phrase.gold_boxes for phrase in self._phrases)
        if not gold_boxes:
            return None
        boxes = self._surest_first()
        if not len(boxes):
            return 0.0
        return _ap_of_ranked(boxes["right"], np.ones(len(boxes)), gold_boxes)

    def _surest_first(self) -> np.ndarray:
        boxes = np.array(self._boxes, _BOXES)
        return boxes[np.lexsort((boxes["digest"], -boxes["score"]))]  # the last key counts first

    def bootstrap_values(self, images: int) -> np.ndarray:
        """Return the AP of 200 bootstrap samples of that many images, the same at each call."""
        values = np.full(_DRAWS, np.nan)  # of samples without a gold box
        # `reshape` makes it two columns also if there is no phrase at all.
        image_of_phrase, gold_boxes_of_phrase = np.array(self._phrases, int).reshape(-1, 2).T
        if not gold_boxes_of_phrase.any():
            return values
        boxes = self._surest_first()
        if not len(boxes):
            return np.zeros(_DRAWS)
        chance = np.random.default_rng(0)
        for draw in range(_DRAWS):
            images_drawn = chance.integers(0, images, images)
            times_drawn = np.bincount(images_drawn, minlength=images)  # by image
            gold_boxes = int((times_drawn[image_of_phrase] * gold_boxes_of_phrase).sum())
            if gold_boxes:
                times_counted = times_drawn[boxes["image"]]
                values[draw] = _ap_of_ranked(boxes["right"], times_counted, gold_boxes)
        return values


def _ap_of_ranked(right: np.ndarray, times_counted: np.ndarray, gold_boxes: int) -> float:
    """Return the AP of all phrases' boxes, the surest first, each counted a number of times."""
    # The image of a box may be drawn several times, or never. Ranks are at least 1: boxes before
    # the first one that counts have rank 0, which would divide.
    ranks = np.maximum(np.cumsum(times_counted), 1)
    precisions = []
    for bit in range(len(_THRESHOLDS)):
        is_right = (right >> bit) & 1
        true_positives = np.cumsum(is_right * times_counted)
        precision = true_positives / ranks
        # COCO's envelope is the best precision at this rank or a later one: a running maximum from
        # the end.
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        # For each recall the index of the box with which it is reached. A recall that is never
        # reached gets the index after the last box: its precision is the 0 that is appended.
        reached_at = np.searchsorted(true_positives / gold_boxes, _RECALLS, side="left")
        precisions.append(np.append(envelope, 0.0)[reached_at])
    return float(np.mean(precisions))


def _scored_boxes(phrase: Mapping[str, Any] | None) -> list[ScoredBox]:
    if not phrase:
        return []
    return [(*box["bbox"], box["score"]) for box in phrase["instances"]]


def _right_bits(predicted: Sequence[ScoredBox], gold: Sequence[ScoredBox]) -> list[int]:
    """Return for each predicted box the bits of the thresholds at which it takes a gold box."""
    # As in COCO's evaluator, the surest predicted box chooses first. Each takes the gold box with
    # the largest IoU among those that are still free.
    candidates = [_overlapping(box, gold) for box in predicted]
    bits = [0] * len(predicted)
    for bit, threshold in enumerate(_THRESHOLDS):
        taken = set[int]()  # gold boxes, at this threshold
        for index, own_candidates in enumerate(candidates):
            free = []
            for overlap, gold_index in own_candidates:
                if overlap >= threshold and gold_index not in taken:
                    free.append((overlap, gold_index))
            if free:
                _, best_gold_index = max(free)  # of equal overlaps, the last gold box
                taken.add(best_gold_index)
                bits[index] |= 1 << bit  # the box is right at this threshold
    return bits


def _overlapping(predicted: ScoredBox, gold: Sequence[ScoredBox]) -> list[tuple[float, int]]:
    """Return each IoU that reaches the lowest threshold, with the index of the gold box."""
    candidates = []
    for index, gold_box in enumerate(gold):
        overlap = _iou(predicted, gold_box)
        if overlap >= _THRESHOLDS[0]:
            candidates.append((overlap, index))
    return candidates


def _iou(a: ScoredBox, b: ScoredBox) -> float:
    """Return the IoU as COCO's evaluator does, of x, y, width and height: both round alike."""
    a_x, a_y = a[:2]
    a_width = a[2] - a_x
    a_height = a[3] - a_y
    b_x, b_y = b[:2]
    b_width = b[2] - b_x
    b_height = b[3] - b_y
    width = min(a_x + a_width, b_x + b_width) - max(a_x, b_x)
    height = min(a_y + a_height, b_y + b_height) - max(a_y, b_y)
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width) * height
    union = float(a_width) * a_height + float(b_width) * b_height - shared
    return shared / union if union else 0.0
