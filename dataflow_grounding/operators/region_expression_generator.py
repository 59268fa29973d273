"""Operator: type, colour and description of each region of an image."""

from dataclasses import replace

from dataflow_grounding import OPERATOR_REGISTRY, Ask, Image, Record, RegionOperator, Update
from dataflow_grounding.data.expressions import Region
from dataflow_grounding.tasks import region_expression


@OPERATOR_REGISTRY.register()
class RegionExpressionGenerator(RegionOperator):
    """Describes each region of an image: its type, colour, and a phrase that singles it out.

    Args:
        serving, box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, RegionExpressionGenerator
        >>> region = {"bbox": [300, 200, 500, 400], "type": "square"}
        >>> row = {"image_path": "square.png", "regions": [region]}
        >>> [region] = RegionExpressionGenerator(EmbeddedServing())(row)["regions"]
        >>> region["color"], region["description"]
        ('red', 'the square')
    """

    name = "region_expr"
    tasks = ("region_expression",)
    input_keys = {"image": "image_path", "regions": "regions"}
    output_keys = {"output": "regions"}
    descriptions = {"zh": "描述图像中的每个区域:类型、颜色以及能唯一指代该区域的短语。"}

    async def described(
        self, record: Record, image: Image, regions: list[Region], ask: Ask
    ) -> Update:
        """Adds the regions with `color` and `description`, and `type` where a region had none."""
        described = list(regions)
        for places, descriptions in await self.ask_about(image, regions, region_expression, ask):
            for place, description in zip(places, descriptions, strict=True):
                region = regions[place]
                described[place] = replace(
                    region,
                    type=region.type or description.type,
                    color=description.color,
                    description=description.description,
                )
        return {self.keys.output: described}
