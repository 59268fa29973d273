"""How the boxes of two phrases overlap, and which of them make a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dataflow_grounding.metrics.annotations import Boxes

THRESHOLDS = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
"""COCO's ten thresholds of IoU."""


@dataclass(frozen=True)
class Rules:
    """When a box is right, which papers settle in different ways.

    Attributes:
        threshold: The IoU that makes a box right, in [0, 1], where a measure has none of its own.
        strict: Whether the IoU has to be above a threshold, not at it.
        giou: Whether generalised IoU is held against thresholds. Mean IoU stays that of IoU.
        plus_one: Whether x2 and y2 are pixels that belong to the box, so that its width is x2 - x1 + 1.
        score_cut: The score below which a box doesn't count where boxes are counted, not ranked; None counts all. Boxes
            without score count.
    """

    threshold: float = 0.5
    strict: bool = False
    giou: bool = False
    plus_one: bool = False
    score_cut: float | None = None

    def passes(self, overlap: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        """Whether each overlap makes a box right."""
        return overlap > threshold if self.strict else overlap >= threshold


class Overlaps(NamedTuple):
    """Pairs of boxes that meet: the gold phrase, the places of the two boxes, the found box's rank in its phrase.

    `iou` is their IoU, `overlap` what is held against thresholds: the same, or generalised IoU, which is never larger.
    """

    phrase: np.ndarray
    found: np.ndarray
    gold: np.ndarray
    rank: np.ndarray
    iou: np.ndarray
    overlap: np.ndarray

    def where(self, kept: np.ndarray) -> Overlaps:
        """Those that `kept`, a mask or places, names."""
        return Overlaps(*(column[kept] for column in self))


def overlaps_of(gold: Boxes, found: Boxes, partner: np.ndarray, rules: Rules) -> Overlaps:
    """All pairs of boxes of a gold phrase and its `partner` that meet."""
    pairs = gold.counts * np.append(found.counts, 0)[partner]
    phrase = np.repeat(np.arange(len(pairs)), pairs)
    place = np.arange(len(phrase)) - (np.cumsum(pairs) - pairs)[phrase]
    rank, which = np.divmod(place, gold.counts[phrase])
    mine, other = found.starts[partner[phrase]] + rank, gold.starts[phrase] + which
    iou, overlap = _iou(found.corners[mine], gold.corners[other], rules)
    return Overlaps(phrase, mine, other, rank, iou, overlap).where(iou > 0)


def _iou(a: np.ndarray, b: np.ndarray, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """IoU of boxes, row by row, and what is held against thresholds."""

    def area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.prod(np.maximum(high - low + rules.plus_one, 0.0), axis=1)

    shared = area(np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:]))
    union = area(a[:, :2], a[:, 2:]) + area(b[:, :2], b[:, 2:]) - shared
    iou = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    if not rules.giou:
        return iou, iou
    hull = area(np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:]))
    return iou, iou - np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)


def one_to_one(overlaps: Overlaps, rules: Rules) -> Overlaps:
    """Which box is which, from IoU 0.5 or the rules' threshold on, the largest overlap first."""
    near = overlaps.where(rules.passes(overlaps.overlap, min(rules.threshold, 0.5)))
    near = near.where(np.lexsort((near.found, near.gold, -near.overlap)))
    taken, kept = set[tuple[str, int]](), []
    for place, (found, gold) in enumerate(zip(near.found.tolist(), near.gold.tolist(), strict=True)):
        boxes = {("found", found), ("gold", gold)}
        if taken.isdisjoint(boxes):
            taken |= boxes
            kept.append(place)
    return near.where(np.array(kept, int))
