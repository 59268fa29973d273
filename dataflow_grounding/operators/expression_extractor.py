"""Operator: the referring expressions in a caption, and where each one is."""

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Operator,
    Record,
    Serving,
    Update,
    open_image,
    read_text,
)
from dataflow_grounding.operators import extracted_expressions
from dataflow_grounding.tasks import expression_extraction


@OPERATOR_REGISTRY.register()
class ExpressionExtractor(Operator):
    """Finds the referring expressions in an image's caption, and the place of each in it.

    Args:
        serving: The model that is asked.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, ExpressionExtractor
        >>> row = {"image_path": "square.png", "caption": "A red square on white."}
        >>> [expression] = ExpressionExtractor(EmbeddedServing())(row)["expressions"]
        >>> expression["text"], expression["char_span"]
        ('A red square', [0, 12])
    """

    name = "expression_extraction"
    tasks = ("expression_extraction",)
    input_keys = {"image": "image_path", "caption": "caption"}
    output_keys = {"expressions": "expressions", "cleaned_caption": "cleaned_caption"}
    descriptions = {"zh": "从图像的描述文本中提取指代表达式,并给出每个表达式在文本中的位置。"}

    def __init__(self, serving: Serving) -> None:
        self.serving: Serving = self.checked_serving(serving)

    def asks(self, record: Record) -> bool:
        """Return True. Raises BrokenRow where the record has no caption, or it is empty."""
        return bool(read_text(record, self.keys.caption))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `cleaned_caption` and `expressions`.

        An expression has its span in the cleaned caption and in the caption as given, each null
        where it doesn't occur there, and no instances yet. Raises RecordError.
        """
        caption = read_text(record, self.keys.caption)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        extracted = await ask(expression_extraction(image, caption))
        expressions = extracted_expressions(record, caption, extracted, ask)
        return {
            self.keys.cleaned_caption: extracted.cleaned_caption,
            self.keys.expressions: expressions,
        }
