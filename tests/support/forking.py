"""The command line in processes that are forked from one that has imported it: with signals, memory
and files of their own, at a tenth of what a new interpreter takes to begin.

What a library takes from the environment at its import is the same for all: aiohttp reads
SSL_CERT_FILE then.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Thread
from typing import NoReturn

IMPORTED = (
    "aiohttp.web",
    "cv2",
    "omegaconf",
    "dataflow_grounding.cli._generating",
    "dataflow_grounding.cli.main",
    "dataflow_grounding.cli.merge",
    "dataflow_grounding.cli.review",
    "dataflow_grounding.cli.serve",
    "dataflow_grounding.embedded.serving",
    "dataflow_grounding.review.results",
    "dataflow_grounding.spec.loading",
    "dataflow_grounding.trust.run_watch",
    "dataflow_grounding.trust.showing",
)
"""What commands import as they come to it."""


class Forked:
    """A process of the command line, as `subprocess.Popen` has it; nothing is on its input. The code
    in `first` runs before.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | str | None = None,
        env: Mapping[str, str] = os.environ,
        first: str = "",
    ) -> None:
        out, own_out = multiprocessing.Pipe(duplex=False)
        err, own_err = multiprocessing.Pipe(duplex=False)
        given = (arguments, str(cwd or os.getcwd()), dict(env), first, own_out, own_err)
        self._process = _context().Process(target=_run, args=given)
        self._process.start()
        own_out.close()
        own_err.close()
        self.stdout, self.stderr = (
            os.fdopen(os.dup(end.fileno()), encoding="utf-8") for end in (out, err)
        )
        out.close()
        err.close()
        self.pid = self._process.pid
        self.kill = self._process.kill
        self.terminate = self._process.terminate

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("dataflowgrounding", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; returns what else it wrote, and nothing the second time."""
        said = ["", ""]

        def read(number: int) -> None:
            with (self.stdout, self.stderr)[number] as stream:
                said[number] = stream.read()

        readers = []
        if not self.stdout.closed:
            readers = [Thread(target=read, args=[number], daemon=True) for number in range(2)]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, number)


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    return context


def _run(
    arguments: Sequence[str],
    folder: str,
    env: Mapping[str, str],
    first: str,
    out: Connection,
    err: Connection,
) -> NoReturn:
    from dataflow_grounding.cli.main import main

    for end, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(end.fileno(), stream.fileno())
        end.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = ["dataflowgrounding", *arguments]
    exec(first, {})
    main()
    sys.exit(0)
