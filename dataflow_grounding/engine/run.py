"""Runs a plan: rows in, records through the steps, files out.

A `place` here is a row's number among the rows of this run, from 0; `Row.place` is that in the
whole input. An `asking` answers the requests to one serving. A checkpoint folder keeps replies from
one run to the next.
"""

import asyncio
import functools
import os
import signal
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
)
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dataflow_grounding._util.errors import ImageChanged, Interrupted, RecordError, RunStopped
from dataflow_grounding.data.records import REMARK, Record, in_one_schema
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import RowWork, StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.concurrency import resumed
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.outputs import Outcome, Outputs
from dataflow_grounding.engine.plan import Result, Step, levels
from dataflow_grounding.engine.progress import Now, Progress
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.run_lock import check_held
from dataflow_grounding.engine.senders.traffic import tell_of_short_wait
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import Workers, all_done, cancel_all, signals_to
from dataflow_grounding.images.image import is_unchanged, let_go
from dataflow_grounding.serving.serving import Serving

SYNC_SECONDS = 0.5  # after which replies are put on disk
SYNC_LINES = 50  # after which they are put there sooner
ROWS_AT_ONCE = 64  # that are read at a time
DEFAULT_WORKERS = 4  # besides the spare ones, where no step asks anything
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


@dataclass
class _Rows:
    """How far the rows of a run are."""

    waiting: deque[tuple[int, Row]] = field(default_factory=deque)  # read, not begun, with places
    taken: int = 0  # read so far
    replayed: int = 0  # rows for which nothing had to be sent
    most_ahead: int = LEAST_WINDOW  # rows between the oldest unfinished one and any other
    # pulsed each time the oldest unfinished one is finished
    moved_on: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Stores:
    """What a run keeps in its checkpoint folder."""

    replies: ReplyLog
    memo: ImageMemo


class Run:
    """One pass over a source: workers take row after row, each through all steps in order."""

    def __init__(
        self,
        steps: list[Step],
        source: Source,
        options: RunOptions,
        budget: Budget,
        idle: Collection[int],
    ) -> None:
        self.steps = steps
        self.source = source
        self.options = options
        self.summary = Summary(
            annotations=steps[-1].storage.output_path, failures_file=steps[0].storage.failures_path
        )
        self.stopped: RunStopped | None = None  # why nothing more is sent
        self._budget = budget
        self._idle = idle  # indices of steps that have nothing to ask about: these can't ask
        self._levels = levels(steps)
        self._rows = _Rows()
        self._workers = Workers(self._interrupt)
        self._are_last_checks_made = False
        self._askings: dict[int, Asking] = {}  # by the id of a serving
        # whether it has come to its first row: then `now` says how far it is
        self.begun = False

    async def execute(self) -> Summary:
        """Take all rows through the steps, put the files in place, and return what was done. The
        `summary` of a RunStopped says that, too; no step file has changed then.
        """
        start = time.monotonic()
        try:
            # with as many requests at once as the folder's last run found the endpoints to take
            with resumed(self._folder, self._servings()):
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

    @property
    def _folder(self) -> str:
        return self.steps[0].storage.checkpoint_folder

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
        with self._opened_stores() as self._stores:
            servings = self._servings()
            for serving in servings:
                asking = Asking(serving, self.options, self._budget, self.stop, len(servings))
                self._askings[id(serving)] = asking
                tell_of_short_wait(self.options, serving)
            try:
                # shards are merged by the lines that their rows had in the input
                keep_lines = self.options.shard is not None
                self._outputs = Outputs(self.steps, self.summary, keep_lines=keep_lines)
                with closing(self._outputs):
                    await self._work_through()
                    # Replies are on disk before any file that was made of them replaces another.
                    await asyncio.to_thread(self._stores.replies.sync)
                    self._outputs.commit(self._rows.taken)
            finally:
                # while the stores are open: a plain question may still be answered
                await self._end_asking()
                if self._budget.prices:
                    # the budget may be that of several runs
                    self.summary.cost_usd = self._budget.spent - spent_before

    @contextmanager
    def _opened_stores(self) -> Iterator[_Stores]:
        replies = ReplyLog(store_path(self._folder), others=other_stores(self._folder))
        with closing(replies):
            images = KeyedLog(os.path.join(self._folder, "images.jsonl"), buffered=True)
            with closing(images):
                yield _Stores(replies, ImageMemo(images))

    async def _end_asking(self) -> None:
        models: dict[str, None] = {}  # each once, in the order of steps
        for asking in self._askings.values():
            await asking.aclose()
            self.summary.requests.update(asking.counts)
            models[asking.serving.model] = None
        self.summary.models = list(models)

    async def _work_through(self) -> None:
        most_in_flight = sum(asking.places.most for asking in self._askings.values())
        if not self._askings:  # no step asks anything
            most_in_flight = DEFAULT_WORKERS
        # one for each request in flight, and some more for rows between two requests
        worker_count = most_in_flight + max(8, most_in_flight // 8)
        # the window is so large that a slow reply, or a long wait, holds no other row up
        self._rows.most_ahead = max(LEAST_WINDOW, WINDOW_PER_WORKER * worker_count)
        self.begun = True
        keep = functools.partial(keep_on_disk, self._stores.replies, self._folder)
        async with self._with_helpers(self._stopping_run(keep)):
            await self._workers.do(self._stopping_run(self._work) for _ in range(worker_count))
            if self.stopped is None:
                # also by the workers, so that an interrupt ends it
                await self._workers.do([self._stopping_run(self._conclude)])

    @asynccontextmanager
    async def _with_helpers(self, *helpers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run helpers next to the block, and take interrupts; raise what has stopped the run."""
        total = self.source.length()
        title = " + ".join(step.operator.name for step in self.steps)
        progress = Progress(lambda: self.now(total), title, self.options.progress)
        tasks = [asyncio.create_task(helper) for helper in (*helpers, progress.run())]
        # a signal may come while the loop is asleep, and has to wake it
        interrupt = functools.partial(
            asyncio.get_running_loop().call_soon_threadsafe, self._workers.interrupt
        )
        try:
            with signals_to(interrupt, signal.SIGINT, signal.SIGTERM):
                yield
        finally:
            await cancel_all(tasks)
        if self.stopped is not None:
            raise self.stopped

    def stop(self, why: RunStopped) -> None:
        """Send nothing more; what is in flight may finish. Only the first reason counts."""
        if self.stopped is None:
            self.stopped = why
            for asking in self._askings.values():
                asking.stopped = why
            self._wake()

    def _interrupt(self) -> bool:
        """Stop, and return whether what is in flight may finish: only at the first interrupt."""
        is_first = self.stopped is None
        self.stop(
            Interrupted(
                "interrupted: every reply so far is kept. Run the same command again to go on"
            )
        )
        return is_first

    async def _stopping_run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work, an error of which stops the run."""
        try:
            await work()
        except RunStopped as why:
            # `_with_helpers` raises it in the end: others may finish what is in flight until then
            self.stop(why)
        except Exception as error:  # a defect of ours: stop the run rather than lose a row
            self.stop(RunStopped(f"internal error: {type(error).__name__}: {error}"))
            raise

    async def _work(self) -> None:
        rows = self._rows
        while self.stopped is None:
            if not rows.waiting:
                more = await self.source.take(ROWS_AT_ONCE)
                rows.taken += len(more)
                rows.waiting.extend(more)
                if not rows.waiting:
                    await self._make_last_checks()
                    return
                continue  # the run may have stopped while they were read
            place, row = rows.waiting.popleft()
            # Nothing is awaited between taking a row and making its record. So no other worker
            # comes in between, and records are made in the order of rows. Their ids need that:
            # the second row of image x is `x@2`.
            record: Record | RecordError
            try:
                record = self.source.record(row)
                if self.source.shares_stem(record):
                    # in YOLO and KITTI, both pictures would have one label file
                    self.summary.notes["shared_stem"] += 1
            except RecordError as error:
                record = error
            # To bound memory, it waits while the row is too far ahead of the oldest unfinished one.
            while self.stopped is None and place - self._outputs.next >= rows.most_ahead:
                await rows.moved_on.wait()
            await self._take_through_steps(place, row, record)
            # A row with stored replies waits for nothing: without this, others would have no turn.
            await asyncio.sleep(0)

    async def _take_through_steps(self, place: int, row: Row, record: Record | RecordError) -> None:
        work = RowWork()
        self._outputs.put(place, await self._finish(place, row, record, work))
        if self._askings and not work.sent:
            self._rows.replayed += 1
        was_oldest_unfinished = place < self._outputs.next  # which `put` has moved past it
        if was_oldest_unfinished:
            self._wake()

    async def _make_last_checks(self) -> None:
        """Check endpoints with the last requests: the first worker does that who finds no row."""
        if self._are_last_checks_made or self.stopped is not None:
            return
        self._are_last_checks_made = True
        for index, step in enumerate(self.steps):
            await step.operator.last_check(self._ask(index, self._rows.taken, RowWork()))

    async def _conclude(self) -> None:
        # A request's priority begins with its row's place. These requests come after all rows.
        place_after_all = self._outputs.next
        for index, step in enumerate(self.steps):
            work = RowWork()
            await step.operator.conclude(self._ask(index, place_after_all, work))
            self.summary.notes.update(work.notes)

    def _wake(self) -> None:
        """Wake all workers that wait now; those that wait later wait for the next time."""
        self._rows.moved_on.set()
        self._rows.moved_on.clear()

    async def _finish(
        self, place: int, row: Row, record: Record | RecordError, work: RowWork
    ) -> Outcome:
        """Take a row through all steps; once more where its image was replaced meanwhile."""
        if isinstance(record, RecordError):
            return Outcome(row.line, None, failures=[(self.steps[0].label, record)])
        results = await self._results_of_steps(place, record, work)
        was_image_replaced = False
        for columns, error in results:
            if columns is None and isinstance(error, ImageChanged):
                was_image_replaced = True
        if was_image_replaced:
            work.back_to(RowWork())  # the second time notes, counts and marks all of it again
            for marked in self._outputs.marks.values():
                marked.difference_update((place, index) for index in range(len(self.steps)))
            results = await self._results_of_steps(place, record, work)
        self.summary.notes.update(work.notes)
        files = [image.file for image in record.images.values()]
        if not all(file.is_far or is_unchanged(file) for file in files):
            # a picture was replaced since the row was begun: the user is told to run again
            self.summary.notes["image_changed"] += 1
        return self._outcome(row, record, results)

    async def _results_of_steps(self, place: int, record: Record, work: RowWork) -> list[Result]:
        """Return each step's result; the steps of a level work side by side."""
        results: list[Result] = [(None, None)] * len(self.steps)
        first_failed = len(self.steps)  # index; none so far
        for level in self._levels:
            # Levels don't follow the order of steps: step 2 may be on an earlier level than step 1.
            # If step 2 fails, step 1 is done all the same, because it has a file of its own. Step 3
            # isn't: its result stays (None, None).
            indices = [index for index in level if index < first_failed]
            record_so_far = record  # with the columns of earlier levels
            for columns, _ in results:
                if columns is not None:
                    record_so_far = record_so_far.updated(columns)
            jobs = [self._annotate(index, place, record_so_far, work) for index in indices]
            if len(jobs) == 1:  # nearly always: it needs no task of its own
                results_of_level = [await jobs[0]]
            else:
                results_of_level = await all_done(jobs)
            for index, result in zip(indices, results_of_level, strict=True):
                results[index] = result
                columns, _ = result
                if columns is None:
                    first_failed = min(first_failed, index)
                elif columns.get(REMARK):  # steps of one level don't see each other's
                    work.remark = joined_remarks([work.remark, columns[REMARK]])
                    columns[REMARK] = work.remark
        return results

    def _outcome(self, row: Row, record: Record, results: list[Result]) -> Outcome:
        outcome = Outcome(row.line, record.image_id)
        # The outcome, or an error's traceback, may keep the record in memory for long, but not its
        # pictures.
        let_go(record)
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

    async def _annotate(self, index: int, place: int, record: Record, work: RowWork) -> Result:
        operator = self.steps[index].operator
        ask = self._ask(index, place, work)
        annotate = functools.partial(
            annotated, operator, record, ask, self._stores.memo, lambda: self._workers.cancelled
        )
        # tried again for a while where the machine has no room for it
        columns, error = await self._workers.until_done(annotate)
        # Only a pipeline's records have one schema. They have it before they are written, because
        # the next step is to get the same record, be it streamed or read from a file.
        is_pipeline = self.source.name is not None
        if columns is not None and is_pipeline:
            columns = in_one_schema(record, columns)
        return columns, error

    def _ask(self, index: int, place: int, work: RowWork) -> StepAsk:
        step = self.steps[index]
        asking = None
        if index not in self._idle:
            # a step without a serving has none
            asking = self._askings.get(id(step.operator.serving))
        return StepAsk(
            asking,
            self._stores.replies,
            step.label,
            priority=(place, index),
            work=work,
            marks=self._outputs.marks,
            wording=step.operator.wording,
            format_choice=step.operator.format_choice,
        )

    def now(self, total: int | None) -> Now:
        """Return how far the run is, of `total` rows."""
        askings = self._askings.values()
        in_flight = 0
        outage = ""  # the first one in words
        for asking in askings:
            in_flight += asking.places.in_flight
            if not outage:
                outage = str(asking.silence)  # "" for none
        return Now(
            finished=self.summary.records,
            replayed=self._rows.replayed,
            failed=self.summary.failed,
            total=total,
            sent=sum(asking.counts["sent"] for asking in askings),
            in_flight=in_flight,
            waiting_for_rate_limit=sum(asking.traffic.waiting_for_rate_limit for asking in askings),
            cost_usd=self._budget.spent if self._budget.prices else None,
            outage=outage,
        )
