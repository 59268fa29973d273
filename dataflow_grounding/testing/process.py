"""The loopback server in a process of its own, so that a benchmark's CPU time is the client's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

START_LIMIT = 30.0


class ServerProcess:
    """`python -m dataflow_grounding.testing` with these arguments, as a context manager that ends with `statistics`.

    Raises RuntimeError where the process does not begin to listen.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.base_url = ""
        self.statistics: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="loopback-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process
        return self._process.pid

    def __enter__(self) -> ServerProcess:
        folder = Path(self._folder.name)
        files = ["--port-file", str(folder / "port"), "--stats-file", str(folder / "stats.json")]
        command = [sys.executable, "-m", "dataflow_grounding.testing", *files, *self.arguments]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        end = time.monotonic() + START_LIMIT
        while not (folder / "port").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the loopback server did not start: {' '.join(command)}")
            time.sleep(0.02)
        self.base_url = f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait()
        stats = Path(self._folder.name, "stats.json")
        if stats.exists():
            self.statistics = json.loads(stats.read_text())
        self._folder.cleanup()
