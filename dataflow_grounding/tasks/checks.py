"""Tasks about boxes that are there: `box_check` and `missing_boxes`.

A judge is a model that is asked about boxes which another has found. Its reply is read strictly:
what isn't one of the answers that were asked for is none, or says that the judge can't tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import MERGE_IOU, Bbox, Size
from dataflow_grounding.data.expressions import Instance
from dataflow_grounding.data.records import whole_number
from dataflow_grounding.images.image import Image
from dataflow_grounding.images.sheet import MOST_CROPS, crop_sheet
from dataflow_grounding.images.shown import marked
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.grounding import Found, read_found, schema_of_found
from dataflow_grounding.tasks.region_tasks import all_of
from dataflow_grounding.tasks.request import (
    BOOLEAN,
    INTEGER,
    Request,
    is_cut_off,
    list_of,
    numbered,
    object_of,
    request_about,
    size_of,
)

T = TypeVar("T")
Fit: TypeAlias = Literal["right", "loose", "part", "other", "nothing"]
"""How a box fits its phrase: it is tight; too large; on a part; on another thing; on nothing."""

FITS: tuple[Fit, ...] = get_args(Fit)
# Boxes are also shown enlarged if both sides are less than this share of the image's.
SMALL = 0.03
MOST_COUNTED = 10_000  # of one phrase's things in a picture; more is no count
# Word of a judge → its answer; None is "can't tell".
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False, "unsure": None}
_VERDICTS: Mapping[str, Fit] = {fit: fit for fit in FITS}


class DrawnBox(NamedTuple):
    """A box that the judge is shown."""

    text: str
    bbox: Bbox  # in pixels of the upright image


@dataclass(frozen=True)
class Presence:
    """What a judge says of a phrase's thing and its number; None where the judge can't tell."""

    there: bool | None
    count: int | None


class Checked(NamedTuple):
    """What a judge says of a picture: of each phrase and of each box, in their order."""

    presences: list[Presence]
    verdicts: list[Fit | None]  # None where the judge can't tell


def box_check(image: Image, phrases: Sequence[str], boxes: Sequence[DrawnBox]) -> Request[Checked]:
    """Make the request whether each phrase's thing is there, and whether each box is right."""
    verdict = {"type": "string", "enum": list(FITS)}
    schema = object_of(
        phrases=list_of(object_of(id=INTEGER, there=BOOLEAN, count=INTEGER)),
        boxes=list_of(object_of(id=INTEGER, verdict=verdict)),
    )
    shown = marked(image, [box.bbox for box in boxes]) if boxes else image
    request = request_about(
        "box_check",
        shown,
        _question(shown, phrases, boxes),
        schema,
        partial(_read_checked, phrase_count=len(phrases), boxes=boxes),
        divisible=len(phrases) + len(boxes) > 1,
    )
    return _with_small_boxes_enlarged(request, image, boxes)


def _with_small_boxes_enlarged(
    request: Request[Checked], image: Image, boxes: Sequence[DrawnBox]
) -> Request[Checked]:
    """Add a second picture of the small boxes, under their numbers, if there are any."""
    numbers = [number for number, box in enumerate(boxes, 1) if _is_small(box.bbox, image.size)]
    if not numbers:
        return request
    enlarged = numbers[:MOST_CROPS]
    crops = crop_sheet(image, [boxes[number - 1].bbox for number in enlarged], enlarged)
    question = {**request.input, "boxes_from_closer_by": enlarged}
    return replace(request, images=(*request.images, crops), input=question)


def missing_boxes(
    image: Image,
    phrases: Sequence[str],
    boxes: Sequence[DrawnBox],
    box_format: BoxFormat,
    merge_iou: float | None = MERGE_IOU,
) -> Request[list[Found]]:
    """Make the request for boxes that haven't been found yet; the known ones are drawn in."""
    shown = marked(image, [box.bbox for box in boxes]) if boxes else image
    return request_about(
        "missing_boxes",
        shown,
        _question(shown, phrases, boxes),
        schema_of_found(box_format.key),
        partial(
            read_found,
            image=shown,
            phrase_by_id=dict(enumerate(phrases, 1)),
            box_format=box_format,
            merge_iou=merge_iou,
        ),
        box_format,
        divisible=len(phrases) > 1,
        box_key=box_format.key,
    )


def _question(shown: Image, phrases: Sequence[str], boxes: Sequence[DrawnBox]) -> dict[str, object]:
    items: list[dict[str, object]] = []
    for number, box in enumerate(boxes, 1):
        items.append({"id": number, "box": Instance(box.bbox), "text": box.text})
    return {"image": size_of(shown), "phrases": numbered(phrases), "boxes": items}


def _is_small(bbox: Bbox, size: Size) -> bool:
    x1, y1, x2, y2 = bbox
    width, height = size
    return (x2 - x1) / width < SMALL and (y2 - y1) / height < SMALL


def _read_checked(
    reply: str, phrase_count: int, boxes: Sequence[DrawnBox]
) -> tuple[Checked, list[Note]]:
    data, notes = read_object(reply, required="phrases")
    # The list of boxes comes after that of phrases. A reply that is cut off ends inside one of
    # them, and the last entry there isn't read.
    is_cut = is_cut_off(notes)
    is_cut_in_phrases = is_cut and "boxes" not in data
    is_cut_in_boxes = is_cut and not is_cut_in_phrases
    phrase_items = _items(data, "phrases", last_is_cut=is_cut_in_phrases)
    cannot_tell = Presence(there=None, count=None)
    presences = _answers_by_id(phrase_items, phrase_count, _presence, cannot_tell, notes)
    verdicts: dict[int, Fit | None] = {}
    if boxes and not is_cut_in_phrases:
        box_items = _items(data, "boxes", last_is_cut=is_cut_in_boxes)
        verdicts = _answers_by_id(box_items, len(boxes), _verdict, None, notes)
    # `all_of` raises TruncatedReply where the answers that were cut off are missing.
    checked = Checked(
        all_of(presences, phrase_count, "the answer to the phrase", notes),
        all_of(verdicts, len(boxes), "the verdict", notes),
    )
    return checked, notes


def _items(data: Mapping[str, object], key: str, last_is_cut: bool) -> list[object]:
    items = data.get(key)
    if not isinstance(items, list):
        raise UnreadableReply(f'"{key}" is not a list.')
    return items[:-1] if last_is_cut else items


class _UnknownWord(UnreadableReply):
    """An answer in a word that wasn't asked for; `_answers_by_id` forgives a few of them."""


def _answers_by_id(
    items: Sequence[object],
    count: int,
    read: Callable[[Mapping[str, object]], T],
    cannot_tell: T,
    notes: list[Note],
) -> dict[int, T]:
    """The answers by the ids of their phrases or boxes, from 1 to `count`."""
    answers: dict[int, T] = {}
    unknown_words: dict[int, _UnknownWord] = {}
    for item in items:
        fields = item if isinstance(item, dict) else {}
        number = whole_number(fields.get("id"))
        if number is None or not 1 <= number <= count:
            notes.append(Note("dropped", "an answer to what was not asked"))
            continue
        try:
            answer = read(fields)
        except _UnknownWord as error:  # as "maybe"
            unknown_words[number] = error
            answer = cannot_tell
        if answers.setdefault(number, answer) != answer:
            raise UnreadableReply(f"id {number} is answered twice, in different ways.")
    # With fewer unknown words, the reply is kept, because the other answers are good.
    are_too_many = 2 * len(unknown_words) >= len(answers)
    if unknown_words and are_too_many:
        raise next(iter(unknown_words.values()))
    for _ in unknown_words:
        notes.append(Note("unknown_word", "an answer in a word that was not asked for"))
    return answers


def _presence(item: Mapping[str, object]) -> Presence:
    """Read whether and how often a thing is there; yes and 0 contradict, and tell neither."""
    there = _answer_in(item, "there", _TRUTHS, "yes, no and unsure")
    count = whole_number(item.get("count"))
    if count is not None and not 0 <= count <= MOST_COUNTED:
        count = None
    if there is not None and count is not None:
        is_contradiction = there != (count > 0)
        if is_contradiction:
            return Presence(there=None, count=None)
    return Presence(there, count)


def _verdict(item: Mapping[str, object]) -> Fit | None:
    return _answer_in(item, "verdict", _VERDICTS, ", ".join(FITS))


def _answer_in(
    item: Mapping[str, object], key: str, answers: Mapping[str, T], listed: str
) -> T | None:
    """Return what the word under a key means: true and "Yes." are yes; null is None.

    "maybe" raises _UnknownWord, which may be forgiven; no answer and 3 raise UnreadableReply.
    """
    value = item.get(key, "")
    if value is None:  # the judge can't tell
        return None
    if isinstance(value, bool):
        value = str(value)
    complaint = f'"{key}" of id {item["id"]!r:.20} is none of {listed}.'
    if not isinstance(value, str) or not value:
        raise UnreadableReply(complaint)
    word = value.strip().removesuffix(".").rstrip().lower()
    if word not in answers:
        raise _UnknownWord(complaint)
    return answers[word]
