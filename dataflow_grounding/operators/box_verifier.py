"""Operator: expressions with boxes grounded once more, to see whether the same is found."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.matching import SAME, agreement
from dataflow_grounding.boxes.regions import check_stated_size, read_regions
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._expressions import any_has_boxes, texts_of, within_image
from dataflow_grounding.operators._nearness import reground
from dataflow_grounding.operators._regrounded import regrounding_of
from dataflow_grounding.operators._verdicts import note_kinds, update_of, with_spans
from dataflow_grounding.operators.box_operator import USUAL_PHRASES, is_iou
from dataflow_grounding.operators.box_refiner import LooksCloser
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, Image, open_image
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.grounding import Found


@OPERATOR_REGISTRY.register()
class BoxVerifier(LooksCloser):
    """Grounds each expression with boxes once more and compares the two answers.

    Boxes that BoxRefiner found in a crop are compared with boxes that are looked for in a crop,
    too. With `region_iou` the boxes are those of the record's regions: an expression that is found
    at others is corrected. One that DoubleChecker was asked about is corrected only where both
    agree; else it is as it was before. Raises SpecError for a wrong setting, or a model that draws
    no boxes.

    Args:
        serving: The model that is asked.
        region_iou: Least IoU, above 0 and at most 1, of a box that is found and the region that it
            shows; None for boxes that a model has found, of which the mean IoU is taken.
        phrases_per_request: Most expressions of a request.
        samples: As many answers as PhraseGrounder asked for: the one asked for here is a further
            one, but of regions the first.
        **boxes: As PhraseGrounder's: `box_format`, `merge_iou`, `on_suspect_boxes`, `check_every`.

    Example:
        >>> from dataflow_grounding import BoxVerifier, EmbeddedServing, PhraseGrounder
        >>> serving = EmbeddedServing()
        >>> row = {"image_path": "square.png", "expressions": ["the red square"]}
        >>> record = PhraseGrounder(serving)(row)
        >>> BoxVerifier(serving)(record)["expressions"][0]["verified"]
        True
    """

    name = "box_verification"
    uncounted = "requests about boxes found in crops"
    input_keys = {**LooksCloser.input_keys, "regions": "regions"}
    optional_keys = ("regions",)
    descriptions = {"zh": "对每个已有边界框的指代表达式重新定位一次,并比较两次结果是否一致。"}

    def __init__(
        self,
        serving: Serving,
        *,
        region_iou: float | None = None,
        phrases_per_request: int = 1,
        samples: int = 1,
        **boxes: Any,
    ) -> None:
        if region_iou is not None and not is_iou(region_iou):
            raise SpecError("region_iou should be above 0 and at most 1")
        check_counts(phrases_per_request=phrases_per_request)
        super().__init__(serving, samples=samples, **boxes)
        self.region_iou = region_iou
        self.phrases_per_request = phrases_per_request

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes."""
        expressions = read_expressions(record, self.keys.expressions)
        return any_has_boxes(expressions)

    def requests_for(self, record: Record) -> int:
        """Return one for each `phrases_per_request` expressions that the record is likely to have.

        Regions have about one expression each. Where an earlier step is to find the expressions,
        as many as a caption has are taken.
        """
        return ceil(self._likely_phrase_count(record) / self.phrases_per_request)

    def _likely_phrase_count(self, record: Record) -> int:
        are_boxes_of_regions = self.region_iou is not None
        if are_boxes_of_regions and self.keys.regions in record:
            return len(read_regions(record, self.keys.regions))
        if not are_boxes_of_regions and self.keys.expressions in record:
            return len(read_expressions(record, self.keys.expressions))
        return USUAL_PHRASES

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions, those with boxes with `verified` and `verification`.

        `verified` is false where a box reaches out of the image, and null where the second answer
        can't be had; the update then is Partial, with the first such error. Raises RecordError for
        a record that can't be read, or states another size than its image has.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        check_stated_size(record, image.size, image.file.path)
        if self.region_iou is not None:
            return await self._on_regions(record, image, expressions, self.region_iou, ask)
        with_boxes = [expression for expression in expressions if expression["instances"]]
        answers = await self._ground_again(image, expressions, texts_of(with_boxes), ask)
        all_expressions: list[dict[str, Any]] = []
        for expression in expressions:
            if not expression["instances"]:
                all_expressions.append(expression)
                continue
            fields = _verification_fields(expression, answers[expression["text"]])
            checked = within_image({**expression, **fields}, image.size)
            all_expressions.append(checked)
        return update_of(self.keys.output, all_expressions, answers.values())

    async def _on_regions(
        self,
        record: Record,
        image: Image,
        expressions: list[dict[str, Any]],
        region_iou: float,
        ask: Ask,
    ) -> Update | Partial:
        regions = read_regions(record, self.keys.regions)
        regrounding = regrounding_of(expressions, regions, image.size)
        texts = regrounding.texts(self.phrases_per_request)
        answers = await self._ground_again(image, expressions, texts, ask)
        results = regrounding.results(answers, region_iou)
        note_kinds(ask, results, regrounding.asked)
        checked = regrounding.checked(expressions, results, image.size)
        checked = with_spans(checked, expressions, record.get("cleaned_caption"))
        return update_of(self.keys.output, checked, results.values())

    async def _ground_again(
        self, image: Image, expressions: list[dict[str, Any]], texts: list[str], ask: Ask
    ) -> Mapping[str, Found | RecordError]:
        """Return the answer about each text, or the error in its place."""
        # Where BoxRefiner found a box of a text in a crop, the boxes of the answer are looked for
        # in crops, too.
        texts_found_in_crops = set()
        for expression in expressions:
            if any(instance.get("zoomed") for instance in expression["instances"]):
                texts_found_in_crops.add(expression["text"])
        # The number of the answer to ask for. PhraseGrounder has asked for those below
        # `samples`. They are stored, and would agree with themselves: so the next one is asked for.
        sample = self.samples
        if self.region_iou is not None:  # the boxes are the regions': no answer was asked for yet
            sample = 0

        async def ask_once(request_texts: list[str]) -> list[Found]:
            answers = []
            found = await self.ground(image, request_texts, ask, sample)
            for text, answer in zip(request_texts, found, strict=True):
                if text in texts_found_in_crops:
                    closer = await self.closer(image, text, answer.instances, ask, [sample])
                    answer = replace(answer, instances=closer)
                answers.append(answer)
            return answers

        return await reground(ask_once, texts, self.phrases_per_request)


def _verification_fields(expression: dict[str, Any], answer: Found | RecordError) -> dict[str, Any]:
    if isinstance(answer, RecordError):
        return {"verified": None, "verification": {"method": "reground", "reason": str(answer)}}
    overlap = round(agreement(expression["instances"], answer.instances), 4)
    return {"verified": overlap >= SAME, "verification": {"method": "reground", "iou": overlap}}
