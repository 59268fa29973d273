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
"""The rate is that of the last twenty seconds, or of the last ten records if these were fewer."""
LEAST_SECONDS_BETWEEN = 0.2  # of two states that are kept for the rate
STORED = " stored"  # what the part of the line that tells of stored replies ends in


class Now(NamedTuple):
    """How far a run is."""

    finished: int  # records that are done or have failed
    replayed: int  # of these, those that took stored replies alone
    failed: int  # of the finished ones
    total: int | None
    sent: int  # requests so far
    in_flight: int
    waiting_for_rate_limit: int
    cost_usd: float | None  # None where no prices are known
    outage: str = ""  # for how long no answer has come, and why, in words


class _State(NamedTuple):
    at: float  # by the process's clock
    finished: int  # records
    asked: int  # of these, those that took more than stored replies


class _Rate(NamedTuple):
    per_second: float
    tells_time_left: bool


class Progress:
    """Shows how far a run is: a live line on a terminal, else a line every ten seconds."""

    def __init__(self, now: Callable[[], Now], title: str, show: bool | None) -> None:
        self._now = now
        self._title = title
        self._silent = show is False or sys.stderr is None
        self._live = None if self._silent else LiveLine.on_terminal()
        # earlier states, the oldest first
        self._past: deque[_State] = deque([_State(time.monotonic(), 0, 0)], maxlen=4096)

    async def run(self) -> None:
        """Show how far the run is until cancelled; returns at once if nothing should be shown."""
        if self._silent:
            return
        every = LIVE_EVERY if self._live else LINE_EVERY
        try:
            while True:
                await asyncio.sleep(every)
                if self._live:
                    parts = self.parts()
                    self._live.show(f"{self._title}:", parts, _count_of_needed(parts))
                else:
                    say(f"{self._title}: {', '.join(self.parts())}")
        finally:
            if self._live:
                self._live.end()

    def parts(self) -> list[str]:
        """Return the parts of the line, such as `120/500 records`, the most important first."""
        now = self._now()
        per_second, tells_time_left = self._rate(now)
        of_total = "" if now.total is None else f"/{now.total}"
        parts = [f"{now.finished}{of_total} records"]
        if now.failed:
            parts.append(f"{now.failed} failed")
        if per_second >= 0.05:  # less would be "0.0/s"
            digits = 1 if per_second < 100 else 0
            parts.append(f"{per_second:.{digits}f}/s")
        if now.outage:
            parts.append(now.outage)
        elif now.total is not None and tells_time_left:  # then `per_second` isn't 0
            parts.append(f"{duration((now.total - now.finished) / per_second)} left")
        if now.replayed:
            parts.append(f"{now.replayed}{STORED}")
        if now.cost_usd is not None:
            parts.append(f"{now.cost_usd:.4f} USD")
        if now.waiting_for_rate_limit:
            parts.append(f"{now.waiting_for_rate_limit} rate-limited")
        return [*parts, counted(now.sent, "request"), f"{now.in_flight} in flight"]

    def _rate(self, now: Now) -> _Rate:
        """Return the rate of late; keeps the present state for later rates, and drops old ones."""
        at = time.monotonic()
        asked = now.finished - now.replayed
        past = self._past
        # Once something was sent for a record, states from before don't count: those show how fast
        # the store is.
        is_first_asked = asked > 0 and not past[-1].asked
        if is_first_asked:
            past.clear()
        if not past or at - past[-1].at >= LEAST_SECONDS_BETWEEN:
            past.append(_State(at, now.finished, asked))
        # The oldest state is the one to compare with. It goes if the next one is old enough, too.
        while len(past) > 2:
            next_oldest = past[1]
            are_enough_seconds = at - next_oldest.at >= LAST_SECONDS
            are_enough_records = now.finished - next_oldest.finished >= LAST_RECORDS
            if not (are_enough_seconds and are_enough_records):
                break
            past.popleft()
        oldest = past[0]
        per_second = (now.finished - oldest.finished) / max(at - oldest.at, 0.001)
        # The first rates tell no time left. They are those of the store, or of the first requests,
        # which all end at about the same time. After as many records as there are requests in
        # flight, this is over.
        tells_time_left = asked - oldest.asked >= max(1, now.in_flight)
        return _Rate(per_second, tells_time_left)


def _count_of_needed(parts: list[str]) -> int:
    """Return how many of the parts matter more than the title on a narrow terminal."""
    needed = 1  # the first always does
    for number, part in enumerate(parts, 1):
        if part.endswith(STORED):  # then all up to this one do
            needed = number
    return needed


def duration(seconds: float) -> str:
    """Return a time in words of two units at most: `4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
