"""How many requests are in flight to an endpoint: found out from its answers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Any

START = 8
CUT = 0.85
PATIENCE = 4.0
MOST_PATIENCE = 64.0


class Limiter:
    """Additive increase, multiplicative decrease, with a memory of where the endpoint last refused.

    The level grows by one a success until the first refusal; after that by one a window (as many successes as the level),
    up to just under where the endpoint last refused. Above it, it probes: one more for a window, then two, four, … while that
    is borne; a probe that is refused is taken back, and the next waits twice as many windows. Any other refusal cuts the
    level by 15%, once a flight. Waiting requests are let in by priority: the oldest record first.
    """

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.level = float(min(START, self.most))
        self.in_flight = 0
        self.refusals = 0
        self._refused_at: float | None = None
        self._patience = PATIENCE
        self._stride = 1.0
        self._quiet = 0
        self._level_before_probe: float | None = None
        self._sent = 0
        self._changed_at = 0
        self._waiting: list[tuple[Any, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def acquire(self, priority: Any) -> int:
        """Wait for a place; returns the request's number, for `release`."""
        if self._waiting or self.in_flight >= int(self.level):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._order), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # let in and cancelled at once: give the place on
                    self.in_flight -= 1
                self._let_in()
                raise
        else:
            self.in_flight += 1
        self._sent += 1
        return self._sent

    def release(self, number: int, *, refused: bool = False, answered: bool = True) -> None:
        """Give the place back. `refused`: the endpoint said that it is busy. `answered`: it did its work."""
        full = self.in_flight >= int(self.level)
        if refused:
            self.refusals += 1
            if number > self._changed_at:
                self._shrink()
        elif answered and full:
            self._grow(number)
        self.in_flight -= 1
        self._let_in()

    def _shrink(self) -> None:
        if self._level_before_probe is not None:
            self.level = self._level_before_probe
            self._patience = min(self._patience * 2, MOST_PATIENCE)
        else:
            self.level = max(1.0, self.level * CUT)
            self._patience = PATIENCE
        self._refused_at = float(self.in_flight)
        self._stride = 1.0
        self._change(None)

    def _grow(self, number: int) -> None:
        self._quiet += number > self._changed_at
        if self._refused_at is None:
            self.level += 1
        elif self._level_before_probe is not None:
            if self._quiet >= self.level:  # the probe was borne for a window
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
        while self._waiting and self.in_flight < int(self.level):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
