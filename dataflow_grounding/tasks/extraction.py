"""The task `expression_extraction`: which phrases of a caption name things in the picture."""

from typing import Any, NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.request import (
    STRING,
    Request,
    is_cut_off,
    list_of,
    object_of,
    request_about,
)


class Extracted(NamedTuple):
    """The expressions in a caption."""

    cleaned_caption: str  # by the model, else by `clean_caption`
    expressions: list[tuple[str, str | None]]  # text, and noun chunk or None


def expression_extraction(image: Image, caption: str) -> Request[Extracted]:
    """Make the request for the cleaned caption and the referring expressions in it."""

    def read(reply: str) -> tuple[Extracted, list[Note]]:
        data, notes = read_object(reply, required="expressions")
        items = data["expressions"]
        if not isinstance(items, list):
            raise UnreadableReply('"expressions" is not a list.')
        ends_with_list = reply.rstrip().endswith("]")  # only the last brace is missing
        if is_cut_off(notes) and not ends_with_list:
            # what is after the cut may be in the picture all the same
            raise TruncatedReply("the reply is cut off in the middle of its expressions.")
        cleaned = _strip_text(data.get("cleaned_caption"))
        if not cleaned:
            cleaned = clean_caption(caption)
            notes.append(Note("no_cleaned_caption"))
        expressions: list[tuple[str, str | None]] = []
        for item in items:
            fields = item if isinstance(item, dict) else {"text": item}
            text = _strip_text(fields.get("text"))
            if text:
                expressions.append((text, _strip_text(fields.get("noun_chunk")) or None))
            else:
                notes.append(Note("dropped", "an expression without text"))
        if items and not expressions:
            raise UnreadableReply('no item of "expressions" has a "text".')
        return Extracted(cleaned, expressions), notes

    schema = object_of(
        cleaned_caption=STRING, expressions=list_of(object_of(text=STRING, noun_chunk=STRING))
    )
    return request_about("expression_extraction", image, {"caption": caption}, schema, read)


def _strip_text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
