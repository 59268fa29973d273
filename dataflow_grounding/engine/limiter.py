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
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from dataflow_grounding.serving.serving import Serving

LEAST = 10  # places before anything is known, which no pace of answers lowers
START = 32  # from the first answer on; twice as many once all places were sustained
IN_TIME = 2 / 3  # part of the timeout in which all that are in flight are to be answered
CUT = 0.85  # what is left of the places after a refusal
PATIENCE = 4.0  # windows (see Level) without a refusal before the first probe of more places
MOST_PATIENCE = 16.0  # and before any later one
YIELD = 16  # each refused probe leaves one place in this many to other processes
SPARE_FILES = 8  # open files that are kept for all but connections, even where few are left
MOST_KEPT_FILES = 40  # at most; of the files left, a quarter is kept in addition to SPARE_FILES
MANY_FILES = 1_000_000  # connections, where the system sets no limit


class FoundPlaces(NamedTuple):
    """How many places an endpoint was found to have."""

    places: float  # requests in flight at a time
    refused_at: float | None = None  # in flight when it last refused one; None if it never did


class Sent(NamedTuple):
    """A request that is sent."""

    number: int  # from 1
    in_flight: int  # itself included
    at: float  # by the process's clock
    took_last: bool  # of the places


class Level:
    """How many requests may be in flight to an endpoint, from 1 to `most`: it grows by steps, and
    is cut by a part of itself. A window is as many answers as the level.

    - At the start, until the first refusal: START from the first answer on, twice that once all
      places were sustained, then one more for each answer. It is never more than the endpoint
      answers in time, at its pace: requests in flight by their latency. One that answers them one
      by one lets the last ones wait.
    - After a refusal: one more per window, up to just under where the endpoint last refused.
    - There, it probes: one more for a window, then two more, then four, while that is sustained.
    - A refused probe is taken back, and the next one waits twice as many windows. At an endpoint
      that is `shared` with other processes, some places are left to them.
    - Any other refusal is a cut, by 15%. It is made once for a flight: all that is in flight at the
      time. If more of the flight is refused, the level goes down to what was accepted of it, but
      not below half of it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.shared = False  # whether other processes send there, too
        self.timeout = math.inf  # seconds after which a request is given up
        self._sent = 0  # how many requests were sent
        self._value = float(min(LEAST, most))  # the level, of which `places` are whole
        self._pace = math.inf  # answers a second, by the last one to a request that wasn't alone
        self._is_slow = False  # whether some request wasn't answered in time
        self._all_sustained = False  # whether all places were taken, and none was refused
        self._stride = 1.0  # how many more the next probe lets in
        self._patience = PATIENCE  # windows without a refusal before the next probe
        self._refused_at: float | None = None  # how many were in flight at the last refusal
        self._value_before_probe: float | None = None  # None while there is no probe
        # how many requests were in flight at the last cut; 0 once the level changed in another way
        self._in_flight_at_cut = 0.0
        self._refused_of_cut_flight = 0  # how many of these requests were refused
        # A change of the level is a cut, a probe, a probe that is taken back, or `resume`.
        self._answers_since_change = 0  # to requests that were sent since the last one
        self._last_sent_before_change = 0  # the number of the last request before it

    @property
    def places(self) -> int:
        return int(self._value)

    @property
    def found(self) -> FoundPlaces:
        """What is known by now of the endpoint; a level that is just being probed isn't."""
        if self._value_before_probe is None:
            return FoundPlaces(self._value, self._refused_at)
        return FoundPlaces(self._value_before_probe, self._refused_at)

    def resume(self, found: FoundPlaces) -> None:
        """Go on from what was found before; kept from 1 to `most`."""
        self._value = min(max(1.0, found.places), float(self.most))
        self._refused_at = found.refused_at
        self._note_change()

    def send(self, in_flight: int = 1) -> Sent:
        """Return a request that is about to be sent, itself among those `in_flight`."""
        self._sent += 1
        return Sent(self._sent, in_flight, time.monotonic(), in_flight >= self.places)

    def refused(self, sent: Sent, in_flight: int) -> None:
        """Lower the level, because the endpoint said that it is busy; never below 1."""
        was_sent_before_change = sent.number <= self._last_sent_before_change
        if was_sent_before_change:
            # It was sent at another level, and says nothing about the present one. But if the last
            # change was a cut, the request was in flight then: the cut wasn't deep enough.
            was_cut = self._in_flight_at_cut > 0
            if was_cut:
                self._refused_before_cut()
            return
        self._stride = 1.0  # the next probe begins small again
        before_probe = self._value_before_probe
        if before_probe is not None:
            self._take_probe_back(before_probe, in_flight)
        else:
            self._cut(in_flight)

    def _refused_before_cut(self) -> None:
        """Lower the level to what was accepted of the flight, but not below half of it."""
        # of 40 requests in flight, the cut left 34 places; after 10 refusals, there are 30
        self._refused_of_cut_flight += 1
        flight = self._in_flight_at_cut
        accepted = flight - self._refused_of_cut_flight
        after_deeper_cut = max(accepted, flight / 2)
        if after_deeper_cut < self._value:
            self._value = max(1.0, after_deeper_cut)
            # as if it had refused one more: from here on, the level grows by probes
            self._refused_at = self._value + 1

    def _take_probe_back(self, before_probe: float, in_flight: int) -> None:
        if self.shared:
            # One place in YIELD, 16, rounded up or down by lot: of 8 places, one is left in half of
            # all cases, and none in the other half.
            left_to_others = int(before_probe / YIELD + random.random())
            self._value = max(1.0, before_probe - left_to_others)
            # as if it had refused there: the level doesn't grow into the places that were left
            self._refused_at = self._value + 1
        else:
            self._value = max(1.0, before_probe)
            self._refused_at = float(in_flight)
        self._patience = min(self._patience * 2, MOST_PATIENCE)
        self._note_change()

    def _cut(self, in_flight: int) -> None:
        self._value = max(1.0, self._value * CUT)
        self._refused_at = float(in_flight)
        self._patience = PATIENCE
        self._note_change()
        # set after `_note_change`, which resets it: refusals of the same flight deepen this cut
        self._in_flight_at_cut = float(in_flight)
        self._refused_of_cut_flight = 1

    def answered(self, sent: Sent, *, are_taken: bool = True) -> None:
        """Raise the level; `are_taken` says whether all places were taken when the answer came."""
        if sent.in_flight > 1:  # of one alone nobody knows how many are answered side by side
            self._pace = sent.in_flight / max(time.monotonic() - sent.at, 1e-9)
        if self._refused_at is not None:
            if are_taken:
                self._grow_warily(sent)
            return
        # An answer to the request that took the last place shows that all places are sustained:
        # refusals come sooner than answers, so none of the others was refused.
        if sent.took_last:
            self._all_sustained = True
        target = 2 * START if self._all_sustained else START
        if self._value < target:
            self._grow(target)
        elif are_taken:  # then one more place for each answer
            self._grow(self._value + 1)

    def _grow(self, target: float) -> None:
        """Raise the level to a target; above START, to no more than are answered in time."""
        if target > START or self._is_slow:
            target = min(target, self._in_time)
        self._value = max(self._value, min(target, self.most))

    @property
    def _in_time(self) -> float:
        """How many in flight are answered before two thirds of the timeout, at the pace so far."""
        return self._pace * IN_TIME * self.timeout if self._pace < math.inf else math.inf

    def unanswered(self, sent: Sent) -> None:
        """Lower the level where a request took as long as it may, to what is answered in time."""
        if time.monotonic() - sent.at >= IN_TIME * self.timeout:
            self._is_slow = True
            self._value = max(1.0, min(self._value, self._in_time))

    def _grow_warily(self, sent: Sent) -> None:
        """Grow in small steps to just under where the last refusal came, then by probes."""
        assert self._refused_at is not None
        if sent.number > self._last_sent_before_change:  # it was sent at the present level
            self._answers_since_change += 1
        is_probing = self._value_before_probe is not None
        is_below_refusal = self._value + 1 < self._refused_at
        window = self._value  # answers
        if is_probing:
            if self._answers_since_change >= window:  # the probe is sustained: a larger one comes
                self._patience = PATIENCE
                self._probe()
        elif is_below_refusal:
            self._value += 1 / window  # one more in a window
        elif self._answers_since_change >= self._patience * window:
            self._probe()
        self._value = min(self._value, float(self.most))

    def _probe(self) -> None:
        """Let more in; a refusal takes the level back to where it is now."""
        before = self._value  # no further back: a probe before this one was sustained
        self._value += self._stride
        self._stride *= 2
        self._note_change(value_before_probe=before)

    def _note_change(self, value_before_probe: float | None = None) -> None:
        """Count answers from 0 again: what was sent before says nothing about the new level."""
        self._value_before_probe = value_before_probe  # to which a refused probe is taken back
        self._in_flight_at_cut = 0.0
        self._answers_since_change = 0
        self._last_sent_before_change = self._sent


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
        self.most = most
        self.serving_load = serving_load or ServingLoad()
        self.allowed = most  # how many of these may be in flight for now; 0 while it rests
        self.in_flight = 0
        self.waiting: list[_InLine] = []  # a heap

    @property
    def level(self) -> int:
        """How many of the serving's requests may be in flight by now, as the level has places."""
        return min(self.limiter.level.places, self.most)

    @property
    def found(self) -> FoundPlaces:
        return self.limiter.level.found

    def resume(self, found: FoundPlaces) -> None:
        self.limiter.level.resume(found)

    @property
    def is_free(self) -> bool:
        """Whether there is a place at once: room, and nobody who waits for it."""
        return not self.waiting and self.has_room

    @property
    def may_enter(self) -> bool:
        """Whether one more of this serving may be in flight, if the endpoint has a place."""
        return self.in_flight < self.allowed and self.serving_load.in_flight < self.most

    @property
    def has_room(self) -> bool:
        """Whether one more may be in flight, here and to the endpoint."""
        # `may_enter`, written out because it is asked for each request
        if self.in_flight >= self.allowed or self.serving_load.in_flight >= self.most:
            return False
        return self.limiter.has_room

    def enter(self) -> Sent:
        """Count a request as in flight, and return it."""
        self._count(1)
        return self.limiter.level.send(self.limiter.in_flight)

    def _count(self, number: int) -> None:
        self.limiter.in_flight += number
        self.serving_load.in_flight += number
        self.in_flight += number

    def allow(self, number: int) -> None:
        """Let no more than this many be in flight for now; those that are already stay."""
        self.allowed = number
        self.limiter.let_in()

    def take(self) -> Sent | None:
        """Take a place if there is one at once; return the request, for `release`."""
        return self.enter() if self.is_free else None

    async def acquire(self, priority: Any) -> Sent:
        """Wait for a place, the smallest `priority` first; return the request, for `release`."""
        sent = self.take()
        if sent is not None:
            return sent
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
        level = limiter.level
        if refused:
            level.refused(sent, limiter.in_flight)
        elif answered:
            level.answered(sent, are_taken=limiter.in_flight >= level.places)
        else:
            level.unanswered(sent)
        self._count(-1)
        limiter.let_in()


_limiters: dict[tuple[str, str], Limiter] = {}  # of this process, by endpoint and model
_lock = threading.Lock()


def share_of(serving: Serving, serving_count: int = 1, shared: bool | None = None) -> Share:
    """Return a new share of this process's limiter for the serving's endpoint and model."""
    # the servings of a run divide the connections that this process may open
    most = max(1, min(serving.max_workers, files_left() // serving_count))
    key = (serving.endpoint, serving.model)
    limiter = _limiters.setdefault(key, Limiter(Level(most)))
    limiter.level.most = max(limiter.level.most, most)
    limiter.level.timeout = serving.timeout
    if shared is not None:  # whether other processes send there, too
        limiter.level.shared = shared
    with _lock:  # calls of several threads may begin at once
        # all shares of one serving count together
        serving_load = limiter.serving_loads.setdefault(id(serving), ServingLoad())
    return Share(limiter, most, serving_load)


def gate_of(shares: Sequence[Share]) -> Share:
    """Return what limits the requests in flight to all endpoints of a serving together."""
    most = min(share.most for share in shares)
    level = Level(most)
    level.resume(FoundPlaces(most))  # all places from the start: it has nothing to find out
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
