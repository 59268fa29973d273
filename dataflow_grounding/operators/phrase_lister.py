"""Operator: the same expressions for every image, out of a list."""

from collections.abc import Iterable, Mapping

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.records import Record, Update, expression_id
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Operator


@OPERATOR_REGISTRY.register()
class PhraseLister(Operator):
    """Gives every image the expressions of a list of classes.

    Args:
        classes: What to look for where there are no captions: class names, which are the phrases
            too; or phrase → class, where several phrases may mean one class.

    Raises:
        SpecError: The list is empty, or has something that is not a text, or the same phrase twice.

    Example:
        >>> from dataflow_grounding import PhraseLister
        >>> lister = PhraseLister({"a car": "vehicle", "a lorry": "vehicle"})
        >>> record = lister({"image_path": "square.png"})
        >>> [(expression["text"], expression["class"]) for expression in record["expressions"]]
        [('a car', 'vehicle'), ('a lorry', 'vehicle')]
    """

    name = "class_list"
    input_keys = {"image": "image_path"}
    output_keys = {"expressions": "expressions"}
    descriptions = {"zh": "为每幅图像给出类别列表中的指代表达式。"}

    def __init__(self, classes: Iterable[str] | Mapping[str, str]) -> None:
        self.pairs = (
            list(classes.items())
            if isinstance(classes, Mapping)
            else [(name, name) for name in classes]
        )
        phrases = [phrase for phrase, _ in self.pairs]
        if not phrases or isinstance(classes, str):
            raise SpecError(
                "classes: should be a list of class names, or a mapping of phrases to classes"
            )
        for text in (text for pair in self.pairs for text in pair):
            if not isinstance(text, str) or not text.strip():
                raise SpecError(f"classes: {text!r} is not a text to look for")
        for phrase in phrases:
            if phrases.count(phrase) > 1:
                raise SpecError(f"classes: {phrase!r} stands there twice")

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `expressions` without spans and instances."""
        expressions = [
            {
                "expression_id": expression_id(record, n),
                "text": text,
                "class": name,
                "char_span": None,
                "instances": [],
            }
            for n, (text, name) in enumerate(self.pairs)
        ]
        return {self.keys.expressions: expressions}
