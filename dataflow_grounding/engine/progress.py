"""Progress on standard error: records, rate, time left, cost, requests in flight."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from dataflow_grounding._util.terminal import LINE_EVERY, LIVE_EVERY, LiveLine, counted, say

LAST_SECONDS, LAST_RECORDS = 20.0, 10
"""The rate is that of the last twenty seconds; where these saw fewer than ten records, of the last
ten.
"""


class Now(NamedTuple):
    """How far a run is; `replayed` of the `finished` records were answered by stored
    replies alone.
    """

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
        self._now, self._title = now, title
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
                    needed = 1 + max(
                        (place for place, part in enumerate(parts) if part.endswith(" stored")),
                        default=0,
                    )
                    self._live.show(f"{self._title}:", parts, needed)
                else:
                    say(f"{self._title}: {', '.join(self.parts())}")
        finally:
            if self._live:
                self._live.end()

    def parts(self) -> list[str]:
        """The state, what matters most first."""
        now = self._now()
        per_second, is_known = self._rate(now)
        parts = [f"{now.finished}{'' if now.total is None else f'/{now.total}'} records"]
        parts += [f"{now.failed} failed"] * bool(now.failed)
        parts += [f"{per_second:.{1 if per_second < 100 else 0}f}/s"]
        if now.total is not None and is_known:
            parts.append(f"{duration((now.total - now.finished) / per_second)} left")
        parts += [f"{now.replayed} stored"] * bool(now.replayed)
        parts += [f"{now.cost_usd:.4f} USD"] if now.cost_usd is not None else []
        parts += [f"{now.waiting_for_rate_limit} rate-limited"] * bool(now.waiting_for_rate_limit)
        return [*parts, counted(now.sent, "request"), f"{now.in_flight} in flight"]

    def _rate(self, now: Now) -> tuple[float, bool]:
        """Records per second of late, and whether that tells how long the rest takes: once as many
        records that were asked for have followed the first such as requests are in flight. Before,
        it is the store's speed, or a wave's.
        """
        at, asked, past = time.monotonic(), now.finished - now.replayed, self._past
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
