"""Operator: the boxes of a row drawn and numbered; where it has none, regions proposed first."""

import asyncio
import os
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, SpecError
from dataflow_grounding._util.users_code import UsersValue
from dataflow_grounding.boxes.coordinates import from_xyxy
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.boxes.regions import (
    GivenBoxes,
    check_stated_size,
    largest,
    normalized,
    read_given_boxes,
)
from dataflow_grounding.data.expressions import Region
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.images.shown import marked, numbered_marks
from dataflow_grounding.operators._drawing import draw_once
from dataflow_grounding.operators._expressions import boxes_of
from dataflow_grounding.operators.box_operator import BoxWatching
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    open_image,
)
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.grounding import phrase_grounding
from dataflow_grounding.trust.box_watch import CHECK_EVERY, BoxWatch, OnSuspect
from dataflow_grounding.trust.choice import choice_of

Proposals: TypeAlias = Literal["model", "opencv"]
"""Who proposes regions: the serving's model, or OpenCV."""
PROPOSED = "each clearly visible object"  # the phrase by which a model is asked for regions
# what the operator adds to a record: roles, which are the default columns as well
_COLUMNS = (
    "image_with_bbox",
    "type",
    "bbox",
    "normalized_bbox",
    "result_file",
    "valid_bboxes_num",
    "prompt",
    "regions",
    "bbox_problems",
)
MOST_PROPOSED = 10  # regions that OpenCV proposes where `max_boxes` sets no limit


@OPERATOR_REGISTRY.register()
class RegionMarker(BoxWatching):
    """Draws numbered marks for each box of an image; where there is none, regions are proposed.

    Boxes are given as `[[x, y, width, height], …]` in pixels; of more than `max_boxes`, the largest
    are kept. The picture is `{n}_bbox_vis.jpg`, n the row's number, from 1. Regions are proposed by
    the serving's model, or OpenCV: with `proposals="opencv"`, no serving, or the embedded one.
    Raises SpecError for a wrong setting.

    Args:
        output_dir: Folder of the pictures.
        max_boxes: Most boxes of a row, 1 or more; None keeps all.
        serving: The model that proposes regions.
        proposals: `model` or `opencv`.
        marks: `outline` (`crop` draws the same, for people) or `tag`, the number alone.
        box_format, on_suspect_boxes, check_every: As PhraseGrounder's, for boxes that the model
            proposes.

    Example:
        >>> from dataflow_grounding import RegionMarker
        >>> record = RegionMarker("marked")({"image": "square.png", "bbox": [[300, 200, 200, 200]]})
        >>> record["regions"], record["image_with_bbox"]
        ([{'bbox': [300, 200, 500, 400], 'type': ''}], 'marked/1_bbox_vis.jpg')
    """

    name = "marked_regions"
    tasks = ("phrase_grounding",)
    input_keys = {"image": "image", "bbox": "bbox"}
    optional_keys = ("bbox",)
    output_keys = {name: name for name in _COLUMNS}
    descriptions = {"zh": "为图像中的每个边界框绘制带编号的标记;没有边界框时先给出候选区域。"}

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = "./images_with_bbox",
        max_boxes: int | None = 10,
        *,
        serving: Serving | None = None,
        proposals: Proposals = "model",
        marks: str = "outline",
        box_format: str | None = None,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        _check_settings(max_boxes, proposals, marks)
        self.output_dir = os.fspath(output_dir)
        self.max_boxes = max_boxes
        self.draw = draw_once  # a setting: where drawing has changed, a finished run draws again
        self.serving: Serving | None = None
        # The embedded grounder is no VLM, and can't look for PROPOSED: OpenCV proposes then.
        if serving is not None and self.checked_serving(serving).is_vlm:
            self.serving = serving
        self.proposals: Proposals = proposals if self.serving else "opencv"
        self.outlined = marks != "tag"
        # Whether the next step sends the picture that is drawn here. With "crop" it sends parts of
        # the unmarked picture.
        self.next_step_sends_marks = self.serving is not None and marks != "crop"
        self.format_choice = None  # where OpenCV proposes, no boxes are asked for
        if self.serving and self.proposals == "model":
            self.format_choice = choice_of(self.serving, box_format)
        self.watch = BoxWatch(on_suspect_boxes, check_every)

    def way_to_rename(self, role: str) -> str:
        """Return in words what to do where the column of a role is another's already."""
        return (
            f"give it another name with output_{role}_key, or in a spec with"
            f" workflow.output_columns.{role}"
        )

    def look_over(self, record: Record) -> None:
        """Raise RecordError for what is wrong with a row's boxes.

        That is BrokenRow where any box can't be used, which a run would leave out, and SizeDiffers
        where the boxes are in a picture of another size.
        """
        image = open_image(record, self.keys.image)
        given = read_given_boxes(record.get(self.keys.bbox), image.size)
        if given is not None:
            check_stated_size(record, image.size, image.file.path)
            if given.problems:
                raise BrokenRow(given.report())

    def asks(self, record: Record) -> bool:
        """Whether the record has no boxes, and a model, not OpenCV, proposes regions."""
        if self.format_choice is None:
            return False
        # Any size will do: whether the column is empty doesn't depend on it.
        return read_given_boxes(record.get(self.keys.bbox), (1, 1)) is None

    def requests_for(self, record: Record) -> int:
        """Return one for a record that it asks about."""
        return int(self.asks(record))

    def files_there(self) -> int:
        """Return how many pictures are in `output_dir`: those that were deleted are drawn again."""
        with suppress(OSError):
            return sum(name.endswith("_bbox_vis.jpg") for name in os.listdir(self.output_dir))
        return 0

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the path of the picture with the marks, the boxes, and the prompt for them:

        - `bbox`: boxes as given, or as proposed, then as x, y, width and height,
        - `normalized_bbox`: corners in shares of the image's sides, filled up with zeros to
          `max_boxes`,
        - `regions`: corners in pixels,
        - `bbox_problems`: boxes that are left out, and why.

        Raises RecordError: BrokenRow where a row has boxes, but none that can be used.
        """
        limits = self.serving.image_limits if self.serving else None
        image = open_image(record, self.keys.image, limits)
        row = self._given(record, image)
        if row is None:
            row = await self._propose(image, ask)
        numbered_boxes = largest(row.boxes.boxes, self.max_boxes)  # (number in the row, box), …
        boxes = [bbox for _, bbox in numbered_boxes]
        numbers_of_marked = {number for number, _ in numbered_boxes}
        over_most = self._over_max_boxes(row.boxes, numbers_of_marked)
        _note_problems(row.boxes, len(over_most), ask)
        path = os.path.join(self.output_dir, f"{record.place + 1}_bbox_vis.jpg")
        await asyncio.to_thread(self._draw, image, boxes, path)
        update = self._columns_of(row, boxes, image, path)
        problems = [*row.boxes.problems, *over_most]
        if problems:
            update[self.keys.bbox_problems] = problems
        return update

    def _columns_of(
        self, row: "_RowBoxes", boxes: list[Bbox], image: Image, path: str
    ) -> dict[str, object]:
        """Return the columns of a row whose `boxes` are drawn in the picture at `path`."""
        return {
            self.keys.image_with_bbox: path,
            self.keys.type: "with_bbox" if row.proposed_by is None else "without_bbox",
            self.keys.bbox: row.bbox_column,
            self.keys.normalized_bbox: self._normalized(boxes, image),
            self.keys.result_file: self.output_dir,
            self.keys.valid_bboxes_num: len(boxes),
            self.keys.prompt: prompt_for(len(boxes)),
            self.keys.regions: [Region(bbox, proposed_by=row.proposed_by) for bbox in boxes],
        }

    def _given(self, record: Record, image: Image) -> "_RowBoxes | None":
        """Return the boxes that the row has; None where it has none."""
        given = read_given_boxes(record.get(self.keys.bbox), image.size)
        if given is None:
            return None
        check_stated_size(record, image.size, image.file.path)
        if not given.boxes:
            raise BrokenRow(f"no box in column {self.keys.bbox!r} can be used: {given.report()}")
        return _RowBoxes(given, record[self.keys.bbox], proposed_by=None)

    async def _propose(self, image: Image, ask: Ask) -> "_RowBoxes":
        """Return the regions that the model or OpenCV proposes for a row without boxes."""
        if self.serving is not None and self.format_choice is not None:  # the model does
            request = phrase_grounding(image, [PROPOSED], self.format_choice.format)
            [answer] = await self.watch.ask(ask, request, image)
            boxes = boxes_of(answer.instances)
            proposer = self.serving.model
        else:
            most = self.max_boxes or MOST_PROPOSED
            boxes = await asyncio.to_thread(_propose_with_opencv, image, most)
            proposer = "opencv"
        if not boxes:
            ask.note("nothing_proposed", "no region could be proposed for a row without boxes")
        bbox_column = [list(from_xyxy(bbox, "xywh")) for bbox in boxes]
        return _RowBoxes(GivenBoxes(list(enumerate(boxes))), bbox_column, proposer)

    def _over_max_boxes(
        self, row_boxes: GivenBoxes, numbers_of_marked: set[int]
    ) -> list[dict[str, object]]:
        """Return the boxes that aren't among the largest, as `bbox_problems` has them."""
        problems = []
        for number, bbox in row_boxes.boxes:
            if number not in numbers_of_marked:
                problems.append(
                    {
                        "box": number,
                        "bbox": list(from_xyxy(bbox, "xywh")),
                        "kind": "over_max_boxes",
                        "reason": f"is not among the {self.max_boxes} largest",
                    }
                )
        return problems

    def _normalized(self, boxes: list[Bbox], image: Image) -> list[list[float]]:
        normalized_boxes = [normalized(bbox, image.size) for bbox in boxes]
        if self.max_boxes is not None:
            # padded as by DataFlow, so that the lists of all rows are of one length
            normalized_boxes += [[0.0] * 4] * (self.max_boxes - len(boxes))
        return normalized_boxes

    def _draw(self, image: Image, boxes: list[Bbox], path: str) -> None:
        content = [boxes, self.outlined]  # all that tells one drawing of the image from another
        jpeg = self.draw(image, lambda: numbered_marks(boxes, self.outlined), content, path)
        if jpeg is not None and self.next_step_sends_marks:
            # If the next step sends the picture in its full size, it sends these bytes, and needn't
            # draw the marks once more.
            marked(image, boxes, outlined=self.outlined).keep_drawn(jpeg, image)


class _RowBoxes(NamedTuple):
    """The boxes of a row, given with it or proposed."""

    boxes: GivenBoxes
    bbox_column: object  # what the column `bbox` has: as given, or the proposed ones
    proposed_by: str | None  # a model's name, or opencv; None for boxes that the row has


def _check_settings(max_boxes: int | None, proposals: str, marks: str) -> None:
    if max_boxes is not None:
        check_counts(max_boxes=max_boxes)
    is_known_proposer = proposals in ("model", "opencv")
    is_known_mark = marks in ("outline", "tag", "crop")
    if not (is_known_proposer and is_known_mark):
        raise SpecError("proposals should be 'model' or 'opencv', marks 'outline', 'tag' or 'crop'")


def _note_problems(row_boxes: GivenBoxes, over_most: int, ask: Ask) -> None:
    for _ in row_boxes.problems:  # notes are counted: one for each box
        ask.note("unusable_bbox", "see bbox_problems")
    for _ in range(row_boxes.cut):
        ask.note("bbox_cut", "a box reached out of the image")
    for _ in range(over_most):
        ask.note("over_max_boxes", "a box was left out")


def prompt_for(n: int) -> str:
    """Return the prompt that states that there are `n` regions, in DataFlow's words."""
    return (
        f"Describe the content of each marked region in the image. There are {n} regions: <region1>"
        f" to <region{n}>."
    )


def _propose_with_opencv(image: Image, most: int) -> list[Bbox]:
    import numpy

    from dataflow_grounding.embedded.regions import propose_regions  # imports OpenCV

    with image.decoded() as picture:
        # OpenCV takes blue, green, red
        pixels: UsersValue = numpy.ascontiguousarray(numpy.asarray(picture)[:, :, ::-1])
        return [box_of(bbox) for bbox in propose_regions(pixels, most)]
