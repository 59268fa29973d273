"""One limiter for all workers of a run: places at endpoints, requests and USD.

`SharedLimiter` runs in a separate process. Like a run in one process, it has a `Level` for each
endpoint and a `Budget`. The `WorkerLimits` of each worker ask it before a request is sent, and
report how the request ended. It counts a request before it permits it. If a worker is lost, its
permitted requests count as sent, at their worst cost. So no limit is exceeded, even if messages get
lost.
"""

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BudgetExceeded, RunStopped
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding.engine.budget import Budget, SharedLimits
from dataflow_grounding.engine.limiter import FoundPlaces, Key, Level, Limiter, Limiters
from dataflow_grounding.engine.workers import in_background

GATHER_SECONDS = 0.02  # in which what a worker has to say is gathered for one message
ASK_SECONDS = 0.1  # after which a worker that waits asks again, with nothing new to say
LAST_SECONDS = 5.0  # the longest wait for a worker's last message


class Leave(NamedTuple):
    """What a request waits for besides a place: leave to be sent, at `worst` USD at most.

    `answers` is 1 where it begins an answer, 0 where it is a further request for one.
    """

    worst: float
    answers: int


class Ended(NamedTuple):
    """A place that is given back: its `number`, and what the endpoint said."""

    number: int
    refused: bool
    answered: bool


class AtEndpoint(NamedTuple):
    """What a worker has to say of one endpoint.

    Attributes:
        most: The most requests in flight of all workers.
        wanted: How many requests of this worker are in flight, or would be if they had places.
        ended: The places that it gives back.
    """

    most: int
    wanted: int
    ended: list[Ended]


class Report(NamedTuple):
    """What a worker has to say: of endpoints, of answers and what it waits for.

    `settled` has, for each answer, the USD that were reserved for it, and those that it cost.
    """

    endpoints: dict[Key, AtEndpoint]
    settled: list[tuple[float, float]]
    waiting: list[Leave]


class Permits(NamedTuple):
    """The answer to a report: further places, and for how many of those that wait there is leave.

    `stopped` is why there is none for the next, and won't be; "" where it may come.
    """

    places: dict[Key, list[int]]
    leaves: int
    stopped: str


class _Held:
    """What one worker holds: places by endpoint, and the USD reserved for each of its answers."""

    def __init__(self) -> None:
        self.places: defaultdict[Key, set[int]] = defaultdict(set)
        self.wanted: dict[Key, int] = {}
        self.reserved: list[float] = []


class SharedLimiter:
    """The limits of all workers of one run. Call it from one thread at a time.

    Args:
        max_requests: Most requests; None is without limit.
        budget_usd: Most USD; None is without limit.
        before: Requests and USD that are used already.
        found: How many requests at once endpoints were found to take.
        of_spec: Whether messages speak of a spec.
    """

    def __init__(
        self,
        max_requests: int | None = None,
        budget_usd: float | None = None,
        before: tuple[int, float] = (0, 0.0),
        found: Mapping[Key, FoundPlaces] | None = None,
        of_spec: bool = False,
    ) -> None:
        self._budget = Budget(max_requests, budget_usd, None)
        self._budget.sent, self._budget.spent = before
        self._found_before = dict(found or {})
        self._of_spec = of_spec
        self._levels: dict[Key, Level] = {}
        self._held: dict[str, _Held] = {}  # by worker
        self._gone: set[str] = set()

    def exchange(self, worker: str, report: Report) -> Permits:
        """Take in what a worker reports, and return what it may do; nothing for a lost one."""
        if worker in self._gone:
            return Permits({}, 0, "")
        speaks_of_specs.set(self._of_spec)  # the calling thread doesn't have it
        held = self._held.setdefault(worker, _Held())
        for reserved, cost in report.settled:
            self._budget.count_cost(reserved, cost)
            held.reserved.remove(reserved)
        places = {}
        for key, said in report.endpoints.items():
            self._take_back(held, key, said)
            places[key] = self._places_for(worker, key)
        leaves, stopped = self._let_go(held, report.waiting)
        return Permits(places, leaves, stopped)

    def _take_back(self, held: _Held, key: Key, said: AtEndpoint) -> None:
        level = self._levels.get(key)
        if level is None:
            level = Level(said.most)
            self._levels[key] = level
            if key in self._found_before:
                level.resume(self._found_before[key])
        level.most = max(level.most, said.most)
        # Those that ended since the last report were in flight together.
        in_flight = sum(len(each.places[key]) for each in self._held.values())
        held.wanted[key] = max(said.wanted, held.wanted.get(key, 0))
        wanted = sum(each.wanted.get(key, 0) for each in self._held.values())
        for number, refused, answered in said.ended:
            # Answers speak for more places where all are wanted. Not all are in use then: what one
            # worker gives back, the next one takes when it asks.
            busy = min(in_flight, level.places) if refused else wanted
            level.ended(number, busy, refused=refused, answered=answered)
            held.places[key].remove(number)
        held.wanted[key] = said.wanted

    def _places_for(self, worker: str, key: Key) -> list[int]:
        level = self._levels[key]
        own = self._held[worker]
        wanted = [each.wanted.get(key, 0) for each in self._held.values()]
        share = fair_share(level.places, own.wanted[key], wanted)
        free = level.places - sum(len(each.places[key]) for each in self._held.values())
        further = max(0, min(free, share - len(own.places[key])))
        numbers = [level.send() for _ in range(further)]
        own.places[key].update(numbers)
        return numbers

    def _let_go(self, held: _Held, waiting: list[Leave]) -> tuple[int, str]:
        for number, (worst, answers) in enumerate(waiting):
            try:
                if not self._budget.take(worst, answers):
                    return number, ""
            except BudgetExceeded as used_up:
                return number, str(used_up)
            held.reserved += [worst] * answers
        return len(waiting), ""

    def gone(self, worker: str) -> None:
        """Take back the places of a worker that is gone; what it had in flight counts as sent."""
        self._gone.add(worker)
        held = self._held.pop(worker, None)
        if held is not None:
            for reserved in held.reserved:
                self._budget.count_cost(reserved, reserved)

    def totals(self) -> tuple[int, float]:
        """Return requests and USD of all workers, lost ones' too."""
        return self._budget.sent, self._budget.spent

    def found(self) -> dict[Key, FoundPlaces]:
        """Return how many requests at once each endpoint takes, as far as it is found out."""
        return {key: level.found for key, level in self._levels.items()}


def fair_share(total: int, wanted: int, by_all: Iterable[int]) -> int:
    """Return one worker's share of `total`.

    Nobody gets more than is wanted, and all others get the same. A remainder goes to the first who
    ask, so the last one may find less than its share.

    Args:
        total: What there is.
        wanted: What this one wants.
        by_all: What each wants, including this one.

    Example:
        >>> [fair_share(12, wanted, [1, 7, 7, 7]) for wanted in (1, 7)]
        [1, 4]
    """
    left = total
    smallest_first = sorted(by_all)
    for place, each in enumerate(smallest_first):
        sharing = len(smallest_first) - place
        if each * sharing > left:
            return min(wanted, math.ceil(left / sharing))
        left -= each
    return wanted


Exchange: TypeAlias = Callable[[Report], Permits]
"""Hands a worker's report to the limiter; returns its answer, or raises where none comes."""


class WorkerLimits(SharedLimits):
    """A worker's side: asks the limiter for all requests of a run in this process."""

    def __init__(self) -> None:
        super().__init__(max_requests=None, usd=None, prices=None)
        self.limiters = _SharedLimiters(self)
        self.endpoints: dict[Key, _SharedPlaces] = {}
        self.changed = threading.Event()  # set when there is something to say
        self.lost = ""  # why the limiter can't be reached any more
        self._waiting: list[tuple[Leave, Future[None]]] = []
        self._settled: list[tuple[float, float]] = []
        self._last_report: Report | None = None

    async def wait_for_room(self, worst: float) -> None:
        """Wait for leave to send a request of at most `worst` USD; raise RunStopped without."""
        leave = self._ask(Leave(worst, 1))
        try:
            await asyncio.wrap_future(leave)
        except asyncio.CancelledError:
            # It may have been let go meanwhile: then it costs nothing.
            if not leave.cancel() and leave.exception() is None:
                self.count_cost(worst, 0.0)
            raise

    def count_further_request(self) -> None:
        """Wait for leave to send one more request for an answer; raise RunStopped without."""
        self._ask(Leave(0.0, 0)).result()

    def count_cost(self, reserved: float, cost: float) -> None:
        """Count what an answer cost, in USD, and tell the limiter."""
        super().count_cost(reserved, cost)
        with self.lock:
            self._settled.append((reserved, cost))
        self.changed.set()

    def _ask(self, leave: Leave) -> "Future[None]":
        future: Future[None] = Future()
        with self.lock:
            if self.lost:
                future.set_exception(RunStopped(self.lost))
            else:
                self._waiting.append((leave, future))
        self.changed.set()
        return future

    def keep(self, exchange: Exchange, over: threading.Event) -> None:
        """Ask and tell until `over` is set; then tell the rest."""
        while not (over.is_set() or self.lost):
            self.changed.wait(ASK_SECONDS)
            self.changed.clear()
            self._exchange(exchange)
            over.wait(GATHER_SECONDS)
        self._exchange(exchange)

    def _exchange(self, exchange: Exchange) -> None:
        if self.lost:
            return
        asking = [(leave, future) for leave, future in self._waiting if not future.cancelled()]
        report = self._report([leave for leave, _ in asking])
        waits_for_places = any(
            said.wanted > self.endpoints[key].places for key, said in report.endpoints.items()
        )
        if not (asking or waits_for_places or report != self._last_report):
            return
        self._last_report = report
        try:
            permits = exchange(report)
        except Exception as error:  # of any kind: it goes over Ray, or over a test's own way
            self._lose(error)
            return
        for leave, future in asking[: permits.leaves]:
            self._let_go(leave, future)
        if permits.stopped:
            for _, future in asking[permits.leaves :]:
                if future.set_running_or_notify_cancel():
                    future.set_exception(BudgetExceeded(permits.stopped))
        with self.lock:
            self._waiting = [each for each in self._waiting if not each[1].done()]
        for key, numbers in permits.places.items():
            self.endpoints[key].add(numbers)

    def _report(self, waiting: list[Leave]) -> Report:
        endpoints = {key: places.said() for key, places in list(self.endpoints.items())}
        with self.lock:
            settled = self._settled
            self._settled = []
        return Report(endpoints, settled, waiting)

    def _let_go(self, leave: Leave, future: "Future[None]") -> None:
        with self.lock:
            self.sent += 1
            self.in_flight += leave.answers
            self.reserved += leave.worst
        if future.set_running_or_notify_cancel():
            future.set_result(None)
        elif leave.answers:
            self.count_cost(leave.worst, 0.0)

    def _lose(self, error: Exception) -> None:
        why = str(error).partition("\n")[0]  # Ray's errors have many lines
        with self.lock:
            self.lost = (
                f"can't reach the limiter of all workers ({type(error).__name__}: {why}). Run it"
                " again to go on"
            )
            waiting = self._waiting
            self._waiting = []
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(RunStopped(self.lost))
        for places in self.endpoints.values():
            places.limiter.let_in()


class _SharedPlaces(Level):
    """The places of an endpoint that a worker holds: those in use, and those that are free."""

    def __init__(self, most: int, limits: WorkerLimits) -> None:
        super().__init__(most)
        self._limits = limits
        self.limiter: Limiter = _SharedLimiter(self, limits.changed)
        self._free: list[int] = []  # their numbers
        self._in_use: list[int] = []
        self._ended: list[Ended] = []

    @property
    def places(self) -> int:
        """How many places the worker holds; all if the limiter is lost: then all get the error."""
        return self.most if self._limits.lost else len(self._in_use) + len(self._free)

    def send(self) -> int:
        """Return the number of a free place, which is in use from now on."""
        number = self._free.pop() if self._free else 0  # 0 only without a limiter
        self._in_use.append(number)
        return number

    def ended(self, number: int, in_flight: int, *, refused: bool, answered: bool) -> None:
        """Note that a place will be given back; the limiter learns from it."""
        # Those of several endpoints together are given back without their number: any will do.
        if number not in self._in_use:
            number = self._in_use[-1]
        self._in_use.remove(number)
        self._ended.append(Ended(number, refused, answered))

    def add(self, numbers: list[int]) -> None:
        """Let in as many requests as there are further places."""
        if numbers:
            with self.limiter.lock:
                self._free += numbers
                self.limiter.let_in()

    def said(self) -> AtEndpoint:
        """Return the report on the endpoint; free places that nobody takes go back."""
        with self.limiter.lock:
            for _ in range(self.places - self.limiter.in_flight):
                self._ended.append(Ended(self._free.pop(), refused=False, answered=False))
            ended = self._ended
            self._ended = []
            return AtEndpoint(self.most, self.limiter.wanted, ended)


class _SharedLimiter(Limiter):
    """An endpoint's limiter in a worker: it says when somebody waits for a place, or leaves one."""

    def __init__(self, level: Level, changed: threading.Event) -> None:
        super().__init__(level)
        self._changed = changed

    def let_in(self) -> None:
        """Give places to those who wait, as far as there are any."""
        super().let_in()
        self._changed.set()


class _SharedLimiters(Limiters):
    """Limiters whose places are those of all workers.

    A model in this process, whose endpoint is no address, has a separate limiter.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        super().__init__()
        self._limits = limits

    def made(self, key: Key, most: int) -> Limiter:
        """Return a new limiter for a key, with up to `most` requests in flight."""
        if "://" not in key[0]:
            return super().made(key, most)
        places = _SharedPlaces(most, self._limits)
        self._limits.endpoints[key] = places
        return places.limiter


@contextmanager
def shared_limits(exchange: Exchange) -> Iterator[WorkerLimits]:
    """Give a run the limits that it shares with those of other workers, while the block lasts."""
    limits = WorkerLimits()
    with in_background(partial(limits.keep, exchange), wait=LAST_SECONDS):
        yield limits
