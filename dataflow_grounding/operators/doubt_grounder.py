"""Operator: phrases that a check calls absent, but not their boxes, grounded again."""

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import (
    Expression,
    in_doubt,
    is_open,
    presence_of,
    rejected_of,
    with_second_grounding,
)
from dataflow_grounding.operators._expressions import texts_of
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, facts_of, open_image

PHRASES_AT_ONCE = 16  # phrases of one request


@OPERATOR_REGISTRY.register()
class DoubtGrounder(BoxOperator):
    """Grounds phrases again that a check calls absent, though its answers about their boxes differ.

    It follows a CropJudge. A box in doubt that isn't found a second time goes into `rejected`. One
    that is found again stays in doubt, as a model finds what isn't there twice, too. So the model
    isn't asked in a picture where it boxed everything else that the check calls absent.

    Args:
        serving: The model that found the boxes.
        samples: How many answers it gave when it found them: this is a further one.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import DoubtGrounder, EmbeddedServing
        >>> box = {"bbox_id": "a.0", "bbox": [600, 500, 700, 580]}
        >>> said = {"method": "check", "there": False, "count": 0, "second": "crop"}
        >>> said["boxes"] = [
        ...     {"bbox_id": "a.0", "verdict": "right", "crop": False, "decision": "undecided"}
        ... ]
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [
        ...     {"text": "the blue square", "instances": [box], "verification": said}
        ... ]
        >>> [settled] = DoubtGrounder(EmbeddedServing())(row)["expressions"]
        >>> settled["instances"], settled["rejected"][0]["reason"]
        ([], 'right; crop: no; found again: no')
    """

    name = "doubt_grounding"
    descriptions = {"zh": "对评判认为不存在但回答不一致的短语重新定位一次。"}

    def asks(self, record: Record) -> bool:
        """Whether a record has phrases to be grounded again."""
        return bool(_places_in_doubt(read_expressions(record, self.keys.expressions)))

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions, without boxes in doubt that aren't found again.

        What the model is unsure about stays as it is. The update is Partial where an answer can't
        be had: what it was about stays in doubt.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        failed: RecordError | None = None
        for places in batched(_places_in_doubt(expressions), PHRASES_AT_ONCE):
            texts = texts_of(expressions[place] for place in places)
            try:
                # `samples` numbers a further answer: else the stored one comes back, where these
                # are all phrases of the record
                answers = await self.ground(image, texts, ask, self.samples)
            except RecordError as error:
                failed = error
                continue
            for place, answer in zip(places, answers, strict=True):
                if answer.status in ("grounded", "none"):  # else it tells nothing
                    expressions[place] = with_second_grounding(expressions[place], answer.instances)
        update = {**facts_of(record, image, ask, self.serving), self.keys.output: expressions}
        return Partial(update, failed) if failed else update


def _places_in_doubt(expressions: list[Expression]) -> list[int]:
    # Return the places of the expressions to be grounded again, from 0. These are the ones that no
    # person settled, whose thing is said to be absent, and that have boxes in doubt. There are none
    # where `_boxed_everything`.
    if _boxed_everything(expressions):
        return []
    places = []
    for place, expression in enumerate(expressions):
        if is_open(expression) and presence_of(expression).there is False and in_doubt(expression):
            places.append(place)
    return places


def _boxed_everything(expressions: list[Expression]) -> bool:
    # Whether each thing that is said to be absent, and is left without a box, had boxes before.
    # That is so of a model that boxes all that it is asked for: grounding again would tell nothing.
    # False where there is no such thing.
    emptied_count = 0
    for expression in expressions:
        if expression["instances"] or presence_of(expression).there is not False:
            continue
        if not rejected_of(expression):
            return False
        emptied_count += 1
    return emptied_count > 0
