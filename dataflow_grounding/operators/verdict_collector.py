"""Operator: a judge's word on every box, noted down for a CropJudge to decide by."""

from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY


@OPERATOR_REGISTRY.register()
class VerdictCollector(BoxChecker):
    """Asks a judge what BoxChecker asks, and decides nothing: every box stays.

    The answers in `verification` are the first ones of a CropJudge, which decides by these and its
    own.

    Args:
        serving, box_format, check_every: As JudgeOperator's.

    Example:
        >>> from dataflow_grounding import OpenAIServing, VerdictCollector
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": false, "count": 0}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "other", "reason": "a blue one"}]}'
        >>> box = {"bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the green square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [noted] = VerdictCollector(serving, check_every=None)(row)["expressions"]
        >>> noted["instances"][0]["bbox"], "rejected" in noted
        ([300, 200, 500, 400], False)
    """

    descriptions = {"zh": "收集评判模型对每个边界框的判断,由后续步骤决定取舍。"}

    def decision_on(self, expression: Expression) -> Expression:
        """Return the expression as it is, with its verdicts."""
        return expression
