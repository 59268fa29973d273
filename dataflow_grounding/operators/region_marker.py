"""Operator: the boxes of a row drawn and numbered; where it has none, regions proposed first."""

import asyncio
import os
from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, SpecError
from dataflow_grounding._util.extensions import required
from dataflow_grounding.boxes.coordinates import from_xyxy
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.boxes.regions import GivenBoxes, largest, normalized, read_given_boxes
from dataflow_grounding.calibration.choice import choice_of
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.images.shown import marked, numbered_marks
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, facts_of, open_image
from dataflow_grounding.operators.bbox_visualizer import draw_once
from dataflow_grounding.operators.box_operator import BoxWatching
from dataflow_grounding.serving.base import Serving, check_counts
from dataflow_grounding.tasks.phrase_grounding import phrase_grounding
from dataflow_grounding.watch.box_watch import CHECK_EVERY, BoxWatch, OnSuspect

Proposals: TypeAlias = Literal["model", "opencv"]
PROPOSED = "each clearly visible object"  # the phrase by which a model is asked for regions
_COLUMNS = (
    "image_with_bbox type bbox normalized_bbox result_file valid_bboxes_num prompt regions"
    " bbox_problems"
)
MOST_PROPOSED = 10  # regions that OpenCV proposes where `max_boxes` sets no limit


@OPERATOR_REGISTRY.register()
class RegionMarker(BoxWatching):
    """Draws numbered marks for each box of an image; where there is none, regions are proposed.

    Boxes are given as `[[x, y, width, height], …]` in pixels; beyond `max_boxes`, the largest are
    kept. The picture is `{n}_bbox_vis.jpg`, n the row's number, from 1. Regions are proposed by the
    serving's model, or OpenCV: with `proposals="opencv"`, no serving, or the embedded one. Raises
    SpecError for a wrong setting.

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
    input_keys = {"image": "image", "bbox": "bbox"}
    optional_keys = ("bbox",)
    output_keys = {name: name for name in _COLUMNS.split()}
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
        check_counts(max_boxes=1 if max_boxes is None else max_boxes)
        if proposals not in ("model", "opencv") or marks not in ("outline", "tag", "crop"):
            raise SpecError(
                "proposals should be 'model' or 'opencv', marks 'outline', 'tag' or 'crop'"
            )
        self.output_dir = os.fspath(output_dir)
        self.max_boxes = max_boxes
        self.serving: Serving | None = serving
        embedded = serving is None or not serving.is_vlm
        self.proposals: Proposals = "opencv" if embedded else proposals
        self.outlined = marks != "tag"
        self.sends_marks = serving is not None and not embedded and marks != "crop"
        self.format_choice = (
            choice_of(serving, box_format) if serving and self.proposals == "model" else None
        )
        self.watch = BoxWatch(on_suspect_boxes, check_every)

    def look_over(self, record: Record) -> None:
        given = read_given_boxes(
            record.get(self.keys.bbox), open_image(record, self.keys.image).size
        )
        if given is not None and given.problems:
            raise BrokenRow(given.report())

    def asks(self, record: Record) -> bool:
        """Of records without boxes, where a model proposes them."""
        return (
            self.format_choice is not None
            and read_given_boxes(record.get(self.keys.bbox), (1, 1)) is None
        )

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the picture, the boxes in the three ways, the prompt, and what is wrong with boxes
        that are left out.
        """
        image = open_image(
            record, self.keys.image, self.serving.image_limits if self.serving else None
        )
        given = read_given_boxes(record.get(self.keys.bbox), image.size)
        if given is not None and not given.boxes:
            raise BrokenRow(f"no box in column {self.keys.bbox!r} can be used: {given.report()}")
        found, source = (given, {}) if given else await self._proposed(image, ask)
        kept = largest(found.boxes, self.max_boxes)
        self._tell(found, kept, ask)
        path = os.path.join(self.output_dir, f"{record.place + 1}_bbox_vis.jpg")
        boxes = [bbox for _, bbox in kept]
        await asyncio.to_thread(self._draw, image, boxes, path)
        padding = [[0.0] * 4] * max(0, (self.max_boxes or 0) - len(kept))
        update = {
            **facts_of(record, image, ask, None),
            self.keys.image_with_bbox: path,
            self.keys.type: "with_bbox" if given else "without_bbox",
            self.keys.bbox: (
                record[self.keys.bbox]
                if given
                else [[*from_xyxy(b, "xywh")] for _, b in found.boxes]
            ),
            self.keys.normalized_bbox: [normalized(bbox, image.size) for bbox in boxes] + padding,
            self.keys.result_file: self.output_dir,
            self.keys.valid_bboxes_num: len(kept),
            self.keys.prompt: prompt_for(len(kept)),
            self.keys.regions: [{"bbox": list(bbox), "type": "", **source} for bbox in boxes],
        }
        return {**update, self.keys.bbox_problems: found.problems} if found.problems else update

    async def _proposed(self, image: Image, ask: Ask) -> tuple[GivenBoxes, dict[str, str]]:
        proposer = "opencv"
        if self.format_choice is not None and self.serving is not None:
            proposer = self.serving.model
            request = phrase_grounding(image, [PROPOSED], self.format_choice.format)
            [found] = await self.watch.ask(ask, request, image, [PROPOSED])
            boxes = [box_of(instance["bbox"]) for instance in found.instances]
        else:
            boxes = await asyncio.to_thread(_seen, image, self.max_boxes or MOST_PROPOSED)
        if not boxes:
            ask.note("nothing_proposed", "no region could be proposed for a row without boxes")
        return GivenBoxes(list(enumerate(boxes))), {"proposed_by": proposer}

    def _tell(self, found: GivenBoxes, kept: list[tuple[int, Bbox]], ask: Ask) -> None:
        for _ in found.problems:
            ask.note("unusable_bbox", "see bbox_problems")
        for _ in range(found.cut):
            ask.note("bbox_cut", "a box reached out of the image")
        places = {place for place, _ in kept}
        for place, bbox in found.boxes:
            if place not in places:
                ask.note("over_max_boxes", "a box was left out")
                problem = {
                    "box": place,
                    "bbox": [*from_xyxy(bbox, "xywh")],
                    "kind": "over_max_boxes",
                }
                found.problems.append(
                    {**problem, "reason": f"is not among the {self.max_boxes} largest"}
                )

    def _draw(self, image: Image, boxes: list[Bbox], path: str) -> None:
        """Write the picture; it is the one that the next step sends, where it goes out in its full
        size.
        """
        drawn = draw_once(
            image, lambda: numbered_marks(boxes, self.outlined), [boxes, self.outlined], path
        )
        if drawn is not None and self.sends_marks:
            marked(image, boxes, outlined=self.outlined).keep_drawn(drawn)


def prompt_for(n: int) -> str:
    """The prompt that states how many regions there are, in DataFlow's words."""
    return (
        f"Describe the content of each marked region in the image. There are {n} regions: <region1>"
        f" to <region{n}>."
    )


def _seen(image: Image, most: int) -> list[Bbox]:
    import numpy

    propose_regions = required("regions", "opencv", "proposals='opencv'")
    with image.decoded() as picture:
        pixels: Any = numpy.ascontiguousarray(numpy.asarray(picture)[:, :, ::-1])
        return [box_of(bbox) for bbox in propose_regions(pixels, most)]
