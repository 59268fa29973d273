"""Plain questions that any endpoint can answer: they tell whether it works."""

import secrets
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.image import Image, ImageLimits, open_image
from dataflow_grounding.images.in_memory import as_path
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks import phrase_grounding
from dataflow_grounding.tasks.request import Request


def sign_of_life() -> Request[None]:
    """Make a request that any endpoint can answer: a few words, and no picture. No two are equal: a
    gateway's cache would answer for a dead model.
    """

    def read(reply: str) -> tuple[None, list[Note]]:  # any reply will do
        return None, []

    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    return Request(
        task="expression_extraction",  # which every serving knows
        input={"caption": f"Cup {secrets.token_hex(4)}"},
        images=(),
        instructions='Answer with {"ok": true}.',
        schema=schema,
        read=read,
        text_only=True,
    )


def about_a_rectangle(limits: ImageLimits) -> Request[Any]:
    """Make a question that no content filter minds, and that is never equal to another."""
    x, y = secrets.randbelow(160), secrets.randbelow(120)
    image = _picture((x, y, x + 128, y + 96), limits)
    return phrase_grounding(image, ["the blue rectangle"], find_box_format("xyxy_1000", ""))


def picture_of_square(limits: ImageLimits) -> Image:
    """Draw a blue square on white ground, as it is sent within some limits."""
    return _picture((96, 56, 224, 184), limits)


def _picture(blue: tuple[int, int, int, int], limits: ImageLimits) -> Image:
    import PIL.Image  # a run seldom asks such a question

    picture = PIL.Image.new("RGB", (320, 240), "white")
    picture.paste("navy", blue)
    return open_image(Record({"image_path": as_path(picture, "a drawing")}), "image_path", limits)
