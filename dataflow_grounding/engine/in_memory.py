"""An operator at work on records in memory: the loop of all runs, and no files."""

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from dataflow_grounding._util.errors import BrokenRow, RecordError
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import JsonObject, Record, Update
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.loop import DEFAULT_WORKERS, Loop, Taken
from dataflow_grounding.engine.options import (
    OwnPictures,
    RunStart,
    counter_for_memory,
    current_options,
)
from dataflow_grounding.engine.plan import (
    SUSPECT,
    UNSEEN,
    Annotator,
    Result,
    Step,
    may_ask,
    with_unseen,
)
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.source import IMAGE_COLUMN, RowsOfImage, identify, pictures_of
from dataflow_grounding.engine.workers import Turns, run_blocking
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import find_image, let_go
from dataflow_grounding.images.in_memory import as_path, id_of, is_picture

# By a serving's class, endpoint and model: calls at once would all calibrate the model, and pay.
_preparing: dict[tuple[type, str, str], Turns] = {}
if hasattr(os, "register_at_fork"):
    # a forked process has no loop that would end the work
    os.register_at_fork(after_in_child=_preparing.clear)


@dataclass
class RowInMemory:
    """A row of the caller's, and what became of it."""

    given: JsonObject
    record: Record  # what the operator gets: pictures as files, other values as JSON has them
    image_key: str  # the column of its picture
    may_ask: bool = False
    update: Update | None = None
    error: RecordError | None = None

    def shown(self) -> ShownRecord:
        """Return the row with its update; without that where it has failed, if only in part."""
        # The caller's own values: pictures in memory, not the files that they are in for now. The
        # row's `image_id` is left out: the record has it as its id, without a DataFrame's NaN.
        values = {str(name): value for name, value in self.given.items() if name != "image_id"}
        if self.update and self.error is None:
            values |= self.update
        return ShownRecord.of(self.record, self.image_key, values)


def annotate_all(
    operator: Annotator, given: Sequence[JsonObject], *, until_failure: bool = False
) -> list[RowInMemory]:
    """Annotate a caller's rows. With `until_failure`, none is begun once one has failed."""
    rows_of_image: RowsOfImage = {}
    rows = [_read(operator, row, place, rows_of_image) for place, row in enumerate(given)]
    options = current_options.get()
    counter = counter_for_memory(options)
    pictures = OwnPictures()
    if operator.format_choice is not None and any(row.may_ask for row in rows):
        pending = [row.record for row in rows if row.error is None]
        pictures = pictures_of(pending, operator.reads().get("image") or IMAGE_COLUMN)
    start = RunStart(options, counter.budget, folder=None, pictures=lambda: pictures)
    loop = _InMemory(operator, rows, start, until_failure)
    try:
        # without a file, replies last no longer than the call
        with closing(ReplyLog(options.replies or "")) as loop.store:
            run_blocking(loop.execute)
    finally:
        for asking in loop.askings.values():
            counter.add(asking.counts, asking.serving.model)
    return rows


def _read(
    operator: Annotator, given: JsonObject, place: int, rows_of_image: RowsOfImage
) -> RowInMemory:
    """Read a caller's row; call it in the order of rows."""
    image_key = operator.reads().get("image")
    column = image_key or (given.image_key if isinstance(given, ShownRecord) else IMAGE_COLUMN)
    is_image_needed = bool(operator.needs_image and image_key)
    values: Update = {}
    error: RecordError | None = None
    try:
        picture_file = _picture_as_file(given, column, is_image_needed)
    except RecordError as problem:
        error = problem
        picture_file = {column: ""}  # the value itself may be no JSON: a text takes its place
    try:
        values = plain_row({**given, **picture_file})
    except BrokenRow as problem:
        error = problem
    if isinstance(given, Record):  # from another operator: it keeps what tells it apart
        record = given.updated(values)
    else:
        # a picture in memory is told by its content, not by the file that it is in for now
        content_name = {name: id_of(path) for name, path in picture_file.items()}
        record = Record({**values, **content_name}, place=place)
        identify(record, column, None, rows_of_image)
        record.update(picture_file)
    row = RowInMemory(given, record, column, error=error)
    if error is None:
        try:
            if is_image_needed:
                find_image(record, column)  # raises for a picture that isn't there
            row.may_ask = may_ask(operator, record)
        except RecordError as problem:
            row.error = problem
    return row


def _picture_as_file(row: JsonObject, column: str, needed: bool) -> dict[str, str]:
    """Return the file that now holds the row's picture, by column; {} for a path or none."""
    value = row.get(column)
    if not is_picture(value):
        value = plain_row({column: value})[column]  # a Path becomes a text, a NaN None
    if isinstance(value, str):  # it is in a file already
        return {}
    if is_picture(value) or (needed and column in row):  # for a needed one, this says what is wrong
        return {column: as_path(value, column)}
    return {}


class _InMemory(Loop):
    """Takes a caller's rows, in order, but those that have failed; an interrupt ends it at once."""

    def __init__(
        self,
        operator: Annotator,
        rows: Sequence[RowInMemory],
        start: RunStart,
        until_failure: bool,
    ) -> None:
        super().__init__([Step(operator, FileStorage(""), numbered=False)])
        self._operator = operator
        self._rows = rows
        self._start = start
        self._pending = deque(place for place, row in enumerate(rows) if row.error is None)
        self._until_failure = until_failure
        self._has_failed = len(self._pending) < len(rows)

    async def execute(self) -> None:
        if any(row.may_ask for row in self._rows):
            await self._prepare()
        most_in_flight = sum(asking.places.most for asking in self.askings.values())
        # twice as many: some prepare pictures while others wait for replies
        most_workers = 2 * (most_in_flight or DEFAULT_WORKERS)
        try:
            await self.work_through(max(1, min(len(self._pending), most_workers)))
        finally:
            for asking in self.askings.values():
                await asking.aclose()
        if self.stopped is not None:
            raise self.stopped
        if self.cancelled:
            raise asyncio.CancelledError
        self._set_marks()

    async def _prepare(self) -> None:
        prepare = partial(self._operator.prepare, self._start)
        serving = self._operator.serving
        if serving is None:
            await prepare()
            return
        # The class is part of it: a serving that asks another one of the same name must not wait
        # for itself.
        whose = (type(serving), serving.endpoint, serving.model)
        await _preparing.setdefault(whose, Turns()).take(lambda: True, prepare)
        # These two options are for runs. Replies of earlier calls, which `options.replies` keeps,
        # are taken in any case.
        options = replace(self._start.options, force_reprocess=False, retry_failed=False)
        self.askings[id(serving)] = Asking(serving, options, self._start.budget)

    async def take(self) -> Taken | None:
        if not self._pending or (self._until_failure and self._has_failed):
            return None
        place = self._pending.popleft()
        return Taken(place, self._rows[place].record)

    def put(self, taken: Taken, results: Sequence[Result], work: RowWork) -> None:
        row = self._rows[taken.place]
        let_go(row.record)  # of its opened picture: the record lives on in what is returned
        row.update, row.error = results[0]
        if row.error is not None:
            self._has_failed = True

    def _set_marks(self) -> None:
        """Mark the records that the operator's checks have found in doubt."""
        for place, _ in self.marks[SUSPECT]:
            row = self._rows[place]
            row.update = {**(row.update or {}), SUSPECT: True}
        for place, _ in self.marks[UNSEEN]:
            row = self._rows[place]
            if row.update is not None:
                columns, _ = with_unseen(row.update)
                row.update |= columns
