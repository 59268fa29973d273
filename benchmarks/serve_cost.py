"""Cost of a service: CPU of `serve` for 1,000 requests, against `generate` for the same records.

    python -m benchmarks.serve_cost

Each record is its own 120 KB JPEG with two phrases, replies after 20 ms, 32 in flight. `serve` is
asked for pictures by path, and for pictures in base64, which has no goal: it is 160 MB of JSON that
`generate` doesn't read. The CPU is that of the process from its start to its end. Then all pictures
are asked for by path again: replies are stored by now, so what is left is HTTP and reading the
file, whose bytes say whether it is still the same picture. Memory is looked at after 2,000 of 5,000
requests, when the caches of pictures are full, and at the end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pybase64

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, rows_to_ground, step_1
from tests.support.measuring import COMMAND, Row, median, show, under, workplace

REQUESTS, IN_FLIGHT, ROUNDS = 1000, 32, 3
MANY = 5000
GOAL = 1.2
LEAST_GROWTH = 10.0  # MB, that are no growth

SPEC = """
image_grounding:
  vlm:
    backend: openai
    box_format: qwen3-vl
    openai: {{base_url: {base_url}, model_name: loopback, api_key: sk-test}}
  workflow: {{max_workers: {in_flight}}}
"""


def cpu_of_children() -> float:
    """CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """What a process holds in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def ask(address: str, bodies: list[dict[str, object]]) -> None:
    """Send all requests, IN_FLIGHT at a time."""
    turns = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession() as session:

        async def one(body: dict[str, object]) -> None:
            """Send one, and check the answer."""
            async with turns, session.post(f"{address}/ground", json=body) as response:
                record = await response.json()
                assert response.status == 200, record

        await asyncio.gather(*map(one, bodies))


class Served(NamedTuple):
    """What a `serve` took: CPU seconds, for the same requests again, and MB on the way."""

    cpu: float
    again: float
    early_mb: float  # after two fifths of the requests
    late_mb: float  # after all of them


def served(
    results: Path, pictures: list[Path], base_url: str, as_base64: bool = False, again: bool = False
) -> Served:
    """What a `serve` takes for a request for each picture; `again`, for these once more."""
    bodies: list[dict[str, object]] = []
    for number, path in enumerate(pictures):
        picture: dict[str, object] = {"image_path": path.name}
        if as_base64:
            picture = {"image": pybase64.b64encode(path.read_bytes()).decode()}
        bodies.append({**picture, "phrases": ["wooden table", f"mug number {number}"]})
    spec = results.parent / "serve.yaml"
    spec.write_text(SPEC.format(base_url=base_url, in_flight=IN_FLIGHT))
    options = ["--port", "0", "--results", str(results), "--root", str(pictures[0].parent)]
    before = cpu_of_children()
    process = subprocess.Popen(
        [*COMMAND, "serve", "-e", str(spec), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    first = len(bodies) * 2 // 5  # the caches of pictures are full then
    asyncio.run(ask(address, bodies[:first]))
    early = resident_mb(process.pid)
    asyncio.run(ask(address, bodies[first:]))
    late = resident_mb(process.pid)
    once = cpu_of(process.pid)
    if again:
        asyncio.run(ask(address, bodies))
    cpu_again = cpu_of(process.pid) - once
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    return Served(cpu_of_children() - before - cpu_again, cpu_again, early, late)


def measure() -> list[Row]:
    """CPU of `serve` against that of `generate`, and how its memory grows."""
    arguments = ("--answers", "canned", "--text", REPLY, "--latency", "0.02")
    with workplace() as folder, ServerProcess(*arguments) as server:
        pictures = inputs.pictures(folder / "pictures", REQUESTS, 1280, 960, 120)
        by_path: list[float] = []
        by_base64: list[float] = []
        asked_again: list[float] = []
        generated: list[float] = []
        for number in range(ROUNDS):
            results = folder / f"generate-{number}"
            rows_to_ground(results, pictures)
            generated.append(step_1(results, server.base_url, in_flight=IN_FLIGHT).cpu_s)
            used = served(folder / f"p{number}", pictures, server.base_url, again=True)
            by_path.append(used.cpu)
            asked_again.append(1000 * used.again / REQUESTS)
            by_base64.append(served(folder / f"b{number}", pictures, server.base_url, True).cpu)
        small = inputs.pictures(folder / "small", MANY, 640, 480, 30)
        many = served(folder / "many", small, server.base_url, True)
    growth = under(many.late_mb - many.early_mb, LEAST_GROWTH, "{:.1f} MB")
    return [
        Row(
            f"{REQUESTS:,} pictures by path: CPU / that of `generate`", *against(by_path, generated)
        ),
        Row(
            f"{REQUESTS:,} pictures in base64: CPU / that of `generate`",
            against(by_base64, generated)[0],
        ),
        Row("a picture by path that was asked for before", f"{median(asked_again):.2f} ms of CPU"),
        Row(f"memory, from {MANY * 2 // 5:,} to {MANY:,} requests in base64", *growth),
    ]


def against(served_cpu: list[float], generated: list[float]) -> tuple[str, str, bool]:
    """Figure, goal and whether it is reached: CPU against that of `generate`."""
    ours, theirs = median(served_cpu), median(generated)
    figure, goal, reached = under(ours / theirs, GOAL)
    return f"{figure} ({ours:.2f} s, generate {theirs:.2f} s)", goal, reached


if __name__ == "__main__":
    show(measure)
