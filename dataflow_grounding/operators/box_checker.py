"""Operator: a judge's word on every box, and on whether each phrase's thing is there."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.expressions import Expression, read_expressions
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import decided, identified, not_checked
from dataflow_grounding.operators._candidates import (
    COLUMN,
    candidates_in,
    is_absent,
    with_reason,
)
from dataflow_grounding.operators._expressions import any_has_boxes, within_image
from dataflow_grounding.operators._false_box import EVERY, false_box_for, note_verdict
from dataflow_grounding.operators._judgement import Judgement, ask_judge
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Operator,
    open_image,
)
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.choice import FormatChoice, choice_of


@OPERATOR_REGISTRY.register()
class BoxChecker(Operator):
    """Has a judge say how each box fits, and whether each phrase's thing is there, and how often.

    One request shows all boxes of an image, drawn and numbered. The answers go into `verification`.
    A box stays or goes by two of them: how it fits, and whether its phrase's thing is there. Of the
    phrases that a NegativePhraser made up, those that the judge doesn't call absent are taken out.
    What a person settled is left alone.

    Args:
        serving: The judge: the model that found the boxes, or another.
        box_format: How boxes are written for the judge; None takes the serving's format.
        check_every: One record in about this many has a false box among its boxes; None for none.
            The run warns of a judge that accepts many of them.
        only_negatives: Whether the judge is asked about a NegativePhraser's phrases alone.

    Raises:
        SpecError: A setting is wrong.

    Example:
        >>> from dataflow_grounding import BoxChecker, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": false, "count": 0}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "other"}]}'
        >>> box = {"bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the green square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [checked] = BoxChecker(serving, check_every=None)(row)["expressions"]
        >>> checked["instances"], checked["status"], checked["rejected"][0]["reason"]
        ([], 'none', 'on another thing; presence: no')
    """

    name = "box_check"
    tasks = ("box_check",)
    uncounted = "enlarged pictures of small boxes, and requests about more than 40 boxes"
    input_keys = {"image": "image_path", "expressions": "expressions", "candidates": COLUMN}
    output_keys = {"output": "expressions", "candidates": COLUMN}
    optional_keys = ("candidates",)
    descriptions = {"zh": "由评判模型逐一核对每个边界框,并判断每个短语所指是否存在。"}

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        check_every: int | None = EVERY,
        only_negatives: bool = False,
    ) -> None:
        self.serving: Serving = self.checked_serving(serving)
        self.format_choice: FormatChoice = choice_of(serving, box_format)
        is_count = isinstance(check_every, int) and check_every >= 1
        if check_every is not None and not is_count:
            raise SpecError("check_every should be 1 or more, or None")
        self.check_every = check_every
        self.only_negatives = only_negatives
        if only_negatives:  # these have no boxes
            self.uncounted = ""

    async def settle(self, start: RunStart) -> Counter[str]:
        """Find out the box format, and return how many requests and tokens it took."""
        return await self.format_choice.settle(start)

    def asks(self, record: Record) -> bool:
        """Whether there are expressions that the judge is asked about."""
        return bool(self._asked_about(record))

    def _asked_about(self, record: Record) -> dict[int, Expression]:
        """Return the expressions to ask about by place, the index in the record."""
        expression_by_place = {}
        for place, expression in enumerate(read_expressions(record, self.keys.expressions)):
            is_of_kind_asked = not self.only_negatives or expression.is_negative
            if is_of_kind_asked and not expression.is_settled:  # a person's word stays
                # each box has an id, by which `verification` names it
                expression_by_place[place] = identified(expression)
        return expression_by_place

    def look_over(self, record: Record) -> None:
        """Raise SizeDiffers where the record's boxes are in a picture of another size."""
        if any_has_boxes(self._asked_about(record).values()):
            image = open_image(record, self.keys.image)
            check_stated_size(record, image.size, image.file.path)

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions with `verified`, `verification` and, of boxes that go, `rejected`.

        An expression whose answer can't be had keeps its boxes, with `verified` None and doubtful;
        the update then is Partial. Raises RecordError for a record that can't be read, or states
        another size than its image has.
        """
        image = open_image(record, self.keys.image, self.serving.image_limits)
        asked = self._asked_about(record)
        if not asked:
            return self._update_of(record, ask, checked_by_place={})
        self.look_over(record)  # raises for boxes in a picture of another size
        judgement = await self._judge(record, image, asked, ask)
        checked_by_place = _checked_by_place(asked, judgement, image.size)
        update = self._update_of(record, ask, checked_by_place)
        errors = list(judgement.errors.values())
        if errors:
            return Partial(update, errors[0])
        return update

    async def _judge(
        self, record: Record, image: Image, asked: Mapping[int, Expression], ask: Ask
    ) -> Judgement:
        """Return what the judge says of the expressions, by place."""
        # For some records the judge is shown a false box, too. The verdict on that one is noted,
        # and taken out of the answer.
        every_expression = read_expressions(record, self.keys.expressions)
        false_box = false_box_for(record, self.check_every, asked, every_expression, image.size)
        if false_box is None:
            return await ask_judge(image, asked, ask)
        asked_with_false_box = false_box.among(asked)  # as its expression's last box
        judgement = await ask_judge(image, asked_with_false_box, ask)
        if false_box.place not in judgement.errors:
            verdict_on_false_box = judgement.verdicts[false_box.place].pop()
            note_verdict(verdict_on_false_box, ask)
        return judgement

    def _update_of(
        self, record: Record, ask: Ask, checked_by_place: Mapping[int, Expression]
    ) -> Update:
        """Return the record's expressions, those that were checked in their places."""
        checked_and_staying: list[Expression] = []
        taken_out: dict[int, Expression] = {}  # by place
        for place, checked in checked_by_place.items():
            # A negative is a phrase made up to be absent: one that may be there is taken out.
            if checked.is_negative and not is_absent(checked):
                taken_out[place] = with_reason(checked)
            else:
                checked_and_staying.append(checked)
        expressions = []
        for place, expression in enumerate(read_expressions(record, self.keys.expressions)):
            if place not in taken_out:
                expressions.append(checked_by_place.get(place, expression))
        for expression in checked_and_staying:
            if expression.is_negative:
                ask.note("negatives", f"a negative kept: {expression.change}")
        update: Update = {self.keys.output: expressions}
        if taken_out:
            earlier = candidates_in(record, self.keys.candidates)
            update[self.keys.candidates] = [*earlier, *taken_out.values()]
        if any(expression.doubtful for expression in checked_and_staying):
            update["doubtful"] = True
        return update


def _checked_by_place(
    asked: Mapping[int, Expression], judgement: Judgement, size: Size
) -> dict[int, Expression]:
    checked = {}
    for place, expression in asked.items():
        if place in judgement.errors:
            checked[place] = replace(not_checked(expression, "not checked"), doubtful=True)
            continue
        result = decided(expression, judgement.presences[place], judgement.verdicts[place])
        checked[place] = within_image(result, size)
    return checked
