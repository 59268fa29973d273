"""What sending a request costs with other ways of sending: CPU in the client's event loop.

    python -m benchmarks.clients

Each way sends 1,500 requests with JPEGs of 120 KB, 64 in flight, to a server in a process of its
own that replies after 20 ms; its start and imports don't count. They take turns, three rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import IN_FLIGHT, REPLY
from tests.support.measuring import Row, median, run, show, workplace

REQUESTS, ROUNDS = 1500, 3
AS_IT_IS = "--allocator-as-it-is"
WAYS = {
    "openai.AsyncOpenAI, as by default": ["--client", "openai"],
    "aiohttp": ["--client", "aiohttp"],
    "asyncio.Protocol by hand": ["--client", "hand"],
    "asyncio.Protocol by hand, glibc's allocator as it is": ["--client", "hand", AS_IT_IS],
}


def sent(options: list[str], pictures: Path, base_url: str) -> dict[str, Any]:
    """What a way of sending used, as the client says."""
    command = [sys.executable, "-m", "benchmarks.bare_client", base_url, *options]
    command += ["--image", str(pictures), "--requests", str(REQUESTS)]
    used: dict[str, Any] = run([*command, "--in-flight", str(IN_FLIGHT)]).json()
    assert used["answered"] == REQUESTS, used
    return used


def measure() -> list[Row]:
    """CPU and page faults of a request, by the way in which it is sent."""
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    faults: dict[str, list[float]] = {way: [] for way in WAYS}
    with (
        workplace() as folder,
        ServerProcess("--answers", "canned", "--text", REPLY, "--latency", "0.02") as server,
    ):
        pictures = folder / "pictures"
        inputs.pictures(pictures, REQUESTS)
        for _ in range(ROUNDS):
            for way, options in WAYS.items():
                used = sent(options, pictures, server.base_url)
                cpu[way].append(used["cpu_ms_per_request"])
                faults[way].append(used["page_faults_per_request"])
    least = median(cpu["aiohttp"])
    rows = []
    for way in WAYS:
        milliseconds = median(cpu[way])
        what = f"{way}: CPU ms a request; times aiohttp's; page faults"
        figure = f"{milliseconds:.2f}; {milliseconds / least:.1f}; {median(faults[way]):.0f}"
        rows.append(Row(what, figure))
    return rows


if __name__ == "__main__":
    show(measure)
