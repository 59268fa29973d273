"""One limit for many workers: an endpoint's places, a run's requests and USD, leased for a moment.

What a worker may still use by what it was told counts as used, until it has said otherwise.
"""

import asyncio
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from dataflow_grounding.engine.budget import Budget, no_usd_left
from dataflow_grounding.engine.limiter import Key, Level, Limiter
from dataflow_grounding.errors import BudgetExceeded, RunStopped

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.2
REQUESTS, USD = ("", "requests"), ("", "USD")


class Part(NamedTuple):
    """A worker's part of a limit: how far it may go, how much further than `used` it would like to, and what it used.

    `settled` is what of `used` no answer can change; its next request takes `unit`. Of places, none are ever used up.
    """

    ceiling: float
    wanted: float
    used: float = 0.0
    settled: float = 0.0
    unit: float = 1.0


class Report(NamedTuple):
    """A worker's `number`-th. Outcomes: the tick of the grant they were sent by, answers at full places, refusals."""

    worker: str
    number: int
    parts: dict[Key, Part]
    outcomes: dict[Key, list[tuple[int, int, int]]]


class Grant(NamedTuple):
    """A worker's ceilings for `seconds` from its report on, and why a limit lets nothing more be sent, if it is so."""

    tick: int = 0
    seconds: float = 0.0
    ceilings: dict[Key, float] = {}
    used_up: str = ""


class LeasePool:
    """Shares out endpoints' places, requests and USD among the workers of one run; neither waits nor sends.

    A worker that is silent for 2 s gives up its places; what it may have sent counts as sent. A pool that takes
    another's place knows nothing of what was sent before.

    Args:
        max_requests: Most requests of all workers. None: no limit.
        budget_usd: Most USD of all workers. None: no limit.
        now: The clock, in seconds.

    Example:
        >>> grant = LeasePool(max_requests=100).renew(Report("a", 1, {REQUESTS: Part(0, 8)}, {}))
        >>> grant.ceilings[REQUESTS]
        8.0
    """

    def __init__(
        self,
        max_requests: int | None = None,
        budget_usd: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits: dict[Key, float | None] = {REQUESTS: max_requests, USD: budget_usd}
        self._levels: dict[Key, Level] = {}
        self._last: dict[str, Report] = {}
        self._until: dict[str, float] = {}
        self._heard: dict[Key, dict[str, list[tuple[int, int, int]]]] = {}  # outcomes that nothing was learnt from yet
        self._now, self._tick = now, 0

    @property
    def levels(self) -> dict[Key, int]:
        """How many requests each endpoint and model takes at once, as far as is known."""
        return {key: level.places for key, level in self._levels.items()}

    def renew(self, report: Report) -> Grant:
        """Take in what a worker reports; returns what it may do now. Call it from one thread at a time."""
        worker = report.worker
        if worker in self._last and report.number <= self._last[worker].number:
            return Grant()  # it came late, and the worker goes by another
        now = self._now()
        self._last[worker], self._until[worker] = report, now + LEASE_SECONDS
        for silent in [name for name, until in self._until.items() if until <= now]:
            del self._until[silent]
            parts = {key: part for key, part in self._last[silent].parts.items() if key in self._limits}
            dead = {key: Part(part.ceiling, 0.0, part.ceiling, part.ceiling) for key, part in parts.items()}
            self._last[silent] = self._last[silent]._replace(parts=dead)
        self._tick += 1
        for key, outcomes in report.outcomes.items():
            self._hear(key, worker, outcomes)
        ceilings = {key: self._ceiling(key, worker) for key in report.parts}
        # until the worker says that it has given back, it has what it had
        parts = {key: part._replace(ceiling=max(part.ceiling, ceilings[key])) for key, part in report.parts.items()}
        self._last[worker] = report._replace(parts=parts)
        return Grant(self._tick, LEASE_SECONDS, ceilings, self._used_up(report))

    def _parts(self, key: Key) -> dict[str, Part]:
        return {name: one.parts[key] for name, one in self._last.items() if key in one.parts}

    def _hear(self, key: Key, worker: str, outcomes: list[tuple[int, int, int]]) -> None:
        """Learn from outcomes once all workers' are there: an answer to one says little while another was refused."""
        level = self._levels.setdefault(key, Level(10**6))
        if worker in self._heard.get(key, {}):  # again, before one that is silent
            self._learn(key)
        heard = self._heard.setdefault(key, {})
        heard[worker] = outcomes
        if heard.keys() >= self._parts(key).keys():
            self._learn(key)
        level.number = self._tick

    def _learn(self, key: Key) -> None:
        level, parts = self._levels[key], self._parts(key).values()
        wanted, held = sum(part.wanted for part in parts), sum(part.ceiling for part in parts)
        outcomes = sorted(chain.from_iterable(self._heard.pop(key).values()))
        for tick, _, refused in outcomes:
            for _ in range(refused):
                level.refused(tick, int(held))
        for tick, answered, _ in outcomes:
            for _ in range(answered):
                if wanted >= level.places:  # else others have places that they don't need
                    level.answered(tick)

    def _ceiling(self, key: Key, worker: str) -> float:
        total = self._limits[key] if key in self._limits else self._levels[key].places
        if total is None:
            return math.inf
        parts = self._parts(key)
        mine, unit = parts[worker], parts[worker].unit or 1.0
        held = {name: max(0.0, part.ceiling - part.used) for name, part in parts.items()}
        left = total - sum(part.used for part in parts.values())
        free = left - sum(unused for name, unused in held.items() if name != worker)
        wanted = {name: math.ceil(part.wanted / unit) for name, part in parts.items()}
        return mine.used + unit * max(0, min(shares(int(left / unit), wanted, held)[worker], int(free / unit)))

    def _used_up(self, report: Report) -> str:
        for key, total in self._limits.items():
            settled = sum(part.settled for part in self._parts(key).values())
            if total is not None and key in report.parts and total - settled < report.parts[key].unit:
                usd = no_usd_left(total, settled, report.parts[key].unit)
                return usd if key == USD else f"stopped before passing workflow.max_requests={total}"
        return ""


def shares(total: int, wanted: dict[str, int], held: dict[str, float]) -> dict[str, int]:
    """Share out `total`: nobody gets more than wanted, all others the same, and one more who hold most already.

    Example:
        >>> shares(12, {"a": 1, "b": 7, "c": 7, "d": 7}, {"a": 0, "b": 0, "c": 4, "d": 3})
        {'a': 1, 'b': 3, 'c': 4, 'd': 4}
    """
    left, equal = total, 0
    for others, want in zip(range(len(wanted), 0, -1), sorted(wanted.values()), strict=True):
        equal = left // others
        if want > equal:
            break
        left -= want
    given = {name: min(want, equal) for name, want in wanted.items()}
    short = sorted((name for name in wanted if wanted[name] > equal), key=lambda name: -held[name])
    return given | dict.fromkeys(short[: total - sum(given.values())], equal + 1)


class Lease:
    """A worker's side: what its process may do until it has to renew, and what came of it."""

    def __init__(self, max_wait: float = 600.0, now: Callable[[], float] = time.monotonic) -> None:
        self._name, self._number, self._max_wait, self._now = uuid.uuid4().hex, 0, max_wait, now
        self._may, self._asked, self.lost = Grant(), now(), ""
        self._levels: dict[Key, _Leased] = {}
        self._sent = self._told = self._in_flight = 0
        self._spent = self._reserved = self._worst = 0.0
        self._lock = threading.Lock()

    @property
    def holds(self) -> bool:
        """Whether it has not expired."""
        return self._now() < self._asked + self._may.seconds

    def limiter(self, key: Key, most: int) -> Limiter:
        """An endpoint's, with leased places; with places of its own for what is in this process."""
        if "://" not in key[0]:
            return Limiter(Level(most))
        self._levels[key] = _Leased(most, self)
        return self._levels[key].limiter

    async def reserve(self, worst: float) -> None:
        """Wait until one more may be sent, for `worst` USD at most. Raises BudgetExceeded, RunStopped."""
        while not self._take(worst):
            await asyncio.sleep(RENEW_SECONDS / 8)
        self._in_flight += 1

    def count(self) -> None:
        """Wait, with all else, until one more may be sent for the same answer. Raises BudgetExceeded, RunStopped."""
        while not self._take(0.0):
            time.sleep(RENEW_SECONDS / 8)

    def settle(self, reserved: float, cost: float) -> None:
        """After the answer: what it cost."""
        with self._lock:
            self._in_flight -= 1
            self._reserved = self._reserved - reserved if self._in_flight else 0.0
            self._spent += cost

    def _take(self, worst: float) -> bool:
        with self._lock:
            if self.lost:
                raise RunStopped(self.lost)
            self._worst = worst or self._worst
            usd, ceilings = self._spent + self._reserved + worst, self._may.ceilings
            if self.holds and self._sent < ceilings[REQUESTS] and usd <= ceilings[USD]:
                self._sent, self._reserved = self._sent + 1, self._reserved + worst
                return True
            if self._may.used_up:
                raise BudgetExceeded(self._may.used_up)
            return False

    def renew(self, call: Callable[[Report], Grant]) -> None:
        """Tell the pool, and go by what it says; without an answer, by what it said last."""
        asked = self._now()
        try:
            grant = call(self._report())
        except Exception as error:  # whatever the way to the pool is made of
            if asked > self._asked + self._max_wait:
                self.lost = f"what shares out the endpoints' places can't be reached ({type(error).__name__}: {error})"
        else:
            with self._lock:
                self._may, self._asked, self.lost = grant, asked, ""
        for key, level in list(self._levels.items()):
            level.renewed(self._may, key)

    def _report(self) -> Report:
        with self._lock:
            levels, ceilings = dict(self._levels), self._may.ceilings
            wanted = 2 * (self._sent - self._told) + sum(level.places for level in levels.values())
            self._number, self._told, used = self._number + 1, self._sent, self._spent + self._reserved
            most, usd = max(self._sent, ceilings.get(REQUESTS, 0.0)), max(used, ceilings.get(USD, 0.0))
            parts = {key: level.part for key, level in levels.items()}
            parts[REQUESTS] = Part(most, wanted, self._sent, self._sent)
            parts[USD] = Part(usd, wanted * self._worst, used, self._spent, self._worst)
        return Report(self._name, self._number, parts, {key: level.outcomes() for key, level in levels.items()})

    def leave(self, call: Callable[[Report], Grant]) -> None:
        """Give back what is not used."""
        self._may, self._levels, self._told = Grant(), {}, self._sent
        self.renew(call)


class _Leased(Level):
    """An endpoint's in a worker: as many places as are leased. Counts what came of requests, for the next report."""

    def __init__(self, most: int, lease: Lease) -> None:
        super().__init__(most)
        self.limiter = Limiter(self)
        self._lease, self._granted, self._left = lease, 0, 0
        self._answered, self._refused = Counter[int](), Counter[int]()

    @property
    def places(self) -> int:
        if self._lease.lost:
            return self.most  # who waits is let in, to be told
        return self._left if self._lease.holds else 0

    @property
    def part(self) -> Part:
        return Part(max(self._granted, self.limiter.in_flight), self.limiter.wanted)

    def send(self) -> int:
        return self.number  # the tick of the last grant

    def answered(self, number: int) -> None:
        # a window for each grant: more answers, before the pool can move its level, say nothing more
        self._answered[number] = min(self._answered[number] + 1, max(1, self._granted))

    def refused(self, number: int, in_flight: int) -> None:
        self._refused[number] += 1
        if number == self.number and self._left:
            self._left -= 1  # a place that was refused is not tried again before the next grant

    def outcomes(self) -> list[tuple[int, int, int]]:
        answered, self._answered = self._answered, Counter()
        refused, self._refused = self._refused, Counter()
        return [(tick, answered[tick], refused[tick]) for tick in {*answered, *refused}]

    def renewed(self, grant: Grant, key: Key) -> None:
        if key in grant.ceilings:
            self._granted = self._left = int(grant.ceilings[key])
            self.number = grant.tick
        self.limiter.let_in()


@contextmanager
def leasing(call: Callable[[Report], Grant], max_wait: float = 600.0) -> Iterator[None]:
    """Within it, this process's runs keep, with those of all other workers, to what a pool leases them.

    While the pool can't be reached they go on until the lease expires, then wait. Their own `max_requests` and
    `budget_usd` are still needed: a run that has none counts no USD.

    Args:
        call: Hands a report to `LeasePool.renew` and returns its grant; raises, within a second or so, where it can't.
        max_wait: Seconds for which runs wait for the pool; then they stop with RunStopped.

    Example:
        >>> pool = LeasePool(max_requests=100)  # as a rule in another process
        >>> with leasing(pool.renew):
        ...     pass  # pipeline.run()
    """
    lease, over = Lease(max_wait), threading.Event()

    def keep() -> None:
        lease.renew(call)
        while not over.wait(RENEW_SECONDS):
            lease.renew(call)

    thread = threading.Thread(target=keep, name="leases", daemon=True)
    before, Budget.lease, Limiter.lease = Budget.lease, lease, lease
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        Budget.lease = Limiter.lease = before
        lease.leave(call)
