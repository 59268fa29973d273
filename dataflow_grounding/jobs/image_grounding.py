"""The job `image_grounding`: the user's images and captions in, expressions with boxes out."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.class_files import read_class_file
from dataflow_grounding.data.classes import ClassError, phrases_with_classes
from dataflow_grounding.data.inputs import Input
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.job import Job, JobInput, Kind, put_in_folders, wanted_steps
from dataflow_grounding.jobs.judge import vlms_of
from dataflow_grounding.jobs.other_images import phrases_in_captions
from dataflow_grounding.jobs.rows_job import input_of, is_pipe, job_on_rows, storage_of
from dataflow_grounding.pipelines.shipped import ImageGroundingPipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Block, PipelineBlock, RowsData, Spec, VlmBlock, WorkflowBlock
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
    check: bool = False
    negatives: int = Field(0, ge=0, le=MOST_NEGATIVES)
    merge_iou: float | None = Field(0.9, gt=0, le=1)

    @field_validator("phrases_per_request", mode="before")
    @classmethod
    def _all_is_a_number(cls, value: Any) -> Any:
        return ALL_PHRASES if value == "all" else value


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
        """Return the classes, checked. A text is the path of a file that has them."""
        classes = value
        try:
            if isinstance(value, str) and value.strip():
                classes = read_class_file(value)
            if classes:
                phrases_with_classes(classes)  # raises for what can't be looked for
        except SpecError as error:
            # The wrong entry's number or key, such as (3,), by which the message finds its line in
            # the spec. It is () for an entry of a class file, which has no line there.
            inside: tuple[Any, ...] = ()
            if isinstance(error, ClassError) and not isinstance(value, str):
                inside = error.inside
            context = {"why": str(error).removeprefix("classes: "), "inside": inside}
            raise PydanticCustomError("classes", "{why}", context) from None
        return classes or []

    @property
    def stated_classes(self) -> Any:
        return self.model_dump(include={"classes"})["classes"]


class ImageGroundingBlock(PipelineBlock):
    vlm: JudgedVlmBlock = JudgedVlmBlock()
    workflow: GroundingWorkflow = GroundingWorkflow()
    data: GroundingData

    @property
    def vlms(self) -> list[VlmBlock]:
        # The judge is asked where boxes are looked at again, after phrases were made up, and for
        # boxes that something else made.
        data: GroundingData | None = self.data  # none where only the endpoints are looked at
        has_proposals = data is not None and bool(data.proposals)
        workflow = self.workflow
        judges = workflow.check or workflow.negatives > 0 or has_proposals
        return vlms_of(self.vlm, judges=judges)


def _refuse_with_proposals(workflow: GroundingWorkflow) -> None:
    for key in ("fuse", "samples", "tiles", "zoom"):
        is_stated = key in workflow.model_fields_set
        default = GroundingWorkflow.model_fields[key].default
        if is_stated and getattr(workflow, key) != default:
            raise SpecError(
                f"workflow.{key} is for boxes that the model finds: leave it out with"
                " data.proposals, which are judged as they are"
            )


def _job_of(spec: Spec, servings: Sequence[Serving], pilot: int | None) -> Job:
    block = spec.block
    assert isinstance(block, ImageGroundingBlock)
    source = _proposals_of(spec, block.data) if block.data.proposals else input_of(spec)
    steps = _steps(block, servings, storage_of(spec, source), source)
    return job_on_rows(spec, servings, source, steps, _wanted(block.workflow, steps), pilot)


def _job_without_input(spec: Spec, servings: Sequence[Serving], pilot: int | None) -> Job:
    """Return the job of a caller who has records, and takes them through the steps himself."""
    block = spec.block
    assert isinstance(block, ImageGroundingBlock)
    all_steps = _steps(block, servings, ResultsStorage("", spec.results_dir))
    steps = wanted_steps(all_steps, _wanted(block.workflow, all_steps))
    return Job(servings, all_steps, steps, JobInput(steps), [])


def _steps(
    block: ImageGroundingBlock,
    servings: Sequence[Serving],
    storage: ResultsStorage,
    source: Input | None = None,
) -> list[Step]:
    """Return the steps of the pipeline's class, told of other images if it has a `source`."""
    workflow = block.workflow
    settings = dict(workflow.own())
    if block.data.proposals:
        _refuse_with_proposals(workflow)
        settings["proposed"] = True
    else:
        settings["classes"] = block.data.stated_classes
        if workflow.negatives and source is not None:
            settings["other_images"] = _phrases_of_other_images(block.data, source)
    pipeline = ImageGroundingPipeline(storage, servings[0], judge=servings[-1], **settings)
    return put_in_folders(pipeline.steps())


def _phrases_of_other_images(data: GroundingData, source: Input) -> list[str]:
    """Return phrases of the input's captions, for `workflow.negatives`, if it has any."""
    if data.classes or source.bare or is_pipe(source):
        return []
    column = data.columns.get("caption") or source.columns.get("caption", "caption")
    return phrases_in_captions((row.data or {}).get(column) for row in source.read())


def _proposals_of(spec: Spec, data: GroundingData) -> Input:
    if data.split:
        raise SpecError(
            "data.split is of data sets from a hub: with data.proposals leave it out, and name"
            " the part's own labels in data.input_jsonl"
        )
    # Phrases, with their classes, that every picture gets, even if its proposals have none of them.
    class_of_phrase: dict[str, str] = {}
    if data.classes:
        class_of_phrase = phrases_with_classes(data.stated_classes)
    from dataflow_grounding.formats.proposals import find_proposals  # few runs have proposals

    return find_proposals(
        data.input_jsonl,
        format=data.proposals,
        image_root=data.image_root or "",
        classes=class_of_phrase,
        unpacked=spec.results_dir,
    )


def _wanted(workflow: GroundingWorkflow, steps: Sequence[Step]) -> list[str]:
    """Return the numbers of the wanted steps, with those that look at found boxes again."""
    if workflow.fuse:  # one step finds phrases and boxes: there are no others to choose
        return [str(number) for number in range(len(steps))]
    if str(GROUND) not in workflow.steps:
        return workflow.steps
    return workflow.steps + [str(number) for number in range(GROUND + 1, len(steps))]


KIND = Kind(ImageGroundingPipeline, ImageGroundingBlock, _job_of)
WITHOUT_INPUT = Kind(ImageGroundingPipeline, ImageGroundingBlock, _job_without_input)
