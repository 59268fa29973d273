"""`generate` as one of many workers that share a pool of leases over a local socket, for tests and
benchmarks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from multiprocessing.managers import BaseManager
from typing import Any

from benchmarks.places.workplace import REPOSITORY
from dataflow_grounding.extras.scale.leases import Grant, LeasePool, Report, leasing

KEY = b"of this machine"


class Pools(BaseManager):
    """Serves a pool to other processes."""


class Served:
    """A pool that other processes reach, until it is `silent`."""

    def __init__(self, pool: LeasePool) -> None:
        self.pool, self.silent, self._lock = pool, False, threading.Lock()
        Pools.register("pool", callable=lambda: self, exposed=["renew"])
        self.server = Pools(("127.0.0.1", 0), KEY).get_server()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def renew(self, report: Report) -> Grant:
        with self._lock:
            if self.silent:
                raise OSError("silent")
            return self.pool.renew(report)

    def start(self, arguments: list[str], max_wait: float = 60.0) -> subprocess.Popen[str]:
        """The command line as a process of its own."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.leased",
            str(self.server.address[1]),
            str(max_wait),
            *arguments,
        ]
        piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **piped)


def main() -> None:
    """A worker: port of the pool, seconds to wait for it, arguments of the command line."""
    from dataflow_grounding.cli.main import main as command

    _, port, max_wait, *arguments = sys.argv
    sys.argv = ["dataflowgrounding", *arguments]
    Pools.register("pool")
    manager: Any = Pools(("127.0.0.1", int(port)), KEY)
    manager.connect()
    with leasing(manager.pool().renew, float(max_wait)):
        command()


if __name__ == "__main__":
    main()
