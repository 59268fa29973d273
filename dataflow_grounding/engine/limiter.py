"""How many requests are in flight to an endpoint: found out from its answers."""

import asyncio
import heapq
import itertools
import os
import random
import threading
import time
from typing import Any
from weakref import WeakSet

from dataflow_grounding.serving.base import Serving

START = 8
CUT = 0.85
PATIENCE = 4.0
MOST_PATIENCE = 16.0
YIELD = 16  # of so many places one is left to the other processes at each refused probe


class Limiter:
    """An endpoint's: additive increase, multiplicative decrease, with a memory of where it last refused.

    The level grows by one per success until the first refusal, then by one per window (as many successes as the level)
    up to just under where the endpoint last refused. Above it, it probes: one more for a window, then two, four, …
    while that is sustained; a refused probe is taken back (of an endpoint that is `shared` with other processes, with a
    place or more left to them), and the next waits twice as many windows. Any other refusal cuts the level by 15%, once
    per flight, or, if more of the flight is refused, to what was accepted of it, at most by half. Waiting
    requests are let in by priority: the oldest record first. Event loops of several threads may share it.
    """

    shared = False  # whether other processes send there, too

    def __init__(self, most: int) -> None:
        self.most = most
        self.level = float(min(START, most))
        self.in_flight = 0
        self._refused_at: float | None = None
        self._patience = PATIENCE
        self._stride = 1.0
        self._quiet = 0
        self._level_before_probe: float | None = None
        self._flight = 0.0
        self._refused_of_flight = 0
        self._sent = 0
        self._changed_at = 0
        self._shares = WeakSet[Share]()
        self._order = itertools.count()
        self._held_until = 0.0
        self._lock = threading.RLock()

    async def acquire(self, share: "Share", priority: Any) -> int:
        """Wait for a place; returns the request's number."""
        with self._lock:
            if self._has_room(share) and not share.waiting:
                self._enter(share)
                self._sent += 1
                return self._sent
            waiter = _Waiter(asyncio.get_running_loop())
            heapq.heappush(share.waiting, (priority, next(self._order), waiter))
            self._shares.add(share)
            self._let_in()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            with self._lock:
                waiter.gone = True
                if waiter.let_in:
                    self._enter(share, -1)
                    self._let_in()
            raise
        with self._lock:
            self._sent += 1
            return self._sent

    def hold(self, seconds: float) -> None:
        """Let nobody in for a while."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds, self._let_in)

    def release(self, share: "Share", number: int, *, refused: bool, answered: bool) -> None:
        """Give the place back, and learn from what came of it."""
        with self._lock:
            if refused:
                if number > self._changed_at:
                    self._shrink()
                else:
                    self._shrink_further()
            elif answered and self.in_flight >= int(self.level):
                self._grow(number)
            self._enter(share, -1)
            self._let_in()

    def _has_room(self, share: "Share") -> bool:
        if self.in_flight >= int(self.level) or share.in_flight >= share.allowed:
            return False
        return time.monotonic() >= self._held_until

    def _enter(self, share: "Share", number: int = 1) -> None:
        self.in_flight += number
        share.in_flight += number

    def _shrink(self) -> None:
        if (before := self._level_before_probe) is not None:
            self.level = max(1.0, before - int(self.shared * before / YIELD + random.random()))
            self._refused_at = self.level + 1 if self.shared else float(self.in_flight)
            self._patience = min(self._patience * 2, MOST_PATIENCE)
            self._flight = 0.0
        else:
            self._flight, self._refused_of_flight = float(self.in_flight), 1
            self.level = max(1.0, self.level * CUT)
            self._patience = PATIENCE
            self._refused_at = float(self.in_flight)
        self._stride = 1.0
        self._change(None)

    def _shrink_further(self) -> None:
        """Another refusal of a flight that was already cut: less of it may have been accepted than the cut left."""
        self._refused_of_flight += 1
        accepted = max(self._flight / 2, self._flight - self._refused_of_flight)
        if self._flight and accepted < self.level:
            self.level = max(1.0, accepted)
            self._refused_at = self.level + 1

    def _grow(self, number: int) -> None:
        self._quiet += number > self._changed_at
        if self._refused_at is None:
            self.level += 1
        elif self._level_before_probe is not None:
            if self._quiet >= self.level:  # the probe was sustained for a window
                self._patience = PATIENCE
                self._probe()
        elif self.level + 1 < self._refused_at:
            self.level += 1 / self.level
        elif self._quiet >= self._patience * self.level:
            self._probe()
        self.level = min(self.level, float(self.most))

    def _probe(self) -> None:
        before = self.level
        self.level += self._stride
        self._stride *= 2
        self._change(before)

    def _change(self, level_before_probe: float | None) -> None:
        self._level_before_probe = level_before_probe
        self._quiet = 0
        self._changed_at = self._sent

    def _let_in(self) -> None:
        with self._lock:
            while waiting := [share for share in self._shares if share.waiting and self._has_room(share)]:
                share = min(waiting, key=lambda share: share.waiting[0][:2])
                waiter = heapq.heappop(share.waiting)[2]
                if not waiter.gone and waiter.wake():
                    self._enter(share)


class Share:
    """A serving's part of its endpoint's limiter: of what the endpoint takes, never more than `most` in flight."""

    def __init__(self, limiter: Limiter, most: int) -> None:
        self._limiter, self.most = limiter, most
        self.allowed = most  # of these, for now
        self.in_flight = 0
        self.waiting: list[tuple[Any, int, _Waiter]] = []

    @property
    def level(self) -> int:
        """How many may be in flight now."""
        return min(int(self._limiter.level), self.most)

    @property
    def is_free(self) -> bool:
        """Whether there is a place at once."""
        return not self.waiting and self._limiter._has_room(self)

    def allow(self, number: int) -> None:
        """Let no more than this many in for now."""
        self.allowed = number
        self._limiter._let_in()

    async def acquire(self, priority: Any) -> int:
        """Wait for a place; returns the request's number, for `release`."""
        return await self._limiter.acquire(self, priority)

    def hold(self, seconds: float) -> None:
        """Let nobody in for a while: the endpoint has said that it takes no more until then."""
        self._limiter.hold(seconds)

    def release(self, number: int, *, refused: bool = False, answered: bool = True) -> None:
        """Give the place back. `refused`: the endpoint said that it is busy. `answered`: it did its work."""
        self._limiter.release(self, number, refused=refused, answered=answered)


_limiters: dict[tuple[str, str], Limiter] = {}


def limiter_of(serving: Serving, servings: int = 1) -> "Share":
    """A serving's share of its endpoint's and model's limiter; `servings` share the connections that may be open."""
    most = max(1, min(serving.max_workers, files_left() // servings))
    limiter = _limiters.setdefault((serving.endpoint, serving.model), Limiter(most))
    limiter.most = max(limiter.most, most)
    return Share(limiter, most)


def files_left() -> int:
    """How many connections this process may open besides the files that it has open, with some left for all else."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 1_000_000
    try:
        left = most - len(os.listdir("/dev/fd")) - 8
    except OSError:  # not even that many
        return 1
    return max(1, left - min(40, left // 4))


class _Waiter:
    """A request that waits for a place, perhaps in another thread's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turn: asyncio.Future[None] = loop.create_future()
        self.let_in = False
        self.gone = False

    def wake(self) -> bool:
        """Tell it that it has a place; False when its event loop is gone."""
        loop = self.turn.get_loop()
        try:
            if loop is asyncio._get_running_loop():
                self._set()
            else:
                loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        self.let_in = True
        return True

    def _set(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)
