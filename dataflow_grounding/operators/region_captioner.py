"""Operator: what each marked region of an image shows."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Record,
    RegionOperator,
    Request,
    Serving,
    SpecError,
    Update,
)
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.images.shown import crop_of, marked
from dataflow_grounding.operators import boxes_of
from dataflow_grounding.tasks import SHOWN_AS, RegionCaptions, region_caption, renumbered

CaptionMarks: TypeAlias = Literal["outline", "tag", "crop"]
"""How regions are shown to the model, as RegionCaptioner's `marks` says."""


@OPERATOR_REGISTRY.register()
class RegionCaptioner(RegionOperator):
    """Describes each marked region of an image.

    Near ones are asked for together, at most `regions_per_request`. The marks are drawn into the
    picture at the size that is sent, so that their numbers stay readable. Raises
    SpecError for a wrong setting.

    Args:
        serving: The model that is asked.
        box_format, regions_per_request: As RegionOperator's.
        marks: `outline`, `tag` (the number alone) or `crop`: each region is sent as a picture of
            its own.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, RegionCaptioner
        >>> row = {"image": "square.png", "regions": [{"bbox": [300, 200, 500, 400]}]}
        >>> [caption] = RegionCaptioner(EmbeddedServing())(row)["region_captions"]
        >>> caption["region_id"], caption["text"][:19]
        (1, 'A region mostly red')
    """

    name = "region_caption"
    tasks = ("region_caption",)
    input_keys = {"image": "image", "regions": "regions"}
    output_keys = {"answer": "answer", "region_captions": "region_captions"}
    descriptions = {"zh": "为图像中每个带标记的区域分别生成描述文本。"}

    def __init__(
        self,
        serving: Serving,
        *,
        box_format: str | None = None,
        regions_per_request: int | None = None,
        marks: CaptionMarks = "outline",
    ) -> None:
        if marks not in SHOWN_AS:
            raise SpecError(f"marks {marks!r} is not one of {', '.join(SHOWN_AS)}")
        most = 1 if marks == "crop" else regions_per_request  # a picture for each region
        super().__init__(serving, box_format=box_format, regions_per_request=most)
        self.style = marks

    def way_to_rename(self, role: str) -> str:
        """Return in words what to do where the column of a role is another's already."""
        if role != "answer":
            return super().way_to_rename(role)
        return (
            "give it another name with output_answer_key, or in a spec with"
            " workflow.output_columns.answer"
        )

    async def described(
        self, record: Record, image: Image, regions: list[Region], ask: Ask
    ) -> Update:
        """Adds `region_captions` (region_id, bbox in pixels xyxy, text), one for each region.

        `answer` has all of them as one text, None without regions: the model's own text where it
        wrote one, with the regions' numbers in the record, else a line for each region.
        """
        text_by_place: dict[int, str] = {}
        answers: list[str] = []
        for places, captions in await self.ask_about(image, regions, self._request, ask):
            text_by_place.update(zip(places, captions.texts, strict=True))
            if captions.answer:
                # In its own text, the model counts the regions of its request, from 1. In the
                # record, these are at `places`.
                answers.append(renumbered(captions.answer, places))
                continue
            for place in places:
                answers.append(f"<region{place + 1}>: {text_by_place[place]}")
        region_captions = [
            _caption(place, region, text_by_place[place]) for place, region in enumerate(regions)
        ]
        return {
            self.keys.answer: "\n".join(answers) or None,
            self.keys.region_captions: region_captions,
        }

    def _request(self, image: Image, regions: Sequence[Region]) -> Request[RegionCaptions]:
        if self.style == "crop":
            [region] = regions  # `regions_per_request` is 1
            crop = crop_of(image, region.bbox)
            region_in_crop = Instance((0, 0, *crop.size))  # it fills the picture that is sent
            return region_caption(crop, [region_in_crop], self.style)
        boxes = boxes_of(regions)
        picture = marked(image, boxes, outlined=self.style == "outline")
        return region_caption(picture, [Instance(bbox) for bbox in boxes], self.style)


def _caption(place: int, region: Region, text: str) -> dict[str, object]:
    caption = {"region_id": place + 1, "bbox": list(region.bbox), "text": text}
    if region.proposed_by:
        caption["proposed_by"] = region.proposed_by
    return caption
