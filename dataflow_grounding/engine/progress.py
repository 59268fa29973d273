"""Progress on standard error: records, rate, requests in flight, cost, time left."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from dataflow_grounding.terminal import shown

LINE_EVERY = 10.0


class Now(NamedTuple):
    """How far a run is."""

    finished: int
    failed: int
    total: int | None
    sent: int
    in_flight: int
    waiting_for_rate_limit: int
    cost_usd: float | None


class Progress:
    """Shows how far a run is: a live line on a terminal, else a line every ten seconds."""

    def __init__(self, now: Callable[[], Now], title: str, show: bool | None) -> None:
        self._now, self._title = now, title
        self._silent = show is False or sys.stderr is None
        self._live = not self._silent and sys.stderr.isatty()
        self._start = time.monotonic()

    async def run(self) -> None:
        """Show until cancelled."""
        if self._silent:
            return
        every = 0.25 if self._live else LINE_EVERY
        try:
            while True:
                await asyncio.sleep(every)
                self._show()
        finally:
            if self._live:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def _show(self) -> None:
        text = shown(f"{self._title}: {self.line()}")
        sys.stderr.write(f"\r\x1b[K{text[:200]}" if self._live else f"{text}\n")
        sys.stderr.flush()

    def line(self) -> str:
        """The state in one line."""
        now, seconds = self._now(), time.monotonic() - self._start
        of = f"/{now.total}" if now.total is not None else ""
        parts = [f"{now.finished}{of} records"]
        if now.failed:
            parts.append(f"{now.failed} failed")
        rate = now.finished / seconds if seconds > 0 else 0.0
        parts.append(f"{rate:.1f}/s")
        parts.append(f"{now.sent} requests, {now.in_flight} in flight")
        if now.waiting_for_rate_limit:
            parts.append(f"{now.waiting_for_rate_limit} rate-limited")
        if now.cost_usd is not None:
            parts.append(f"{now.cost_usd:.4f} USD")
        if now.total is not None and rate > 0:
            parts.append(f"{duration((now.total - now.finished) / rate)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time in words of two units at most: `4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
