"""Wall time against the ideal: the sum of the latencies, divided by the number in flight.

    python benchmarks/wall.py

50 requests for each place in flight, one a record, JPEGs of 5 KB, latencies of 0.3 s: all alike, or log-normal with
sigma 0.7 and this mean. The wall time is that of the whole process, its start included. Its number in flight begins at 8
and grows by one a reply: from 8 to 128 that takes four latencies, in which 120 of 512 places are used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import inputs
from measuring import Row, show, under, workplace
from request_cost import REPLY, rows_to_ground, step_1

from dataflow_grounding.testing import ServerProcess, lognormal

MEAN, SIGMA, PER_PLACE = 0.3, 0.7, 50


def sum_of_latencies(requests: int, sigma: float) -> float:
    """Seconds that the server takes for these requests together."""
    if not sigma:
        return requests * MEAN
    latency = lognormal(MEAN, sigma)
    place: Any = SimpleNamespace(index=0)
    return sum(latency(place) for place.index in range(requests))


def measure() -> list[Row]:
    """Wall time against the ideal: the sum of the latencies, divided by the number in flight."""
    rows = []
    with workplace() as folder:
        pictures = inputs.pictures(folder / "pictures", 128 * PER_PLACE, 320, 240, 5)
        for in_flight in (16, 64, 128):
            for name, sigma in (("all alike", 0.0), ("log-normal", SIGMA)):
                requests = in_flight * PER_PLACE
                results = folder / f"{in_flight}-{name}"
                rows_to_ground(results, pictures[:requests])
                latency = ["--latency", str(MEAN), *(["--sigma", str(sigma)] if sigma else [])]
                with ServerProcess("--answers", "canned", "--text", REPLY, *latency) as server:
                    used = step_1(results, server.base_url, in_flight)
                ideal = sum_of_latencies(requests, sigma) / in_flight
                figure, goal, reached = under(used.wall_s / ideal, 1.1)
                figure += f" ({used.wall_s:.1f} s; the run alone {used.json()['seconds'] / ideal:.2f})"
                rows.append(Row(f"{in_flight} in flight, {name}: wall / ideal", figure, goal, reached))
    return rows


if __name__ == "__main__":
    show(measure)
