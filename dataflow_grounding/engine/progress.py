"""Progress on standard error: records, rate, time left, cost, requests in flight."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from dataflow_grounding._util.terminal import LINE_EVERY, LIVE_EVERY, LiveLine, counted, say

LAST_SECONDS = 20.0
LAST_RECORDS = 10
"""The rate is that of the last twenty seconds; where these saw fewer than ten records, of the last
ten.
"""


class Now(NamedTuple):
    """How far a run is; of the `finished` records, `replayed` took stored replies alone."""

    finished: int
    replayed: int
    failed: int
    total: int | None
    sent: int
    in_flight: int
    waiting_for_rate_limit: int
    cost_usd: float | None


class Progress:
    """Shows how far a run is: a live line on a terminal, else a line every ten seconds."""

    def __init__(self, now: Callable[[], Now], title: str, show: bool | None) -> None:
        self._now = now
        self._title = title
        self._silent = show is False or sys.stderr is None
        self._live = None if self._silent else LiveLine.on_terminal()
        self._past: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)], maxlen=4096)

    async def run(self) -> None:
        """Show until cancelled."""
        if self._silent:
            return
        every = LIVE_EVERY if self._live else LINE_EVERY
        try:
            while True:
                await asyncio.sleep(every)
                if self._live:
                    parts = self.parts()
                    needed = 1  # how many are shown in any case: up to what is stored
                    for number, part in enumerate(parts, 1):
                        if part.endswith(" stored"):
                            needed = number
                    self._live.show(f"{self._title}:", parts, needed)
                else:
                    say(f"{self._title}: {', '.join(self.parts())}")
        finally:
            if self._live:
                self._live.end()

    def parts(self) -> list[str]:
        """Return the parts of the line, such as `120/500 records`, the most important first.

        What is 0 or unknown is mostly left out.
        """
        now = self._now()
        per_second, is_known = self._rate(now)
        of_total = "" if now.total is None else f"/{now.total}"
        parts = [f"{now.finished}{of_total} records"]
        if now.failed:
            parts.append(f"{now.failed} failed")
        if now.finished:
            digits = 1 if per_second < 100 else 0
            parts.append(f"{per_second:.{digits}f}/s")
        if now.total is not None and is_known:  # then records have been finished: it isn't 0
            parts.append(f"{duration((now.total - now.finished) / per_second)} left")
        if now.replayed:
            parts.append(f"{now.replayed} stored")
        if now.cost_usd is not None:
            parts.append(f"{now.cost_usd:.4f} USD")
        if now.waiting_for_rate_limit:
            parts.append(f"{now.waiting_for_rate_limit} rate-limited")
        return [*parts, counted(now.sent, "request"), f"{now.in_flight} in flight"]

    def _rate(self, now: Now) -> tuple[float, bool]:
        """Records per second of late, and whether that tells how long the rest takes.

        It does once as many records that were asked for have followed the first such as requests
        are in flight. Before, it is the store's speed, or a wave's.
        """
        at = time.monotonic()
        asked = now.finished - now.replayed
        past = self._past
        if asked and not past[-1][2]:
            past.clear()
        if not past or at - past[-1][0] >= 0.2:
            past.append((at, now.finished, asked))
        while (
            len(past) > 2
            and at - past[1][0] >= LAST_SECONDS
            and now.finished - past[1][1] >= LAST_RECORDS
        ):
            past.popleft()
        since, finished_then, asked_then = past[0]
        seconds = max(at - since, 0.001)
        return (now.finished - finished_then) / seconds, asked - asked_then >= max(1, now.in_flight)


def duration(seconds: float) -> str:
    """A time in words of two units at most: `4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
