"""What the operators that ask a judge about boxes have in common."""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import Expression, is_open, not_checked
from dataflow_grounding.operators._expressions import any_has_boxes
from dataflow_grounding.operators.judge_test import JUDGE_EVERY, Distrust, JudgeWatch, Question
from dataflow_grounding.operators.operator_base import Ask, Image, Operator, facts_of, open_image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.choice import FormatChoice, choice_of


class JudgeOperator(Operator):
    """Asks a judge about the boxes of expressions, and tests it with questions of known answer.

    Expressions that a person settled are left alone.

    Args:
        serving: The judge: the model that found the boxes, or another.
        box_format: How boxes are written for the judge; None takes the serving's format.
        check_every: Records that rely on one test of the judge; None for no tests. A judge that
            does no better than chance is not obeyed.

    Raises:
        SpecError: A setting is wrong.
    """

    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    question: ClassVar[Question]
    """Which kind of question the judge is tested with: that of the subclass."""

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        check_every: int | None = JUDGE_EVERY,
    ) -> None:
        self.serving: Serving = self.checked_serving(serving)
        self.format_choice: FormatChoice = choice_of(serving, box_format)
        self.judge_watch = JudgeWatch(type(self).question, check_every)

    @property
    def box_format(self) -> BoxFormat:
        """The format of boxes in questions to the judge."""
        return self.format_choice.format

    def settle(self, start: RunStart) -> Counter[str]:
        """Find out the box format, and return how many requests and tokens it took."""
        return self.format_choice.settle(start)

    def prepare(self, start: RunStart) -> Counter[str]:
        """Settle the format, and begin this run's tests of the judge.

        Returns how many requests and tokens the format took; the judge is tested later, with the
        records.
        """
        asked = self.settle(start)
        self.judge_watch = self.judge_watch.begun(self.serving, self.box_format, start)
        return asked

    def facts(self) -> dict[str, Any]:
        """Return after how many records the judge is tested again, for `run.json`."""
        return {"judge_every": self.judge_watch.every}

    def asked_about(self, record: Record) -> dict[int, Expression]:
        """Return the expressions that the judge is asked about, by their place, from 0.

        These are all that no person settled. Raises BrokenRow where the record has no expressions
        that can be read.
        """
        asked = {}
        for place, expression in enumerate(read_expressions(record, self.keys.expressions)):
            if is_open(expression):
                asked[place] = expression
        return asked

    def look_over(self, record: Record) -> None:
        """Raise SizeDiffers where the record's boxes are in a picture of another size."""
        self.check_size(record, open_image(record, self.keys.image))

    def check_size(self, record: Record, image: Image) -> None:
        """Raise SizeDiffers where boxes are asked about, and the record states another size.

        That is, another size than its image has.
        """
        if any_has_boxes(self.asked_about(record).values()):
            check_stated_size(record, image.size)

    def asks(self, record: Record) -> bool:
        """Whether there are expressions that the judge is asked about."""
        return bool(self.asked_about(record))

    async def why_not_trusted(self, record: Record, ask: Ask) -> Distrust | None:
        """Return why the judge's answers about this record don't count; None where they do.

        The judge is tested first, where its last test is `check_every` records ago. That it isn't
        trusted is noted, as `judge_not_tested` where a test failed, else as `judge_not_obeyed`.
        """
        tests = self.judge_watch.tests
        if tests is None:
            return None
        distrust = await tests.why_not_trusted(ask, record.place)
        if distrust is not None:
            code = "judge_not_tested" if distrust.error is not None else "judge_not_obeyed"
            ask.note(code, distrust.reason)
        return distrust

    def unchecked_update(
        self,
        record: Record,
        image: Image,
        ask: Ask,
        asked: Mapping[int, Expression],
        distrust: Distrust,
    ) -> Update | Partial:
        """Return the record's columns for a judge that isn't trusted: boxes stay, unchecked.

        `verification` has the reason. The update is Partial if the judge couldn't be tested: like
        any missing answer, that is reported as a failure, and a later run asks again.

        Args:
            record: The record.
            image: Its image.
            ask: Takes notes on the record.
            asked: The expressions that the judge would have been asked about, by place.
            distrust: Why it isn't trusted.
        """
        unchecked = {}
        for place, expression in asked.items():
            unchecked[place] = not_checked(expression, distrust.reason)
        update = self.update_of(record, image, ask, unchecked)
        if distrust.error is None:
            return update
        # A copy for each record, because a report of the failure may add to it.
        return Partial(update, copy.copy(distrust.error))

    def update_of(
        self, record: Record, image: Image, ask: Ask, checked: Mapping[int, Expression]
    ) -> Update:
        """Return the record's columns with the checked expressions put in their places.

        `doubtful` is True where one of these is doubtful, else it isn't set.

        Args:
            record: The record.
            image: Its image.
            ask: Takes notes on the record.
            checked: The expressions after the check, by their place in the record, from 0.
        """
        expressions = read_expressions(record, self.keys.expressions)
        for place, expression in checked.items():
            expressions[place] = expression
        update = {**facts_of(record, image, ask, self.serving), self.keys.output: expressions}
        if any(expression.get("doubtful") for expression in checked.values()):
            update["doubtful"] = True
        return update
