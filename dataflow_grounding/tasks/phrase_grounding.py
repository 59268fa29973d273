"""Task `phrase_grounding`: the boxes of phrases in an image."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import (
    MERGE_IOU,
    area,
    clamp,
    whole_pixels,
    without_duplicates,
)
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import FoundBox, Note, Reading, read_boxes
from dataflow_grounding.tasks.request import (
    BOX,
    INTEGER,
    NUMBER_OR_NULL,
    STRING,
    Request,
    Schema,
    about,
    list_of,
    object_of,
)

WHOLE_PICTURE = 0.98  # a box over more of the picture's area says where nothing is


@dataclass(frozen=True)
class Found:
    """What was found for one phrase.

    Attributes:
        status: grounded, none, ambiguous or unsupported.
        instances: Each box: `bbox` (x1, y1, x2, y2, whole pixels of the upright image), `score`,
            perhaps `evidence`.
        reason: Why there is no box, if the reply says so.
        disagreement: Whether several answers differed; None for a single one.
        doubtful: Whether much of the reply was dropped, moved or missing, or several phrases had
            the whole picture.
    """

    status: str
    instances: list[dict[str, Any]]
    reason: str | None = None
    disagreement: bool | None = None
    doubtful: bool = False


def phrase_grounding(
    image: Image, phrases: Sequence[str], box_format: BoxFormat, merge_iou: float | None = MERGE_IOU
) -> Request[list[Found]]:
    """Ask for the boxes of phrases; the answer is one Found per phrase, in their order.

    Args:
        image: The image to look in.
        phrases: What to look for.
        box_format: How the model writes boxes.
        merge_iou: Boxes of one phrase that overlap at this IoU or more are one; None keeps them
            all.
    """

    def read(reply: str) -> tuple[list[Found], list[Note]]:
        sizes = {"image_size": image.shown_size, "sent_size": image.sent_size}
        reading = read_boxes(reply, format=box_format, phrases=list(phrases), **sizes)
        _check_all_read(reading, len(phrases))
        found, notes = [], list(reading.notes)
        # and not in the padding alone
        shown = [box for box in reading.boxes if area(clamp(box.bbox, image.size)) > 0]
        for number in range(1, len(phrases) + 1):
            instances = [_instance(box, image) for box in shown if box.id == number]
            once = without_duplicates(instances, merge_iou)
            merged = Note("merged", f"a box of phrase {number} that is nearly the same as another")
            notes += [merged] * (len(instances) - len(once))
            status = "grounded" if once else reading.statuses.get(number, "none")
            found.append(Found(status, once, reading.reasons.get(number)))
        most = WHOLE_PICTURE * image.size[0] * image.size[1]
        large = [any(area(instance["bbox"]) > most for instance in one.instances) for one in found]
        whole = list(itertools.compress(phrases, large))
        notes += [
            Note("whole_picture", f"the box of {phrase[:60]!r} covers nearly all of it")
            for phrase in whole
        ]
        if reading.doubtful:
            notes.append(Note("doubtful", "much was dropped or moved"))
        elif len({phrase.casefold() for phrase in whole}) > 1:
            # one thing may fill the picture; several hardly do
            notes.append(Note("doubtful", "several phrases have the whole picture"))
        else:
            return found, notes
        return [replace(one, doubtful=True) for one in found], notes

    size = dict(zip(("width", "height"), image.sent_size, strict=True))
    given = {
        "image": size,
        "phrases": [{"id": number, "text": text} for number, text in enumerate(phrases, 1)],
    }
    schema, key = _schema(box_format.key), box_format.key
    return about(
        "phrase_grounding", image, given, schema, read, box_format, len(phrases), box_key=key
    )


@cache
def _schema(box_key: str) -> Schema:
    item = object_of(**{"id": INTEGER, "label": STRING, box_key: BOX, "score": NUMBER_OR_NULL})
    return object_of(objects=list_of(item))


def _check_all_read(reading: Reading, count: int) -> None:
    """Raise TruncatedReply or UnreadableReply where a phrase without a box is not for that "not
    there".
    """
    boxed = {box.id for box in reading.boxes} | set(reading.statuses)
    if reading.count("truncated") and len(boxed) < count:
        raise TruncatedReply("the reply is cut off before all phrases have their boxes.")
    if reading.unread:
        ids = ", ".join(map(str, reading.unread))
        why = next((note for note in reading.notes if note.code == "dropped"), "dropped")
        raise UnreadableReply(f"the box of phrase {ids} can't be used ({why}).")


def _instance(box: FoundBox, image: Image) -> dict[str, Any]:
    evidence = {"evidence": box.evidence} if box.evidence else {}
    return {"bbox": list(whole_pixels(box.bbox, image.size)), "score": box.score, **evidence}
