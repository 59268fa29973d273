"""Task `phrase_grounding`: the boxes of phrases in an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import (
    MERGE_IOU,
    area,
    clamp,
    whole_pixels,
    without_duplicates,
)
from dataflow_grounding.data.expressions import Instance
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import FoundBox, Note, Reading, read_boxes
from dataflow_grounding.tasks.request import (
    BOX,
    INTEGER,
    NUMBER_OR_NULL,
    STRING,
    Request,
    Schema,
    list_of,
    numbered,
    object_of,
    request_about,
    size_of,
)

SEVERAL_EVERYWHERE = "several phrases have the whole picture"
"""A doubt of a whole reply. One thing may fill a picture; several hardly do."""
WHOLE_PICTURE = 0.98  # a box over more than this share of the picture's area gives no place


@dataclass(frozen=True)
class Found:
    """What was found for one phrase.

    Attributes:
        status: grounded, none, ambiguous or unsupported.
        instances: Its boxes, in whole pixels of the upright image.
        reason: Why there is no box, if the reply says so.
        disagreement: Whether several answers differed; None for a single one, as of this task.
        doubt: Why the reply is doubtful, in words; "" where it isn't.
        own_doubt: Why the boxes may be of something else than the phrase; "" where nothing says so.
        named: Whether the reply says anything of the phrase. One that says nothing of it may mean
            that the thing isn't there.
    """

    status: str
    instances: list[Instance]
    reason: str | None = None
    disagreement: bool | None = None
    doubt: str = ""
    own_doubt: str = ""
    named: bool = field(default=True, compare=False)

    @property
    def doubtful(self) -> bool:
        """Whether much of the reply was useless, or several phrases had the whole picture."""
        return bool(self.doubt)


def phrase_grounding(
    image: Image, phrases: Sequence[str], box_format: BoxFormat, merge_iou: float | None = MERGE_IOU
) -> Request[list[Found]]:
    """Make the request for the boxes of phrases; the answer has a Found for each, in their order.
    Boxes of one phrase that overlap at `merge_iou` or more are one; None keeps all.
    """
    key = box_format.key
    return request_about(
        "phrase_grounding",
        image,
        {"image": size_of(image), "phrases": numbered(phrases)},
        schema_of_found(key, asks_not_found=True),
        partial(
            read_found,
            image=image,
            phrase_by_id=dict(enumerate(phrases, 1)),
            box_format=box_format,
            merge_iou=merge_iou,
            asks_not_found=True,
        ),
        box_format,
        divisible=len(phrases) > 1,
        box_key=key,
    )


def read_found(
    reply: str,
    image: Image,
    phrase_by_id: Mapping[int, str],
    box_format: BoxFormat,
    merge_iou: float | None,
    asks_not_found: bool = False,  # whether the question asks for absent phrases
) -> tuple[list[Found], list[Note]]:
    """Read a reply with the boxes of phrases, which it names by their ids. Return a Found for each
    phrase, in their order, and notes. Raises UnreadableReply, TruncatedReply.
    """
    reading = read_boxes(
        reply,
        format=box_format,
        phrases=phrase_by_id,
        # with its padding, as the model is shown it; boxes in the padding are taken out below
        image_size=image.shown_size,
        sent_size=image.sent_size,
    )
    _check_all_read(reading, len(phrase_by_id))
    answers, notes_on_answers = _answers_in(reading, image, phrase_by_id, merge_iou)
    notes = [*reading.notes, *notes_on_answers]
    if asks_not_found:
        notes += _notes_on_left_out(reading)
    phrases_everywhere = _phrases_with_whole_picture([*phrase_by_id.values()], answers, image)
    for phrase in phrases_everywhere:
        what = f"the box of {phrase[:60]!r} covers nearly all of it"
        notes.append(Note("whole_picture", what))
    doubt = _doubt(reading, phrases_everywhere)
    if doubt is not None:
        notes.append(Note("doubtful", doubt))
        answers = [replace(answer, doubt=doubt) for answer in answers]
    return answers, notes


def _answers_in(
    reading: Reading, image: Image, phrase_by_id: Mapping[int, str], merge_iou: float | None
) -> tuple[list[Found], list[Note]]:
    """A Found for each phrase, without boxes in the picture's padding and nearly equal ones."""
    notes: list[Note] = []  # on each that is left out, because runs count notes
    boxes_by_id: dict[int | None, list[FoundBox]] = {}
    ids_in_padding: set[int | None] = set()  # of phrases with a box there
    for box in reading.boxes:
        is_in_padding = area(clamp(box.bbox, image.size)) <= 0
        if is_in_padding:
            ids_in_padding.add(box.id)
            notes.append(Note("dropped", f"a box of phrase {box.id} outside the picture"))
        else:
            boxes_by_id.setdefault(box.id, []).append(box)
    answers: list[Found] = []
    for number in phrase_by_id:
        all_instances = [_instance(box, image) for box in boxes_by_id.get(number, ())]
        instances = without_duplicates(all_instances, merge_iou)
        for _ in range(len(all_instances) - len(instances)):
            what = f"a box of phrase {number} that is nearly the same as another"
            notes.append(Note("merged", what))
        has_box_in_padding = number in ids_in_padding
        answers.append(_found(number, instances, reading, has_box_in_padding))
    return answers, notes


def _found(
    number: int, instances: list[Instance], reading: Reading, has_box_in_padding: bool
) -> Found:
    if instances:
        own_doubt = reading.doubts.get(number, "")
        return Found("grounded", instances, own_doubt=own_doubt)
    status = reading.statuses.get(number, "none")  # as the embedded grounder states it
    reason = reading.reasons.get(number)
    if status == "none" and has_box_in_padding:
        status = "ambiguous"
        reason = "its box lies outside the picture"
    elif status == "none" and number in reading.unsure:
        status = "ambiguous"
        reason = reading.unsure[number]
    named = number not in reading.unnamed
    return Found(status, instances, reason, named=named)


def _phrases_with_whole_picture(
    phrases: Sequence[str], answers: Sequence[Found], image: Image
) -> list[str]:
    width, height = image.size
    largest_area = WHOLE_PICTURE * width * height
    phrases_everywhere: list[str] = []
    for phrase, answer in zip(phrases, answers, strict=True):
        for instance in answer.instances:
            if area(instance.bbox) > largest_area:
                phrases_everywhere.append(phrase)
                break
    return phrases_everywhere


def _doubt(reading: Reading, phrases_everywhere: Sequence[str]) -> str | None:
    if reading.doubtful:
        return "much was dropped or moved"
    # A phrase may have been asked twice, as "Sky" and "sky".
    different_phrases = {phrase.casefold() for phrase in phrases_everywhere}
    if len(different_phrases) > 1:
        return SEVERAL_EVERYWHERE
    return None


def _notes_on_left_out(reading: Reading) -> Iterator[Note]:
    """Notes on phrases that got no box, for a run's counts."""
    if reading.left_out:
        yield Note("left_out", "a reply that gives some phrase no box")
    if reading.not_found:
        yield Note("left_out_named", "a reply that names such a phrase in not_found")
        for number in reading.unnamed:
            yield Note("unanswered", f"phrase {number} has no box and isn't in not_found")


@cache
def schema_of_found(box_key: str, *, asks_not_found: bool = False) -> Schema:
    """Return the schema of boxes of phrases, and of the ids of absent ones if asked for."""
    item = object_of(**{"id": INTEGER, "label": STRING, box_key: BOX, "score": NUMBER_OR_NULL})
    if asks_not_found:
        return object_of(objects=list_of(item), not_found=list_of(INTEGER))
    return object_of(objects=list_of(item))


def _check_all_read(reading: Reading, count: int) -> None:
    """Refuse a reply that has lost a phrase's answer: its thing would pass for absent."""
    answered_ids = {box.id for box in reading.boxes}
    answered_ids.update(reading.statuses)
    if reading.count("truncated") and len(answered_ids) < count:
        raise TruncatedReply("the reply is cut off before all phrases have their boxes.")
    if not reading.unread:
        return
    ids = ", ".join(map(str, reading.unread))
    reasons = [str(note) for note in reading.notes if note.code == "dropped"]
    why = reasons[0] if reasons else "the reply says that it isn't there"
    raise UnreadableReply(f"the box of phrase {ids} can't be used ({why}).", reason="no usable box")


def _instance(box: FoundBox, image: Image) -> Instance:
    bbox = whole_pixels(box.bbox, image.size)
    return Instance(bbox, box.score, evidence=box.evidence or None)
