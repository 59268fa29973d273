"""The job `image_region_caption`: the user's images in, a text for each box out."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.jobs.job import Job, Kind, put_in_folders
from dataflow_grounding.jobs.rows_job import input_of, job_on_rows, storage_of
from dataflow_grounding.pipelines.shipped import ImageRegionCaptionPipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import PipelineBlock, RowsData, Spec, WorkflowBlock

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


def _job_of(spec: Spec, servings: Sequence[Serving], pilot: int | None) -> Job:
    settings = spec.block.workflow.own()
    source = input_of(spec)
    storage = storage_of(spec, source)
    for name in settings["output_columns"]:
        if name not in RENAMABLE:
            raise SpecError(
                f"workflow.output_columns: {name!r} is not one of {', '.join(RENAMABLE)}"
                f"{nearest(name, RENAMABLE)}"
            )
    pipeline = ImageRegionCaptionPipeline(storage, servings[0], spec.results_dir, **settings)
    steps = put_in_folders(pipeline.steps())
    return job_on_rows(spec, servings, source, steps, spec.block.workflow.steps, pilot)


KIND = Kind(ImageRegionCaptionPipeline, ImageRegionCaptionBlock, _job_of)
