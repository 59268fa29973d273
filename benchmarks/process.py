"""The loopback server in a process of its own, so that a benchmark's CPU time is the client's
alone.

    python -m benchmarks.process --port-file PORT --stats-file STATS [--answers canned --text TEXT]
    [--probes FORMAT] [--latency SECONDS]

serves until SIGTERM or Ctrl-C, then writes its counts, and before that whenever it gets SIGUSR1;
`ServerProcess` starts it so and reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.testing import (
    Answer,
    CannedAnswers,
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
)
from dataflow_grounding.testing.answers import INPUT, Answers, answer_to_probe
from tests.support.pacing import lognormal

REPOSITORY = Path(__file__).resolve().parent.parent
START_LIMIT = 120.0  # seconds; on a busy machine, too, it has begun by then


class ServerProcess:
    """`python -m benchmarks.process` with these arguments, as a context manager that ends with
    `statistics`.

    Raises RuntimeError where the process does not begin to listen.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.base_url = ""
        self.statistics: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="loopback-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        folder = Path(self._folder.name)
        files = ["--port-file", str(folder / "port"), "--stats-file", str(folder / "stats.json")]
        command = [sys.executable, "-m", "benchmarks.process", *files, *self.arguments]
        self._process = subprocess.Popen(command, cwd=REPOSITORY)
        end = time.monotonic() + START_LIMIT
        while not (folder / "port").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the loopback server did not start: {' '.join(command)}")
            time.sleep(0.02)
        self.base_url = f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
        return self

    def counts_so_far(self) -> dict[str, Any]:
        """What `statistics` would be if the server ended now."""
        assert self._process
        stats = Path(self._folder.name, "stats.json")
        stats.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + START_LIMIT
        while not stats.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the loopback server does not answer")
            time.sleep(0.02)
        counts: dict[str, Any] = json.loads(stats.read_text())
        return counts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait()
        stats = Path(self._folder.name, "stats.json")
        if stats.exists():
            self.statistics = json.loads(stats.read_text())
        self._folder.cleanup()


class RightAboutProbes(CannedAnswers):
    """The same text for every request, but probe pictures get their right boxes in a format."""

    reads = INPUT

    def __init__(self, text: str, box_format: str) -> None:
        super().__init__(text)
        self.box_format = box_format

    def __call__(self, request: ReceivedRequest) -> Answer:
        right = answer_to_probe(request, find_box_format(self.box_format, ""))
        return super().__call__(request) if right is None else Answer(json.dumps(right))


def answers_of(arguments: argparse.Namespace) -> Answers:
    if arguments.answers == "echo":
        return EchoAnswers()
    if arguments.probes:
        return RightAboutProbes(arguments.text, arguments.probes)
    return CannedAnswers(arguments.text)


def main() -> None:
    """Serve until told to stop."""
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    answers = answers_of(arguments)
    latency = (
        lognormal(arguments.latency, arguments.sigma) if arguments.sigma else arguments.latency
    )
    with LoopbackServer(answers, latency=latency, key=arguments.key, record=False) as server:

        def write_counts(*_: object) -> None:
            write_whole(arguments.stats_file, json.dumps(counts(server), indent=1) + "\n")

        signal.signal(signal.SIGUSR1, write_counts)
        with suppress(KeyboardInterrupt):
            write_whole(arguments.port_file, str(server.port))
            while True:
                # a library's thread may have got the signal, which doesn't wake this one
                time.sleep(0.1)
        write_counts()


def counts(server: LoopbackServer) -> dict[str, Any]:
    """What was asked, and what answering took of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "by_status": server.by_status,
        "received": server.received,
        "bytes_received": server.bytes_received,
        "max_in_flight": server.max_in_flight,
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "peak_rss_kb": used.ru_maxrss,
    }


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--answers",
        choices=("echo", "canned"),
        default="echo",
        help="canned: the same --text, bodies thrown away unread",
    )
    add("--text", default='{"objects": []}')
    add("--probes", metavar="FORMAT", help="the format in which canned answers are right there")
    add("--latency", type=float, default=0.0, help="seconds, the mean where --sigma is given")
    add("--sigma", type=float, default=0.0, help="shape of log-normal latencies")
    add("--key", help="the only key that is taken")
    add("--port-file", type=Path, required=True, help="written once the server listens")
    add("--stats-file", type=Path, required=True, help="written at the end and at SIGUSR1, as JSON")
    return parser


def write_whole(path: Path, text: str) -> None:
    """Write so that a reader finds the whole file or none."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


if __name__ == "__main__":
    main()
