"""`SpecJob`: what a spec's run needs to know of its pipeline; each pipeline has a subclass."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.data.results_folder import LEGACY_STATE
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import Source
from dataflow_grounding.operators import BoxChecker, Operator
from dataflow_grounding.serving.serving import Serving, check_can_think
from dataflow_grounding.spec import PipelineBlock, Spec, VlmBlock
from dataflow_grounding.spec.user_code import described, in_one_line, named
from dataflow_grounding.tasks.ways_to_ask import form_of
from dataflow_grounding.tasks.wording import Wording, read_prompts
from dataflow_grounding.trust.box_watch import BoxWatch
from dataflow_grounding.trust.choice import FormatChoice

if TYPE_CHECKING:
    from dataflow_grounding.tasks.ways_to_ask import AskingForm

Writer: TypeAlias = Callable[[Step], None]
"""What writes an output format: it is called after a run with each step whose file is there."""

OUTPUT_FORMATS = {"unified": "unified", "jsonl": "unified", "legacy": "legacy", "both": "legacy"}
"""`workflow.output_format` → the extension that writes it. TAO's code calls `unified` `jsonl`."""


class SpecJob:
    """A spec's pipeline; subclasses make `steps`, `inputs` and `box_format`."""

    name: ClassVar[str]  # what `autolabel_type` says, and the key of the pipeline's block
    block: ClassVar[type[PipelineBlock]]  # the keys of that block
    # Operator's name → what a person should ask of its file after a pilot.
    questions: ClassVar[Mapping[str, str]] = {}

    steps: list[Step]  # the steps that are asked for
    inputs: list[str]  # files of the user that must not be written over
    pilot: int | None = None  # how many rows to take; None takes all
    # of the columns that `columns` returned, those that hold empty lists only
    empty_columns: Sequence[str] = ()
    # the box format that the model is asked for; None for a pipeline without boxes
    box_format: FormatChoice | None

    def __init__(self, spec: Spec, serving: Serving) -> None:
        self.spec, self.serving = spec, serving
        # The spec's serving, then those that answer single steps in its place: in the order of the
        # block's `vlms`.
        self.servings = [serving]
        self._writer = writer_of(spec.block.workflow.output_format, spec.folders)

    @property
    def source(self) -> str | None:
        """What `source` and `pipeline_steps` of the records say; None leaves them out."""
        return self.name

    def take_steps(self, all_steps: list[Step]) -> None:
        """Set `steps`, to those that are asked for, and `box_format`; each step gets a folder."""
        _put_in_folders(all_steps)
        for step in all_steps:
            _watch_as_stated(step.operator, self.spec.block.vlm)
        known = [str(number) for number in range(len(all_steps))]
        wanted = self.wanted(all_steps)
        if not wanted or not set(wanted).issubset(known):
            raise SpecError(f"workflow.steps {wanted}: the steps are {', '.join(known)}")
        self.steps = [
            step for step, number in zip(all_steps, known, strict=True) if number in wanted
        ]
        choices = [getattr(step.operator, "format_choice", None) for step in all_steps]
        asked = [choice for choice in choices if choice is not None]
        for choice in asked:
            choice.recall(all_steps[0].storage.checkpoint_folder)
        self.box_format = asked[0] if asked else None

    def wanted(self, steps: list[Step]) -> list[str]:
        """Return the numbers of the steps that the spec asks for, as texts."""
        return self.spec.block.workflow.steps

    def definitions(self) -> dict[str, str]:
        """Return the terms and phrases that the spec defines, with what counts as each."""
        return {}

    def put_in_words(self) -> None:
        """Give every step's operator the words and the form of asking that the spec states. What an
        operator was given by `with_words` takes precedence.
        """
        block = self.spec.block
        has_words = bool(block.prompts.dir or block.workflow.guidance or self.definitions())
        has_forms = any(vlm.asking != "auto" for vlm in block.vlms)
        if not (has_words or has_forms or any(operator.wording for operator in self.operators)):
            return
        prompts = read_prompts(block.prompts.dir) if block.prompts.dir else {}
        of_spec = Wording(prompts, block.workflow.guidance, self.definitions())
        forms = self._forms_of_asking()
        for operator in self.operators:
            own = operator.wording or Wording()
            wording = Wording(
                {**of_spec.prompts, **own.prompts},
                own.guidance or of_spec.guidance,
                {**of_spec.definitions, **own.definitions},
                own.asking or forms.get(id(operator.serving)),
            )
            check_can_think(operator.serving, wording.asking)
            if wording:  # it has any words, or a form
                operator.wording = wording

    def _forms_of_asking(self) -> "dict[int, AskingForm]":
        # If a serving is several models of the spec, the last that states a form counts.
        forms = {}
        for serving, vlm in zip(self.servings, self.spec.block.vlms, strict=False):
            if vlm.asking == "auto":
                continue
            try:
                forms[id(serving)] = form_of(vlm.asking)
            except SpecError as error:
                raise SpecError(f"vlm.asking: {error}") from None
        return forms

    @property
    def operators(self) -> list[Operator]:
        """The steps' operators, without those of other libraries."""
        return [step.operator for step in self.steps if isinstance(step.operator, Operator)]

    @property
    def reads(self) -> str:
        """The path of what the run reads first, as it is shown to people."""
        return self.steps[0].storage.input_path

    def obstacles(self) -> list[str]:
        """Return what prevents the servings from sending, one sentence each, none twice."""
        texts: list[str] = []
        for serving in self.servings:
            texts += serving.obstacles()
        return list(dict.fromkeys(texts))

    def refuse_obstacles(self) -> None:
        obstacles = self.obstacles()
        if obstacles:
            raise SpecError("\n".join(obstacles))

    def prepare(self) -> None:
        """Make the first step's input file where it isn't the user's own. Raises InputError."""

    def rows(self) -> Iterator[Row]:
        """Yield the first step's rows, made where they aren't made yet. Raises InputError."""
        self.prepare()
        yield from read_rows(self.steps[0].storage.input_path)

    def where(self, row: Row) -> str:
        """Return where a row is, for people, as in `rows.jsonl, line 3`."""
        return f"{self.reads}, line {row.line}"

    def columns(self) -> list[str]:
        """Return the columns of the first step's rows, and set `empty_columns`."""
        self.prepare()
        source = Source(self.steps)
        columns = source.columns()
        self.empty_columns = source.empty_columns
        return columns

    def needs(self) -> list[str]:
        """Return what servings and operators lack, or what is good to know of them, a line each."""
        lines: list[str] = []
        for serving in self.servings:
            lines += needs_of(serving)
        for operator in self.operators:
            lines += needs_of(operator)
        return list(dict.fromkeys(lines))

    def remarks(self) -> list[str]:
        """Return what is good to know of words and input before a run, a line each."""
        ignoring_models: set[str] = set()
        for operator in self.operators:
            if operator.wording and operator.serving is not None and not operator.serving.is_vlm:
                ignoring_models.add(operator.serving.model)
        return [
            f"{model} reads no prompts, guidance or definitions: they change nothing of its answers"
            for model in sorted(ignoring_models)
        ]

    @property
    def image_root_key(self) -> str:
        """The spec's key of the folder of relative image paths; "" for a pipeline without one."""
        return ""

    @property
    def passed_over(self) -> str:
        """A sentence on files of an input folder that aren't taken for pictures; "" for none."""
        return ""

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says besides what it says of every pipeline."""
        box_checks: dict[str, Any] = {}
        suspicions = []
        for operator in self.operators:
            facts = facts_of(operator)
            if "suspect_boxes" in facts:
                suspicions.append(facts["suspect_boxes"])
            if facts.get("box_checks"):
                box_checks = {"box_checks": facts["box_checks"]}
        if not suspicions:
            return {}
        return {"suspect_boxes": next(filter(None, suspicions), None), **box_checks}

    def finish(self) -> None:
        """Write what the output format has besides the step files, for each one that is there. What
        an earlier run in a legacy format has left is removed, unless the format is one.
        """
        output_format = self.spec.block.workflow.output_format
        for step in self.steps:
            if not os.path.exists(step.storage.output_path):
                continue
            if OUTPUT_FORMATS.get(output_format) != "legacy":
                _remove_legacy(step)
            if self._writer is not None:
                failed = (
                    f"workflow.output_format {output_format} failed; the annotations are written"
                )
                # what a user's own writer raises becomes a SpecError that begins so
                with in_one_line(f"{failed}, so fix it and run the same command again"):
                    self._writer(step)


def _watch_as_stated(operator: Any, vlm: VlmBlock) -> None:
    # What isn't stated stays as the operator has it.
    if isinstance(operator, BoxChecker) and vlm.check_every is None:
        operator.check_every = None
    watch = getattr(operator, "watch", None)
    if isinstance(watch, BoxWatch):
        stated = vlm.model_fields_set
        operator.watch = BoxWatch(
            vlm.on_suspect_boxes if "on_suspect_boxes" in stated else watch.on_suspect,
            vlm.check_every if "check_every" in stated else watch.every,
        )


def _put_in_folders(steps: list[Step]) -> None:
    names = tuple(f"step_{number}_{step.operator.name}" for number, step in enumerate(steps))
    for step in steps:
        name = step.operator.name
        try:
            within(".", f"step_{name}")  # neither a backslash nor a line break is in it
            names_a_folder = "/" not in name
        except InputError:
            names_a_folder = False
        if not names_a_folder:
            culprit = "slash" if "/" in name or "\\" in name else "control character"
            what = f"a name with a {culprit} names no folder: give it another `name`"
            raise SpecError(f"operator {name!r}: {what}")
        assert isinstance(step.storage, ResultsStorage)
        step.storage.steps = names
        step.storage.bring_up_to_date = _bring_up_to_date


def _bring_up_to_date(annotations: str) -> None:
    from dataflow_grounding.review.applying import bring_up_to_date  # once a run

    bring_up_to_date(annotations)


def _remove_legacy(step: Step) -> None:
    folder = os.path.dirname(step.storage.output_path)
    if os.path.exists(os.path.join(folder, LEGACY_STATE)):
        from dataflow_grounding.formats.legacy_files import remove_legacy  # few folders have any

        remove_legacy(step)


def writer_of(name: str, folders: Sequence[str]) -> Writer | None:
    """Return what writes an output format besides the step files; None where they are all of it."""
    key = "workflow.output_format"
    if OUTPUT_FORMATS.get(name) == "unified":
        return None
    writer: Writer
    if OUTPUT_FORMATS.get(name) == "legacy":
        from dataflow_grounding.formats.legacy_files import write_legacy  # few runs write them

        return write_legacy
    writer = named(name, key, OUTPUT_FORMATS, folders)
    if not callable(writer):
        raise SpecError(f"{key} {name!r} should name a function that takes a step")
    return writer


def facts_of(part: Operator | Serving) -> dict[str, Any]:
    """Return the `facts()` of a part, which may be a user's own; an `error` where that raises."""
    try:
        return part.facts()
    except (Exception, SystemExit) as error:
        return {"error": described(error)}


def needs_of(part: Operator | Serving) -> list[str]:
    """Return the `needs()` of a part, which may be a user's own; a line says if that raises."""
    try:
        return part.needs()
    except (Exception, SystemExit) as error:
        return [f"needs() of {type(part).__name__} raised {described(error)}"]
