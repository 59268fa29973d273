"""Reading what models write: boxes and objects out of replies of any shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.replies.answer_text import answers_of
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.json_values import JsonObject, Scan, nested
from dataflow_grounding.replies.reading import FoundBox, Note, Reading
from dataflow_grounding.replies.vocabulary import plain_key

__all__ = ["FoundBox", "Note", "Reading", "read_boxes", "read_object"]


def read_boxes(
    reply: str,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
) -> Reading:
    """Read the boxes in a model's reply, whatever shape it has.

    Args:
        reply: The reply's text: JSON of any shape, a model family's tokens, a table, or prose with
            numbers.
        format: The box format that the reply was asked for, or its name, such as `xyxy_1000` or
            `qwen3-vl`.
        image_size: Width and height of the upright image in pixels.
        sent_size: Width and height of the picture as sent, if it was resized.
        phrases: The request's phrases, by id or in order from 1. Every box then belongs to one of
            them or is dropped with a note; without phrases, all boxes are kept.

    Returns:
        The boxes in pixels of the upright image, inside it, and notes on what was done to read
        them. No boxes means that the reply says nothing is there.

    Raises:
        UnreadableReply: There is nothing to read, or nothing that was read can be used; the message
            says why.
        TruncatedReply: The reply is cut off before its first complete box.
        SpecError: The format is unknown.

    Example:
        >>> reply = '[{"label": "cat", "bbox_2d": [100, 200, 500, 800]}]'
        >>> size = (640, 480)
        >>> reading = read_boxes(reply, format="xyxy_1000", image_size=size, phrases=["a cat"])
        >>> [(box.id, box.bbox) for box in reading.boxes]
        [(1, (64.0, 96.0, 320.0, 384.0))]
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    parsed = parse_reply(reply, box_format.key)
    wanted = dict(phrases) if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    return to_reading(parsed, box_format, image_size, sent_size or image_size, wanted)


def read_object(reply: str, *, required: str) -> tuple[dict[str, Any], list[Note]]:
    """Read the JSON object that a task other than grounding asked for, tolerating what `read_boxes`
    tolerates.

    Args:
        reply: The reply's text.
        required: The key that the object must have. If several have it, the last one counts; one
            within another object or in a list of one is found too. A bare list, or items without
            their list, become `{required: [...]}`.

    Returns:
        The object, and notes whose codes are truncated, repaired_json, repeated_key or wrapped.
        Lists under a key that an object has twice are one list.

    Raises:
        UnreadableReply: No object has the key.
        TruncatedReply: The reply is cut off before one could.

    Example:
        >>> read_object("Sure: {'caption': 'A cat.'}", required="caption")
        ({'caption': 'A cat.'}, [Note(code='repaired_json', text='the reply is not quite JSON')])
    """
    answers = answers_of(reply)[::-1]
    scans = [find_json(text) for answer in answers for text in [*answer.blocks, answer.text]]
    truncated = any(scan.truncated for scan in scans)
    for find in (_with_key, _wrapped):
        for scan in scans:
            found = find(scan, required)
            if found is not None:
                return found[0], [*_notes(scan), *found[1]]
    if truncated:
        raise TruncatedReply(f"the reply is cut off before its {required!r}")
    if any(scan.found for scan in scans):
        raise UnreadableReply(f"the JSON in the reply has no {required!r}")
    raise UnreadableReply(
        f"there is no JSON in the reply: it begins {' '.join(answers[0].text[:200].split())[:60]!r}"
    )


def _notes(scan: Scan) -> list[Note]:
    notes = [Note("truncated", "the reply ends inside its JSON")] if scan.truncated else []
    if scan.repaired and not scan.truncated:
        notes.append(Note("repaired_json", "the reply is not quite JSON"))
    return notes


def _with_key(scan: Scan, required: str) -> tuple[dict[str, Any], list[Note]] | None:
    level: list[Any] = [item.value for item in scan.found]
    wanted = plain_key(required)
    for _ in range(3):
        for value in reversed(level):
            given = _all_under(wanted, value) if isinstance(value, JsonObject) else []
            if given:
                others = {key: other for key, other in value.items() if plain_key(key) != wanted}
                notes = (
                    [Note("repeated_key", f"{required!r} stands there {len(given)} times")]
                    if given[1:]
                    else []
                )
                return {**others, required: _together(given)}, notes
        level = [inner for value in level if len(value) <= 8 for inner in nested(value)]
    return None


def _all_under(wanted: str, value: JsonObject) -> list[Any]:
    """All that an object has under a key, in order: a model that goes on writing may
    begin it anew.
    """
    return [
        part[key] for part in value.parts or [value] for key in part if plain_key(key) == wanted
    ]


def _together(given: Sequence[Any]) -> Any:
    """Lists as one, each of equal ones once; of other values the last that isn't null."""
    lists = [value for value in given if isinstance(value, list)]
    if not lists:
        return next((value for value in reversed(given) if value is not None), None)
    different = {repr(value): value for value in lists}
    return [item for value in different.values() for item in value]


def _wrapped(scan: Scan, required: str) -> tuple[dict[str, Any], list[Note]] | None:
    notes = [Note("wrapped", "the items came without the object around them")]
    lists = [item.value for item in scan.found if isinstance(item.value, list)]
    for items in reversed(lists):
        if all(isinstance(item, dict) for item in items) or all(
            isinstance(item, str) for item in items
        ):
            return {required: items}, notes
    objects = [item.value for item in scan.found if isinstance(item.value, dict)]
    if objects and all("id" in item or "text" in item for item in objects):
        return {required: objects}, notes
    return None
