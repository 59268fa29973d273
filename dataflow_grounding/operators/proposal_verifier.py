"""Operator: a judge's word on boxes from another source, such as a detector's, each for itself."""

from collections.abc import Mapping

from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.operators._box_decisions import Expression, decided_by_verdicts
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, Image


@OPERATOR_REGISTRY.register()
class ProposalVerifier(BoxChecker):
    """Has a judge say of each proposed box whether it is true of its phrase, and what is missing.

    The boxes may be a detector's. One request shows all boxes of an image, reordered and without
    scores, so that neither the detector's order nor its scores sway the judge. A false box goes
    into `rejected`, a true one keeps its numbers. `verification` says how many things of each
    phrase there are; by that a MissingFinder asks for missing ones.

    Args:
        serving, box_format, check_every: As JudgeOperator's.

    Example:
        >>> from dataflow_grounding import OpenAIServing, ProposalVerifier
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": true, "count": 1}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "right", "reason": ""}]}'
        >>> box = {"bbox": [300.25, 200, 500, 400], "score": 0.31}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the red square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [judged] = ProposalVerifier(serving, check_every=None)(row)["expressions"]
        >>> judged["instances"][0]["bbox"], judged["verified"]
        ([300.25, 200, 500, 400], True)
    """

    name = "proposal_check"
    descriptions = {"zh": "由评判模型逐一判断候选框是否符合其短语,并指出遗漏。"}

    def asked_about(self, record: Record) -> dict[int, Expression]:
        """Return the base class's expressions, ordered by phrase, their boxes by their edges.

        So the order of the proposals tells the judge nothing. The keys are still the places in the
        record.
        """
        asked = super().asked_about(record)
        ordered = {}
        for place in sorted(asked, key=lambda place: _sort_key(asked[place])):
            instances = sorted(asked[place]["instances"], key=lambda item: box_of(item["bbox"]))
            ordered[place] = {**asked[place], "instances": instances}
        return ordered

    def decision_on(self, expression: Expression) -> Expression:
        """Return the expression without its false boxes, which go into `rejected`."""
        return decided_by_verdicts(expression)

    def update_of(
        self, record: Record, image: Image, ask: Ask, checked: Mapping[int, Expression]
    ) -> Update:
        """Return the base class's columns, each expression's boxes in the record's order again."""
        given = read_expressions(record, self.keys.expressions)
        in_given_order = {}
        for place, expression in checked.items():
            number_of_box: dict[tuple[float, ...], int] = {}
            for number, instance in enumerate(given[place]["instances"]):
                number_of_box.setdefault(box_of(instance["bbox"]), number)
            instances = sorted(
                expression["instances"],
                key=lambda instance: number_of_box[box_of(instance["bbox"])],
            )
            in_given_order[place] = {**expression, "instances": instances}
        return super().update_of(record, image, ask, in_given_order)


def _sort_key(expression: Expression) -> tuple[str, list[tuple[float, ...]]]:
    boxes = sorted(box_of(instance["bbox"]) for instance in expression["instances"])
    return expression["text"], list(boxes)
