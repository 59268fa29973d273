"""Operator: a judge's word on every box, and on whether each phrase's thing is there."""

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
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, open_image
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.checks import BoxVerdict, Checked, Presence, box_check
from dataflow_grounding.watch.judge_watch import JUDGE_EVERY


@OPERATOR_REGISTRY.register()
class BoxChecker(JudgeOperator):
    """Has a judge say how each box fits, and whether each phrase's thing is there, and how often.

    One request shows all boxes of an image, drawn and numbered. The answers go into `verification`.

    Args:
        serving, box_format, check_every: As JudgeOperator's.
        decides: Whether verdict and presence, of one reply, are enough to decide. Else they only
            prepare a CropJudge, whose answers are of another kind.

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
        """Adds `verified`, `verification` and `rejected`.

        Partial without an answer or a tested judge: expressions keep their boxes, `verified` null.
        """
        image = open_image(record, self.keys.image, self.serving.image_limits)
        open_ones = self.asked_about(record)
        asked = {place: identified(expression) for place, expression in open_ones.items()}
        if not asked:
            return self.update_of(record, image, ask, {})
        self.check_size(record, image)
        distrust = await self.why_not_trusted(record, ask)
        if distrust is not None:
            return self.unchecked_update(record, image, ask, asked, distrust)
        presences: dict[int, Presence] = {}
        verdicts: dict[int, list[BoxVerdict]] = {}
        errors: dict[int, RecordError] = {}

        async def ask_once(parts: list[Part]) -> Checked:
            texts = [asked[part.place]["text"] for part in parts]
            boxes = []
            for part in parts:
                boxes += drawn(asked[part.place], part.boxes)
            return await ask(box_check(image, texts, boxes, self.box_format))

        for group in groups_of(asked):
            try:
                answers = await ask_in_parts(group, ask_once)
            except RecordError as error:
                errors.update((part.place, error) for part in group)
                continue
            for parts, checked in answers:
                coming = iter(checked.verdicts)
                for part, presence in zip(parts, checked.presences, strict=True):
                    presences.setdefault(part.place, presence)
                    own = [next(coming) for _ in part.boxes]
                    verdicts.setdefault(part.place, []).extend(own)
        judged = {}
        for place, expression in asked.items():
            if place in errors:
                judged[place] = {**not_checked(expression, "not checked"), "doubtful": True}
            else:
                answered = with_verdicts(expression, presences[place], verdicts[place])
                judged[place] = within_image(self.decision_on(answered), image.size)
        update = self.update_of(record, image, ask, judged)
        return Partial(update, next(iter(errors.values()))) if errors else update

    def decision_on(self, expression: Expression) -> Expression:
        """The expression after what its verdicts decide, if they are to."""
        return by_presence(expression) if self.decides else expression


def by_presence(expression: Expression) -> Expression:
    """The expression, decided by the verdicts on its boxes and its phrase's presence."""
    return decided(expression, seconds_of_presence(expression), name="presence")
