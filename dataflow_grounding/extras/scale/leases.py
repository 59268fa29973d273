"""One limit for many workers: an endpoint's places, a run's requests and USD, leased for a moment.

What a worker may still use by what it was told counts as used, until it has said otherwise."""

import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import BudgetExceeded, RunStopped
from dataflow_grounding.engine.budget import NO_REQUEST_LEFT, Budget, no_usd_left
from dataflow_grounding.engine.limiter import Found, Key, Level, Limiter
from dataflow_grounding.engine.workers import beside

LEASE_SECONDS, RENEW_SECONDS = 2.0, 0.2
REQUESTS, USD = ("", "requests"), ("", "USD")
Clock = Callable[[], float]
# of requests sent by the grant of a tick: answered at full places, or refused
Outcomes = Counter[tuple[bool, int]]


class Part(NamedTuple):
    """A worker's part of a limit: how far it may go, how much further than `used` it would go; what
    of that is settled.

    The next request takes `unit`. Of places, none are ever used up.
    """

    ceiling: float
    wanted: float
    used: float = 0.0
    settled: float = 0.0
    unit: float = 1.0


def _gone(used: float) -> Part:
    """That of one that is no more."""
    return Part(used, 0.0, used, used)


class Report(NamedTuple):
    """A worker's `number`-th, with what came of requests to each endpoint since the one before."""

    worker: str
    number: int
    parts: dict[Key, Part]
    outcomes: dict[Key, Outcomes]


class Grant(NamedTuple):
    """A worker's ceilings for `seconds` from its report on, and why a limit lets nothing more be
    sent, if it is so.
    """

    tick: int = 0
    seconds: float = 0.0
    ceilings: dict[Key, float] = {}
    used_up: str = ""


class LeasePool:
    """Shares out endpoints' places, requests and USD among the workers of one run; neither waits
    nor sends.

    `max_requests` and `budget_usd` are most of all workers, None is without limit, and `before`
    what is used of them; `now` is the clock, in seconds, and `levels` has what is known of
    endpoints and the most that each may get. A worker that is silent for 2 s gives up its places;
    what it may have sent counts as sent. A pool that takes another's place knows of nothing that
    was sent before.
    """

    def __init__(
        self,
        max_requests: int | None = None,
        budget_usd: float | None = None,
        now: Clock = time.monotonic,
        before: tuple[int, float] = (0, 0.0),
        levels: Mapping[Key, Level] | None = None,
    ) -> None:
        self._limits: dict[Key, float | None] = {REQUESTS: max_requests, USD: budget_usd}
        self.levels: dict[Key, Level] = dict(levels or {})
        used = {key: _gone(value) for key, value in zip((REQUESTS, USD), before, strict=True)}
        self._last = {"": Report("", 0, used, {})}
        self._until: dict[str, float] = {}
        # requests and USD of each worker, as it told last
        self._sent: dict[str, tuple[float, float]] = {}
        self._heard: dict[Key, dict[str, Outcomes]] = {}  # what nothing was learnt from yet
        self._now, self._tick = now, 0

    def renew(self, report: Report) -> Grant:
        """Take in what a worker reports; returns what it may do now. Call it from one thread at a
        time.
        """
        worker = report.worker
        if worker in self._last and report.number <= self._last[worker].number:
            return Grant()  # it came late, and the worker goes by another
        now = self._now()
        self._last[worker], self._until[worker] = report, now + LEASE_SECONDS
        requests, usd = (report.parts.get(key, _gone(0.0)).settled for key in (REQUESTS, USD))
        self._sent[worker] = requests, usd
        for silent in [name for name, until in self._until.items() if until <= now]:
            del self._until[silent]
            last = self._last[silent]
            self._last[silent] = last._replace(
                parts={key: _gone(last.parts[key].ceiling) for key in self._limits}
            )
        self._tick += 1
        for key, outcomes in report.outcomes.items():
            self._learn(key, worker, outcomes)
        ceilings = {key: self._ceiling(key, worker) for key in report.parts}
        # until the worker says that it has given back, it has what it had
        parts = {
            key: part._replace(ceiling=max(part.ceiling, ceilings[key]))
            for key, part in report.parts.items()
        }
        self._last[worker] = report._replace(parts=parts)
        return Grant(self._tick, LEASE_SECONDS, ceilings, self._used_up(report))

    def told(self) -> tuple[int, float]:
        """Requests and USD of all workers, as each told last: also of those that were lost."""
        sent, usd = zip(*self._sent.values(), strict=True) if self._sent else ((), ())
        return int(sum(sent)), float(sum(usd))

    def found(self) -> dict[Key, Found]:
        """How many requests at once each endpoint takes, as is known by now."""
        return {key: level.found for key, level in self.levels.items()}

    def _parts(self, key: Key) -> dict[str, Part]:
        return {name: one.parts[key] for name, one in self._last.items() if key in one.parts}

    def _learn(self, key: Key, worker: str, outcomes: Outcomes) -> None:
        """Learn from refusals at once, from answers when all workers have reported and nothing was
        refused.
        """
        level, heard = self.levels.setdefault(key, Level(10**6)), self._heard.setdefault(key, {})
        parts = self._parts(key).values()
        wanted, held = sum(part.wanted for part in parts), sum(part.ceiling for part in parts)
        for answered, tick in sorted(outcomes.elements()):
            if not answered:
                level.refused(tick, int(held))
        if worker in heard:  # by now all others are, too
            for answered, tick in sorted(sum(heard.values(), Outcomes()).elements()):
                if answered and wanted >= level.places:
                    # else others have places that they don't need
                    level.answered(tick)
            heard.clear()
        heard[worker], level.number = outcomes, self._tick

    def _ceiling(self, key: Key, worker: str) -> float:
        total = self._limits[key] if key in self._limits else self.levels[key].places
        if total is None:
            return math.inf
        parts = self._parts(key)
        mine, unit = parts[worker], parts[worker].unit or 1.0
        held = {name: max(0.0, part.ceiling - part.used) for name, part in parts.items()}
        left = total - sum(part.used for part in parts.values())
        free = left - sum(unused for name, unused in held.items() if name != worker)
        wanted = {name: math.ceil(part.wanted / unit) for name, part in parts.items()}
        return mine.used + unit * max(
            0, min(shares(int(left / unit), wanted, held)[worker], int(free / unit))
        )

    def _used_up(self, report: Report) -> str:
        for key, total in self._limits.items():
            settled = sum(part.settled for part in self._parts(key).values())
            if (
                total is not None
                and key in report.parts
                and total - settled < report.parts[key].unit
            ):
                usd = no_usd_left(total, settled, report.parts[key].unit)
                return usd if key == USD else NO_REQUEST_LEFT.format(total)
        return ""


def shares(total: int, wanted: dict[str, int], held: dict[str, float]) -> dict[str, int]:
    """Share out `total`: nobody gets more than wanted, all others the same, and one more who hold
    most already.

    Example:
        >>> wanted, used = {"a": 1, "b": 7, "c": 7, "d": 7}, {"a": 0, "b": 0, "c": 4, "d": 3}
        >>> sorted(shares(12, wanted, used).items())
        [('a', 1), ('b', 3), ('c', 4), ('d', 4)]
    """
    given = dict.fromkeys(sorted(wanted, key=lambda name: -held[name]), 0)
    while total > 0 and (short := [name for name in given if given[name] < wanted[name]]):
        each = max(1, total // len(short))
        for name in short[:total]:
            more = min(each, wanted[name] - given[name])
            given[name], total = given[name] + more, total - more
    return given


class Lease(Budget):
    """A worker's side: what its process may do until it has to renew, and what came of it.

    `together`: of several endpoints of one serving, the pool limits what is in flight to all of
    them, too.
    """

    def __init__(
        self, max_wait: float = 600.0, now: Clock = time.monotonic, together: bool = False
    ) -> None:
        super().__init__(None, None, None)
        self.together = together
        self._name, self._number, self._max_wait, self._now = uuid.uuid4().hex, 0, max_wait, now
        self._may, self._asked, self.lost = Grant(), now(), ""
        self.limiters: dict[Key, Limiter] = {}  # of all endpoints
        self._levels: dict[Key, _Leased] = {}
        self._told, self._worst = 0, 0.0

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

    def has_room(self, worst: float) -> bool:
        """Whether one more may be sent now. Raises BudgetExceeded, RunStopped."""
        if self.lost:
            raise RunStopped(self.lost)
        self._worst = worst or self._worst
        usd, ceilings = self.spent + self.reserved + worst, self._may.ceilings
        if self.holds and self.sent < ceilings[REQUESTS] and usd <= ceilings[USD]:
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
            if asked > self._asked + self._max_wait or isinstance(error, BrokenPipeError):
                # nobody is there any more
                self.lost = (
                    f"can't reach the pool of leases ({type(error).__name__}: {error}). Run it"
                    " again to go on"
                )
        else:
            with self.lock:
                self._may, self._asked, self.lost = grant, asked, ""
        for key, level in list(self._levels.items()):
            if key in self._may.ceilings:
                level.granted = level.left = int(self._may.ceilings[key])
                level.number = self._may.tick
            level.limiter.let_in()

    def keep(self, call: Callable[[Report], Grant], over: threading.Event) -> None:
        """Renew a few times a second until it is `over`; then give back what is not used."""
        while not over.wait(RENEW_SECONDS if self._number else 0.0):
            self.renew(call)
        self._may, self._levels, self._told = Grant(), {}, self.sent
        self.renew(call)

    def _report(self) -> Report:
        with self.lock:
            levels, ceilings = dict(self._levels), self._may.ceilings
            wanted = 2 * (self.sent - self._told) + sum(level.places for level in levels.values())
            self._number, self._told, used = self._number + 1, self.sent, self.spent + self.reserved
            most, usd = (
                max(self.sent, ceilings.get(REQUESTS, 0.0)),
                max(used, ceilings.get(USD, 0.0)),
            )
            parts = {
                k: Part(max(i.granted, i.limiter.in_flight), i.limiter.wanted)
                for k, i in levels.items()
            }
            parts[REQUESTS] = Part(most, wanted, self.sent, self.sent)
            parts[USD] = Part(usd, wanted * self._worst, used, self.spent, self._worst)
            outcomes = {key: level.outcomes for key, level in levels.items()}
            for level in levels.values():
                level.outcomes = Outcomes()
            return Report(self._name, self._number, parts, outcomes)


class _Leased(Level):
    """An endpoint's in a worker: as many places as are leased. Counts what came of requests, for
    the next report.
    """

    def __init__(self, most: int, lease: Lease) -> None:
        super().__init__(most)
        self.limiter = Limiter(self)
        self._lease, self.granted, self.left, self.outcomes = lease, 0, 0, Outcomes()

    @property
    def places(self) -> int:
        if self._lease.lost:
            return self.most  # who waits is let in, to be told
        return self.left if self._lease.holds else 0

    def send(self) -> int:
        return self.number  # the tick of the last grant

    def answered(self, number: int) -> None:
        # a window for each grant: more answers, before the pool can move its level, say nothing
        # more
        self.outcomes[True, number] = min(self.outcomes[True, number] + 1, max(1, self.granted))

    def refused(self, number: int, in_flight: int) -> None:
        self.outcomes[False, number] += 1
        if number == self.number and self.left:
            self.left -= 1  # a place that was refused is not tried again before the next grant


@contextmanager
def leasing(
    call: Callable[[Report], Grant], max_wait: float = 600.0, together: bool = False
) -> Iterator[None]:
    """Within it, this process's runs keep, with those of all other workers, to what a pool leases
    them.

    While the pool can't be reached they go on until the lease expires, then wait. They need the
    same `budget_usd` as it: a run that has none counts no USD.

    Args:
        call: Hands a report to `LeasePool.renew` and returns its grant; raises, within a second or
            so, where it can't.
        max_wait: Seconds for which runs wait for the pool; then they stop with RunStopped.
        together: Whether the pool limits what is in flight to all endpoints of a serving together.

    Example:
        >>> pool = LeasePool(max_requests=100)  # as a rule in another process
        >>> with leasing(pool.renew):
        ...     pass  # pipeline.run()
    """
    lease = Lease(max_wait, together=together)
    before, Limiter.lease = Limiter.lease, lease
    try:
        with beside(partial(lease.keep, call)):
            yield
    finally:
        Limiter.lease = before
