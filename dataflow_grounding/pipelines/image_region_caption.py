"""Pipeline `image_region_caption`: images with boxes, or without, in; the boxes drawn and a text for each out."""

from typing import Any

from dataflow_grounding.operators import RegionCaptioner, RegionMarker
from dataflow_grounding.operators.region_captioner import CaptionMarks
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.storage import ResultsStorage


class ImageRegionCaptionPipeline(Pipeline):
    """Step 0 draws each image's boxes, numbered, into a picture in `output_dir`; step 1 describes what is in each.

    `proposing` are RegionMarker's further settings, for images without boxes.
    """

    name = "image_region_caption"

    def __init__(
        self,
        storage: ResultsStorage,
        serving: Serving,
        output_dir: str,
        *,
        max_boxes: int | None = 10,
        marks: CaptionMarks = "outline",
        **proposing: Any,
    ) -> None:
        self.storage = storage
        self.marker = RegionMarker(output_dir, max_boxes, serving=serving, marks=marks, **proposing)
        self.captioner = RegionCaptioner(serving, marks=marks)

    def forward(self) -> None:
        """Both steps, one after the other."""
        self.marker.run(self.storage.step(), input_image_key="image", input_bbox_key="bbox")
        self.captioner.run(self.storage.step(), input_image_key="image", input_regions_key="regions")
