"""One limit for many workers: an endpoint's places, a run's requests and USD, leased for a moment.

What a worker may still use by what it was told counts as used, until it has said otherwise."""

import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import BudgetExceeded, RunStopped
from dataflow_grounding.engine.budget import SharedLimits, no_request_left, no_usd_left
from dataflow_grounding.engine.limiter import Found, Key, Level, Limiter, Limiters
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.engine.workers import beside

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.2
# The keys of the run's limits, beside those of endpoints.
REQUESTS = ("", "requests")
USD = ("", "USD")
Clock = Callable[[], float]
# of requests sent by the grant of a tick: answered at full places, or refused
Outcomes = Counter[tuple[bool, int]]


class Part(NamedTuple):
    """A worker's part of a limit.

    Attributes:
        ceiling: How far it may go.
        wanted: How much further than `used` it would go.
        used: How far it has gone. Of places, none are ever used up.
        settled: What of that is settled.
        unit: What the next request takes.
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
    """A worker's `number`-th, with what came of requests to each endpoint since the last one."""

    worker: str
    number: int
    parts: dict[Key, Part]
    outcomes: dict[Key, Outcomes]


class UsedUp(NamedTuple):
    """A limit that lets nothing more be sent: what is settled of it, what the next request takes.

    The worker words it: it knows whether settings are called as in a spec or as in Python.
    """

    key: Key
    total: float
    settled: float
    unit: float

    def why(self) -> str:
        """Why the run stops."""
        if self.key == USD:
            return no_usd_left(self.total, self.settled, self.unit)
        return no_request_left(int(self.total))


class Grant(NamedTuple):
    """A worker's ceilings for `seconds` from its report on.

    `used_up` is the limit that lets nothing more be sent, if one does.
    """

    tick: int = 0
    seconds: float = 0.0
    ceilings: dict[Key, float] = {}
    used_up: UsedUp | None = None


class LeasePool:
    """Shares out endpoints' places, requests and USD among the workers of one run.

    It neither waits nor sends. A worker that is silent for 2 s gives up its places; what it may
    have sent counts as sent. A pool that takes another's place knows of nothing that was sent
    before.

    Args:
        max_requests: Most requests of all workers; None is without limit.
        budget_usd: Most USD of all workers; None is without limit.
        now: The clock, in seconds.
        before: Requests and USD that are used already.
        levels: What is known of endpoints, and the most that each may get.
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
        self._now = now
        self._tick = 0

    def renew(self, report: Report) -> Grant:
        """Take in what a worker reports; returns what it may do now.

        Call it from one thread at a time.
        """
        worker = report.worker
        if worker in self._last and report.number <= self._last[worker].number:
            return Grant()  # it came late, and the worker goes by another
        now = self._now()
        self._last[worker] = report
        self._until[worker] = now + LEASE_SECONDS
        nothing = _gone(0.0)
        requests = report.parts.get(REQUESTS, nothing).settled
        usd = report.parts.get(USD, nothing).settled
        self._sent[worker] = requests, usd
        self._give_up_silent(now)
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

    def _give_up_silent(self, now: float) -> None:
        """Take the places of workers that have been silent; what they may have sent counts."""
        silent = [worker for worker, until in self._until.items() if until <= now]
        for worker in silent:
            del self._until[worker]
            last = self._last[worker]
            parts = {key: _gone(last.parts[key].ceiling) for key in self._limits}
            self._last[worker] = last._replace(parts=parts)

    def told(self) -> tuple[int, float]:
        """Requests and USD of all workers, as each told last: also of those that were lost."""
        requests = sum(of_worker for of_worker, _ in self._sent.values())
        usd = sum(of_worker for _, of_worker in self._sent.values())
        return int(requests), float(usd)

    def found(self) -> dict[Key, Found]:
        """How many requests at once each endpoint takes, as is known by now."""
        return {key: level.found for key, level in self.levels.items()}

    def _parts(self, key: Key) -> dict[str, Part]:
        """Each worker's part of a limit, as it told last."""
        return {name: last.parts[key] for name, last in self._last.items() if key in last.parts}

    def _learn(self, key: Key, worker: str, outcomes: Outcomes) -> None:
        """Learn how many requests at once an endpoint takes from what came of a worker's.

        From refusals it learns at once, from answers when all workers have reported and nothing was
        refused.
        """
        level = self.levels.setdefault(key, Level(10**6))
        heard = self._heard.setdefault(key, {})
        parts = self._parts(key).values()
        wanted = sum(part.wanted for part in parts)
        held = sum(part.ceiling for part in parts)
        for answered, tick in sorted(outcomes.elements()):
            if not answered:
                level.refused(tick, int(held))
        if worker in heard:  # by now all others are, too
            for answered, tick in sorted(sum(heard.values(), Outcomes()).elements()):
                if answered and wanted >= level.places:
                    # else others have places that they don't need
                    level.answered(tick)
            heard.clear()
        heard[worker] = outcomes
        level.number = self._tick

    def _ceiling(self, key: Key, worker: str) -> float:
        """How far a worker may go: its share of what is left, as far as no other holds it yet."""
        total = self._limits[key] if key in self._limits else self.levels[key].places
        if total is None:
            return math.inf
        parts = self._parts(key)
        mine = parts[worker]
        unit = mine.unit or 1.0
        held = {name: max(0.0, part.ceiling - part.used) for name, part in parts.items()}
        left = total - sum(part.used for part in parts.values())
        free = left - sum(unused for name, unused in held.items() if name != worker)
        wanted = {name: math.ceil(part.wanted / unit) for name, part in parts.items()}
        share = shares(int(left / unit), wanted, held)[worker]
        return mine.used + unit * max(0, min(share, int(free / unit)))

    def _used_up(self, report: Report) -> UsedUp | None:
        """The first of the run's limits that lets nothing more be sent; None where none does."""
        for key, total in self._limits.items():
            if total is None or key not in report.parts:
                continue
            settled = sum(part.settled for part in self._parts(key).values())
            unit = report.parts[key].unit
            if total - settled < unit:
                return UsedUp(key, total, settled, unit)
        return None


def shares(total: int, wanted: dict[str, int], held: dict[str, float]) -> dict[str, int]:
    """Share out `total` among those who want some of it.

    Nobody gets more than wanted, all others the same, and one more who hold most already.

    Example:
        >>> wanted, used = {"a": 1, "b": 7, "c": 7, "d": 7}, {"a": 0, "b": 0, "c": 4, "d": 3}
        >>> sorted(shares(12, wanted, used).items())
        [('a', 1), ('b', 3), ('c', 4), ('d', 4)]
    """
    most_held_first = sorted(wanted, key=lambda name: -held[name])
    share = dict.fromkeys(most_held_first, 0)
    while total > 0:
        short = [name for name in share if share[name] < wanted[name]]
        if not short:
            break
        each = max(1, total // len(short))
        for name in short[:total]:
            more = min(each, wanted[name] - share[name])
            share[name] += more
            total -= more
    return share


class Lease(SharedLimits):
    """A worker's side: what its process may do until it has to renew, and what came of it.

    `together`: of several endpoints of one serving, the pool limits what is in flight to all of
    them, too.
    """

    def __init__(
        self, max_wait: float = 600.0, now: Clock = time.monotonic, together: bool = False
    ) -> None:
        super().__init__(None, None, None)
        self.limiters = _LeasedLimiters(self, together)
        self._name = uuid.uuid4().hex
        self._number = 0  # of reports
        self._max_wait = max_wait
        self._now = now
        self._may = Grant()
        self._asked = now()  # when `_may` was asked for
        self.lost = ""  # why the pool can't be reached any more
        self.levels: dict[Key, _Leased] = {}
        self._told = 0  # requests that the last report spoke of
        self._worst = 0.0  # USD that the next request may take

    @property
    def holds(self) -> bool:
        """Whether it has not expired."""
        return self._now() < self._asked + self._may.seconds

    def has_room(self, worst: float) -> bool:
        """Whether one more may be sent now. Raises BudgetExceeded, RunStopped."""
        if self.lost:
            raise RunStopped(self.lost)
        self._worst = worst or self._worst
        usd = self.spent + self.reserved + worst
        ceilings = self._may.ceilings
        if self.holds and self.sent < ceilings[REQUESTS] and usd <= ceilings[USD]:
            return True
        if self._may.used_up:
            raise BudgetExceeded(self._may.used_up.why())
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
                self._may = grant
                self._asked = asked
                self.lost = ""
        for key, level in list(self.levels.items()):
            if key in self._may.ceilings:
                level.granted = int(self._may.ceilings[key])
                level.left = level.granted
                level.number = self._may.tick
            level.limiter.let_in()

    def keep(self, call: Callable[[Report], Grant], over: threading.Event) -> None:
        """Renew a few times a second until it is `over`; then give back what is not used."""
        while not over.wait(RENEW_SECONDS if self._number else 0.0):
            self.renew(call)
        self._may = Grant()
        self.levels = {}
        self._told = self.sent
        self.renew(call)

    def _report(self) -> Report:
        """What the pool is to know: what is used and wanted of each limit, and what came of it."""
        with self.lock:
            levels = dict(self.levels)
            ceilings = self._may.ceilings
            wanted = 2 * (self.sent - self._told) + sum(level.places for level in levels.values())
            self._number += 1
            self._told = self.sent
            usd = self.spent + self.reserved
            most_requests = max(self.sent, ceilings.get(REQUESTS, 0.0))
            most_usd = max(usd, ceilings.get(USD, 0.0))
            parts: dict[Key, Part] = {}
            outcomes: dict[Key, Outcomes] = {}
            for key, level in levels.items():
                held = max(level.granted, level.limiter.in_flight)
                parts[key] = Part(held, level.limiter.wanted)
                outcomes[key] = level.outcomes
                level.outcomes = Outcomes()
            parts[REQUESTS] = Part(most_requests, wanted, self.sent, self.sent)
            parts[USD] = Part(most_usd, wanted * self._worst, usd, self.spent, self._worst)
            return Report(self._name, self._number, parts, outcomes)


class _Leased(Level):
    """An endpoint's in a worker: as many places as are leased.

    Counts what came of requests, for the next report.
    """

    def __init__(self, most: int, lease: Lease) -> None:
        super().__init__(most)
        self.limiter = Limiter(self)
        self._lease = lease
        self.granted = 0
        self.left = 0  # of the places granted, those that were not refused
        self.outcomes = Outcomes()

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


class _LeasedLimiters(Limiters):
    """Limiters with leased places; with places of their own for what is in this process."""

    leased = True

    def __init__(self, lease: Lease, gates: bool) -> None:
        super().__init__()
        self._lease = lease
        self.gates = gates

    def made(self, key: Key, most: int) -> Limiter:
        if "://" not in key[0]:
            return Limiter(Level(most))
        level = _Leased(most, self._lease)
        self._lease.levels[key] = level
        return level.limiter


@contextmanager
def leasing(
    call: Callable[[Report], Grant], max_wait: float = 600.0, together: bool = False
) -> Iterator[RunOptions]:
    """Keep the runs of a `with` block to what a pool leases them.

    The pool shares its limits among the runs of all workers. The block's value is the options of a
    run that keeps to its lease. A run that is given no options has these, and a spec's run takes
    its limits from them. A thread of its own renews the lease meanwhile.

    While the pool can't be reached, runs go on until the lease expires, then wait. A run needs the
    same `budget_usd` as the pool: one that has none counts no USD.

    Args:
        call: Hands a report to `LeasePool.renew` and returns its grant; raises, within a second or
            so, where it can't.
        max_wait: Seconds for which runs wait for the pool; then they stop with RunStopped.
        together: Whether the pool limits what is in flight to all endpoints of a serving together.

    Example:
        >>> pool = LeasePool(max_requests=100)  # as a rule in another process
        >>> with leasing(pool.renew) as options:
        ...     pass  # pipeline.run(), or pipeline.run(options=replace(options, pilot=10))
    """
    lease = Lease(max_wait, together=together)
    options = replace(current_options.get(), shared_limits=lease)
    with beside(partial(lease.keep, call)), holding(current_options, options):
        yield options
