"""The road that a reply takes: text → answer → form → boxes as written → boxes in pixels.

A reply in exactly the form that was asked for takes the short way.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from numbers import Real

from dataflow_grounding._util.errors import (
    SpecError,
    TruncatedReply,
    UnreadableReply,
)
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import REMARK
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.forms import parse_any, parse_lines
from dataflow_grounding.replies.json_text import (
    CutArray,
    JsonText,
    RepeatedKeys,
    find_json,
    plain_key,
    strict_json,
)
from dataflow_grounding.replies.reading import (
    EVIDENCE,
    LARGEST,
    Note,
    ParsedReply,
    RawBox,
    Reading,
    key_remark,
)
from dataflow_grounding.replies.refusals import is_refusal, refusal_of, saw_no_picture
from dataflow_grounding.replies.text import answer_of, enclosed

_LEVELS = 3  # on which an object with the required key is looked for, the outermost included
_MOST_INNER = 8  # items of an array in which it may be
# Where an object, or a list of objects or texts, begins. In a task other than grounding, a list of
# numbers is no answer: "region 1 (2 cars) at [100, 120, 300, 420]".
_OPENS = lazy_pattern(r"(?:[\[［]\s{0,9}){0,9}[{｛]|(?:[\[［]\s{0,9}){1,9}[\"'“\]］]")
# Braces, a bracket that is alone, or a comma at the beginning: a piece of a further answer.
_PIECE = lazy_pattern(r"[{}｛｝]|\[[^\]]*\Z|\A[^\[]*\]|\A\s*,\s*[\W\d]")
_KEYS_AS_ASKED = ("id", "label", "score", "evidence")  # and the box's


def read_boxes(
    reply: str | None,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
    list_key: str = "",
) -> Reading:
    """Read the boxes in a model's reply that is in a known form; refuse any other.

    The forms are on docs/replies.md: JSON, a model family's own tokens, and one short sentence that
    says nothing is there.

    Args:
        reply: The reply's text. None, as OpenAI's client has it for a message without text, says
            nothing.
        format: The box format that the reply was asked for, or its name, such as `xyxy_1000` or
            `qwen3-vl`.
        image_size: Width and height of the upright image in pixels.
        sent_size: Width and height of the picture as sent, if it was resized.
        phrases: The request's phrases, by id or in order from 1, or its only one. Every box then
            belongs to one of them or is dropped with a note; without phrases, all boxes are kept.
        list_key: The key of the list in the reply's object, if your prompt asks for one that isn't
            on docs/replies.md, such as `cards`.

    Returns:
        The boxes in pixels of the upright image, inside it, and notes on what was done to read
        them. No boxes means that the reply says nothing is there.

    Raises:
        UnreadableReply: The reply is in no known form, or nothing in it can be used; the message
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
    if isinstance(phrases, str):  # else its letters would be the phrases
        phrases = [phrases]
    if isinstance(phrases, Mapping):
        phrase_by_id = dict(phrases)
    else:
        phrase_by_id = dict(enumerate(phrases, start=1))
    parsed = parse_reply(reply or "", box_format, phrase_by_id, list_key=list_key)
    return to_reading(parsed, box_format, image_size, sent_size, phrase_by_id)


def parse_reply(
    reply: str,
    asked: BoxFormat,
    phrases: Mapping[int, str],
    *,
    in_lines: bool = False,
    list_key: str = "",
) -> ParsedReply:
    """Parse a reply, which may have a box on each line where `in_lines` (`vlm.asking: lines`).

    `list_key` is the caller's own key of the list. A second call for the same reply returns the
    same object: don't change it.
    """
    # A model that is asked for lines may still write JSON, which has no such line.
    parsed = parse_lines(reply, phrases, asked.key) if in_lines else None
    if parsed is not None:
        return parsed
    hashable_phrases = tuple(phrases.items())  # which `_parse`, an `lru_cache`, needs
    return _parse(reply, hashable_phrases, asked.key, list_key)


@lru_cache(maxsize=1)  # the watch over a run's boxes parses a reply right before it is read
def _parse(
    reply: str, phrases: tuple[tuple[int, str], ...], box_key: str, list_key: str
) -> ParsedReply:
    value = strict_json(reply)
    boxes = _boxes_as_asked(value, box_key)
    if boxes and isinstance(value, dict):  # most replies end here, and are read fast
        return ParsedReply(boxes, not_found=value.get("not_found", []))
    return parse_any(reply, value, dict(phrases), box_key, list_key)


def _boxes_as_asked(value: object, box_key: str) -> list[RawBox]:
    """The boxes of a reply in exactly the form that was asked for; none of any other."""
    if not isinstance(value, dict) or isinstance(value, RepeatedKeys):
        return []
    objects = value.get("objects")
    not_found = value.get("not_found", [])
    if not isinstance(objects, list) or not isinstance(not_found, list):
        return []
    has_other_keys = not value.keys() <= {"objects", "not_found"}
    if has_other_keys or any(type(phrase_id) is not int for phrase_id in not_found):
        return []
    boxes: list[RawBox] = []
    for item in objects:
        box = _box_as_asked(item, box_key)
        if box is None:
            return []
        boxes.append(box)
    return boxes


def _box_as_asked(item: object, box_key: str) -> RawBox | None:
    """Read {"id": 1, "label": "a cat", "bbox_2d": [100, 200, 500, 800], "score": 0.9}."""
    if type(item) is not dict:  # RepeatedKeys is a dict, too
        return None
    numbers = item.get(box_key)
    label = item.get("label")
    phrase_id = item.get("id")
    if type(numbers) is not list or len(numbers) != 4 or type(label) is not str:
        return None
    if type(phrase_id) is not int or not item.keys() <= {box_key, *_KEYS_AS_ASKED}:
        return None
    for coordinate in numbers:
        # a bool is no coordinate; neither is NaN, which JSON doesn't have
        kind = type(coordinate)
        if (kind is not int and kind is not float) or not -LARGEST <= coordinate <= LARGEST:
            return None
    evidence = item.get("evidence")
    if evidence not in EVIDENCE or not label.strip():
        return None
    return RawBox(tuple(numbers), label.strip(), phrase_id, item.get("score"), evidence)


def _checked_size(name: str, size: object) -> Size:
    if isinstance(size, Sequence) and len(size) == 2:
        width, height = size
        are_numbers = isinstance(width, Real) and isinstance(height, Real)
        if are_numbers and 0 < width < math.inf and 0 < height < math.inf:
            return width, height
    raise SpecError(f"{name} should be width and height in pixels, not {size!r}")


def read_object(
    reply: str, *, required: str, schema: Mapping[str, object] | None = None
) -> tuple[dict[str, object], list[Note]]:
    """Read the JSON object that a task other than grounding asked for.

    It tolerates the syntax that `read_boxes` does.

    Args:
        reply: The reply's text.
        required: The key that the object must have, in any case and punctuation. An object within
            another or in a list is found too. A bare list, or items without their list, become
            `{required: [...]}`.
        schema: The JSON schema that was asked for. Keys that it doesn't have are noted as a remark.

    Returns:
        The object, and notes whose codes are truncated, repaired_json, wrapped or remark. A remark
        has the words and keys that are no part of the answer, at most 200 characters.

    Raises:
        UnreadableReply: No object has the key, several have it, or one has a key twice, with other
            values. Or the reply begins by saying that no picture came.
        TruncatedReply: The reply is cut off before one could.

    Example:
        >>> read_object("{'caption': 'A cat.'}", required="caption")
        ({'caption': 'A cat.'}, [Note(code='repaired_json', text='the reply is not quite JSON')])
    """
    found, words = _json_of_answer(reply)
    notes: list[Note] = []
    if found.truncated:
        notes.append(Note("truncated", "the reply ends inside its JSON"))
    elif found.repaired:
        notes.append(Note("repaired_json", "the reply is not quite JSON"))
    fields = _object_with_key(found.values, required)
    if fields is None:
        items = _items_alone(found.values)  # those that should be under the key
        if items is not None:
            notes.append(Note("wrapped", "the items came without the object around them"))
            fields = {required: items}
    if fields is not None:
        remark = joined_remarks([*words, *_unasked_keys(fields, schema or {})])
        if remark:
            notes.append(Note(REMARK, remark))
        return fields, notes
    if found.truncated:
        raise TruncatedReply(f"the reply is cut off before its {required!r}", "cut off")
    raise UnreadableReply(f"the JSON in the reply has no {required!r}", "no answer")


def _json_of_answer(reply: str) -> tuple[JsonText, list[str]]:
    """The JSON, and the words next to it."""
    value = strict_json(reply)
    if value is not None:  # all of the reply is JSON
        _refuse_repeated_keys(value)
        return JsonText([value], 0, len(reply)), []
    answer = enclosed(answer_of(reply))
    opening = _OPENS.search(answer.text)
    start = opening.start() if opening is not None else 0
    found = find_json(answer.text[start:])
    before = answer.before + answer.text[: start + found.start]
    if not found.values or saw_no_picture(before):
        if is_refusal(answer.text) or is_refusal(before):
            raise refusal_of(reply)
        begins = " ".join(reply[:200].split())[:60]
        raise UnreadableReply(f"there is no JSON in the reply: it begins {begins!r}", "no answer")
    words = [before, answer.text[start + found.end :], *found.comments, answer.after]
    for text in words:
        further = _PIECE.search(text)
        if further is not None:
            raise UnreadableReply(
                f"there is a further answer next to the first: {further[0]!r:.40}",
                "several answers",
            )
    _refuse_repeated_keys(found.values)
    return found, words


def _unasked_keys(value: object, schema: object) -> Iterator[str]:
    """The keys of objects that their schema doesn't have, as remarks."""
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, list):
        for item in value:
            yield from _unasked_keys(item, schema.get("items", {}))
    elif isinstance(value, dict) and "properties" in schema:
        schema_of_key = {plain_key(key): part for key, part in schema["properties"].items()}
        for key, inner in value.items():
            schema_of_value = schema_of_key.get(plain_key(key))
            if schema_of_value is not None:
                yield from _unasked_keys(inner, schema_of_value)
            elif inner not in (None, "", [], {}):
                yield key_remark(key, inner)


def _refuse_repeated_keys(value: object) -> None:
    """Refuse {"matches": true, "matches": false}: it isn't known which one is meant."""
    pairs = value.pairs if isinstance(value, RepeatedKeys) else []
    value_of_key = dict(pairs)
    for key, first in pairs:
        if first != value_of_key[key]:
            raise _repeated(key)
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_repeated_keys(inner)


def _repeated(key: str) -> UnreadableReply:
    return UnreadableReply(f"an object has {key[:40]!r} twice, with other values", "unknown JSON")


def _object_with_key(values: Sequence[object], required: str) -> dict[str, object] | None:
    """Of objects within each other, the outermost that has the key, written as it was asked for."""
    plain_required = plain_key(required)
    level = list(values)
    for _ in range(_LEVELS):
        objects = [value for value in level if isinstance(value, dict)]
        with_key = [fields for fields in objects if plain_required in map(plain_key, fields)]
        if len(with_key) > 1:
            raise UnreadableReply(f"several objects have {required!r}", "several answers")
        if with_key:
            renamed: dict[str, object] = {}
            for key, value in with_key[0].items():  # {"Caption": "A cat."}
                key = required if plain_key(key) == plain_required else key
                if renamed.setdefault(key, value) != value:
                    raise _repeated(key)
            return renamed
        # An object with a single key wraps its value. With several keys it isn't known which one
        # has the answer.
        lists = [value for value in level if isinstance(value, list) and len(value) <= _MOST_INNER]
        lists += [[*fields.values()] for fields in objects if len(fields) == 1]
        level = [item for items in lists for item in items]
    return None


def _items_alone(values: Sequence[object]) -> list[object] | None:
    """Items without the object around them; None where the values are something else."""
    first = values[0]
    if len(values) == 1 and isinstance(first, list):  # [{"text": "a cat"}] and ["a cat"]
        if isinstance(first, CutArray) and not first:
            return None  # the reply is cut off before the first item
        are_items = all(isinstance(item, (dict, str)) for item in first)
        return first if are_items else None
    for value in values:  # {"id": 1, …} {"id": 2, …}
        is_item = isinstance(value, dict) and ("id" in value or "text" in value)
        if not is_item:
            return None
    return list(values)
