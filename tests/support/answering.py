"""A serving in the process that gives the texts it is made with."""

from __future__ import annotations

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
