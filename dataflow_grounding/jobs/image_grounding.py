"""The job `image_grounding`: the user's images and captions in, expressions with boxes out."""

from typing import Any, Literal

from pydantic import (
    Field,
    field_validator,
)
from pydantic_core import PydanticCustomError

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.class_files import read_class_file
from dataflow_grounding.data.classes import ClassError, definitions_of, phrases_with_classes
from dataflow_grounding.data.inputs import Input
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.judge import judge_block, judge_of
from dataflow_grounding.jobs.other_images import phrases_in_captions
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.pipelines.shipped import ImageGroundingPipeline
from dataflow_grounding.spec import Block, PipelineBlock, RowsData, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import MOST_NEGATIVES, JudgedVlmBlock

ALL_PHRASES = 1_000_000  # no picture has as many
GROUND = 1  # the number of the step that finds boxes; those after it look at them again


class TilesBlock(Block):
    size: int = Field(1024, ge=64, le=8192)
    overlap: float = Field(0.2, ge=0, le=0.5)


class GroundingWorkflow(WorkflowBlock):
    steps: list[str] = ["0", "1"]
    fuse: bool = False
    phrases_per_request: int = Field(16, ge=1, le=ALL_PHRASES)
    samples: int = Field(1, ge=1, le=100)
    tiles: TilesBlock | None = None
    zoom: bool = False
    verify: Literal["none", "reground"] = "none"
    check: bool = False
    negatives: int = Field(0, ge=0, le=MOST_NEGATIVES)
    merge_iou: float | None = Field(0.9, gt=0, le=1)

    @field_validator("phrases_per_request", mode="before")
    @classmethod
    def _all_is_a_number(cls, value: Any) -> Any:
        return ALL_PHRASES if value == "all" else value

    @field_validator("check", mode="before")
    @classmethod
    def _there_is_one_check(cls, value: Any) -> Any:
        return True if value == "fast" else value  # as specs of 0.2.0 have it


class ClassEntry(Block):
    phrases: list[str] = []
    definition: str = ""


class GroundingData(RowsData):
    """`classes` are what to look for in every picture: class names, or phrase → class, or class →
    its phrases and definition, or the path of a file that says it. `proposals` is the format of a
    detector's boxes in `input_jsonl`, which are checked instead of asked for.
    """

    proposals: str = ""
    classes: list[str] | dict[str, str | ClassEntry] = []

    @field_validator("classes", mode="before")
    @classmethod
    def _can_be_looked_for(cls, value: Any) -> Any:
        is_in_spec = not isinstance(value, str)
        try:
            if isinstance(value, str) and value.strip():
                value = read_class_file(value)
            if value:
                phrases_with_classes(value)
        except SpecError as error:
            inside = error.inside if is_in_spec and isinstance(error, ClassError) else ()
            context = {"why": str(error).removeprefix("classes: "), "inside": inside}
            raise PydanticCustomError("classes", "{why}", context) from None
        return value or []


class ImageGroundingBlock(PipelineBlock):
    vlm: JudgedVlmBlock = JudgedVlmBlock()
    workflow: GroundingWorkflow = GroundingWorkflow()
    data: GroundingData

    @property
    def vlms(self) -> list[VlmBlock]:
        """The blocks of models that are asked: `vlm`, and a judge that has what to judge."""
        data: GroundingData | None = self.data  # none where only the endpoints are looked at
        workflow = self.workflow
        judges = workflow.check or workflow.negatives > 0 or workflow.verify == "reground"
        judges = judges or (data is not None and bool(data.proposals))
        if self.vlm.judge is None or not judges:
            return [self.vlm]
        return [self.vlm, judge_block(self.vlm, self.vlm.judge)]


def _refuse_with_proposals(workflow: GroundingWorkflow) -> None:
    stated = workflow.model_fields_set
    for key in ("fuse", "samples", "tiles", "zoom", "verify"):
        if key in stated and getattr(workflow, key) != GroundingWorkflow.model_fields[key].default:
            raise SpecError(
                f"workflow.{key} is for boxes that the model finds: leave it out with"
                " data.proposals, which are judged as they are"
            )


class ImageGroundingJob(RowsJob):
    name = "image_grounding"
    block = ImageGroundingBlock
    questions = {
        "expression_extraction": (
            "Are cleaned_caption and expressions right? Are the phrases those that you want boxed?"
        ),
        "class_list": "Are the expressions the classes, in your words, that you want boxed?",
        "grounding": (
            "Do the boxes in expressions[].instances fit? Are the scores plausible, where there are"
            " any?"
        ),
        "tile_grounding": (
            "Do the boxes in expressions[].instances fit, small ones, too? Is each thing one box?"
        ),
        "caption_grounding": (
            "Are the expressions those that you want boxed, and do the boxes fit as well as with"
            " workflow.fuse: false?"
        ),
        "box_check": "Are the boxes under rejected wrong, and those with verified: true right?",
        "negative_phrases": "Are the expressions with source: negative absent from their images?",
        "missing_search": "Are the instances with found_by things that had been missed?",
    }

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        block = self.spec.block
        assert isinstance(block, ImageGroundingBlock)
        workflow = block.workflow
        settings: dict[str, Any] = {**workflow.own(), "verify": workflow.verify == "reground"}
        judge = judge_of(self.spec)
        if judge is not None:
            self.servings.append(judge)
            settings["judge"] = judge
        if block.data.proposals:
            _refuse_with_proposals(workflow)
            settings["proposed"] = True
        else:
            settings["classes"] = self._stated_classes()
            settings["other_images"] = self._phrases_of_other_images() if workflow.negatives else ()
        return ImageGroundingPipeline(storage, self.serving, **settings).steps()

    def _phrases_of_other_images(self) -> list[str]:
        # There are none if a list of classes is looked for in every image, or if the input has no
        # captions or can be read only once.
        data = self.spec.block.data
        assert isinstance(data, GroundingData)
        source = self._input
        if data.classes or source.bare or self._is_pipe:
            return []
        column = data.columns.get("caption") or source.columns.get("caption", "caption")
        return phrases_in_captions((row.data or {}).get(column) for row in source.read())

    def find_input(self) -> Input:
        data = self.spec.block.data
        assert isinstance(data, GroundingData)
        if not data.proposals:
            return super().find_input()
        if data.split:
            raise SpecError(
                "data.split is of data sets from a hub: with data.proposals leave it out, and name"
                " the part's own labels in data.input_jsonl"
            )

        stated = self._stated_classes()
        phrases: dict[str, str] = {}
        if stated:
            phrases = phrases_with_classes(stated)
        # few runs have proposals
        from dataflow_grounding.formats.proposals import find_proposals

        return find_proposals(
            data.input_jsonl,
            data.proposals,
            data.image_root or "",
            phrases,
            self.spec.results_dir,
        )

    def _stated_classes(self) -> Any:
        return self.spec.block.data.model_dump()["classes"]

    def definitions(self) -> dict[str, str]:
        definitions = dict(self._data.glossary)
        classes = self._stated_classes()
        if classes:
            definitions.update(definitions_of(classes))
        return definitions

    def wanted(self, steps: list[Step]) -> list[str]:
        """With step 1, which finds boxes, all later steps are wanted, which look at them again."""
        workflow = self.spec.block.workflow
        assert isinstance(workflow, GroundingWorkflow)
        if workflow.fuse:  # one step finds phrases and boxes: there are no others to choose
            return [str(number) for number in range(len(steps))]
        if str(GROUND) not in workflow.steps:
            return workflow.steps
        return workflow.steps + [str(number) for number in range(GROUND + 1, len(steps))]
