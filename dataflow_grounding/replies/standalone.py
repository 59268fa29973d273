"""A reply read by itself, for whoever keeps a loop of their own: boxes or an object out of it."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from dataflow_grounding._util.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.replies.json_text import find_json, strict_json
from dataflow_grounding.replies.json_values import JsonObject, Scan, nested_values
from dataflow_grounding.replies.reading import Note, Reading
from dataflow_grounding.replies.vocabulary import plain_key

_LEVELS = 3  # on which an object with the required key is looked for, the outermost included
_MOST_INNER = 8  # items of an array or object in which it may be


def read_boxes(
    reply: str | None,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
) -> Reading:
    """Read the boxes in a model's reply, whatever shape it has.

    Args:
        reply: The reply's text: JSON of any shape, a model family's tokens, a table, or prose with
            numbers. None, as OpenAI's client has it for a message without text, says nothing.
        format: The box format that the reply was asked for, or its name, such as `xyxy_1000` or
            `qwen3-vl`.
        image_size: Width and height of the upright image in pixels.
        sent_size: Width and height of the picture as sent, if it was resized.
        phrases: The request's phrases, by id or in order from 1, or its only one. Every box then
            belongs to one of them or is dropped with a note; without phrases, all boxes are kept.

    Returns:
        The boxes in pixels of the upright image, inside it, and notes on what was done to read
        them. No boxes means that the reply says nothing is there.

    Raises:
        UnreadableReply: There is nothing to read, or nothing that was read can be used; the message
            says why.
        TruncatedReply: The reply is cut off before its first complete box.
        SpecError: The format is unknown, a size isn't two numbers above 0, or a format that
            `calibrate` measured doesn't hold for pictures of the size that was sent.

    Example:
        >>> reply = '[{"label": "cat", "bbox_2d": [100, 200, 500, 800]}]'
        >>> size = (640, 480)
        >>> reading = read_boxes(reply, format="xyxy_1000", image_size=size, phrases=["a cat"])
        >>> [(box.id, box.bbox) for box in reading.boxes]
        [(1, (64.0, 96.0, 320.0, 384.0))]
    """
    box_format = format
    if not isinstance(box_format, BoxFormat):
        box_format = find_box_format(str(format), "")
    image_size = _checked_size("image_size", image_size)
    sent_size = _checked_size("sent_size", sent_size or image_size)
    _check_sizes(box_format, sent_size)
    parsed = parse_reply(reply or "", box_format.key)
    if isinstance(phrases, str):  # else its letters would be the phrases
        phrases = [phrases]
    by_id = phrases if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    return to_reading(parsed, box_format, image_size, sent_size, dict(by_id))


def _check_sizes(box_format: BoxFormat, sent_size: Size) -> None:
    """Raise SpecError where a calibrated format doesn't hold for pictures of the size sent.

    The numbers mean other pixels there: boxes would be wrong without a word.
    """
    sizes = getattr(box_format, "sizes", None)  # of a CalibratedFormat
    if sizes is None or sizes.keeps(sent_size):
        return
    width, height = sent_size
    raise SpecError(
        f"how boxes are written was measured for other sizes than {width:g} x {height:g} px: send"
        " each picture on white of `padded = format.sizes.padded(size)`, in"
        " `sent = format.sizes.sent(size)`, and read with image_size=padded, sent_size=sent"
    )


def _checked_size(name: str, size: Any) -> Size:
    """Return a size as a tuple, as a caller may have it from JSON as a list.

    Raises SpecError, with the argument's `name`, where it isn't two numbers above 0: else the reply
    would be blamed, and a loop would ask, and pay, again.
    """
    sides = tuple(size) if isinstance(size, Sequence) else ()
    are_numbers = all(isinstance(side, Real) for side in sides)
    if len(sides) != 2 or not are_numbers or not all(0 < side < math.inf for side in sides):
        raise SpecError(f"{name} should be width and height in pixels, not {size!r}")
    width, height = sides
    return width, height


def read_object(reply: str, *, required: str) -> tuple[dict[str, Any], list[Note]]:
    """Read the JSON object that a task other than grounding asked for.

    It tolerates what `read_boxes` tolerates.

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
    scans = _scans_of(reply)
    for find in (_find_with_key, _find_items):
        for scan in scans:
            match = find(scan, required)
            if match is not None:
                value, notes = match
                return value, _notes_on_scan(scan) + notes
    if any(scan.truncated for scan in scans):
        raise TruncatedReply(f"the reply is cut off before its {required!r}")
    if any(scan.items for scan in scans):
        raise UnreadableReply(f"the JSON in the reply has no {required!r}")
    raise UnreadableReply(f"there is no JSON in the reply: it begins {_beginning_of(reply)!r}")


def _scans_of(reply: str) -> list[Scan]:
    """Return the JSON in each answer of a reply and in its fences, the last one first.

    Of an answer, the fences come before all of its text, which holds them too.

    Raises:
        UnreadableReply: There is no answer.
    """
    if reply.strip() and strict_json(reply) is not None:  # as most are
        return [find_json(reply)]
    # here, with all that there may be around JSON
    from dataflow_grounding.replies.answer_text import answers_of

    scans: list[Scan] = []
    for answer in reversed(answers_of(reply)):
        for block in reversed(answer.blocks):
            scans.append(find_json(block))
        scans.append(find_json(answer.text))
    return scans


def _beginning_of(reply: str) -> str:
    """Return the first 60 characters of a reply's last answer, on one line."""
    from dataflow_grounding.replies.answer_text import answers_of

    return " ".join(answers_of(reply)[-1].text[:200].split())[:60]


def _notes_on_scan(scan: Scan) -> list[Note]:
    """Return a note on what had to be done to read a text's JSON, if anything."""
    if scan.truncated:
        return [Note("truncated", "the reply ends inside its JSON")]
    if scan.repaired:
        return [Note("repaired_json", "the reply is not quite JSON")]
    return []


def _find_with_key(scan: Scan, required: str) -> tuple[dict[str, Any], list[Note]] | None:
    """Return the last object that has a key, and notes; None where there is none.

    Outermost values are looked at first, then those in them, three levels deep. Those in an array
    or object of more than `_MOST_INNER` items aren't looked at.
    """
    level: list[Any] = [item.value for item in scan.items]
    for _ in range(_LEVELS):
        for value in reversed(level):
            match = _object_with_key(value, required)
            if match is not None:
                return match
        inner: list[Any] = []
        for value in level:
            if len(value) <= _MOST_INNER:
                inner += nested_values(value)
        level = inner
    return None


def _object_with_key(value: Any, required: str) -> tuple[dict[str, Any], list[Note]] | None:
    """Return a copy of an object that has a key, and notes; None for any other value.

    The key may differ in case and punctuation; in the copy it is `required`. What stands under a
    key more than once is joined there; for the required one that is noted.
    """
    if not isinstance(value, JsonObject):
        return None
    wanted = plain_key(required)
    values: list[Any] = []
    others: dict[str, list[Any]] = {}
    # An object has parts where a key is repeated: a model that goes on writing begins keys anew.
    for part in value.parts or [value]:
        for key, item in part.items():
            if plain_key(key) == wanted:
                values.append(item)
            else:
                others.setdefault(key, []).append(item)
    if not values:
        return None
    fields = {key: _join_lists(items) for key, items in others.items()}
    fields[required] = _join_lists(values)
    if len(values) == 1:
        return fields, []
    return fields, [Note("repeated_key", f"{required!r} stands there {len(values)} times")]


def _join_lists(values: Sequence[Any]) -> Any:
    """Return one value for several under the same key.

    If there are lists, it is all of them joined, equal ones once; else the last that isn't null, or
    None.
    """
    lists = [value for value in values if isinstance(value, list)]
    if not lists:
        for value in reversed(values):
            if value is not None:
                return value
        return None
    list_by_text = {repr(value): value for value in lists}  # equal lists have the same text
    joined: list[Any] = []
    for value in list_by_text.values():
        joined += value
    return joined


def _find_items(scan: Scan, required: str) -> tuple[dict[str, Any], list[Note]] | None:
    """Return items that came without the object around them, as `{required: items}`, and a note.

    They are the last outermost list of objects or of texts, or else all outermost objects if each
    has an id or a text. None where there is neither.
    """
    notes = [Note("wrapped", "the items came without the object around them")]
    values = [item.value for item in scan.items]
    for value in reversed(values):
        if isinstance(value, list) and _are_items(value):
            return {required: value}, notes
    objects = [value for value in values if isinstance(value, dict)]
    if objects and all("id" in item or "text" in item for item in objects):
        return {required: objects}, notes
    return None


def _are_items(items: list[Any]) -> bool:
    """Whether a list has only objects, or only texts; so it is for an empty one."""
    return all(isinstance(item, dict) for item in items) or all(
        isinstance(item, str) for item in items
    )
