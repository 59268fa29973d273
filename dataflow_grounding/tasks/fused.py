"""Task `caption_grounding`: the expressions in a caption and their boxes, in one request."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import MERGE_IOU
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.replies.items import has_role, id_of
from dataflow_grounding.replies.json_boxes import is_coordinate
from dataflow_grounding.replies.json_text import plain_key
from dataflow_grounding.tasks.extraction import Extracted, expression_extraction, text_of
from dataflow_grounding.tasks.grounding import Found, read_found
from dataflow_grounding.tasks.request import (
    BOX,
    INTEGER,
    NUMBER_OR_NULL,
    STRING,
    ReadReply,
    Request,
    Schema,
    is_cut_off,
    list_of,
    object_of,
    request_about,
    size_of,
)


class Fused(NamedTuple):
    """What a reply says of a caption and its picture."""

    extracted: Extracted
    found: list[Found]  # for each expression, in their order


def caption_grounding(
    image: Image, caption: str, box_format: BoxFormat, merge_iou: float | None = MERGE_IOU
) -> Request[Fused]:
    """Make the request for the expressions in a caption and their boxes."""
    read_texts = expression_extraction(image, caption).read
    reader = _FusedReader(image, box_format, merge_iou, read_texts)
    question = {"image": size_of(image), "caption": caption}
    key = box_format.key
    return request_about(
        "caption_grounding",
        image,
        question,
        _schema(key),
        reader.read,
        box_format,
        divisible=True,  # into the two tasks, which `CaptionGrounder` then asks for
        box_key=key,
    )


@dataclass(frozen=True)
class _FusedReader:
    """Reads a reply's texts as expression_extraction's, and its boxes as phrase_grounding's."""

    image: Image
    box_format: BoxFormat
    merge_iou: float | None
    read_texts: Callable[[str], ReadReply[Extracted]]

    def read(self, reply: str) -> tuple[Fused, list[Note | str]]:
        fields, notes = read_object(
            reply, required="expressions", schema=_schema(self.box_format.key)
        )
        if is_cut_off(notes):
            raise TruncatedReply("the reply is cut off.")
        texts = {name: fields.get(name) for name in ("cleaned_caption", "expressions")}
        extracted, notes_on_texts = self.read_texts(json.dumps(texts))
        phrases = [expression.text for expression in extracted.expressions]
        found, notes_on_boxes = self.read_boxes(fields, phrases)
        return Fused(extracted, found), [*notes, *notes_on_texts, *notes_on_boxes]

    def read_boxes(
        self, fields: Mapping[str, object], phrases: Sequence[str]
    ) -> tuple[list[Found], list[Note]]:
        """Read the boxes under "objects", or else those that the expressions have of their own."""
        items, objects = fields["expressions"], fields.get("objects")
        if not isinstance(items, list):
            raise UnreadableReply('"expressions" is not a list.')
        ids = _ids_of(items)
        phrase_by_id = dict(zip(ids, phrases, strict=True))
        own_boxes = _boxes_within(items, ids, self.box_format.key)
        if own_boxes and not objects:
            if len(own_boxes) < len(phrases):
                raise UnreadableReply("only some of the expressions have a box.")
            return self.read_objects(own_boxes, phrase_by_id)
        if not isinstance(objects, list):
            raise UnreadableReply('there is no list of "objects".')
        if not phrases:
            return [], []
        found, notes = self.read_objects(objects, phrase_by_id)
        own_boxes_with_value = [
            own for own in own_boxes if any(own[key] for key in own.keys() - {"id"})
        ]  # {"id": 1, "bbox": null} has none
        if own_boxes_with_value:
            own_found, _ = self.read_objects(own_boxes_with_value, phrase_by_id)
            _check_equal(own_found, found, phrases)
        return found, notes

    def read_objects(
        self, objects: Sequence[object], phrase_by_id: Mapping[int, str]
    ) -> tuple[list[Found], list[Note]]:
        text = json.dumps({"objects": objects})
        return read_found(text, self.image, phrase_by_id, self.box_format, self.merge_iou)


def _ids_of(items: Sequence[object]) -> list[int]:
    """The ids of the expressions that have a text, by which boxes name them."""
    stated_ids = [item.get("id") if isinstance(item, dict) else None for item in items]
    # As 1, 2, 3 and 1, none, 3 do. Others, such as 0, 1, 2, are taken as stated, and none may be
    # missing.
    count_from_1 = all(
        stated is None or id_of(stated) == place for place, stated in enumerate(stated_ids, 1)
    )
    ids: list[int] = []
    for place, (item, stated) in enumerate(zip(items, stated_ids, strict=True), 1):
        text = text_of(item)
        if not text:
            continue
        id = place if count_from_1 else id_of(stated)
        if id is None or id in ids:
            raise UnreadableReply(
                f"the ids don't tell expressions apart: {stated!r:.40} of {text!r:.60}"
            )
        ids.append(id)
    return ids


def _boxes_within(
    items: Sequence[object], ids: Sequence[int], box_key: str
) -> list[dict[str, object]]:
    """The expressions that have a box of their own, as items of "objects"."""
    objects: list[dict[str, object]] = []
    items_with_text = [item for item in items if text_of(item)]
    for item, id in zip(items_with_text, ids, strict=True):
        fields = item if isinstance(item, dict) else {}
        boxes = {key: value for key, value in fields.items() if _is_box(key, value, box_key)}
        if boxes:
            objects.append({"id": id, **boxes})
    return objects


def _is_box(key: str, value: object, box_key: str) -> bool:
    if isinstance(value, str) and not any(map(str.isdigit, value)):
        return False  # "location": "on the left"
    if plain_key(key) == plain_key(box_key):  # with null where nothing is there
        return True
    return is_coordinate(key) or (has_role(key, "box") and isinstance(value, (list, dict)))


def _check_equal(
    own_found: Sequence[Found], found: Sequence[Found], phrases: Sequence[str]
) -> None:
    """Refuse an expression with other boxes of its own than under "objects"."""
    for phrase, own, under_objects in zip(phrases, own_found, found, strict=True):
        own_boxes = sorted(instance.bbox for instance in own.instances)
        boxes_under_objects = sorted(instance.bbox for instance in under_objects.instances)
        if own_boxes and own_boxes != boxes_under_objects:
            raise UnreadableReply(f"{phrase[:60]!r} has two boxes, which differ.")


@cache
def _schema(box_key: str) -> Schema:
    """A box names its expression by `id` alone: its text would be paid for twice."""
    expression = object_of(id=INTEGER, text=STRING, noun_chunk=STRING)
    thing = object_of(**{"id": INTEGER, box_key: BOX, "score": NUMBER_OR_NULL})
    return object_of(
        cleaned_caption=STRING, expressions=list_of(expression), objects=list_of(thing)
    )
