"""Runs a coroutine from code that is not async."""

import asyncio
import contextvars
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Generic, TypeVar

T = TypeVar("T")


def run_blocking(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end, also where an event loop is running; an interrupt cancels it and is waited for."""

    async def main() -> T:
        return await work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    return _InThread(main).run()


class _InThread(Generic[T]):
    """One coroutine, in a thread and an event loop of its own."""

    def __init__(self, main: Callable[[], Awaitable[T]]) -> None:
        self._main = main
        self._ended = threading.Event()
        self._result: list[T] = []
        self._failure: BaseException | None = None
        self._interrupted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self) -> T:
        """Wait for it, whatever is raised here meanwhile."""
        context = contextvars.copy_context()
        with _ctrl_c(self._interrupt):
            threading.Thread(target=lambda: context.run(self._work)).start()
            while not self._ended.is_set():
                try:
                    self._ended.wait()
                except KeyboardInterrupt:  # not by a signal: a notebook's way of stopping a cell from outside
                    self._interrupt()
        if self._interrupted and (self._failure is None or isinstance(self._failure, asyncio.CancelledError)):
            raise KeyboardInterrupt
        if self._failure is not None:
            raise self._failure
        return self._result[0]

    def _work(self) -> None:
        try:
            asyncio.run(self._supervised())
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    async def _supervised(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._interrupted:
            raise asyncio.CancelledError
        self._result.append(await self._main())

    def _interrupt(self) -> None:
        self._interrupted = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._task.cancel)


@contextmanager
def _ctrl_c(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `interrupt`: under `asyncio.run` it would else cancel a task that waits for this very thread."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
