"""Waiting for what the machine is short of, as no record is to blame for it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dataflow_grounding.errors import MachineBusy, RunStopped

T = TypeVar("T")

BUSY_SECONDS = 60.0  # how long something is tried again


class Patience:
    """One run's: it tells a machine that is at its end from one file on it that can't be read."""

    def __init__(self) -> None:
        self._waiting = 0
        self._went_well = time.monotonic()

    async def until_done(self, once: Callable[[], Awaitable[T]]) -> T:
        """What `once` returns, tried again for a minute of MachineBusy. Raises RunStopped if nothing else moved."""
        since, pause = time.monotonic(), 0.25
        while isinstance(result := await once(), MachineBusy):
            if time.monotonic() - since > BUSY_SECONDS:
                if self._waiting and self._went_well < since:
                    raise RunStopped(f"{result}, for {BUSY_SECONDS:g} s. Fix that, then run the same command again")
                return result
            self._waiting += 1
            try:
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            finally:
                self._waiting -= 1
            pause = min(2 * pause, 4.0)
        self._went_well = time.monotonic()
        return result
