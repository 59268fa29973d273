"""One operator at work on one record."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dataflow_grounding._util.errors import (
    GroundingError,
    ImageChanged,
    OperatorFailed,
    RecordError,
    RunStopped,
    machine_fault,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.data.records import Record, Update, as_json, is_settled
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

T = TypeVar("T")


@dataclass(eq=False)
class StepAsk:
    """`ask` for one record in one step."""

    asking: Asking | None
    store: KeyedLog
    step: str
    priority: Any
    notes: Counter[str]
    unstored: Callable[[], None] = lambda: None
    # priorities of those who got boxes that may be wrong
    suspects: set[Any] = field(default_factory=set)

    async def __call__(self, request: Request[T]) -> T:
        """Puts a request to the step's serving. Raises what failed."""
        if self.asking is None:
            raise OperatorFailed(
                "this operator has no serving to ask, or had nothing to ask when the run began"
            )
        found = await self.asking.answer(request, self)
        if not (
            isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], (list, tuple))
        ):
            wanted = "should return the answer and its notes: (answer, [])"
            raise OperatorFailed(f"`read` of a {request.task} request {wanted}")
        for note in found[1]:
            code, text = note if isinstance(note, Note) else note.partition(":")[::2]
            self.note(code, text.strip())
        return found[0]

    async def aside(self, request: Request[T]) -> ReadReply[T]:
        """Puts a request about no record: what its reply says, and notes on reading it. Raises what
        failed.
        """
        if self.asking is None:
            raise OperatorFailed("this operator has no serving to ask")
        self.asking.counts["probes"] += 1
        apart = StepAsk(self.asking, self.store, self.step, (-1,), self.notes)
        return await self.asking.answer(request, apart, check=True)

    def vouching(self, of: str, trusting: bool) -> Vouching:
        """Which replies of the step's store are vouched for."""
        return Vouching(self.store, of, trusting)

    def note(self, code: str, text: str = "") -> None:
        """Count a remark under its code; suspect boxes by record, whenever it comes."""
        if code == SUSPECT:
            self.suspects.add(self.priority)
        else:
            self.notes[code] += 1


async def annotated(
    operator: Annotator,
    record: Record,
    ask: StepAsk,
    memo: ImageMemo,
    cancelled: Callable[[], bool] = lambda: True,
) -> Result:
    """What an operator adds to a record, as plain JSON, and what went wrong. Raises RunStopped."""
    try:
        image_key = image_column(operator, record)
        if image_key is not None:
            await memo.prepare(
                record, image_key, operator.serving.image_limits if operator.serving else None
            )
        # On a copy and as plain JSON, so that a streamed record is what one would be that was
        # written and read again.
        update = await operator.annotate(record.updated(as_json(record)), ask)
        columns, error = (
            (update.update, update.error) if isinstance(update, Partial) else (update, None)
        )
        return _with_truth(record, as_json(_checked(columns, operator))), error
    except RecordError as error:
        if isinstance(error, ImageChanged) and image_key is not None:
            ask.note("image_changed", "its facts are taken anew")
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
        said = excerpt(str(error))
        failed = OperatorFailed(
            f"{type(error).__name__} in {operator.name}" + (f": {said}" if said else "")
        )
        return None, fault or failed


def _with_truth(record: Record, update: Update) -> Update:
    """The update with what people found right as they left it; what a step changes counts as
    reviewed no longer.
    """
    before, rows = record.get("expressions"), update.get("expressions")
    if not (isinstance(before, list) and isinstance(rows, list)):
        return update
    seen = {
        row["expression_id"]: row
        for row in before
        if isinstance(row, dict) and row.get("reviewed_by")
    }
    made = {row["expression_id"]: row for row in rows} if seen else {}
    made |= {name: row for name, row in seen.items() if is_settled(row)}
    for name in made.keys() & seen.keys():
        if made[name] != seen[name]:
            made[name].pop("reviewed_by", None)
    return {**update, "expressions": list(made.values())} if seen else update


def _checked(update: Any, operator: Annotator) -> Update:
    """An operator's update. Raises OperatorFailed where it isn't one, or has columns that no plan
    could know of.
    """
    if not isinstance(update, Mapping):
        wanted = "return a dict of columns to add, {} for none"
        raise OperatorFailed(
            f"annotate of {operator.name} returned {type(update).__name__}: {wanted}"
        )
    undeclared = (
        [] if operator.sees_all else [*update.keys() - {*operator.writes().values(), *FACT_COLUMNS}]
    )
    if undeclared:
        columns = ", ".join(sorted(map(repr, undeclared)))
        wanted = (
            "which its output_keys don't declare: add it there, so that later steps can read it"
        )
        raise OperatorFailed(f"{operator.name} returned column {columns}, {wanted}")
    return dict(update)
