"""COCO AP of phrases, by faster-coco-eval."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.errors import MissingExtra


def coco_ap(phrases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> float | None:
    """AP of gold and found phrases, over IoU 0.5:0.05:0.95, at 100 boxes a phrase; None without gold boxes.

    One class, "phrase"; each phrase of an image is ranked as an image of its own, so that what the gold doesn't ask for
    in an image is no false positive there (as in LVIS). Boxes without score come last.

    Raises:
        MissingExtra: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingExtra("COCO AP (ap)", "eval") from None
    wanted, answers = (_boxes([phrase[side] for phrase in phrases]) for side in (0, 1))
    if not wanted or not answers:
        return 0.0 if wanted else None
    images = [{"id": n} for n in range(len(phrases))]
    truth = COCO({"images": images, "categories": [{"id": 1, "name": "phrase"}], "annotations": wanted})
    judge = COCOeval_faster(truth, truth.loadRes(answers), "bbox", print_function=lambda *_: None)
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    return float(judge.eval["precision"].mean())


def _boxes(phrases: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    boxes: list[dict[str, Any]] = []
    for image, phrase in enumerate(phrases):
        for instance in phrase["instances"] if phrase else []:
            x1, y1, x2, y2 = instance["bbox"]
            place = {"id": len(boxes) + 1, "image_id": image, "category_id": 1, "score": instance["score"] or 0.0}
            boxes.append({**place, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
    return boxes
