"""What a spec's run needs to know of its pipeline: its steps, its input, and what it leaves besides
the step files.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import Source
from dataflow_grounding.extras.formats.legacy_files import remove_legacy, write_legacy
from dataflow_grounding.operators import Operator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import PipelineBlock, Spec
from dataflow_grounding.spec.user_code import described, in_one_line, named

Writer: TypeAlias = Callable[[Step], None]
"""Called after a run with each step whose annotations are there; reads `step.storage.output_path`,
writes beside it.
"""

OUTPUT_FORMATS: dict[str, Writer] = {
    **dict.fromkeys(("unified", "jsonl"), remove_legacy),
    **dict.fromkeys(("legacy", "both"), write_legacy),
}
"""`jsonl` is the name of `unified` in TAO's code."""


class SpecJob:
    """A spec's pipeline; subclasses make `steps`, `inputs` and `box_format`. Raises SpecError,
    InputError.
    """

    name: ClassVar[str]  # what `autolabel_type` says, and the key of the pipeline's block
    block: ClassVar[type[PipelineBlock]]  # the keys of that block
    # operator's name → what to ask of its file after a pilot
    questions: ClassVar[Mapping[str, str]] = {}

    steps: list[Step]  # the steps that are asked for
    inputs: list[str]  # files of the user that must not be written over
    pilot: int | None = None  # only the first so many rows
    # the box format that the model is asked for; None for a pipeline without boxes
    box_format: FormatChoice | None

    def __init__(self, spec: Spec, serving: Serving) -> None:
        self.spec, self.serving = spec, serving
        self.servings = [serving]  # with those that answer single steps in its place
        self._writers = writers_of(spec.block.workflow.output_format, spec.folders)

    @property
    def source(self) -> str | None:
        """What `source` and `pipeline_steps` of the records say; None leaves them out."""
        return self.name

    @property
    def operators(self) -> list[Operator]:
        """The operators of the steps, without those of other libraries, which say nothing of
        themselves.
        """
        return [step.operator for step in self.steps if isinstance(step.operator, Operator)]

    @property
    def reads(self) -> str:
        """What the run begins from, for people."""
        return self.steps[0].storage.input_path

    def obstacles(self) -> list[str]:
        """What prevents the servings from sending, one sentence each."""
        return list(
            dict.fromkeys(text for serving in self.servings for text in serving.obstacles())
        )

    def prepare(self) -> None:
        """Make the first step's input file where it isn't the user's own. Raises InputError."""

    def rows(self) -> Iterator[Row]:
        """The first step's rows, made where they aren't made yet."""
        self.prepare()
        yield from read_rows(self.steps[0].storage.input_path)

    def where(self, row: Row) -> str:
        """Where a row stands, for people: the line in the user's own file."""
        return f"{self.reads}, line {row.line}"

    def columns(self) -> list[str]:
        """The columns of the first step's rows. Raises InputError, also where it can be told which
        column is meant.
        """
        self.prepare()
        return Source(self.steps).columns()

    def needs(self) -> list[str]:
        """What servings and operators lack, or what is good to know of them before a run, one line
        each.
        """
        whose: list[Operator | Serving] = [*self.servings, *self.operators]
        return list(dict.fromkeys(line for what in whose for line in needed(what)))

    def remarks(self) -> list[str]:
        """What is good to know of the input before a run, one line each."""
        return []

    def facts(self) -> dict[str, Any]:
        """What `run.json` says besides what it says of every pipeline."""
        found = [told(operator) for operator in self.operators]
        suspects = [facts["suspect_boxes"] for facts in found if "suspect_boxes" in facts]
        return {"suspect_boxes": next(filter(None, suspects), None)} if suspects else {}

    def finish(self) -> None:
        """Leave what the output format has besides step files. Raises SpecError, StorageFailed."""
        failed = (
            f"workflow.output_format {self.spec.block.workflow.output_format} failed; the"
            " annotations are written"
        )
        for step in self.steps:
            if os.path.exists(step.storage.output_path):
                for write in self._writers:
                    with in_one_line(f"{failed}, so fix it and run the same command again"):
                        write(step)


def in_folders(steps: list[Step]) -> list[Step]:
    """The steps, each writing into a folder of `results_dir` that is named for it."""
    names = tuple(f"step_{place}_{step.operator.name}" for place, step in enumerate(steps))
    for step in steps:
        name = step.operator.name
        if "/" in name or not _names_a_file(f"step_{name}"):  # a backslash, a line break
            kind = "slash" if {*"/\\"}.intersection(name) else "control character"
            what = f"a name with a {kind} names no folder: give it another `name`"
            raise SpecError(f"operator {name!r}: {what}")
        assert isinstance(step.storage, ResultsStorage)
        step.storage.steps = names
        step.storage.bring_up_to_date = _bring_up_to_date
    return steps


def _names_a_file(name: str) -> bool:
    try:
        return bool(within(".", name))
    except InputError:
        return False


def _bring_up_to_date(annotations: str) -> None:
    from dataflow_grounding.extras.review.applying import bring_up_to_date  # few runs need it

    bring_up_to_date(annotations)


def recalled(steps: list[Step]) -> FormatChoice | None:
    """The box format that the steps' operators ask for, as their results folder remembers it; None
    without boxes.
    """
    choices = [
        choice
        for step in steps
        if (choice := getattr(step.operator, "format_choice", None)) is not None
    ]
    for choice in choices:
        choice.recall(steps[0].storage.checkpoint_folder)
    return choices[0] if choices else None


def chosen(steps: list[Step], names: list[str]) -> list[Step]:
    """The steps that the spec asks for, in order. Raises SpecError for a name that no step has."""
    known = [str(place) for place in range(len(steps))]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise SpecError(f"workflow.steps {names}: the steps are {', '.join(known)}")
    return [step for place, step in enumerate(steps) if str(place) in names]


def writers_of(name: str, folders: Sequence[str]) -> tuple[Writer, ...]:
    """The writers of the format that a spec names, a user's own as `module:function`. Raises
    SpecError.
    """
    if name in OUTPUT_FORMATS:
        return (OUTPUT_FORMATS[name],)
    writer = named(name, "workflow.output_format", OUTPUT_FORMATS, folders)
    if not callable(writer):
        raise SpecError(f"workflow.output_format {name!r} should name a function that takes a step")
    return (remove_legacy, writer)


def told(what: Operator | Serving) -> dict[str, Any]:
    """The `facts()` of an operator or a serving, whoever wrote it: `error` where they
    can't be had.
    """
    try:
        return what.facts()
    except (Exception, SystemExit) as error:
        return {"error": described(error)}


def needed(what: Operator | Serving) -> list[str]:
    """The `needs()` of an operator or a serving, whoever wrote it."""
    try:
        return what.needs()
    except (Exception, SystemExit) as error:
        return [f"needs() of {type(what).__name__} raised {described(error)}"]
