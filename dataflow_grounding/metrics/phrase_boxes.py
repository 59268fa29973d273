"""How well boxes of phrases agree with gold boxes of the same phrases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.geometry import Bbox, box_of
from dataflow_grounding.records import Record, read_expressions


@dataclass
class BoxScores:
    """Counts over all expressions. A box is right when it is matched, one to one, to a gold box of its phrase."""

    threshold: float
    expressions: int = 0
    grounded: int = 0
    boxes: int = 0
    right: int = 0
    gold_boxes: int = 0
    iou_sum: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The figures: shares in [0, 1], null where there is nothing to divide by."""
        return {
            "expressions": self.expressions,
            "grounded": self.grounded,
            "grounded_share": _share(self.grounded, self.expressions),
            "boxes": self.boxes,
            "gold_boxes": self.gold_boxes,
            f"precision_at_iou_{self.threshold:g}": _share(self.right, self.boxes),
            f"recall_at_iou_{self.threshold:g}": _share(self.right, self.gold_boxes),
            "mean_iou_of_right_boxes": _share(self.iou_sum, self.right),
        }


def score_boxes(
    records: Iterable[Mapping[str, Any]], gold: Iterable[Mapping[str, Any]], threshold: float = 0.5
) -> BoxScores:
    """Compare records with gold records of the same `image_path`, phrase by phrase (up to case and spacing).

    Boxes of one phrase are matched to its gold boxes by falling IoU, at `threshold` or above. A phrase without gold has
    none right. Raises BrokenRow for anything that is not a record.
    """
    scores = BoxScores(threshold)
    wanted = {_key(record): _boxes_by_phrase(record) for record in gold}
    for record in records:
        gold_boxes = wanted.get(_key(record), {})
        for phrase, boxes in _boxes_by_phrase(record).items():
            matched = [overlap for _, overlap in match_boxes(boxes, gold_boxes.get(phrase, []), threshold).values()]
            scores.boxes += len(boxes)
            scores.right += len(matched)
            scores.iou_sum += sum(matched)
        expressions = _expressions(record)
        scores.expressions += len(expressions)
        scores.grounded += sum(bool(expression["instances"]) for expression in expressions)
    scores.gold_boxes = sum(len(boxes) for phrases in wanted.values() for boxes in phrases.values())
    return scores


def _key(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record.get("image_path")), str(record.get("caption"))


def _boxes_by_phrase(record: Mapping[str, Any]) -> dict[str, list[Bbox]]:
    phrases: dict[str, list[Bbox]] = {}
    for expression in _expressions(record):
        boxes = phrases.setdefault(" ".join(expression["text"].split()).casefold(), [])
        boxes += [box_of(instance["bbox"]) for instance in expression["instances"]]
    return phrases


def _expressions(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return read_expressions(Record(record), "expressions") if record.get("expressions") else []


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
