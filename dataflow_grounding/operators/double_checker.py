"""Operator: checks that each expression means its regions, and corrects what doesn't."""

from collections import Counter
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Found,
    Image,
    Partial,
    Record,
    RecordError,
    RegionOperator,
    Serving,
    SpecError,
    Update,
    read_expressions,
)
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.operators import (
    ExpressionsToCheck,
    RegionMarks,
    Verdict,
    any_has_boxes,
    ask_in_parts,
    batched,
    boxes_of,
    combine_verdicts,
    expressions_to_check,
    near_groups,
    reground,
    texts_of,
    within_image,
)
from dataflow_grounding.serving import ServingByTask
from dataflow_grounding.tasks import double_check, phrase_grounding
from dataflow_grounding.trust.choice import choice_of

Method: TypeAlias = Literal["ask", "reground", "both"]
"""How expressions are checked, as DoubleChecker's `method` says."""
# the kind of an expression's verdict → the code and the text of what is noted; others aren't noted
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
        method: `ask` lets the model judge expression and boxes; `reground` grounds the text again,
            without showing the boxes, and compares the boxes one to one; `both` does both, and
            corrects only where they agree.
        reground_serving: The model that grounds again; None takes `serving`.
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
    tasks = ("double_check", "phrase_grounding")
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
        self.reground_choice = self.format_choice
        if reground_serving is not None:
            self.reground_choice = choice_of(reground_serving)
            self.serving = ServingByTask(serving, {"phrase_grounding": reground_serving})

    def settle(self, start: RunStart) -> Counter[str]:
        """Find out the box formats, and return how many requests and tokens it took.

        Where texts are grounded again, poor boxes of the model are a warning on the terminal.
        """
        counts = super().settle(start)
        if self.method != "ask":
            counts += self.reground_choice.settle_to_ground(
                start, lambda problem: say(f"Warning: {problem}.")
            )
        return counts

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes."""
        expressions = read_expressions(record, self.keys.expressions)
        return any_has_boxes(expressions)

    async def described(
        self, record: Record, image: Image, regions: list[dict[str, Any]], ask: Ask
    ) -> Update | Partial:
        """Adds the expressions, those with boxes checked: with `verified` and `verification`.

        Returns a Partial update where an answer could not be had, with the first such error.
        """
        expressions = read_expressions(record, self.keys.expressions)
        to_check = expressions_to_check(expressions, regions)
        results: dict[int, Result] = dict(to_check.verdicts)
        if self.method != "reground":
            results = await self._ask_model(image, to_check, ask)
        if self.method != "ask":
            results = await self._reground(image, to_check, results, ask)
        checked = to_check.checked(expressions, results, self.method)
        for number in results:
            checked[number] = within_image(checked[number], image.size)
        caption = record.get("cleaned_caption")
        update = {self.keys.output: _with_spans(checked, expressions, caption)}
        errors: list[RecordError] = []
        for result in results.values():
            if isinstance(result, RecordError):
                errors.append(result)
            elif result.kind in NOTES:
                ask.note(*NOTES[result.kind])
        return Partial(update, errors[0]) if errors else update

    async def _ask_model(
        self, image: Image, to_check: ExpressionsToCheck, ask: Ask
    ) -> dict[int, Result]:
        # Those whose first regions are near each other share a request. Where one fails, each of
        # its expressions has the error as its result, and the others are asked about all the same.
        boxes = boxes_of(to_check.regions)
        first_region = {number: verdict.places[0] for number, verdict in to_check.verdicts.items()}
        results: dict[int, Result] = {}
        for group in near_groups(boxes, self.regions_per_request):
            in_group = [number for number, place in first_region.items() if place in group]
            ask_about = partial(self._ask_about_some, image, to_check, group, ask)
            for chunk in batched(in_group, self.regions_per_request):
                try:
                    answers = await ask_in_parts(
                        chunk, ask_about, lambda number: boxes[first_region[number]]
                    )
                except RecordError as error:
                    results.update(dict.fromkeys(chunk, error))
                    continue
                for numbers, verdicts in answers:
                    results.update(zip(numbers, verdicts, strict=True))
        return results

    async def _ask_about_some(
        self,
        image: Image,
        to_check: ExpressionsToCheck,
        group: list[int],
        ask: Ask,
        numbers: list[int],
    ) -> list[Verdict]:
        asked = to_check.asked_together(numbers, group)
        texts = ("type",) if self.serving.needs_labels else ()
        picture = self.shown(image, asked.regions)
        box_format = self.format_choice.format
        request = double_check(picture, asked.expressions, asked.regions, box_format, texts)
        checks = await ask(request)
        return asked.verdicts(checks)

    async def _reground(
        self, image: Image, to_check: ExpressionsToCheck, by_asking: dict[int, Result], ask: Ask
    ) -> dict[int, Result]:
        # With the method "both", the verdicts of both checks are combined.
        async def ground(texts: list[str]) -> list[Found]:
            """Return what is found for each of some texts, from one request."""
            return await ask(phrase_grounding(image, texts, self.reground_choice.format))

        to_ground = to_check.to_ground(by_asking)
        texts = [verdict.text for verdict in to_ground.values()]
        answers = await reground(ground, texts, self.regions_per_request)
        results = dict(by_asking)
        for number, verdict in to_ground.items():
            result = to_check.found_at(verdict, answers[verdict.text], self.iou)
            asked = by_asking[number]
            if self.method == "both" and isinstance(asked, Verdict) and isinstance(result, Verdict):
                result = combine_verdicts(asked, result, to_check.verdicts[number])
            results[number] = result
        return results


def _with_spans(
    checked: list[dict[str, Any]], before: list[dict[str, Any]], caption: Any
) -> list[dict[str, Any]]:
    # Return checked expressions, with new spans in the caption if the check changed any text. All
    # then get a new `char_span`: None where the text doesn't occur, or there is no caption.
    texts = texts_of(checked)
    if texts == texts_of(before):
        return checked
    spans = find_spans(texts, caption if isinstance(caption, str) else "")
    with_spans: list[dict[str, Any]] = []
    for expression, span in zip(checked, spans, strict=True):
        with_spans.append({**expression, "char_span": list(span) if span else None})
    return with_spans
