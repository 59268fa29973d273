"""How many requests are in flight to an endpoint: found out from its answers."""

import asyncio
import heapq
import itertools
import os
import random
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakSet

from dataflow_grounding.serving.base import Serving

if TYPE_CHECKING:
    from dataflow_grounding.extras.scale.leases import Lease

START = 8
CUT = 0.85
PATIENCE = 4.0
MOST_PATIENCE = 16.0
YIELD = 16  # of so many places one is left to the other processes at each refused probe

Key = tuple[str, str]  # an endpoint and a model


class Found(NamedTuple):
    """How many `places` an endpoint was found to have, and at how many in flight it refused last;
    None if it didn't.
    """

    places: float
    refused_at: float | None = None


class Level:
    """How many may be in flight: additive increase, multiplicative decrease, with a memory of what
    was last refused.

    It grows by one per success until the first refusal, then by one per window (as many successes
    as the level) up to just under where the endpoint last refused. Above it, it probes: one more
    for a window, then two, four, … while that is sustained; a refused probe is taken back (of an
    endpoint that is `shared` with other processes, with a place or more left to them), and the next
    waits twice as many windows. Any other refusal cuts the level by 15%, once per flight, or, if
    more of the flight is refused, to what was accepted of it, at most by half.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.shared = False  # whether other processes send there, too
        self.number = 0  # the last one given to a request
        self._value, self._stride, self._patience = float(min(START, most)), 1.0, PATIENCE
        self._refused_at: float | None = None
        self._value_before_probe: float | None = None
        self._flight, self._refused_of_flight = 0.0, 0
        self._quiet = self._changed_at = 0

    @property
    def places(self) -> int:
        """How many may be in flight now."""
        return int(self._value)

    @property
    def found(self) -> Found:
        """What is known by now of the endpoint; what is just being probed isn't."""
        sustained = self._value if self._value_before_probe is None else self._value_before_probe
        return Found(sustained, self._refused_at)

    def resume(self, found: Found) -> None:
        """Go on from what an earlier run, or other processes, found; never above `most`."""
        self._value, self._refused_at = (
            min(max(1.0, found.places), float(self.most)),
            found.refused_at,
        )
        self._change(None)

    def send(self) -> int:
        """A request is about to be sent: its number."""
        self.number += 1
        return self.number

    def refused(self, number: int, in_flight: int) -> None:
        """The endpoint was busy, with so many in flight when it said so."""
        if number <= self._changed_at:
            # of a flight that was cut: less of it may have been accepted than the cut left
            self._refused_of_flight += 1
            accepted = max(self._flight / 2, self._flight - self._refused_of_flight)
            if self._flight and accepted < self._value:
                self._value = max(1.0, accepted)
                self._refused_at = self._value + 1
            return
        if (before := self._value_before_probe) is not None:
            self._value = max(1.0, before - int(self.shared * before / YIELD + random.random()))
            self._refused_at = self._value + 1 if self.shared else float(in_flight)
            self._patience = min(self._patience * 2, MOST_PATIENCE)
            self._flight = 0.0
        else:
            self._flight, self._refused_of_flight = float(in_flight), 1
            self._value, self._refused_at = max(1.0, self._value * CUT), float(in_flight)
            self._patience = PATIENCE
        self._stride = 1.0
        self._change(None)

    def answered(self, number: int) -> None:
        """A request was answered while all places were taken."""
        self._quiet += number > self._changed_at
        if self._refused_at is None:
            self._value += 1
        elif self._value_before_probe is not None:
            if self._quiet >= self._value:  # the probe was sustained for a window
                self._patience = PATIENCE
                self._probe()
        elif self._value + 1 < self._refused_at:
            self._value += 1 / self._value
        elif self._quiet >= self._patience * self._value:
            self._probe()
        self._value = min(self._value, float(self.most))

    def _probe(self) -> None:
        before = self._value
        self._value += self._stride
        self._stride *= 2
        self._change(before)

    def _change(self, value_before_probe: float | None) -> None:
        self._value_before_probe, self._quiet, self._changed_at = value_before_probe, 0, self.number


class Waiter:
    """Who waits for a place, in the event loop that runs; the limiter's lock is held where its
    fields are set.
    """

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self.turn = self._loop.create_future()
        self.is_in = self.has_left = False

    def let_in(self) -> None:
        """Say that it has a place; from any thread."""
        self.is_in = True
        if threading.get_ident() == self._thread:
            # as nearly always: it takes no waking of the loop
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.turn.done():
            # cancelled, which it will find out about; then it gives the place back
            self.turn.set_result(None)


class Limiter:
    """An endpoint's: as many in flight as its level has places.

    Waiting requests are let in by priority: the oldest record first. Event loops of several threads
    may share it.
    """

    # what gives this process its places, where many share an endpoint
    lease: ClassVar["Lease | None"] = None

    def __init__(self, level: Level) -> None:
        self.level, self.in_flight, self.held_until = level, 0, 0.0
        self.shares = WeakSet[Share]()  # in which somebody has waited
        self.known = False  # whether it has been through a run of this process
        self.order = itertools.count()
        self.lock = threading.RLock()

    @property
    def wanted(self) -> int:
        """How many would be in flight if there were places for all."""
        with self.lock:
            return self.in_flight + sum(
                min(len(s.waiting), max(0, s.most - s.in_flight)) for s in self.shares
            )

    @property
    def has_room(self) -> bool:
        """Whether one more may be in flight to the endpoint."""
        return self.in_flight < self.level.places and time.monotonic() >= self.held_until

    def let_in(self) -> None:
        """Give places to those who wait, as far as there are any."""
        with self.lock:
            while self.has_room and (
                waiting := [s for s in self.shares if s.waiting and s.in_flight < s.allowed]
            ):
                share = min(waiting, key=lambda share: share.waiting[0][:2])
                waiter = heapq.heappop(share.waiting)[2]
                if not waiter.has_left:
                    share.enter()
                    waiter.let_in()


class Share:
    """A serving's part of its endpoint's limiter: of what the endpoint takes, never more than
    `most` in flight.
    """

    def __init__(self, limiter: Limiter, most: int) -> None:
        self._limiter, self.most = limiter, most
        self.allowed = most  # of these, for now
        self.in_flight = 0
        self.waiting: list[tuple[Any, int, Waiter]] = []

    @property
    def level(self) -> int:
        """How many may be in flight now."""
        return min(self._limiter.level.places, self.most)

    @property
    def limiter(self) -> Limiter:
        """The endpoint's."""
        return self._limiter

    @property
    def found(self) -> Found:
        """What is known by now of the endpoint."""
        return self._limiter.level.found

    def resume(self, found: Found) -> None:
        """Let the endpoint's limit go on from what is known from elsewhere."""
        with self._limiter.lock:
            self._limiter.level.resume(found)

    @property
    def is_free(self) -> bool:
        """Whether there is a place at once."""
        return not self.waiting and self.has_room

    @property
    def has_room(self) -> bool:
        """Whether one more may be in flight."""
        return self.in_flight < self.allowed and self._limiter.has_room

    def enter(self, number: int = 1) -> None:
        """Count one more in flight, or one less."""
        self._limiter.in_flight += number
        self.in_flight += number

    def allow(self, number: int) -> None:
        """Let no more than this many in for now."""
        self.allowed = number
        self._limiter.let_in()

    def take(self) -> int | None:
        """A place at once: the request's number, or None where there is none."""
        with self._limiter.lock:
            if not self.is_free:
                return None
            self.enter()
            return self._limiter.level.send()

    async def acquire(self, priority: Any) -> int:
        """Wait for a place; returns the request's number, for `release`."""
        limiter = self._limiter
        with limiter.lock:
            if (number := self.take()) is not None:
                return number
            waiter = Waiter()
            heapq.heappush(self.waiting, (priority, next(limiter.order), waiter))
            limiter.shares.add(self)
            limiter.let_in()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            with limiter.lock:
                waiter.has_left = True
                if waiter.is_in:
                    self.enter(-1)
                    limiter.let_in()
            raise
        with limiter.lock:
            return limiter.level.send()

    def hold(self, seconds: float) -> None:
        """Let nobody in for a while: the endpoint has said that it takes no more until then."""
        limiter = self._limiter
        with limiter.lock:
            limiter.held_until = max(limiter.held_until, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds, limiter.let_in)

    def release(self, number: int, *, refused: bool = False, answered: bool = True) -> None:
        """Give the place back. `refused`: the endpoint said that it is busy. `answered`: it did its
        work.
        """
        limiter = self._limiter
        with limiter.lock:
            if refused:
                limiter.level.refused(number, limiter.in_flight)
            elif answered and limiter.in_flight >= limiter.level.places:
                limiter.level.answered(number)
            self.enter(-1)
            limiter.let_in()


_limiters: dict[Key, Limiter] = {}


def limiter_of(serving: Serving, servings: int = 1, shared: bool | None = None) -> Share:
    """A serving's share of its endpoint's and model's limiter; `servings` share the connections
    that may be open.
    """
    most = max(1, min(serving.max_workers, files_left() // servings))
    lease, key = Limiter.lease, (serving.endpoint, serving.model)
    limiters = _limiters if lease is None else lease.limiters
    if (limiter := limiters.get(key)) is None:
        limiter = limiters[key] = (
            Limiter(Level(most)) if lease is None else lease.limiter(key, most)
        )
    limiter.level.most = max(limiter.level.most, most)
    limiter.level.shared = limiter.level.shared if shared is None else shared
    return Share(limiter, most)


def gate_of(serving: Serving, shares: Sequence[Share]) -> Share:
    """What limits the requests in flight to all endpoints of a serving together, of which these are
    the shares.
    """
    most, lease = min(share.most for share in shares), Limiter.lease
    if lease is not None and lease.together:
        key = (serving.endpoint, serving.model)
        if key not in lease.limiters:
            lease.limiters[key] = lease.limiter(key, most)
        return Share(lease.limiters[key], most)
    level = Level(most)
    level.resume(Found(sum(share.level for share in shares)))
    return Share(Limiter(level), most)


def files_left() -> int:
    """How many connections this process may open besides the files that it has open, with some left
    for all else.
    """
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 1_000_000
    try:
        left = most - len(os.listdir("/dev/fd")) - 8
    except OSError:  # not even that many
        return 1
    return max(1, left - min(40, left // 4))
