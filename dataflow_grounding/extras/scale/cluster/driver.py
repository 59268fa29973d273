"""A run by workers in other processes, as its driver sees it.

The input is split, blocks are handed out, files put together.

How workers are made and spoken to is a subclass's: on Ray, or as processes of this machine.
"""

import asyncio
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.engine.limiter import Found, Key, Level, limiter_of
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.workers import GRACE_SECONDS, Workers
from dataflow_grounding.extras.scale.cluster._worker import Done, Work, Wrong
from dataflow_grounding.extras.scale.shard_files import join, split
from dataflow_grounding.serving.base import Serving

LOOK_SECONDS = 1.0
# looks, of up to 2 s, in turn: a worker that is silent so long can't send anything any more
MOST_SILENCES = 30
MOST_LOSSES = 10  # workers lost over one shard: then it is the shard


class WorkerLost(Exception):
    """A worker is gone, or can't be made; the text says how, as far as that is known."""


class Hand(Protocol):
    """A worker, from its driver's side.

    What waits for an answer raises WorkerLost where none will come.
    """

    async def begin(self, work: bytes) -> Wrong | None:
        """Make it ready for shipped Work; what is in the way."""

    async def work_on(self, shard: Shard) -> Done:
        """Have it take a shard's rows through the steps."""

    async def now(self) -> Now | None:
        """How far its shard is."""

    def interrupt(self) -> None:
        """Have it finish what is in flight, and no more."""

    def end(self) -> None:
        """Make an end of it, whatever it is doing."""


class DrivenRun(Run):
    """One pass over a source by workers in other processes.

    It leaves what a Run in this process would. In `_execute`, subclasses make a pool of leases,
    then call `_split`, `_take_through` and `_join`.
    """

    whose = "the run"
    """Who loses workers, in messages."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        results = address_of(self.steps[0].storage.cache_path)
        work = Work(self.steps, self.options, self.source.name, results, speaks_of_specs.get())
        self._shipped = self._ship(work)
        # the workers' own grace ends before
        self._workers = Workers(self._interrupt, GRACE_SECONDS + 2)
        self._shards: dict[Shard, int] = {}  # with rows, and how many
        self._waiting: deque[Shard] = deque()
        self._at_work: dict[Shard, Hand] = {}  # who works on it
        self._nows: dict[Shard, Now] = {}
        self._losses = Counter[Shard | None]()
        # By workers that came to say what they did.
        self._sent = 0
        self._paid = 0.0
        self._silences = Counter[Hand]()
        self._started = False

    @abstractmethod
    def _ship(self, work: Work) -> bytes:
        """The work as workers are sent it. Raises SpecError."""

    @abstractmethod
    async def _make_hand(self) -> Hand:
        """A new worker. Raises WorkerLost."""

    @abstractmethod
    async def _told_to_the_pool(self) -> tuple[int, float]:
        """Requests and USD of all workers, lost ones too, as each told the pool of leases last."""

    @abstractmethod
    async def _found_by_the_pool(self) -> dict[Key, Found]:
        """How many requests at once each endpoint takes, as the pool of leases has found out."""

    def _split(self, blocks: int) -> None:
        """Write each block's rows into its folder."""
        shards = split(self.source, blocks, self.steps[0].storage.cache_path)
        self._shards = {shard: rows for shard, rows in shards.items() if rows}
        self._waiting.extend(self._shards)

    async def _take_through(self, workers: int, *watches: Coroutine[Any, Any, None]) -> None:
        """Have workers do all blocks while the `watches` go on."""
        try:
            async with self._helped_by(self._look(), *watches):
                count = min(workers, len(self._shards))
                await self._workers.do(self._serve() for _ in range(count))
        finally:
            await self._count_the_lost()
            with suppress(Exception):  # the pool is lost
                by_key = await asyncio.wait_for(self._found_by_the_pool(), LOOK_SECONDS)
                for key, serving in self._endpoints().items():
                    limiter_of(serving).resume(by_key[key])

    def _join(self) -> None:
        """Put the blocks' files together."""
        join(self.steps, list(self._shards), self.summary)

    def _endpoints(self) -> dict[Key, Serving]:
        """Return the endpoints whose places the pool shares out."""
        endpoints: dict[Key, Serving] = {}
        for serving in self._servings():
            for part, _ in serving.endpoints():
                if "://" in part.endpoint:
                    endpoints[part.endpoint, part.model] = part
        return endpoints

    def _begun_level(self, key: Key, most: int) -> Level:
        """A pool's, to begin with what is known of the endpoint."""
        level = Level(most)
        level.resume(limiter_of(self._endpoints()[key]).found)
        return level

    def stop(self, why: RunStopped) -> None:
        """Begin nothing more; what is in flight may finish."""
        if self.stopped is None:
            self.stopped = why
            for hand in self._at_work.values():
                hand.interrupt()
            self._leave()

    def _leave(self) -> None:
        """Wait for no more worker to begin where nobody is at work, and nobody should be."""
        if not self._at_work and (self.stopped or not self._waiting):
            self._workers.cancel()

    async def _serve(self) -> None:
        """Have a worker take shards until none is left; where it is lost, another in its place."""
        while self.stopped is None and self._waiting:
            shard: Shard | None = None
            hand: Hand | None = None
            try:
                hand = await self._make_hand()
                wrong = await hand.begin(self._shipped)
                if wrong is not None:
                    raise wrong.kind(wrong.text)
                self._started = True
                self._losses[None] = 0
                while self.stopped is None and self._waiting:
                    shard = self._waiting.popleft()
                    self._at_work[shard] = hand
                    self._take(shard, await hand.work_on(shard))
            except WorkerLost as lost:
                if shard is not None:
                    self._waiting.appendleft(shard)
                self._losses[shard] += 1
                if self._losses[shard] >= MOST_LOSSES:
                    what = f"with {shard}" if shard else "that were to begin"
                    why = f"{self.whose} lost {MOST_LOSSES} workers {what}: {lost}"
                    self.stop(RunStopped(f"{why}. The same command goes on"))
            except Exception:
                self.stop(RunStopped("stopped by an error"))
                raise
            finally:
                if shard is not None:
                    self._at_work.pop(shard, None)
                if hand is not None:
                    hand.end()
        self._leave()

    def _take(self, shard: Shard, done: Done) -> None:
        """Take what became of a shard. Raises the error that kept it from being finished."""
        del self._at_work[shard]
        self._nows[shard] = done.now
        self.summary.add_part(done.summary)
        self._sent += done.summary.requests["sent"]
        self._paid += done.summary.cost_usd or 0.0
        error = done.wrong and done.wrong.kind(done.wrong.text)
        if isinstance(error, RunStopped):
            self.stop(error)
        elif error is not None:
            raise error

    async def _count_the_lost(self) -> None:
        """Add what lost workers have sent and spent, as far as they came to tell the pool."""
        if not self._losses.total():
            return
        with suppress(Exception):  # the pool is lost too
            sent, usd = await asyncio.wait_for(self._told_to_the_pool(), LOOK_SECONDS)
            self.summary.requests["sent"] += max(0, sent - self._sent)
            if self.summary.cost_usd is not None:
                self.summary.cost_usd += max(0.0, usd - self._paid)

    async def _look(self) -> None:
        """Ask workers now and then how far they are; end those that stay silent."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            asked = list(self._at_work.items())
            calls = [asyncio.wait_for(hand.now(), LOOK_SECONDS) for _, hand in asked]
            nows = await asyncio.gather(*calls, return_exceptions=True)
            for (shard, hand), now in zip(asked, nows, strict=True):
                if self._at_work.get(shard) is not hand:
                    continue
                if isinstance(now, Now):
                    self._nows[shard] = now
                if isinstance(now, asyncio.TimeoutError):
                    self._silences[hand] += 1
                else:
                    self._silences[hand] = 0
                if self._silences[hand] >= MOST_SILENCES:
                    hand.end()  # another one takes its place

    def now(self, total: int | None) -> Now:
        """How far all are together."""
        sums: list[Any] = [0] * len(Now._fields)
        for of_shard in self._nows.values():
            for place, value in enumerate(of_shard):
                sums[place] += value or 0
        now = Now(*sums)
        cost_usd = now.cost_usd if self._budget.prices else None
        return now._replace(total=sum(self._shards.values()), cost_usd=cost_usd)
