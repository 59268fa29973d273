"""Task `expression_extraction`: the referring expressions in a caption."""

from dataclasses import dataclass

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.spans import clean_caption
from dataflow_grounding.tasks.request import STRING, Request, is_cut_off, list_of, object_of


@dataclass(frozen=True)
class Extracted:
    """The caption, cleaned, and its expressions in order, each as (text, noun chunk or None)."""

    cleaned_caption: str
    expressions: list[tuple[str, str | None]]


def expression_extraction(image: Image, caption: str) -> Request[Extracted]:
    """Ask for the cleaned caption and the referring expressions in it."""
    return Request(
        task="expression_extraction",
        input={"caption": caption},
        images=(image,),
        instructions=load_prompt("expression_extraction"),
        schema=object_of(cleaned_caption=STRING, expressions=list_of(object_of(text=STRING, noun_chunk=STRING))),
        read=lambda reply: _read(reply, caption),
    )


def _read(reply: str, caption: str) -> tuple[Extracted, list[Note]]:
    data, notes = read_object(reply, required="expressions")
    if not isinstance(data["expressions"], list):
        raise UnreadableReply('"expressions" is not a list.')
    if is_cut_off(notes) and not reply.rstrip().endswith("]"):
        raise TruncatedReply("the reply is cut off in the middle of its expressions.")  # the rest isn't "not there"
    cleaned = data.get("cleaned_caption")
    if not isinstance(cleaned, str) or not cleaned.strip():
        cleaned = clean_caption(caption)
        notes = [*notes, Note("no_cleaned_caption")]
    expressions: list[tuple[str, str | None]] = []
    for item in data["expressions"]:
        found = {"text": item} if isinstance(item, str) else item
        text = found.get("text") if isinstance(found, dict) else None
        if not isinstance(text, str) or not text.strip():
            notes = [*notes, Note("dropped", "an expression without text")]
            continue
        noun_chunk = found.get("noun_chunk")
        expressions.append((text.strip(), noun_chunk.strip() if isinstance(noun_chunk, str) and noun_chunk else None))
    if data["expressions"] and not expressions:
        raise UnreadableReply('no item of "expressions" has a "text".')
    return Extracted(cleaned.strip(), expressions), notes
