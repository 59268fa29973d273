"""Operator: a judge's second answer about boxes, from what is inside each; what both decide."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.images.sheet import MOST_CROPS
from dataflow_grounding.operators._box_decisions import (
    Expression,
    check_of,
    decided,
    seconds_of_crops,
)
from dataflow_grounding.operators._nearness import ask_in_parts, batched
from dataflow_grounding.operators._unclaimed import unclaimed
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, open_image
from dataflow_grounding.tasks.checks import DrawnBox, crop_check


class Crop(NamedTuple):
    """A box to be judged by its crop, with its id and its expression's place, from 0."""

    place: int
    bbox_id: str
    box: DrawnBox


@OPERATOR_REGISTRY.register()
class CropJudge(JudgeOperator):
    """Has a judge say of each box's crop whether it shows what the phrase means, and decides.

    It follows a `VerdictCollector`, whose verdict on a box is the first answer,
    as that about the crop is the second. One request shows all crops of an image, or several, of
    many. A box stays where both answers affirm it, and goes into `rejected` where both deny it;
    where they differ it stays, `verified` null and `doubtful`. The phrase's presence is a third
    answer about a box that no other phrase's box explains: a denied one of a thing that is there
    stays in doubt, and one of a thing that is there several times stays where the answers differ.
    Where the crop alone can't tell, presence is the second answer.

    Args:
        serving, box_format, check_every: As JudgeOperator's.

    Example:
        >>> from dataflow_grounding import CropJudge, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> box = {"bbox_id": "a.0", "bbox": [300, 200, 500, 400]}
        >>> said = {"method": "check", "there": False, "count": 0}
        >>> said["boxes"] = [{"bbox_id": "a.0", "verdict": "other"}]
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "a dog", "instances": [box], "verification": said}]
        >>> says = '{"crops": [{"id": 1, "answer": "no"}]}'
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [checked] = CropJudge(serving, check_every=None)(row)["expressions"]
        >>> checked["instances"], checked["verified"], checked["rejected"][0]["reason"]
        ([], True, 'on another thing; crop: no')
    """

    name = "crop_judgement"
    tasks = ("crop_check",)
    descriptions = {"zh": "仅凭每个边界框的裁剪图再次判断,并综合两次回答作出决定。"}
    question = "crops"

    def asked_about(self, record: Record) -> dict[int, Expression]:
        """Return the base class's expressions that have a BoxChecker's answers."""
        asked = super().asked_about(record)
        return {place: expression for place, expression in asked.items() if check_of(expression)}

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions with `verified`, `verification` and, for dropped boxes, `rejected`.

        The update is Partial if an answer is missing, which leaves its boxes undecided, and if the
        judge can't be tested. Without crops nothing is asked: earlier answers decide expressions
        without boxes.
        """
        image = open_image(record, self.keys.image, self.serving.image_limits)
        asked = self.asked_about(record)
        crops = _crops_of(asked)
        if crops:
            distrust = await self.why_not_trusted(record, ask)
            if distrust is not None:
                return self.unchecked_update(record, image, ask, asked, distrust)
        answers: dict[int, dict[str, bool | None]] = {}  # by place and bbox_id
        failed: RecordError | None = None

        async def ask_once(crops_of_request: list[Crop]) -> list[bool | None]:
            """Return the answer about each of some crops, from one request."""
            boxes = [crop.box for crop in crops_of_request]
            return await ask(crop_check(image, boxes, self.box_format))

        for batch in batched(crops, MOST_CROPS):
            try:
                for crops_of_request, replies in await ask_in_parts(batch, ask_once):
                    for crop, answer in zip(crops_of_request, replies, strict=True):
                        answers.setdefault(crop.place, {})[crop.bbox_id] = answer
            except RecordError as error:
                failed = error
        seconds = {}
        for place, expression in asked.items():
            seconds[place] = seconds_of_crops(expression, answers.get(place, {}))
        affirmed = unclaimed(read_expressions(record, self.keys.expressions), seconds)
        judged = {}
        for place, expression in asked.items():
            judged[place] = decided(expression, seconds[place], "crop", affirmed.get(place, []))
        update = self.update_of(record, image, ask, judged)
        return Partial(update, failed) if failed else update


def _crops_of(expressions: Mapping[int, Expression]) -> list[Crop]:
    crops = []
    for place, expression in expressions.items():
        for instance in expression["instances"]:
            box = DrawnBox(expression["text"], box_of(instance["bbox"]))
            crops.append(Crop(place, str(instance.get("bbox_id")), box))
    return crops
