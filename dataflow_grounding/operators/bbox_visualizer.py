"""Operator: a picture of each record with its boxes drawn in."""

import asyncio
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.files import portable, within
from dataflow_grounding.data.records import Record, Update, read_expressions, write_bytes
from dataflow_grounding.images.display import marks_of
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, Operator, open_image

if TYPE_CHECKING:
    from dataflow_grounding.images.drawing import Mark

STYLE = 1  # counts changes to how boxes are drawn, so that older pictures are drawn again


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

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the path of the picture. It is not drawn again when image and boxes are as they
        were.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image)
        path = within(self.output_dir, _file_name(record.unique_id))
        drawn = [[e["text"], e["instances"]] for e in expressions]
        await asyncio.to_thread(draw_once, image, lambda: marks_of(expressions), drawn, path)
        return {self.keys.image_with_bbox: path}


def _file_name(unique_id: str) -> str:
    """A file name for an image id, with its folders. What can't stand in one is left out; a digest
    tells ids apart.
    """
    cleaned = portable(re.sub(r"[\ud800-\udfff]", "_", unique_id))
    name = "/".join(part for part in cleaned.split("/") if part not in ("", ".", ".."))
    if (
        name == unique_id
        and max(map(len, name.encode().split(b"/"))) <= 200
        and len(name.encode()) <= 1000
    ):
        return f"{name}.jpg"
    digest = hashlib.sha256(unique_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{name[:40].strip('/')}-{digest}.jpg"


def draw_once(
    image: Image, marks: "Callable[[], list[Mark]]", drawn: Any, path: str
) -> bytes | None:
    """Write the picture unless `path` has it of the same image with the same `drawn` (JSON); the
    bytes, if written.
    """
    import PIL.Image

    from dataflow_grounding.images.drawing import draw_marks

    state = json.dumps([STYLE, image.facts.digest, drawn])
    stamp = hashlib.sha256(state.encode()).hexdigest().encode()
    with suppress(OSError), PIL.Image.open(path, formats=["JPEG"]) as there:
        if there.info.get("comment") == stamp:
            return None
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    out = io.BytesIO()
    with image.decoded() as picture:
        draw_marks(picture, marks()).save(out, "JPEG", quality=92, subsampling=0, comment=stamp)
    write_bytes(path, out.getvalue())
    return out.getvalue()
