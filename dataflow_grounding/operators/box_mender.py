"""Operator: asks again, in a crop, for boxes that a check calls too large or on a part."""

from collections.abc import Sequence
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.images.shown import crop_of
from dataflow_grounding.operators._box_decisions import with_mended
from dataflow_grounding.operators._expressions import boxes_of
from dataflow_grounding.operators._misfits import Misfit, around, grouped, misfits_of, nearest_to
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    facts_of,
    open_image,
)


@OPERATOR_REGISTRY.register()
class BoxMender(BoxOperator):
    """Asks again, in a crop, for boxes that a check calls too large or on a part of their thing.

    It follows the check. Boxes that one part of the image shows, of half of its area at most, are
    asked for together. A box that is found there takes the place of the one that was judged, which
    stays in `before`; where none is found, or the same one, nothing changes.

    Args:
        serving: The model that finds boxes.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import BoxMender, EmbeddedServing
        >>> box = {"bbox_id": "a.0", "bbox": [250, 150, 600, 450]}
        >>> said = {"method": "check", "there": True, "count": 1}
        >>> said["boxes"] = [{"bbox_id": "a.0", "verdict": "loose", "decision": "kept"}]
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [
        ...     {"text": "the red square", "instances": [box], "verification": said}
        ... ]
        >>> [mended] = BoxMender(EmbeddedServing())(row)["expressions"]
        >>> mended["instances"][0]["bbox"], mended["instances"][0]["before"]
        ([300, 200, 500, 400], [250, 150, 600, 450])
    """

    name = "box_mending"
    descriptions = {"zh": "对过松或只覆盖局部的边界框在放大区域中重新定位。"}

    def asks(self, record: Record) -> bool:
        """Whether a check calls any box too large or on a part, so that it is asked for again."""
        expressions = read_expressions(record, self.keys.expressions)
        return bool(misfits_of(expressions))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions, with better boxes where they are found, each noted.

        Such an instance has the box that it replaces in `before`. Raises RecordError.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        better: dict[int, dict[str, dict[str, Any]]] = {}  # place -> bbox_id -> instance
        groups = grouped(misfits_of(expressions), image.size)
        boxes_by_group = await all_done(self._boxes_of(image, group, ask) for group in groups)
        for group, boxes_of_phrase in zip(groups, boxes_by_group, strict=True):
            for misfit in group:
                bbox = nearest_to(misfit.bbox, boxes_of_phrase[misfit.phrase])
                if bbox is None:
                    continue
                instance = misfit.instance
                mended = {**instance, "bbox": bbox, "before": list(instance["bbox"])}
                better.setdefault(misfit.place, {})[str(instance["bbox_id"])] = mended
                ask.note("mended", "a box that a check called too large, or on a part")
        for place, instances in better.items():
            expressions[place] = with_mended(expressions[place], instances)
        return {**facts_of(record, image, ask, self.serving), self.keys.output: expressions}

    async def _boxes_of(
        self, image: Image, group: Sequence[Misfit], ask: Ask
    ) -> dict[str, list[Bbox]]:
        # Returns, by phrase, the boxes that are found, in pixels of the whole image.
        crop = crop_of(image, around([misfit.region for misfit in group]))
        phrases = list(dict.fromkeys(misfit.phrase for misfit in group))
        answers = await self.ground(crop, phrases, ask)
        boxes = {}
        for phrase, answer in zip(phrases, answers, strict=True):
            boxes[phrase] = [crop.to_image(bbox) for bbox in boxes_of(answer.instances)]
        return boxes
