"""One run at a time in a folder.

Where no system call keeps a lock, numbered files with a heartbeat do.
"""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from dataflow_grounding._util.errors import FolderTaken, InputError, StorageFailed, errors_as
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.engine.workers import in_background

BEAT_SECONDS = 5.0  # how often a lock without the system's help shows that its run is alive
# how long it may show nothing before the run after it, on another machine, is taken for dead
DEAD_SECONDS = 30.0
LOOKS = 30  # in that time
FREE_SECONDS = 5.0  # for how long a run that is over waits until its lock is freed
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # `flock` failed as another holds the lock
_lost: set[str] = set()  # checkpoint folders of this process whose lock another run has taken over


@contextmanager
def only_run(folder: str) -> Iterator[None]:
    """Hold the lock of a checkpoint folder.

    The system releases it however the process ends; on file systems without `flock` (NFS without a
    lock daemon, FUSE) files with host, process and a heartbeat take its place.

    Raises:
        FolderTaken: Another run holds it.
        InputError: The folder can't be written.
    """
    import fcntl

    with errors_as(InputError, f"can't write in {folder}"):
        os.makedirs(folder, exist_ok=True)
        lock = open_log(os.path.join(folder, "lock"))
    results = os.path.dirname(folder) or "."
    with ExitStack() as held:
        held.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise FolderTaken(
                    f"another run is working in {results}: wait for it to end"
                ) from None
            # any other error: this file system keeps no locks
            held.enter_context(HeartLock(_Here(folder), "", results, folder).held())
        yield


def check_held(folder: str) -> None:
    """Raise StorageFailed if another run has taken over a checkpoint folder of this process.

    The same holds for the remote folder that it mirrors.
    """
    if folder in _lost:
        raise StorageFailed(
            "another run has taken over, as nothing was heard of this one; its replies are kept"
        )


class LockFiles(Protocol):
    """Small files of a folder, local or remote, among which a lock is held.

    Paths are relative to the folder. Its methods raise OSError.
    """

    id: str
    """The local folder that mirrors this one, as the lock's files call it; "" for a local one."""
    known: set[str]
    """Filled in: the ids of those that held the lock before."""

    def listed(self, folder: str) -> Iterable[str]:
        """Return the names in a folder."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""

    def write(self, path: str, data: bytes, mode: str) -> None:
        """Write a file: in the mode `create` only where there is none, in `overwrite` always."""

    def remove(self, path: str) -> None:
        """Remove a file."""


class _Here:
    """The files of a folder of this machine."""

    def __init__(self, folder: str) -> None:
        self.id = ""
        self.known: set[str] = set()
        self._folder = Path(folder)

    def listed(self, folder: str) -> list[str]:
        return os.listdir(self._folder / folder)

    def read(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()

    def write(self, path: str, data: bytes, mode: str) -> None:
        if mode == "create":
            with suppress(FileExistsError), open(self._folder / path, "xb") as file:
                file.write(data)
        else:
            write_bytes(str(self._folder / path), data, alone=False)

    def remove(self, path: str) -> None:
        os.remove(self._folder / path)


class HeartLock:
    """A lock by files `lock-{n}`; the highest number counts.

    Only one run can make the next file, and that one has locked the folder.

    Args:
        files: The files among which it is held.
        folder: The folder among `files` that has the lock's files.
        place: What is locked, as messages call it.
        here: This machine's checkpoint folder, which mirrors what is locked.
    """

    def __init__(self, files: LockFiles, folder: str, place: str, here: str) -> None:
        self._files = files
        self._folder = folder
        self._place = place
        self._here = here
        self._mine = {
            "host": socket.gethostname(),
            "kernel": _kernel(),
            "pid": os.getpid(),
            "started": _start_of(os.getpid()),
            "id": files.id,
            "claim": token_hex(8),  # tells two runs apart that are alike in all else
        }
        self._number = 0  # of the file that this run has made

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock while the block runs, and show meanwhile that this run is alive.

        At the end it is freed, or left to others to find out. Raises FolderTaken, InputError.
        """
        with errors_as(InputError, f"can't write {self._place}", again=True):
            self.take()
        try:
            with in_background(self.beat, wait=BEAT_SECONDS):
                yield
        finally:
            # In a thread, with a limited wait: a store that doesn't answer must not keep the run
            # from ending.
            with in_background(self._free, wait=FREE_SECONDS):
                pass

    def _free(self, _: threading.Event) -> None:
        with suppress(OSError):  # then others notice that this run has gone silent
            self._write("overwrite", free=True)

    def take(self) -> None:
        """Take the lock, and remove old files of it, but for the last one before.

        Raises FolderTaken where another run holds it; OSError.
        """
        number = max(self._numbers())
        while True:
            self._wait_for(number)
            self._number = number + 1
            self._write("create")
            # Read again what was made: it is another's where both made it at once, and there is a
            # higher one where this process slept, and others came.
            number = max(self._number, *self._numbers())
            if number == self._number and self._holder(number).get("claim") == self._mine["claim"]:
                break
        _lost.discard(self._here)
        for old in self._numbers():
            if 0 < old < number - 1:  # the previous one stays, for a late listing
                self._files.remove(self._name(old))

    def beat(self, ended: threading.Event) -> None:
        """Write the time into the lock's file every BEAT_SECONDS, until `ended` is set.

        It ends, too, where another run has taken over: this one's folder is then among `_lost`.
        """
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # the next may get through
                if self._holder(self._number + 1) and not ended.is_set():
                    _lost.add(self._here)
                    break
                self._write("overwrite", beat=time.time())

    def _wait_for(self, number: int) -> None:
        # If that isn't clear at once, it watches the file for DEAD_SECONDS, and says so.
        holder = self._holder(number)
        if holder.get("id"):
            self._files.known.add(holder["id"])
        lives = self._lives(holder)
        if number == 0 or holder.get("free") or lives is False:
            return
        if lives is None:
            say(
                f"{self._place} is locked: looking for {DEAD_SECONDS:.0f} s whether its run is"
                " alive"
            )
            # no clock but ours is asked: that of a file server may be off
            until = time.monotonic() + DEAD_SECONDS
            now = holder
            while now == holder and time.monotonic() < until:
                time.sleep(DEAD_SECONDS / LOOKS)
                now = self._holder(number)
            lives = now != holder and not now.get("free")
        if lives:
            whose = f"{self._place} ({holder.get('host')}, process {holder.get('pid')})"
            raise FolderTaken(f"another run is working in {whose}: wait for it to end")

    def _lives(self, holder: dict[str, Any]) -> bool | None:
        # `holder` is what the lock's file says of the run.
        pid = holder.get("pid")
        same_host = holder.get("host") == self._mine["host"]
        same_kernel = holder.get("kernel") == self._mine["kernel"]
        if not (isinstance(pid, int) and same_host and same_kernel):
            return None
        lives = bool(_start_of(pid) == holder.get("started", 0))
        if not lives or not self._files.id:
            return lives
        # This process holds the lock of the folder here, so an earlier run of it here has ended.
        if pid == os.getpid() and holder.get("id") == self._files.id:
            return False
        # It lives, but perhaps does other work by now: not every lock can be freed in the end.
        return None

    def _name(self, number: int) -> str:
        return os.path.join(self._folder, f"lock-{number}")

    def _numbers(self) -> list[int]:
        numbers = [0]
        for name in self._files.listed(self._folder):
            prefix, _, number = name.partition("-")
            if prefix == "lock" and number.isdecimal():
                numbers.append(int(number))
        return numbers

    def _holder(self, number: int) -> dict[str, Any]:
        # Return what lock file `number` says of the run that holds it. It is empty where there is
        # no such file, or no JSON object in it.
        with suppress(ValueError, TypeError, FileNotFoundError):
            return dict(json.loads(self._files.read(self._name(number))))
        return {}

    def _write(self, mode: str, **more: Any) -> None:
        data = json.dumps({**self._mine, **more}).encode()
        self._files.write(self._name(self._number), data, mode)


def _kernel() -> str:
    # Return what tells this start of this machine, or container, from others of its name. It is
    # empty without /proc.
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _start_of(pid: int) -> str | None:
    # Return when a process began, to recognize a reused number; None if it is gone. It is in clock
    # ticks since the machine's start, as text; "" without /proc.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    with (
        suppress(OSError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        # the 22nd field of all; the name in brackets, the second, may hold blanks
        return file.read().rpartition(")")[2].split()[19]
    return ""
