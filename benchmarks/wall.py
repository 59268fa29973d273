"""Wall time against the ideal: the sum of the latencies, divided by the number in flight.

    python -m benchmarks.wall

80 requests per place in flight, one per record, JPEGs of 5 KB, latencies all alike or log-normal
(sigma 0.7). The table compares it with a client that has the same latencies and keeps every place
filled from the start; that one waits for the last replies, too. The run begins with 8 in flight and
adds one per reply, so it uses 120 of 512 places until it has 128.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, rows_to_ground, step_1
from tests.support.measuring import Row, show, under, workplace
from tests.support.pacing import lognormal

SIGMA, PER_PLACE = 0.7, 80
MEANS = {16: 0.2, 64: 0.25, 128: 0.4}
"""In flight → mean latency in seconds; at most 320 requests per second, so that it isn't the
processor's speed.
"""


def latencies(requests: int, mean: float, sigma: float) -> list[float]:
    """Seconds that the server takes for each request, in the order in which they come."""
    if not sigma:
        return [mean] * requests
    latency = lognormal(mean, sigma)
    place: Any = SimpleNamespace(index=0)
    return [latency(place) for place.index in range(requests)]


def always_full(times: list[float], in_flight: int) -> float:
    """Seconds until the last reply when a request takes the place of each reply at once."""
    busy = [0.0] * in_flight
    for seconds in times:
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy)


def measure() -> list[Row]:
    """Wall time against the ideal: the sum of the latencies, divided by the number in flight."""
    with workplace() as folder:
        pictures = inputs.pictures(folder / "pictures", max(MEANS) * PER_PLACE, 320, 240, 5)
        return [
            row(folder, pictures, in_flight, sigma) for in_flight in MEANS for sigma in (0.0, SIGMA)
        ]


def row(folder: Path, pictures: list[Path], in_flight: int, sigma: float) -> Row:
    """One run."""
    requests, mean = in_flight * PER_PLACE, MEANS[in_flight]
    results = folder / f"{in_flight}-{sigma}"
    rows_to_ground(results, pictures[:requests])
    latency = ["--latency", str(mean), *(["--sigma", str(sigma)] if sigma else [])]
    with ServerProcess("--answers", "canned", "--text", REPLY, *latency) as server:
        used = step_1(results, server.base_url, in_flight=in_flight)
    times = latencies(requests, mean, sigma)
    ideal = sum(times) / in_flight
    figure, goal, reached = under(used.json()["seconds"] / ideal, 1.1)
    full, whole = always_full(times, in_flight) / ideal, used.wall_s / ideal
    figure += f" (always full {full:.2f}; with the process's start {whole:.2f})"
    name = f"log-normal, sigma {sigma}" if sigma else "all alike"
    return Row(
        f"{in_flight} in flight, {requests:,} requests of {mean} s, {name}: wall / ideal",
        figure,
        goal,
        reached,
    )


if __name__ == "__main__":
    show(measure)
