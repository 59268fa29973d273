"""One limit for many workers: an endpoint's places, a run's requests and USD, leased for a moment.

A place is one request in flight. `LeasePool` knows the limits of the whole run. Each worker has a
`Lease`: a few times a second it reports what it has used and wants (`Report`), and the pool answers
how far it may go (`Grant`). A grant runs out after 2 s, so that a worker that has lost the pool
stops by itself. Until a worker reports otherwise, the pool counts as used all that it has granted:
no limit is passed, whatever gets lost on the way.
"""

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
from dataflow_grounding.engine.limiter import FoundPlaces, Key, Level, Limiter, Limiters
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.engine.workers import beside

LEASE_SECONDS = 2.0  # for so long a worker may go by a grant
RENEW_SECONDS = 0.2  # between two reports of a worker
NO_LIMIT = 10**6  # requests in flight to an endpoint that has no limit of its own in the pool
# The keys of the run's limits, beside those of endpoints.
REQUESTS = ("", "requests")
USD = ("", "USD")
Clock = Callable[[], float]
# How many requests were answered (True) or refused (False), by the tick (the number) of the grant
# that let them go. Only answers that came while all places were in use count.
Outcomes = Counter[tuple[bool, int]]


class Part(NamedTuple):
    """A worker's part of a limit: of places, of requests or of USD.

    Attributes:
        ceiling: How far it may go by its last grant.
        wanted: How much further than `used` it would go.
        used: How far it has gone. Of places, none are ever used up.
        settled: What of that is known for sure; the rest is reserved for requests in flight.
        unit: What the next request takes.
    """

    ceiling: float
    wanted: float
    used: float = 0.0
    settled: float = 0.0
    unit: float = 1.0


def _part_of_gone_worker(used: float) -> Part:
    """Return the part of a worker that is gone: it may and wants no more than it has used."""
    return Part(used, 0.0, used, used)


_NO_PART = Part(0.0, 0.0)
"""The part of a worker that has used nothing of a limit, and wants nothing of it."""


class Report(NamedTuple):
    """A worker's `number`-th report.

    It has the worker's part of each limit, and what came of requests to each endpoint since the
    last report.
    """

    worker: str
    number: int
    parts: dict[Key, Part]
    outcomes: dict[Key, Outcomes]


class UsedUp(NamedTuple):
    """A limit that lets nothing more be sent.

    `settled` is what is used of its `total`, `unit` what the next request takes. The worker puts it
    into words: it knows whether messages call settings as in a spec or as in Python.
    """

    key: Key
    total: float
    settled: float
    unit: float

    def why(self) -> str:
        """Return in words why the run stops, with the settings that it stops by."""
        if self.key == USD:
            return no_usd_left(self.total, self.settled, self.unit)
        return no_request_left(int(self.total))


class Grant(NamedTuple):
    """A worker's ceilings for `seconds` from its report on; by default nothing may be sent.

    `tick` is the pool's number of the grant, from 1; `used_up` is the limit that lets nothing more
    be sent, if one does.
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
        # What was used before stands as a worker without a name, which is gone.
        requests_before, usd_before = before
        used_before = {
            REQUESTS: _part_of_gone_worker(requests_before),
            USD: _part_of_gone_worker(usd_before),
        }
        self._last_reports = {"": Report("", 0, used_before, {})}
        self._grants_end: dict[str, float] = {}  # by worker, on the clock
        self._settled: dict[str, tuple[float, float]] = {}  # requests and USD, by worker
        # Of the round under way, what came of each worker's requests, by endpoint and worker. A
        # round ends when a worker reports for the second time.
        self._rounds: dict[Key, dict[str, Outcomes]] = {}
        self._now = now
        self._tick = 0

    def renew(self, report: Report) -> Grant:
        """Take in what a worker reports, and return what it may do now.

        A report that isn't newer than the worker's last one changes nothing, and is granted
        nothing. Call it from one thread at a time.
        """
        worker = report.worker
        if worker in self._last_reports and report.number <= self._last_reports[worker].number:
            return Grant()  # the report came late: the worker goes by the answer to a newer one
        now = self._now()
        self._last_reports[worker] = report
        self._grants_end[worker] = now + LEASE_SECONDS
        requests = report.parts.get(REQUESTS, _NO_PART).settled
        usd = report.parts.get(USD, _NO_PART).settled
        self._settled[worker] = requests, usd
        self._take_back_from_silent(now)
        self._tick += 1
        for key, outcomes in report.outcomes.items():
            self._learn(key, worker, outcomes)
        ceilings = {key: self._ceiling(key, worker) for key in report.parts}
        # The worker may still go as far as before until it reports that it goes by the new ceiling.
        parts = {
            key: part._replace(ceiling=max(part.ceiling, ceilings[key]))
            for key, part in report.parts.items()
        }
        self._last_reports[worker] = report._replace(parts=parts)
        return Grant(self._tick, LEASE_SECONDS, ceilings, self._used_up(report))

    def _take_back_from_silent(self, now: float) -> None:
        """Take back the places of workers whose grants have run out.

        The requests and USD that they might have used by those grants count as used.
        """
        silent = [worker for worker, end in self._grants_end.items() if end <= now]
        for worker in silent:
            del self._grants_end[worker]
            last = self._last_reports[worker]
            parts = {}
            for key in self._limits:
                if key in last.parts:
                    parts[key] = _part_of_gone_worker(last.parts[key].ceiling)
            self._last_reports[worker] = last._replace(parts=parts)

    def reported_totals(self) -> tuple[int, float]:
        """Return requests and USD of all workers by their last reports, lost workers' too."""
        total_requests = 0.0
        total_usd = 0.0
        for requests, usd in self._settled.values():
            total_requests += requests
            total_usd += usd
        return int(total_requests), float(total_usd)

    def known_levels(self) -> dict[Key, FoundPlaces]:
        """Return how many requests at once each endpoint takes, as far as it is found out."""
        return {key: level.found for key, level in self.levels.items()}

    def _parts(self, key: Key) -> dict[str, Part]:
        """Return each worker's part of a limit, by worker; only of those that have one."""
        parts = {}
        for worker, last in self._last_reports.items():
            if key in last.parts:
                parts[worker] = last.parts[key]
        return parts

    def _learn(self, key: Key, worker: str, outcomes: Outcomes) -> None:
        """Change an endpoint's level by what came of a worker's requests.

        Refusals lower it at once. Answers raise it at the end of a round, when a worker reports for
        the second time: by then all others have reported, too, so that those of all count together.

        Args:
            key: The endpoint and model.
            worker: The worker's name.
            outcomes: What came of its requests since its last report.
        """
        level = self.levels.setdefault(key, Level(NO_LIMIT))
        parts = self._parts(key).values()
        wanted = sum(part.wanted for part in parts)
        granted = sum(part.ceiling for part in parts)
        for tick in _ticks(outcomes, answered=False):
            level.refused(tick, int(granted))
        outcomes_of_round = self._rounds.setdefault(key, {})
        round_is_over = worker in outcomes_of_round
        if round_is_over:
            outcomes_of_all = Outcomes()
            for outcomes_of_worker in outcomes_of_round.values():
                outcomes_of_all += outcomes_of_worker
            for tick in _ticks(outcomes_of_all, answered=True):
                # Where less is wanted than there are places, answers don't show that all of them
                # can be in use.
                if wanted >= level.places:
                    level.answered(tick)
            outcomes_of_round.clear()
        outcomes_of_round[worker] = outcomes
        level.number = self._tick  # requests are numbered by the grant that lets them go

    def _ceiling(self, key: Key, worker: str) -> float:
        """Return how far a worker may go in using a limit; infinite for one without a total.

        That is what it has used, and its fair share of what is left, in whole requests; but no more
        than is free, which is what is left without what other workers may still use by their last
        grants.
        """
        total = self._limits[key] if key in self._limits else self.levels[key].places
        if total is None:
            return math.inf
        parts = self._parts(key)
        own = parts[worker]
        left = total - sum(part.used for part in parts.values())
        # What each worker may still use by its last grant.
        held = {name: max(0.0, part.ceiling - part.used) for name, part in parts.items()}
        held_by_others = sum(amount for name, amount in held.items() if name != worker)
        free = left - held_by_others
        # Shares are counted in whole requests, each of which takes a unit (1, or some USD).
        unit = own.unit or 1.0
        wanted = {name: math.ceil(part.wanted / unit) for name, part in parts.items()}
        fair_share = shares(int(left / unit), wanted, held)[worker]
        further_requests = max(0, min(fair_share, int(free / unit)))
        return own.used + unit * further_requests

    def _used_up(self, report: Report) -> UsedUp | None:
        """Return the first of the run's limits that has no room for the next request of a worker.

        None if all have. What is only reserved, for requests in flight, counts as room.
        """
        for key, total in self._limits.items():
            if total is None or key not in report.parts:
                continue
            settled = sum(part.settled for part in self._parts(key).values())
            unit = report.parts[key].unit
            if total - settled < unit:
                return UsedUp(key, total, settled, unit)
        return None


def _ticks(outcomes: Outcomes, *, answered: bool) -> list[int]:
    """Return the ticks of all answers, or of all refusals, in order: one for each request."""
    return sorted(tick for was_answered, tick in outcomes.elements() if was_answered == answered)


def shares(total: int, wanted: dict[str, int], held: dict[str, float]) -> dict[str, int]:
    """Share out `total` among those who want some of it, by name.

    Nobody gets more than is wanted, and all others get the same. Where that leaves a remainder,
    those who hold most already get one more each, so that little changes hands.

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

    Args:
        max_wait: Seconds without an answer after which the pool counts as lost.
        now: The clock, in seconds.
        together: Whether the pool also limits what is in flight to all endpoints of a serving
            together.
    """

    def __init__(
        self, max_wait: float = 600.0, now: Clock = time.monotonic, together: bool = False
    ) -> None:
        """Begin without a grant: nothing may be sent before the first `renew`."""
        super().__init__(max_requests=None, usd=None, prices=None)
        self.limiters = _LeasedLimiters(self, gates=together)
        self._name = uuid.uuid4().hex
        self._number = 0  # of reports
        self._max_wait = max_wait
        self._now = now
        self._grant = Grant()
        self._grant_asked = now()  # when `_grant` was asked for
        self.lost = ""  # why the pool can't be reached any more
        self.levels: dict[Key, _LeasedLevel] = {}
        self._reported_sent = 0  # requests that the last report spoke of
        self._worst_usd = 0.0  # the most that the next request may cost

    @property
    def holds(self) -> bool:
        """Whether the last grant has not run out."""
        return self._now() < self._grant_asked + self._grant.seconds

    def has_room(self, worst: float) -> bool:
        """Return whether one more request, of at most `worst` USD, may be sent now.

        False where a later grant may let it go.

        Raises BudgetExceeded where none will be any more, RunStopped where the pool is lost.
        """
        if self.lost:
            raise RunStopped(self.lost)
        self._worst_usd = worst or self._worst_usd
        usd = self.spent + self.reserved + worst
        ceilings = self._grant.ceilings
        if self.holds and self.sent < ceilings[REQUESTS] and usd <= ceilings[USD]:
            return True
        if self._grant.used_up:
            raise BudgetExceeded(self._grant.used_up.why())
        return False

    def renew(self, call: Callable[[Report], Grant]) -> None:
        """Report to the pool, and go by its grant; without an answer, by the last grant.

        The pool counts as lost once there was no answer for `max_wait`, or its pipe is broken, and
        until it answers again. Requests that wait for a place are let in as far as there are any.

        Args:
            call: Hands a report to the pool and returns its grant, or raises.
        """
        asked = self._now()
        try:
            grant = call(self._report())
        except Exception as error:  # any kind: `call` may go over Ray, a pipe or the user's own way
            waited_too_long = asked > self._grant_asked + self._max_wait
            if waited_too_long or isinstance(error, BrokenPipeError):
                self.lost = (
                    f"can't reach the pool of leases ({type(error).__name__}: {error}). Run it"
                    " again to go on"
                )
        else:
            with self.lock:
                self._grant = grant
                self._grant_asked = asked
                self.lost = ""
        for key, level in list(self.levels.items()):
            if key in self._grant.ceilings:
                level.granted = int(self._grant.ceilings[key])
                level.left = level.granted
                level.number = self._grant.tick
            level.limiter.let_in()

    def keep(self, call: Callable[[Report], Grant], over: threading.Event) -> None:
        """Renew by `call` a few times a second until `over` is set; then give back the rest."""
        # At once for the first time: nothing may be sent before.
        while not over.wait(RENEW_SECONDS if self._number else 0.0):
            self.renew(call)
        # The last report wants nothing and has no ceilings beyond what is used.
        self._grant = Grant()
        self.levels = {}
        self._reported_sent = self.sent
        self.renew(call)

    def _report(self) -> Report:
        """Return the next report: what is used and wanted of each limit, and what came of requests.

        What is reported so is not reported again.
        """
        with self.lock:
            levels = dict(self.levels)
            ceilings = self._grant.ceilings
            # Twice what was sent since the last report, so that a grant lasts beyond the next one.
            sent_since = self.sent - self._reported_sent
            wanted = 2 * sent_since + sum(level.places for level in levels.values())
            self._number += 1
            self._reported_sent = self.sent
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
            wanted_usd = wanted * self._worst_usd
            parts[USD] = Part(most_usd, wanted_usd, usd, self.spent, self._worst_usd)
            return Report(self._name, self._number, parts, outcomes)


class _LeasedLevel(Level):
    """The places of an endpoint in a worker's process: as many as are leased.

    It counts what came of requests, for the next report. The `number` of a request is the tick of
    the grant that let it go.
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
        """How many requests may be in flight: none once the grant has run out."""
        if self._lease.lost:
            return self.most  # requests that wait are let in, to be told that the pool is lost
        return self.left if self._lease.holds else 0

    def send(self) -> int:
        """Return the number of a request that is about to be sent: the last grant's tick."""
        return self.number

    def answered(self, number: int) -> None:
        """Count an answer to a request with this number, for the next report."""
        # At most one answer for each granted place is reported by grant: the pool learns no more
        # from further ones before it has granted anew.
        self.outcomes[True, number] = min(self.outcomes[True, number] + 1, max(1, self.granted))

    def refused(self, number: int, in_flight: int) -> None:
        """Count a refusal of a request with this number, for the next report.

        `in_flight` is not heeded: the pool knows how many are in flight to the endpoint.
        """
        self.outcomes[False, number] += 1
        if number == self.number and self.left:
            self.left -= 1  # a place that was refused is not tried again before the next grant


class _LeasedLimiters(Limiters):
    """Limiters with leased places.

    A model in this process, whose endpoint is no address, has a limiter of its own.
    """

    leased = True

    def __init__(self, lease: Lease, gates: bool) -> None:
        super().__init__()
        self._lease = lease
        self.gates = gates

    def made(self, key: Key, most: int) -> Limiter:
        """Return a new limiter of an endpoint and model, of at most `most` requests in flight."""
        if "://" not in key[0]:
            return Limiter(Level(most))
        level = _LeasedLevel(most, self._lease)
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
