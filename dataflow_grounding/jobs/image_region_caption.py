"""The job `image_region_caption`: the user's images in, a text for each box out."""

from typing import Literal

from pydantic import Field

from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.pipelines.shipped import ImageRegionCaptionPipeline
from dataflow_grounding.spec import PipelineBlock, RowsData, WorkflowBlock


class RegionCaptionWorkflow(WorkflowBlock):
    """`image_region_caption.workflow`."""

    steps: list[str] = ["0", "1"]
    max_boxes: int | None = Field(10, ge=1)
    marks: Literal["outline", "tag", "crop"] = "outline"
    proposals: Literal["model", "opencv"] = "model"
    output_columns: dict[str, str] = {}


class ImageRegionCaptionBlock(PipelineBlock):
    """`image_region_caption`."""

    workflow: RegionCaptionWorkflow = RegionCaptionWorkflow()
    data: RowsData


class ImageRegionCaptionJob(RowsJob):
    """`image_region_caption` from a spec; pictures with boxes are written into `results_dir`."""

    name = "image_region_caption"
    block = ImageRegionCaptionBlock

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """Return both steps, with the settings of the spec's `workflow`."""
        settings = self.spec.block.workflow.own()
        return ImageRegionCaptionPipeline(
            storage, self.serving, self.spec.results_dir, **settings
        ).steps()
