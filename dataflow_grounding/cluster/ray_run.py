"""A run on Ray, as its driver sees it: the input split, shards handed to workers, and their files put together."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dataflow_grounding.cluster.ray_cluster import RayCluster
from dataflow_grounding.cluster.shipping import shipped
from dataflow_grounding.cluster.worker import Done, Work
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import MakeRun
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.progress import Now, Progress
from dataflow_grounding.engine.run import title_of
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.shard_files import join, split
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import GRACE_SECONDS, Workers, signals_to
from dataflow_grounding.errors import FolderTaken, GroundingError, InputError, Interrupted, RunStopped
from dataflow_grounding.terminal import counted, say

FEWEST_SHARDS, SHARDS_EACH, MOST_SHARDS = 8, 4, 400  # several for each worker: the last to end is waited for less
SAY_SECONDS, START_SECONDS = 8.0, 60.0  # without any worker: it is said, and given up
TAKEN_SECONDS = 60.0  # how long a lost worker may hold a shard's folder
LOOK_SECONDS = 1.0
MOST_LOSSES = 10  # workers lost over one shard: then it is the shard


@contextmanager
def on_ray(address: str | None = None, workers: int | None = None) -> Iterator[MakeRun]:
    """What `execute` takes to run on Ray; see RayCluster for the arguments."""
    cluster = RayCluster(address, workers)
    try:
        yield partial(RayRun, cluster)
    finally:
        cluster.close()


class RayRun:
    """One pass over a source by workers on Ray; leaves what a Run would."""

    def __init__(
        self,
        cluster: RayCluster,
        steps: list[Step],
        source: Source,
        options: RunOptions,
        name: str | None,
        budget: Budget,
        idle: Collection[int],
    ) -> None:
        self.summary = Summary(annotations=steps[-1].storage.output_path, failures_file=steps[0].storage.failures_path)
        self.stopped: GroundingError | None = None
        self._cluster, self._steps, self._source, self._options, self._budget = cluster, steps, source, options, budget
        self._work = shipped(Work(steps, options, name))
        self._gpus: float = max((getattr(step.operator.serving, "num_gpus", 0) for step in steps), default=0)
        self._rows: dict[Shard, int] = {}
        self._waiting: deque[Shard] = deque()
        self._unfinished = 0
        self._at_work: dict[Shard, Any] = {}  # who works on it
        self._nows: dict[Shard, Now] = {}
        self._losses = Counter[Shard | None]()
        self._taken_until: dict[Shard, float] = {}
        self._started = False
        self._over = asyncio.Event()
        self._tasks = Workers(self._interrupt, GRACE_SECONDS + 2)  # the workers' own grace ends before

    async def execute(self) -> Summary:
        """Do it all. Raises RunStopped, or InputError where Ray has no worker for it; no step file has changed then."""
        start = time.monotonic()
        try:
            self._cluster.connect()
            of = min(max(FEWEST_SHARDS, SHARDS_EACH * self._cluster.workers), MOST_SHARDS)
            shards = split(self._source, of, self._steps[0].storage.cache_path)
            self._rows = {shard: rows for shard, rows in shards.items() if rows}
            await self._work_through()
            join(self._steps, list(self._rows), self.summary)
        finally:
            self.summary.seconds = time.monotonic() - start
            if isinstance(self.stopped, RunStopped):
                self.stopped.summary = self.summary.to_json()
        return self.summary

    async def _work_through(self) -> None:
        self._waiting.extend(self._rows)
        self._unfinished = len(self._rows)
        progress = Progress(self._now, title_of(self._steps), self._options.progress)
        helpers = [asyncio.create_task(one) for one in (progress.run(), self._look(), self._watch_the_start())]
        try:
            with signals_to(self._tasks.interrupt):
                self._tasks.start(self._serve() for _ in range(min(self._cluster.workers, len(self._rows))))
                await self._tasks.finish()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        if self.stopped is not None:
            raise self.stopped

    def stop(self, why: GroundingError) -> None:
        """Begin nothing more; what is in flight may finish."""
        if self.stopped is None:
            self.stopped = why
            self._over.set()
            for worker in self._at_work.values():
                worker.interrupt.remote()

    def _interrupt(self) -> bool:
        going_on = self.stopped is None
        self.stop(Interrupted("interrupted: every reply so far is kept. Run the same command again to go on"))
        return going_on

    async def _serve(self) -> None:
        """Have a worker take shards until none is left; where it is lost, another one in its place."""
        shard: Shard | None = None
        while self.stopped is None and (shard or self._waiting):
            worker = self._cluster.worker(self._work, self._gpus)
            try:
                if not await self._begun(worker):
                    return
                while self.stopped is None and (shard or self._waiting):
                    shard = shard or self._waiting.popleft()
                    self._at_work[shard] = worker
                    done = await worker.work_on.remote(shard)
                    shard = None if self._took(shard, done) else shard
                    if shard:
                        await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:
                if (said := self._cluster.lost(error)) is None:
                    raise
                self._count_loss(shard, said)
            finally:
                if shard:
                    self._at_work.pop(shard, None)
                self._cluster.end(worker)

    async def _begun(self, worker: Any) -> bool:
        """Wait for a worker to begin, unless all is over before."""
        begin, over = asyncio.ensure_future(worker.begin.remote()), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([begin, over], return_when=asyncio.FIRST_COMPLETED)
            if self._over.is_set():
                return False
            error: GroundingError | None = begin.result()
        finally:
            begin.cancel()
            over.cancel()
        if error is not None:
            self.stop(error)
            return False
        self._started = True
        del self._losses[None]
        return True

    def _took(self, shard: Shard, done: Done) -> bool:
        """Whether a shard is through; not where a worker that was lost may still hold its folder."""
        if isinstance(done.error, FolderTaken):
            now = time.monotonic()
            if now < self._taken_until.setdefault(shard, now + TAKEN_SECONDS):
                return False
        del self._at_work[shard]
        self._nows[shard] = done.now
        self.summary.add_part(done.summary)
        self._unfinished -= 1
        if done.error is not None:
            self.stop(done.error)
        elif not self._unfinished:
            self._over.set()
        return True

    def _count_loss(self, shard: Shard | None, said: str) -> None:
        self._losses[shard] += 1
        if self._losses[shard] >= MOST_LOSSES:
            what = f"at {shard}" if shard else "as they began"
            self.stop(RunStopped(f"Ray lost {MOST_LOSSES} workers {what}: {said}. The same command goes on"))

    async def _look(self) -> None:
        """Until cancelled: ask the workers how far they are."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            asked = list(self._at_work.items())
            nows = await asyncio.gather(*(_answer(worker.now.remote()) for _, worker in asked))
            for (shard, worker), now in zip(asked, nows, strict=True):
                if now is not None and self._at_work.get(shard) is worker:
                    self._nows[shard] = now

    async def _watch_the_start(self) -> None:
        """Say that no worker has begun, and in the end give up."""
        gpus = f" and {self._gpus:g} GPU" if self._gpus else ""
        wanted = f"{counted(self._cluster.workers, 'worker')} of 1 CPU{gpus} each"
        await asyncio.sleep(SAY_SECONDS)
        if not self._started:
            say(f"No worker has begun yet: {wanted} are wanted, and Ray has {self._cluster.room()}")
        await asyncio.sleep(START_SECONDS - SAY_SECONDS)
        if not self._started:
            why = f"no worker has begun within {START_SECONDS:g} s: {wanted} are wanted"
            self.stop(InputError(f"{why}, and Ray has {self._cluster.room()}"))

    def _now(self) -> Now:
        nows = list(self._nows.values())
        costs = [now.cost_usd for now in nows if now.cost_usd is not None]
        return Now(
            finished=sum(now.finished for now in nows),
            replayed=sum(now.replayed for now in nows),
            failed=sum(now.failed for now in nows),
            total=sum(self._rows.values()),
            sent=sum(now.sent for now in nows),
            in_flight=sum(now.in_flight for now in nows),
            waiting_for_rate_limit=sum(now.waiting_for_rate_limit for now in nows),
            cost_usd=sum(costs) if costs else None,
        )


async def _answer(call: Awaitable[Now | None]) -> Now | None:
    """What a worker says; None where it doesn't, in a moment."""
    try:
        return await asyncio.wait_for(call, LOOK_SECONDS)
    except Exception:
        return None
