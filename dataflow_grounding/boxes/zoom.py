"""Small boxes looked for again in an enlarged part of the image."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dataflow_grounding.boxes.nearness import middle_of
from dataflow_grounding.geometry import Bbox, Size, box_of
from dataflow_grounding.images import Image
from dataflow_grounding.shown_images import ImageCrop, crop_around
from dataflow_grounding.tasks.phrase_grounding import Found

SMALL = 0.03  # the longer side of a small box, as a share of that side of the image
SMALL_OF_SEVERAL = 0.035  # where several answers are asked for; noise makes the boxes of some small things that large


async def zoomed(
    ground: Callable[[Image], Awaitable[Found]], image: Image, instances: Sequence[dict[str, Any]], small: float = SMALL
) -> list[dict[str, Any]]:
    """The instances, each once; for a small box, what `ground` finds in an enlarged crop around it, if anything."""

    async def one(instance: dict[str, Any]) -> dict[str, Any]:
        bbox = box_of(instance["bbox"])
        if not is_small(bbox, image.size, small):
            return instance
        crop = crop_around(image, bbox)
        return _replaced(instance, crop, await ground(crop))

    closer = []
    for result in await asyncio.gather(*map(one, instances), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        if result not in closer:
            closer.append(result)
    return closer


def is_small(bbox: Bbox, size: Size, small: float) -> bool:
    """Whether both sides of a box in pixels are below the share `small` of the sides of an image of this size."""
    return max((bbox[2] - bbox[0]) / size[0], (bbox[3] - bbox[1]) / size[1]) < small


def _replaced(instance: dict[str, Any], crop: ImageCrop, again: Found) -> dict[str, Any]:
    """The box of the crop nearest to the earlier one, in pixels of the whole image."""
    if not again.instances:
        return instance
    boxes = [crop.to_image(box_of(i["bbox"])) for i in again.instances]
    centre = middle_of(box_of(instance["bbox"]))
    nearest = min(range(len(boxes)), key=lambda n: math.dist(middle_of(boxes[n]), centre))
    score = instance.get("score") if instance.get("score") is not None else again.instances[nearest].get("score")
    return {**instance, "bbox": [int(edge) for edge in boxes[nearest]], "score": score, "zoomed": True}
