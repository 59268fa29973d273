"""An operator that asks one question, whose reply a test's own function reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dataflow_grounding import Operator, Serving
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import open_image
from dataflow_grounding.tasks import Request


class Question(Operator):
    """A user's first operator: it asks the row's `question`, as a request of the row's `task`."""

    name = "mine"
    input_keys: ClassVar = {"image": "image_path"}
    output_keys: ClassVar = {"x": "x"}

    def __init__(self, serving: Serving, read: Callable[[str], Any]) -> None:
        self.serving: Serving = serving
        self.read = read

    async def annotate(self, record: Record, ask: Ask) -> Update:
        image = open_image(record, self.keys.image, self.serving.image_limits)
        task = record.get("task", "mine")
        words = record.get("question", "Say x.")
        request: Request[Any] = Request(task, {}, (image,), words, {"type": "object"}, self.read)
        return {self.keys.x: await ask(request)}
