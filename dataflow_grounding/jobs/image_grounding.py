"""The job `image_grounding`: the user's images and captions in, expressions with boxes out."""

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.operators import PhraseLister
from dataflow_grounding.pipelines.shipped import ImageGroundingPipeline
from dataflow_grounding.spec import PipelineBlock, RowsData, WorkflowBlock

GROUND = 1  # the step after which further ones may look at the boxes again


class GroundingWorkflow(WorkflowBlock):
    """`image_grounding.workflow`."""

    steps: list[str] = ["0", "1"]
    samples: int = Field(1, ge=1, le=100)
    zoom: bool = False
    verify: Literal["none", "reground"] = "none"
    merge_iou: float | None = Field(0.9, gt=0, le=1)


class GroundingData(RowsData):
    """`image_grounding.data`; `classes` are class names, or phrase → class, to look for in every
    picture.
    """

    classes: list[str] | dict[str, str] = []

    @field_validator("classes", mode="before")
    @classmethod
    def _can_be_looked_for(cls, value: Any) -> Any:
        try:
            if value:
                PhraseLister(value if isinstance(value, (list, dict)) else "")
        except SpecError as error:
            raise PydanticCustomError(
                "classes", "{why}", {"why": str(error).removeprefix("classes: ")}
            ) from None
        return value or []


class ImageGroundingBlock(PipelineBlock):
    """`image_grounding`."""

    workflow: GroundingWorkflow = GroundingWorkflow()
    data: GroundingData


class ImageGroundingJob(RowsJob):
    """`image_grounding` from a spec."""

    name = "image_grounding"
    block = ImageGroundingBlock
    questions = {
        "expression_extraction": (
            "Are cleaned_caption and expressions right? Are the phrases those that you want boxed?"
        ),
        "grounding": (
            "Do the boxes in expressions[].instances fit? Are the scores plausible, where there are"
            " any?"
        ),
    }

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        block = self.spec.block
        assert isinstance(block, ImageGroundingBlock)
        settings = {**block.workflow.own(), "verify": block.workflow.verify == "reground"}
        return ImageGroundingPipeline(
            storage, self.serving, classes=block.data.classes, **settings
        ).steps()

    def wanted(self, steps: list[Step]) -> list[str]:
        """The steps that look at the boxes again go with the one that finds them."""
        names = super().wanted(steps)
        return [*names, *map(str, range(GROUND + 1, len(steps)))] if str(GROUND) in names else names
