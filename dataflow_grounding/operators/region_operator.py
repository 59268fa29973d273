"""What the operators that show a model regions have in common."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypeVar

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.expressions import Region, read_regions
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.images.shown import marked
from dataflow_grounding.operators._expressions import boxes_of
from dataflow_grounding.operators._nearness import ask_in_parts, near_groups
from dataflow_grounding.operators.operator_base import Ask, Image, Operator, open_image
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.choice import FormatChoice, choice_of

RegionMarks: TypeAlias = Literal["none", "outline"]
"""Whether the boxes of regions are drawn, as RegionOperator's `marks` says."""
T = TypeVar("T")


class RegionOperator(Operator):
    """Shows a model regions, near ones together, at most `regions_per_request` at once.

    Args:
        serving: The model that is asked.
        box_format: How boxes are written for the model; None takes the serving's format.
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
        if regions_per_request is not None:
            check_counts(regions_per_request=regions_per_request)
        self.serving: Serving = self.checked_serving(serving)
        self.format_choice: FormatChoice = choice_of(serving, box_format)
        self.regions_per_request = regions_per_request or serving.regions_per_request
        self.marks = marks

    def asks(self, record: Record) -> bool:
        """Whether a record has regions."""
        return bool(read_regions(record, self.keys.regions))

    def requests_for(self, record: Record) -> int:
        """Return one for each group of near regions; 1 where an earlier step is to find them."""
        if self.keys.regions not in record:
            return 1
        regions = read_regions(record, self.keys.regions)
        return len(near_groups(boxes_of(regions), self.regions_per_request))

    def look_over(self, record: Record) -> None:
        """Raise SizeDiffers where the record's regions are in a picture of another size.

        Raises BrokenRow where they can't be read.
        """
        if read_regions(record, self.keys.regions):
            image = open_image(record, self.keys.image)
            check_stated_size(record, image.size, image.file.path)

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds what `described` returns.

        Raises RecordError: also where the record states another size than its image has.
        """
        regions = read_regions(record, self.keys.regions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        if regions:
            check_stated_size(record, image.size, image.file.path)
        return await self.described(record, image, regions, ask)

    @abstractmethod
    async def described(
        self, record: Record, image: Image, regions: list[Region], ask: Ask
    ) -> Update | Partial:
        """Return the columns to add to a record with these regions, of which there may be none."""

    async def settle(self, start: RunStart) -> Counter[str]:
        """Find out the box format, and return how many requests and tokens it took."""
        return await self.format_choice.settle(start)

    def shown(self, image: Image, regions: Sequence[Region]) -> Image:
        """Return the picture to send with these regions: with their marks, if `marks` says so."""
        if self.marks != "outline":
            return image
        return marked(image, boxes_of(regions))

    async def ask_about(
        self,
        image: Image,
        regions: Sequence[Region],
        request: Callable[[Image, Sequence[Region]], Request[T]],
        ask: Ask,
    ) -> list[tuple[list[int], T]]:
        """Ask about all regions, in each request about a few that are near each other. A request
        whose reply is cut off is asked again in two, about half of its regions each.

        Args:
            image: The image that the regions are in.
            regions: The regions.
            request: Makes a request of the picture to send and some regions.
            ask: Asks the model.

        Returns:
            Of each request: the places of its regions in `regions`, and the answer. Without regions
            there are none.
        """
        boxes = boxes_of(regions)

        async def ask_once(places: list[int]) -> T:
            near = [regions[place] for place in places]
            picture = self.shown(image, near)
            return await ask(request(picture, near))

        answers: list[tuple[list[int], T]] = []
        for group in near_groups(boxes, self.regions_per_request):
            answers += await ask_in_parts(group, ask_once, lambda place: boxes[place])
        return answers
