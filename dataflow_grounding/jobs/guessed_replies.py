"""Replies such as a model might give, made up from the request alone: what an estimate reckons
with.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.extras.embedded.noun_phrases import extract_expressions
from dataflow_grounding.tasks import Request

_SENTENCE = "A street with parked cars and two people who cross it in front of a red brick house."

_ABOUT = {
    "type": "car",
    "color": "silver",
    "description": "the silver car parked in front of the white van",
}
_LISTS: dict[str, tuple[str, str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "region_expression": ("regions", "regions", lambda region: {"id": region["id"], **_ABOUT}),
    "grounding_expression": (
        "expressions",
        "regions",
        lambda region: {
            "text": str(region.get("description") or "the car"),
            "region_ids": [region["id"]],
        },
    ),
    "double_check": (
        "checks",
        "expressions",
        lambda expression: {**expression, "matches": True, "reason": ""},
    ),
    "region_caption": (
        "captions",
        "regions",
        lambda region: {"id": region["id"], "text": _SENTENCE},
    ),
}
"""Of tasks that are answered by a list: its name, what of the request has an item for each, and
that item.
"""


def guess_reply(request: Request[Any], box_format: BoxFormat) -> str:
    """A reply to a request of any task, about as long as a model's; where its schema says enough,
    one that fits it.
    """
    if request.task in _LISTS:
        name, asked, item_for = _LISTS[request.task]
        made: Any = {name: [item_for(one) for one in request.input[asked]]}
    elif request.task == "expression_extraction":
        made = _expressions(str(request.input["caption"]))
    elif request.task == "phrase_grounding":
        made = _objects(request, box_format)
    else:
        made = _fitting(request.schema)
    return json.dumps(made, ensure_ascii=False)


def _fitting(schema: Mapping[str, Any]) -> Any:
    """A value that a JSON schema allows."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: _fitting(value) for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [_fitting(schema.get("items", {}))]
    return {"integer": 1, "number": 1, "boolean": True, "null": None}.get(str(kind), _SENTENCE)


def _expressions(caption: str) -> Any:
    found = extract_expressions(caption)
    if not found["expressions"]:
        # another language, or no sentence: a phrase for three words, or for six characters
        words = caption.split()
        pieces = [" ".join(words[at : at + 3]) for at in range(0, len(words), 3)]
        if len(words) < len(caption) / 12:
            pieces = [caption[at : at + 6] for at in range(0, len(caption), 6)]
        found["expressions"] = [{"text": piece, "noun_chunk": piece} for piece in pieces[:8]]
    return found


def _objects(request: Request[Any], box_format: BoxFormat) -> Any:
    width, height = size = request.images[0].sent_size
    box = (width * 0.21, height * 0.32, width * 0.83, height * 0.94)
    numbers = box_format.from_pixels(box, original=size, sent=size)
    found = {box_format.key: numbers, "score": 0.92}
    return {
        "objects": [{"id": p["id"], "label": p["text"], **found} for p in request.input["phrases"]]
    }
