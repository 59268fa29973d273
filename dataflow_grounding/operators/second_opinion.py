"""Operator: phrases of which a check is in doubt, asked of another model."""

from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.operators._box_decisions import (
    Expression,
    check_of,
    is_open,
    with_second_opinion,
)
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, facts_of, open_image
from dataflow_grounding.operators.box_operator import BoxOperator

PHRASES_AT_ONCE = 16


@OPERATOR_REGISTRY.register()
class SecondOpinion(BoxOperator):
    """Asks another model, a better one, for the boxes of phrases of which a check is in doubt.

    It follows a BoxChecker or a CropJudge. A box in doubt stays if the other model finds it too,
    and goes into `rejected` if it finds none; a phrase without a box gets those that it finds, with
    `found_by`. Where its boxes are others, the phrase stays in doubt. What the check has decided is
    not asked about.

    Args:
        serving: The other model.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, SecondOpinion
        >>> box = {"bbox_id": "a.0", "bbox": [300, 200, 500, 400]}
        >>> said = {"method": "check", "there": True, "count": 1}
        >>> said["boxes"] = [{"bbox_id": "a.0", "verdict": "other", "decision": "undecided"}]
        >>> doubted = {"text": "the red square", "instances": [box], "verified": None}
        >>> row = {"image_path": "square.png", "expressions": [{**doubted, "verification": said}]}
        >>> [settled] = SecondOpinion(EmbeddedServing())(row)["expressions"]
        >>> settled["verified"], settled["verification"]["other_model"]["boxes"]
        (True, 1)
    """

    name = "second_opinion"
    descriptions = {"zh": "对核对后仍存疑的短语,由另一个模型重新定位。"}

    def asks(self, record: Record) -> bool:
        """Whether a check left something in doubt."""
        return any(map(_is_in_doubt, read_expressions(record, self.keys.expressions)))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Settles what the other model's boxes settle. Raises RecordError."""
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        in_doubt = [place for place, item in enumerate(expressions) if _is_in_doubt(item)]
        for places in batched(in_doubt, PHRASES_AT_ONCE):
            texts = [expressions[place]["text"] for place in places]
            answers = await self.ground(image, texts, ask)
            for place, answer in zip(places, answers, strict=True):
                expressions[place] = with_second_opinion(
                    expressions[place], answer.instances, self.serving.model
                )
        return {**facts_of(record, image, ask, self.serving), self.keys.output: expressions}


def _is_in_doubt(expression: Expression) -> bool:
    """Whether a check, which was obeyed, couldn't decide about an expression."""
    return bool(check_of(expression)) and expression["verified"] is None and is_open(expression)
