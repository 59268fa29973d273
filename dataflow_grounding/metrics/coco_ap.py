"""COCO AP of phrases, by faster-coco-eval."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow_grounding.errors import MissingExtra
from dataflow_grounding.metrics.pairs import Pairs


def coco_ap(pairs: Pairs) -> float | None:
    """AP over IoU 0.5:0.05:0.95 and all areas, at 100 boxes a phrase; None without gold boxes.

    One class, "phrase"; each phrase of an image is ranked as an image of its own, so that what the gold doesn't ask for
    in an image is no false positive there (as in LVIS). Boxes without score come last; of equal scores the gold's first.

    Raises:
        MissingExtra: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingExtra("COCO AP (ap)", "eval") from None
    gold, found, asked = pairs.gold.boxes, pairs.found.boxes, pairs.box_owner >= 0
    wanted = _rows(np.repeat(np.arange(len(gold.counts)), gold.counts), gold.corners, gold.scores)
    answers = _rows(pairs.box_owner[asked], found.corners[asked], found.scores[asked])
    if not wanted or not answers:
        return 0.0 if wanted else None
    images = [{"id": n} for n in range(len(gold.counts))]
    truth = COCO({"images": images, "categories": [{"id": 1, "name": "phrase"}], "annotations": wanted})
    judge = COCOeval_faster(truth, truth.loadRes(answers), "bbox", print_function=lambda *_: None)
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    return float(judge.eval["precision"].mean())


def _rows(images: np.ndarray, corners: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    lists = (images.tolist(), boxes.tolist(), boxes[:, 2:].prod(axis=1).tolist(), np.nan_to_num(scores).tolist())
    return [
        {"id": n, "image_id": image, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0, "score": score}
        for n, (image, box, area, score) in enumerate(zip(*lists, strict=True), 1)
    ]
