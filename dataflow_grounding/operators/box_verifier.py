"""Operator: expressions with boxes grounded once more, to see whether the same is found."""

from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.matching import SAME, agreement
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._expressions import any_has_boxes, texts_of, within_image
from dataflow_grounding.operators._nearness import reground
from dataflow_grounding.operators.box_refiner import LooksCloser
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, open_image
from dataflow_grounding.tasks.grounding import Found


@OPERATOR_REGISTRY.register()
class BoxVerifier(LooksCloser):
    """Grounds each expression with boxes once more and compares the two answers.

    Each expression is alone in its request. Boxes that were found in a crop are compared with
    boxes that are, too. Raises SpecError for a wrong setting, or a model that draws no boxes.

    Args:
        serving: The model that is asked.
        samples: As many answers as PhraseGrounder asked for: the one asked for here is a further
            one.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

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
        """Whether a record has expressions with boxes."""
        expressions = read_expressions(record, self.keys.expressions)
        return any_has_boxes(expressions)

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions, those with boxes with `verified` and `verification`.

        `verified` says whether the mean IoU of the two answers' boxes is 0.5 or more, and no box
        reaches out of the image. It is null where the second answer can't be had; the update then
        is Partial, with the first such error. Raises RecordError for a record that can't be read,
        or states another size than its image has.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        check_stated_size(record, image.size)
        with_boxes = [expression for expression in expressions if expression["instances"]]
        zoomed_in = set()
        for expression in with_boxes:
            if any(instance.get("zoomed") for instance in expression["instances"]):
                zoomed_in.add(expression["text"])

        async def ground_again(texts: list[str]) -> list[Found]:
            """Return a further answer for a text, the only one in the list."""
            text = texts[0]
            # `samples` numbers a further answer: else the stored one comes back, of a phrase that
            # was alone in its request
            [answer] = await self.ground(image, texts, ask, self.samples)
            if text in zoomed_in:
                instances = await self.closer(image, text, answer.instances, ask, [self.samples])
                answer = replace(answer, instances=instances)
            return [answer]

        answers = await reground(ground_again, texts_of(with_boxes))
        checked: list[dict[str, Any]] = []
        for expression in expressions:
            if expression["instances"]:
                fields = _verification_fields(expression, answers[expression["text"]])
                expression = within_image({**expression, **fields}, image.size)
            checked.append(expression)
        update = {self.keys.output: checked}
        for answer in answers.values():
            if isinstance(answer, RecordError):
                return Partial(update, answer)
        return update


def _verification_fields(expression: dict[str, Any], answer: Found | RecordError) -> dict[str, Any]:
    # `answer` is what was found when its text was grounded again, or why none could be had.
    if isinstance(answer, RecordError):
        return {"verified": None, "verification": {"method": "reground", "reason": str(answer)}}
    overlap = round(agreement(expression["instances"], answer.instances), 4)
    return {"verified": overlap >= SAME, "verification": {"method": "reground", "iou": overlap}}
