"""Task `image_caption`: a caption of the whole image."""

from collections.abc import Mapping
from typing import Any

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.regions import text_of
from dataflow_grounding.tasks.request import STRING, Request, is_cut_off, object_of


def image_caption(image: Image, known: Mapping[str, Any] | None = None) -> Request[str]:
    """Ask for a caption; `known` is what to tell a serving that can't see what things are."""
    return Request(
        task="image_caption",
        input=known or {},
        images=(image,),
        instructions=load_prompt("image_caption"),
        schema=object_of(caption=STRING),
        read=_read,
    )


def _read(reply: str) -> tuple[str, list[Note]]:
    data, notes = read_object(reply, required="caption")
    if is_cut_off(notes):
        raise TruncatedReply("the caption is cut off.")
    caption = text_of(data["caption"])
    if not caption:
        raise UnreadableReply('"caption" is not a text.')
    return caption, notes
