"""One run at a time in a folder: `flock`, or a file that is touched where no system call locks.

To touch a file is to set its time to now. A file that was touched lately shows that a run is alive.
"""

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
from dataflow_grounding._util.files import open_log
from dataflow_grounding.data import bucket
from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.engine.workers import in_background

YOUNG_SECONDS = 60.0
"""For how long after it was touched a lock file keeps others out."""
TOUCH_SECONDS = 5.0  # between two touches
LOOK_SECONDS = 1.0  # after which a run looks whether another one has written the lock file, too
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
            # Any other error: this file system, such as NFS or FUSE, keeps no locks. Then a file
            # that is touched takes the lock's place.
            held.enter_context(_touched(os.path.join(folder, "lock.touched"), lock, folder))
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
def _touched(path: str, clock_file: int, folder: str) -> Iterator[None]:
    """Hold a lock by a file that has a mark of this run, and is touched while the block runs."""
    mark = token_hex(8).encode()
    with errors_as(InputError, f"can't write {path}", again=True):
        _refuse_if_young(path, clock_file)
        write_bytes(path, mark, alone=False)
        # Other runs may have found no young file, either. The last of them to write wins.
        time.sleep(LOOK_SECONDS)
        if Path(path).read_bytes() != mark:
            raise FolderTaken(f"another run began just now ({path}): wait for it to end")
    try:
        with in_background(partial(_touch, path, mark, folder), wait=TOUCH_SECONDS):
            yield
    finally:
        with suppress(OSError):
            if Path(path).read_bytes() == mark:
                os.unlink(path)


def _refuse_if_young(path: str, clock_file: int) -> None:
    """Raise FolderTaken where the lock file was touched lately, by the folder's clock."""
    # The clocks of machines differ. So another open file of the folder is touched now, which tells
    # the file system's time.
    os.utime(clock_file)
    with suppress(FileNotFoundError):
        age = os.fstat(clock_file).st_mtime - os.stat(path).st_mtime
        if age < YOUNG_SECONDS:
            raise FolderTaken(
                f"another run is working there: it touched {path} {max(age, 0):.0f} s ago. If it"
                f" was killed, begin {YOUNG_SECONDS:.0f} s after that"
            )


def _touch(path: str, mark: bytes, folder: str, ended: threading.Event) -> None:
    """Touch the file until the block has ended, or another run's mark is in it."""
    while not ended.wait(TOUCH_SECONDS):
        with suppress(OSError):  # the next time may get through
            if Path(path).read_bytes() != mark:
                lose(folder)
                return
            os.utime(path)
