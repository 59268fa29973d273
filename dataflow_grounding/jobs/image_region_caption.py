"""The job `image_region_caption`: the user's images in, a text for each box out."""

from typing import Literal

from pydantic import Field

from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.pipelines.shipped import ImageRegionCaptionPipeline
from dataflow_grounding.spec import PipelineBlock, RowsData, WorkflowBlock


class RegionCaptionWorkflow(WorkflowBlock):
    steps: list[str] = ["0", "1"]
    max_boxes: int | None = Field(10, ge=1)
    marks: Literal["outline", "tag", "crop"] = "outline"
    proposals: Literal["model", "opencv"] = "model"
    output_columns: dict[str, str] = {}


class ImageRegionCaptionBlock(PipelineBlock):
    workflow: RegionCaptionWorkflow = RegionCaptionWorkflow()
    data: RowsData


class ImageRegionCaptionJob(RowsJob):
    name = "image_region_caption"
    block = ImageRegionCaptionBlock

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        settings = self.spec.block.workflow.own()
        return ImageRegionCaptionPipeline(
            storage, self.serving, self.spec.results_dir, **settings
        ).steps()
