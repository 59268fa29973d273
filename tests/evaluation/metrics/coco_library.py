"""AP as faster-coco-eval makes it of COCO files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faster_coco_eval import COCO, COCOeval_faster


class Box(NamedTuple):
    """A box by its corners; images and categories are numbers."""

    image: int
    category: int
    bbox: Sequence[float]
    score: float | None = None


def ap_of_the_library(
    gold: Sequence[Box], found: Sequence[Box], images: int, folder: Path
) -> list[float]:
    """AP of each category of the gold, with all of the library's own settings."""
    categories = sorted({box.category for box in gold})
    whole = {"images": [{"id": image} for image in range(images)], "annotations": annotations(gold)}
    whole["categories"] = [{"id": category, "name": str(category)} for category in categories]
    (folder / "gold.json").write_text(json.dumps(whole))
    (folder / "found.json").write_text(json.dumps(annotations(found)))
    truth = COCO(str(folder / "gold.json"))
    guesses = truth.loadRes(str(folder / "found.json"))
    values = []
    for category in categories:
        judge = COCOeval_faster(truth, guesses, "bbox")
        judge.params.catIds = [category]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        values.append(float(judge.stats[0]))
    return values


def annotations(boxes: Sequence[Box]) -> list[dict[str, Any]]:
    """Boxes as COCO has them."""
    made = []
    for number, box in enumerate(boxes, 1):
        x1, y1, x2, y2 = box.bbox
        sides = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        ids = {"id": number, "image_id": box.image, "category_id": box.category}
        made.append({**ids, **sides, "score": box.score})
    return made
