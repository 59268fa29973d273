"""Operator: the boxes of each expression in the image."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from dataflow_grounding.boxes.agreement import agreed
from dataflow_grounding.boxes.regrounding import reground
from dataflow_grounding.boxes.zoom import zoomed
from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import SpecError, TruncatedReply
from dataflow_grounding.images import Image, open_image
from dataflow_grounding.operators.base import Operator
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update, read_expressions
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks import MERGE_IOU, Found, phrase_grounding, without_duplicates
from dataflow_grounding.watch.box_watch import BoxWatch, OnSuspect
from dataflow_grounding.watch.endpoint_checks import CHECK_EVERY

EARLIER = ("reason", "disagreement", "verified", "verification")
"""What an earlier grounding may have left in an expression."""


@OPERATOR_REGISTRY.register()
class PhraseGrounder(Operator):
    """Finds the boxes of each expression, in pixels of the upright image.

    `box_format` is the convention that the model answers in; None takes the serving's. A model that `auto` doesn't know is
    calibrated before the first record. At most `phrases_per_request` phrases are asked for at once. `samples` answers are
    merged to one; `zoom` looks again for small boxes in an enlarged part of the image; `verify="reground"` asks for each
    expression with boxes once more. Boxes of one phrase that overlap at `merge_iou` or more are one; None keeps them all.
    `on_suspect_boxes` is `stop` or `warn`; `check_every` is the number of requests between two checks of the endpoint, None
    for no checks. Raises SpecError.
    """

    name = "grounding"
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {
        "en": "Finds the boxes of each referring expression in the image, in pixels.",
        "zh": "在图像中定位每个指代表达式,输出像素坐标的边界框。",
    }

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        phrases_per_request: int = 16,
        samples: int = 1,
        zoom: bool = False,
        verify: Literal["reground"] | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        if phrases_per_request < 1 or samples < 1:
            raise SpecError("phrases_per_request and samples should be 1 or more")
        if verify not in (None, "reground"):
            raise SpecError("verify should be None or 'reground'")
        if merge_iou is not None and not 0 < merge_iou <= 1:
            raise SpecError("merge_iou should be above 0 and at most 1, or null to keep all boxes")
        self.serving: Serving = serving
        self.format_choice = FormatChoice(serving, box_format)
        self.phrases_per_request = phrases_per_request
        self.samples = samples
        self.zoom = zoom
        self.verify = verify
        self.merge_iou = merge_iou
        self.watch = BoxWatch(on_suspect_boxes, check_every)

    @property
    def box_format(self) -> BoxFormat:
        """The format that boxes are asked for and read in."""
        return self.format_choice.format

    def prepare(self, start: RunStart) -> Counter[str]:
        """Calibrates a model whose box format isn't known, and begins to watch the boxes."""
        self.watch, asked = self.watch.begun(self.serving, self.format_choice, start)
        return asked

    def facts(self) -> dict[str, Any]:
        """Those of its watch."""
        return self.watch.facts()

    async def conclude(self, ask: Ask) -> None:
        """Lets the watch have its last word. Raises SuspectBoxes."""
        await self.watch.conclude(ask)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Fills in `instances` and `status` of every expression, and `disagreement`, `verified` where they are asked for."""
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        found: list[Found] = []
        for chunk in batched([expression["text"] for expression in expressions], self.phrases_per_request):
            found += await self._found(image, chunk, ask)
        filled = [_filled(e, f) for e, f in zip(expressions, found, strict=True)]
        failed = None
        if self.verify is not None:
            filled, failed = await reground(lambda phrase: self._afresh(image, phrase, ask), filled)
        update = {**facts_of(record, image, ask, self.serving), self.keys.output: filled}
        if any(f.doubtful for f in found) or "doubtful" in record:
            update["doubtful"] = any(f.doubtful for f in found)
        if failed is not None:
            failed.update = update  # the boxes are there, only their verification isn't
            raise failed
        return update

    async def _found(self, image: Image, phrases: list[str], ask: Ask) -> list[Found]:
        """The boxes of some phrases: one answer, or several merged."""
        if self.samples == 1:
            return await self._answer(image, phrases, ask, 0)
        return await agreed(lambda number: self._answer(image, phrases, ask, number), self.samples, image.size)

    async def _answer(self, image: Image, phrases: list[str], ask: Ask, sample: int) -> list[Found]:
        """The answer of this number; small boxes looked for again from closer by where that is wanted."""
        found = await self._ground(image, phrases, ask, sample)
        if not self.zoom:
            return found
        closer = await zoomed(lambda crop, phrase: self._ground(crop, phrase, ask, sample), image, phrases, found)
        once = [without_duplicates(one.instances, self.merge_iou) for one in closer]
        for _ in range(sum(len(one.instances) for one in closer) - sum(map(len, once))):
            ask.note("merged: small boxes that are nearly the same from closer by")
        return [replace(one, instances=instances) for one, instances in zip(closer, once, strict=True)]

    async def _afresh(self, image: Image, phrase: str, ask: Ask) -> Found:
        """One phrase alone; numbered as a further answer, so that it is another one where the phrase was alone before."""
        [found] = await self._answer(image, [phrase], ask, self.samples)
        return found

    async def _ground(self, image: Image, phrases: list[str], ask: Ask, sample: int = 0) -> list[Found]:
        """One request; where its reply is cut off, two with half of the phrases each."""
        request = replace(phrase_grounding(image, phrases, self.box_format, self.merge_iou), sample=sample)
        try:
            return await self.watch.ask(ask, request, image, phrases)
        except TruncatedReply:
            if len(phrases) == 1:
                raise
        half = len(phrases) // 2
        first = await self._ground(image, phrases[:half], ask, sample)
        return first + await self._ground(image, phrases[half:], ask, sample)


def batched(phrases: list[str], size: int) -> list[list[str]]:
    """The phrases in lists of at most `size`."""
    return [phrases[start : start + size] for start in range(0, len(phrases), size)]


def _filled(expression: dict[str, Any], found: Found) -> dict[str, Any]:
    """The expression with its instances, each with an id of its own, and its status."""
    instances = [
        {"bbox_id": f"{expression['expression_id']}.{number}", **instance}
        for number, instance in enumerate(found.instances)
    ]
    earlier = {name: value for name, value in expression.items() if name not in EARLIER}
    filled = {**earlier, "instances": instances, "status": found.status}
    if found.disagreement is not None:
        filled["disagreement"] = found.disagreement
    return {**filled, "reason": found.reason} if found.reason else filled
