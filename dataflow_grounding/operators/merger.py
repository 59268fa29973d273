"""Operator: referring expressions from described regions and a caption."""

from typing import Any

from dataflow_grounding.boxes.regions import instances_on
from dataflow_grounding.data.records import Record, Update, expression_id
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image
from dataflow_grounding.operators.box_operator import RegionOperator
from dataflow_grounding.tasks.regions import grounding_expression


@OPERATOR_REGISTRY.register()
class Merger(RegionOperator):
    """Merges region descriptions and caption into referring expressions, each with its regions'
    boxes.

    Args:
        serving, box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, Merger
        >>> region = {"bbox": [300, 200, 500, 400], "type": "square", "description": "the square"}
        >>> row = {"image_path": "square.png", "cleaned_caption": "A red square."}
        >>> row["regions"] = [region]
        >>> [expression] = Merger(EmbeddedServing())(row)["expressions"]
        >>> expression["text"], expression["instances"][0]["bbox"]
        ('the square', [300, 200, 500, 400])
    """

    name = "grounding_expr"
    input_keys = {"image": "image_path", "regions": "regions", "caption": "cleaned_caption"}
    output_keys = {"expressions": "expressions"}
    optional_keys = ("caption",)
    descriptions = {"zh": "将区域描述与图像描述合并为指代表达式,并附上对应区域的边界框。"}

    async def described(
        self, record: Record, image: Image, regions: list[dict[str, Any]], ask: Ask
    ) -> Update:
        """Adds `expressions`: text, span in the caption, an instance per region (its box as it is),
        status grounded.
        """
        given = record.get(self.keys.caption)
        caption = given if isinstance(given, str) and given.strip() else None
        answers = await self.ask_about(
            image,
            regions,
            lambda shown, near, told: grounding_expression(shown, caption, near, told),
            ask,
        )
        merged: list[tuple[str, list[int]]] = []
        for places, found in answers:
            merged += [(item.text, [places[n] for n in item.places]) for item in found]
        if set(range(len(regions))) - {place for _, places in merged for place in places}:
            ask.note("uncovered", "a region that no expression names")
        spans = find_spans([text for text, _ in merged], caption or "")
        expressions = [
            {
                "expression_id": (own_id := expression_id(record, number)),
                "text": text,
                "char_span": list(span) if span else None,
                "instances": instances_on(places, regions, own_id),
                "status": "grounded",
            }
            for number, ((text, places), span) in enumerate(zip(merged, spans, strict=True))
        ]
        return {self.keys.expressions: expressions}
