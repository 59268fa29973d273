"""What Ray costs: the same records by one machine and by workers on Ray, undisturbed and with
processes killed.

    python -m benchmarks.ray_cost [--records N] [--workers N] [--capacity N [N]] [--latency SECONDS]
    [--kills N]

Each endpoint is a loopback server that answers 429 to what comes while it serves `capacity`
requests. For each way: wall and CPU seconds of all its processes, those before the first request,
how busy each endpoint was from the first request to where 5% of them are left, and what was paid.
The last way has workers killed (-9) while it runs, then the driver, and goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.workplace import Workplace, ended


@dataclass
class Family:
    """The processes that come of one; `cpu`: seconds by process, as last seen; `ray`: those of
    Ray's own.
    """

    root: int
    cpu: dict[int, float] = field(default_factory=dict)
    ray: dict[int, float] = field(default_factory=dict)
    memory: float = 0.0  # MB, at its most, shared pages counted for each

    def look(self) -> list[int]:
        """Its workers on Ray."""
        stats = dict(filter(None, map(_stat, filter(str.isdecimal, os.listdir("/proc")))))
        own = {self.root}
        while more := {
            pid for pid, (_, parent, _, _) in stats.items() if parent in own and pid not in own
        }:
            own |= more
        own &= stats.keys()
        workers = [pid for pid in own if stats[pid][0].startswith("ray::work_on")]
        self.cpu |= {pid: stats[pid][2] for pid in own}
        self.ray |= {pid: stats[pid][2] for pid in own.difference([self.root, *workers])}
        self.memory = max(self.memory, sum(stats[pid][3] for pid in own))
        return workers


def _stat(pid: str) -> tuple[int, tuple[str, int, float, float]] | None:
    """Name, parent, CPU seconds and MB of a process."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    of = rest.split()
    cpu, pages = sum(map(int, of[11:15])) / os.sysconf("SC_CLK_TCK"), int(of[21])
    return int(pid), (name, int(of[1]), cpu, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


@dataclass
class Way:
    """How one way went."""

    name: str
    wall: float = 0.0
    first_request: float = 0.0
    cpu: float = 0.0
    ray_cpu: float = 0.0
    memory_mb: float = 0.0
    busy: list[float] = field(default_factory=list)
    paid: int = 0
    refused: int = 0
    kills: int = 0
    same: bool = True


class Endpoint(LoopbackServer):
    """Notes when the requests of a way came."""

    def __init__(self, capacity: int, latency: float) -> None:
        super().__init__(EchoAnswers(), latency=latency, capacity=capacity, record=False)
        self.times: list[float] = []
        self.refused = 0  # before the way began
        self.faults = self.note  # type: ignore[assignment]

    def note(self, request: ReceivedRequest) -> None:
        self.times.append(time.monotonic())

    def busy(self, until: float) -> float:
        """The part of its places that was taken from its first request on."""
        there = sum(when < until for when in self.times) - self.count(429) + self.refused
        return there * float(self.latency) / (self.capacity or 1) / (until - self.times[0])


def counts(servers: list[Endpoint]) -> tuple[int, int]:
    """How many requests were answered, or would have been, and how many refused."""
    refused = sum(server.count(429) for server in servers)
    return sum(server.received for server in servers) - refused, refused


def run(
    place: Workplace, servers: list[Endpoint], name: str, arguments: list[str], kills: int = 0
) -> Way:
    way, (paid, refused) = Way(name), counts(servers)
    place.results = place.folder / name.replace(" ", "_")
    for server in servers:
        server.times, server.refused = [], server.count(429)
    # requests between two kills
    steps = 2 * len(place.input.read_text().splitlines()) // (kills + 2)
    start, left = time.monotonic(), kills
    driver = place.start(*arguments)
    families = [Family(driver.pid)]
    while driver.poll() is None:
        workers = families[-1].look()
        if kills and counts(servers)[0] - paid > steps * (way.kills + 1):
            if left and workers:
                os.kill(workers[0], signal.SIGKILL)
                left, way.kills = left - 1, way.kills + 1
            elif not left and way.kills == kills:
                driver.send_signal(signal.SIGKILL)
                driver.communicate()
                way.kills += 1
                driver = place.start(*arguments)
                families.append(Family(driver.pid))
        time.sleep(0.25)
    done = ended(driver)
    assert done.code == 0, done
    times = sorted(when for server in servers for when in server.times)
    way.wall, way.first_request = time.monotonic() - start, times[0] - start
    way.cpu = sum(sum(family.cpu.values()) for family in families)
    way.ray_cpu = sum(sum(family.ray.values()) for family in families)
    way.memory_mb = max(family.memory for family in families)
    way.paid, way.refused = counts(servers)[0] - paid, counts(servers)[1] - refused
    way.busy = [server.busy(times[int(0.95 * len(times))]) for server in servers]
    return way


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in [("records", 20_000), ("workers", 2), ("kills", 5), ("latency", 0.02)]:
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--capacity", type=int, nargs="+", default=[8], help="of each endpoint")
    given = parser.parse_args()
    on_ray = ["--engine", "ray", "--workers", str(given.workers)]
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        servers = [
            stack.enter_context(Endpoint(capacity, given.latency)) for capacity in given.capacity
        ]
        place = Workplace(Path(folder), "", **{"workflow.max_workers": 2 * sum(given.capacity)})
        place.settings["vlm.openai.endpoints"] = [server.base_url for server in servers]
        place.many(given.records)
        ways = [run(place, servers, "one machine", []), run(place, servers, "on Ray", on_ray)]
        if given.kills:
            ways.append(run(place, servers, "on Ray with kills", on_ray, given.kills))
        first, *others = [
            (Path(folder) / way.name.replace(" ", "_") / "annotations.jsonl").read_bytes()
            for way in ways
        ]
        for way, other in zip(ways[1:], others, strict=True):
            way.same = other == first
    for way in ways:
        print(
            f"{way.name:17} {way.wall:6.1f} s wall, first request at {way.first_request:.1f};"
            f" {way.cpu:.1f} s CPU, {way.ray_cpu:.1f} Ray's own; {way.memory_mb:.0f} MB; busy"
            f" {', '.join(map('{:.0%}'.format, way.busy))}; {way.paid} paid, {way.refused} refused,"
            f" {way.kills} kills{'' if way.same else ', ANOTHER CONTENT'}"
        )
    alone, ray = ways[0], ways[1]
    wall = (ray.wall - ray.first_request) / (alone.wall - alone.first_request)
    print(
        f"beyond the start: wall {wall:.2f} of one machine's; CPU but Ray's"
        f" {(ray.cpu - ray.ray_cpu) / alone.cpu:.2f}"
    )


if __name__ == "__main__":
    main()
