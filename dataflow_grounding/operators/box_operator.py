"""What the operators that ask a model for boxes, or show it regions, have in common."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import MERGE_IOU, box_of
from dataflow_grounding.boxes.regions import read_regions
from dataflow_grounding.calibration.choice import FormatChoice, choice_of
from dataflow_grounding.data.records import Record, Update, is_number
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.images.shown import marked
from dataflow_grounding.operators._nearness import ask_in_parts, near_groups
from dataflow_grounding.operators.base import Ask, Image, Operator, facts_of, open_image
from dataflow_grounding.serving.base import Serving, check_counts
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.watch.box_watch import CHECK_EVERY, BoxWatch, OnSuspect

RegionMarks: TypeAlias = Literal["none", "outline"]
Regions: TypeAlias = Sequence[dict[str, Any]]
T = TypeVar("T")


class BoxWatching(Operator):
    """Settles the format in which boxes are asked for, if any are, and watches over a run that they
    are in it.
    """

    format_choice: FormatChoice | None
    watch: BoxWatch

    def settle(self, start: RunStart) -> Counter[str]:
        return (
            self.format_choice.settle_to_ground(start, self.watch.on_poor)
            if self.format_choice
            else Counter()
        )

    def prepare(self, start: RunStart) -> Counter[str]:
        if self.serving is None or self.format_choice is None:
            return Counter()
        self.watch, asked = self.watch.begun(self.serving, self.format_choice, start)
        return asked

    def facts(self) -> dict[str, Any]:
        return self.watch.facts()

    async def conclude(self, ask: Ask) -> None:
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
            raise SpecError(
                "merge_iou should be above 0 and at most 1; without one all boxes are kept"
            )
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

    async def ground(
        self, image: Image, phrases: list[str], ask: Ask, sample: int = 0
    ) -> list[Found]:
        """What is found for each phrase, in one request; if its reply is cut off, in two with half
        the phrases each.
        """

        async def once(some: list[str]) -> list[Found]:
            request = phrase_grounding(image, some, self.box_format, self.merge_iou).put_so(
                sample=sample
            )
            return await self.watch.ask(ask, request, image, some)

        return [found for _, answer in await ask_in_parts(phrases, once) for found in answer]


def numbered(
    expression: dict[str, Any], instances: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The instances, each with an id of its own."""
    own = expression["expression_id"]
    return [{"bbox_id": f"{own}.{number}", **instance} for number, instance in enumerate(instances)]


class RegionOperator(Operator):
    """Shows at most `regions_per_request` regions at once (None: as many as the serving takes),
    near ones together.

    Args:
        serving: The model that is asked.
        box_format: The convention in which it is told boxes; None takes the serving's.
        regions_per_request: Most regions shown at once; None takes the serving's.
        marks: `outline` draws and numbers the boxes in the picture that is sent, `none` doesn't.

    Raises:
        SpecError: A setting is wrong.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        regions_per_request: int | None = None,
        marks: RegionMarks = "none",
    ) -> None:
        if marks not in ("none", "outline"):
            raise SpecError(f"marks {marks!r} is neither none nor outline")
        check_counts(regions_per_request=1 if regions_per_request is None else regions_per_request)
        self.serving: Serving = serving
        self.format_choice = choice_of(serving, box_format)
        self.regions_per_request = regions_per_request or serving.regions_per_request
        self.marks = marks

    def asks(self, record: Record) -> bool:
        return bool(read_regions(record, self.keys.regions))

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds what `described` returns, and the image's size. Raises RecordError."""
        regions = read_regions(record, self.keys.regions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        found = await self.described(record, image, regions, ask)
        facts = facts_of(record, image, ask, self.serving)
        return (
            Partial(facts | found.update, found.error)
            if isinstance(found, Partial)
            else facts | found
        )

    @abstractmethod
    async def described(
        self, record: Record, image: Image, regions: list[dict[str, Any]], ask: Ask
    ) -> Update | Partial:
        """The columns to add to a record with these regions."""

    def settle(self, start: RunStart) -> Counter[str]:
        return self.format_choice.settle(start)

    def shown(self, image: Image, regions: Sequence[Mapping[str, Any]]) -> Image:
        """The picture to send with these regions."""
        return (
            marked(image, [box_of(region["bbox"]) for region in regions])
            if self.marks == "outline"
            else image
        )

    async def ask_about(
        self,
        image: Image,
        regions: Regions,
        request: Callable[[Image, Regions, BoxFormat], Request[T]],
        ask: Ask,
    ) -> list[tuple[list[int], T]]:
        """All regions in one `request` for each few that are near each other: their places, and
        what the reply says.
        """
        boxes = [box_of(region["bbox"]) for region in regions]

        async def once(places: list[int]) -> T:
            near = [regions[place] for place in places]
            return await ask(request(self.shown(image, near), near, self.format_choice.format))

        groups = near_groups(boxes, self.regions_per_request)
        return [
            part for group in groups for part in await ask_in_parts(group, once, boxes.__getitem__)
        ]
