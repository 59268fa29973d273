"""Operator: checks that each expression means its regions, and corrects what doesn't."""

from collections import Counter
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.calibration.choice import choice_of
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._nearness import ask_in_parts, batched, near_groups, reground
from dataflow_grounding.operators._verdicts import (
    Standing,
    Verdict,
    combined,
    judged,
    regrounded,
    standing_of,
)
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image
from dataflow_grounding.operators.box_operator import RegionMarks, RegionOperator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.serving.several import ServingByTask
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.tasks.regions import Merged, double_check

Method: TypeAlias = Literal["ask", "reground", "both"]
NOTES = {
    "mended": ("mended", "an expression that did not match"),
    "several": ("fits_several", "an expression that was meant for one region"),
    "wrong": ("does_not_match", "an expression for which nothing better is known"),
}
Result: TypeAlias = "Verdict | RecordError"


@OPERATOR_REGISTRY.register()
class DoubleChecker(RegionOperator):
    """Checks that each referring expression means its regions, and corrects those that don't.

    It sets `verified` and `verification` of expressions with boxes; the first text and regions stay
    in `verification.before`. An expression meant for one region that fits several becomes
    `ambiguous`. Where an answer can't be had the expressions stay, `verified` null. Raises
    SpecError for a wrong setting.

    Args:
        serving: The model that is asked.
        method: `ask` lets the model judge expression and boxes; `reground` grounds the text afresh,
            without showing the boxes, and compares the boxes one to one; `both` does both, and
            corrects only where they agree.
        reground_serving: Who grounds afresh, if another.
        iou: Least IoU, above 0 and at most 1, of boxes that are the same.
        box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import DoubleChecker, EmbeddedServing
        >>> box = [300, 200, 500, 400]
        >>> expression = {"text": "the red square", "instances": [{"bbox": box}]}
        >>> row = {"image_path": "square.png", "regions": [{"bbox": box}]}
        >>> row["expressions"] = [expression]
        >>> [checked] = DoubleChecker(EmbeddedServing(), method="reground")(row)["expressions"]
        >>> checked["verified"], checked["verification"]["iou"]
        (True, 1.0)
    """

    name = "double_check"
    input_keys = {"image": "image_path", "regions": "regions", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {"zh": "核对每个指代表达式是否对应其区域,并修正不匹配的表达式。"}

    def __init__(
        self,
        serving: Serving,
        method: Method = "ask",
        reground_serving: Serving | None = None,
        iou: float = 0.5,
        *,
        box_format: str | None = None,
        regions_per_request: int | None = None,
        marks: RegionMarks = "none",
    ) -> None:
        if method not in get_args(Method) or not 0 < iou <= 1:
            raise SpecError(
                f"method should be one of {', '.join(get_args(Method))}, iou above 0 and at most 1"
            )
        super().__init__(
            serving, box_format=box_format, regions_per_request=regions_per_request, marks=marks
        )
        self.method = method
        self.iou = iou
        self.reground_choice = (
            choice_of(reground_serving) if reground_serving else self.format_choice
        )
        if reground_serving is not None:
            self.serving = ServingByTask(serving, {"phrase_grounding": reground_serving})

    def settle(self, start: RunStart) -> Counter[str]:
        asked = super().settle(start)
        if self.method != "ask":
            asked += self.reground_choice.settle_to_ground(
                start, lambda what: say(f"Warning: {what}.")
            )
        return asked

    def asks(self, record: Record) -> bool:
        return any(
            expression["instances"]
            for expression in read_expressions(record, self.keys.expressions)
        )

    async def described(
        self, record: Record, image: Image, regions: list[dict[str, Any]], ask: Ask
    ) -> Update | Partial:
        """Adds `verified` and `verification`; Partial where an answer could not be had."""
        expressions = read_expressions(record, self.keys.expressions)
        standing = standing_of(expressions, regions)
        results: dict[int, Result] = dict(standing.verdicts)
        if self.method != "reground":
            results = await self._asked(image, standing, ask)
        if self.method != "ask":
            results = await self._regrounded(image, standing, results, ask)
        checked = [
            (
                standing.entered(number, expression, results[number], self.method)
                if number in results
                else expression
            )
            for number, expression in enumerate(expressions)
        ]
        update = {
            self.keys.output: _with_spans(checked, expressions, record.get("cleaned_caption"))
        }
        for result in results.values():
            if isinstance(result, Verdict) and result.kind in NOTES:
                ask.note(*NOTES[result.kind])
        failed = next(
            (result for result in results.values() if isinstance(result, RecordError)), None
        )
        return update if failed is None else Partial(update, failed)

    async def _asked(self, image: Image, standing: Standing, ask: Ask) -> dict[int, Result]:
        """The model's judgements, a few expressions at a time, with the regions near theirs."""
        boxes = [box_of(region["bbox"]) for region in standing.regions]
        firsts = {number: verdict.places[0] for number, verdict in standing.verdicts.items()}
        results: dict[int, Result] = {}
        for group in near_groups(boxes, self.regions_per_request):
            here = [number for number, first in firsts.items() if first in group]
            judge = partial(self._judged, image, standing, group, ask)
            for chunk in batched(here, self.regions_per_request):
                try:
                    for numbers, verdicts in await ask_in_parts(
                        chunk, judge, lambda number: boxes[firsts[number]]
                    ):
                        results.update(zip(numbers, verdicts, strict=True))
                except RecordError as error:
                    results.update(dict.fromkeys(chunk, error))
        return results

    async def _judged(
        self, image: Image, standing: Standing, group: list[int], ask: Ask, numbers: list[int]
    ) -> list[Verdict]:
        """The model's judgement of some expressions, in one request that shows the group's regions
        and theirs.
        """
        before = [standing.verdicts[number] for number in numbers]
        near = sorted({*group, *(place for verdict in before for place in verdict.places)})
        asked = [
            Merged(verdict.text, [near.index(place) for place in verdict.places])
            for verdict in before
        ]
        regions = [standing.regions[place] for place in near]
        texts = ("type",) if self.serving.needs_labels else ()
        checks = await ask(
            double_check(
                self.shown(image, regions), asked, regions, self.format_choice.format, texts
            )
        )
        pairs = zip(checks, before, strict=True)
        return [
            judged(
                check._replace(places=[near[place] for place in check.places]),
                verdict.text,
                verdict.places,
            )
            for check, verdict in pairs
        ]

    async def _regrounded(
        self, image: Image, standing: Standing, asked: dict[int, Result], ask: Ask
    ) -> dict[int, Result]:
        boxes = [box_of(region["bbox"]) for region in standing.regions]
        said = {n: result for n, result in asked.items() if isinstance(result, Verdict)}
        wanted = {
            n: standing.verdicts[n] if verdict.kind == "several" else verdict
            for n, verdict in said.items()
        }

        async def ground(texts: list[str]) -> list[Found]:
            return await ask(phrase_grounding(image, texts, self.reground_choice.format))

        def compared(number: int, verdict: Verdict, answer: Found | RecordError) -> Result:
            if isinstance(answer, RecordError):
                return answer
            again = regrounded(answer, verdict.text, verdict.places, boxes, self.iou)
            return (
                combined(said[number], again, standing.verdicts[number])
                if self.method == "both"
                else again
            )

        found = await reground(
            ground, [verdict.text for verdict in wanted.values()], self.regions_per_request
        )
        return asked | {
            n: compared(n, verdict, found[verdict.text]) for n, verdict in wanted.items()
        }


def _with_spans(
    checked: list[dict[str, Any]], before: list[dict[str, Any]], caption: Any
) -> list[dict[str, Any]]:
    if [e["text"] for e in checked] == [e["text"] for e in before]:
        return checked
    spans = find_spans([e["text"] for e in checked], caption if isinstance(caption, str) else "")
    return [
        {**e, "char_span": list(span) if span else None}
        for e, span in zip(checked, spans, strict=True)
    ]
