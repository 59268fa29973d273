"""An operator at work on records in memory: the same asking, retrying and limits, and no files."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, ImageChanged, RecordError, RunStopped
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.options import RunStart, current_options, part_of_a_run
from dataflow_grounding.engine.plan import SUSPECT, Annotator, Result, may_ask
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify, pictures_of
from dataflow_grounding.engine.workers import Workers
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import find_image
from dataflow_grounding.images.in_memory import as_path, id_of, is_picture

Results: TypeAlias = dict[int, tuple[ShownRecord, RecordError | None]]


def annotate_all(
    operator: Annotator, rows: Sequence[Mapping[str, Any]], *, until_failure: bool = False
) -> Results:
    """By place, each row with the operator's update or with what failed; `until_failure` begins
    none after a failure.

    While the operator works, a picture in memory is a file, and other values are as JSON has them;
    what comes back are the caller's own. Raises RunStopped.
    """
    image_key = operator.reads().get("image")
    records, outcomes = _records(operator, rows)
    options = current_options.get()
    run = part_of_a_run(options)
    asks = _may_ask(operator, records, outcomes)
    left = {place: record for place, record in enumerate(records) if place not in outcomes}
    if asks:
        pictures = partial(pictures_of, left.values(), image_key or IMAGE_COLUMN)
        operator.prepare(RunStart(options, run.budget, None, pictures))
    asking = None
    if asks and operator.serving is not None:  # nothing is stored
        asking = Asking(
            operator.serving,
            replace(options, force_reprocess=False, retry_failed=False),
            run.budget,
        )
    with closing(KeyedLog(options.replies or "")) as store:
        after_all = StepAsk(asking, store, operator.name, (len(rows),), Counter())
        try:
            run_blocking(lambda: _annotate_all(operator, left, outcomes, after_all, until_failure))
        finally:
            run.add(asking)
    return _results(rows, records, outcomes, image_key)


def _results(
    rows: Sequence[Mapping[str, Any]],
    records: Sequence[Record],
    outcomes: Mapping[int, Result],
    image_key: str | None,
) -> Results:
    results: Results = {}
    for place in sorted(outcomes):
        row, record, (update, error) = rows[place], records[place], outcomes[place]
        # of which ids are made: no NaN
        shown = {str(name): value for name, value in row.items() if name != "image_id"}
        shown |= update if update and error is None else {}  # nothing of one in part
        results[place] = ShownRecord.of(record, image_key or _image_column(row), shown), error
    return results


def _records(
    operator: Annotator, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Record], dict[int, Result]]:
    """The rows as records, as JSON has them, their pictures as files; and, by place, what is wrong
    with rows.
    """
    image_key = operator.reads().get("image")
    records: list[Record] = []
    broken: dict[int, Result] = {}
    rows_of_image = NumberTable()
    for place, row in enumerate(rows):
        column, file, plain = image_key or _image_column(row), {}, {}
        try:
            file = _picture_as_file(row, column, bool(operator.needs_image and image_key))
        except RecordError as error:
            broken[place], file = (None, error), {column: ""}
        try:
            plain = plain_row({**row, **file})
        except BrokenRow as error:
            broken[place] = None, error
        if isinstance(row, Record):  # from another operator: it keeps what tells it apart
            records.append(row.updated(plain))
            continue
        record = Record(
            {**plain, **{name: id_of(path) for name, path in file.items()}}, place=place
        )
        identify(record, column, None, rows_of_image)
        record.update(file)
        records.append(record)
    return records, broken


def _picture_as_file(row: Mapping[str, Any], column: str, needed: bool) -> dict[str, str]:
    """The column with the path of a file that has the row's picture, where that isn't named by a
    path. As `as_path`.
    """
    given = row.get(column)
    given = given if is_picture(given) else plain_row({column: given})[column]
    if isinstance(given, str) or not (is_picture(given) or (needed and column in row)):
        return {}
    return {column: as_path(given, column)}


def _may_ask(operator: Annotator, records: Iterable[Record], outcomes: dict[int, Result]) -> bool:
    """Whether it may ask about any record. What is wrong is seen before anything is paid for, a
    calibration too.
    """
    image_key, asks = operator.reads().get("image"), False
    for place, record in enumerate(records):
        if place not in outcomes:
            try:
                if image_key and operator.needs_image:
                    find_image(record, image_key)
                asks |= may_ask(operator, record)
            except RecordError as why:
                outcomes[place] = None, why
    return asks


def _image_column(row: Mapping[str, Any]) -> str:
    return row.image_key if isinstance(row, ShownRecord) else IMAGE_COLUMN


async def _annotate_all(
    operator: Annotator,
    left: Mapping[int, Record],
    outcomes: dict[int, Result],
    after_all: StepAsk,
    until_failure: bool,
) -> None:
    """Fills in the outcomes of the records that are left, by place; `after_all` is for the
    operator's conclusion.
    """
    asking, memo = after_all.asking, ImageMemo(None)
    queue = iter(left.items())
    suspects: set[tuple[int]] = set()
    failed = bool(outcomes)  # those that are there before anything is asked are all failures

    async def work() -> None:
        nonlocal failed
        for place, record in queue:
            if until_failure and failed:
                return
            ask = replace(after_all, priority=(place,), suspects=suspects)
            once = partial(annotated, operator, record, ask, memo, lambda: workers.cancelled)
            for _ in range(2):  # once more when the image is found to be another than was known
                update, error = await workers.until_done(once)
                if update is not None or not isinstance(error, ImageChanged):
                    break
            outcomes[place] = update, error
            failed |= error is not None

    workers = Workers(lambda: False)  # which an interrupt ends at once
    count = min(len(left), 2 * (asking.places.most if asking else 4))
    try:
        await workers.do(work() for _ in range(count))
        if workers.cancelled:
            raise asyncio.CancelledError
        await operator.conclude(after_all)
        for (place,) in suspects:
            update, error = outcomes[place]
            outcomes[place] = {**(update or {}), SUSPECT: True}, error
    except RunStopped as why:
        if asking is not None:
            asking.stopped = why  # nothing more is sent for the records that are under way
        raise
    finally:
        if asking is not None:
            await asking.serving.aclose()
