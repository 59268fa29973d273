"""The task `negative_phrases`: phrases that are almost right for a picture, and are not."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, get_args

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import whole_number
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.region_tasks import data_phrase, read_items, text_of
from dataflow_grounding.tasks.request import (
    INTEGER,
    STRING,
    Request,
    is_cut_off,
    list_of,
    numbered,
    object_of,
    request_about,
)

Change: TypeAlias = Literal["attribute", "relation", "number", "noun"]
"""What of a phrase was changed."""

CHANGES: tuple[Change, ...] = get_args(Change)
MOST_CHARACTERS = 200  # of a phrase; what is longer is no phrase


class Changed(NamedTuple):
    """A phrase that was changed; `place` is the index of the right phrase, from 0."""

    place: int
    change: Change
    text: str


def negative_phrases(image: Image, phrases: Sequence[str], count: int) -> Request[list[Changed]]:
    """Make the request for at most `count` phrases that differ in one thing from the picture."""
    schema = object_of(
        negatives=list_of(
            object_of(id=INTEGER, change={"type": "string", "enum": list(CHANGES)}, text=STRING)
        )
    )
    question = {"count": count, "phrases": numbered(phrases)}
    read = partial(_read_changed, phrases=phrases, count=count)
    return request_about("negative_phrases", image, question, schema, read)


def _read_changed(
    reply: str, phrases: Sequence[str], count: int
) -> tuple[list[Changed], list[Note]]:
    items, notes = read_items(reply, "negatives")
    taken_keys = {class_key(phrase) for phrase in phrases}
    changed: list[Changed] = []
    for item in items:
        negative = _changed_in(item, len(phrases))
        if negative is None:
            notes.append(Note("dropped", "a negative that is none"))
        elif class_key(negative.text) in taken_keys:
            notes.append(Note("dropped", "a negative that is another phrase again"))
        else:
            taken_keys.add(class_key(negative.text))
            changed.append(negative)
    if not changed and is_cut_off(notes):
        raise TruncatedReply("the reply is cut off before its first phrase.")
    if items and not changed:
        raise UnreadableReply('no item of "negatives" is a phrase that was changed.')
    return changed[:count], notes


def _changed_in(item: dict[str, object], count: int) -> Changed | None:
    """The phrase of an item that names one of the `count` right ones by id; None for others."""
    number = whole_number(item.get("id"))
    change = text_of(item.get("change")).lower()
    text = data_phrase(item.get("text"))
    if number is None or not 1 <= number <= count:
        return None
    if change not in CHANGES or not text or len(text) > MOST_CHARACTERS:
        return None
    return Changed(number - 1, change, text)
