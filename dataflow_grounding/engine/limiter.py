"""How many requests are in flight to an endpoint: found out from its answers.

A Level says how many `places` an endpoint has. A Limiter counts who has one, for all who ask the
endpoint in this process; each of these has a Share of it. An endpoint refuses a request here where
it says that it is busy (429, 503).
"""

import asyncio
import heapq
import itertools
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from dataflow_grounding.serving.serving import Serving

START = 32  # places before anything is known
IN_TIME = 2 / 3  # part of the timeout in which all that are in flight are to be answered
PATIENCE = 4  # windows (see Level) without a refusal before a probe of more places
MOST_PATIENCE = 16  # where probes were refused
SPARE_FILES = 8  # open files that are kept for all but connections, even where few are left
MOST_KEPT_FILES = 40  # at most; of the files left, a quarter is kept in addition to SPARE_FILES
MANY_FILES = 1_000_000  # connections, where the system sets no limit


class Sent(NamedTuple):
    """A request that is sent."""

    number: int  # from 1
    in_flight: int  # itself included
    at: float  # by the process's clock


class Level:
    """How many requests may be in flight to an endpoint, from 1 to `most`.

    - Until the first refusal: START, and one more for each answer, but not more than the endpoint
      answers in time, at its pace: requests in flight by their latency. One that answers them one
      by one lets the last ones wait.
    - A refusal takes it down to what the endpoint accepted of all that was in flight, but not below
      half of that.
    - From then on it probes. A window is as many answers as the level. After some windows without
      a refusal it lets one more in, after a further window two more, then four. Where the first of
      these is refused, the next one waits twice as many windows.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.timeout = math.inf  # seconds after which a request is given up
        self._value = float(min(START, most))  # the level, of which `places` are whole
        self._pace = math.inf  # answers a second, by the last one to a request that wasn't alone
        self.refused_at: float | None = None  # how many were in flight at the last refusal
        self._refused = 0  # how many of these were refused; 0 once the level was raised
        self._stride = 1  # how many more the next probe lets in; 1 while there is none
        self._patience = PATIENCE  # windows without a refusal before the next probe
        self._sent = 0  # how many requests were sent
        self._sent_before = 0  # of these, how many before the level was last lowered or raised
        self._answers = 0  # to requests that were sent since

    @property
    def places(self) -> int:
        return int(self._value)

    def resume(self, value: float) -> None:
        """Go on from another level: what was sent before says nothing about it."""
        self._value = min(max(1.0, value), float(self.most))
        self._refused = 0
        self._answers = 0
        self._sent_before = self._sent

    def send(self, in_flight: int = 1) -> Sent:
        """Return a request that is about to be sent, itself among those `in_flight`."""
        self._sent += 1
        return Sent(self._sent, in_flight, time.monotonic())

    def refused(self, sent: Sent, in_flight: int) -> None:
        """Lower the level, because the endpoint said that it is busy; never below 1."""
        was_sent_before = sent.number <= self._sent_before
        if was_sent_before and not self._refused:
            return  # the level was raised since: it says nothing about the present one
        if not was_sent_before:  # else it is one more of the flight that is counted
            if self._stride == 2:  # the first probe after a refusal is refused
                self._patience = min(2 * self._patience, MOST_PATIENCE)
            elif self._stride > 2:
                self._patience = PATIENCE
            self._stride = 1
            self.refused_at = float(in_flight)
            self.resume(self._value)
        assert self.refused_at is not None
        self._refused += 1
        accepted = max(self.refused_at - self._refused, self.refused_at / 2, 1.0)
        self._value = min(self._value, accepted)

    def answered(self, sent: Sent, *, are_taken: bool = True) -> None:
        """Raise the level; `are_taken` says whether all places were taken when the answer came."""
        if sent.in_flight > 1:  # of one alone nobody knows how many are answered side by side
            self._pace = sent.in_flight / max(time.monotonic() - sent.at, 1e-9)
        if self.refused_at is not None:
            if are_taken and sent.number > self._sent_before and self._value < self.most:
                self._probe()
            return
        if are_taken and self._pace < math.inf:  # else nobody knows how many it answers in time
            self._value = max(self._value, min(self._value + 1, self.most, self._in_time))

    @property
    def _in_time(self) -> float:
        """How many in flight are answered before two thirds of the timeout, at the pace so far."""
        return self._pace * IN_TIME * self.timeout

    def unanswered(self, sent: Sent) -> None:
        """Lower the level where a request took as long as it may, to what is answered in time."""
        if time.monotonic() - sent.at >= IN_TIME * self.timeout:
            self._value = max(1.0, min(self._value, self._in_time))

    def _probe(self) -> None:
        """Let more in once there were enough answers without a refusal."""
        self._answers += 1
        windows = self._patience if self._stride == 1 else 1
        if self._answers >= windows * self._value:
            self.resume(self._value + self._stride)
            self._stride *= 2


class Limiter:
    """Lets as many requests be in flight to an endpoint as its level has places."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.in_flight = 0
        self.held_until = 0.0  # by the process's clock: until then nobody is let in
        self.shares = WeakSet[Share]()  # in which somebody has waited
        # by the id of a serving, for as long as it has shares
        self.serving_loads = WeakValueDictionary[int, ServingLoad]()
        self.order = itertools.count()  # numbers those who wait, in the order in which they came

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.level.places and time.monotonic() >= self.held_until

    def let_in(self) -> None:
        """Give places to those who wait, as far as there are any, the smallest priority first."""
        while self.has_room:
            candidates = [share for share in self.shares if share.waiting and share.may_enter]
            if not candidates:
                return
            share = min(candidates, key=_next_in_line)
            turn = heapq.heappop(share.waiting).turn
            if not turn.done():  # one that was cancelled stays in the heap until its turn
                # counted here, before the one who waits wakes: else another would take its place
                turn.set_result(share.enter())


class _InLine(NamedTuple):
    """Whoever waits in a share, ordered by priority; of equals, who came first goes first."""

    priority: Any
    order: int
    turn: "asyncio.Future[Sent]"  # done once it has a place


def _next_in_line(share: "Share") -> tuple[Any, int]:
    first = share.waiting[0]
    return first.priority, first.order


class ServingLoad:
    """How many requests of one serving are in flight to an endpoint, of all calls that use it."""

    def __init__(self) -> None:
        self.in_flight = 0


class Share:
    """A serving's part of an endpoint's places: all the serving's shares have `most` together."""

    def __init__(
        self, limiter: Limiter, most: int, serving_load: ServingLoad | None = None
    ) -> None:
        self.limiter = limiter
        self.level = limiter.level
        self.most = most
        self.serving_load = serving_load or ServingLoad()
        self.allowed = most  # how many of these may be in flight for now; 0 while it rests
        self.in_flight = 0
        self.waiting: list[_InLine] = []  # a heap

    @property
    def is_free(self) -> bool:
        """Whether there is a place at once: room, and nobody who waits for it."""
        return not self.waiting and self.may_enter and self.limiter.has_room

    @property
    def may_enter(self) -> bool:
        """Whether one more of this serving may be in flight, if the endpoint has a place."""
        return self.in_flight < self.allowed and self.serving_load.in_flight < self.most

    def enter(self) -> Sent:
        """Count a request as in flight, and return it."""
        self._count(1)
        return self.level.send(self.limiter.in_flight)

    def _count(self, number: int) -> None:
        self.limiter.in_flight += number
        self.serving_load.in_flight += number
        self.in_flight += number

    def allow(self, number: int) -> None:
        """Let no more than this many be in flight for now; those that are already stay."""
        self.allowed = number
        self.limiter.let_in()

    async def acquire(self, priority: Any) -> Sent:
        """Wait for a place, the smallest `priority` first; return the request, for `release`."""
        if self.is_free:
            return self.enter()
        limiter = self.limiter
        turn: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, _InLine(priority, next(limiter.order), turn))
        limiter.shares.add(self)
        limiter.let_in()  # it may be its turn at once, before that of others
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was let in meanwhile: another gets the place
                self._count(-1)
                limiter.let_in()
            raise

    def hold(self, seconds: float) -> None:
        """Let nobody in for `seconds`."""
        limiter = self.limiter
        limiter.held_until = max(limiter.held_until, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds, limiter.let_in)

    def release(self, sent: Sent, *, refused: bool = False, answered: bool = True) -> None:
        """Give a request's place back, and let the level learn from how the request ended."""
        limiter = self.limiter
        # The level learns first, so that `let_in` below goes by what it has learned.
        level = self.level
        if refused:
            level.refused(sent, limiter.in_flight)
        elif answered:
            level.answered(sent, are_taken=limiter.in_flight >= level.places)
        else:
            level.unanswered(sent)
        self._count(-1)
        limiter.let_in()


_limiters: dict[tuple[str, str], Limiter] = {}  # of this process, by endpoint and model


def share_of(serving: Serving, serving_count: int = 1) -> Share:
    """Return a new share of this process's limiter for the serving's endpoint and model."""
    # the servings of a run divide the connections that this process may open
    most = max(1, min(serving.max_workers, files_left() // serving_count))
    key = (serving.endpoint, serving.model)
    limiter = _limiters.setdefault(key, Limiter(Level(most)))
    limiter.level.most = max(limiter.level.most, most)
    limiter.level.timeout = serving.timeout
    # all shares of one serving count together
    serving_load = limiter.serving_loads.setdefault(id(serving), ServingLoad())
    return Share(limiter, most, serving_load)


def gate_of(shares: Sequence[Share]) -> Share:
    """Return what limits the requests in flight to all endpoints of a serving together."""
    most = min(share.most for share in shares)
    level = Level(most)
    level.resume(most)  # all places from the start: it has nothing to find out
    return Share(Limiter(level), most)


def files_left() -> int:
    """Return how many connections this process may open, with some files left for all else."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # the limit in force, and the hard one
    if most == resource.RLIM_INFINITY:
        return MANY_FILES
    try:
        left = most - len(os.listdir("/dev/fd")) - SPARE_FILES  # without those that are open
    except OSError:  # the folder can't be opened: there is no file left even for that
        return 1
    kept = min(MOST_KEPT_FILES, left // 4)
    return max(1, left - kept)
