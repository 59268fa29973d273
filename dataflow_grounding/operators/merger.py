"""Operator: referring expressions from described regions and a caption."""

from typing import Any

from dataflow_grounding.boxes.nearness import ask_in_parts, near_groups
from dataflow_grounding.boxes.regions import instances_on, read_regions
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.geometry import box_of
from dataflow_grounding.images import open_image
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.region_operator import RegionOperator
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update, expression_id
from dataflow_grounding.spans import find_spans
from dataflow_grounding.tasks.region_expressions import Merged, grounding_expression


@OPERATOR_REGISTRY.register()
class Merger(RegionOperator):
    """Makes expressions, each of one or several regions; its boxes are the regions', to the last digit.

    Args:
        serving, box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, Merger
        >>> region = {"bbox": [300, 200, 500, 400], "type": "square", "description": "the square"}
        >>> row = {"image_path": "square.png", "cleaned_caption": "A red square.", "regions": [region]}
        >>> [expression] = Merger(EmbeddedServing())(row)["expressions"]
        >>> expression["text"], expression["instances"][0]["bbox"]
        ('the square', [300, 200, 500, 400])
    """

    name = "grounding_expr"
    input_keys = {"image": "image_path", "regions": "regions", "caption": "cleaned_caption"}
    output_keys = {"expressions": "expressions"}
    optional_keys = ("caption",)
    descriptions = {
        "en": "Merges region descriptions and caption into referring expressions, each with its regions' boxes.",
        "zh": "将区域描述与图像描述合并为指代表达式,并附上对应区域的边界框。",
    }

    asks = RegionOperator.asks

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `expressions`: text, span in the caption, one instance per region, status grounded."""
        regions = read_regions(record, self.keys.regions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        given = record.get(self.keys.caption)
        caption = given if isinstance(given, str) and given.strip() else None
        boxes = [box_of(region["bbox"]) for region in regions]

        async def merge(places: list[int]) -> list[Merged]:
            near = [regions[place] for place in places]
            return await ask(grounding_expression(self.shown(image, near), caption, near, self.box_format))

        merged: list[tuple[str, list[int]]] = []
        for group in near_groups(boxes, self.regions_per_request):
            for places, found in await ask_in_parts(group, merge, boxes.__getitem__):
                merged += [(item.text, [places[n] for n in item.places]) for item in found]
        if set(range(len(regions))) - {place for _, places in merged for place in places}:
            ask.note("uncovered", "a region that no expression names")
        return {
            **facts_of(record, image, ask, self.serving),
            self.keys.expressions: _expressions(record, merged, regions, caption or ""),
        }


def _expressions(
    record: Record, merged: list[tuple[str, list[int]]], regions: list[dict[str, Any]], caption: str
) -> list[dict[str, Any]]:
    spans = find_spans([text for text, _ in merged], caption)
    expressions = []
    for number, ((text, places), span) in enumerate(zip(merged, spans, strict=True)):
        own_id = expression_id(record, number)
        expressions.append(
            {
                "expression_id": own_id,
                "text": text,
                "char_span": list(span) if span else None,
                "instances": instances_on(places, regions, own_id),
                "status": "grounded",
            }
        )
    return expressions
