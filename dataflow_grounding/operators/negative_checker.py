"""Operator: a judge's word on phrases that may be absent; those that are, kept."""

from collections.abc import Mapping

from dataflow_grounding.data.records import Record, Update, is_negative, read_expressions
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.operators._candidates import COLUMN, as_absent, why_kept_out
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.judge_test import JUDGE_EVERY
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, Image, facts_of
from dataflow_grounding.serving.serving import Serving, check_counts


@OPERATOR_REGISTRY.register()
class NegativeChecker(BoxChecker):
    """Is a BoxChecker of a NegativePhraser's candidates, and keeps those that are absent.

    The judge says of each whether it is there, and what of it the whole picture shows. What both
    answers call absent becomes an expression with `status` none, `source` negative and its
    `change`; the others stay candidates, with the `reason`.

    Args:
        serving, box_format, check_every: As JudgeOperator's.
        count: Negatives that an image is to have, 1 or more.

    Example:
        >>> from dataflow_grounding import NegativeChecker, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"phrases": [{"id": 1, "there": false, "count": 0}], "boxes": [{"id": 1,'
        >>> says += ' "verdict": "other", "reason": "a red one"}]}'
        >>> box = {"bbox_id": "a.0", "bbox": [0, 0, 800, 600], "whole_picture": True}
        >>> made = {"text": "the blue square", "source": "negative", "change": "attribute"}
        >>> row = {"image_path": "square.png", "expressions": []}
        >>> row["negative_candidates"] = [{**made, "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [kept] = NegativeChecker(serving, check_every=None)(row)["expressions"]
        >>> kept["text"], kept["status"], kept["change"]
        ('the blue square', 'none', 'attribute')
    """

    name = "negative_check"
    input_keys = {"image": "image_path", "expressions": COLUMN, "own": "expressions"}
    output_keys = {"kept": "expressions", "output": COLUMN}
    descriptions = {"zh": "由评判模型判断负样本候选短语是否存在,保留各次回答均认为不存在的短语。"}

    def __init__(
        self,
        serving: Serving,
        count: int = 5,
        *,
        box_format: str | None = None,
        check_every: int | None = JUDGE_EVERY,
    ) -> None:
        check_counts(count=count)
        super().__init__(serving, box_format=box_format, check_every=check_every)
        self.count = count

    def update_of(
        self, record: Record, image: Image, ask: Ask, checked: Mapping[int, Expression]
    ) -> Update:
        """Return the record's expressions with new negatives after them, and the other candidates.

        As many candidates are taken as negatives as are wanted and known to be absent, in order;
        each is noted. The others stay candidates, each with the `reason`.

        Args:
            record: The record.
            image: Its image.
            ask: Takes the notes.
            checked: The candidates after the check, by their place; others are as they were.
        """
        own = read_expressions(record, self.keys.own)
        lacking = self.count - len(list(filter(is_negative, own)))
        kept: list[Expression] = []
        left = []
        for place, candidate in enumerate(read_expressions(record, self.keys.expressions)):
            candidate = checked.get(place, candidate)
            reason = why_kept_out(candidate)
            if not reason and len(kept) < lacking:
                kept.append(as_absent(candidate))
                continue
            left.append({**candidate, "reason": reason or "enough are kept"})
        for expression in kept:
            ask.note("negatives", f"a negative kept: {expression['change']}")
        update = facts_of(record, image, ask, self.serving)
        return {**update, self.keys.kept: [*own, *kept], self.keys.output: left}
