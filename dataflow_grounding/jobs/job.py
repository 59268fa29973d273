"""A spec's pipeline made ready: its steps, who answers them, and what the first of them reads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import Source
from dataflow_grounding.operators import Operator
from dataflow_grounding.pipelines.pipeline import Pipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import PipelineBlock, Spec
from dataflow_grounding.trust.choice import FormatChoice


class JobInput:
    """What the first of the steps reads: the file of a step before, or as a subclass says."""

    image_root_key = ""  # the spec's key of the folder of relative image paths; "" for none
    passed_over = ""  # a sentence on files of an input folder that aren't taken for pictures
    report: JsonObject | None = None  # what `run.json` says of it

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    @property
    def reads(self) -> str:
        """The path of what the run reads first, as it is shown to people."""
        return self.steps[0].storage.input_path

    def prepare(self) -> None:
        """Make the first step's input file where it isn't the user's own. Raises InputError."""

    def rows(self) -> Iterator[Row]:
        """Yield the first step's rows, made where they aren't made yet. Raises InputError."""
        self.prepare()
        yield from read_rows(self.steps[0].storage.input_path)

    def columns(self) -> tuple[list[str], Sequence[str]]:
        """Return the columns of these rows, and those of them that hold empty lists only."""
        self.prepare()
        source = Source(self.steps)
        return source.columns(), source.empty_columns

    def where(self, row: Row) -> str:
        """Return where a row is, for people, as in `rows.jsonl, line 3`."""
        return f"{self.reads}, line {row.line}"

    def remarks(self) -> list[str]:
        """Return what was found in it, a line each."""
        return []


@dataclass
class Job:
    """What a run of a spec works on. No step has run."""

    servings: Sequence[Serving]  # one for each of the block's `vlms`
    all_steps: list[Step]  # of the pipeline
    steps: list[Step]  # that are asked for, and what has to come before them
    input: JobInput
    files: Sequence[str]  # of the user, that must not be written over

    @property
    def operators(self) -> list[Operator]:
        """The steps' operators, without those of other libraries."""
        return [step.operator for step in self.steps if isinstance(step.operator, Operator)]

    @property
    def box_formats(self) -> list[FormatChoice]:
        """Those in which the pipeline's steps ask for boxes."""
        choices = [getattr(step.operator, "format_choice", None) for step in self.all_steps]
        return [choice for choice in choices if choice is not None]

    @property
    def box_format(self) -> FormatChoice | None:
        """The one that is told of; None for a pipeline without boxes."""
        return next(iter(self.box_formats), None)

    def obstacles(self) -> list[str]:
        """Return what prevents the servings from sending, one sentence each, none twice."""
        texts: list[str] = []
        for serving in self.servings:
            texts += serving.obstacles()
        return list(dict.fromkeys(texts))

    def unanswerable(self) -> list[str]:
        """Return a line for each task that a step states and its serving can't answer."""
        lines = []
        for step in self.steps:
            serving = step.operator.serving
            if serving is None:  # the step asks nothing
                continue
            if serving.tasks is None:  # it answers anything
                continue
            for task in getattr(step.operator, "tasks", ()):
                if task not in serving.tasks:
                    lines.append(
                        f"{step.label} asks {task}, which {serving.model} can't answer: name"
                        " another model in vlm.backend"
                    )
        return lines

    def refuse_obstacles(self) -> None:
        """Raise SpecError for what would have every record fail."""
        lines = self.obstacles() + self.unanswerable()
        if lines:
            raise SpecError("\n".join(lines))


@dataclass(frozen=True)
class Kind:
    """A pipeline that a spec can name."""

    pipeline: type[Pipeline]
    block: type[PipelineBlock]  # the keys of its block
    # makes a job of a spec, its servings, and the number of rows that a pilot takes
    make_job: Callable[[Spec, Sequence[Serving], int | None], Job]

    @property
    def name(self) -> str:
        """The key of its block in a spec."""
        return self.pipeline.name or "pipeline"


def put_in_folders(steps: list[Step]) -> list[Step]:
    """Name the folder of each step, and return the steps. Raises SpecError."""
    names = tuple(f"step_{number}_{step.operator.name}" for number, step in enumerate(steps))
    for step in steps:
        name = step.operator.name
        try:
            within(".", f"step_{name}")
            is_of_folder = "/" in name
        except InputError:
            is_of_folder = True
        if is_of_folder:
            raise SpecError(
                f"operator {name!r}: a name with a slash or a control character names no folder:"
                " give it another `name`"
            )
        assert isinstance(step.storage, ResultsStorage)
        step.storage.steps = names
    return steps


def wanted_steps(all_steps: list[Step], wanted: Sequence[str]) -> list[Step]:
    """Return the steps with these numbers, in order. Raises SpecError for none, or a wrong one."""
    numbers = [str(number) for number in range(len(all_steps))]
    if not wanted or not set(wanted).issubset(numbers):
        raise SpecError(f"workflow.steps {wanted}: the steps are {', '.join(numbers)}")
    return [step for step, number in zip(all_steps, numbers, strict=True) if number in wanted]
