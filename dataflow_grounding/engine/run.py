"""Runs a plan: rows in, records through the steps, files out.

`Row.place` is a row's number in the whole input. A checkpoint folder keeps replies from one run to
the next.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from typing import Any, NoReturn

from dataflow_grounding._util.errors import Interrupted, RecordError, RunStopped
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path
from dataflow_grounding.engine.loop import AFTER_ALL, DEFAULT_WORKERS, Loop, Taken
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.outputs import Outcome, Outputs
from dataflow_grounding.engine.plan import Result, Step
from dataflow_grounding.engine.progress import Now, Progress
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.run_lock import check_held
from dataflow_grounding.engine.senders.traffic import tell_of_short_wait
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import cancel_all
from dataflow_grounding.images.image import is_unchanged, let_go
from dataflow_grounding.serving.serving import Serving

SYNC_SECONDS = 0.5  # after which replies are put on disk
SYNC_LINES = 50  # after which they are put there sooner
ROWS_AT_ONCE = 64  # that are read at a time
LEAST_WINDOW = 4096  # rows that may be ahead of the oldest unfinished one
WINDOW_PER_WORKER = 64  # the same for each worker, where there are many


async def keep_on_disk(store: KeyedLog, folder: str) -> NoReturn:
    """Put a store's lines on disk now and then; raises TakenOver if another run has the folder."""
    while True:
        for _ in range(10):  # looks ten times in SYNC_SECONDS whether many lines have come
            await asyncio.sleep(SYNC_SECONDS / 10)
            if store.unsynced >= SYNC_LINES:
                break
        # Checked before more is put on disk: another run may be at work in the folder by now.
        check_held(folder)
        with suppress(RuntimeError):  # the system has no thread for it now: the next time may do
            await asyncio.to_thread(store.sync)


class Run(Loop):
    """One pass over a source of files."""

    def __init__(
        self,
        steps: list[Step],
        source: Source,
        options: RunOptions,
        budget: Budget,
        idle: Collection[int],
    ) -> None:
        is_pipeline = source.name is not None  # a single operator's records have no schema
        super().__init__(steps, idle, one_schema=is_pipeline)
        self.source = source
        self.options = options
        self.summary = Summary(
            annotations=steps[-1].storage.output_path, failures_file=steps[0].storage.failures_path
        )
        self.notes = self.summary.notes
        self._budget = budget
        self._folder = steps[0].storage.checkpoint_folder
        # rows that are read and not begun, with their places
        self._rows_waiting: deque[tuple[int, Row]] = deque()
        self._rows_read = 0  # so far
        self._replayed = 0  # rows for which nothing had to be sent
        self._most_ahead = LEAST_WINDOW  # rows between the oldest unfinished one and any other
        # pulsed each time the oldest unfinished one is finished
        self._moved_on = asyncio.Event()
        self._are_last_checks_made = False

    async def execute(self) -> Summary:
        """Take all rows through the steps, put the files in place, and return what was done. The
        `summary` of a RunStopped says that, too; no step file has changed then.
        """
        start = time.monotonic()
        try:
            await self._execute()
        finally:
            self.summary.seconds = time.monotonic() - start
            if self.stopped is not None:
                # Nothing was put in place: files with these names are an earlier run's.
                self.summary.annotations = ""
                self.summary.failures_file = ""
                # No file says what failed. It may have been for what stopped the run, too.
                self.summary.failed = 0
                self.summary.failures.clear()
                self.stopped.summary = self.summary.to_json()
        return self.summary

    def _servings(self) -> list[Serving]:
        """Return each serving once, though several steps may ask it."""
        servings_by_id: dict[int, Serving] = {}
        for step in self.steps:
            serving = step.operator.serving
            if serving is not None:
                servings_by_id[id(serving)] = serving
        return list(servings_by_id.values())

    async def _execute(self) -> None:
        spent_before = self._budget.spent
        images_path = os.path.join(self._folder, "images.jsonl")
        # shards are merged by the lines that their rows had in the input
        keep_lines = self.options.shard is not None
        with (
            closing(ReplyLog(store_path(self._folder), others=other_stores(self._folder))) as store,
            closing(KeyedLog(images_path, buffered=True)) as images,
        ):
            self.store = store
            self.memo = ImageMemo(images)
            servings = self._servings()
            for serving in servings:
                asking = Asking(serving, self.options, self._budget, self.stop, len(servings))
                self.askings[id(serving)] = asking
                tell_of_short_wait(self.options, serving)
            try:
                self._outputs = Outputs(self.steps, self.summary, keep_lines=keep_lines)
                self.marks = self._outputs.marks
                with closing(self._outputs):
                    await self._work_through_with_helpers()
                    # Replies are on disk before any file that was made of them replaces another.
                    await asyncio.to_thread(store.sync)
                    self._outputs.commit(self._rows_read)
            finally:
                # while the stores are open: a plain question may still be answered
                for asking in self.askings.values():
                    await asking.aclose()
                    self.summary.requests.update(asking.counts)
                models = [asking.serving.model for asking in self.askings.values()]
                self.summary.models = list(dict.fromkeys(models))  # each once, in order
                if self._budget.prices:
                    # the budget may be that of several runs
                    self.summary.cost_usd = self._budget.spent - spent_before

    async def _work_through_with_helpers(self) -> None:
        most_in_flight = sum(asking.places.most for asking in self.askings.values())
        if not self.askings:  # no step asks anything
            most_in_flight = DEFAULT_WORKERS
        # one for each request in flight, and some more for rows between two requests
        worker_count = most_in_flight + max(8, most_in_flight // 8)
        # the window is so large that a slow reply, or a long wait, holds no other row up
        self._most_ahead = max(LEAST_WINDOW, WINDOW_PER_WORKER * worker_count)
        keep = partial(keep_on_disk, self.store, self._folder)
        async with self._with_helpers(self._stopping_run(keep)):
            await self.work_through(worker_count)

    @asynccontextmanager
    async def _with_helpers(self, *helpers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run helpers next to the block; raise what has stopped the run."""
        total = self.source.length()
        title = " + ".join(step.operator.name for step in self.steps)
        progress = Progress(lambda: self.now(total), title, self.options.progress)
        tasks = [asyncio.create_task(helper) for helper in (*helpers, progress.run())]
        try:
            yield
        finally:
            await cancel_all(tasks)
        if self.stopped is not None:
            raise self.stopped

    def stop(self, why: RunStopped) -> None:
        """Send nothing more; what is in flight may finish. Only the first reason counts."""
        super().stop(why)
        self._wake()

    def may_finish(self) -> bool:
        """Stop, and return whether what is in flight may finish: only at the first interrupt."""
        is_first = self.stopped is None
        self.stop(
            Interrupted(
                "interrupted: every reply so far is kept. Run the same command again to go on"
            )
        )
        return is_first

    async def take(self) -> Taken | None:
        """Return the next row of the source; make the last checks once there is none."""
        while self.stopped is None:
            if not self._rows_waiting:
                more = await self.source.take(ROWS_AT_ONCE)
                self._rows_read += len(more)
                self._rows_waiting.extend(more)
                if not self._rows_waiting:
                    await self._make_last_checks()
                    return None
                continue  # the run may have stopped while they were read
            place, row = self._rows_waiting[0]
            # To bound memory, it waits while the row is too far ahead of the oldest unfinished one.
            if place - self._outputs.next >= self._most_ahead:
                await self._moved_on.wait()
                continue
            # Nothing is awaited between taking a row and making its record. So no other worker
            # comes in between, and records are made in the order of rows. Their ids need that:
            # the second row of image x is `x@2`.
            self._rows_waiting.popleft()
            try:
                record = self.source.record(row)
            except RecordError as error:
                return Taken(place, error, row.line)
            return Taken(place, record, row.line)
        return None

    def put(self, taken: Taken, results: Sequence[Result], work: RowWork) -> None:
        """Write the row, or have it wait until those before it are finished."""
        self._outputs.put(taken.place, self._outcome(taken, results))
        if self.askings and not work.sent:
            self._replayed += 1
        was_oldest_unfinished = taken.place < self._outputs.next  # which `put` has moved past it
        if was_oldest_unfinished:
            self._wake()

    async def _make_last_checks(self) -> None:
        """Check endpoints with the last requests: the first worker does that who finds no row."""
        if self._are_last_checks_made or self.stopped is not None:
            return
        self._are_last_checks_made = True
        for index, step in enumerate(self.steps):
            await step.operator.last_check(self.ask(index, AFTER_ALL, RowWork()))

    def _wake(self) -> None:
        """Wake all workers that wait now; those that wait later wait for the next time."""
        self._moved_on.set()
        self._moved_on.clear()

    def _outcome(self, taken: Taken, results: Sequence[Result]) -> Outcome:
        if isinstance(taken.record, RecordError):
            return Outcome(taken.line, None, failures=[(self.steps[0].label, taken.record)])
        record = taken.record
        files = [image.file for image in record.images.values()]
        if not all(file.is_far or is_unchanged(file) for file in files):
            # a picture was replaced since the row was begun: the user is told to run again
            self.notes["image_changed"] += 1
        # The outcome, or an error's traceback, may keep the record in memory for long, but not its
        # pictures.
        let_go(record)
        outcome = Outcome(taken.line, record.image_id)
        for step, (columns, error) in zip(self.steps, results, strict=True):
            if error is not None:
                outcome.failures.append((step.label, error))
            if columns is None:
                break
            record = record.updated(columns)
            is_pipeline = self.source.name is not None  # a single operator has no such column
            if is_pipeline:
                before = record.get("pipeline_steps")
                labels = before if isinstance(before, list) else []
                record["pipeline_steps"] = [*labels, step.label]
            outcome.records.append(record)
        return outcome

    def now(self, total: int | None) -> Now:
        """Return how far the run is, of `total` rows."""
        askings = self.askings.values()
        outages = [str(asking.silence) for asking in askings]  # in words; "" for none
        return Now(
            finished=self.summary.records,
            replayed=self._replayed,
            failed=self.summary.failed,
            total=total,
            sent=sum(asking.counts["sent"] for asking in askings),
            in_flight=sum(asking.places.in_flight for asking in askings),
            waiting_for_rate_limit=sum(asking.traffic.waiting_for_rate_limit for asking in askings),
            cost_usd=self._budget.spent if self._budget.prices else None,
            outage=next(filter(None, outages), ""),
        )
