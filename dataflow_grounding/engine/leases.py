"""One limit for many workers: places in flight, requests and USD, leased in bulk for a moment.

A worker tells the pool a few times a second what it has and would like; the pool answers what it may have. Neither
side trusts that a message arrives: what a worker might still use counts as used until the worker has said otherwise.
"""

import asyncio
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from dataflow_grounding.engine.budget import Budget, no_requests_left, no_usd_left
from dataflow_grounding.engine.limiter import Key, Level, Limiter
from dataflow_grounding.errors import BudgetExceeded, RunStopped

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.25
LOOK_SECONDS = 0.05  # how often a worker looks whether it should renew sooner


class Part(NamedTuple):
    """What a worker has of one limit: of an endpoint's places, of the requests, or of the USD.

    Args:
        used: Requests sent; USD spent, or reserved for what is in flight. Of places: 0.
        ceiling: How far `used` may go by the last grant. Of places: how many may be in flight, or are.
        wanted: How much further `used` would go until the next renewal.
        settled: How much of `used` is so for good.
        unit: What one request takes of it.
    """

    used: float = 0.0
    ceiling: float = 0.0
    wanted: float = 0.0
    settled: float = 0.0
    unit: float = 1.0


class Seen(NamedTuple):
    """What a worker has seen of an endpoint: its part, the most in flight, and outcomes since the last report.

    An outcome is the tick of the grant under which requests were sent, how many of them were answered while no place
    was free, and how many were refused.
    """

    part: Part
    in_flight: int
    outcomes: list[tuple[int, int, int]]


class Report(NamedTuple):
    """What a worker has and would like; `number` counts its reports. `leaving`: it sends nothing more."""

    worker: str
    number: int
    endpoints: dict[Key, Seen]
    requests: Part
    usd: Part
    leaving: bool = False


class Grant(NamedTuple):
    """What the worker may do for so many `seconds` from its report on.

    Args:
        number: The report's.
        tick: The pool's count of grants.
        seconds: How long it holds.
        places: How many requests may be in flight, by endpoint and model.
        requests: How many the worker may have sent, from its beginning on; `usd`: may have spent.
        used_up: Why nothing more can be sent, when that is so.
    """

    number: int
    tick: int = 0
    seconds: float = 0.0
    places: Mapping[Key, int] = {}
    requests: float = 0.0
    usd: float = 0.0
    used_up: str = ""


class LeasePool:
    """Shares out an endpoint's places, `max_requests` and `budget_usd` among workers, for one run.

    Nothing here waits or sends: whoever holds it calls `renew` for the workers, one call at a time. What a worker that
    went silent may have sent counts as sent. One that is started anew knows nothing of what was sent before.

    Args:
        max_requests: Most requests of all workers; `budget_usd`: most USD. None is without limit.
        now: The clock, in seconds.

    Example:
        >>> pool = LeasePool(max_requests=100)
        >>> pool.renew(Report("a", 1, {}, Part(wanted=8.0), Part())).requests
        8.0
    """

    def __init__(
        self,
        max_requests: int | None = None,
        budget_usd: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests, self._budget_usd, self._now = max_requests, budget_usd, now
        self._requests, self._usd = _Shared(), _Shared()
        self._endpoints: dict[Key, _Endpoint] = {}
        self._numbers: dict[str, int] = {}
        self._until: dict[str, float] = {}  # of workers that hold a lease
        self._tick = 0

    def renew(self, report: Report) -> Grant:
        """Take in what a worker reports; returns what it may do now. A report older than the last one is ignored."""
        now, worker = self._now(), report.worker
        if report.number <= self._numbers.get(worker, 0):
            return Grant(report.number)
        self._numbers[worker] = report.number
        self._until[worker] = now + LEASE_SECONDS
        requests = self._requests.renew(worker, report.requests, self._max_requests)
        usd = self._usd.renew(worker, report.usd, self._budget_usd)
        places = {key: self._endpoint(key).renew(worker, seen) for key, seen in report.endpoints.items()}
        self._tick += 1
        for key in places:
            self._endpoints[key].level.number = self._tick
        for silent in [one for one, until in self._until.items() if until <= now or (report.leaving and one == worker)]:
            self._forget(silent)
        return Grant(report.number, self._tick, LEASE_SECONDS, places, requests, usd, self._used_up(report))

    def levels(self) -> dict[Key, int]:
        """How many requests each endpoint takes at once, as far as is known."""
        return {key: endpoint.level.places for key, endpoint in self._endpoints.items()}

    def _endpoint(self, key: Key) -> "_Endpoint":
        return self._endpoints.setdefault(key, _Endpoint())

    def _forget(self, worker: str) -> None:
        del self._until[worker]
        self._requests.close(worker)
        self._usd.close(worker)
        for endpoint in self._endpoints.values():
            endpoint.forget(worker)

    def _used_up(self, report: Report) -> str:
        if self._max_requests is not None and self._requests.settled >= self._max_requests:
            return no_requests_left(self._max_requests)
        if self._budget_usd is not None and self._budget_usd - self._usd.settled < report.usd.unit:
            return no_usd_left(self._budget_usd, self._usd.settled, report.usd.unit)
        return ""


class _Shared:
    """One limit, and each worker's part of it."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    @property
    def settled(self) -> float:
        return sum(part.settled for part in self.parts.values())

    def renew(self, worker: str, part: Part, total: float | None) -> float:
        """The worker's new ceiling."""
        self.parts[worker] = part
        if total is None:
            return math.inf
        unit = max((part.unit for part in self.parts.values() if part.wanted), default=0.0) or 1.0
        left = total - sum(part.used for part in self.parts.values())
        held = {one: max(0.0, part.ceiling - part.used) for one, part in self.parts.items()}
        wanted = {one: math.ceil(part.wanted / unit) for one, part in self.parts.items()}
        free = left - sum(unused for one, unused in held.items() if one != worker)
        given = unit * min(shares(int(left / unit), wanted, held)[worker], max(0, int(free / unit)))
        # until it has said that it has given back, it may go as far as it could
        self.parts[worker] = part._replace(ceiling=max(part.ceiling, part.used + given))
        return part.used + given

    def close(self, worker: str) -> None:
        """Count all as used that the worker may have used."""
        if part := self.parts.get(worker):
            self.parts[worker] = Part(part.ceiling, part.ceiling, 0.0, part.ceiling, 0.0)


class _Endpoint:
    """An endpoint's level, found out from what all workers report, and who has how many of its places."""

    def __init__(self) -> None:
        self.level = Level(10**6)
        self._places = _Shared()
        self._in_flight: dict[str, int] = {}

    def renew(self, worker: str, seen: Seen) -> int:
        self._in_flight[worker] = seen.in_flight
        self._places.parts[worker] = seen.part
        wanted = sum(part.wanted for part in self._places.parts.values())
        for tick, answered, refused in sorted(seen.outcomes):
            for _ in range(answered):
                if wanted >= self.level.places:  # else there is no need of more, though one worker had too few
                    self.level.answered(tick)
            for _ in range(refused):
                self.level.refused(tick, sum(self._in_flight.values()))
        return int(self._places.renew(worker, seen.part, self.level.places))

    def forget(self, worker: str) -> None:
        self._in_flight.pop(worker, None)
        self._places.parts.pop(worker, None)


def shares(total: int, wanted: Mapping[str, int], held: Mapping[str, float]) -> dict[str, int]:
    """Share out `total`: nobody gets more than wanted, all others equal parts, and one more who hold most.

    Example:
        >>> shares(10, {"a": 1, "b": 7, "c": 7, "d": 7}, {"a": 0, "b": 0, "c": 4, "d": 3})
        {'a': 1, 'b': 3, 'c': 3, 'd': 3}
        >>> shares(3, {"a": 5, "b": 5}, {"a": 0, "b": 1})
        {'a': 1, 'b': 2}
    """
    left, equal = max(0, total), 0
    for others, want in zip(range(len(wanted), 0, -1), sorted(wanted.values()), strict=True):
        equal = left // others
        if want > equal:
            break
        left -= want
    given = {one: min(want, equal) for one, want in wanted.items()}
    short = sorted((one for one in wanted if wanted[one] > equal), key=lambda one: -held[one])
    for one in short[: max(0, total) - sum(given.values())]:
        given[one] += 1
    return given


class Lease:
    """A worker's side: what it may do until it has to renew, and what came of it. For threads of one process."""

    def __init__(self, max_wait: float = 600.0, now: Callable[[], float] = time.monotonic) -> None:
        self._name, self._number = uuid.uuid4().hex, 0
        self._max_wait, self._now = max_wait, now
        self._reached, self._until = now(), -math.inf
        self._sent = self._sent_before = 0
        self._spent = self._reserved = self._worst = 0.0
        self._may = Grant(0)
        self._lost = ""  # why nothing can be sent, when the pool is gone
        self._in_flight = 0
        self._wishes: list[float] = []  # the worst cases of requests that are about to be sent
        self._levels: dict[Key, _Leased] = {}
        self._told = 0  # of what is urgent
        self._lock = threading.RLock()

    def limiter(self, key: Key, most: int) -> Limiter:
        """A limiter whose places are leased; one that finds them out alone for what isn't reached over a network."""
        if "://" not in key[0]:
            return Limiter(Level(most))
        self._levels[key] = _Leased(most, self)
        return self._levels[key].limiter

    @property
    def holds(self) -> bool:
        """Whether it has not expired."""
        return self._now() < self._until

    @property
    def lost(self) -> bool:
        """Whether the pool can't be reached for longer than is waited for."""
        return bool(self._lost)

    async def reserve(self, worst: float) -> None:
        """Wait until one more request may be sent that costs at most `worst` USD. Raises BudgetExceeded, RunStopped."""
        with self._wish(worst):
            while not self._take(worst):
                await asyncio.sleep(LOOK_SECONDS / 2)
        self._in_flight += 1

    def count(self) -> None:
        """Wait, without the event loop, until one more may be sent for the same answer. Raises as `reserve`."""
        with self._wish(0.0):
            while not self._take(0.0):
                time.sleep(LOOK_SECONDS / 2)

    def settle(self, reserved: float, cost: float) -> None:
        """After the answer: what it cost."""
        with self._lock:
            self._in_flight -= 1
            self._reserved = self._reserved - reserved if self._in_flight else 0.0
            self._spent += cost

    @contextmanager
    def _wish(self, worst: float) -> Iterator[None]:
        self._wishes.append(worst)
        try:
            yield
        finally:
            self._wishes.remove(worst)

    def _take(self, worst: float) -> bool:
        with self._lock:
            if self._lost:
                raise RunStopped(self._lost)
            enough = self._spent + self._reserved + worst <= self._may.usd and self._sent < self._may.requests
            if enough and self.holds:
                self._sent, self._reserved, self._worst = self._sent + 1, self._reserved + worst, worst or self._worst
                return True
            if self._may.used_up:
                raise BudgetExceeded(self._may.used_up)
            return False

    def report(self, leaving: bool = False) -> Report:
        """What to tell the pool now."""
        levels = dict(self._levels)
        endpoints = {} if leaving else {key: level.seen() for key, level in levels.items()}
        may = Grant(0) if leaving else self._may
        with self._lock:
            self._number += 1
            ready = sum(level.ready for level in levels.values())
            count = 0 if leaving else len(self._wishes) + ready + 2 * (self._sent - self._sent_before)
            self._sent_before = self._sent
            used, unit = self._spent + self._reserved, max(self._wishes, default=self._worst)
            requests = Part(self._sent, max(self._sent, may.requests), count, self._sent)
            usd = Part(used, max(used, may.usd), count * unit, self._spent, unit)
            self._may = may
            return Report(self._name, self._number, endpoints, requests, usd, leaving)

    def take(self, grant: Grant, asked: float) -> None:
        """Go by a grant; `asked` is when its report was made."""
        with self._lock:
            if grant.number != self._number:
                return
            self._may, self._reached, self._until, self._lost = grant, asked, asked + grant.seconds, ""
        for key, places in grant.places.items():
            self._levels[key].grant(places, grant.tick)
        self._told = self._urgent()

    def _urgent(self) -> int:
        """How much there is that the pool should know soon."""
        return len(self._wishes) + sum(level.urgent for level in list(self._levels.values()))

    def keep(self, call: Callable[[Report], Grant], over: threading.Event) -> None:
        """Renew until it is `over`."""
        while not over.is_set():
            asked = self._now()
            try:
                self.take(call(self.report()), asked)
            except Exception as error:  # whatever the way to the pool is made of
                if asked - self._reached > self._max_wait:
                    self._lost = f"can't reach who shares out the endpoint's places ({type(error).__name__}: {error})"
                    for level in list(self._levels.values()):
                        level.limiter.let_in()  # whoever waits for a place should hear of it
            for _ in range(round(RENEW_SECONDS / LOOK_SECONDS)):
                if over.wait(LOOK_SECONDS) or self._urgent() > self._told:
                    break


class _Leased(Level):
    """An endpoint's level in a worker: as many places as are leased. Counts outcomes for the next report."""

    def __init__(self, most: int, lease: Lease) -> None:
        super().__init__(most)
        self.limiter = Limiter(self)
        self._lease = lease
        self._granted = self._dropped = self._peak = 0
        self._answered, self._refused = Counter[int](), Counter[int]()

    @property
    def places(self) -> int:
        if self._lease.lost:
            return self.most
        return max(0, self._granted - self._dropped) if self._lease.holds else 0

    @property
    def ready(self) -> int:
        """How many wait and could be sent."""
        return max(0, min(self.limiter.wanted, self._granted) - self.limiter.in_flight)

    @property
    def urgent(self) -> int:
        return self._dropped + (not self._granted and self.limiter.wanted > 0)

    def send(self) -> int:
        return self.number  # the tick of the last grant

    def answered(self, number: int) -> None:
        # a window for each grant: more answers before the pool has moved its level say nothing more
        self._answered[number] = min(self._answered[number] + 1, max(1, self._granted))

    def refused(self, number: int, in_flight: int) -> None:
        self._refused[number] += 1
        self._peak = max(self._peak, in_flight)
        self._dropped += number == self.number  # a place that was refused is not tried again before the next grant

    def seen(self) -> Seen:
        """What to report of it."""
        answered, self._answered = self._answered, Counter()
        refused, self._refused = self._refused, Counter()
        in_flight = self.limiter.in_flight
        peak, self._peak = max(self._peak, in_flight), 0
        part = Part(ceiling=max(self._granted, in_flight), wanted=self.limiter.wanted)
        return Seen(part, peak, [(tick, answered[tick], refused[tick]) for tick in {*answered, *refused}])

    def grant(self, places: int, tick: int) -> None:
        """Go by a grant."""
        self._granted, self._dropped, self.number = places, 0, tick
        self.limiter.let_in()


@contextmanager
def leasing(call: Callable[[Report], Grant], max_wait: float = 600.0) -> Iterator[Lease]:
    """Within it, this process's runs keep to what a pool leases them, with all other workers.

    A thread renews the lease a few times a second. While the pool can't be reached, runs go on until the lease expires,
    then wait. They still need their `max_requests` and `budget_usd`: by these they know what to count.

    Args:
        call: Takes a report to `LeasePool.renew` and returns its grant; raises, within a second or so, when it can't.
        max_wait: Seconds for which runs wait for the pool; then they stop with RunStopped.

    Example:
        >>> pool = LeasePool(max_requests=100)  # in a real case, in another process
        >>> with leasing(pool.renew):
        ...     pass  # pipeline.run(), or ground(…)
    """
    lease, over = Lease(max_wait), threading.Event()
    thread = threading.Thread(target=lease.keep, args=(call, over), name="leases", daemon=True)
    before, Budget.lease, Limiter.lease = Budget.lease, lease, lease
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join()
        Budget.lease = Limiter.lease = before
        with suppress(Exception):  # then it expires
            call(lease.report(leaving=True))
