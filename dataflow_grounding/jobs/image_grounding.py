"""The job `image_grounding`: the user's images and captions in, expressions with boxes out."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.extensions import required
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.data.inputs import Input
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.pipelines.shipped import (
    ImageGroundingPipeline,
    ProposalPipeline,
    SampleProposalPipeline,
)
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import Block, PipelineBlock, RowsData, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import MOST_NEGATIVES

SAMPLES = "samples"
"""The value of `data.proposals` that takes the boxes of all of the model's own answers."""
GROUND = 1  # the number of the step that finds boxes; those behind it look at them again


class GroundingWorkflow(WorkflowBlock):
    """`image_grounding.workflow`."""

    steps: list[str] = ["0", "1"]
    fuse: bool = False
    phrases_per_request: int = Field(16, ge=1, le=1000)
    samples: int = Field(1, ge=1, le=100)
    zoom: bool = False
    verify: Literal["none", "reground"] = "none"
    check: bool | Literal["fast"] = False
    contradictions: bool = False
    cascade_doubt: float = Field(1.0, ge=0, le=1)
    negatives: int = Field(0, ge=0, le=MOST_NEGATIVES)
    merge_iou: float | None = Field(0.9, gt=0, le=1)


class ClassEntry(Block):
    """A class of `data.classes`: its phrases, by default its name, and what counts as it."""

    phrases: list[str] = []
    definition: str = ""


class GroundingData(RowsData):
    """`image_grounding.data`.

    `classes` are what to look for in every picture: class names, or phrase → class, or class → its
    phrases and definition, or the path of a file that says it. `proposals` is the format of a
    detector's boxes in `input_jsonl`, which are verified instead of asked for; or `samples`, for
    those of all answers of the model.
    """

    proposals: str = ""
    classes: list[str] | dict[str, str | ClassEntry] = []

    @field_validator("classes", mode="before")
    @classmethod
    def _can_be_looked_for(cls, value: Any) -> Any:
        """Return the classes as they stand; where a file is named, what it says.

        What is wrong with them is told with the key. An empty value becomes an empty list.
        """
        try:
            if isinstance(value, str) and value.strip():
                from dataflow_grounding.data.class_files import read_class_file

                value = read_class_file(value)
            if value:
                from dataflow_grounding.data.classes import phrases_with_classes  # few runs need it

                phrases_with_classes(value)
        except SpecError as error:
            raise PydanticCustomError(
                "classes", "{why}", {"why": str(error).removeprefix("classes: ")}
            ) from None
        return value or []


class CheckedVlmBlock(VlmBlock):
    """`image_grounding.vlm`: who is asked, and who else.

    `check` is the model that judges boxes, if another is to. `cascade` names the models that are
    asked what the check leaves in doubt: one, after the model of `vlm` itself; or a list, the
    cheapest first, which is then asked in place of the model of `vlm`. Each is a name at the same
    address, or keys as `check` has.
    """

    check: VlmBlock | None = None
    cascade: VlmBlock | list[VlmBlock] | None = None
    _stated: VlmBlock | None = PrivateAttr(None)
    """`vlm` as it stands in the spec, where the first model of a list has taken its place."""

    @field_validator("cascade", mode="wrap")
    @classmethod
    def _by_name(cls, value: Any, handler: Any, info: ValidationInfo) -> Any:
        """Return None, a model's block or a list of two or more, a name having become a block.

        A name is that of a model at the same address. An empty text is None; lists of one entry, or
        with equal entries, are refused. The blocks are made here, as the union's own message would
        tell what is wrong with each of its members' keys.
        """
        backend = str(info.data.get("backend"))
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, (list, tuple)):
            return handler(VlmBlock.model_validate(_named_model(value, backend)))
        if len(value) < 2:
            raise PydanticCustomError(
                "cascade",
                "a list names two models or more, the cheapest first; write the name of a single"
                " one, to be asked after the model of vlm, without a list",
            )
        for entry in value:
            is_name = isinstance(entry, str) and bool(entry.strip())
            if not is_name and not isinstance(entry, (dict, VlmBlock)):
                raise PydanticCustomError(
                    "cascade", "each of a list is a model's name, or a block with keys of vlm"
                )
        entries = [_named_model(entry, backend) for entry in value]
        models = TypeAdapter(list[VlmBlock]).validate_python(entries)
        for number, model in enumerate(models):
            if model in models[:number]:
                raise PydanticCustomError(
                    "cascade", "a list names each model once: leave one of the equal entries out"
                )
        return handler(models)

    @model_validator(mode="after")
    def _put_first_of_cascade_in_place(self) -> "CheckedVlmBlock":
        """Put the first model of a `cascade` that is a list in place of that of `vlm`.

        Keys of `vlm` that the list's first entry doesn't state stay, even where its backend is
        another one. Without a list nothing changes.
        """
        if not isinstance(self.cascade, list):
            return self
        self._stated = self.model_copy()
        first = self.cascade[0]
        completed = judge_block(self, first)
        replaced = first.model_fields_set - {"openai", "gemini", "local"}
        # Of the backends' blocks, that one is replaced whose backend is asked: both have one name.
        replaced |= {"backend", completed.backend}
        for name in replaced & VlmBlock.model_fields.keys():
            setattr(self, name, getattr(completed, name))
        return self

    @property
    def further(self) -> list[VlmBlock]:
        """The models of the cascade but the first, in order; empty without a cascade.

        The first is that of `vlm`, in a list its first entry. What an entry leaves open is as in
        `vlm`.
        """
        if self.cascade is None:
            return []
        models = self.cascade[1:] if isinstance(self.cascade, list) else [self.cascade]
        return [judge_block(self._stated or self, model) for model in models]


def _named_model(value: Any, backend: str) -> Any:
    """Return an entry of `vlm.cascade` that is a name as a block with the model of that name.

    Any other value comes back as it is.

    Args:
        value: The entry.
        backend: The backend of `vlm`; any but gemini and local has the keys of openai.
    """
    if not isinstance(value, str) or not value.strip():
        return value
    block = backend if backend in ("gemini", "local") else "openai"
    return {block: {"model" if block == "gemini" else "model_name": value.strip()}}


class ImageGroundingBlock(PipelineBlock):
    """`image_grounding`."""

    vlm: CheckedVlmBlock = CheckedVlmBlock()
    workflow: GroundingWorkflow = GroundingWorkflow()
    data: GroundingData

    @property
    def vlms(self) -> list[VlmBlock]:
        """The blocks of all models that are asked: `vlm`, another judge's, the cascade's."""
        judges = [] if self.judge_vlm is None else [self.judge_vlm]
        return [self.vlm, *judges, *self.cascade_vlms]

    @property
    def judge_vlm(self) -> VlmBlock | None:
        """The block of the judge, where it is another model and there is something to judge.

        That is a check, negatives, or proposals. Else None.
        """
        if self.vlm.check is None:
            return None
        data: GroundingData | None = self.data  # none where only the endpoints are looked at
        has_proposals = data is not None and bool(data.proposals)
        has_negatives = self.workflow.negatives > 0
        if not (self.workflow.check or has_negatives or has_proposals):
            return None
        return judge_block(self.vlm, self.vlm.check)

    @property
    def cascade_vlms(self) -> list[VlmBlock]:
        """The models that are asked what a check leaves in doubt; empty without a check."""
        return self.vlm.further if self.workflow.check else []


def judge_block(vlm: VlmBlock, check: VlmBlock) -> VlmBlock:
    """Return a further model's block, with what it leaves open as in `vlm`.

    That is the backend, unless it states one or has the block of one. Of that backend's block and
    the service tier, `vlm` fills in what is open only where both have one backend and the further
    model states no address: so a key goes to no other address than the one that it stands beside.

    Args:
        vlm: The block of the first model.
        check: The further model's: `vlm.check`, or an entry of `vlm.cascade`.
    """
    stated = check.model_fields_set
    backends = [name for name in ("openai", "gemini", "local") if name in stated]
    backend: Any = check.backend
    if "backend" not in stated:
        backend = backends[0] if backends else vlm.backend
    changes: dict[str, Any] = {"backend": backend}
    if backend == vlm.backend and backend in ("openai", "gemini", "local"):
        own = getattr(check, backend)
        if not own.model_fields_set & {"base_url", "endpoints", "azure"}:
            common = getattr(vlm, backend)
            own_fields = {name: getattr(own, name) for name in own.model_fields_set}
            changes[backend] = common.model_copy(update=own_fields)
            for name in ("service_tier", "ordinary_tier_after"):
                if name not in stated:
                    changes[name] = getattr(vlm, name)
    return check.model_copy(update=changes)


def _samples_to_unite(workflow: GroundingWorkflow) -> int:
    """Return `workflow.samples`, for proposals out of several answers. Raises SpecError below 2."""
    if workflow.samples < 2:
        raise SpecError(
            f"data.proposals: {SAMPLES} are the boxes of several answers: set workflow.samples to 2"
            " or more"
        )
    return workflow.samples


def _refuse_beside_proposals(workflow: GroundingWorkflow, keys: Sequence[str]) -> None:
    """Raise SpecError where a setting of the grounding is stated, and isn't its default.

    Args:
        workflow: The spec's `workflow`.
        keys: The settings that would have no effect.
    """
    stated = workflow.model_fields_set
    for key in keys:
        if key in stated and getattr(workflow, key) != GroundingWorkflow.model_fields[key].default:
            raise SpecError(
                f"workflow.{key} is of boxes that the model finds: leave it out beside"
                " data.proposals, which are judged as they are"
            )


class ImageGroundingJob(RowsJob):
    """`image_grounding` from a spec."""

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
        "caption_grounding": (
            "Are the expressions those that you want boxed, and do the boxes fit as well as with"
            " workflow.fuse: false?"
        ),
        "box_check": "Are the boxes under rejected wrong, and those with verified: true right?",
        "proposal_check": "Are the boxes under rejected false, and are those that stay true?",
        "contradictions": "Do the words of expressions with a contradiction really not fit?",
        "negative_judgement": "Are the expressions with source: negative absent from their images?",
        "missing_search": "Are the instances with found_by things that had been missed?",
        "second_opinion": "Are the boxes right of which the check was in doubt?",
        "crop_judgement": (
            "Are the boxes under rejected wrong, and those with verified: true right?"
        ),
    }

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """Return the steps of the pipeline that the spec states: with proposals, or with grounding.

        The servings of further models are made, too. Raises SpecError for settings that don't go
        together.
        """
        block = self.spec.block
        assert isinstance(block, ImageGroundingBlock)
        settings = {**block.workflow.own(), "verify": block.workflow.verify == "reground"}
        if block.vlm.cascade is not None and not block.workflow.check:
            raise SpecError(
                "vlm.cascade is asked what a check leaves in doubt: set workflow.check to true or"
                " fast, or leave it out"
            )
        judge = self._other_serving(block.judge_vlm, "check")
        further = self._cascade_servings(block)
        if block.data.proposals == SAMPLES:
            _refuse_beside_proposals(block.workflow, ("fuse", "zoom", "verify", "check"))
            return SampleProposalPipeline(
                storage,
                self.serving,
                samples=_samples_to_unite(block.workflow),
                phrases_per_request=block.workflow.phrases_per_request,
                classes=self._stated_classes(),
                judge=judge,
                contradictions=block.workflow.contradictions,
                negatives=block.workflow.negatives,
                other_images=self._phrases_of_other_images() if block.workflow.negatives else (),
                merge_iou=block.workflow.merge_iou,
            ).steps()
        if block.data.proposals:
            _refuse_beside_proposals(block.workflow, ("samples", "zoom", "verify", "check"))
            return ProposalPipeline(
                storage,
                self.serving,
                judge=judge,
                contradictions=block.workflow.contradictions,
                negatives=block.workflow.negatives,
                merge_iou=block.workflow.merge_iou,
            ).steps()
        return ImageGroundingPipeline(
            storage,
            self.serving,
            classes=self._stated_classes(),
            judge=judge,
            cascade=further,
            other_images=self._phrases_of_other_images() if block.workflow.negatives else (),
            **settings,
        ).steps()

    def _other_serving(self, vlm: VlmBlock | None, key: str) -> Serving | None:
        """Return the serving of a further model, and add it to `servings`; None for None.

        Args:
            vlm: The model's block.
            key: Where it stands below `vlm`, as a SpecError is to name it.
        """
        if vlm is None:
            return None
        block = self.spec.block
        try:
            serving = serving_of(vlm, block.workflow, self.spec.folders)
        except SpecError as error:  # which names keys of `vlm`
            message = re.sub(r"(?<![\w./@-])vlm\.", f"vlm.{key}.", str(error))  # no host's name
            raise SpecError(message) from error
        self.servings.append(serving)
        return serving

    def _cascade_servings(self, block: ImageGroundingBlock) -> list[Serving]:
        """Return the servings of the cascade's models but the first, and add them to `servings`.

        Raises SpecError, which names the entry, from 1 after the first.
        """
        is_list = isinstance(block.vlm.cascade, list)
        servings: list[Serving] = []
        for number, vlm in enumerate(block.cascade_vlms, 1):
            key = f"cascade.{number}" if is_list else "cascade"
            serving = self._other_serving(vlm, key)
            assert serving is not None
            servings.append(serving)
        return servings

    def _phrases_of_other_images(self) -> list[str]:
        """Return the phrases of the input's first captions, each once.

        There are none where a list of classes is looked for in every image, nor where the input has
        no captions or can be read only once.
        """
        data = self.spec.block.data
        assert isinstance(data, GroundingData)
        source = self._input
        can_be_read_twice = not source.plain or kind_of(source.path) == "file"
        if data.classes or source.bare or not can_be_read_twice:
            return []
        from dataflow_grounding.jobs.other_images import phrases_in_captions  # few runs need it

        column = data.columns.get("caption") or source.columns.get("caption", "caption")
        return phrases_in_captions((row.data or {}).get(column) for row in source.read())

    def find_input(self) -> Input:
        """Return the input; with `data.proposals`, what the reader of that label format finds.

        The reader takes the phrases of the stated classes, by which it calls what labels name.
        Raises InputError, MissingExtra; SpecError for a format that isn't known, and for
        `data.split`, as labels have no parts of that kind.
        """
        data = self.spec.block.data
        assert isinstance(data, GroundingData)
        if data.proposals in ("", SAMPLES):
            return super().find_input()
        if data.split:
            raise SpecError(
                "data.split is of data sets from a hub: with data.proposals leave it out, and name"
                " the part's own labels in data.input_jsonl"
            )
        labels = required("seeds", "labels", "data.proposals")
        stated = self._stated_classes()
        phrases: dict[str, str] = {}
        if stated:
            from dataflow_grounding.data.classes import phrases_with_classes  # few runs need it

            phrases = phrases_with_classes(stated)
        source: Input = labels.find_proposals(
            data.input_jsonl,
            data.proposals,
            data.image_root or "",
            phrases,
            self.spec.results_dir,
        )
        return source

    def _stated_classes(self) -> Any:
        """Return `data.classes` as plain lists and mappings; empty without any."""
        return self.spec.block.data.model_dump()["classes"]

    def definitions(self) -> dict[str, str]:
        """Return the terms of the glossary, and the classes' phrases, with what counts as each."""
        definitions = super().definitions()
        classes = self._stated_classes()
        if classes:
            from dataflow_grounding.data.classes import definitions_of  # few runs need it

            definitions.update(definitions_of(classes))
        return definitions

    def wanted(self, steps: list[Step]) -> list[str]:
        """Return the numbers of the steps that the spec asks for.

        With step 1, which finds boxes, all steps behind it are wanted, which look at them again.
        With `workflow.fuse` all steps are.
        """
        numbers = super().wanted(steps)
        workflow = self.spec.block.workflow
        assert isinstance(workflow, GroundingWorkflow)
        if workflow.fuse:  # one step finds phrases and boxes: there are no others to choose
            return [str(number) for number in range(len(steps))]
        if str(GROUND) not in numbers:
            return numbers
        return numbers + [str(number) for number in range(GROUND + 1, len(steps))]
