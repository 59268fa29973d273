"""Operator: the referring expressions in a caption and their boxes, in one request."""

from dataflow_grounding._util.errors import TruncatedReply
from dataflow_grounding.data.records import Record, Update, read_text
from dataflow_grounding.operators._expressions import extracted_expressions, with_answers
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    open_image,
)
from dataflow_grounding.tasks.extraction import expression_extraction
from dataflow_grounding.tasks.fused import Fused, caption_grounding
from dataflow_grounding.tasks.grounding import Found


@OPERATOR_REGISTRY.register()
class CaptionGrounder(BoxOperator):
    """Finds the referring expressions in an image's caption and their boxes at once.

    It does what an ExpressionExtractor and a PhraseGrounder do, for about half of the requests. A
    model that writes everything in one reply may do either half worse: compare both on pictures of
    yours. A reply that is cut off is made up for by the two requests.

    Args:
        serving, box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import CaptionGrounder, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> row = {"image_path": "square.png", "caption": "A red square on white."}
        >>> says = '{"cleaned_caption": "A red square on white.", "expressions": [{"id": 1,'
        >>> says += ' "text": "A red square", "noun_chunk": "red square"}],'
        >>> says += ' "objects": [{"id": 1, "bbox_2d": [375, 333, 625, 667]}]}'
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     [found] = CaptionGrounder(serving, check_every=None)(row)["expressions"]
        >>> found["text"], found["char_span"], found["instances"][0]["bbox"]
        ('A red square', [0, 12], [300, 200, 500, 400])
    """

    name = "caption_grounding"
    tasks = ("caption_grounding", "expression_extraction", "phrase_grounding")
    input_keys = {"image": "image_path", "caption": "caption"}
    output_keys = {"output": "expressions", "cleaned_caption": "cleaned_caption"}
    descriptions = {"zh": "一次请求内提取描述文本中的指代表达式,并定位其边界框。"}

    def asks(self, record: Record) -> bool:
        """Return True. Raises BrokenRow where the record has no caption, or it is empty."""
        return bool(read_text(record, self.keys.caption))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Returns `cleaned_caption`, and `expressions` with their boxes.

        Where the reply is cut off, the expressions are asked for first and then their boxes, which
        is noted. Raises RecordError.
        """
        caption = read_text(record, self.keys.caption)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        try:
            request = caption_grounding(image, caption, self.box_format, self.merge_iou)
            fused = await self.watch.ask(ask, request, image)
        except TruncatedReply:
            ask.note("divided", "a reply that was cut off: asked for in two")
            fused = await self._in_two(image, caption, ask)
        expressions = extracted_expressions(record, caption, fused.extracted, ask)
        return {
            self.keys.cleaned_caption: fused.extracted.cleaned_caption,
            self.keys.output: with_answers(expressions, fused.found, ask),
        }

    async def _in_two(self, image: Image, caption: str, ask: Ask) -> Fused:
        extracted = await ask(expression_extraction(image, caption))
        phrases = [expression.text for expression in extracted.expressions]
        answers: list[Found] = []
        if phrases:
            answers = await self.ground(image, phrases, ask)
        return Fused(extracted, answers)
