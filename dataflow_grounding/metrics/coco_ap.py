"""COCO AP of phrases, by faster-coco-eval."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.errors import MissingExtra


def coco_ap(phrases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> float | None:
    """AP of gold and found phrases, over IoU 0.5:0.05:0.95, at 100 boxes a phrase; None without gold boxes.

    One class, "phrase"; each phrase of an image is ranked as an image of its own, so that what the gold doesn't ask for
    in an image is no false positive there (as in LVIS). Boxes without score come last, the first ones of all phrases
    before the second ones. Of phrases with equal scores a digest says which comes first, so that the order of the
    records doesn't count.

    Raises:
        MissingExtra: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingExtra("COCO AP (ap)", "eval") from None
    sides = ([side["instances"] if side else [] for side in phrase] for phrase in phrases)
    boxes = [[[(*box["bbox"], box["score"]) for box in side] for side in phrase] for phrase in sides]
    boxes.sort(key=lambda phrase: hashlib.sha256(repr(phrase).encode()).digest())
    wanted, answers = (_rows([phrase[side] for phrase in boxes]) for side in (0, 1))
    if not wanted or not answers:
        return 0.0 if wanted else None
    images = [{"id": n} for n in range(len(phrases))]
    truth = COCO({"images": images, "categories": [{"id": 1, "name": "phrase"}], "annotations": wanted})
    judge = COCOeval_faster(truth, truth.loadRes(answers), "bbox", print_function=lambda *_: None)
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    return float(judge.eval["precision"].mean())


def _rows(phrases: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    boxes = [(image, place, *box) for image, phrase in enumerate(phrases) for place, box in enumerate(phrase)]
    rows = []
    for n, (image, place, x1, y1, x2, y2, score) in enumerate(boxes, 1):
        row = {"id": n, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        rows.append({**row, "area": (x2 - x1) * (y2 - y1), "score": -1.0 - place if score is None else score})
    return rows
