"""Processes of the command line that are forked from one that has imported it already.

What is started so is a process like another: a pid, an environment, a folder, streams, signals and
an exit code of its own. It only needn't import for a quarter of a second what a thousand others
have imported before. Tests start most of theirs so; where the start itself counts (limits, what
Python reads from the environment, memory), a process begins anew.

    python -m tests.support.warm FD    # the one that forks; it is started by `WarmProcesses`
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataflow_grounding._util.entry_points import targets_of

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = "dataflow_grounding"
# heavy, or with threads of their own, which no fork takes along
NOT_AHEAD = ("compat", "embedded", "testing", "cluster", "notebook")
LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_STACK")
# what an interpreter and its libraries read once, as they begin
READ_AT_START = (
    "PYTHON",
    "LD_",
    "SSL_",
    "LC_",
    "LANG",
    "MALLOC",
    "OMP_",
    "OPENBLAS",
    "COVERAGE",
    "TZ",
)


class WarmProcess(subprocess.Popen[Any]):
    """A process that another has forked: it is that one's child, which tells how it ended."""

    def __init__(self, server: socket.socket, line: list[str], first: str, **options: Any) -> None:
        self._server = server
        self._first = first
        self._new_session = options.get("start_new_session", False)
        self._ending = threading.Lock()
        super().__init__(line, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:  # type: ignore[override]
        _, _, _, _, cwd, env, _, _, _, *pipes = rest[:15]
        ours = (pipes[0], pipes[3], pipes[5])  # the child's ends
        told, tells = os.pipe()
        request = {
            "arguments": args[3:],  # after `python -m dataflow_grounding`, or `python -c CODE`
            "first": self._first,
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(env),
            "new_session": self._new_session,
        }
        streams = [number if end == -1 else end for number, end in enumerate(ours)]
        try:
            socket.send_fds(self._server, [json.dumps(request).encode()], [*streams, tells])
        finally:
            os.close(tells)
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self._told = told
        self.pid = int.from_bytes(os.read(told, 4), "little")
        assert self.pid, "the process that forks is gone"
        self._child_created = True

    def _ended(self, timeout: float | None) -> int | None:
        """Wait for the end; None if it doesn't come in time."""
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            with self._ending:
                if self.returncode is None:
                    status = int.from_bytes(os.read(self._told, 4), "little")
                    os.close(self._told)
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        return self._ended(0)

    def _wait(self, timeout: float | None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code


class WarmProcesses:
    """Starts processes of the command line; the one that forks them begins with the first."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._begun: subprocess.Popen[bytes] | None = None
        self._environment = dict(os.environ)
        self._limits = limits()

    def may_start(self, env: dict[str, str], options: dict[str, Any]) -> bool:
        """Whether a process that is forked would be as one that begins anew."""
        known = {"cwd", "stdin", "stdout", "stderr", "text", "encoding", "start_new_session"}
        return (
            sys.platform == "linux"
            and set(options) <= known
            and read_at_start(env) == read_at_start(self._environment)
            and env.get("PYTHONPATH") == str(REPOSITORY)
            and limits() == self._limits
        )

    def start(
        self, line: list[str], first: str, env: dict[str, str], **options: Any
    ) -> WarmProcess:
        """Start `python -m dataflow_grounding …`, where the code in `first` runs before."""
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._begun = subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
                cwd=REPOSITORY,
                env={**self._environment, "PYTHONPATH": str(REPOSITORY)},
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
        return WarmProcess(self._socket, line, first, env=env, **options)

    def close(self) -> None:
        """Let the one that forks end."""
        if self._socket and self._begun:
            self._socket.close()
            self._begun.wait(timeout=120)


def limits() -> list[tuple[int, int]]:
    """What a process inherits as limits."""
    return [resource.getrlimit(getattr(resource, name)) for name in LIMITS]


def read_at_start(env: dict[str, str]) -> dict[str, str]:
    """The variables that can't be changed any more in a process that has begun.

    Where OpenCV is imported it puts a folder of its own into LD_LIBRARY_PATH, for processes to
    come. The one that forks has imported it too: that makes no difference. Ray sets
    PYTHONBREAKPOINT, which is read at each breakpoint.
    """
    names = {name for name in env if name.startswith(READ_AT_START)}
    names -= {"PYTHONPATH", "PYTHONBREAKPOINT"}
    read = {name: env[name] for name in names}
    folders = read.pop("LD_LIBRARY_PATH", "").split(":")
    read["LD_LIBRARY_PATH"] = ":".join(path for path in folders if path and "/cv2/" not in path)
    return read


def import_ahead() -> None:
    """Import what commands need, and the scripts that ours are compared with."""
    package = importlib.import_module(MODULE)
    for module in pkgutil.walk_packages(package.__path__, f"{MODULE}."):
        if not set(module.name.split(".")) & {*NOT_AHEAD, "__main__"}:
            with suppress(ImportError):
                importlib.import_module(module.name)
    for module in ("openai", "s3fs"):
        with suppress(ImportError):
            importlib.import_module(module)
    targets_of("commands")  # looks through all that is installed, once in a process


def wait_for_request(server: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns it in the child, and None where nobody is left to ask."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([server, woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
            tell_ends(running)
        if server not in ready:
            continue
        data, streams, _, _ = socket.recv_fds(server, 2**20, 4)
        if not data:
            return None
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            server.detach()
            os.closerange(3, 1024)
            request: dict[str, Any] = json.loads(data)
            return request
        os.write(streams[3], pid.to_bytes(4, "little"))
        running[pid] = streams[3]
        for stream in streams[:3]:
            os.close(stream)


def tell_ends(running: dict[int, int]) -> None:
    """Tell those who wait how their processes have ended."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with suppress(BrokenPipeError):
                os.write(running[pid], status.to_bytes(4, "little"))
            os.close(running.pop(pid))


def become(request: dict[str, Any]) -> None:
    """Make this process the one that was asked for, as far as it isn't by its streams."""
    if request["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    path = str(REPOSITORY / MODULE / "__main__.py")
    sys.argv = [path, *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", MODULE, *request["arguments"]]


def end_at_once(code: int) -> None:
    """End this process as Python does, but for taking apart what was imported ahead.

    That takes twice as long as most commands, as each page of memory that the processes share is
    copied for it. What is left of the command itself is collected, so that it complains of what
    wasn't closed. Returns where the streams can't be written to: let Python say so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code & 0xFF)


if __name__ == "__main__":
    import_ahead()
    gc.freeze()
    if (asked := wait_for_request(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(asked)
        exec(asked["first"])
        try:
            runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if isinstance(ended.code, int):
                end_at_once(ended.code)
            raise
