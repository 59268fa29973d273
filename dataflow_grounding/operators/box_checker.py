"""Operator: a judge's word on every box, and on whether each phrase's thing is there."""

from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import (
    Expression,
    decided,
    identified,
    not_checked,
    seconds_of_presence,
    with_verdicts,
)
from dataflow_grounding.operators._expressions import within_image
from dataflow_grounding.operators._judgement import ask_judge
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, open_image


@OPERATOR_REGISTRY.register()
class BoxChecker(JudgeOperator):
    """Has a judge say how each box fits, and whether each phrase's thing is there, and how often.

    One request shows all boxes of an image, drawn and numbered. The answers go into `verification`,
    and a box's verdict and its phrase's presence, which are of one reply, decide.

    Args:
        serving, box_format, check_every: As JudgeOperator's.

    Example:
        >>> from dataflow_grounding import BoxChecker, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": false, "count": 0}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "other", "reason": "a blue one"}]}'
        >>> box = {"bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the green square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [checked] = BoxChecker(serving, check_every=None)(row)["expressions"]
        >>> checked["instances"], checked["status"], checked["rejected"][0]["reason"]
        ([], 'none', 'on another thing (a blue one); presence: no')
    """

    name = "box_check"
    tasks = ("box_check",)
    descriptions = {"zh": "由评判模型逐一核对每个边界框,并判断每个短语所指是否存在。"}
    question = "verdicts"

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions with `verified`, `verification` and, of boxes that go, `rejected`.

        An expression whose answer can't be had keeps its boxes, with `verified` None and doubtful;
        the update then is Partial. So it is where the judge can't be tested. Raises RecordError for
        a record that can't be read, or states another size than its image has.
        """
        image = open_image(record, self.keys.image, self.serving.image_limits)
        asked = {}
        for place, expression in self.asked_about(record).items():
            asked[place] = identified(expression)
        if not asked:
            return self.update_of(record, image, ask, {})
        self.check_size(record, image)
        distrust = await self.why_not_trusted(record, ask)
        if distrust is not None:
            return self.unchecked_update(record, image, ask, asked, distrust)
        judgement = await ask_judge(image, asked, self.box_format, ask)
        judged = {}
        for place, expression in asked.items():
            if place in judgement.errors:
                judged[place] = {**not_checked(expression, "not checked"), "doubtful": True}
            else:
                answered = with_verdicts(
                    expression, judgement.presences[place], judgement.verdicts[place]
                )
                judged[place] = within_image(self.decision_on(answered), image.size)
        update = self.update_of(record, image, ask, judged)
        if judgement.errors:
            return Partial(update, next(iter(judgement.errors.values())))
        return update

    def decision_on(self, expression: Expression) -> Expression:
        """Return the expression as its boxes' verdicts and its phrase's presence decide it."""
        return decided(expression, seconds_of_presence(expression), name="presence")
