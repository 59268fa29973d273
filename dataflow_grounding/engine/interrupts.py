"""Ctrl-C and SIGTERM while a run is at work."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

GRACE_SECONDS = 5.0


@contextmanager
def interrupts(stop: Callable[[], bool], cancel: Callable[[], None]) -> Iterator[None]:
    """The first signal calls `stop`, and `cancel` a few seconds later; the second, or one after another stop, `cancel` at once.

    `stop` returns whether the run was still going on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop():
            loop.call_later(GRACE_SECONDS, cancel)
        else:
            cancel()

    caught = []
    for which in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError):
            before = signal.getsignal(which)
            loop.add_signal_handler(which, interrupt)
            caught.append((which, before))
    try:
        yield
    finally:
        for which, before in caught:
            loop.remove_signal_handler(which)
            signal.signal(which, before)
