"""Tasks that work side by side: waited for, interrupted, cancelled, tried again.

Code that isn't async runs them with `run_blocking`.
"""

import asyncio
import contextvars
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import NoneType
from typing import Any, TypeVar, cast

from dataflow_grounding._util.errors import MachineBusy, RunStopped
from dataflow_grounding.engine.plan import Result

T = TypeVar("T")

GRACE_SECONDS = 5.0
# how long something is tried again that the machine is too short of something for
BUSY_SECONDS = 60.0


class Workers:
    """The tasks of one run.

    A first interrupt calls `stop` and cancels them soon after, a second one at once.
    """

    def __init__(self, stop: Callable[[], bool], grace: float = GRACE_SECONDS) -> None:
        self._stop = stop
        self._grace = grace
        self._tasks: list[asyncio.Task[None]] = []
        # whether they have been cancelled. Until then, a CancelledError is somebody else's.
        self.cancelled = False
        self._waiting = 0  # how many wait for the machine
        self._went_well = time.monotonic()  # when something was done last

    async def do(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Begin all coroutines at once, and wait until each has ended, come what may.

        Then raises the first error, in their order, of those that weren't cancelled.
        """
        self._tasks += [asyncio.create_task(coroutine) for coroutine in work]
        while pending := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:  # the interrupt of a notebook, or of asyncio.run
                self.interrupt()
        # of all, before the first is raised: asyncio complains of those that nobody asked for
        errors = [task.exception() for task in self._tasks if not task.cancelled()]
        for error in errors:
            if error is not None:
                raise error

    def interrupt(self) -> None:
        """The user, or the system, wants them to end."""
        if self._stop():
            asyncio.get_running_loop().call_later(self._grace, self.cancel)
        else:
            self.cancel()

    def cancel(self) -> None:
        """End them wherever they are."""
        self.cancelled = True
        for task in self._tasks:
            task.cancel()

    async def until_done(self, once: Callable[[], Awaitable[Result]]) -> Result:
        """What `once` returns, tried again for a minute of MachineBusy.

        Raises RunStopped if nothing else moved in that time. So a machine that is at its end is
        told from one file on it that can't be read.
        """
        since = time.monotonic()
        pause = 0.25
        while True:
            result = await once()
            columns, error = result
            if columns is not None or not isinstance(error, MachineBusy):
                self._went_well = time.monotonic()
                return result
            if time.monotonic() - since > BUSY_SECONDS:
                if self._waiting and self._went_well < since:
                    raise RunStopped(
                        f"{error}, for {BUSY_SECONDS:g} s. Fix that, then run the same command"
                        " again"
                    )
                return result
            self._waiting += 1
            try:
                # by lot, so that those who wait don't all come back at once
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            finally:
                self._waiting -= 1
            pause = min(2 * pause, 4.0)


async def all_done(work: Iterable[Awaitable[T]]) -> list[T]:
    """Return what each returns, in order, once all have ended: none is left at work.

    Where any failed, the first one's error is raised then.
    """
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


@contextmanager
def beside(work: Callable[[threading.Event], None], wait: float | None = None) -> Iterator[None]:
    """Within it a thread does `work`, until the event is set that it is given.

    At the end it is waited for, `wait` seconds at most.
    """
    over = threading.Event()
    thread = threading.Thread(target=work, args=[over], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(wait)


@contextmanager
def signals_to(interrupt: Callable[[], object], *which: signal.Signals) -> Iterator[None]:
    """Within it these signals call `interrupt`, if this is the main thread.

    Else they do what they did before: Python lets no other thread change that.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in which:
            before[number] = signal.signal(number, lambda *_: interrupt())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
