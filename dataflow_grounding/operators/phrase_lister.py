"""Operator: the same expressions for every image, out of a list."""

from collections.abc import Mapping, Sequence

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.classes import phrases_with_classes
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.records import JsonObject, Record, Update, expression_id
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, Operator


@OPERATOR_REGISTRY.register()
class PhraseLister(Operator):
    """Gives every image the expressions of a list of classes.

    Args:
        classes: What to look for where there are no captions: class names, which are the phrases
            too; or phrase → class, where several phrases may mean one class; or class → its
            `phrases`, by default its name.

    Raises:
        SpecError: The list is empty, or has something that is not a text, or the same phrase twice,
            whether in capitals or not.

    Example:
        >>> from dataflow_grounding import PhraseLister
        >>> lister = PhraseLister({"a car": "vehicle", "a lorry": "vehicle"})
        >>> record = lister({"image_path": "square.png"})
        >>> [(expression["text"], expression["class"]) for expression in record["expressions"]]
        [('a car', 'vehicle'), ('a lorry', 'vehicle')]
    """

    name = "class_list"
    looks_at_image = False
    input_keys = {"image": "image_path"}
    output_keys = {"expressions": "expressions"}
    descriptions = {"zh": "为每幅图像给出类别列表中的指代表达式。"}

    def __init__(self, classes: Sequence[str] | Mapping[str, str | JsonObject]) -> None:
        self.pairs = list(phrases_with_classes(classes).items())
        if not self.pairs:
            raise SpecError("classes: there is nothing to look for")

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `expressions`, as `listed` does."""
        return self.listed(record)

    def listed(self, record: Record) -> Update:
        """Return `expressions`, the phrases in the list's order, `char_span` null, no instances."""
        expressions: list[Expression] = []
        for number, (phrase, class_name) in enumerate(self.pairs):
            own_id = expression_id(record, number)
            expressions.append(Expression(phrase, own_id, class_name=class_name))
        return {self.keys.expressions: expressions}
