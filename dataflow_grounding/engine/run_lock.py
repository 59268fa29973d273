"""One run at a time in a folder; elsewhere, where no system call keeps a lock, a file with a heartbeat does."""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import Any

from dataflow_grounding.engine.workers import beside
from dataflow_grounding.errors import FolderTaken, InputError, StorageFailed, told_as
from dataflow_grounding.mirror import CKPT, Mirror
from dataflow_grounding.terminal import say

BEAT_SECONDS = 5.0  # how often a lock without the system's help shows that its run is alive
DEAD_SECONDS = 30.0  # how long it may show nothing before the run behind it, on another machine, is taken for dead
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_LOST = "lock.lost"  # in `.ckpt` of this machine: another run has taken over elsewhere


@contextmanager
def only_run(folder: str) -> Iterator[None]:
    """Hold the lock of a checkpoint folder. The system releases it however the process ends; on file systems without
    `flock` (NFS without a lock daemon, FUSE, object stores) a file with host, process and a heartbeat takes its place.

    Raises:
        FolderTaken: Another run holds it.
        InputError: The folder can't be written.
    """
    import fcntl

    with told_as(InputError, f"can't write in {folder}"):
        os.makedirs(folder, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _at_work(folder) from None
            with _held_by_file(folder):
                yield
        else:
            yield
    finally:
        os.close(lock)


def _at_work(folder: str, whose: str = "") -> FolderTaken:
    return FolderTaken(f"another run is working in {os.path.dirname(folder) or '.'}{whose}: wait for it to end")


@contextmanager
def _held_by_file(folder: str) -> Iterator[None]:
    path = os.path.join(folder, "lock.held")
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid())})
    while not _create(path, mine):
        holder = _read(path)
        if holder is not None and _lives(path, holder):
            raise _at_work(folder, f" ({holder.get('host')}, process {holder.get('pid')})")
        _remove_dead(path, holder)
    try:
        with beside(partial(_beat, path)):
            yield
    finally:
        with suppress(OSError):
            os.remove(path)


def _create(path: str, text: str) -> bool:
    """Make the file unless it is there. Raises InputError where it can't be made at all."""
    with told_as(InputError, f"can't write {path}"), suppress(FileExistsError):
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
        return True
    return False


def _read(path: str) -> dict[str, object] | None:
    """What the holder says of itself; {} where it says nothing that can be read, None where it is gone."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
            return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def _lives(path: str, holder: dict[str, object]) -> bool:
    """Whether the run behind a lock is alive: by its process on this machine, by its heartbeat on another."""
    pid = holder.get("pid")
    if holder.get("host") == socket.gethostname() and isinstance(pid, int):
        return _start_of(pid) is not None and _start_of(pid) == holder.get("started")
    say(f"The lock {path} belongs to another machine: checking whether its run is alive")
    before = _changed(path)
    until = time.monotonic() + DEAD_SECONDS  # no clock but ours is asked: that of a file server may be off
    while time.monotonic() < until:
        time.sleep(min(BEAT_SECONDS / 5, DEAD_SECONDS / 5))
        if _changed(path) != before:
            return _changed(path) is not None
    return False


def _changed(path: str) -> int | None:
    with suppress(OSError):
        return os.stat(path).st_mtime_ns
    return None


def _start_of(pid: int) -> str | None:
    """When a process began, in the system's own unit, so that a reused number is told apart; None if it is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""  # no /proc here: alive is all that is known


def _remove_dead(path: str, holder: dict[str, object] | None) -> None:
    """Take a dead run's lock away, and put it back if it was another's that came in between."""
    aside = f"{path}.{os.getpid()}.{threading.get_ident()}"
    with suppress(OSError):
        os.rename(path, aside)
        if _read(aside) != holder:
            os.link(aside, path)
        os.remove(aside)


def _beat(path: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


class StoreLock:
    """`.ckpt/lock-{n}` there, of which the highest counts. Whoever makes the next one, and only one can, holds it."""

    def __init__(self, mirror: Mirror, part: str) -> None:
        self._mirror, self._part, self._folder = mirror, part, os.path.join(part, CKPT)
        self._mine = {"host": socket.gethostname(), "id": mirror.id, "claim": token_hex(8)}
        self._number = 0

    def take(self) -> None:
        """Raises InputError where another run holds it; OSError."""
        number = max(self._numbers(), default=0)
        while True:
            if number:
                self._wait_for(number)
            self._number = number = number + 1
            self._write("create")
            if self._holder(number).get("claim") == self._mine["claim"]:  # also where no answer came to who made it
                latest = max(self._numbers(), default=number)
                if latest <= number:
                    break
                number = latest  # this one slept, and others came and went
        with suppress(OSError):
            os.remove(self._mirror.here(self._folder, _LOST))
        for old in self._numbers():
            if old < number - 1:  # the one before stays, for whoever lists late
                self._mirror.ask(self._name(old), lambda system, there: system.rm_file(there))

    def beat(self, ended: threading.Event) -> None:
        """Show now and then that this run is alive, until it ends; and leave a mark where another has taken over."""
        beats = 0
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # the next may get through
                if self._holder(self._number + 1) and not ended.is_set():
                    return open(self._mirror.here(self._folder, _LOST), "w").close()
                self._write(beats=(beats := beats + 1))
        return None

    def release(self) -> None:
        """Let others have it, if that can be said now."""
        with suppress(OSError):
            self._write(free=True)

    def _wait_for(self, number: int) -> None:
        """Raises InputError where the run of a lock is alive."""
        holder, mirror = self._holder(number), self._mirror
        mirror.known.add(str(holder.get("id")))
        if holder.get("free") or holder.get("id") == mirror.id:  # whose lock on this machine is ours now
            return
        say(f"{mirror.address} is locked: looking for {DEAD_SECONDS:.0f} s whether its run is alive")
        until = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < until:
            time.sleep(DEAD_SECONDS / 30)
            if (now := self._holder(number)) != holder and not now.get("free"):
                whose = f"{mirror.address}/{self._part}".rstrip("/") + f" ({holder.get('host')})"
                raise InputError(f"another run is working in {whose}: wait for it to end")

    def _name(self, number: int) -> str:
        return os.path.join(self._folder, f"lock-{number}")

    def _numbers(self) -> list[int]:
        names = (name.removeprefix("lock-") for name in self._mirror.listed(self._folder))
        return [int(name) for name in names if name.isdecimal()]

    def _holder(self, number: int) -> dict[str, Any]:
        """What a lock says; nothing where that can't be read, or without one."""
        with suppress(ValueError):
            return dict(json.loads(self._mirror.read(self._name(number))))
        return {}

    def _write(self, mode: str = "overwrite", **said: Any) -> None:
        self._mirror.write(self._name(self._number), json.dumps({**self._mine, **said}).encode(), mode)


def check_held(folder: str) -> None:
    """Raises StorageFailed where another run has taken over what a checkpoint folder stands for."""
    if os.path.exists(os.path.join(folder, _LOST)):
        raise StorageFailed("another run has taken over, as nothing was heard of this one; its replies are kept")


@contextmanager
def held_elsewhere(mirror: Mirror, part: str) -> Iterator[None]:
    """Hold the lock of a part of a folder elsewhere. Raises InputError, also for results that are not of a run."""
    lock = StoreLock(mirror, part)
    with told_as(InputError, f"can't write {mirror.address}", again=True):
        foreign = {"annotations.jsonl", "run.json"}.intersection(mirror.listed(part))
        if foreign and CKPT not in mirror.listed(part, "directory"):
            what = os.path.join(mirror.address, part, min(foreign))
            raise InputError(f"{what} is from elsewhere, without {CKPT} beside it: choose another folder")
        lock.take()
    try:
        with beside(lock.beat, BEAT_SECONDS):
            yield
    finally:
        lock.release()
