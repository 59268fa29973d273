"""Operator: a picture of each record with its boxes drawn in."""

import asyncio
import os

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Operator,
    Record,
    Update,
    draw_boxes,
    open_image,
    read_expressions,
    safe_path,
)


@OPERATOR_REGISTRY.register()
class BBoxVisualizer(Operator):
    """Draws the boxes of the expressions into a copy of the image.

    Args:
        output_dir: Folder of the pictures, each `{image_id}.jpg`.

    Example:
        >>> from dataflow_grounding import BBoxVisualizer
        >>> expression = {"text": "the red square", "instances": [{"bbox": [300, 200, 500, 400]}]}
        >>> record = {"image_path": "square.png", "expressions": [expression]}
        >>> BBoxVisualizer("drawn")(record)["image_with_bbox"]
        'drawn/square.jpg'
    """

    name = "bbox_visualization"
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"image_with_bbox": "image_with_bbox"}
    descriptions = {"zh": "将指代表达式的边界框绘制到图像副本上。"}

    def __init__(self, output_dir: str | os.PathLike[str] = "./images_with_bbox") -> None:
        self.output_dir = os.fspath(output_dir)
        self.draw = draw_boxes  # a setting: where drawing has changed, a finished run draws again

    def files_there(self) -> int:
        """Return how many pictures are in `output_dir`: those that were deleted are drawn again."""
        pictures = 0
        for _, _, names in os.walk(self.output_dir):
            pictures += sum(name.endswith(".jpg") for name in names)
        return pictures

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the path of the picture.

        It isn't drawn again if it is there, and was drawn of the same image, phrases and boxes.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image)
        path = safe_path(self.output_dir, record.unique_id, ".jpg")
        await asyncio.to_thread(self.draw, image, expressions, path)
        return {self.keys.image_with_bbox: path}
