"""How much faster two processes are than one, where the client is what takes the time.

    python -m benchmarks.processes [--json]

`generate` for one request a record, each its own JPEG of 120 KB, against a server that throws
bodies away unread and answers at once: 64 in flight. By one process; by two; by one that shares a
single core with the server; and by two runs that know nothing of each other, with half of the
records each: no more can be had of this machine while others use it.

The server needs a part of the second core: with c and s, the CPU time that a request takes the
client and the server, two cores can't do more than 2c / (c + s) times what one process does that
has a core to itself. Where the two are threads of one core of the processor, each is slower while
the other works, which the two runs apart show. What others took of both is in the table; it should
be nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import inputs
from benchmarks.places.measuring import COMMAND, Row, Used, generate, median, show, workplace
from benchmarks.request_cost import IN_FLIGHT, REPLY, rows_to_ground

FEW, MANY, FILES, ROUNDS = 2000, 8000, 200, 3
GOAL, GOAL_APART = 1.8, 0.9
ON_CORES = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(',')));"
    " os.execv(sys.argv[2], sys.argv[2:])"
)


class Bare(asyncio.BufferedProtocol):
    """One connection of a server that does the least: counts a body's bytes, and sends the same
    reply to each.
    """

    room = memoryview(bytearray(1 << 20))
    """Of all connections: nothing is kept of what is read."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._left, self._head = answer, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, _: int) -> memoryview:
        return self.room

    def buffer_updated(self, count: int) -> None:
        if self._left:
            self._left -= count
        else:
            self._head += self.room[:count]
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            self._left, self._head = int(fields[b"content-length"]) - len(body), b""
        if not self._left:
            self._transport.write(self._answer)


def answer() -> bytes:
    """The reply to every request."""
    message = {
        "message": {"role": "assistant", "content": REPLY},
        "finish_reason": "stop",
        "index": 0,
    }
    usage = {"prompt_tokens": 1000, "completion_tokens": 50}
    body = json.dumps(
        {"id": "1", "object": "chat.completion", "choices": [message], "usage": usage}
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


async def serve() -> None:
    """Print the port, then serve until told to stop."""
    reply = answer()
    server = await asyncio.get_running_loop().create_server(
        lambda: Bare(reply), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have had."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(map(int, fields[:8])) - idle) / os.sysconf("SC_CLK_TCK")


@dataclass
class Took:
    """One way's run, and what the server and all others used meanwhile."""

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    others_cpu_s: float


@dataclass(frozen=True)
class Way:
    """How the work is done: by so many runs at once, each with its part of the records and so many
    processes.
    """

    name: str
    cores: frozenset[int]
    processes: int = 1
    runs: int = 1


def on(cores: frozenset[int], *command: str) -> list[str]:
    """A command that keeps to these cores."""
    return [sys.executable, "-c", ON_CORES, ",".join(map(str, cores)), *command]


def took(folder: Path, pictures: list[Path], way: Way) -> Took:
    """`generate` for these pictures, with a server beside it."""
    parts = [pictures[number :: way.runs] for number in range(way.runs)]
    for number, part in enumerate(parts):
        rows_to_ground(folder / str(number) / "results", part)
    serving = on(way.cores, sys.executable, "-m", "benchmarks.processes", "--serve")
    server = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    overrides = [
        'workflow.steps=["1"]',
        f"workflow.max_workers={IN_FLIGHT // way.runs}",
        "vlm.check_every=null",
    ]

    def run(number: int) -> Used:
        results = folder / str(number) / "results"
        processes = ["--processes", str(way.processes)]
        command = on(way.cores, *COMMAND)
        return generate(
            results, folder / "none.jsonl", url, *overrides, command=command, options=processes
        )

    began, before = busy_seconds(), time.perf_counter()
    with ThreadPoolExecutor(way.runs) as threads:
        runs = list(threads.map(run, range(way.runs)))
    wall, busy = time.perf_counter() - before, busy_seconds() - began
    server.terminate()
    _, _, usage = os.wait4(server.pid, 0)
    server.returncode = 0
    own, client = usage.ru_utime + usage.ru_stime, sum(used.cpu_s for used in runs)
    assert sum(used.json()["done"] for used in runs) == len(pictures)
    return Took(wall, client, own, max(0.0, busy - client - own))


def measure() -> list[Row]:
    """Wall time by one and by two processes, of 8,000 requests and of those beyond
    the first 2,000.
    """
    first, second, *_ = sorted(os.sched_getaffinity(0))
    both = frozenset({first, second})
    alone, pair = Way("one process", both), Way("two processes", both, processes=2)
    single, apart = (
        Way("one process, one core", frozenset({first})),
        Way("two runs that share nothing", both, runs=2),
    )
    runs: dict[tuple[Way, int], list[Took]] = {}
    with workplace() as folder:
        files = inputs.pictures(folder / "files", FILES)
        pictures = inputs.links(folder / "pictures", files, MANY)
        for turn in range(ROUNDS):
            for way in (alone, pair, single, apart):
                for count in (FEW, MANY):
                    place = folder / f"{turn} {way.name} {count}"
                    runs.setdefault((way, count), []).append(took(place, pictures[:count], way))
    further = {way: each(runs[way, MANY], runs[way, FEW]) for way in (alone, pair, single, apart)}
    rows = [row(way, further[way], runs[way, MANY]) for way in further]
    ceiling = (
        2
        * further[alone].client_cpu_s
        / (further[alone].client_cpu_s + further[alone].server_cpu_s)
    )
    for way, goal in ((alone, GOAL), (single, GOAL), (apart, GOAL_APART)):
        beyond = further[way].wall_s / further[pair].wall_s
        whole = median([one.wall_s for one in runs[way, MANY]]) / median(
            [one.wall_s for one in runs[pair, MANY]]
        )
        figure = f"{beyond:.2f}; {whole:.2f}"
        if way is alone:
            figure += f" (with the server, two cores can't do more than {ceiling:.2f})"
        what = f"two processes, times as fast as {way.name}: further requests; in all"
        rows.append(Row(what, figure, f"≥ {goal} (further)", beyond >= goal))
    return rows


def each(many: list[Took], few: list[Took]) -> Took:
    """Seconds for each request beyond the first ones."""
    names = ("wall_s", "client_cpu_s", "server_cpu_s", "others_cpu_s")
    sums = [
        median([getattr(one, name) for one in many]) - median([getattr(one, name) for one in few])
        for name in names
    ]
    return Took(*(value / (MANY - FEW) for value in sums))


def row(way: Way, further: Took, runs: list[Took]) -> Row:
    """What a way took."""
    wall, others = (
        median([one.wall_s for one in runs]),
        median([one.others_cpu_s / one.wall_s for one in runs]),
    )
    cpu = f"CPU ms {further.client_cpu_s * 1e3:.2f}, of the server {further.server_cpu_s * 1e3:.2f}"
    figure = f"{wall:.1f} s; {1 / further.wall_s:.0f}/s ({cpu}; others had {others:.2f} cores)"
    return Row(f"{way.name}: wall of {MANY:,} requests; further ones", figure)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(serve())
    else:
        show(measure)
