"""A serving in the process that gives the texts it is made with."""

from __future__ import annotations

from typing import Any

from dataflow_grounding import Serving
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Request


class Answering(Serving):
    """Gives its texts in turn, again and again; boxes are in pixels."""

    model = "answering"
    box_format = "xyxy_px"
    takes_probes = False

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.given = 0

    async def answer(self, request: Request[Any]) -> Reply:
        self.given += 1
        return Reply(self.texts[(self.given - 1) % len(self.texts)])
