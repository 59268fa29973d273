"""Operator: the boxes of each expression in the image."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.coordinates import find_box_format
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import SpecError, TruncatedReply
from dataflow_grounding.images import Image, open_image
from dataflow_grounding.operators.base import Operator
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update, read_expressions
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks import Found, phrase_grounding


@OPERATOR_REGISTRY.register()
class PhraseGrounder(Operator):
    """Finds the boxes of each expression, in pixels of the upright image.

    `box_format` is the convention that the model answers in; None takes the serving's. Raises SpecError when it isn't
    known. At most `phrases_per_request` phrases are asked for at once.
    """

    name = "grounding"
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {
        "en": "Finds the boxes of each referring expression in the image, in pixels.",
        "zh": "在图像中定位每个指代表达式,输出像素坐标的边界框。",
    }

    def __init__(self, serving: Serving, *, box_format: str | None = None, phrases_per_request: int = 16) -> None:
        if phrases_per_request < 1:
            raise SpecError("phrases_per_request should be 1 or more")
        self.serving: Serving = serving
        self.box_format = find_box_format(box_format or serving.box_format, serving.model)
        self.phrases_per_request = phrases_per_request

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Fills in `instances` and `status` of every expression."""
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        phrases = [expression["text"] for expression in expressions]
        found: list[Found] = []
        for start in range(0, len(phrases), self.phrases_per_request):
            found += await self._ground(image, phrases[start : start + self.phrases_per_request], ask)
        return {
            **facts_of(record, image, ask, self.serving.model),
            self.keys.output: [_filled(e, f) for e, f in zip(expressions, found, strict=True)],
        }

    async def _ground(self, image: Image, phrases: list[str], ask: Ask) -> list[Found]:
        """One request; where its reply is cut off, two with half of the phrases each."""
        try:
            return await ask(phrase_grounding(image, phrases, self.box_format))
        except TruncatedReply:
            if len(phrases) == 1:
                raise
        half = len(phrases) // 2
        return await self._ground(image, phrases[:half], ask) + await self._ground(image, phrases[half:], ask)


def _filled(expression: dict[str, Any], found: Found) -> dict[str, Any]:
    """The expression with its instances, each with an id of its own, and its status."""
    instances = [
        {"bbox_id": f"{expression['expression_id']}.{number}", **instance}
        for number, instance in enumerate(found.instances)
    ]
    filled = {**expression, "instances": instances, "status": found.status}
    if found.reason:
        filled["reason"] = found.reason
    return filled
