"""One run at a time in a folder elsewhere, where no system call keeps a lock: a file with a heartbeat does."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from dataflow_grounding.errors import InputError, StorageFailed
from dataflow_grounding.mirror import CKPT, Mirror, told
from dataflow_grounding.terminal import say

BEAT_SECONDS = 5.0  # how often a lock shows that its run is alive
DEAD_SECONDS = 30.0  # how long it may show nothing before its run is taken for dead
_LOST = "lock.lost"  # in `.ckpt` of this machine: another run has taken over


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
                if self._holder(self._number + 1):
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
    lock, ended = StoreLock(mirror, part), threading.Event()
    with told(InputError, f"can't write {mirror.address}"):
        foreign = {"annotations.jsonl", "run.json"}.intersection(mirror.listed(part))
        if foreign and CKPT not in mirror.listed(part, "directory"):
            what = os.path.join(mirror.address, part, min(foreign))
            raise InputError(f"{what} is from elsewhere, without {CKPT} beside it: choose another folder")
        lock.take()
    beating = threading.Thread(target=lock.beat, args=[ended], daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join(BEAT_SECONDS)
        lock.release()
