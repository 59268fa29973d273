"""Runs a coroutine from code that is not async."""

import asyncio
import contextvars
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import NoneType
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run_blocking(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end, also where an event loop is running; an interrupt cancels it and is waited for."""

    async def main() -> T:
        return await work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    return _in_thread(main)


def _in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread and an event loop of its own, and wait for it, whatever is raised here meanwhile."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    interrupted = False

    async def supervised() -> T:
        running.append((asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())))
        if interrupted:
            raise asyncio.CancelledError
        return await main()

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        for loop, task in running:
            with suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(task.cancel)

    with _ctrl_c(interrupt), ThreadPoolExecutor(1) as thread:
        work = thread.submit(contextvars.copy_context().run, lambda: asyncio.run(supervised()))
        while not work.done():
            try:
                wait([work])
            except KeyboardInterrupt:  # not by a signal: a notebook's way of stopping a cell from outside
                interrupt()
    if interrupted and isinstance(work.exception(), (asyncio.CancelledError, NoneType)):
        raise KeyboardInterrupt
    return work.result()


@contextmanager
def _ctrl_c(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `interrupt`: under `asyncio.run` it would else cancel a task that waits for this very thread."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield
        return

    signal.signal(signal.SIGINT, lambda number, frame: interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
