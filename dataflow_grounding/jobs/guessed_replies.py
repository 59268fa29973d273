"""Replies such as a model might give, made up from the request alone: what an estimate reckons with."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.embedded.captions import extract_expressions
from dataflow_grounding.tasks import Request

_SENTENCE = "A street with parked cars and two people who cross it in front of a red brick house."


def guess_reply(request: Request[Any], box_format: BoxFormat) -> str:
    """A reply to a request of any task, about as long as a model's; where its schema says enough, one that fits it."""
    make = _GUESSES.get(request.task)
    return json.dumps(make(request, box_format) if make else _fitting(request.schema), ensure_ascii=False)


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


def _expressions(request: Request[Any], box_format: BoxFormat) -> Any:
    caption = str(request.input["caption"])
    found = extract_expressions(caption)
    if not found["expressions"]:  # another language, or no sentence: a phrase for three words, or for six characters
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
    return {"objects": [{"id": p["id"], "label": p["text"], **found} for p in request.input["phrases"]]}


def _regions(request: Request[Any], box_format: BoxFormat) -> Any:
    about = {"type": "car", "color": "silver", "description": "the silver car parked in front of the white van"}
    return {"regions": [{"id": region["id"], **about} for region in request.input["regions"]]}


def _merged(request: Request[Any], box_format: BoxFormat) -> Any:
    texts = {region["id"]: str(region.get("description") or "the car") for region in request.input["regions"]}
    return {"expressions": [{"text": text, "region_ids": [own]} for own, text in texts.items()]}


def _checks(request: Request[Any], box_format: BoxFormat) -> Any:
    return {"checks": [{**expression, "matches": True, "reason": ""} for expression in request.input["expressions"]]}


def _captions(request: Request[Any], box_format: BoxFormat) -> Any:
    return {"captions": [{"id": region["id"], "text": _SENTENCE} for region in request.input["regions"]]}


_GUESSES: dict[str, Callable[[Request[Any], BoxFormat], Any]] = {
    "expression_extraction": _expressions,
    "phrase_grounding": _objects,
    "region_expression": _regions,
    "grounding_expression": _merged,
    "double_check": _checks,
    "region_caption": _captions,
}
