"""Runs a coroutine from code that is not async."""

import asyncio
import contextvars
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import NoneType
from typing import Any, TypeVar, cast

from dataflow_grounding.engine.workers import signals_to

T = TypeVar("T")


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also where an event loop is running.

    An interrupt cancels it and is waited for.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    return _in_thread(work)


def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread and an event loop of its own.

    It is waited for, whatever is raised here meanwhile.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    interrupted = False

    async def supervised() -> T:
        """Do the work, and note where it runs, so that `interrupt` can cancel it."""
        running.append(
            (asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task()))
        )
        if interrupted:
            raise asyncio.CancelledError
        return await work()

    def interrupt() -> None:
        """Cancel the work, now or as soon as it begins."""
        nonlocal interrupted
        interrupted = True
        for loop, task in running:
            with suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(task.cancel)

    ignored = signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN)
    # under `asyncio.run` it would cancel a task that waits for this thread
    caught = [] if ignored else [signal.SIGINT]
    with signals_to(interrupt, *caught), ThreadPoolExecutor(1) as thread:
        done = thread.submit(contextvars.copy_context().run, lambda: asyncio.run(supervised()))
        while not done.done():
            try:
                wait([done])
            except KeyboardInterrupt:
                # not by a signal: a notebook's way of stopping a cell from outside
                interrupt()
    if interrupted and isinstance(done.exception(), (asyncio.CancelledError, NoneType)):
        raise KeyboardInterrupt
    return done.result()
