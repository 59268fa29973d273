"""One run at a time in a folder: `flock`, or a claim in it where no system call locks."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from dataflow_grounding._util.errors import FolderTaken, InputError, TakenOver, errors_as
from dataflow_grounding._util.files import open_log, write_bytes
from dataflow_grounding.bucket import bucket
from dataflow_grounding.engine.workers import in_background

LOOK_SECONDS = 0.5  # between two looks of a run whether its claim is there
CLAIM_SECONDS = 3.0  # so long a run that begins waits for another one to put its claim back
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # `flock` failed as another holds the lock
_handles: set[int] = set()  # open files of this process that are locked
_lost: set[str] = set()  # checkpoint folders of this process that another run has taken over


@contextmanager
def only_run(folder: str) -> Iterator[None]:
    """Hold the lock of a checkpoint folder; raises FolderTaken where another run holds it."""
    import fcntl

    with errors_as(InputError, f"can't write in {folder}"):
        os.makedirs(folder, exist_ok=True)
        lock = open_log(os.path.join(folder, "lock"))
    results = os.path.dirname(folder) or "."
    with ExitStack() as held:
        _handles.add(lock)  # from here on it is closed, however the block ends
        held.callback(_release, lock)
        try:
            # the system releases this lock however the process ends
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise FolderTaken(
                    f"another run is working in {results}: wait for it to end"
                ) from None
            # Any other error: this file system, such as NFS or FUSE, keeps no locks.
            held.enter_context(_claimed(os.path.join(folder, "claim"), folder))
        _lost.discard(folder)  # an earlier run of this process may have lost it
        yield


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Hold the lock of a checkpoint folder, as `only_run` does, and of the bucket that it is of."""
    with only_run(folder), bucket.in_step(folder, partial(lose, folder)):
        yield


def _release(lock: int) -> None:
    import fcntl

    if lock not in _handles:  # in a fork: the lock is its parent's
        return
    _handles.discard(lock)
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _close_in_fork() -> None:
    """Close the locks: a fork that outlives this process would keep them."""
    for lock in _handles:
        os.close(lock)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def lose(folder: str) -> None:
    """Note that another run has taken a folder over: `check_held` then stops this one."""
    _lost.add(folder)


def check_held(folder: str) -> None:
    """Raise TakenOver where another run has taken the folder over."""
    if folder in _lost:
        raise TakenOver.of(os.path.dirname(folder) or ".")


@contextmanager
def _claimed(path: str, folder: str) -> Iterator[None]:
    """Hold a lock by a claim in a file: who holds it puts that back in place of one that begins."""
    begins, holds = (f"{token_hex(8)} {what}".encode() for what in ("begins", "holds"))
    with errors_as(InputError, f"can't write {path}", again=True):
        write_bytes(path, begins, alone=False)
        time.sleep(CLAIM_SECONDS)
        if Path(path).read_bytes() != begins:
            raise FolderTaken(
                f"another run is working in {os.path.dirname(folder) or '.'}: wait for it to end"
            )
        write_bytes(path, holds, alone=False)
    try:
        with in_background(partial(_keep, path, holds, folder), wait=LOOK_SECONDS):
            yield
    finally:
        with suppress(OSError):
            if Path(path).read_bytes() == holds:
                os.unlink(path)


def _keep(path: str, holds: bytes, folder: str, ended: threading.Event) -> None:
    """Put the claim back in place of one that begins, until the block has ended; note that it was
    lost where another run holds the folder: this process must have slept.
    """
    while not ended.wait(LOOK_SECONDS):
        with suppress(OSError):  # the next time may get through
            there = Path(path).read_bytes()
            if there.endswith(b"begins"):
                write_bytes(path, holds, alone=False)
            elif there != holds:
                lose(folder)
                return
