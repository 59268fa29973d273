"""A model that knows the pictures of `bench`, and errs as often as it is told."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.bench.bench_set import gold_records
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import box_of, iou
from dataflow_grounding.testing import ReceivedRequest
from tests.support.stand_ins.probe_model import ProbeModel


@dataclass(frozen=True)
class Planted:
    """How often it errs, as shares from 0 to 1; the same phrase has the same error each time.

    Args:
        missed: Phrases whose things get no box.
        boxed: Absent phrases that get a box, around another thing.
        unsaid: Phrases of a caption that aren't extracted.
    """

    missed: float = 0.15
    boxed: float = 0.3
    unsaid: float = 0.1

    def figures(self) -> dict[str, float]:
        """What `bench` should measure of it, by the names that `eval` has."""
        there = [e for record in gold_records() for e in record["expressions"] if e["instances"]]
        boxes = sum(len(expression["instances"]) for expression in there)
        phrases = sum(len(record["expressions"]) for record in gold_records())
        absent = phrases - len(there)
        hits, misses = (1 - self.missed) * len(there), self.missed * len(there)
        false, true = self.boxed * absent, (1 - self.boxed) * absent
        spread = (hits + false) * (hits + misses) * (true + false) * (true + misses)
        right_boxes = (1 - self.missed) * boxes
        return {
            "precision_at_iou_0.5": right_boxes / (right_boxes + false),
            "recall_at_iou_0.5": 1 - self.missed,
            "n_acc": 1 - self.boxed,
            "il_mcc": (hits * true - false * misses) / spread**0.5,
            "span_exact_f1": 2 * (1 - self.unsaid) / (2 - self.unsaid),
        }


class BenchModel(ProbeModel):
    """Answers about the set's pictures by their gold, with errors; probe pictures are right."""

    def __init__(self, planted: Planted = Planted(), *, box_format: str = "xyxy_1000") -> None:
        super().__init__(box_format, noise=0.0, outliers=0.0)
        self._planted = planted
        self._format = find_box_format(box_format, "")
        self._gold = gold_records()

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task == "expression_extraction":
            return self._extracted(request.input["caption"])
        asked = request.input.get("phrases") or []
        record = self._record_of({str(item["text"]) for item in asked})
        if record is None:
            return super().__call__(request)
        right = {
            e["text"]: [box_of(i["bbox"]) for i in e["instances"]] for e in record["expressions"]
        }
        if request.task == "box_check":
            return self._verdicts(request, record, right)
        objects = []
        for phrase in request.input["phrases"]:
            for box in self._answered(record, right, phrase["text"]):
                numbers = self._format.from_pixels(
                    box, original=(record["width"], record["height"])
                )
                objects.append(
                    {"id": phrase["id"], "label": phrase["text"], self._format.key: numbers}
                )
        return {"objects": objects}

    def _record_of(self, texts: set[str]) -> dict[str, Any] | None:
        """The picture that has all these phrases."""
        for record in self._gold:
            if texts and texts <= {expression["text"] for expression in record["expressions"]}:
                return record
        return None

    def _errs(self, share: float, *what: str) -> bool:
        return random.Random("/".join(what)).random() < share

    def _answered(self, record: dict[str, Any], right: dict[str, Any], text: str) -> list[Any]:
        """The boxes of a phrase, right ones or wrong ones."""
        if right[text]:
            missed = self._errs(self._planted.missed, record["image_id"], text)
            return [] if missed else right[text]
        if not self._errs(self._planted.boxed, record["image_id"], text):
            return []
        return [next(boxes[0] for boxes in right.values() if boxes)]

    def _verdicts(
        self, request: ReceivedRequest, record: dict[str, Any], right: dict[str, Any]
    ) -> dict[str, Any]:
        """What a judge who never errs says."""
        phrases = []
        for phrase in request.input["phrases"]:
            count = len(right[phrase["text"]])
            phrases.append({"id": phrase["id"], "there": count > 0, "count": count})
        boxes = []
        for box in request.input["boxes"]:
            size = (record["width"], record["height"])
            bbox = self._format.to_pixels(box[self._format.key], original=size, sent=size)
            fits = any(iou(bbox, other) > 0.5 for other in right[box["text"]])
            boxes.append({"id": box["id"], "verdict": "right" if fits else "other"})
        return {"phrases": phrases, "boxes": boxes}

    def _extracted(self, caption: str) -> dict[str, Any]:
        """The phrases of a caption, but for some."""
        [record] = [record for record in self._gold if record["caption"] == caption]
        expressions = []
        for expression in record["expressions"]:
            text = expression["text"]
            if expression["char_span"] and not self._errs(self._planted.unsaid, caption, text):
                expressions.append({"text": text, "noun_chunk": text})
        return {"cleaned_caption": caption, "expressions": expressions}
