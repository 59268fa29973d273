"""One operator at work on one record."""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import (
    GroundingError,
    ImageChanged,
    OperatorFailed,
    PictureReduced,
    RecordError,
    RunStopped,
    machine_fault,
    message_of,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.users_code import place_of
from dataflow_grounding.data.expressions import (
    Expression,
    check_labels_were_read,
    read_expressions,
    read_reviewed,
    update_as_json,
)
from dataflow_grounding.data.records import (
    REMARK,
    Record,
    Update,
    as_json,
)
from dataflow_grounding.engine.added_columns import doubt_columns, image_columns, remark_column
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.plan import (
    FACT_COLUMNS,
    Annotator,
    ChosenFormat,
    Partial,
    Result,
    image_column,
    no_marks,
)
from dataflow_grounding.engine.reply_log import Marks, ReplyLog
from dataflow_grounding.engine.summary import OF_CHECKS
from dataflow_grounding.images.image import name_at_source
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.request import ReadReply, Request

if TYPE_CHECKING:
    from dataflow_grounding.boxes.geometry import Size
    from dataflow_grounding.tasks.grounding import Found
    from dataflow_grounding.tasks.wording import Wording

T = TypeVar("T")
# How often an operator is called for one record, until its pictures fit. One that opens pictures
# without its serving's limits would never be done.
MOST_TIMES = 5
# Notes that don't come again when a row, or a step of it, is done again: a check is made once for
# the whole run, and that a picture was replaced is noted when that is found out.
STAYING = OF_CHECKS | {"image_changed"}


@dataclass(eq=False)
class RowWork:
    """What was done for one row so far, in all of its steps: the asks of all of them add to it."""

    notes: Counter[str] = field(default_factory=Counter)  # by code
    sent: bool = False  # whether a request had to be sent
    remark: str = ""  # of the replies to steps on earlier levels

    def back_to(self, before: "RowWork") -> None:
        """Forget what was noted since `before`, because it comes again."""
        staying = {code: self.notes[code] for code in self.notes.keys() & STAYING}
        # in place: the asks of checks hold the same Counter
        self.notes.clear()
        self.notes.update({**before.notes, **staying})


@dataclass(eq=False)
class StepAsk:
    """The `ask` for one record in one step; `Ask`, in plan.py, says what an operator calls."""

    asking: Asking | None  # None where the step has no serving or nothing to ask
    store: ReplyLog
    step: str  # the label
    priority: Any  # of requests that wait, the smallest goes first
    work: RowWork = field(default_factory=RowWork)
    # by the code of a note that marks records at the end: the priorities of these
    marks: dict[str, set[Any]] = field(default_factory=no_marks)
    # Checks are put in the user's own words, too: other words may bring boxes of another format.
    wording: "Wording | None" = None
    format_choice: ChosenFormat | None = None  # how the operator's model writes boxes
    answers: "Sequence[Found] | None" = None  # what was found for the record's expressions
    remarks: list[str] = field(default_factory=list)  # what replies said next to their answers
    # whether the operator may put its questions once more, with smaller pictures
    may_begin_again: bool = False
    is_picture_reduced: bool = False  # whether it has to, because a picture was refused
    reductions: int = 0  # how often its pictures were refused, and made smaller

    async def __call__(self, request: Request[T]) -> T:
        box_format = self.format_choice.format if self.format_choice else None
        request = request.with_boxes_in(box_format)
        if self.asking is None:
            raise OperatorFailed(
                "this operator has no serving to ask, or had nothing to ask when the run began"
            )
        if self.wording is not None:
            request = self.wording.of(request)
        try:
            reply = await self.asking.answer(request, self)
        except PictureReduced:
            self.is_picture_reduced = True  # even if the operator catches this, and goes on
            raise
        if not _is_read_reply(reply):  # a user's reader may return anything
            wanted = "should return the answer and its notes: (answer, [])"
            raise OperatorFailed(f"`read` of a {request.task} request {wanted}")
        answer, notes = reply
        for note in notes:
            # a user's reader may write a note as "code: text"
            code, _, text = str(note).partition(": ")
            self.note(code)
            if code == REMARK and text:
                self.remarks.append(text)
        return answer

    async def aside(self, request: Request[T]) -> ReadReply[T]:
        """Put a check: a request about no record, which is sent before all others."""
        if self.asking is None:
            raise OperatorFailed("this operator has no serving to ask")
        self.asking.counts["probes"] += 1
        if self.wording is not None:
            request = self.wording.of(request)
        # of what it does, only the notes count for the row
        work = RowWork(self.work.notes)
        # records have priorities from 0 on: checks come before them
        own_ask = StepAsk(self.asking, self.store, self.step, (-1,), work, may_begin_again=True)
        return await self.asking.answer(request, own_ask, check=True)

    def marks_of(self, reply_group: str, trusting: bool) -> Marks:
        return Marks(self.store, reply_group, trusting)

    def found(self, answers: "Sequence[Found]") -> None:
        self.answers = answers

    def begin_again(self, work_before: RowWork) -> None:
        """Forget what an attempt has noted, counted and marked: the next one does that itself."""
        self.work.back_to(work_before)
        for marked in self.marks.values():
            marked.discard(self.priority)

    def note_sent(self) -> None:
        self.work.sent = True

    def note(self, code: str, text: str = "") -> None:
        """Count a remark under its code; the `text` is for readers of the operator's code."""
        if code in self.marks:
            # such a mark is set at the end, in the record whose place the priority tells
            self.marks[code].add(self.priority)
        else:
            self.work.notes[code] += 1


def _is_read_reply(reply: Any) -> bool:
    if not isinstance(reply, tuple) or len(reply) != 2:
        return False
    _, notes = reply
    is_single_note = isinstance(notes, Note)  # which is a tuple as well
    return isinstance(notes, (list, tuple)) and not is_single_note


async def annotated(
    operator: Annotator,
    record: Record,
    ask: StepAsk,
    memo: ImageMemo,
    cancelled: Callable[[], bool],
) -> Result:
    """Have the operator annotate the record; again where its pictures were too large."""
    if ask.asking is not None:
        # An earlier run may have learnt how many bytes a picture may have: use that from the start.
        ask.asking.picture_limit.recall(ask.store)
    # the row's counts as earlier steps have left them, to which another attempt goes back
    work_before = replace(ask.work, notes=Counter(ask.work.notes))
    # A refusal of a picture lowers the limit for pictures. Then the whole operator runs again, and
    # not only its last request, because prompts state the size in which a picture is sent. Replies
    # that came already are read from the store, so nothing is paid for twice.
    for attempt in range(MOST_TIMES):
        is_last_attempt = attempt == MOST_TIMES - 1
        ask.may_begin_again = not is_last_attempt
        ask.is_picture_reduced = False  # `ask` sets it when a picture is refused
        result = await annotated_once(operator, record, ask, memo, cancelled)
        if not ask.is_picture_reduced:
            break
        ask.begin_again(work_before)
    return result


async def annotated_once(
    operator: Annotator,
    record: Record,
    ask: StepAsk,
    memo: ImageMemo,
    cancelled: Callable[[], bool],
) -> Result:
    """Have an operator annotate a record; return its columns, as JSON, and what went wrong."""
    try:
        with name_at_source(record):
            return await _update_of(operator, record, ask, memo)
    except RecordError as error:
        if isinstance(error, ImageChanged):
            image_key = image_column(operator, record)
            if image_key is not None:
                ask.note("image_changed", "its facts are read again")
                memo.forget(record, image_key)
        return None, error
    except (RunStopped, KeyboardInterrupt):
        raise
    except GroundingError as error:  # a SpecError, say: the run goes on with other records
        return None, OperatorFailed(str(error))
    except asyncio.CancelledError:
        if cancelled():  # the whole run
            raise
        return None, OperatorFailed(
            f"CancelledError in {operator.name}: something that it waited for was cancelled"
        )
    except BaseException as error:  # the operator's own code, perhaps the user's
        if isinstance(error, MemoryError) and place_of(error):
            # The user's own code asked for too much, and would again: say, for a file that claims
            # to have 10^12 rows. So the machine isn't at fault.
            return None, failure_of(operator, error)
        fault = machine_fault(error)  # None where the machine is short of nothing
        if isinstance(fault, RunStopped):
            raise fault from None
        return None, fault or failure_of(operator, error)


async def _update_of(operator: Annotator, record: Record, ask: StepAsk, memo: ImageMemo) -> Result:
    ask.answers = None  # the operator may set it, by `ask.found`; read at the end
    ask.remarks = []
    size = None  # of the one image that it needs
    image_key = image_column(operator, record)
    if image_key is not None:
        if record.get(image_key) is None:
            check_labels_were_read(record)  # its error says more than that there is no image
        limits = operator.serving.image_limits if operator.serving else None
        image = await memo.prepare(record, image_key, limits)
        if operator.needs_image and operator.looks_at_image:
            size = image.size
    # It gets a copy as plain JSON, so that a streamed record is the same as one that was written
    # to a file and read again.
    update: Any = operator.annotate(record.updated(as_json(record)), ask)
    if not inspect.isawaitable(update):
        wanted = "async def annotate(self, record, ask)"
        raise OperatorFailed(f"annotate of {operator.name} isn't async: write {wanted}")
    update = await update
    error_of_rest = None  # of what a Partial lacks
    if isinstance(update, Partial):
        error_of_rest = update.error
        update = update.update
    columns = _checked(update, operator)
    columns = _with_added_columns(columns, operator, record, ask, size)
    return _with_settled_phrases(record, update_as_json(columns)), error_of_rest


def failure_of(operator: Annotator, error: BaseException) -> OperatorFailed:
    """Return what an error of an operator's own code means for its record."""
    message = excerpt(message_of(error))
    why = f": {message}" if message else ""
    place = place_of(error)
    where = f" ({place})" if place else ""
    failure = OperatorFailed(f"{type(error).__name__} in {operator.name}{why}{where}")
    failure.__cause__ = error
    return failure


def _with_added_columns(
    update: Update, operator: Annotator, record: Record, ask: StepAsk, size: "Size | None"
) -> Update:
    of_image: Update = {}
    doubts: Update = {}
    if size is not None:
        of_image = image_columns(record, size, ask, operator.serving)
    if ask.answers is not None:
        doubts = doubt_columns(record, ask.answers)
    doubts |= remark_column(record, ask.remarks, ask.work.remark, is_found=ask.answers is not None)
    columns = {**of_image, **update, **doubts}  # the order in which a record has them
    columns.update(update)  # but where two give a column, the operator's value counts
    return columns


def _with_settled_phrases(record: Record, update: Update) -> Update:
    """Leave phrases as they are that people have settled by a review."""
    reviewed_by_id = {each.expression_id: each for each in read_reviewed(record, "expressions")}
    if not reviewed_by_id or "expressions" not in update:
        return update
    merged: list[Expression] = []
    # settled ones that haven't come among the operator's so far
    left_by_id = {key: each for key, each in reviewed_by_id.items() if each.is_settled}
    for expression in read_expressions(record.updated(update), "expressions"):
        reviewed = reviewed_by_id.get(expression.expression_id)
        if reviewed is not None and reviewed.is_settled:
            expression = reviewed
            left_by_id.pop(expression.expression_id, None)
        elif reviewed is not None and expression != reviewed:
            # It changed, so nobody has reviewed it as it is. The operator may have copied this.
            expression = expression.without("reviewed_by")
        merged.append(expression)
    merged += left_by_id.values()  # settled ones that the operator left out
    return {**update, **update_as_json({"expressions": merged})}


def _checked(update: Any, operator: Annotator) -> Update:
    if not isinstance(update, Mapping):
        wanted = "return a dict of columns to add, {} for none"
        raise OperatorFailed(
            f"annotate of {operator.name} returned {type(update).__name__}: {wanted}"
        )
    declared = operator.writes()
    if not declared:  # it may write any column
        return dict(update)
    undeclared = update.keys() - {*declared.values(), *FACT_COLUMNS}
    if undeclared:
        columns = ", ".join(sorted(map(repr, undeclared)))
        wanted = (
            "which its output_keys (`writes` of @operator) don't declare: add it there, so that"
            " later steps can read it"
        )
        raise OperatorFailed(f"{operator.name} returned column {columns}, {wanted}")
    return dict(update)
