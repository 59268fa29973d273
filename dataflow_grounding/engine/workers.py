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
from typing import Any, Generic, TypeVar

from dataflow_grounding._util.errors import MachineBusy, RunStopped
from dataflow_grounding.engine.plan import Result

T = TypeVar("T")

GRACE_SECONDS = 5.0  # from a first interrupt until tasks are cancelled
# how long something is tried again that the machine is too short of something for
BUSY_SECONDS = 60.0
FIRST_PAUSE = 0.25  # seconds before it is tried again; each further pause is twice as long
LONGEST_PAUSE = 4.0
CANCEL_SECONDS = 1.0  # between two attempts to cancel a task
THREADS_SECONDS = 1.0  # between two looks whether the threads of an event loop live


class Workers:
    """The tasks of one run."""

    grace = GRACE_SECONDS

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        # whether they have been cancelled: before that, a CancelledError is an operator's own
        self.cancelled = False
        self._waiting = 0  # how many tasks wait until the machine has room
        # when an attempt last ended in anything but MachineBusy, by the process's clock
        self._went_well_at = time.monotonic()

    async def do(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Run all to their ends, then raise the first error, but no cancellation."""
        # tasks of earlier calls are done by now
        self._tasks += [asyncio.create_task(coroutine) for coroutine in work]
        while pending := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:  # the interrupt of a notebook, or of asyncio.run
                self.interrupt()
        # All are looked at before the first is raised: asyncio complains about the others.
        errors = [task.exception() for task in self._tasks if not task.cancelled()]
        for error in errors:
            if error is not None:
                raise error

    def interrupt(self) -> None:
        """End the tasks, as the user or the system wants: soon, or at once."""
        if self.may_finish():
            asyncio.get_running_loop().call_later(self.grace, self.cancel)
        else:
            self.cancel()

    def may_finish(self) -> bool:
        """Return whether tasks have `grace` seconds left at an interrupt."""
        return False

    def cancel(self) -> None:
        self.cancelled = True
        for task in self._tasks:
            task.cancel()

    async def until_done(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return what an attempt returns; while that is MachineBusy, try for BUSY_SECONDS."""
        since = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            columns, error = await attempt()
            if columns is not None or not isinstance(error, MachineBusy):
                self._went_well_at = time.monotonic()
                return columns, error
            if time.monotonic() - since > BUSY_SECONDS:
                do_others_wait = self._waiting > 0
                has_one_gone_well = self._went_well_at >= since
                if do_others_wait and not has_one_gone_well:  # the machine is at its end
                    raise RunStopped(
                        f"{error}, for {BUSY_SECONDS:g} s. Fix that, then run the same command"
                        " again"
                    )
                return columns, error  # the record fails: its file alone may be at fault
            self._waiting += 1
            try:
                # by lot, so that those who wait don't all come back at once
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            finally:
                self._waiting -= 1
            pause = min(2 * pause, LONGEST_PAUSE)


async def all_done(work: Iterable[Awaitable[T]]) -> list[T]:
    """Return what each returns, in order, once all have ended; the first error is raised then."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):  # `gather` returns errors among the results
            raise outcome
        results.append(outcome)
    return results


@contextmanager
def in_background(
    work: Callable[[threading.Event], None], wait: float | None = None
) -> Iterator[None]:
    """Have a thread do `work` while the block runs, until the event that it is given is set."""
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
    """Have these signals call `interrupt` while the block runs, if this is the main thread."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # Python lets no other set them
        for number in which:
            before[number] = signal.signal(number, lambda *_: interrupt())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, and wait until each has ended; what they raise is passed over."""
    tasks = list(tasks)
    pending = set(tasks)
    while pending:
        # A task that is still there after a while is cancelled again: before Python 3.12,
        # `asyncio.wait_for` drops a cancellation that comes just as what it waits for is done.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
    # asyncio complains of errors that nobody asked for
    await asyncio.gather(*tasks, return_exceptions=True)


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; an interrupt cancels it, and is raised afterwards."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_while_threads_live(work))
    return _in_thread(work)


async def _while_threads_live(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work, unless memory runs out in a thread of the loop: then raise MemoryError.

    Such a thread may end between taking what it is to do and doing it. Nothing would ever tell the
    task that waits for that.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    is_lost = False

    async def watch() -> None:
        nonlocal is_lost
        while True:
            await asyncio.sleep(THREADS_SECONDS)
            # Until the executor is shut down, no thread of it ends by itself.
            if all(thread.is_alive() for thread in executor._threads):
                continue
            if not is_lost:
                is_lost = True
                # what the work does as it ends may need threads
                loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work()
    except BaseException:
        if is_lost:
            raise MemoryError("a thread ended for want of memory") from None
        raise
    finally:
        watching.cancel()


class _OwnLoop(Generic[T]):
    """Work in a new event loop, which another thread may interrupt."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None  # None before it begins
        self._task: asyncio.Task[Any] | None = None
        self.is_interrupted = False

    def run(self) -> T:
        return asyncio.run(self._supervised())

    async def _supervised(self) -> T:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()  # noted last: `interrupt` needs both
        if self.is_interrupted:
            raise asyncio.CancelledError
        return await _while_threads_live(self._work)

    def interrupt(self) -> None:
        """Cancel the work, now or as soon as it begins; from any thread."""
        self.is_interrupted = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._task.cancel)


def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work in a thread, because this one has a loop, which can't run another."""
    own_loop = _OwnLoop(work)
    is_ignored = signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN)
    # Under `asyncio.run`, SIGINT asks this thread's loop to cancel its task. That loop is blocked
    # until the work has ended, so it would come too late: the signal is caught here instead.
    caught = [] if is_ignored else [signal.SIGINT]
    with signals_to(own_loop.interrupt, *caught), ThreadPoolExecutor(1) as thread:
        done = thread.submit(contextvars.copy_context().run, own_loop.run)
        while not done.done():
            try:
                wait([done])
            except KeyboardInterrupt:
                # not by a signal: a notebook's way of stopping a cell from outside
                own_loop.interrupt()
    error = done.exception()
    has_own_error = error is not None and not isinstance(error, asyncio.CancelledError)
    # an error that the work has raised as it ended, such as Interrupted, says more
    if own_loop.is_interrupted and not has_own_error:
        raise KeyboardInterrupt
    return done.result()
