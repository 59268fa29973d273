"""Operator: what each marked region of an image shows."""

from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.images.shown import crop_of, marked
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image
from dataflow_grounding.operators.box_operator import RegionOperator, Regions
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.captions import SHOWN_AS, RegionCaptions, region_caption, renumbered
from dataflow_grounding.tasks.request import Request

CaptionMarks: TypeAlias = Literal["outline", "tag", "crop"]


@OPERATOR_REGISTRY.register()
class RegionCaptioner(RegionOperator):
    """Describes each marked region of an image in a text of its own.

    Near ones are asked for together, at most `regions_per_request`. The marks are drawn into the
    picture in the size in which it is sent, so that their numbers can be read there. Raises
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
        most = 1 if marks == "crop" else regions_per_request
        super().__init__(serving, box_format=box_format, regions_per_request=most)
        self.style = marks

    async def described(
        self, record: Record, image: Image, regions: list[dict[str, Any]], ask: Ask
    ) -> Update:
        """Adds `region_captions` (region_id, bbox in pixels xyxy, text) per region, and `answer`,
        all as one text.
        """
        texts: dict[int, str] = {}
        answers: list[str] = []
        for places, found in await self.ask_about(image, regions, self._request, ask):
            texts.update(zip(places, found.texts, strict=True))
            own = found.answer and renumbered(found.answer, places)
            answers.append(
                own or "\n".join(f"<region{place + 1}>: {texts[place]}" for place in places)
            )
        return {
            self.keys.answer: "\n".join(answers) or None,
            self.keys.region_captions: [
                _caption(place, region, texts[place]) for place, region in enumerate(regions)
            ],
        }

    def _request(self, image: Image, regions: Regions, told: BoxFormat) -> Request[RegionCaptions]:
        if self.style == "crop":
            crop = crop_of(image, box_of(regions[0]["bbox"]))
            return region_caption(crop, [{"bbox": (0, 0, *crop.size)}], told, self.style)
        shown = marked(
            image, [box_of(region["bbox"]) for region in regions], outlined=self.style == "outline"
        )
        return region_caption(shown, regions, told, self.style)


def _caption(place: int, region: dict[str, Any], text: str) -> dict[str, Any]:
    proposed = {"proposed_by": region["proposed_by"]} if region.get("proposed_by") else {}
    return {"region_id": place + 1, "bbox": list(region["bbox"]), "text": text, **proposed}
