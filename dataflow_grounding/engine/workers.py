"""Tasks that work side by side: waited for, interrupted, cancelled, tried again.

Code that isn't async runs them with `run_blocking`.
"""

import asyncio
import copy
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, NoReturn, TypeVar

from dataflow_grounding._util.errors import MachineBusy, PlanError, RunStopped, concerns_all
from dataflow_grounding._util.loop_thread import LoopThread, are_alive, loop_thread, threads_of_call
from dataflow_grounding.engine.plan import Result

T = TypeVar("T")

GRACE_SECONDS = 5.0  # from a first interrupt until tasks are cancelled
# how long something is tried again that the machine is too short of something for
BUSY_SECONDS = 60.0
FIRST_PAUSE = 0.25  # seconds before it is tried again; each further pause is twice as long
LONGEST_PAUSE = 4.0
CANCEL_SECONDS = 1.0  # between two attempts to cancel a task
LOOK_SECONDS = 0.2  # between two looks of a waiting thread whether it is interrupted
THREADS_SECONDS = 1.0  # between two looks whether the threads of a call live


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


class Turns:
    """Lets all runs of the process do a piece of work one by one, such as a check."""

    def __init__(self) -> None:
        # The work that is done now, if any. It is done when the work is. Its result is the error
        # that the work raised, if that concerns all who ask the endpoint, else None.
        self._under_way: asyncio.Future[BaseException | None] | None = None

    @property
    def are_taken(self) -> bool:
        return self._under_way is not None

    async def take(
        self, is_wanted: Callable[[], bool], work: Callable[[], Awaitable[object]]
    ) -> None:
        """Do the work once nobody else does any, if it is still wanted then.

        Raises what `work` raises. If another's work failed meanwhile with an error that concerns
        all who ask the endpoint, raises that.
        """
        while is_wanted():
            if self._under_way is None:
                await self._do(work)
                return
            # shielded, so that cancelling this waiter doesn't cancel the other's work
            error_for_all = await asyncio.shield(self._under_way)
            if error_for_all is not None:
                # Each waiter raises a copy of its own, because raising adds its traceback.
                raise copy.copy(error_for_all)

    async def _do(self, work: Callable[[], Awaitable[object]]) -> None:
        under_way: asyncio.Future[BaseException | None]
        under_way = asyncio.get_running_loop().create_future()
        self._under_way = under_way
        error_for_all: BaseException | None = None
        try:
            await work()
        except BaseException as error:
            if concerns_all(error):
                error_for_all = error
            raise
        finally:
            self._under_way = None
            under_way.set_result(error_for_all)  # those who wait go on


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


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]], *signals: signal.Signals) -> T:
    """Run a coroutine on the process's loop to its end. One of the `signals`, or else an interrupt,
    cancels it, and is raised afterwards; a second interrupt isn't kept waiting.
    """
    ours = loop_thread()
    if threading.current_thread() is ours.thread:
        raise PlanError(
            "an operator or a serving is called in async code, which would wait for itself: write"
            " await asyncio.to_thread(operator, record)"
        )
    call = _Call(work, ours)
    ours.loop.call_soon_threadsafe(call.begin)  # in the caller's context
    try:
        if signals:
            with signals_to(call.interrupt, *signals):
                call.wait()
        else:
            with signals_to(_raise_interrupt, *_signals_of_own_loop()):
                call.wait()
    except BaseException:  # a second interrupt
        call.interrupt()
        raise
    try:
        if call.interrupted_by is not None and not call.has_own_error:
            raise call.interrupted_by
        return call.done.result()
    finally:
        del call  # its error holds this frame


def _raise_interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _signals_of_own_loop() -> list[signal.Signals]:
    """Return SIGINT where this thread's own loop has taken it, as under `asyncio.run`: that would
    cancel its task, but is blocked until the work has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return []
    is_ignored = signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN)
    return [] if is_ignored else [signal.SIGINT]


class _Call(Generic[T]):
    """Work on the process's loop, which another thread waits for, and may interrupt."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], ours: LoopThread) -> None:
        self._work = work
        self._ours = ours
        self._task: asyncio.Task[T] | None = None  # None before it begins
        self.done: Future[T] = Future()
        self.interrupted_by: BaseException | None = None

    def begin(self) -> None:
        self._task = asyncio.ensure_future(self._while_threads_live())
        self._task.add_done_callback(self._hand_over)

    def _hand_over(self, task: asyncio.Task[T]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.done.set_result(task.result())
        else:
            self.done.set_exception(error)

    def wait(self) -> None:
        while not self.done.done():
            try:
                # Ray's way of cancelling, `_thread.interrupt_main`, wakes no thread that waits.
                wait([self.done], LOOK_SECONDS)
            except BaseException as error:  # or what a user's own handler of a signal raises
                if self.interrupted_by is not None:
                    raise
                self.interrupt(error)

    def interrupt(self, why: BaseException | None = None) -> None:
        """Cancel the work; from any thread."""
        self.interrupted_by = why or KeyboardInterrupt()
        self._ours.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def has_own_error(self) -> bool:
        """Whether the work has raised an error as it ended: such as Interrupted, it says more."""
        error = self.done.exception()
        return error is not None and not isinstance(error, asyncio.CancelledError)

    async def _while_threads_live(self) -> T:
        """Do the work, unless memory runs out in a thread of it: then raise MemoryError.

        Such a thread may end between taking what it is to do and doing it. Nothing would ever tell
        the task that waits for that.
        """
        loop = self._ours.loop
        task = asyncio.current_task()
        assert task is not None
        threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
        threads_of_call.set(threads)
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            timer = loop.call_later(THREADS_SECONDS, look)
            if not are_alive(threads):
                task.cancel()

        timer = loop.call_later(THREADS_SECONDS, look)
        try:
            return await self._work()
        except BaseException:
            if not are_alive(threads):
                raise MemoryError("a thread ended for want of memory") from None
            raise
        finally:
            timer.cancel()
            threads.shutdown(wait=False)
