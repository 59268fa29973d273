"""The job `image_region_caption`: the user's images in, a text for each box out."""

from typing import Literal

from pydantic import Field

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.pipelines.shipped import ImageRegionCaptionPipeline
from dataflow_grounding.spec import PipelineBlock, RowsData, WorkflowBlock

# Roles of the steps' columns, which may have other names than their own. Those of boxes and
# captions may not: others read them.
RENAMABLE = (
    "image_with_bbox",
    "type",
    "normalized_bbox",
    "result_file",
    "valid_bboxes_num",
    "prompt",
    "bbox_problems",
    "answer",
)


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
        for name in settings["output_columns"]:
            if name not in RENAMABLE:
                raise SpecError(
                    f"workflow.output_columns: {name!r} is not one of {', '.join(RENAMABLE)}"
                    f"{nearest(name, RENAMABLE)}"
                )
        return ImageRegionCaptionPipeline(
            storage, self.serving, self.spec.results_dir, **settings
        ).steps()
