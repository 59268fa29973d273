"""Replies such as a model might give, made up from the request: what an estimate reckons with.

Only their length counts, and that they can be read, so that the next step has something to ask.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.negatives import CHANGES, MOST_CHARACTERS

_MOST_PIECES = 8  # that stand for the phrases of a caption in which none can be told
_WORDS_OF_PIECE = 3
_CHARACTERS_OF_PIECE = 6  # where words aren't parted by blanks
# a text of usual length, where the reply is to have some text
_SENTENCE = "A street with parked cars and two people who cross it in front of a red brick house."

# what a reply says of each region
_ABOUT = {
    "type": "car",
    "color": "silver",
    "description": "the silver car parked in front of the white van",
}


class _List(NamedTuple):
    """A reply that is a list with an item for each item of a list in the request's input.

    Attributes:
        name: The key of the reply's list.
        input_name: The key of the request's.
        item_for: Makes an item of the reply from one of the request.
    """

    name: str
    input_name: str
    item_for: Callable[[dict[str, Any]], dict[str, Any]]


_LISTS = {
    "region_expression": _List("regions", "regions", lambda region: {"id": region["id"], **_ABOUT}),
    "grounding_expression": _List(
        "expressions",
        "regions",
        lambda region: {
            "text": str(region.get("description") or "the car"),
            "region_ids": [region["id"]],
        },
    ),
    "double_check": _List(
        "checks",
        "expressions",
        lambda expression: {**expression, "matches": True, "reason": ""},
    ),
    "crop_check": _List(
        "crops",
        "crops",
        lambda crop: {"id": crop["id"], "answer": "yes"},
    ),
    "region_caption": _List(
        "captions",
        "regions",
        lambda region: {"id": region["id"], "text": _SENTENCE},
    ),
}
"""The tasks that are answered by a list."""


def guess_reply(request: Request[Any], box_format: BoxFormat) -> str:
    """Return a reply to a request of any task, about as long as a model's.

    It is a JSON text. A task that isn't known here is answered by the request's schema.

    Args:
        request: The request.
        box_format: How the reply writes boxes.
    """
    if request.task in _LISTS:
        listing = _LISTS[request.task]
        items = [listing.item_for(item) for item in request.input[listing.input_name]]
        reply: Any = {listing.name: items}
    elif request.task == "expression_extraction":
        reply = _expressions(str(request.input["caption"]))
    elif request.task == "box_check":
        reply = _all_right(request)
    elif request.task == "negative_phrases":
        reply = _negatives(request)
    elif request.task in ("phrase_grounding", "missing_boxes"):
        reply = _objects(request, request.input["phrases"], box_format)
    elif request.task == "caption_grounding":
        reply = _expressions(str(request.input["caption"]))
        phrases = []
        for number, expression in enumerate(reply["expressions"], 1):
            phrases.append({"id": number, "text": expression["text"]})
        reply = {**reply, **_objects(request, phrases, box_format)}
    else:
        reply = _fitting(request.schema)
    return json.dumps(reply, ensure_ascii=False)


def _fitting(schema: Mapping[str, Any]) -> Any:
    """Return a value that a JSON schema allows: of several, the first; of a list, one item.

    For what isn't known here, it is a sentence.
    """
    if schema.get("enum"):
        return schema["enum"][0]
    json_type = schema.get("type")
    if isinstance(json_type, list) and json_type:
        json_type = json_type[0]
    if json_type == "object":
        return {name: _fitting(value) for name, value in schema.get("properties", {}).items()}
    if json_type == "array":
        return [_fitting(schema.get("items", {}))]
    examples = {"integer": 1, "number": 1, "boolean": True, "null": None}
    return examples.get(str(json_type), _SENTENCE)


def _expressions(caption: str) -> Any:
    """Return a reply with the caption's noun phrases, as an object with `expressions`.

    Where none can be told, it has pieces of the caption, one for each phrase that the caption may
    have, and _MOST_PIECES at most: what counts is the reply's length alone.
    """
    from dataflow_grounding.extras.embedded.captions import extract_expressions

    reply = extract_expressions(caption)
    if not reply["expressions"]:
        # The caption is in another language, or no sentence. Where words are longer than 12
        # characters on average, they aren't parted by blanks.
        words = caption.split()
        if len(words) < len(caption) / 12:
            starts = range(0, len(caption), _CHARACTERS_OF_PIECE)
            pieces = [caption[start : start + _CHARACTERS_OF_PIECE] for start in starts]
        else:
            starts = range(0, len(words), _WORDS_OF_PIECE)
            pieces = [" ".join(words[start : start + _WORDS_OF_PIECE]) for start in starts]
        reply["expressions"] = [
            {"text": piece, "noun_chunk": piece} for piece in pieces[:_MOST_PIECES]
        ]
    return reply


def _all_right(request: Request[Any]) -> Any:
    """Return a check that calls every box right, and each phrase's thing there if it has a box.

    Its count is that of the boxes.
    """
    boxes = request.input["boxes"]
    presences = []
    for phrase in request.input["phrases"]:
        count = len([box for box in boxes if box["text"] == phrase["text"]])
        presences.append({"id": phrase["id"], "there": count > 0, "count": count})
    verdicts = [{"id": box["id"], "verdict": "right", "reason": ""} for box in boxes]
    return {"phrases": presences, "boxes": verdicts}


def _negatives(request: Request[Any]) -> Any:
    """Return as many changed phrases as are asked for, phrases and kinds of change taking turns."""
    phrases = request.input["phrases"]
    negatives = []
    for number in range(request.input["count"]):
        phrase = phrases[number % len(phrases)]
        text = f"{phrase['text'][: MOST_CHARACTERS // 2]} no. {number + 1}"
        change = CHANGES[number % len(CHANGES)]
        negatives.append({"id": phrase["id"], "change": change, "text": text})
    return {"negatives": negatives}


def _objects(
    request: Request[Any], phrases: Sequence[Mapping[str, Any]], box_format: BoxFormat
) -> Any:
    """Return a reply with a box for each phrase, the same for all: only its length counts."""
    size = request.images[0].sent_size
    width, height = size
    # in no round numbers, which would be shorter than a model's
    box = (width * 0.21, height * 0.32, width * 0.83, height * 0.94)
    numbers = box_format.from_pixels(box, original=size, sent=size)
    objects = []
    for phrase in phrases:
        label = {"id": phrase["id"], "label": phrase["text"]}
        objects.append({**label, box_format.key: numbers, "score": 0.92})
    return {"objects": objects}
