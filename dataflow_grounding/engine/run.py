"""Runs a plan: rows in, records through the steps, files out."""

import asyncio
import functools
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from typing import Any

from dataflow_grounding._util.errors import ImageChanged, Interrupted, RecordError, RunStopped
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.concurrency import resumed
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.outputs import Outcome, Outputs
from dataflow_grounding.engine.plan import Result, Step, levels
from dataflow_grounding.engine.progress import Now, Progress
from dataflow_grounding.engine.run_lock import check_held
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import Workers, all_done, signals_to
from dataflow_grounding.serving.base import Serving

SYNC_SECONDS = 0.5
SYNC_LINES = 50
# seconds that rows with stored replies, which wait for nothing, are worked on at once
LONGEST_TURN = 0.01


class Run:
    """One pass over a source: workers see rows through all steps in order, within a window that
    bounds memory.
    """

    def __init__(
        self,
        steps: list[Step],
        source: Source,
        options: RunOptions,
        budget: Budget,
        idle: Collection[int],
    ) -> None:
        self.steps, self.source, self.options = steps, source, options
        self.summary = Summary(
            annotations=steps[-1].storage.output_path, failures_file=steps[0].storage.failures_path
        )
        self.stopped: RunStopped | None = None
        self._budget, self._idle, self._folder = budget, idle, steps[0].storage.checkpoint_folder
        self._levels = levels(steps)
        self._rows: deque[tuple[int, Row]] = deque()
        self._room = asyncio.Event()
        self._workers = Workers(self._interrupt)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._taken = 0
        self._asked: set[int] = set()  # places of the rows at work for which something was asked
        self._replayed = 0  # rows that were finished without

    async def execute(self) -> Summary:
        """Do it all. Raises RunStopped when the run could not be finished; then no step file has
        changed.
        """
        start = time.monotonic()
        try:
            with resumed(self._folder, self._servings()):
                await self._execute()
        finally:
            self.summary.seconds = time.monotonic() - start
            if self.stopped is not None:
                self.stopped.summary = self.summary.to_json()
        return self.summary

    def _servings(self) -> list[Serving]:
        """Who answers the steps, each once."""
        servings = [
            step.operator.serving for step in self.steps if step.operator.serving is not None
        ]
        return list({id(serving): serving for serving in servings}.values())

    async def _execute(self) -> None:
        spent_before = self._budget.spent
        with ExitStack() as held:
            replies = KeyedLog(store_path(self._folder), others=other_stores(self._folder))
            self._replies = held.enter_context(closing(replies))
            images = KeyedLog(os.path.join(self._folder, "images.jsonl"), buffered=True)
            self._memo = ImageMemo(held.enter_context(closing(images)))
            servings = {id(serving): serving for serving in self._servings()}
            given = (self.options, self._budget, self.stop, len(servings))
            self._askings = {which: Asking(one, *given) for which, one in servings.items()}
            try:
                self._outputs = Outputs(
                    self.steps, self.summary, places=self.options.shard is not None
                )
                with closing(self._outputs):
                    await self._work_through()
                    await asyncio.to_thread(self._replies.sync)
                    self._outputs.commit(self._taken)
            finally:
                await self._end_asking()
                self.summary.cost_usd = (
                    self._budget.spent - spent_before if self._budget.prices else None
                )

    async def _end_asking(self) -> None:
        """Close connections; enter requests, tokens and models."""
        for asking in self._askings.values():
            with suppress(Exception):
                await asking.serving.aclose()
            self.summary.passing_failures += asking.places.settle()
            self.summary.requests.update(asking.counts)
        self.summary.models = list(
            dict.fromkeys(asking.serving.model for asking in self._askings.values())
        )

    async def _sync_now_and_then(self) -> None:
        """Until cancelled: put replies on disk twice a second, or sooner when there are many."""
        while True:
            for _ in range(10):
                await asyncio.sleep(SYNC_SECONDS / 10)
                if self._replies.unsynced >= SYNC_LINES:
                    break
            check_held(self._folder)
            with suppress(RuntimeError):  # no thread to be had for now
                await asyncio.to_thread(self._replies.sync)

    async def _work_through(self) -> None:
        most = sum(asking.places.most for asking in self._askings.values()) or 4
        # as many as may be in flight, and some that are between two requests
        count = most + max(8, most // 8)
        self._window = max(4096, 64 * count)  # a slow reply, or a long wait, holds nobody else up
        self._loop = asyncio.get_running_loop()
        async with self._helped_by(self._heeded(self._sync_now_and_then)):
            await self._workers.do(self._heeded(self._work) for _ in range(count))
            if self.stopped is None:
                await self._workers.do([self._heeded(self._conclude)])

    @asynccontextmanager
    async def _helped_by(self, *helpers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """While the workers work, show how far they are, and heed signals. Raises in the end what
        stopped the run.
        """
        total, title = self.source.length(), " + ".join(step.operator.name for step in self.steps)
        progress = Progress(lambda: self.now(total), title, self.options.progress)
        tasks = [asyncio.create_task(helper) for helper in (*helpers, progress.run())]
        interrupt = functools.partial(
            asyncio.get_running_loop().call_soon_threadsafe, self._workers.interrupt
        )
        try:
            with signals_to(interrupt, signal.SIGINT, signal.SIGTERM):
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self.stopped is not None:
            raise self.stopped

    def stop(self, why: RunStopped) -> None:
        """Send nothing more; what is in flight may finish."""
        if self.stopped is None:
            self.stopped = why
            for asking in self._askings.values():
                asking.stopped = why
            self._wake()

    def interrupt(self) -> None:
        """Stop within seconds, unless it is stopping by itself; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it is over
                self._loop.call_soon_threadsafe(self._leave_off)

    def _leave_off(self) -> None:
        if self.stopped is None:
            self._workers.interrupt()

    @property
    def begun(self) -> bool:
        """Whether it has come to its first row."""
        return self._loop is not None

    def _interrupt(self) -> bool:
        going_on = self.stopped is None
        self.stop(
            Interrupted(
                "interrupted: every reply so far is kept. Run the same command again to go on"
            )
        )
        return going_on

    async def _heeded(self, work: Callable[[], Awaitable[None]]) -> None:
        """What stops some work stops the run."""
        try:
            await work()
        except RunStopped as why:
            self.stop(why)
        except Exception as error:  # a defect of ours: stop the run rather than lose a row
            self.stop(RunStopped(f"internal error: {type(error).__name__}: {error}"))
            raise

    async def _work(self) -> None:
        turn = time.perf_counter()  # since when it has had the event loop for itself
        while self.stopped is None:
            if not self._rows:
                taken = await self.source.take(64)
                self._taken += len(taken)
                self._rows.extend(taken)
                if not self._rows:
                    return
                continue
            place, row = self._rows.popleft()
            try:  # when the row is taken: earlier rows of the same image count for its ids
                record: Record | RecordError = self.source.record(row)
            except RecordError as error:
                record = error
            while place - self._outputs.next >= self._window and self.stopped is None:
                await self._room.wait()
            self._outputs.put(place, await self._finish(place, row, record))
            waited = place in self._asked
            self._replayed += bool(self._askings) and not waited
            self._asked.discard(place)
            if place < self._outputs.next:
                self._wake()
            if not waited and time.perf_counter() - turn > LONGEST_TURN:
                await asyncio.sleep(0)
                waited = True
            if waited:
                turn = time.perf_counter()

    async def _conclude(self) -> None:
        for index, step in enumerate(self.steps):
            await step.operator.conclude(self._ask(index, self._outputs.next))

    def _wake(self) -> None:
        """Let all look again that wait for room."""
        self._room.set()
        self._room.clear()

    async def _finish(
        self, place: int, row: Row, record: Record | RecordError, again: bool = False
    ) -> Outcome:
        """Take one row through all steps; once more when its image is found to be another than was
        known.
        """
        if isinstance(record, RecordError):
            return Outcome(row.line, None, failures=[(self.steps[0].label, record)])
        results: list[Result] = [(None, None)] * len(self.steps)
        for level in self._levels:
            now = record
            for columns, _ in results:
                now = now.updated(columns or {})
            work = [self._annotate(index, place, now) for index in level]
            found = [await work[0]] if len(work) == 1 else await all_done(work)
            for index, result in zip(level, found, strict=True):
                results[index] = result
            if any(columns is None for columns, _ in found):
                break
        if not again and any(
            columns is None and isinstance(error, ImageChanged) for columns, error in results
        ):
            return await self._finish(place, row, record, again=True)
        return self._outcome(row, record, results)

    def _outcome(self, row: Row, record: Record, results: list[Result]) -> Outcome:
        """The record as each step leaves it, up to the first step that it didn't get through."""
        outcome = Outcome(row.line, record.image_id)
        for step, (columns, error) in zip(self.steps, results, strict=True):
            if error is not None:
                outcome.failures.append((step.label, error))
            if columns is None:
                break
            record = record.updated(columns)
            if self.source.name is not None:
                before = record.get("pipeline_steps")
                record["pipeline_steps"] = [
                    *(before if isinstance(before, list) else []),
                    step.label,
                ]
            outcome.records.append(record)
        return outcome

    async def _annotate(self, index: int, place: int, record: Record) -> Result:
        operator, ask = self.steps[index].operator, self._ask(index, place)
        memo, cancelled = self._memo, lambda: self._workers.cancelled
        return await self._workers.until_done(
            lambda: annotated(operator, record, ask, memo, cancelled)
        )

    def _ask(self, index: int, place: int) -> StepAsk:
        step = self.steps[index]
        asking = None if index in self._idle else self._askings.get(id(step.operator.serving))
        asked = functools.partial(self._asked.add, place)
        given = (self.summary.notes, asked, self._outputs.suspects)
        return StepAsk(asking, self._replies, step.label, (place, index), *given)

    def now(self, total: int | None) -> Now:
        """How far it is, of so many rows."""
        askings = self._askings.values()
        return Now(
            finished=self.summary.records,
            replayed=self._replayed,
            failed=self.summary.failed,
            total=total,
            sent=sum(asking.counts["sent"] for asking in askings),
            in_flight=sum(
                place.share.in_flight for asking in askings for place in asking.places.all
            ),
            waiting_for_rate_limit=sum(asking.waiting_for_rate_limit for asking in askings),
            cost_usd=self._budget.spent if self._budget.prices else None,
        )
