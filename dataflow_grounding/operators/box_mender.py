"""Operator: boxes that a check calls too large, or on a part, asked for again from closer by."""

import math
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.images.shown import crop_of
from dataflow_grounding.operators._box_decisions import (
    Expression,
    is_open,
    verdicts_of,
    with_mended,
)
from dataflow_grounding.operators._nearness import middle_of
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, facts_of, open_image
from dataflow_grounding.operators.box_operator import BoxOperator

# by which share of its sides the part that is shown is larger than the box, at each edge
AROUND = {"loose": 0.1, "part": 1.0}


@OPERATOR_REGISTRY.register()
class BoxMender(BoxOperator):
    """Asks from closer by for boxes that a check calls too large, or on a part of their thing.

    It follows the check. A box that is found there takes the place of the first one, which stays in
    `before`; where none is, or the same one, the first one stays as it was judged.

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
        expressions = read_expressions(record, self.keys.expressions)
        return any(_misfits(expression) for expression in expressions)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Sets better boxes, each with its `before`. Raises RecordError."""
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)

        async def mended(expression: Expression) -> Expression:
            """Return an expression with the boxes that are better from closer by."""
            better = {}
            for instance, fit in _misfits(expression):
                again = await self._from_closer(image, expression["text"], instance, fit, ask)
                if again is not None:
                    better[str(instance["bbox_id"])] = again
            return with_mended(expression, better) if better else expression

        changed = await all_done(map(mended, expressions))
        return {**facts_of(record, image, ask, self.serving), self.keys.output: list(changed)}

    async def _from_closer(
        self, image: Image, phrase: str, instance: dict[str, Any], fit: str, ask: Ask
    ) -> dict[str, Any] | None:
        """The instance with the box that is found from closer by, and its own as `before`.

        Of several it is that whose middle is nearest. None where no box is found that overlaps its
        own, or the same one is. A box that is found is noted.
        """
        bbox = box_of(instance["bbox"])
        crop = crop_of(image, _grown(bbox, AROUND[fit]))
        [answer] = await self.ground(crop, [phrase], ask)
        middle = middle_of(bbox)
        boxes = [crop.to_image(box_of(other["bbox"])) for other in answer.instances]
        overlapping = [box for box in boxes if iou(box, bbox) > 0]
        if not overlapping:
            return None
        nearest = min(overlapping, key=lambda box: math.dist(middle_of(box), middle))
        before = list(instance["bbox"])
        after = [int(edge) for edge in nearest]
        if after == before:
            return None
        ask.note("mended", "a box that a check called too large, or on a part")
        return {**instance, "bbox": after, "before": before}


def _misfits(expression: Expression) -> list[tuple[dict[str, Any], str]]:
    """The open expression's boxes to be asked for again, each with its verdict, loose or part."""
    if not is_open(expression):
        return []
    verdicts = verdicts_of(expression)
    misfits = []
    for instance in expression["instances"]:
        verdict = verdicts.get(str(instance.get("bbox_id")), {})
        fit = verdict.get("verdict")
        # where the answers differ, a closer look at the box tells nothing of its thing
        is_mendable = not verdict.get("mended") and verdict.get("decision") != "undecided"
        if fit in AROUND and is_mendable:
            misfits.append((instance, str(fit)))
    return misfits


def _grown(bbox: Bbox, share: float) -> Bbox:
    """The box, larger by a share of its sides at each edge."""
    x1, y1, x2, y2 = bbox
    width = x2 - x1
    height = y2 - y1
    return x1 - share * width, y1 - share * height, x2 + share * width, y2 + share * height
