"""Operator: a judge's word on phrases that may be absent, and on where they would be."""

from dataflow_grounding.operators._candidates import COLUMN
from dataflow_grounding.operators.base import OPERATOR_REGISTRY
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.judge_test import JUDGE_EVERY
from dataflow_grounding.serving.base import Serving


@OPERATOR_REGISTRY.register()
class NegativeChecker(BoxChecker):
    """Has a judge say of each candidate whether it is there, and what each of its boxes holds.

    It follows a NegativeGrounder, and decides nothing yet: a NegativeJudge does.

    Args:
        serving, box_format, check_every: As JudgeOperator's.

    Example:
        >>> from dataflow_grounding import NegativeChecker, OpenAIServing
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": false, "count": 0}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "other", "reason": "a red one"}]}'
        >>> box = {"bbox_id": "a.0", "bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["negative_candidates"] = [{"text": "the blue square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [said] = NegativeChecker(serving, check_every=None)(row)["negative_candidates"]
        >>> said["verification"]["there"], said["verification"]["boxes"][0]["verdict"]
        (False, 'other')
    """

    name = "negative_check"
    input_keys = {"image": "image_path", "expressions": COLUMN}
    output_keys = {"output": COLUMN}
    descriptions = {"zh": "由评判模型判断负样本候选短语是否存在,并核对其区域。"}

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        check_every: int | None = JUDGE_EVERY,
    ) -> None:
        super().__init__(serving, decides=False, box_format=box_format, check_every=check_every)
