"""Operator: asks whether each expression means its regions, and corrects what doesn't."""

from functools import partial

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Partial,
    Record,
    RecordError,
    RegionOperator,
    Update,
    read_expressions,
)
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.operators import (
    ExpressionsToCheck,
    Result,
    Verdict,
    any_has_boxes,
    ask_in_parts,
    batched,
    boxes_of,
    expressions_to_check,
    near_groups,
    note_kinds,
    update_of,
    with_spans,
)
from dataflow_grounding.tasks import double_check


@OPERATOR_REGISTRY.register()
class DoubleChecker(RegionOperator):
    """Asks whether each referring expression means its regions, and corrects those that don't.

    It sets `verified` and `verification` of expressions with boxes; the first text and regions stay
    in `verification.before`. An expression meant for one region that fits several becomes
    `ambiguous`. Where an answer can't be had the expressions stay, `verified` null. Raises
    SpecError for a wrong setting.

    Args:
        serving: The model that is asked.
        box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import DoubleChecker, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> box = [300, 200, 500, 400]
        >>> expression = {"text": "the blue square", "instances": [{"bbox": box}]}
        >>> row = {"image_path": "square.png", "regions": [{"bbox": box}]}
        >>> row["expressions"] = [expression]
        >>> says = '{"checks": [{"id": 1, "matches": false, "text": "the red square"}]}'
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [checked] = DoubleChecker(serving)(row)["expressions"]
        >>> checked["text"], checked["verified"], checked["verification"]["before"]["text"]
        ('the red square', True, 'the blue square')
    """

    name = "double_check"
    tasks = ("double_check",)
    input_keys = {"image": "image_path", "regions": "regions", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {"zh": "核对每个指代表达式是否对应其区域,并修正不匹配的表达式。"}

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes."""
        expressions = read_expressions(record, self.keys.expressions)
        return any_has_boxes(expressions)

    async def described(
        self, record: Record, image: Image, regions: list[Region], ask: Ask
    ) -> Update | Partial:
        """Adds the expressions, those with boxes checked: with `verified` and `verification`.

        Returns a Partial update where an answer could not be had, with the first such error.
        """
        expressions = read_expressions(record, self.keys.expressions)
        to_check = expressions_to_check(expressions, regions)
        results = await self._ask_model(image, to_check, ask)
        note_kinds(ask, results)
        checked = to_check.checked(expressions, results, image.size)
        checked = with_spans(checked, expressions, record.get("cleaned_caption"))
        return update_of(self.keys.output, checked, results.values())

    async def _ask_model(
        self, image: Image, to_check: ExpressionsToCheck, ask: Ask
    ) -> dict[int, Result]:
        """Return the result of each expression, or its request's error, by its number."""

        def first_box(number: int) -> Bbox:
            first_place = to_check.verdicts[number].places[0]
            return to_check.regions[first_place].bbox

        # Expressions whose first regions are near each other share a request, or several if they
        # are more than `regions_per_request`.
        results: dict[int, Result] = {}
        for group in near_groups(boxes_of(to_check.regions), self.regions_per_request):
            numbers_in_group = []
            for number, verdict in to_check.verdicts.items():
                if verdict.places[0] in group:
                    numbers_in_group.append(number)
            ask_once = partial(self._ask_once, image, to_check, group, ask)
            for numbers in batched(numbers_in_group, self.regions_per_request):
                try:
                    answers = await ask_in_parts(numbers, ask_once, first_box)
                except RecordError as error:
                    results.update(dict.fromkeys(numbers, error))
                    continue
                for some_numbers, verdicts in answers:
                    results.update(zip(some_numbers, verdicts, strict=True))
        return results

    async def _ask_once(
        self,
        image: Image,
        to_check: ExpressionsToCheck,
        group: list[int],
        ask: Ask,
        numbers: list[int],
    ) -> list[Verdict]:
        """Ask about expressions by number; `group` are places of regions near theirs."""
        # All regions near theirs are shown, so that the model sees which others a text may fit.
        asked = to_check.asked_together(numbers, group)
        picture = self.shown(image, asked.regions)
        regions: list[Instance | Region] = [Instance(region.bbox) for region in asked.regions]
        if self.serving.needs_labels:  # it can't see what things are: the embedded grounder
            regions = [Region(region.bbox, region.type) for region in asked.regions]
        checks = await ask(double_check(picture, asked.expressions, regions))
        return asked.verdicts(checks)
