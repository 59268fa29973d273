"""A plan: the steps of a pipeline in order, checked before anything is spent."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from dataflow_grounding._util.errors import BrokenRow, PlanError
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.expressions import Expression, read_expressions, update_as_json
from dataflow_grounding.data.records import DOUBT, REMARK, ROW_OF_IMAGE, JsonObject, Record, Update
from dataflow_grounding.data.storage import before_looking

if TYPE_CHECKING:
    from dataflow_grounding._util.errors import RecordError
    from dataflow_grounding.boxes.coordinates import BoxFormat
    from dataflow_grounding.data.storage import FileStorage
    from dataflow_grounding.engine.options import RunStart
    from dataflow_grounding.engine.reply_log import Marks
    from dataflow_grounding.serving.serving import Serving
    from dataflow_grounding.tasks.grounding import Found
    from dataflow_grounding.tasks.wording import Wording
from dataflow_grounding.tasks.request import ReadReply, Request

T = TypeVar("T")

SUSPECT = "suspect_boxes"
"""The code of a note, and the column, for boxes that look as if they were in another format."""

UNSEEN = "unseen_phrases"
"""The code of a note: that no box was found for phrases of a record says nothing, because the
endpoint finds nothing in probe pictures, either.
"""

_WHY_UNSEEN = "it may be there: the endpoint found none of the rectangles in a probe picture"


def no_marks() -> dict[str, set[Any]]:
    """Return, by code, which records a run marks at its end if checks doubt them: none yet."""
    return {SUSPECT: set(), UNSEEN: set()}


def with_unseen(row: JsonObject) -> tuple[Update, list[Expression]]:
    """Return the column `expressions` of a row, in which absent phrases are now ambiguous, and a
    list of these phrases. One whose boxes were rejected stays absent: the endpoint did find
    something for it.
    """
    try:
        expressions = read_expressions(Record(row), "expressions")
    except BrokenRow:  # it has none
        return {}, []
    unseen: list[Expression] = []
    for expression in expressions:
        if expression.status == "none" and not expression.rejected:
            expression.status, expression.reason = "ambiguous", _WHY_UNSEEN
            unseen.append(expression)
    return update_as_json({"expressions": expressions}), unseen


FACT_COLUMNS = (
    "image_id",
    "width",
    "height",
    "source",
    "pipeline_steps",
    "doubtful",
    DOUBT,
    REMARK,
    "model",
    ROW_OF_IMAGE,
    SUSPECT,
)
"""Columns of the record schema that steps fill in without naming them."""

NO_MODEL = (
    "has no model that sees what is in a picture: give it a serving of one (DF_BASE_URL and"
    " DF_MODEL name it), or records with column {!r} that says what there is"
)


@dataclass(frozen=True)
class Partial:
    """An update that lacks something.

    The record goes on with it, and `error` is reported as its failure.
    """

    update: Update
    error: RecordError


Result: TypeAlias = "tuple[Update | None, RecordError | None]"
"""What a step adds to a record, None where the record doesn't go on, and what went wrong."""


class Ask(Protocol):
    """An operator's only way to a model: puts a request, returns what its reply says.

    It raises RecordError, which an operator should let through, and RunStopped.
    """

    def __call__(self, request: Request[T]) -> Awaitable[T]:
        """Return the answer to `request`."""

    def note(self, code: str, text: str = "") -> None:
        """Count a remark on this record under `code`, for the run's summary.

        The `text` says it in words.
        """

    def found(self, answers: Sequence[Found]) -> None:
        """Tell what was found for the record's expressions, in place of all that they had.

        `with_answers` does.
        """

    def aside(self, request: Request[T]) -> Awaitable[ReadReply[T]]:
        """Return the answer to a check of the endpoint, and notes on it.

        The check is sent before all other requests, and paid for. Its reply is never taken for the
        answer to a record's request.
        """

    def marks_of(self, reply_group: str, trusting: bool) -> Marks:
        """Return what checks say of the step's store; the arguments are those of Marks."""


class ChosenFormat(Protocol):
    """How a model writes boxes, once that is known."""

    @property
    def format(self) -> BoxFormat:
        """The format of boxes in questions and replies."""


class Annotator:
    """What the engine needs of an operator: here, of one that names no columns and asks nothing.

    A role is what an operator calls a column by: `image`, say, for the column `image_path`.
    """

    optional_keys: ClassVar[Collection[str]] = ()
    """Input roles whose column a record may lack."""
    needs_image: ClassVar[bool] = False
    """Whether each record has to have one image in the column of the role `image`; else it may have
    a list of any number there, or none.
    """

    looks_at_image: ClassVar[bool] = False
    """Whether the engine adds the size of the one image that it needs to what it returns."""

    wording: Wording | None = None
    """The user's own words for its questions; None for the shipped ones."""

    format_choice: ChosenFormat | None = None
    """How its model writes boxes; None for an operator that neither shows nor asks for any."""

    @property
    def name(self) -> str:
        """What the step is called."""
        return type(self).__name__

    @property
    def sees_all(self) -> bool:
        """Whether it may read or write columns that it doesn't name.

        No step then runs next to it.
        """
        return True

    @property
    def serving(self) -> Serving | None:
        """Who answers its requests."""
        return None

    def reads(self) -> dict[str, str]:
        """Return the columns that it reads, by role."""
        return {}

    def writes(self) -> dict[str, str]:
        """Return the columns that it fills in, by role."""
        return {}

    def way_to_rename(self, role: str) -> str:
        """Return in words what to do where the column of an output role is another's already."""
        return f"rename that one, or in a script give this another name with output_{role}_key"

    def settings(self) -> JsonObject | None:
        """Return all that its updates depend on in addition to record and replies, as JSON.

        None if that isn't known, as here: then its runs never count as finished.
        """
        return None

    def files_there(self) -> int | None:
        """Return how many of the files are there that it makes besides its columns, as pictures.

        Where fewer are there than at the end of a run, it is done again. None where it makes none,
        as here.
        """
        return None

    def asks(self, record: Record) -> bool:
        """Return whether it may ask about a record.

        Raises RecordError for what is wrong with the record.
        """
        return False

    async def settle(self, start: RunStart) -> Counter[str]:
        """Find out what it must know of the model, such as the format of the model's boxes.

        A run calls it on its operators that may ask, before any of them asks about a record, so
        that what stops this one stops the run before its records cost anything. Returns counts of
        the requests and tokens that it took: none here, as this operator needs to know nothing.
        """
        return Counter()

    async def prepare(self, start: RunStart) -> Counter[str]:
        """Get ready for a run, before its first record; returns counts of requests and tokens."""
        return await self.settle(start)

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Return the columns to add to `record`: none here.

        `await ask(request)` gives what a reply says. Raises RecordError, RunStopped.
        """
        return {}

    async def last_check(self, ask: Ask) -> None:
        """Check the endpoint with a run's last requests, if it is due; `conclude` heeds it."""

    async def conclude(self, ask: Ask) -> None:
        """Do what is left after a run's last record, before its files are put in place.

        A RunStopped prevents that. By default nothing is left.
        """


def may_ask(operator: Annotator, record: Record) -> bool:
    """Return whether an operator may ask about a record, as its `asks` says. Raises what that does.

    A class may define its own `annotate`, and inherit `asks` from a base class. That `asks` doesn't
    know what the `annotate` does: then the answer is True.
    """
    class_that_annotates = _class_with(type(operator), "annotate")
    class_that_tells = _class_with(type(operator), "asks")
    knows_annotate = issubclass(class_that_tells, class_that_annotates)
    if not knows_annotate:
        return True
    return operator.asks(record)


def _class_with(operator_class: type, name: str) -> type:
    """Return the class that defines the method which the operator class has under a name."""
    for ancestor in operator_class.__mro__:
        if name in vars(ancestor):
            return ancestor
    raise AttributeError(name)


class WholeFile(Annotator):
    """An operator of another library that reads and writes its storage itself, all rows at once."""

    name = ""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name, self.work = name, work


@dataclass(frozen=True)
class Step:
    """An operator, its columns set, between two files; its label may have the step's number."""

    operator: Annotator
    storage: FileStorage
    numbered: bool = True

    @property
    def label(self) -> str:
        """What `pipeline_steps` and `failures.jsonl` call it: `step2_BoxRefiner`, say."""
        if not self.numbered:
            return self.operator.name
        return f"step{self.storage.operator_step}_{self.operator.name}"

    @property
    def image_key(self) -> str | None:
        """The column of the role `image`; None where the operator doesn't look at images."""
        return self.operator.reads().get("image")


def image_column(operator: Annotator, record: Record) -> str | None:
    """Return the column with the path of the record's one image.

    None where the operator doesn't look at it, or can do without and there isn't just one.
    """
    column = operator.reads().get("image")
    if column is None or operator.needs_image:
        return column  # a record without the image that is needed fails when it is opened
    path = record.get(column)  # there may be a list of pictures, or none
    has_one_image = isinstance(path, str) and path != ""
    return column if has_one_image else None


# DataFlow's `operator.run(storage, …)` has no argument by which to tell it what calls it.
noted_steps: ContextVar[list[Step] | None] = ContextVar("noted_steps", default=None)
"""While a pipeline's forward() is called: the steps that it called so far; else None."""


@contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give the variable this value within a `with` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def note_step(step: Step) -> bool:
    """Note a step if a pipeline's `forward()` calls it; else return False: it has to run now.
    Raises PlanError for a step that doesn't fit the earlier ones, or is called by a thread that
    `forward()` has started.
    """
    noted = noted_steps.get()
    if noted is None:
        # No pipeline calls it. Or one does, in a thread, which doesn't see `noted_steps`.
        strays = step.storage.strays
        if strays is not None:  # a pipeline is calling its `forward()`
            name = step.operator.name
            problem = f"forward() calls {name} in a thread of its own: call it in forward() itself"
            strays.append(problem)  # the pipeline raises it: an error in a thread may get lost
            raise PlanError(problem)
        return False
    # `output_path` of a step runs the noted steps, if it is asked for now: a script may want to
    # read that file. Here paths are only compared, so that is turned off.
    with holding(before_looking, None):
        if not isinstance(step.operator, WholeFile):
            _refuse_second_writer(noted, step)
        noted.append(step)
    return True


@contextmanager
def outside_forward() -> Iterator[None]:
    """Run what is called in a `with` block at once, also within a pipeline's `forward()`."""
    with holding(noted_steps, None), holding(before_looking, None):
        yield


def _refuse_second_writer(earlier: Iterable[Step], step: Step) -> None:
    """Raise PlanError where the step would replace a file, and columns would be lost."""
    path = step.storage.output_path
    written = set(step.operator.writes().values())
    for other in earlier:
        writes_other_file = other.storage.output_path != path
        is_second_try = other.operator.name == step.operator.name
        if writes_other_file or is_second_try:
            continue
        lost_columns = set(other.operator.writes().values()) - written
        may_lose_any = not written  # it doesn't say which columns it writes
        if lost_columns or may_lose_any:
            raise PlanError(
                f"{other.operator.name} and {step.operator.name} both write {path}: run each on a"
                " step of its own, self.storage.step()"
            )


def check(steps: Iterable[Step], columns: Iterable[str], empty: Collection[str] = ()) -> None:
    """Raise PlanError for a column that nobody provides, or one that a step would overwrite.
    `columns` are those of the input. Some of them are `empty`: each row has an empty list there, as
    other programs leave `regions: []`. A step may fill them in.
    """
    # by column: "the input", or the label of the step that has written it last
    provider_of = dict.fromkeys(columns, "the input")
    may_have_any_column = False  # because a step may have written columns that it doesn't name
    for step in steps:
        reads = step.operator.reads()
        for role, column in reads.items():
            is_provided = may_have_any_column or column in provider_of or column in FACT_COLUMNS
            if not is_provided and role not in step.operator.optional_keys:
                raise _without_column(step, role, column, there=provider_of.keys())
        written = step.operator.writes()
        for role, column in written.items():
            may_be_filled_in = provider_of.get(column) == "the input" and column in empty
            is_updated = column in reads.values()  # the step reads what it rewrites
            if column in provider_of and not (may_be_filled_in or is_updated):
                whose = f"column {column!r} of {provider_of[column]}"
                way = step.operator.way_to_rename(role)
                raise PlanError(f"{step.label} would overwrite {whose}: {way}")
        provider_of.update(dict.fromkeys(written.values(), step.label))
        if not written:
            may_have_any_column = True


def _without_column(step: Step, role: str, column: str, there: Collection[str]) -> PlanError:
    if needed_without_model(step.operator, role):
        return PlanError(f"{step.label} {NO_MODEL.format(column)}")
    columns_there = ", ".join(map(repr, there)) or "none"
    near = nearest(column, there) or f" (there are: {columns_there})"
    return PlanError(f"{step.label} reads column {column!r}, which nobody provides{near}")


def needed_without_model(operator: Annotator, role: str) -> bool:
    """Return whether a column is read only because the model can't see what things are."""
    # the embedded grounder, say, can't see what is in a picture
    needs_labels = operator.serving is not None and operator.serving.needs_labels
    # The class names the columns that are read with any model. An operator that reads others has
    # added them for this one. Without such names on the class, all are read with any model.
    roles_with_any_model = getattr(type(operator), "input_keys", (role,))
    return needs_labels and role not in roles_with_any_model


def segments(steps: Iterable[Step]) -> list[list[Step]]:
    """Return the steps cut into segments, in which each step reads what the one before wrote."""
    parts: list[list[Step]] = []
    for step in steps:
        if parts and _follows(parts[-1][-1], step):
            parts[-1].append(step)
        else:
            parts.append([step])
    return parts


def _follows(before: Step, step: Step) -> bool:
    """Return whether the step reads what the one before wrote, with the same failures file."""
    if isinstance(before.operator, WholeFile) or isinstance(step.operator, WholeFile):
        return False
    written = (before.storage.output_path, before.storage.failures_path)
    return written == (step.storage.input_path, step.storage.failures_path)


def levels(steps: list[Step]) -> list[list[int]]:
    """Return the indices of the steps, grouped into levels. The steps of a level run side by side:
    each gets the record as it was before the level. So a step is

    - above the steps that write what it reads,
    - on the level of an earlier step that reads what it writes, or above it: that step still gets
      the old value,
    - alone on its level if it sees all columns.
    """
    groups: list[list[int]] = []
    level_after_writing: dict[str, int] = {}  # column → the level after the step that writes it
    last_level_reading: dict[str, int] = {}  # column → the last level that reads it
    at_least = 0  # the level after the last step that sees all columns
    for index, step in enumerate(steps):
        reads = step.operator.reads().values()
        writes = step.operator.writes().values()
        if step.operator.sees_all:
            # alone on its level; all later steps come after it
            level = len(groups)
            at_least = level + 1
        else:
            after_writers = [level_after_writing.get(column, 0) for column in reads]
            with_readers = [last_level_reading.get(column, 0) for column in writes]
            level = max([at_least, *after_writers, *with_readers])
        if level == len(groups):
            groups.append([])
        groups[level].append(index)
        for column in reads:
            last_level_reading[column] = max(level, last_level_reading.get(column, 0))
        for column in writes:
            level_after_writing[column] = level + 1
    return groups


def source_digest(thing: Any) -> str | None:
    """Return a digest of a function's or class's name and source file; None without source."""
    try:
        file = inspect.getsourcefile(thing)
        if file and os.path.exists(file):  # all of it: what it calls may be in the same file
            digest = hashlib.sha256(thing.__qualname__.encode())
            with open(file, "rb") as source:
                digest.update(source.read())
        else:  # a notebook's cell
            digest = hashlib.sha256(inspect.getsource(thing).encode())
    except (OSError, TypeError, AttributeError, SystemError):
        # SystemError: two threads parse at once, in Python 3.11
        return None
    return digest.hexdigest()[:16]
