"""What Ray costs: the same records by one machine and by workers on Ray, undisturbed and with processes killed.

    python -m benchmarks.ray_cost [--records N] [--workers N] [--capacity N] [--latency SECONDS] [--kills N]

The endpoint is a loopback server that answers 429 to what comes while it serves `capacity` requests. For each way: wall
and CPU seconds of all its processes, those before the first request, how busy the endpoint was from the first request
to the last, and what was paid. The last way has workers killed (-9) while it runs, then the driver, and goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workplace import Workplace, ended
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from dataflow_grounding.testing.received import ReceivedRequest


@dataclass
class Family:
    """The processes that come of one; `cpu`: seconds by process, as last seen; `ray`: those of Ray's own."""

    root: int
    cpu: dict[int, float] = field(default_factory=dict)
    ray: dict[int, float] = field(default_factory=dict)
    memory: float = 0.0  # MB, at its most, shared pages counted for each

    def look(self) -> list[int]:
        """Its workers on Ray."""
        stats = dict(filter(None, map(_stat, filter(str.isdecimal, os.listdir("/proc")))))
        own = {self.root}
        while more := {pid for pid, (_, parent, _, _) in stats.items() if parent in own and pid not in own}:
            own |= more
        own &= stats.keys()
        workers = [pid for pid in own if stats[pid][0].startswith("ray::Worker")]
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
    busy: float = 0.0
    paid: int = 0
    refused: int = 0
    kills: int = 0
    same: bool = True


class Endpoint(LoopbackServer):
    """Notes when the first request of a way came, and the last."""

    times: tuple[float, float] = (0.0, 0.0)

    def note(self, request: ReceivedRequest) -> None:
        now = time.monotonic()
        self.times = (self.times[0] or now, now)


def run(place: Workplace, server: Endpoint, name: str, arguments: list[str], kills: int = 0) -> Way:
    way, before, refused = Way(name), server.received, server.count(429)
    place.results, server.times = place.folder / name.replace(" ", "_"), (0.0, 0.0)
    steps = 2 * len(place.input.read_text().splitlines()) // (kills + 2)  # requests between two kills
    start, left = time.monotonic(), kills
    driver = place.start(*arguments)
    families = [Family(driver.pid)]
    while driver.poll() is None:
        workers = families[-1].look()
        if kills and server.received - before > steps * (way.kills + 1):
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
    way.wall, way.first_request = time.monotonic() - start, server.times[0] - start
    way.cpu = sum(sum(family.cpu.values()) for family in families)
    way.ray_cpu = sum(sum(family.ray.values()) for family in families)
    way.memory_mb = max(family.memory for family in families)
    way.refused = server.count(429) - refused
    way.paid = server.received - before - way.refused
    way.busy = way.paid * float(server.latency) / (server.capacity or 1) / (server.times[1] - server.times[0])
    return way


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in [("records", 20_000), ("workers", 2), ("kills", 5), ("capacity", 8), ("latency", 0.02)]:
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args()
    on_ray = ["--engine", "ray", "--workers", str(given.workers)]
    server = Endpoint(EchoAnswers(), latency=given.latency, capacity=given.capacity, record=False)
    server.faults = lambda request: server.note(request)  # type: ignore[assignment, func-returns-value]
    with server, tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), server.base_url, **{"workflow.max_workers": 2 * given.capacity})
        place.many(given.records)
        ways = [run(place, server, "one machine", []), run(place, server, "on Ray", on_ray)]
        if given.kills:
            ways.append(run(place, server, "on Ray with kills", on_ray, given.kills))
        first, *others = [
            (Path(folder) / way.name.replace(" ", "_") / "annotations.jsonl").read_bytes() for way in ways
        ]
        for way, other in zip(ways[1:], others, strict=True):
            way.same = other == first
    for way in ways:
        print(
            f"{way.name:17} {way.wall:6.1f} s wall, first request at {way.first_request:.1f}; {way.cpu:.1f} s CPU, "
            f"{way.ray_cpu:.1f} Ray's own; {way.memory_mb:.0f} MB; endpoint {way.busy:.0%} busy; {way.paid} paid, "
            f"{way.refused} refused, {way.kills} kills{'' if way.same else ', ANOTHER CONTENT'}"
        )
    alone, ray = ways[0], ways[1]
    wall = (ray.wall - ray.first_request) / (alone.wall - alone.first_request)
    print(
        f"beyond the start: wall {wall:.2f} of one machine's; CPU but Ray's {(ray.cpu - ray.ray_cpu) / alone.cpu:.2f}"
    )


if __name__ == "__main__":
    main()
