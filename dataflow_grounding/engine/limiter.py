"""How many requests are in flight to an endpoint: found out from its answers."""

import asyncio
import heapq
import itertools
import os
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakSet

from dataflow_grounding.serving.base import Serving

START = 8  # places to begin with
CUT = 0.85  # what is left of the places after a refusal
PATIENCE = 4.0  # windows without a refusal before the first probe of more places
MOST_PATIENCE = 16.0  # and before any later one
YIELD = 16  # of so many places one is left to the other processes at each refused probe

Key = tuple[str, str]  # an endpoint and a model


class FoundPlaces(NamedTuple):
    """How many `places` an endpoint was found to have.

    `refused_at` is at how many in flight it refused last; None if it didn't.
    """

    places: float
    refused_at: float | None = None


class Level:
    """How many may be in flight: additive increase, multiplicative decrease, with a memory.

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
        self._value = float(min(START, most))
        self._stride = 1.0  # how many more the next probe lets in
        self._patience = PATIENCE  # windows without a refusal before the next probe
        self._refused_at: float | None = None
        self._value_before_probe: float | None = None
        # How many were in flight when the level was cut, and how many of them were refused; the
        # first is 0 once the level has changed in another way.
        self._flight = 0.0
        self._refused_of_flight = 0
        self._quiet = 0  # answers since the level last changed, of requests sent since
        self._changed_at = 0  # the number of the last request before that

    @property
    def places(self) -> int:
        """How many may be in flight now."""
        return int(self._value)

    @property
    def found(self) -> FoundPlaces:
        """What is known by now of the endpoint; what is just being probed isn't."""
        if self._value_before_probe is None:
            return FoundPlaces(self._value, self._refused_at)
        return FoundPlaces(self._value_before_probe, self._refused_at)

    def resume(self, found: FoundPlaces) -> None:
        """Go on from what an earlier run, or other processes, found; never above `most`."""
        self._value = min(max(1.0, found.places), float(self.most))
        self._refused_at = found.refused_at
        self._change(None)

    def send(self) -> int:
        """Return the number of a request that is about to be sent, from 1."""
        self.number += 1
        return self.number

    def refused(self, number: int, in_flight: int) -> None:
        """Lower the level, as the endpoint said that it is busy.

        Args:
            number: The refused request's, from `send`.
            in_flight: How many requests were in flight when it said so.
        """
        if number <= self._changed_at:
            # sent before the level last changed: it says nothing of the level as it is now
            if self._flight:
                self._refused_before_cut()
            return
        self._stride = 1.0  # the next probe begins small again
        before_probe = self._value_before_probe
        if before_probe is not None:
            self._take_back(before_probe, in_flight)
        else:
            self._cut(in_flight)

    def _refused_before_cut(self) -> None:
        """Take in the refusal of a request that was in flight when the level was cut.

        Where the endpoint has accepted less of that flight than the cut left, the level goes down
        to what it has accepted, at most to half of the flight.
        """
        self._refused_of_flight += 1
        accepted = max(self._flight / 2, self._flight - self._refused_of_flight)
        if accepted < self._value:
            self._value = max(1.0, accepted)
            self._refused_at = self._value + 1

    def _take_back(self, before_probe: float, in_flight: int) -> None:
        """Go back to where the refused probe began; further where others send there, too."""
        if self.shared:
            # drawn by lot: of a level below YIELD now and then one place is left, not one each time
            left_to_others = int(before_probe / YIELD + random.random())
            self._value = max(1.0, before_probe - left_to_others)
            self._refused_at = self._value + 1
        else:
            self._value = max(1.0, before_probe)
            self._refused_at = float(in_flight)
        self._patience = min(self._patience * 2, MOST_PATIENCE)
        self._change(None)

    def _cut(self, in_flight: int) -> None:
        """Cut the level, once per flight."""
        self._value = max(1.0, self._value * CUT)
        self._refused_at = float(in_flight)
        self._patience = PATIENCE
        self._change(None)
        self._flight = float(in_flight)
        self._refused_of_flight = 1

    def answered(self, number: int) -> None:
        """Raise the level, as a request was answered while all places were taken.

        `number` is the request's, from `send`.
        """
        if number > self._changed_at:
            self._quiet += 1
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
        """Let in more than the endpoint was found to take, to find out whether it takes that.

        Called again while a probe is under way, it counts what was let in as taken.
        """
        before = self._value
        self._value += self._stride
        self._stride *= 2
        self._change(before)

    def _change(self, value_before_probe: float | None) -> None:
        """Begin to count anew what speaks for the level, which has just changed.

        `value_before_probe` is the level to go back to if it was raised for a probe, else None.
        """
        self._value_before_probe = value_before_probe
        self._flight = 0.0
        self._quiet = 0
        self._changed_at = self.number


class Waiter:
    """A request that waits for a place, in the event loop that runs.

    The limiter's lock is held where its fields are set.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.turn = self._loop.create_future()  # done when it has a place
        self.is_in = False  # whether a place was counted for it
        self.has_left = False  # whether it was cancelled while it waited

    def let_in(self) -> None:
        """Say that it has a place; from any thread."""
        self.is_in = True
        if threading.get_ident() == self._thread:
            # as nearly always: it takes no waking of the loop
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Let `acquire` go on; in the waiter's own thread."""
        # One that is cancelled is done, too: it will find out about that, and give the place back.
        if not self.turn.done():
            self.turn.set_result(None)


class Limiter:
    """Lets as many requests be in flight to an endpoint as its level has places.

    Waiting requests are let in by priority: the oldest record first. Event loops of several threads
    may share it.
    """

    def __init__(self, level: Level) -> None:
        self.level = level
        self.in_flight = 0
        self.held_until = 0.0  # by the process's clock: until then nobody is let in
        self.shares = WeakSet[Share]()  # in which somebody has waited
        self.known = False  # whether it has been through a run of this process
        self.order = itertools.count()
        # Event loops of several threads share it; reentrant, as who holds it lets others in.
        self.lock = threading.RLock()

    @property
    def wanted(self) -> int:
        """How many would be in flight if there were places for all."""
        with self.lock:
            wanted = self.in_flight
            for share in self.shares:
                wanted += min(len(share.waiting), max(0, share.most - share.in_flight))
            return wanted

    @property
    def has_room(self) -> bool:
        """Whether one more may be in flight to the endpoint."""
        return self.in_flight < self.level.places and time.monotonic() >= self.held_until

    def let_in(self) -> None:
        """Give places to those who wait, as far as there are any."""
        with self.lock:
            while self.has_room:
                waiting = [s for s in self.shares if s.waiting and s.in_flight < s.allowed]
                if not waiting:
                    return
                share = min(waiting, key=_next_in_line)
                waiter = heapq.heappop(share.waiting).waiter
                if not waiter.has_left:
                    # counted here, before the waiter wakes: else another would take its place
                    share.enter()
                    waiter.let_in()


class _InLine(NamedTuple):
    """Whoever waits in a share, ordered by priority; of equals who came first goes first."""

    priority: Any
    order: int
    waiter: Waiter


def _next_in_line(share: "Share") -> tuple[Any, int]:
    """What shares are ordered by: the priority of who is first in a share's line, and its order."""
    first = share.waiting[0]
    return first.priority, first.order


class Share:
    """A serving's part of an endpoint's limiter: of the places there, never more than `most`."""

    def __init__(self, limiter: Limiter, most: int) -> None:
        self._limiter = limiter
        self.most = most
        self.allowed = most  # how many of these may be in flight for now; 0 while it rests
        self.in_flight = 0
        self.waiting: list[_InLine] = []  # a heap

    @property
    def level(self) -> int:
        """How many may be in flight now."""
        return min(self._limiter.level.places, self.most)

    @property
    def limiter(self) -> Limiter:
        """The endpoint's."""
        return self._limiter

    @property
    def found(self) -> FoundPlaces:
        """What is known by now of the endpoint."""
        return self._limiter.level.found

    def resume(self, found: FoundPlaces) -> None:
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
        """Add to what is in flight, here and to the endpoint: 1, or -1 where a request ended."""
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
            number = self.take()
            if number is not None:
                return number
            waiter = Waiter()
            heapq.heappush(self.waiting, _InLine(priority, next(limiter.order), waiter))
            limiter.shares.add(self)
            # it may be its turn already, before others that wait
            limiter.let_in()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            with limiter.lock:
                waiter.has_left = True
                if waiter.is_in:  # it was let in meanwhile: the place is another's now
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
        """Give the place back.

        Args:
            number: The request's, as `acquire` or `take` returned it.
            refused: Whether the endpoint said that it is busy.
            answered: Whether it did its work.
        """
        limiter = self._limiter
        with limiter.lock:
            # the level first: who is let in then is let in by what was learnt
            if refused:
                limiter.level.refused(number, limiter.in_flight)
            elif answered and limiter.in_flight >= limiter.level.places:
                limiter.level.answered(number)
            self.enter(-1)
            limiter.let_in()


class Limiters:
    """The limiters of all endpoints, by endpoint and model.

    Those whose places come from elsewhere make them otherwise: a subclass with its own `made`.

    `leased`: whether their places come from elsewhere. `gates`: whether what is in flight to all
    endpoints of one serving together is limited from there, too.
    """

    leased = False
    gates = False

    def __init__(self) -> None:
        self._by_key: dict[Key, Limiter] = {}

    def limiter_for(self, key: Key, most: int) -> Limiter:
        """The limiter of a key, made for `most` in flight where there is none yet."""
        limiter = self._by_key.get(key)
        if limiter is None:
            limiter = self.made(key, most)
            self._by_key[key] = limiter
        return limiter

    def made(self, key: Key, most: int) -> Limiter:
        """A new limiter for a key."""
        return Limiter(Level(most))


_of_this_process = Limiters()


def share_of(
    serving: Serving,
    servings: int = 1,
    shared: bool | None = None,
    limiters: Limiters | None = None,
) -> Share:
    """Return a serving's share of its endpoint's and model's limiter, which is made if need be.

    The limiter's upper bound is raised to what the serving may have in flight, never lowered.

    Args:
        serving: Whose share it is.
        servings: How many servings share the connections that this process may open.
        shared: Whether other processes send to the endpoint, too; None leaves that as it is.
        limiters: Where the limiter is kept, or made; None for those of this process.
    """
    most = max(1, min(serving.max_workers, files_left() // servings))
    limiter = (limiters or _of_this_process).limiter_for((serving.endpoint, serving.model), most)
    limiter.level.most = max(limiter.level.most, most)
    if shared is not None:
        limiter.level.shared = shared
    return Share(limiter, most)


def gate_of(serving: Serving, shares: Sequence[Share], limiters: Limiters | None) -> Share:
    """What limits the requests in flight to all endpoints of a serving together.

    These are its shares of the endpoints' limiters.
    """
    most = min(share.most for share in shares)
    if limiters is not None and limiters.gates:
        return Share(limiters.limiter_for((serving.endpoint, serving.model), most), most)
    level = Level(most)
    level.resume(FoundPlaces(sum(share.level for share in shares)))
    return Share(Limiter(level), most)


def files_left() -> int:
    """How many connections this process may open, with some files left for all else."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 1_000_000
    try:
        left = most - len(os.listdir("/dev/fd")) - 8
    except OSError:  # not even that many
        return 1
    return max(1, left - min(40, left // 4))
