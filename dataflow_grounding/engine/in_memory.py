"""An operator at work on records in memory: the same asking, retrying and limits, and no files."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import MemoryLog
from dataflow_grounding.engine.limiter import limiter_of
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.options import RunStart, budget_of, current_options
from dataflow_grounding.engine.patience import Patience
from dataflow_grounding.engine.plan import Annotator, Partial
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify, pictures_of
from dataflow_grounding.engine.workers import Workers
from dataflow_grounding.errors import ImageChanged, RecordError, RunStopped
from dataflow_grounding.records import Record, Update


def annotate_all(operator: Annotator, rows: list[Mapping[str, Any]]) -> list[tuple[Record, RecordError | None]]:
    """Each row, in order, as a record with the operator's update, or with what failed. Raises RunStopped."""
    records = _records(rows, operator.reads().get("image"))
    options = current_options.get()
    budget = budget_of(options)
    image_key = operator.reads().get("image") or IMAGE_COLUMN
    operator.prepare(RunStart(options, budget, None, lambda: pictures_of(records, image_key)))
    return run_blocking(lambda: _annotate_all(operator, records, budget))


def _records(rows: list[Mapping[str, Any]], image_key: str | None) -> list[Record]:
    records = []
    rows_of_image = NumberTable()
    for place, row in enumerate(rows):
        if isinstance(row, Record):  # from another operator: it keeps what tells it apart
            records.append(row.updated({}))
        else:
            records.append(Record(row, place=place))
            identify(records[-1], image_key or IMAGE_COLUMN, None, rows_of_image)
    return records


async def _annotate_all(
    operator: Annotator, records: list[Record], budget: Budget
) -> list[tuple[Record, RecordError | None]]:
    asking = _asking(operator, budget)
    store, memo, notes = MemoryLog(), ImageMemo(None), Counter[str]()
    queue, patience = iter(enumerate(records)), Patience()
    results: dict[int, tuple[Record, RecordError | None]] = {}

    async def work() -> None:
        for place, record in queue:
            ask = StepAsk(asking, store, (place,), notes)

            def once(record: Record = record, ask: StepAsk = ask) -> Awaitable[Update | Partial | RecordError]:
                return annotated(operator, record, ask, memo, lambda: workers.cancelled)

            for _ in range(2):  # once more when the image is found to be another than was known
                update = await patience.until_done(once)
                if not isinstance(update, ImageChanged):
                    break
            if isinstance(update, Partial):
                update = update.error
            if isinstance(update, RecordError):
                results[place] = (record, update)
            else:
                results[place] = (record.updated(update), None)

    def stop() -> bool:
        workers.cancel()
        return False

    workers = Workers(stop)
    count = min(len(records), 2 * (asking.limiter.most if asking else 4))
    try:
        workers.start(work() for _ in range(count))
        await workers.finish()
        if workers.cancelled:
            raise asyncio.CancelledError
        await operator.conclude(StepAsk(asking, store, (len(records),), notes))
    except RunStopped as why:
        if asking is not None:
            asking.stopped = why  # nothing more is sent for the records that are under way
        raise
    finally:
        if asking is not None:
            await asking.serving.aclose()
    return [results[place] for place in range(len(records))]


def _asking(operator: Annotator, budget: Budget) -> Asking | None:
    if operator.serving is None:
        return None
    options = replace(current_options.get(), force_reprocess=False, retry_failed=False)  # nothing is stored
    return Asking(operator.serving, options, budget, limiter_of(operator.serving))
