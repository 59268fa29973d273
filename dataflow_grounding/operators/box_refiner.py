"""Operator: small boxes looked for again from closer by."""

import math
from collections.abc import Sequence
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox, Size, box_of, without_duplicates
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.images.shown import ImageCrop, crop_around
from dataflow_grounding.operators._agreement import located
from dataflow_grounding.operators._nearness import middle_of
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, facts_of, open_image
from dataflow_grounding.operators.box_operator import BoxOperator, numbered
from dataflow_grounding.tasks.phrase_grounding import Found

SMALL = 0.03  # the longer side of a small box, as a share of that side of the image
# where several answers are asked for; noise makes the boxes of some small things that large
SMALL_OF_SEVERAL = 0.035


class LooksCloser(BoxOperator):
    """Asks for small boxes again in enlarged parts of the image."""

    async def closer(
        self,
        image: Image,
        phrase: str,
        instances: Sequence[dict[str, Any]],
        ask: Ask,
        samples: Sequence[int] = (0,),
    ) -> list[dict[str, Any]]:
        """The instances, small ones asked for again from closer by in the answers `samples`; of
        equal ones the best.
        """

        async def one(instance: dict[str, Any]) -> dict[str, Any]:
            bbox = box_of(instance["bbox"])
            if not _is_small(bbox, image.size, len(samples)):
                return instance
            crop = crop_around(image, bbox)

            async def once(number: int) -> Found:
                [found] = await self.ground(crop, [phrase], ask, samples[number])
                return found

            return _replaced(instance, crop, await located(once, len(samples), crop.size))

        found = []
        for result in await all_done(map(one, instances)):
            if result not in found:
                found.append(result)
        once = without_duplicates(found, self.merge_iou)
        for _ in range(len(found) - len(once)):
            ask.note("merged", "small boxes that are nearly the same from closer by")
        return once


def _is_small(bbox: Bbox, size: Size, samples: int) -> bool:
    small = SMALL if samples == 1 else SMALL_OF_SEVERAL
    return max((bbox[2] - bbox[0]) / size[0], (bbox[3] - bbox[1]) / size[1]) < small


def _replaced(instance: dict[str, Any], crop: ImageCrop, again: Found) -> dict[str, Any]:
    """The box of the crop nearest to the earlier one, in pixels of the whole image."""
    if not again.instances:
        return instance
    boxes = [crop.to_image(box_of(i["bbox"])) for i in again.instances]
    centre = middle_of(box_of(instance["bbox"]))
    nearest = min(range(len(boxes)), key=lambda n: math.dist(middle_of(boxes[n]), centre))
    score = (
        instance.get("score")
        if instance.get("score") is not None
        else again.instances[nearest].get("score")
    )
    return {
        **instance,
        "bbox": [int(edge) for edge in boxes[nearest]],
        "score": score,
        "zoomed": True,
    }


@OPERATOR_REGISTRY.register()
class BoxRefiner(LooksCloser):
    """Looks again for small boxes in an enlarged part of the image.

    Small is what is under 3% of the image's sides. With several `samples` it is 3.5%, and answers
    that find something are merged as by PhraseGrounder; the first, just over half, suffice where
    they agree. A box whose part shows no such thing stays. Raises SpecError for a wrong setting, or
    a model that draws no boxes.

    Args:
        serving, samples, box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import BoxRefiner, EmbeddedServing, PhraseGrounder
        >>> serving = EmbeddedServing()
        >>> row = {"image_path": "small.png", "expressions": ["the red square"]}
        >>> record = PhraseGrounder(serving)(row)
        >>> [instance] = BoxRefiner(serving)(record)["expressions"][0]["instances"]
        >>> instance["bbox"], instance["zoomed"]
        ([300, 200, 334, 234], True)
    """

    name = "box_refinement"
    descriptions = {"zh": "在图像的局部放大区域中重新定位较小的边界框。"}

    def asks(self, record: Record) -> bool:
        boxes = [
            i["bbox"]
            for e in read_expressions(record, self.keys.expressions)
            for i in e["instances"]
        ]
        size = open_image(record, self.keys.image).size if boxes else (1, 1)
        return any(_is_small(box_of(bbox), size, self.samples) for bbox in boxes)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions; in `instances`, boxes found from closer by have `zoomed: true`.
        Raises RecordError.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        refined = [await self._refined(expression, image, ask) for expression in expressions]
        return {**facts_of(record, image, ask, self.serving), self.keys.output: refined}

    async def _refined(self, expression: dict[str, Any], image: Image, ask: Ask) -> dict[str, Any]:
        """The expression with what is found from closer by; other boxes than those verified earlier
        aren't verified.
        """
        given = [
            {k: v for k, v in instance.items() if k != "bbox_id"}
            for instance in expression["instances"]
        ]
        closer = await self.closer(image, expression["text"], given, ask, range(self.samples))
        if all(instance in given for instance in closer):
            return expression
        kept = {
            name: value
            for name, value in expression.items()
            if name not in ("verified", "verification")
        }
        return {**kept, "instances": numbered(expression, closer)}
