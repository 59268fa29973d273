"""How the boxes of two phrases overlap, and which of them make a pair."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding.boxes.matching import first_free
from dataflow_grounding.geometry import Bbox, area, around, iou

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
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

    def passes(self, overlap: float, threshold: float) -> bool:
        """Whether an overlap makes a box right."""
        return overlap > threshold if self.strict else overlap >= threshold

    def boxes_of(self, phrase: Mapping[str, Any] | None) -> list[Bbox]:
        """The phrase's boxes up to their far edges; none of none."""
        boxes = [instance["bbox"] for instance in phrase["instances"]] if phrase else []
        return [(x1, y1, x2 + self.plus_one, y2 + self.plus_one) for x1, y1, x2, y2 in boxes]

    def counted(self, phrase: Mapping[str, Any] | None) -> set[int]:
        """The places of the phrase's boxes that the score cut leaves."""
        scores = [instance["score"] for instance in phrase["instances"]] if phrase else []
        return {n for n, score in enumerate(scores) if score is None or score >= (self.score_cut or 0)}


class Overlap(NamedTuple):
    """A found and a gold box that meet, by their places in the phrase.

    `held` is what is held against thresholds: IoU, or generalised IoU, which is never larger.
    """

    held: float
    iou: float
    found: int
    gold: int


def overlaps_of(found: list[Bbox], gold: list[Bbox], rules: Rules) -> list[Overlap]:
    """All pairs of boxes that meet, in the order of the found ones."""
    overlaps = []
    for n, a in enumerate(found):
        for m, b in enumerate(gold):
            if shared := iou(a, b):
                held = shared
                if rules.giou:
                    hull = area(around([a, b]))
                    held -= 1 - (area(a) + area(b)) / (1 + shared) / hull  # the sum of areas is union · (1 + IoU)
                overlaps.append(Overlap(held, shared, n, m))
    return overlaps


def one_to_one(overlaps: Iterable[Overlap], rules: Rules) -> list[Overlap]:
    """Which box is which, from IoU 0.5 or the rules' threshold on, the largest overlap first."""
    ranked = sorted(overlaps, key=lambda overlap: (-overlap.held, overlap.gold, overlap.found))
    near = {(one.found, one.gold): one for one in ranked if rules.passes(one.held, min(rules.threshold, 0.5))}
    return [near[pair] for pair in first_free(near).items()]
