"""How long replies take."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from dataflow_grounding.testing import ReceivedRequest


def lognormal(mean: float, sigma: float = 0.7) -> Callable[[ReceivedRequest], float]:
    """Log-normal latencies with this mean (seconds) and shape; the n-th request always gets the
    same one.
    """
    middle = math.log(mean) - sigma * sigma / 2
    return lambda request: random.Random(f"0/{request.index}").lognormvariate(middle, sigma)
