"""The command line in processes that are forked from one that has imported it: with signals, memory
and files of their own, at a tenth of what a new interpreter takes to begin.

What a library takes from the environment at its import is the same for all: aiohttp reads
SSL_CERT_FILE then.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

import dataflow_grounding

REPOSITORY = Path(dataflow_grounding.__file__).resolve().parent.parent
MOST_BYTES = 2**20  # at once


class Forked:
    """A process of the command line, as `subprocess.Popen` has it; nothing is on its input. The code
    in `first` runs before.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] = os.environ,
        first: str = "",
    ) -> None:
        out, own_out = os.pipe()
        err, own_err = os.pipe()
        told, own_told = os.pipe()
        given = [[*arguments], str(cwd or os.getcwd()), dict(env), first]
        owned = [own_out, own_err, own_told]
        line = json.dumps(given).encode() + b"\n"
        sent = socket.send_fds(_origin(), [line], owned)
        _origin().sendall(line[sent:])
        for end in owned:
            os.close(end)
        self.stdout = os.fdopen(out, encoding="utf-8")
        self.stderr = os.fdopen(err, encoding="utf-8")
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("dataflowgrounding", timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

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
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _origin() -> socket.socket:
    """The process that others are forked from; it ends with this one."""
    ours, its = socket.socketpair()
    origin = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forking", str(its.fileno())],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[its.fileno()],
    )
    its.close()
    atexit.register(_end, origin, ours)
    return ours


def _end(origin: subprocess.Popen[bytes], asked: socket.socket) -> None:
    asked.close()
    origin.wait()  # and so what its processes took is counted as what the tests took


def become_what_is_asked_for(asked: socket.socket) -> str:
    """Wait; returns in each new process, which has arguments, streams and environment of its own, and
    the code that runs first there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting = []  # those that wait for their process
    while True:
        message, streams, _, _ = socket.recv_fds(asked, MOST_BYTES, 3)
        while message and not message.endswith(b"\n"):
            message += asked.recv(MOST_BYTES)
        if not message:
            for each in waiting:
                os.waitpid(each, os.WNOHANG)
            os._exit(0)
        each = os.fork()
        if each == 0:
            break
        waiting = [other for other in [*waiting, each] if os.waitpid(other, os.WNOHANG)[0] == 0]
        for stream in streams:
            os.close(stream)
    asked.close()
    out, err, told = streams
    process = os.fork()
    if process:
        os.close(out)
        os.close(err)
        os.write(told, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(told)
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments, folder, environment, first = json.loads(message)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = ["dataflowgrounding", *arguments]
    assert isinstance(first, str)
    return first


if __name__ == "__main__":
    # all that commands import as they come to it
    import cv2
    import omegaconf
    import PIL.Image
    from aiohttp import web

    from dataflow_grounding.cli import generate, merge, review, serve
    from dataflow_grounding.cli.main import main
    from dataflow_grounding.embedded import serving
    from dataflow_grounding.review import results
    from dataflow_grounding.spec import loading
    from dataflow_grounding.trust import probing, run_watch, showing

    PIL.Image.init()
    assert all((cv2, generate, loading, merge, omegaconf, probing, results, review, run_watch))
    assert all((serve, serving, showing, web))
    gc.freeze()
    exec(become_what_is_asked_for(socket.socket(fileno=int(sys.argv[1]))), {})
    main()
