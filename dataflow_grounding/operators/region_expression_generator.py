"""Operator: type, colour and description of each region of an image."""

from typing import Any

from dataflow_grounding.boxes.nearness import ask_in_parts, near_groups
from dataflow_grounding.boxes.regions import read_regions
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.geometry import box_of
from dataflow_grounding.images import open_image
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.region_operator import RegionOperator
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update
from dataflow_grounding.tasks.region_expressions import Described, region_expression


@OPERATOR_REGISTRY.register()
class RegionExpressionGenerator(RegionOperator):
    """Describes each region so that it can be told from all others; boxes and types that were given stay as they are.

    Args:
        serving, box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, RegionExpressionGenerator
        >>> row = {"image_path": "square.png", "regions": [{"bbox": [300, 200, 500, 400], "type": "square"}]}
        >>> [region] = RegionExpressionGenerator(EmbeddedServing())(row)["regions"]
        >>> region["color"], region["description"]
        ('red', 'the square')
    """

    name = "region_expr"
    input_keys = {"image": "image_path", "regions": "regions"}
    output_keys = {"output": "regions"}
    descriptions = {
        "en": "Describes each region of an image: its type, colour, and a phrase that singles it out.",
        "zh": "描述图像中的每个区域:类型、颜色以及能唯一指代该区域的短语。",
    }

    asks = RegionOperator.asks

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `type` where the region has none, `color` and `description` to every region, and the image's size."""
        regions = read_regions(record, self.keys.regions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        boxes = [box_of(region["bbox"]) for region in regions]

        async def describe(places: list[int]) -> list[Described]:
            near = [regions[place] for place in places]
            return await ask(region_expression(self.shown(image, near), near, self.box_format))

        described: dict[int, Described] = {}
        for group in near_groups(boxes, self.regions_per_request):
            for places, found in await ask_in_parts(group, describe, boxes.__getitem__):
                described.update(zip(places, found, strict=True))
        return {
            **facts_of(record, image, ask, self.serving),
            self.keys.output: [_with(region, described[place]) for place, region in enumerate(regions)],
        }


def _with(region: dict[str, Any], found: Described) -> dict[str, Any]:
    kind = region["type"] or found.type
    return {**region, "type": kind, "color": found.color, "description": found.description}
