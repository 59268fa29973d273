"""One thing, one box: boxes of one phrase that are nearly the same."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any

from dataflow_grounding.geometry import box_of, iou

MERGE_IOU = 0.9  # from here on two boxes look like one; of two things in a crowd they hardly ever come so close


def without_duplicates(instances: Sequence[dict[str, Any]], merge_iou: float | None) -> list[dict[str, Any]]:
    """Return the instances of one phrase in their order, and of those that overlap only the one with the highest score.

    Args:
        instances: Each with `bbox` (x1, y1, x2, y2 in pixels) and perhaps `score`; the first of equal scores stays.
        merge_iou: The IoU from which two boxes are one; None keeps them all.

    Example:
        >>> nearly = [{"bbox": [0, 0, 100, 100], "score": 0.5}, {"bbox": [0, 0, 100, 99], "score": 0.8}]
        >>> without_duplicates(nearly, 0.9)
        [{'bbox': [0, 0, 100, 99], 'score': 0.8}]
    """
    if merge_iou is None:
        return list(instances)
    boxes = [box_of(instance["bbox"]) for instance in instances]
    kept: list[tuple[float, int]] = []  # left edge, place
    for place in sorted(range(len(boxes)), key=lambda n: -_score(instances[n])):
        left, _, right, _ = boxes[place]
        # Boxes that overlap so much begin near each other. Without this, a thousand boxes are half a million pairs.
        reach = (right - left) * (1 - merge_iou) / merge_iou + 1
        near = kept[bisect_left(kept, (left - reach, -1)) : bisect_right(kept, (left + reach, math.inf))]
        if all(iou(boxes[place], boxes[other]) < merge_iou for _, other in near):
            insort(kept, (left, place))
    return [instances[place] for place in sorted(place for _, place in kept)]


def _score(instance: dict[str, Any]) -> float:
    score = instance.get("score")
    return -1.0 if score is None else float(score)
