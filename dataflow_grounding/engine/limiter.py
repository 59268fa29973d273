"""How many requests are in flight to an endpoint: found out from its answers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Any

START = 8
CUT = 0.85


class Limiter:
    """Additive increase, multiplicative decrease, with a memory of the level of the last refusal.

    The level grows by one a success until the first refusal, and by one a window of requests after that, up to just under
    where the endpoint last refused; above it, it probes ever more rarely, and in longer strides while that succeeds. A
    refusal cuts the level once a flight. Waiting requests are let in by priority: the oldest record first.
    """

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.level = float(min(START, self.most))
        self.in_flight = 0
        self.refusals = 0
        self._ceiling: float | None = None
        self._patience = 4.0
        self._stride = 1.0
        self._quiet = 0
        self._sent = 0
        self._cut_at = 0
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
            if number > self._cut_at:
                self._cut()
        elif answered and full:
            self._grow()
        self.in_flight -= 1
        self._let_in()

    def _cut(self) -> None:
        probing = self._ceiling is not None and self.in_flight >= self._ceiling
        self._patience = min(self._patience * 2, 64) if probing else 4.0
        self._ceiling = float(self.in_flight)
        self._stride = 1.0
        self._quiet = 0
        self.level = max(1.0, self.level * CUT)
        self._cut_at = self._sent

    def _grow(self) -> None:
        if self._ceiling is None:
            self.level += 1
        elif self.level + 1 < self._ceiling:
            self.level += 1 / self.level
        else:
            self._quiet += 1
            if self._quiet > self._patience * self.level:
                self.level += self._stride
                self._ceiling = self.level + 1  # no refusal at this level so far
                self._stride *= 2
                self._patience = max(1.0, self._patience / 2)
                self._quiet = 0
        self.level = min(self.level, float(self.most))

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < int(self.level):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
