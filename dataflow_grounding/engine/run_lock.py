"""One run at a time in a folder."""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dataflow_grounding.errors import FolderTaken, InputError
from dataflow_grounding.terminal import say

BEAT_SECONDS = 5.0  # how often a lock without the system's help shows that its run is alive
DEAD_SECONDS = 30.0  # how long it may show nothing before the run behind it, on another machine, is taken for dead
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def only_run(folder: str) -> Iterator[None]:
    """Hold the lock of a checkpoint folder. The system releases it however the process ends; on file systems without
    `flock` (NFS without a lock daemon, FUSE, object stores) a file with host, process and a heartbeat takes its place.

    Raises:
        FolderTaken: Another run holds it.
        InputError: The folder can't be written.
    """
    import fcntl

    try:
        os.makedirs(folder, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(f"can't write in {folder}: {error.strerror or error}") from None
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
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with suppress(OSError):
            os.remove(path)


def _create(path: str, text: str) -> bool:
    """Make the file unless it is there. Raises InputError where it can't be made at all."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}") from None
    return True


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
