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

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Operator,
    Record,
    Update,
    open_image,
    read_expressions,
)
from dataflow_grounding._util.files import portable, within
from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.images.display import marks_of
from dataflow_grounding.images.drawing import draw_marks

if TYPE_CHECKING:
    from dataflow_grounding.images.drawing import Mark

STYLE = 1  # counts changes to how boxes are drawn, so that older pictures are drawn again
# of a picture's name, and of its path below the folder, both without the ending
MOST_BYTES_OF_NAME = 200
MOST_BYTES_OF_PATH = 1000


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
        path = within(self.output_dir, _file_name(record.unique_id))
        content = [[expression["text"], expression["instances"]] for expression in expressions]
        await asyncio.to_thread(draw_once, image, lambda: marks_of(expressions), content, path)
        return {self.keys.image_with_bbox: path}


def _file_name(unique_id: str) -> str:
    # "train/7" gives "train/7.jpg". An id that no file can be called gives the beginning of it, for
    # people, and a digest: "a?b" gives "a_b-3f….jpg". So two ids never share a name.
    without_surrogates = re.sub(r"[\ud800-\udfff]", "_", unique_id)
    cleaned = portable(without_surrogates)
    name = "/".join(part for part in cleaned.split("/") if part not in ("", ".", ".."))
    is_usable_as_it_is = name == unique_id and _fits_file_systems(name)
    if is_usable_as_it_is:
        return f"{name}.jpg"
    digest = hashlib.sha256(unique_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{name[:40].strip('/')}-{digest}.jpg"


def _fits_file_systems(path: str) -> bool:
    # Most file systems take 255 bytes for a name, endings included.
    encoded = path.encode()
    longest = max(len(name) for name in encoded.split(b"/"))
    return longest <= MOST_BYTES_OF_NAME and len(encoded) <= MOST_BYTES_OF_PATH


def draw_once(
    image: Image, marks: "Callable[[], list[Mark]]", content: Any, path: str
) -> bytes | None:
    """Write a picture of an image with marks, and return its bytes. Where the same picture is at
    `path` already, nothing is drawn and None is returned. `marks` makes the marks, and `content` is
    JSON of all that they depend on. A digest of STYLE, the image and `content` is written into the
    JPEG's comment, so that a later call knows the picture again.
    """
    import PIL.Image

    drawn_of = json.dumps([STYLE, image.facts.digest, content])
    stamp = hashlib.sha256(drawn_of.encode()).hexdigest().encode()
    # OSError: there is no file yet, or it is no whole JPEG
    with suppress(OSError), PIL.Image.open(path, formats=["JPEG"]) as earlier:
        if earlier.info.get("comment") == stamp:
            return None
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    buffer = io.BytesIO()
    with image.decoded() as picture:
        draw_marks(picture, marks()).save(buffer, "JPEG", quality=92, subsampling=0, comment=stamp)
    jpeg = buffer.getvalue()
    write_bytes(path, jpeg)
    return jpeg
