"""Tasks that work side by side: how they are waited for, interrupted and cancelled, and wait for
the machine.
"""

import asyncio
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dataflow_grounding._util.errors import MachineBusy, RunStopped
from dataflow_grounding.engine.plan import Result

T = TypeVar("T")

GRACE_SECONDS = 5.0
# how long something is tried again that the machine is too short of something for
BUSY_SECONDS = 60.0


class Workers:
    """The tasks of one run: a first interrupt calls `stop` and cancels them soon after, a second
    one at once.
    """

    def __init__(self, stop: Callable[[], bool], grace: float = GRACE_SECONDS) -> None:
        self._stop, self._grace = stop, grace
        self._tasks: list[asyncio.Task[None]] = []
        # whether they have been cancelled. Until then, a CancelledError is somebody else's.
        self.cancelled = False
        # for the machine; when something was done last
        self._waiting, self._went_well = 0, time.monotonic()

    async def do(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Wait until all is done, come what may. Raises what the first of them raised that was not
        cancelled.
        """
        self._tasks += [asyncio.create_task(one) for one in work]
        while pending := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:  # the interrupt of a notebook, or of asyncio.run
                self.interrupt()
        # of all: none is left unheard
        found = [task.exception() for task in self._tasks if not task.cancelled()]
        for error in filter(None, found):
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
        """What `once` returns, tried again for a minute of MachineBusy. Raises RunStopped if
        nothing else moved.

        So a machine that is at its end is told from one file on it that can't be read.
        """
        since, pause = time.monotonic(), 0.25
        while (result := await once())[0] is None and isinstance(busy := result[1], MachineBusy):
            if time.monotonic() - since > BUSY_SECONDS:
                if self._waiting and self._went_well < since:
                    raise RunStopped(
                        f"{busy}, for {BUSY_SECONDS:g} s. Fix that, then run the same command again"
                    )
                return result
            self._waiting += 1
            try:
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            finally:
                self._waiting -= 1
            pause = min(2 * pause, 4.0)
        self._went_well = time.monotonic()
        return result


async def all_done(work: Iterable[Awaitable[T]]) -> list[T]:
    """What each returns, once all have ended: none is left at work. Raises what the first raised
    that failed.
    """
    found = await asyncio.gather(*work, return_exceptions=True)
    for error in found:
        if isinstance(error, BaseException):
            raise error
    return [one for one in found if not isinstance(one, BaseException)]


@contextmanager
def beside(work: Callable[[threading.Event], None], wait: float | None = None) -> Iterator[None]:
    """Within it a thread does `work` until the event is set that it is given; `wait` seconds at
    most at the end.
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
    """Within it these signals call `interrupt`, if this is the main thread; else they do what they
    did before.
    """
    here = threading.current_thread() is threading.main_thread()
    before = {one: signal.signal(one, lambda *_: interrupt()) for one in which if here}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
