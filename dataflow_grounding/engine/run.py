"""Runs a plan: rows in, records through the steps, files out."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog, ReplyLog
from dataflow_grounding.engine.limiter import Limiter
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.outputs import Failure, Outcome, Outputs
from dataflow_grounding.engine.plan import Annotator, Step, levels
from dataflow_grounding.engine.progress import Now, Progress
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import GroundingError, Interrupted, OperatorFailed, RecordError, RunStopped
from dataflow_grounding.records import Record, Update
from dataflow_grounding.rows import Row
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks import Request

T = TypeVar("T")

GRACE_SECONDS = 5.0
SYNC_SECONDS = 0.5
SYNC_LINES = 50

_limiters: dict[tuple[str, str], Limiter] = {}


def limiter_of(serving: Serving) -> Limiter:
    """The limiter of the serving's endpoint and model, shared by all that run in this process."""
    limiter = _limiters.setdefault((serving.endpoint, serving.model), Limiter(serving.max_workers))
    limiter.most = max(1, serving.max_workers)
    limiter.level = min(limiter.level, float(limiter.most))
    return limiter


class StepAsk:
    """`ask` for one record in one step."""

    def __init__(self, asking: Asking | None, store: ReplyLog, priority: Any, notes: Counter[str]) -> None:
        self._asking, self._store, self._priority, self._notes = asking, store, priority, notes

    async def __call__(self, request: Request[T]) -> T:
        """Puts a request to the step's serving. Raises what failed."""
        if self._asking is None:
            raise OperatorFailed("this operator has no serving to ask")
        answer, notes = await self._asking.answer(request, self._store, self._priority)
        for note in notes:
            self.note(note)
        return answer

    def note(self, what: str) -> None:
        """Count a remark by its first words."""
        self._notes[what.partition(":")[0]] += 1


class Run:
    """One pass over a source with a segment of steps."""

    def __init__(self, steps: list[Step], source: Source, options: RunOptions, name: str | None) -> None:
        self.steps = steps
        self.source = source
        self.options = options
        self.summary = Summary(annotations=steps[-1].storage.output_path, failures_file=steps[0].storage.failures_path)
        self.stopped: RunStopped | None = None
        self._name = name
        self._levels = levels(steps)
        self._budget = Budget(options.max_requests, options.budget_usd, options.prices)
        self._rows: deque[tuple[int, Row]] = deque()
        self._room: list[asyncio.Future[None]] = []
        self._workers: list[asyncio.Task[None]] = []

    async def execute(self) -> Summary:
        """Do it all. Raises RunStopped when the run could not be finished; then no step file has changed."""
        start = time.monotonic()
        self._open()
        helpers = [asyncio.create_task(self._sync_now_and_then()), asyncio.create_task(self._progress().run())]
        restore = self._catch_signals()
        try:
            count = self._most_active()
            self._window = max(256, 8 * count)
            self._workers = [asyncio.create_task(self._work()) for _ in range(count)]
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._raise_what_stopped()
            await asyncio.to_thread(self._sync)
            self._outputs.commit()
        except BaseException:
            self._outputs.discard()
            raise
        finally:
            restore()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._close()
            self.summary.seconds = time.monotonic() - start
            self._add_up()
            if self.stopped is not None:
                self.stopped.summary = self.summary.to_json()
        return self.summary

    def _open(self) -> None:
        self._outputs = Outputs(self.steps, self.summary)
        self._logs: dict[str, KeyedLog] = {}
        self._stores = [self._log(step.storage.replies_path) for step in self.steps]
        images = KeyedLog(f"{self.steps[0].storage.checkpoint_folder}/images.jsonl", buffered=True)
        self._logs[images.path] = images
        self._memo = ImageMemo(images)
        servings = {id(s): s for step in self.steps if (s := step.operator.serving) is not None}
        options = self.options
        self._asking = {
            which: Asking(
                serving,
                limiter_of(serving),
                self._budget,
                max_attempts=options.max_attempts,
                force=options.force_reprocess,
                retry_failed=options.retry_failed,
                stop=self.stop,
            )
            for which, serving in servings.items()
        }

    def _log(self, path: str) -> KeyedLog:
        if path not in self._logs:
            self._logs[path] = KeyedLog(path)
        return self._logs[path]

    def _most_active(self) -> int:
        """Records in work at once: as many as may be in flight, and some that are between two requests."""
        most = sum(asking.limiter.most for asking in self._asking.values()) or 4
        return most + max(8, most // 8)

    def stop(self, why: RunStopped) -> None:
        """Send nothing more; what is in flight may finish."""
        if self.stopped is None:
            self.stopped = why
            for asking in self._asking.values():
                asking.stopped = why
            self._wake()

    async def _work(self) -> None:
        """Take rows and finish them, one after the other, until none is left or the run stops."""
        try:
            while self.stopped is None:
                if not self._rows:
                    self._rows.extend(await self.source.take(64))
                    if not self._rows:
                        return
                    continue
                place, row = self._rows.popleft()
                while place - self._outputs.next >= self._window and self.stopped is None:
                    self._room.append(room := asyncio.get_running_loop().create_future())
                    await room
                outcome = await self._finish(place, row)
                self._outputs.put(place, outcome)
                if place < self._outputs.next:
                    self._wake()
        except RunStopped as why:
            self.stop(why)
        except Exception as error:  # a defect of ours: stop the run rather than lose a row
            self.stop(RunStopped(f"internal error: {type(error).__name__}: {error}"))
            raise

    def _wake(self) -> None:
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()

    async def _finish(self, place: int, row: Row) -> Outcome:
        """Take one row through all steps."""
        outcome = Outcome(row.line, None)
        try:
            record = self.source.record(row)
        except RecordError as error:
            outcome.failures.append(Failure(self.steps[0].label, error))
            return outcome
        image_id = record.get("image_id")
        outcome.image_id = str(image_id) if image_id is not None else None
        updates: list[Update | RecordError | None] = [None] * len(self.steps)
        for level in self._levels:
            now = _merged(record, updates)
            results = await _side_by_side([self._annotate(index, place, now) for index in level])
            for index, result in zip(level, results, strict=True):
                updates[index] = result
            if any(isinstance(result, RecordError) and result.update is None for result in results):
                break
        self._collect(outcome, record, updates)
        return outcome

    def _collect(self, outcome: Outcome, record: Record, updates: list[Update | RecordError | None]) -> None:
        for step, update in zip(self.steps, updates, strict=True):
            if isinstance(update, RecordError):
                outcome.failures.append(Failure(step.label, update))
                update = update.update
            if update is None:
                return
            record = record.updated(update)
            if self._name is not None:
                record["pipeline_steps"] = [*(record.get("pipeline_steps") or []), step.label]
            outcome.records.append(record)

    async def _annotate(self, index: int, place: int, record: Record) -> Update | RecordError:
        step = self.steps[index]
        serving = step.operator.serving
        asking = self._asking[id(serving)] if serving is not None else None
        ask = StepAsk(asking, self._stores[index], (place, index), self.summary.notes)
        return await annotated(step.operator, record, ask, self._memo)

    async def _sync_now_and_then(self) -> None:
        while True:
            for _ in range(10):
                await asyncio.sleep(SYNC_SECONDS / 10)
                if any(log.unsynced >= SYNC_LINES for log in self._logs.values()):
                    break
            try:
                await asyncio.to_thread(self._sync)
            except RunStopped as why:
                self.stop(why)
                return

    def _sync(self) -> None:
        for log in list(self._logs.values()):
            if log.unsynced:
                log.sync()

    def _progress(self) -> Progress:
        total = self.source.length()
        title = " + ".join(step.operator.name for step in self.steps)
        return Progress(lambda: self._now(total), title, self.options.progress)

    def _now(self, total: int | None) -> Now:
        askings = self._asking.values()
        return Now(
            finished=self._outputs.next,
            failed=self.summary.failed,
            total=total,
            sent=sum(a.counts["sent"] for a in askings),
            in_flight=sum(a.limiter.in_flight for a in askings),
            waiting_for_rate_limit=sum(a.waiting_for_rate_limit for a in askings),
            cost_usd=self._budget.spent if self._budget.prices else None,
        )

    def _catch_signals(self) -> Callable[[], None]:
        """First Ctrl-C or SIGTERM: finish what is in flight, a few seconds at most. Second: stop now."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if self.stopped is not None:
                self._cancel()
                return
            self.stop(Interrupted("interrupted: every reply so far is kept. Run the same command again to go on"))
            loop.call_later(GRACE_SECONDS, self._cancel)

        caught = []
        for which in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError):
                before = signal.getsignal(which)
                loop.add_signal_handler(which, interrupt)
                caught.append((which, before))

        def restore() -> None:
            for which, before in caught:
                loop.remove_signal_handler(which)
                signal.signal(which, before)

        return restore

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    def _raise_what_stopped(self) -> None:
        for worker in self._workers:
            if not worker.cancelled() and (error := worker.exception()) is not None:
                raise error
        if self.stopped is not None:
            raise self.stopped

    async def _close(self) -> None:
        for asking in self._asking.values():
            with suppress(Exception):
                await asking.serving.aclose()
        for log in self._logs.values():
            log.close()

    def _add_up(self) -> None:
        for asking in self._asking.values():
            self.summary.requests.update(asking.counts)
            if asking.serving.model not in self.summary.models:
                self.summary.models.append(asking.serving.model)
        self.summary.cost_usd = self._budget.spent if self._budget.prices else None


async def annotated(operator: Annotator, record: Record, ask: StepAsk, memo: ImageMemo) -> Update | RecordError:
    """The operator's update of one record, or why there is none. Raises RunStopped."""
    try:
        image_key = operator.reads().get("image")
        if image_key is not None:
            await memo.prepare(record, image_key, operator.serving.image_limits if operator.serving else None)
        return await operator.annotate(record, ask)
    except RecordError as error:
        return error
    except RunStopped:
        raise
    except GroundingError as error:
        return OperatorFailed(str(error))
    except Exception as error:  # the operator's own code, perhaps the user's
        return OperatorFailed(f"{type(error).__name__} in {operator.name}: {' '.join(str(error).split())[:300]}")


def _merged(record: Record, updates: list[Update | RecordError | None]) -> Record:
    for update in updates:
        update = update.update if isinstance(update, RecordError) else update
        if update:
            record = record.updated(update)
    return record


async def _side_by_side(work: list[Coroutine[Any, Any, T]]) -> list[T]:
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, RecordError):  # a RecordError is an answer
            raise result
    return cast("list[T]", results)
