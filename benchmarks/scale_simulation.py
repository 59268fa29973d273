"""A run of many workers at several endpoints, computed: how busy these are, what is refused, what
is paid twice.

    python -m benchmarks.scale_simulation [--workers N] [--records N] [--seed N] [--small]

Discrete events on asyncio's own heap, with a clock that jumps to the next one: limiters, levels,
leases and their pool are the package's; only endpoints, deaths and the way of a message are played.
Two ways are compared: `leases`, where workers take blocks of records and one pool leases them
places, and `shards`, where each worker has an n-th of the records and a limiter of its own, without
a word between them. `--small` computes a case that this machine can run, too, and runs it: 2
processes, one loopback endpoint that answers 429 above 8 requests at once, 30 ms each.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import selectors
import sys
import tempfile
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.leased import Served
from benchmarks.places.workplace import Workplace, ended, process
from dataflow_grounding.engine.limiter import Level, Limiter, Share
from dataflow_grounding.extras.scale.leases import RENEW_SECONDS, Grant, Lease, LeasePool, Report
from dataflow_grounding.extras.testing import EchoAnswers, LoopbackServer

RESTART, LOST_MESSAGES = 20.0, 0.01  # seconds until a worker that died is back; a share


class Jump(selectors.SelectSelector):
    """Doesn't wait for the time that it is told, but makes it pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing is left to happen"
        self.now += max(0.0, timeout)
        return []


def compute(work: Coroutine[Any, Any, Any]) -> Any:
    loop = asyncio.SelectorEventLoop(clock := Jump())
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(work)


@dataclass(eq=False)
class Endpoint:
    """Serves so many at once, refuses others; some replies are late, some fail, and it may be down
    for a while.
    """

    name: str
    places: int
    seconds: float
    sigma: float = 0.7
    late: float = 0.01  # share of replies that take ten times as long
    faults: float = 0.002
    down: tuple[float, float] = (0.0, 0.0)
    since = busy = 0.0  # seconds of places in use, until `since`
    in_flight = refused = answers = 0

    def send(self, chance: random.Random) -> asyncio.Future[bool]:
        """The future of a request: True when it is answered, False when it is refused; raises
        OSError.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if self.down[0] <= loop.time() < self.down[1]:
            loop.call_later(
                0.05, lambda: future.cancelled() or future.set_exception(OSError("down"))
            )
        elif self.in_flight >= self.places:
            self.refused += 1
            loop.call_later(0.001, lambda: future.cancelled() or future.set_result(False))
        else:
            self.enter(1)
            # on average
            seconds = self.seconds * chance.lognormvariate(-(self.sigma**2) / 2, self.sigma)
            seconds *= 10 if chance.random() < self.late else 1
            loop.call_later(seconds, self._done, future, chance.random() < self.faults)
        return future

    def enter(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        self.busy += self.in_flight * (now - self.since)
        self.in_flight, self.since = self.in_flight + number, now

    def able(self, seconds: float) -> float:
        """Seconds of places that it had in the first `seconds`."""
        return self.places * (seconds - max(0.0, min(self.down[1], seconds) - self.down[0]))

    def _done(self, future: asyncio.Future[bool], fails: bool) -> None:
        self.enter(-1)  # whether or not the worker still lives
        self.answers += not fails
        if not future.cancelled():
            future.set_exception(OSError("failed")) if fails else future.set_result(True)


@dataclass
class Case:
    endpoints: list[Endpoint]
    workers: int
    records: int
    most: int = 16  # in flight of one worker at one endpoint
    lives: float = 1800.0  # seconds, on average
    block: int = 50  # records
    seed: int = 1


class Worker:
    """A process: asks for the records of its block at every endpoint that gives it a place."""

    def __init__(self, case: Case, pool: LeasePool | None, chance: random.Random) -> None:
        self.case, self.pool, self.chance = case, pool, chance
        self.lease = Lease(now=asyncio.get_running_loop().time) if pool is not None else None
        self.shares = {}
        for one in case.endpoints:
            limiter = Limiter(Level(case.most))
            if self.lease is not None:
                limiter = self.lease.limiters.limiter_for((f"http://{one.name}", "m"), case.most)
            self.shares[one] = Share(limiter, case.most)

    def _call(self, report: Report) -> Grant:
        if self.pool is None or self.chance.random() < LOST_MESSAGES:
            raise OSError("lost")
        return self.pool.renew(report)

    async def _renew(self) -> None:
        while self.lease is not None:
            self.lease.renew(self._call)
            await asyncio.sleep(RENEW_SECONDS * self.chance.uniform(0.9, 1.1))

    async def ask(self, todo: set[int]) -> None:
        """Have all records answered; `todo` loses those that are stored."""
        waiting = deque(sorted(todo))
        pulls = [
            (one, share)
            for one, share in self.shares.items()
            for _ in range(min(self.case.most, len(todo)))
        ]
        tasks = [asyncio.create_task(self._pull(one, share, waiting, todo)) for one, share in pulls]
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in (renewing, *tasks):
                task.cancel()
            await asyncio.gather(renewing, *tasks, return_exceptions=True)

    async def _pull(
        self, endpoint: Endpoint, share: Share, waiting: deque[int], todo: set[int]
    ) -> None:
        waits = 0
        while todo:
            if not waiting:  # all others are in flight: one may fail
                await asyncio.sleep(0.25)
                continue
            number = await share.acquire(0)
            answered = refused = False
            record = waiting.popleft() if waiting else None
            try:
                if record is not None:
                    answered = await endpoint.send(self.chance)
                    refused = not answered
            except OSError:
                pass
            finally:
                share.release(number, refused=refused, answered=answered)
            if answered:
                todo.discard(record or 0)
            waits = 0 if answered else waits + 1
            if record is not None and not answered:
                waiting.append(record)
                await asyncio.sleep(
                    min(0.5 * 2 ** min(waits - 1, 10), 8.0) * self.chance.uniform(1.0, 1.25)
                )


async def run(case: Case, leases: bool) -> dict[str, float]:
    """The whole run one way; what is printed of it."""
    loop, chance = asyncio.get_running_loop(), random.Random(case.seed)
    random.seed(case.seed)
    pool = LeasePool(now=loop.time) if leases else None
    size = case.block if leases else -(-case.records // case.workers)
    blocks = deque(
        set(range(start, min(start + size, case.records))) for start in range(0, case.records, size)
    )
    deaths, first_idle, busy = 0, 0.0, 0.0

    async def work() -> None:
        nonlocal deaths, first_idle, busy
        worker, dies = None, loop.time() + chance.expovariate(1 / case.lives)
        while blocks:
            block = blocks.popleft()
            while block:
                worker = worker or Worker(case, pool, chance)
                try:
                    await asyncio.wait_for(worker.ask(block), dies - loop.time())
                except asyncio.TimeoutError:
                    deaths, worker = deaths + 1, None
                    await asyncio.sleep(RESTART)
                    dies = loop.time() + chance.expovariate(1 / case.lives)
        if not first_idle:
            first_idle, busy = loop.time(), used()

    def used() -> float:
        for one in case.endpoints:
            one.enter(0)
        return sum(one.busy for one in case.endpoints)

    await asyncio.gather(*(work() for _ in range(case.workers)))
    seconds, answers = loop.time(), sum(one.answers for one in case.endpoints)
    return {
        "seconds": seconds,
        "use until the first worker was done": busy
        / sum(one.able(first_idle) for one in case.endpoints),
        "use in all": used() / sum(one.able(seconds) for one in case.endpoints),
        "refused for each answer": sum(one.refused for one in case.endpoints) / answers,
        "paid twice": answers - case.records,
        "workers lost": deaths,
    }


def really(leases: bool) -> float:
    """Seconds from the first request to the last answer of two processes with 500 rows each, two
    requests a row.
    """
    with (
        LoopbackServer(EchoAnswers(), latency=0.03, capacity=8) as server,
        tempfile.TemporaryDirectory() as top,
    ):
        served, running = Served(LeasePool()), []
        for name in ("one", "other"):
            place = Workplace(Path(top) / name, server.base_url, **{"workflow.max_workers": 32})
            place.many(500)
            running.append(
                served.start(place.arguments()) if leases else process(place.arguments())
            )
        for one in running:
            assert ended(one, 300).code == 0
        return (
            max(request.time_sent or 0.0 for request in server.requests) - server.requests[0].time
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="the case that is run here, too")
    asked = parser.parse_args()
    for leases in (True, False):
        if asked.small:
            one = Endpoint("one", 8, 0.03, sigma=0.0, late=0.0, faults=0.0)
            case = Case([one], 2, 2000, most=32, lives=1e9, block=1000, seed=asked.seed)
        else:
            b = Endpoint("b", 64, 1.5, down=(120.0, 180.0))
            three = [Endpoint("a", 128, 2.0), b, Endpoint("c", 200, 4.0, sigma=1.0)]
            case = Case(three, asked.workers, asked.records, seed=asked.seed)
        found = compute(run(case, leases))
        if asked.small:
            found["seconds really"] = really(leases)
            found["really / computed"] = found["seconds really"] / found["seconds"]
        print("leases" if leases else "shards")
        for name, value in found.items():
            print(f"  {name:36} {value:.6g}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
