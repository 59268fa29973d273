"""Servings in the process: one gives the texts that it is made with, one boxes for each word."""

from __future__ import annotations

import json
from typing import Any

from dataflow_grounding import Serving
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Request


class Answering(Serving):
    """Gives its texts in turn, again and again, and keeps what was asked; boxes are in pixels
    unless another format is named.
    """

    model = "answering"
    takes_probes = False

    def __init__(self, *texts: str | Reply, box_format: str = "xyxy_px") -> None:
        self.texts = texts
        self.box_format = box_format
        self.requests: list[Request[Any]] = []

    @property
    def given(self) -> int:
        """How many texts it has given."""
        return len(self.requests)

    async def answer(self, request: Request[Any]) -> Reply | str:
        self.requests.append(request)
        return self.texts[(self.given - 1) % len(self.texts)]


class EveryWord(Serving):
    """Each word of a caption is an expression with one box; it refuses to read captions and phrases
    with "bad" in them.
    """

    model = "words"
    box_format = "xyxy_px"
    takes_probes = False

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self, request: Request[Any]) -> str:
        self.asked += 1
        if request.task == "expression_extraction":
            caption = request.input["caption"]
            if "bad caption" in caption:
                return "?"
            expressions = [{"text": word, "noun_chunk": word} for word in caption.split()]
            return json.dumps({"cleaned_caption": caption, "expressions": expressions})
        phrases = request.input["phrases"]
        if any("bad" in phrase["text"] for phrase in phrases):
            return "?"
        objects = [{"id": p["id"], "label": p["text"], "bbox_2d": [1, 2, 9, 8]} for p in phrases]
        return json.dumps({"objects": objects})
