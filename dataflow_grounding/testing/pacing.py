"""How long replies take, and how many requests a second are taken."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from dataflow_grounding.testing.received import ReceivedRequest

Latency = float | Callable[[ReceivedRequest], float]


def uniform(low: float, high: float, seed: int = 0) -> Callable[[ReceivedRequest], float]:
    """Latencies spread evenly between `low` and `high` seconds; the n-th request always gets the same one."""
    return lambda request: random.Random(f"{seed}/{request.index}").uniform(low, high)


def lognormal(mean: float, sigma: float = 0.7, seed: int = 0) -> Callable[[ReceivedRequest], float]:
    """Log-normal latencies with this mean (seconds) and shape, the same for the n-th request always."""
    middle = math.log(mean) - sigma * sigma / 2
    return lambda request: random.Random(f"{seed}/{request.index}").lognormvariate(middle, sigma)


class TokenBucket:
    """Lets `per_second` requests a second pass, and up to `burst` at once after a rest."""

    def __init__(self, per_second: float, burst: float | None = None) -> None:
        self.per_second = per_second
        self.burst = max(1.0, per_second) if burst is None else burst
        self._level = self.burst
        self._at = time.monotonic()

    def take(self) -> float:
        """Take one token: 0.0 if there was one, else the seconds until there is."""
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.per_second

    def headers(self) -> dict[str, str]:
        """The `x-ratelimit-*` headers of this moment."""
        full = (self.burst - self._level) / self.per_second
        return {
            "x-ratelimit-limit-requests": f"{self.burst:g}",
            "x-ratelimit-remaining-requests": str(int(self._level)),
            "x-ratelimit-reset-requests": f"{full:.3f}s",
        }
