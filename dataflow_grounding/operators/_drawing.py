"""Pictures that operators draw: where they go, and drawn only where they aren't there yet."""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from dataflow_grounding._util.files import portable, within, write_bytes
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.images.display import marks_of
from dataflow_grounding.images.drawing import draw_marks
from dataflow_grounding.images.image import Image

if TYPE_CHECKING:
    from dataflow_grounding.images.drawing import Mark

# Counts changes to how boxes are drawn, so that older pictures are drawn again. A finished run
# looks at them because its operator has a function of this file as an attribute: the operator's
# settings then have a digest of the file.
STYLE = 1
# Of a file's name, and of its path below the folder, both without the ending: most file systems
# take 255 bytes for a name, endings included.
MOST_BYTES_OF_NAME = 200
MOST_BYTES_OF_PATH = 1000


def safe_path(folder: str, name: str, ending: str) -> str:
    """Return the path of a file in a folder that is called after a text of the data.

    No text leads out of the folder. Two texts have one path only if one of them is the name, with
    its digest, that the other is given.

    Args:
        folder: The folder; it may be missing.
        name: The text, such as a record's `unique_id`: "train/7" gives "train/7.jpg". One that no
            file can be called gives its beginning and a digest: "a?b" gives "a_b-3f….jpg".
        ending: How the file's name ends, such as ".jpg".
    """
    without_surrogates = re.sub(r"[\ud800-\udfff]", "_", name)
    cleaned = portable(without_surrogates)
    path = "/".join(part for part in cleaned.split("/") if part not in ("", ".", ".."))
    bytes_of_path = path.encode()
    longest_part = max(len(part) for part in bytes_of_path.split(b"/"))
    is_short = longest_part <= MOST_BYTES_OF_NAME and len(bytes_of_path) <= MOST_BYTES_OF_PATH
    if path != name or not is_short:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        path = f"{path[:40].strip('/')}-{digest}"
    return within(folder, f"{path}{ending}")


def draw_boxes(image: Image, expressions: Sequence[Expression], path: str) -> None:
    """Write a JPEG of an image with the boxes of expressions drawn in, and their texts.

    A picture that is there already stays if it was drawn of the same image, texts and boxes.

    Args:
        image: The image, as `open_image` returns it.
        expressions: The expressions, as `read_expressions` returns them.
        path: Where the picture goes; its folder may be missing.
    """
    content: list[object] = []  # all that the drawing depends on
    for expression in expressions:
        content.append([expression.text, [item.to_json() for item in expression.instances]])
    draw_once(image, lambda: marks_of(expressions), content, path)


def draw_once(
    image: Image, marks: "Callable[[], list[Mark]]", content: object, path: str
) -> bytes | None:
    """Write a picture of an image with marks, and return its bytes; None if it is there already.

    `content` is JSON of all that the marks depend on.
    """
    import PIL.Image

    # A digest in the JPEG's comment tells what it was drawn of.
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
