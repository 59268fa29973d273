"""One operator at work on one record."""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import (
    GroundingError,
    ImageChanged,
    OperatorFailed,
    RecordError,
    RunStopped,
    machine_fault,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.users_code import place_of
from dataflow_grounding.data.records import (
    Record,
    Update,
    as_json,
    expression_id,
    has_id,
    is_settled,
)
from dataflow_grounding.engine.added_columns import doubt_columns, image_columns
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.plan import (
    FACT_COLUMNS,
    SUSPECT,
    Annotator,
    Partial,
    Result,
    image_column,
)
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.request import ReadReply, Request

if TYPE_CHECKING:
    from dataflow_grounding.boxes.geometry import Size
    from dataflow_grounding.engine.finished_rows import RowKey
    from dataflow_grounding.tasks.grounding import Found
    from dataflow_grounding.tasks.wording import Wording

T = TypeVar("T")


@dataclass(eq=False)
class RowWork:
    """What was done for one row so far.

    Attributes:
        notes: Remarks by code.
        read: How many replies were read.
        replayed: How many of these were stored before.
        sent: Whether a request had to be sent.
        key: What tells the row, with its pictures as they were when it was begun.
    """

    notes: Counter[str] = field(default_factory=Counter)
    read: int = 0
    replayed: int = 0
    sent: bool = False
    key: "RowKey | None" = None


@dataclass(eq=False)
class StepAsk:
    """The `ask` that an operator is given for one record in one step.

    Attributes:
        asking: What answers requests; None where the step has no serving or nothing to ask.
        store: Where replies are kept.
        step: The step's label.
        priority: Orders requests that wait: the smallest goes first.
        work: Filled in: what was done for the row.
        suspects: Filled in: the `priority` of each one that got boxes that may be wrong.
        answers: Filled in: what was found for the record's expressions, once.
        wording: The user's own words, in which every question is put, checks too: other words may
            bring boxes of another format.
    """

    asking: Asking | None
    store: KeyedLog
    step: str
    priority: Any
    work: RowWork = field(default_factory=RowWork)
    suspects: set[Any] = field(default_factory=set)
    wording: "Wording | None" = None
    answers: "Sequence[Found] | None" = None

    async def __call__(self, request: Request[T]) -> T:
        """Put a request to the step's serving; return the answer, and count the notes on it.

        Raises RecordError, RunStopped; OperatorFailed without a serving.
        """
        if self.asking is None:
            raise OperatorFailed(
                "this operator has no serving to ask, or had nothing to ask when the run began"
            )
        if self.wording is not None:
            request = self.wording.of(request)
        reply = await self.asking.answer(request, self)
        if not _is_read_reply(reply):  # the reader may be a user's
            wanted = "should return the answer and its notes: (answer, [])"
            raise OperatorFailed(f"`read` of a {request.task} request {wanted}")
        answer, notes = reply
        for note in notes:
            if isinstance(note, Note):
                code, text = note
            else:  # a user's reader may write it as "code: text"
                code, _, text = note.partition(":")
            self.note(code, text.strip())
        return answer

    async def aside(self, request: Request[T]) -> ReadReply[T]:
        """Put a request about no record, before all others; return the answer and notes on it.

        It is never answered by a stored reply. Raises RecordError, RunStopped; OperatorFailed
        without a serving.
        """
        if self.asking is None:
            raise OperatorFailed("this operator has no serving to ask")
        self.asking.counts["probes"] += 1
        if self.wording is not None:
            request = self.wording.of(request)
        work = RowWork(self.work.notes)  # the check is no work for the row
        apart = StepAsk(self.asking, self.store, self.step, (-1,), work)
        return await self.asking.answer(request, apart, check=True)

    def vouching(self, of: str, anywhere: str, trusting: bool) -> Vouching:
        """Return what checks say of the step's store; the arguments are Vouching's."""
        return Vouching(self.store, of, anywhere, trusting)

    def found(self, answers: "Sequence[Found]") -> None:
        """Tell what was found for the record's expressions, in place of all that they had."""
        self.answers = answers

    def note(self, code: str, text: str = "") -> None:
        """Count a remark under its code; its `text` isn't kept.

        Suspect boxes aren't counted here: who got them is added to `suspects`, once.
        """
        if code == SUSPECT:
            self.suspects.add(self.priority)
        else:
            self.work.notes[code] += 1


def _is_read_reply(reply: Any) -> bool:
    if not isinstance(reply, tuple) or len(reply) != 2 or isinstance(reply[1], Note):
        return False
    return isinstance(reply[1], (list, tuple))


async def annotated(
    operator: Annotator,
    record: Record,
    ask: StepAsk,
    memo: ImageMemo,
    cancelled: Callable[[], bool] = lambda: True,
) -> Result:
    """Have an operator annotate a record; return the columns it adds, as JSON, and what went wrong.

    Both may be there: an operator can return a Partial. The columns are None where the record
    doesn't go on, the error is None where nothing went wrong. Any error of the operator's own code
    becomes the record's OperatorFailed, or MachineBusy where the machine is short of something.
    What a person has settled stays as it was.

    Args:
        operator: The operator.
        record: The record; it isn't changed.
        ask: The operator's way to a model.
        memo: What is known of images. It forgets an image that was found to be another one.
        cancelled: Whether a CancelledError means that the run was cancelled, and is raised.

    Raises:
        RunStopped: The whole run has to stop, also where the operator's own code fills the disk.
        KeyboardInterrupt, CancelledError: The run is interrupted.
    """
    try:
        ask.answers = None
        image_key = image_column(operator, record)
        size = None
        if image_key is not None:
            limits = operator.serving.image_limits if operator.serving else None
            facts = await memo.prepare(record, image_key, limits)
            if operator.needs_image and operator.looks_at_image:
                size = facts.size
        # On a copy and as plain JSON, so that a streamed record is what one would be that was
        # written and read again.
        update: Any = operator.annotate(record.updated(as_json(record)), ask)
        if not inspect.isawaitable(update):
            wanted = "async def annotate(self, record, ask)"
            raise OperatorFailed(f"annotate of {operator.name} isn't async: write {wanted}")
        update = await update
        lacking = None
        if isinstance(update, Partial):
            lacking = update.error
            update = update.update
        update = _with_added_columns(_checked(update, operator), operator, record, ask, size)
        return _with_settled_phrases(record, as_json(update)), lacking
    except RecordError as error:
        if isinstance(error, ImageChanged) and image_key is not None:
            ask.note("image_changed", "its facts are read again")
            memo.forget(record, image_key)
        return None, error
    except (RunStopped, KeyboardInterrupt):
        raise
    except GroundingError as error:
        return None, OperatorFailed(str(error))
    except asyncio.CancelledError:
        if cancelled():
            raise
        return None, OperatorFailed(
            f"CancelledError in {operator.name}: something that it waited for was cancelled"
        )
    except BaseException as error:  # the operator's own code, perhaps the user's
        fault = machine_fault(error)
        if isinstance(fault, RunStopped):
            raise fault from None
        return None, fault or _failure_of(operator, error)


def _failure_of(operator: Annotator, error: BaseException) -> OperatorFailed:
    message = excerpt(str(error))
    why = f": {message}" if message else ""
    place = place_of(error)
    where = f" ({place})" if place else ""
    failure = OperatorFailed(f"{type(error).__name__} in {operator.name}{why}{where}")
    failure.__cause__ = error
    return failure


def _with_added_columns(
    update: Update, operator: Annotator, record: Record, ask: StepAsk, size: "Size | None"
) -> Update:
    before: Update = {}
    after: Update = {}
    if size is not None:
        before = image_columns(record, size, ask, operator.serving)
    if ask.answers is not None:
        after = doubt_columns(record, ask.answers)
    return {**before, **update, **after, **update}  # what the operator says itself counts


def _with_settled_phrases(record: Record, update: Update) -> Update:
    # Phrases are known by their `expression_id`; a settled one that the update lacks is put back at
    # the end. One that was reviewed but not settled may change: then it counts as reviewed no
    # longer, and its row in the update loses `reviewed_by`. Where the update has no expressions, or
    # nothing was reviewed, the same update is returned.
    before = record.get("expressions")
    rows = update.get("expressions")
    if not (isinstance(before, list) and isinstance(rows, list)):
        return update
    reviewed = _reviewed_in(record, before)
    if not reviewed:
        return update
    merged = []
    put_back = set()
    for number, row in enumerate(rows):
        own_id = _id_of(row, record, number) if isinstance(row, dict) else ""
        truth = reviewed.get(own_id)
        if truth is not None and is_settled(truth):
            row = truth
            put_back.add(own_id)
        elif truth is not None and row != truth:
            row.pop("reviewed_by", None)
        merged.append(row)
    for own_id, truth in reviewed.items():
        if is_settled(truth) and own_id not in put_back:
            merged.append(truth)
    return {**update, "expressions": merged}


def _reviewed_in(record: Record, rows: Sequence[Any]) -> dict[str, dict[str, Any]]:
    reviewed = {}
    for number, row in enumerate(rows):
        if isinstance(row, dict) and row.get("reviewed_by"):
            reviewed[_id_of(row, record, number)] = row
    return reviewed


def _id_of(row: Mapping[str, Any], record: Record, number: int) -> str:
    # Return an expression's id; where it states none, the one that operators give it. That comes
    # from its `number` in the list, from 0.
    own_id = row.get("expression_id")
    return str(own_id) if has_id(own_id) else expression_id(record, number)


def _checked(update: Any, operator: Annotator) -> Update:
    if not isinstance(update, Mapping):
        wanted = "return a dict of columns to add, {} for none"
        raise OperatorFailed(
            f"annotate of {operator.name} returned {type(update).__name__}: {wanted}"
        )
    if operator.sees_all:
        return dict(update)
    undeclared = update.keys() - {*operator.writes().values(), *FACT_COLUMNS}
    if undeclared:
        columns = ", ".join(sorted(map(repr, undeclared)))
        wanted = (
            "which its output_keys don't declare: add it there, so that later steps can read it"
        )
        raise OperatorFailed(f"{operator.name} returned column {columns}, {wanted}")
    return dict(update)
