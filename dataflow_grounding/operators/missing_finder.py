"""Operator: boxes that are missing, as a check says, asked for once."""

from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.data.expressions import Expression, Instance, read_expressions
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.operators._box_decisions import missing_count, with_found
from dataflow_grounding.operators._expressions import boxes_of, texts_of
from dataflow_grounding.operators._nearness import ask_in_parts, batched
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    open_image,
)
from dataflow_grounding.tasks.checks import DrawnBox, missing_boxes
from dataflow_grounding.tasks.grounding import Found

PHRASES_AT_ONCE = 16  # phrases of one request


@OPERATOR_REGISTRY.register()
class MissingFinder(BoxOperator):
    """Asks once for missing boxes: of phrases whose thing is there without a box, or with too few.

    It follows a BoxChecker, whose word it takes for that. The picture that is sent has the boxes of
    these phrases drawn in. A box that is found is added, with `found_by`, unless it is like one
    that is there or was rejected; no more are added than are missing. No judge sees it, so
    its phrase is doubtful.

    Args:
        serving: The model that finds boxes.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import MissingFinder, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> said = {"method": "check", "there": True, "count": 1, "boxes": []}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the red square", "verification": said}]
        >>> says = '{"objects": [{"id": 1, "bbox_2d": [375, 333, 625, 667]}]}'
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [found] = MissingFinder(serving, check_every=None)(row)["expressions"]
        >>> found["instances"][0]["bbox"], found["instances"][0]["found_by"]
        ([300, 200, 500, 400], 'missing_search')
    """

    name = "missing_search"
    tasks = ("missing_boxes",)
    uncounted = "requests for missing boxes"
    descriptions = {"zh": "对核对后认为遗漏的目标再查找一次。"}

    def asks(self, record: Record) -> bool:
        """Whether boxes of any expression are missing."""
        expressions = read_expressions(record, self.keys.expressions)
        return any(missing_count(expression) for expression in expressions)

    def requests_for(self, record: Record) -> int:
        """Return 0: what is missing is known once a judge has looked."""
        return 0

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions, those with missing boxes with what is found for them.

        Each box that is added is noted, and each one too many, which isn't added.
        Raises RecordError where an answer can't be had.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        numbers_of_incomplete = [
            number for number, expression in enumerate(expressions) if missing_count(expression)
        ]

        async def ask_once(numbers: list[int]) -> list[Found]:
            return await self._search(image, [expressions[number] for number in numbers], ask)

        # A batch is one request. Where its reply is cut off, it is asked for in parts.
        for batch in batched(numbers_of_incomplete, PHRASES_AT_ONCE):
            for numbers, answers in await ask_in_parts(batch, ask_once):
                for number, answer in zip(numbers, answers, strict=True):
                    expressions[number] = _with_missing(expressions[number], answer, ask)
        update: Update = {self.keys.output: expressions}
        if any(expressions[number].doubtful for number in numbers_of_incomplete):
            update["doubtful"] = True
        return update

    async def _search(self, image: Image, incomplete: list[Expression], ask: Ask) -> list[Found]:
        drawn = []
        for expression in incomplete:
            for instance in expression.instances:
                drawn.append(DrawnBox(expression.text, instance.bbox))
        request = missing_boxes(image, texts_of(incomplete), drawn, self.box_format, self.merge_iou)
        # Boxes of the answer are judged in the picture that is sent, with the known ones drawn in.
        return await self.watch.ask(ask, request, request.images[0])


def _with_missing(expression: Expression, answer: Found, ask: Ask) -> Expression:
    new_instances = _new_instances(expression, answer)
    count = missing_count(expression)
    added, too_many = new_instances[:count], new_instances[count:]
    for _ in added:
        ask.note("found_missing", "a box that a check said was lacking")
    for _ in too_many:
        ask.note("found_too_many", "more boxes than a check said were lacking")
    return with_found(expression, added)


def _new_instances(expression: Expression, answer: Found) -> list[Instance]:
    """Return the answer's boxes unlike each that is there already, or was rejected."""
    known_boxes = boxes_of([*expression.instances, *(expression.rejected or ())])
    new_instances = []
    for instance in answer.instances:
        if all(iou(instance.bbox, known_box) < SAME for known_box in known_boxes):
            new_instances.append(instance)
    return new_instances
