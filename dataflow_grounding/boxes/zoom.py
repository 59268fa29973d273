"""Small boxes looked for again in an enlarged part of the image."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.boxes.agreement import bbox_of
from dataflow_grounding.crops import ImageCrop, crop_around
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.images import Image
from dataflow_grounding.tasks import Found

SMALL = 0.03  # the longer side of a small box, as a share of that side of the image

Ground = Callable[[Image, list[str]], Awaitable[list[Found]]]


async def zoomed(ground: Ground, image: Image, phrases: Sequence[str], found: Sequence[Found]) -> list[Found]:
    """The answers with every small box replaced by what `ground` finds for its phrase in an enlarged crop around it.

    A box takes one more request. Where the crop shows no such thing to the model, the box stays as it was.
    """

    async def one(phrase: str, instance: dict[str, Any]) -> dict[str, Any]:
        if not is_small(bbox_of(instance), image.size):
            return instance
        crop = crop_around(image, bbox_of(instance))
        [again] = await ground(crop, [phrase])
        return _replaced(instance, crop, again)

    async def all_of(phrase: str, answer: Found) -> Found:
        results = await asyncio.gather(*(one(phrase, i) for i in answer.instances), return_exceptions=True)
        instances = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if result not in instances:
                instances.append(result)
        return replace(answer, instances=instances)

    return [await all_of(phrase, answer) for phrase, answer in zip(phrases, found, strict=True)]


def is_small(bbox: Bbox, size: Size) -> bool:
    """Whether both sides of a box are under 3% of the image's."""
    return max((bbox[2] - bbox[0]) / size[0], (bbox[3] - bbox[1]) / size[1]) < SMALL


def _replaced(instance: dict[str, Any], crop: ImageCrop, again: Found) -> dict[str, Any]:
    """The box of the crop nearest to the earlier one, in pixels of the whole image."""
    if not again.instances:
        return instance
    boxes = [crop.to_image(bbox_of(i)) for i in again.instances]
    nearest = min(range(len(boxes)), key=lambda n: math.dist(_centre(boxes[n]), _centre(bbox_of(instance))))
    score = instance.get("score") if instance.get("score") is not None else again.instances[nearest].get("score")
    return {**instance, "bbox": [int(edge) for edge in boxes[nearest]], "score": score, "zoomed": True}


def _centre(bbox: Bbox) -> tuple[float, float]:
    return (bbox[0] + bbox[2]) / 2, (bbox[1] + bbox[3]) / 2
