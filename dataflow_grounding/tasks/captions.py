"""Tasks about texts: `image_caption`, `region_caption`, and `expression_extraction`, the phrases in
a caption.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.regions import Region, all_of, read_by_id, region_items, text_of
from dataflow_grounding.tasks.request import (
    INTEGER,
    STRING,
    Request,
    about,
    is_cut_off,
    list_of,
    object_of,
)

# Style of marks → how the model is told of them.
SHOWN_AS = {
    "outline": "Each region is outlined in the picture, and its id stands beside the outline.",
    "tag": "Each region's id stands in the picture beside the region, at one of its corners.",
    "crop": "The picture is a part of a larger one: the region and nothing else.",
}

_MARKER = re.compile(r"<\s*region\s*(\d+)\s*>", re.IGNORECASE)


def image_caption(image: Image, known: Mapping[str, Any] | None = None) -> Request[str]:
    """Ask for a caption; `known` is what to tell a serving that can't see what things are."""

    def read(reply: str) -> tuple[str, list[Note]]:
        data, notes = read_object(reply, required="caption")
        if is_cut_off(notes):
            raise TruncatedReply("the caption is cut off.")
        if not (caption := text_of(data["caption"])):
            raise UnreadableReply('"caption" is not a text.')
        return caption, notes

    return about("image_caption", image, known or {}, object_of(caption=STRING), read)


class Extracted(NamedTuple):
    """The caption, cleaned, and its expressions in order, each as (text, noun chunk or None)."""

    cleaned_caption: str
    expressions: list[tuple[str, str | None]]


def expression_extraction(image: Image, caption: str) -> Request[Extracted]:
    """Ask for the cleaned caption and the referring expressions in it."""

    def read(reply: str) -> tuple[Extracted, list[Note]]:
        data, notes = read_object(reply, required="expressions")
        if not isinstance(data["expressions"], list):
            raise UnreadableReply('"expressions" is not a list.')
        if is_cut_off(notes) and not reply.rstrip().endswith("]"):
            # the rest isn't "not there"
            raise TruncatedReply("the reply is cut off in the middle of its expressions.")
        cleaned = data.get("cleaned_caption")
        if not isinstance(cleaned, str) or not cleaned.strip():
            cleaned = clean_caption(caption)
            notes = [*notes, Note("no_cleaned_caption")]
        expressions: list[tuple[str, str | None]] = []
        for item in data["expressions"]:
            given = (
                (item.get("text"), item.get("noun_chunk"))
                if isinstance(item, dict)
                else (item, None)
            )
            text, noun_chunk = (value.strip() if isinstance(value, str) else "" for value in given)
            if text:
                expressions.append((text, noun_chunk or None))
            else:
                notes = [*notes, Note("dropped", "an expression without text")]
        if data["expressions"] and not expressions:
            raise UnreadableReply('no item of "expressions" has a "text".')
        return Extracted(cleaned.strip(), expressions), notes

    schema = object_of(
        cleaned_caption=STRING, expressions=list_of(object_of(text=STRING, noun_chunk=STRING))
    )
    return about("expression_extraction", image, {"caption": caption}, schema, read)


class RegionCaptions(NamedTuple):
    """One text per region, in their order; `answer` is the reply if it was in the model's own
    words.
    """

    texts: list[str]
    answer: str | None = None


def region_caption(
    image: Image, regions: Sequence[Region], box_format: BoxFormat, marks: str = "outline"
) -> Request[RegionCaptions]:
    """Ask what each region shows; `image` has the regions marked in the style `marks`."""
    count = len(regions)

    def read(reply: str) -> tuple[RegionCaptions, list[Note]]:
        try:
            items, notes = read_by_id(reply, "captions", count)
        except UnreadableReply:
            found = read_marked_text(reply, count)
            if len(found) < count:
                raise
            note = Note("own_words", "the reply is a text with <region1> and so on in it")
            return RegionCaptions([found[number] for number in sorted(found)], reply.strip()), [
                note
            ]
        texts = {
            number: text for number, item in items.items() if (text := text_of(item.get("text")))
        }
        return RegionCaptions(all_of(texts, count, "the text", notes)), notes

    given = {"regions": region_items(regions, image, box_format)}
    schema = object_of(captions=list_of(object_of(id=INTEGER, text=STRING)))
    return about(
        "region_caption", image, given, schema, read, box_format, count, marks=SHOWN_AS[marks]
    )


def read_marked_text(text: str, count: int) -> dict[int, str]:
    """Read a text that names regions as `<region1>`: region id, 1 to `count` → what it says of it.

    A sentence or line belongs to the regions that it names, and so do those after it that name
    none.

    Example:
        >>> read_marked_text("<region1>: a cup. It is red. <region2> shows a dog.", 2)
        {1: 'a cup. It is red.', 2: '<region2> shows a dog.'}
    """
    found: dict[int, list[str]] = {}
    current: list[int] = []
    for sentence in re.split(r"(?<=[.!?])\s+|\n+|;\s*(?=<)", text):
        named = [int(number[:9]) for number in _MARKER.findall(sentence)]
        if named:
            current = [number for number in dict.fromkeys(named) if 1 <= number <= count]
        said = re.sub(
            r"^[-*\d.)\s]*<\s*region\s*\d+\s*>\s*[:：-]\s*",
            "",
            sentence.strip(),
            flags=re.IGNORECASE,
        )
        if said.strip(" *-:"):
            for number in current:
                found.setdefault(number, []).append(said)
    return {number: " ".join(sentences) for number, sentences in found.items()}


def renumbered(text: str, places: Sequence[int]) -> str:
    """Return a text whose `<region1>` names the first of `places` (from 0) with the places' own
    numbers.

    Example:
        >>> renumbered("<region1> is left of <region2>", [4, 2])
        '<region5> is left of <region3>'
    """
    own = {number: f"<region{place + 1}>" for number, place in enumerate(places, 1)}
    return _MARKER.sub(lambda found: own.get(int(found[1][:9]), found[0]), text)
