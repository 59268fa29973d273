"""Tasks that write texts: `image_caption` and `region_caption`."""

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.replies.refusals import is_refusal
from dataflow_grounding.tasks.region_tasks import all_of, data_text, read_by_id
from dataflow_grounding.tasks.request import (
    INTEGER,
    STRING,
    Request,
    is_cut_off,
    list_of,
    object_of,
    request_about,
)

# Style of marks → the sentence that describes them to the model.
SHOWN_AS = {
    "outline": "Each region is outlined in the picture, and its id stands beside the outline.",
    "tag": "Each region's id stands in the picture beside the region, at one of its corners.",
    "crop": "The picture is a part of a larger one: the region and nothing else.",
}

# The name of a region, <region1>; the group is its number.
_REGION = lazy_pattern(r"<\s*region\s*(\d+)\s*>", re.IGNORECASE)
_MOST_DIGITS = 9  # of a region's number that count: no request has more regions
# "- <region1>: " at the beginning of a line, which is no part of what is said of the region
_HEADING = lazy_pattern(r"^[-*\d.)\s]*<\s*region\s*\d+\s*>\s*[:：-]\s*", re.IGNORECASE)

# What separates two sentences: blanks after a full stop, new lines, or a semicolon before a region.
_BETWEEN_SENTENCES = lazy_pattern(r"(?<=[.!?])\s+|\n+|;\s*(?=<)")


def image_caption(image: Image, regions: Sequence[Region] | None = None) -> Request[str]:
    """Make the request for a caption; `regions` tell a serving what it can't see."""
    question = {} if regions is None else {"regions": regions}

    def read(reply: str) -> tuple[str, list[Note]]:
        data, notes = read_object(reply, required="caption")
        if is_cut_off(notes):
            raise TruncatedReply("the caption is cut off.")
        caption = data_text(data["caption"])
        if not caption:
            raise UnreadableReply('"caption" is not a text that describes the picture.')
        return caption, notes

    return request_about("image_caption", image, question, object_of(caption=STRING), read)


class RegionCaptions(NamedTuple):
    texts: list[str]
    answer: str | None = None  # the reply, if it was in the model's own words


def region_caption(
    image: Image, regions: Sequence[Instance], marks: str = "outline"
) -> Request[RegionCaptions]:
    """Make the request for what each region shows; `marks` is a style of SHOWN_AS."""
    schema = object_of(captions=list_of(object_of(id=INTEGER, text=STRING)))
    return request_about(
        "region_caption",
        image,
        {"regions": regions},
        schema,
        partial(_read_region_captions, count=len(regions)),
        divisible=len(regions) > 1,
        marks=SHOWN_AS[marks],
    )


def _read_region_captions(reply: str, count: int) -> tuple[RegionCaptions, list[Note]]:
    try:
        item_by_id, notes = read_by_id(reply, "captions", count, "region_id")
    except UnreadableReply:
        # Models that were trained on texts with <region1> in them may answer in one.
        text_by_region = read_marked_text(reply, count)
        if len(text_by_region) < count:
            raise  # the error of the reply as JSON
        texts = [text_by_region[number] for number in sorted(text_by_region)]
        note = Note("own_words", "the reply is a text with <region1> and so on in it")
        return RegionCaptions(texts, reply.strip()), [note]
    all_texts = {
        number: data_text(item.get("text", item.get("caption")))
        for number, item in item_by_id.items()
    }
    text_by_region = {number: text for number, text in all_texts.items() if text}
    return RegionCaptions(all_of(text_by_region, count, "the text", notes)), notes


def read_marked_text(text: str, count: int) -> dict[int, str]:
    """Return what a text says of each region that it names, as `<region1>`, up to `count`."""
    sentences_by_region: dict[int, list[str]] = {}
    current: list[int] = []
    for sentence in _BETWEEN_SENTENCES.split(text):
        numbers = _region_numbers(sentence)
        if numbers:  # else it is about the regions that were named last
            current = [number for number in numbers if 1 <= number <= count]
        statement = _HEADING.sub("", sentence.strip())
        says_nothing = not statement.strip(" *-:")
        if says_nothing or is_refusal(_REGION.sub("", statement)):
            continue
        for number in current:
            sentences_by_region.setdefault(number, []).append(statement)
    return {number: " ".join(sentences) for number, sentences in sentences_by_region.items()}


def _region_numbers(sentence: str) -> list[int]:
    numbers = [int(digits[:_MOST_DIGITS]) for digits in _REGION.findall(sentence)]
    return list(dict.fromkeys(numbers))


def renumbered(text: str, places: Sequence[int]) -> str:
    """Number a text's regions among all: <region2> is <region8> where `places` are (4, 7)."""

    def renumbered_region(match: re.Match[str]) -> str:
        number = int(match[1][:_MOST_DIGITS])
        if not 1 <= number <= len(places):
            return match[0]
        return f"<region{places[number - 1] + 1}>"

    return _REGION.sub(renumbered_region, text)
