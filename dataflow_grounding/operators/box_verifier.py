"""Operator: expressions with boxes grounded once more, to see whether the same is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.boxes.regrounding import agreement, reground
from dataflow_grounding.engine.plan import Ask, Partial
from dataflow_grounding.errors import RecordError, SpecError
from dataflow_grounding.images import open_image
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update, read_expressions
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.duplicates import MERGE_IOU
from dataflow_grounding.tasks.phrase_grounding import Found
from dataflow_grounding.watch.box_watch import CHECK_EVERY, OnSuspect


@OPERATOR_REGISTRY.register()
class BoxVerifier(BoxOperator):
    """Grounds each expression with boxes once more, alone, and compares the two answers' boxes."""

    name = "box_verification"
    descriptions = {
        "en": "Grounds each expression with boxes once more and compares the two answers.",
        "zh": "对每个已有边界框的指代表达式重新定位一次,并比较两次结果是否一致。",
    }

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        samples: int = 1,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        if samples < 1:
            raise SpecError("samples should be 1 or more")
        super().__init__(
            serving,
            box_format=box_format,
            merge_iou=merge_iou,
            on_suspect_boxes=on_suspect_boxes,
            check_every=check_every,
        )
        self.samples = samples

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Sets `verified` and `verification` of each expression with boxes; Partial where one could not be grounded again."""
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        boxed = [expression for expression in expressions if expression["instances"]]
        zoomed_in = {e["text"] for e in boxed if any(instance.get("zoomed") for instance in e["instances"])}

        async def afresh(texts: list[str]) -> list[Found]:
            """Numbered as a further answer, so that it is another one where the phrase was alone before."""
            [found] = await self.ground(image, texts, ask, self.samples)
            if texts[0] in zoomed_in:
                closer = await self.closer(image, texts[0], found.instances, ask, self.samples)
                found = replace(found, instances=closer)
            return [found]

        found = await reground(afresh, [expression["text"] for expression in boxed])
        checked = [{**e, **(_verdict(e, found[e["text"]]) if e["instances"] else {})} for e in expressions]
        update = {**facts_of(record, image, ask, self.serving.model), self.keys.output: checked}
        failed = next((answer for answer in found.values() if isinstance(answer, RecordError)), None)
        if failed is not None:
            return Partial(update, failed)
        return update


def _verdict(expression: dict[str, Any], again: Found | RecordError) -> dict[str, Any]:
    """What grounding it once more says of an expression."""
    if isinstance(again, RecordError):
        return {"verified": None, "verification": {"method": "reground", "reason": str(again)}}
    overlap = round(agreement(expression["instances"], again.instances), 4)
    return {"verified": overlap >= SAME, "verification": {"method": "reground", "iou": overlap}}
