"""Operator: the boxes of each expression in the image."""

from functools import partial
from math import ceil

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    BoxOperator,
    Found,
    Record,
    Serving,
    Update,
    open_image,
    read_expressions,
    with_answers,
)
from dataflow_grounding.boxes.geometry import MERGE_IOU
from dataflow_grounding.operators import ask_and_merge, batched, texts_of
from dataflow_grounding.operators.box_operator import USUAL_PHRASES
from dataflow_grounding.serving import check_counts
from dataflow_grounding.trust.box_watch import CHECK_EVERY, OnSuspect


@OPERATOR_REGISTRY.register()
class PhraseGrounder(BoxOperator):
    """Finds the boxes of each referring expression in the image, in pixels.

    A box is `[x1, y1, x2, y2]`, in whole pixels of the upright image.

    Args:
        serving: The model that is asked.
        box_format: How it writes boxes; None takes the serving's. A model that `auto` doesn't know
            is calibrated first.
        phrases_per_request: Most phrases that are asked for at once.
        samples: Answers to each question, merged to one; each box then has the share of them that
            agree as its score.
        merge_iou: Least IoU, above 0 and at most 1, from which boxes of one phrase are one; None
            keeps them all.
        on_suspect_boxes: `stop` the run, or `warn`, where boxes look as if they were in another
            format.
        check_every: Requests between two checks of the endpoint; None for no checks.

    Raises:
        SpecError: A setting is wrong, or the model draws no boxes.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, PhraseGrounder
        >>> row = {"image_path": "square.png", "expressions": ["the red square"]}
        >>> record = PhraseGrounder(EmbeddedServing())(row)
        >>> record["expressions"][0]["instances"][0]["bbox"]
        [300, 200, 500, 400]
    """

    name = "grounding"
    descriptions = {"zh": "在图像中定位每个指代表达式,输出像素坐标的边界框。"}

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        phrases_per_request: int = 16,
        samples: int = 1,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        check_counts(phrases_per_request=phrases_per_request)
        super().__init__(
            serving,
            samples=samples,
            box_format=box_format,
            merge_iou=merge_iou,
            on_suspect_boxes=on_suspect_boxes,
            check_every=check_every,
        )
        self.phrases_per_request = phrases_per_request

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions."""
        return bool(read_expressions(record, self.keys.expressions))

    def requests_for(self, record: Record) -> int:
        """Return one for each answer and each `phrases_per_request` phrases of the record."""
        phrases = USUAL_PHRASES  # where an earlier step is to find the expressions
        if self.keys.expressions in record:
            phrases = len(read_expressions(record, self.keys.expressions))
        return self.samples * max(1, ceil(phrases / self.phrases_per_request))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions with `instances` and `status`, from several answers `disagreement`.

        Raises RecordError.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        texts = texts_of(expressions)
        answers: list[Found] = []
        for chunk in batched(texts, self.phrases_per_request):
            ground = partial(self.ground, image, chunk, ask)
            answers += await ask_and_merge(ground, self.samples, image.size)
        return {self.keys.output: with_answers(expressions, answers, ask)}
