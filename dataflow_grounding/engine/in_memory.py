"""An operator at work on records in memory: the same asking, retrying and limits, and no files."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, ImageChanged, RecordError, RunStopped
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.threads import Turn
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.options import RunStart, counter_for_memory, current_options
from dataflow_grounding.engine.plan import (
    SUSPECT,
    UNSEEN,
    Annotator,
    Result,
    may_ask,
    no_marks,
    with_unseen,
)
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify, pictures_of
from dataflow_grounding.engine.workers import Workers, run_blocking
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import find_image, let_go
from dataflow_grounding.images.in_memory import as_path, id_of, is_picture

Results: TypeAlias = dict[int, tuple[ShownRecord, RecordError | None]]
"""By the index of a row: the row as it is returned, and what went wrong."""


class _PlainRow(NamedTuple):
    """A row as a run over files has it."""

    values: dict[str, Any]  # as JSON has them; {} where that can't be
    picture_file: dict[str, str]  # the column of a picture in memory, and the file it is in for now
    error: RecordError | None  # what is wrong with the row


class _RowsAsRecords(NamedTuple):
    records: list[Record]  # one for each row, also for a broken one: the indices are the same
    broken: dict[int, Result]  # by index: what is wrong with a row


class _CheckedRecords(NamedTuple):
    errors: dict[int, Result]  # by index: why a record can't be asked about
    will_ask: bool  # whether any other record may be asked about


# by a serving's class, endpoint and model: taken while an operator that asks them is prepared
_preparing: dict[tuple[type, str, str], Turn] = {}
if hasattr(os, "register_at_fork"):
    # a forked process has no thread that would give a turn back
    os.register_at_fork(after_in_child=_preparing.clear)
DEFAULT_WORKERS = 4  # the assumed number of requests in flight, if no step asks anything


def annotate_all(
    operator: Annotator, rows: Sequence[Mapping[str, Any]], *, until_failure: bool = False
) -> Results:
    """Return, by a row's index, the row with the operator's update, or the row and its error. The
    rows returned hold the caller's own values, though the operator got pictures as files, and other
    values as JSON has them. With `until_failure`, no row is begun once one has failed.
    """
    image_key = operator.reads().get("image")
    records, broken = _as_records(operator, rows)
    errors, will_ask = _check_records(operator, records, broken)
    outcomes = broken | errors  # by index; `_WorkInMemory` enters those of `pending`
    pending = {index: record for index, record in enumerate(records) if index not in outcomes}
    options = current_options.get()
    counter = counter_for_memory(options)
    asking = None
    if will_ask:
        pictures = partial(pictures_of, pending.values(), image_key or IMAGE_COLUMN)
        start = RunStart(options, counter.budget, folder=None, pictures=pictures)
        asking = _prepared_asking(operator, start)
    replies_path = options.replies or ""  # without one, replies last no longer than the call
    with closing(ReplyLog(replies_path)) as store:
        # The operator asks with this when it concludes. Each record gets a copy, whose priority is
        # the record's index: so this one's comes after all of them.
        last = (len(rows),)
        ask_at_end = StepAsk(
            asking,
            store,
            operator.name,
            priority=last,
            wording=operator.wording,
            format_choice=operator.format_choice,
        )
        try:
            work = _WorkInMemory(operator, pending, outcomes, ask_at_end, until_failure)
            run_blocking(work.execute)
        finally:
            if asking is not None:
                counter.add(asking.counts, asking.serving.model)
    return _results(rows, records, outcomes, image_key)


def _prepared_asking(operator: Annotator, start: RunStart) -> Asking | None:
    """Prepare the operator; return what answers its requests, None without a serving."""
    with _turn_of(operator).taken():
        operator.prepare(start)
    if operator.serving is None:
        return None
    # These two options are for runs. Replies of earlier calls, which `options.replies` keeps, are
    # taken in any case.
    own_options = replace(start.options, force_reprocess=False, retry_failed=False)
    return Asking(operator.serving, own_options, start.budget)


def _turn_of(operator: Annotator) -> Turn:
    """Return a turn: threads that call at once would all calibrate the same model, and pay."""
    serving = operator.serving
    if serving is None:
        return Turn()  # nobody waits, because nothing is asked
    # The class is part of it: a serving that asks another one of the same name must not wait for
    # itself.
    whose = (type(serving), serving.endpoint, serving.model)
    return _preparing.setdefault(whose, Turn())


def _results(
    rows: Sequence[Mapping[str, Any]],
    records: Sequence[Record],
    outcomes: Mapping[int, Result],
    image_key: str | None,
) -> Results:
    results: Results = {}
    for index in sorted(outcomes):
        row = rows[index]
        update, error = outcomes[index]
        # The caller's own values: pictures in memory, not the files that they are in for now. The
        # row's `image_id` is left out: the record has it as its id, without a DataFrame's NaN.
        shown = {str(name): value for name, value in row.items() if name != "image_id"}
        if update and error is None:  # a row that failed in part is shown without its update
            shown |= update
        column = image_key or _image_column(row)
        results[index] = ShownRecord.of(records[index], column, shown), error
    return results


def _as_records(operator: Annotator, rows: Sequence[Mapping[str, Any]]) -> _RowsAsRecords:
    image_key = operator.reads().get("image")
    is_needed = bool(operator.needs_image and image_key)
    records: list[Record] = []
    broken: dict[int, Result] = {}
    rows_of_image = NumberTable()
    for index, row in enumerate(rows):
        column = image_key or _image_column(row)
        plain = _as_plain(row, column, is_needed)
        if plain.error is not None:
            broken[index] = (None, plain.error)
        if isinstance(row, Record):  # from another operator: it keeps what tells it apart
            records.append(row.updated(plain.values))
        else:
            records.append(_identified(plain, index, column, rows_of_image))
    return _RowsAsRecords(records, broken)


def _identified(plain: _PlainRow, index: int, column: str, rows_of_image: NumberTable) -> Record:
    """Identify a record; a picture in memory by its content, not by the file it is in for now."""
    with_content_name = {name: id_of(path) for name, path in plain.picture_file.items()}
    record = Record({**plain.values, **with_content_name}, place=index)
    identify(record, column, None, rows_of_image)
    record.update(plain.picture_file)
    return record


def _as_plain(row: Mapping[str, Any], column: str, needed: bool) -> _PlainRow:
    values: dict[str, Any] = {}
    problem: RecordError | None = None
    try:
        picture_file = _picture_as_file(row, column, needed)
    except RecordError as error:
        problem = error
        picture_file = {column: ""}  # the value itself may be no JSON: a text takes its place
    try:
        values = plain_row({**row, **picture_file})
    except BrokenRow as error:
        problem = error
    return _PlainRow(values, picture_file, problem)


def _picture_as_file(row: Mapping[str, Any], column: str, needed: bool) -> dict[str, str]:
    """Return the file that now holds the row's picture, by column; {} for a path or none."""
    value = row.get(column)
    if not is_picture(value):
        value = plain_row({column: value})[column]  # a Path becomes a text, a NaN None
    if isinstance(value, str):  # it is in a file already
        return {}
    if is_picture(value) or (needed and column in row):  # for a needed one, this says what is wrong
        return {column: as_path(value, column)}
    return {}


def _check_records(
    operator: Annotator, records: Sequence[Record], broken: Mapping[int, Result]
) -> _CheckedRecords:
    image_key = operator.reads().get("image")
    errors: dict[int, Result] = {}
    will_ask = False
    for index, record in enumerate(records):
        if index in broken:
            continue
        try:
            if image_key and operator.needs_image:
                find_image(record, image_key)  # raises for a picture that isn't there
            if may_ask(operator, record):
                will_ask = True
        except RecordError as error:
            errors[index] = (None, error)
    return _CheckedRecords(errors, will_ask)


def _image_column(row: Mapping[str, Any]) -> str:
    return row.image_key if isinstance(row, ShownRecord) else IMAGE_COLUMN


class _WorkInMemory:
    """Annotates pending records, the first of the input first, and enters their outcomes."""

    def __init__(
        self,
        operator: Annotator,
        pending: Mapping[int, Record],
        outcomes: dict[int, Result],
        ask_at_end: StepAsk,
        until_failure: bool,
    ) -> None:
        self._operator = operator
        self._pending = pending
        self._outcomes = outcomes
        self._ask_at_end = ask_at_end
        self._until_failure = until_failure
        self._queue = iter(pending.items())  # all workers take from it
        self._has_failed = bool(outcomes)
        # of records with boxes in doubt; StepAsk.note adds them
        self._marks = no_marks()
        self._memo = ImageMemo(None)
        # an interrupt ends them at once: nothing has to be written
        self._workers = Workers(lambda: False)

    async def execute(self) -> None:
        """Annotate all records; where it is stopped, outcomes so far stay entered."""
        asking = self._ask_at_end.asking
        most_in_flight = asking.places.most if asking is not None else DEFAULT_WORKERS
        # twice as many: some prepare pictures while others wait for replies
        count = min(len(self._pending), 2 * most_in_flight)
        try:
            await self._workers.do(self._work() for _ in range(count))
            if self._workers.cancelled:  # `do` doesn't raise that
                raise asyncio.CancelledError
            await self._operator.conclude(self._ask_at_end)
            self._set_marks()
        except RunStopped as stop:
            # An operator may raise it, as SuspectBoxes: then `asking` has to be told, or it would
            # put plain questions when it is closed.
            if asking is not None:
                asking.stopped = stop
            raise
        finally:
            if asking is not None:
                await asking.aclose()

    def _set_marks(self) -> None:
        """Mark the records that the operator's checks have found in doubt."""
        for (index,) in self._marks[SUSPECT]:
            update, error = self._outcomes[index]
            self._outcomes[index] = ({**(update or {}), SUSPECT: True}, error)
        for (index,) in self._marks[UNSEEN]:
            update, error = self._outcomes[index]
            if update is not None:
                columns, _ = with_unseen(update)
                self._outcomes[index] = ({**update, **columns}, error)

    async def _work(self) -> None:
        for index, record in self._queue:
            if self._until_failure and self._has_failed:
                return
            update, error = await self._annotated(index, record)
            let_go(record)  # of its opened picture, because the record lives on in what is returned
            self._outcomes[index] = (update, error)
            if error is not None:
                self._has_failed = True
            # A record that asks nothing waits for nothing: without this, others would have no turn.
            await asyncio.sleep(0)

    async def _annotated(self, index: int, record: Record) -> Result:
        ask = replace(self._ask_at_end, priority=(index,), marks=self._marks)
        annotate_once = partial(
            annotated, self._operator, record, ask, self._memo, lambda: self._workers.cancelled
        )
        update, error = await self._workers.until_done(annotate_once)
        if update is None and isinstance(error, ImageChanged):
            # once more, which reads the image's facts again
            update, error = await self._workers.until_done(annotate_once)
        return update, error
