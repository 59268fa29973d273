"""Operator: expressions with boxes grounded once more, to see whether the same is found."""

from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.matching import SAME, agreement
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._nearness import reground
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, facts_of, open_image
from dataflow_grounding.operators.box_refiner import LooksCloser
from dataflow_grounding.tasks.phrase_grounding import Found


@OPERATOR_REGISTRY.register()
class BoxVerifier(LooksCloser):
    """Grounds each expression with boxes once more and compares the two answers.

    Each expression is alone in its request. Boxes that were found from closer by are compared with
    such as are, too. Raises SpecError for a wrong setting, or a model that draws no boxes.

    Args:
        serving: The model that is asked.
        samples: As many answers as PhraseGrounder asked for: the one asked for here is a further
            one.
        boxes: `box_format`, `merge_iou`, `on_suspect_boxes`, `check_every`, as PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import BoxVerifier, EmbeddedServing, PhraseGrounder
        >>> serving = EmbeddedServing()
        >>> row = {"image_path": "square.png", "expressions": ["the red square"]}
        >>> record = PhraseGrounder(serving)(row)
        >>> BoxVerifier(serving)(record)["expressions"][0]["verified"]
        True
    """

    name = "box_verification"
    descriptions = {"zh": "对每个已有边界框的指代表达式重新定位一次,并比较两次结果是否一致。"}

    def asks(self, record: Record) -> bool:
        return any(
            expression["instances"]
            for expression in read_expressions(record, self.keys.expressions)
        )

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds `verified` (mean IoU of 0.5 or more) and `verification`; Partial with null where an
        answer failed.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        boxed = [expression for expression in expressions if expression["instances"]]
        zoomed_in = {
            e["text"] for e in boxed if any(instance.get("zoomed") for instance in e["instances"])
        }

        async def afresh(texts: list[str]) -> list[Found]:
            """Numbered as a further answer, so that it is another one where the phrase was alone
            before.
            """
            [found] = await self.ground(image, texts, ask, self.samples)
            if texts[0] in zoomed_in:
                closer = await self.closer(image, texts[0], found.instances, ask, [self.samples])
                found = replace(found, instances=closer)
            return [found]

        found = await reground(afresh, [expression["text"] for expression in boxed])
        checked = [
            {**e, **(_verdict(e, found[e["text"]]) if e["instances"] else {})} for e in expressions
        ]
        update = {**facts_of(record, image, ask, self.serving), self.keys.output: checked}
        failed = next(
            (answer for answer in found.values() if isinstance(answer, RecordError)), None
        )
        return update if failed is None else Partial(update, failed)


def _verdict(expression: dict[str, Any], again: Found | RecordError) -> dict[str, Any]:
    if isinstance(again, RecordError):
        return {"verified": None, "verification": {"method": "reground", "reason": str(again)}}
    overlap = round(agreement(expression["instances"], again.instances), 4)
    return {"verified": overlap >= SAME, "verification": {"method": "reground", "iou": overlap}}
