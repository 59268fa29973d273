"""What the operators that ask a model for boxes have in common."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.boxes.nearness import ask_in_parts
from dataflow_grounding.calibration.choice import FormatChoice, choice_of
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import SpecError
from dataflow_grounding.geometry import MERGE_IOU
from dataflow_grounding.images import Image
from dataflow_grounding.operators.base import Operator
from dataflow_grounding.records import is_number
from dataflow_grounding.serving.base import Serving, check_counts
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.watch.box_watch import CHECK_EVERY, BoxWatch, OnSuspect


class BoxWatching(Operator):
    """Settles the format in which boxes are asked for, if any are, and watches over a run that they are in it."""

    format_choice: FormatChoice | None
    watch: BoxWatch

    def settle(self, start: RunStart) -> Counter[str]:
        """Calibrates a model whose box format isn't known. Raises as `FormatChoice.settle`."""
        return self.format_choice.settle_to_ground(start, self.watch.on_poor) if self.format_choice else Counter()

    def prepare(self, start: RunStart) -> Counter[str]:
        """Settles the format, and begins to watch the boxes."""
        if self.serving is None or self.format_choice is None:
            return Counter()
        self.watch, asked = self.watch.begun(self.serving, self.format_choice, start)
        return asked

    def facts(self) -> dict[str, Any]:
        """Those of its watch."""
        return self.watch.facts()

    async def conclude(self, ask: Ask) -> None:
        """Lets the watch have its last word. Raises SuspectBoxes."""
        await self.watch.conclude(ask)


class BoxOperator(BoxWatching):
    """Asks for the boxes of expressions, in the format of the serving's model."""

    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}

    def __init__(
        self,
        serving: Serving,
        *,
        samples: int = 1,
        box_format: str | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        if merge_iou is not None and not (is_number(merge_iou) and 0 < merge_iou <= 1):
            raise SpecError("merge_iou should be above 0 and at most 1; without one all boxes are kept")
        check_counts(samples=samples)
        self.serving: Serving = serving
        self.samples = samples
        self.format_choice: FormatChoice = choice_of(serving, box_format)
        self.merge_iou = merge_iou
        self.watch = BoxWatch(on_suspect_boxes, check_every)

    @property
    def box_format(self) -> BoxFormat:
        """The format that boxes are asked for and read in."""
        return self.format_choice.format

    async def ground(self, image: Image, phrases: list[str], ask: Ask, sample: int = 0) -> list[Found]:
        """What is found for each phrase, in one request; if its reply is cut off, in two with half the phrases each."""

        async def once(some: list[str]) -> list[Found]:
            request = replace(phrase_grounding(image, some, self.box_format, self.merge_iou), sample=sample)
            return await self.watch.ask(ask, request, image, some)

        return [found for _, answer in await ask_in_parts(phrases, once) for found in answer]


def numbered(expression: dict[str, Any], instances: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The instances, each with an id of its own."""
    own = expression["expression_id"]
    return [{"bbox_id": f"{own}.{number}", **instance} for number, instance in enumerate(instances)]
