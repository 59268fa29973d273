"""Pipeline `image_referring_expression`: images with boxes in, verified referring expressions of the boxes out."""

from dataflow_grounding.operators import CaptionGenerator, DoubleChecker, Merger, RegionExpressionGenerator
from dataflow_grounding.operators.double_checker import Method
from dataflow_grounding.operators.region_operator import RegionMarks
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.storage import FileStorage


class ImageReferringExpressionPipeline(Pipeline):
    """Steps 0 and 1, side by side, describe regions and image; step 2 makes expressions of both, step 3 checks them."""

    name = "image_referring_expression"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        method: Method = "ask",
        reground_serving: Serving | None = None,
        iou: float = 0.5,
        marks: RegionMarks = "none",
    ) -> None:
        self.storage = storage
        self.describer = RegionExpressionGenerator(serving, marks=marks)
        self.captioner = CaptionGenerator(serving)
        self.merger = Merger(serving, marks=marks)
        self.checker = DoubleChecker(serving, method, reground_serving, iou)

    def forward(self) -> None:
        """The four steps."""
        self.describer.run(self.storage.step(), input_image_key="image_path", input_regions_key="regions")
        self.captioner.run(self.storage.step(), input_image_key="image_path")
        self.merger.run(self.storage.step(), input_regions_key="regions", input_caption_key="cleaned_caption")
        self.checker.run(self.storage.step(), input_regions_key="regions", input_expressions_key="expressions")
