"""Operator: a judge's word on every box, and on whether each phrase's thing is there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dataflow_grounding._util.errors import RecordError
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
from dataflow_grounding.operators._box_groups import Part, drawn, groups_of
from dataflow_grounding.operators._expressions import within_image
from dataflow_grounding.operators._nearness import ask_in_parts
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, open_image
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.checks import BoxVerdict, Checked, Presence, box_check
from dataflow_grounding.watch.judge_watch import JUDGE_EVERY


class _Judgement(NamedTuple):
    """What a judge says of a record's expressions, each by its place in the record.

    Attributes:
        presences: Whether each phrase's thing is there, and how often. Of an expression whose boxes
            several requests show, what the first one says.
        verdicts: How each of its boxes fits, in their order.
        errors: Why an expression, or some of its boxes, couldn't be judged.
    """

    presences: dict[int, Presence]
    verdicts: dict[int, list[BoxVerdict]]
    errors: dict[int, RecordError]

    def add(self, parts: Sequence[Part], checked: Checked) -> None:
        """Add what one reply says of the parts that its request was about."""
        first_box = 0  # the number of a part's first box among all of the reply
        for part, presence in zip(parts, checked.presences, strict=True):
            after_last = first_box + len(part.boxes)
            self.presences.setdefault(part.place, presence)
            verdicts = self.verdicts.setdefault(part.place, [])
            verdicts += checked.verdicts[first_box:after_last]
            first_box = after_last


@OPERATOR_REGISTRY.register()
class BoxChecker(JudgeOperator):
    """Has a judge say how each box fits, and whether each phrase's thing is there, and how often.

    One request shows all boxes of an image, drawn and numbered. The answers go into `verification`.

    Args:
        serving, box_format, check_every: As JudgeOperator's.
        decides: Whether a box's verdict and its phrase's presence, which are of one reply, are
            enough to decide. Else they are only noted down for a CropJudge, which decides by these
            and its own answers.

    Example:
        >>> from dataflow_grounding import BoxChecker, OpenAIServing
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
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

    def __init__(
        self,
        serving: Serving,
        *,
        decides: bool = True,
        box_format: str | None = None,
        check_every: int | None = JUDGE_EVERY,
    ) -> None:
        super().__init__(serving, box_format=box_format, check_every=check_every)
        self.decides = decides

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
        judgement = await self._ask_judge(image, asked, ask)
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

    async def _ask_judge(
        self, image: Image, asked: Mapping[int, Expression], ask: Ask
    ) -> _Judgement:
        """Ask the judge about expressions and their boxes, mostly in one request.

        Where a request fails, the expressions that it is about have its error, and the others are
        asked about all the same.

        Args:
            image: The image.
            asked: The expressions, by their place in the record.
            ask: Asks the judge.
        """

        async def ask_once(parts: list[Part]) -> Checked:
            """Return what the judge says of some expressions and boxes, from one request."""
            texts = [asked[part.place]["text"] for part in parts]
            boxes = []
            for part in parts:
                boxes += drawn(asked[part.place], part.boxes)
            return await ask(box_check(image, texts, boxes, self.box_format))

        judgement = _Judgement({}, {}, {})
        for group in groups_of(asked):
            try:
                answers = await ask_in_parts(group, ask_once)
            except RecordError as error:
                judgement.errors.update((part.place, error) for part in group)
                continue
            for parts, checked in answers:
                judgement.add(parts, checked)
        return judgement

    def decision_on(self, expression: Expression) -> Expression:
        """Return the expression as its verdicts decide it; as it is where they aren't to decide."""
        return by_presence(expression) if self.decides else expression


def by_presence(expression: Expression) -> Expression:
    """Return the expression as the verdicts on its boxes and its phrase's presence decide it."""
    return decided(expression, seconds_of_presence(expression), name="presence")
