"""A run by workers in other processes, as its driver sees it.

The driver splits the input into blocks (each a shard), hands them out to workers one after the
other, replaces workers that are lost, and puts the blocks' files together. `ray_run` has the
cluster, and starts the workers.
"""

import asyncio
import os
import sys
import sysconfig
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.engine.limiter import FoundPlaces, Key, share_of
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.workers import GRACE_SECONDS, Workers
from dataflow_grounding.scale.cluster._shipping import shipped
from dataflow_grounding.scale.cluster._worker import ShardOutcome, Work, WorkError
from dataflow_grounding.scale.shard_files import join, write_shards
from dataflow_grounding.serving.serving import Serving

LOOK_SECONDS = 1.0  # between two looks at the workers; the longest wait for their answers, too
# The longest wait for the limiter's sums, once in a run. Without them, requests of lost workers are
# not counted.
SUMS_SECONDS = 10.0
# How many looks of up to 2 s each a worker may leave unanswered in a row. Then it is ended, and may
# not send any more, even if it lives on.
MOST_SILENCES = 30
# How many workers may be lost over one shard, or before they had one. Then the run stops, because
# the shard or the machine is at fault.
MOST_LOSSES = 10


class WorkerLost(Exception):
    """A worker is gone, or can't be made; the text says how, as far as that is known."""


class WorkerHandle:
    """A worker, from its driver's side.

    What waits for an answer raises WorkerLost where none will come.

    Args:
        ray: The module.
        actor: The worker's, on Ray.
        gone: Tells the limiter that it has been ended.
    """

    def __init__(self, ray: Any, actor: Any, gone: Callable[[], object]) -> None:
        self._ray = ray
        self._actor = actor
        self._gone = gone

    async def begin(self, work: bytes) -> WorkError | None:
        """Make the worker ready for shipped Work; return what keeps it from that."""
        wrong: WorkError | None = await self._answer(
            self._actor.begin.remote(work, __version__, os.getcwd(), _own_modules())
        )
        return wrong

    async def work_on(self, shard: Shard) -> ShardOutcome:
        """Have the worker take a shard's rows through the steps."""
        done: ShardOutcome = await self._answer(self._actor.work_on.remote(shard))
        return done

    async def now(self) -> Now | None:
        """Return how far the worker's shard is; None before it has begun."""
        now: Now | None = await self._answer(self._actor.now.remote())
        return now

    def interrupt(self) -> None:
        """Have the worker finish what is in flight, and no more."""
        self._actor.interrupt.remote()

    def end(self) -> None:
        """End the worker at once, no matter what it is doing."""
        with suppress(Exception):  # it is gone already
            self._ray.kill(self._actor)
        with suppress(Exception):  # the limiter is gone, too
            self._gone()

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except self._ray.exceptions.RayError as lost:
            raise WorkerLost(last_line(lost)) from None


def last_line(error: Exception) -> str:
    """Return the last line of an error's text, where Ray puts what happened; "" without a text."""
    return (str(error).strip().splitlines() or [""])[-1].strip()


def _own_modules() -> list[str]:
    # There are the modules of the user, next to a spec or a script. Zip files, and folders that
    # don't exist, are left out.
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    # each with a slash at its end, so that `startswith` tells a folder in it from one next to it
    installed = tuple(os.path.join(sysconfig.get_path(name), "") for name in names)
    own = []
    for path in sys.path:
        folder = os.path.join(os.path.abspath(path), "")
        if os.path.isdir(path or ".") and not folder.startswith(installed):
            own.append(folder.rstrip(os.sep))
    return own


class DrivenRun(Run):
    """One pass over a source by workers in other processes.

    It leaves what a Run in this process would. In `_execute`, subclasses make the limiter of all
    workers, then call `_split`, `_take_through` and `_join`.
    """

    def __init__(self, *arguments: Any) -> None:
        """Make ready the work that is sent to workers; `arguments` are a Run's.

        Raises SpecError where it can't be sent.
        """
        super().__init__(*arguments)
        results = address_of(self.steps[0].storage.cache_path)
        work = Work(self.steps, self.options, self.source.name, results, speaks_of_specs.get())
        self._shipped = shipped(work)
        # After an interrupt the driver waits a bit longer than its workers, which finish what is in
        # flight.
        self._workers = Workers(self._interrupt, GRACE_SECONDS + 2)
        self._rows_of_shards: dict[Shard, int] = {}  # of all shards that have rows
        self._waiting: deque[Shard] = deque()
        self._at_work: dict[Shard, WorkerHandle] = {}
        self._progress_of_shards: dict[Shard, Now] = {}
        self._losses = Counter[Shard | None]()  # of workers; None: before they had a shard
        # What finished shards have sent and spent.
        self._sent = 0
        self._paid = 0.0
        self._silences = Counter[WorkerHandle]()  # looks in a row that were not answered
        self._started = False  # whether any worker has begun

    @abstractmethod
    async def _start_worker(self) -> WorkerHandle: ...

    @abstractmethod
    async def _totals(self) -> tuple[int, float]: ...

    @abstractmethod
    async def _found(self) -> dict[Key, FoundPlaces]: ...

    def _split(self, blocks: int) -> None:
        # Blocks without rows are left out from here on.
        shards = write_shards(self.source, blocks, self.steps[0].storage.cache_path)
        self._rows_of_shards = {shard: rows for shard, rows in shards.items() if rows}
        self._waiting.extend(self._rows_of_shards)

    async def _take_through(self, workers: int, *watches: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._with_helpers(self._ask_for_progress(), *watches):
                count = min(workers, len(self._rows_of_shards))
                await self._workers.do(self._serve() for _ in range(count))
        finally:
            await self._count_the_lost()
            await self._keep_found()

    async def _keep_found(self) -> None:
        with suppress(Exception):  # the limiter is lost
            found = await asyncio.wait_for(self._found(), LOOK_SECONDS)
            for key, serving in self._endpoints().items():
                if key in found:
                    share_of(serving).resume(found[key])

    def _join(self) -> None:
        join(self.steps, list(self._rows_of_shards), self.summary)

    def _endpoints(self) -> dict[Key, Serving]:
        endpoints: dict[Key, Serving] = {}
        for serving in self._servings():
            for part, _ in serving.endpoints():
                if "://" in part.endpoint:
                    endpoints[part.endpoint, part.model] = part
        return endpoints

    def stop(self, why: RunStopped) -> None:
        """Begin nothing more; what is in flight may finish. The first reason to stop counts."""
        if self.stopped is None:
            self.stopped = why
            for worker in self._at_work.values():
                worker.interrupt()
            self._cancel_idle()

    def _cancel_idle(self) -> None:
        if not self._at_work and (self.stopped or not self._waiting):
            self._workers.cancel()

    async def _serve(self) -> None:
        while self.stopped is None and self._waiting:
            shard: Shard | None = None
            worker: WorkerHandle | None = None
            try:
                worker = await self._start_worker()
                wrong = await worker.begin(self._shipped)
                if wrong is not None:
                    raise wrong.error_class(wrong.text)
                self._started = True
                self._losses[None] = 0
                while self.stopped is None and self._waiting:
                    shard = self._waiting.popleft()
                    self._at_work[shard] = worker
                    self._settle(shard, await worker.work_on(shard))
            except WorkerLost as lost:
                self._take_back(shard, lost)
            except Exception:
                self.stop(RunStopped("stopped by an error"))
                raise
            finally:
                if shard is not None:
                    self._at_work.pop(shard, None)
                if worker is not None:
                    worker.end()
        self._cancel_idle()

    def _take_back(self, shard: Shard | None, lost: WorkerLost) -> None:
        # Where it has lost MOST_LOSSES workers, the run is stopped, with the last one's loss as the
        # reason.
        if shard is not None:
            self._waiting.appendleft(shard)
        self._losses[shard] += 1
        if self._losses[shard] >= MOST_LOSSES:
            what = f"with {shard}" if shard else "that were to begin"
            why = f"Ray lost {MOST_LOSSES} workers {what}: {lost}"
            self.stop(RunStopped(f"{why}. The same command goes on"))

    def _settle(self, shard: Shard, outcome: ShardOutcome) -> None:
        # Where a RunStopped kept it from being finished, the whole run is stopped by `self.stop`;
        # any other error is raised.
        del self._at_work[shard]
        self._progress_of_shards[shard] = outcome.now
        self.summary.add_part(outcome.summary)
        self._sent += outcome.summary.requests["sent"]
        self._paid += outcome.summary.cost_usd or 0.0
        if outcome.wrong is None:
            return
        error = outcome.wrong.error_class(outcome.wrong.text)
        if not isinstance(error, RunStopped):
            raise error
        self.stop(error)

    async def _count_the_lost(self) -> None:
        # Add to the summary what lost workers have sent and spent, if there are any. That is what
        # the limiter knows of all workers, less what the shards that came back have; nothing where
        # it doesn't answer in time.
        if not self._losses.total():
            return
        with suppress(Exception):  # the limiter is lost too
            sent, usd = await asyncio.wait_for(self._totals(), SUMS_SECONDS)
            self.summary.requests["sent"] += max(0, sent - self._sent)
            if self.summary.cost_usd is not None:
                self.summary.cost_usd += max(0.0, usd - self._paid)

    async def _ask_for_progress(self) -> None:
        # The driver starts another worker in the place of one that is ended so.
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            asked = list(self._at_work.items())
            calls = [asyncio.wait_for(worker.now(), LOOK_SECONDS) for _, worker in asked]
            nows = await asyncio.gather(*calls, return_exceptions=True)
            for (shard, worker), now in zip(asked, nows, strict=True):
                if self._at_work.get(shard) is not worker:
                    continue  # it was done with the shard meanwhile, or lost
                if isinstance(now, Now):
                    self._progress_of_shards[shard] = now
                if isinstance(now, asyncio.TimeoutError):
                    self._silences[worker] += 1
                else:
                    self._silences[worker] = 0
                if self._silences[worker] >= MOST_SILENCES:
                    worker.end()

    def now(self, total: int | None) -> Now:
        """Return how far all shards are together: the sum of each of Now's numbers, and an outage.

        `total` is not heeded: the driver has counted the rows. The cost is None without prices.
        """
        sums: dict[str, Any] = dict.fromkeys(Now._fields, 0)
        outages = []
        for progress in self._progress_of_shards.values():
            outages.append(progress.outage)
            for name, value in progress._replace(outage="")._asdict().items():
                sums[name] += value or 0  # None is unknown, and adds nothing
        now = Now(**{**sums, "outage": next(filter(None, outages), "")})
        cost_usd = now.cost_usd if self._budget.prices else None
        return now._replace(total=sum(self._rows_of_shards.values()), cost_usd=cost_usd)
