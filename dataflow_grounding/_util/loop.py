"""The event loop of the process, in a thread of its own: all requests are sent there.

It begins when it is first needed, and goes on from call to call, with its connections. A forked
process begins one of its own.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from dataflow_grounding._util.errors import InputError

T = TypeVar("T")

NO_THREAD = (
    "this machine can't start a thread: give it more memory (ulimit -v) or tasks (ulimit -u)"
)
IDLE_THREADS = 4  # calls whose threads are kept for later calls
END_SECONDS = 1.0  # for closing connections at the process's end


class CallThreads:
    """The threads of a call. A call that is made in one of them has others: those of one pool might
    all wait for calls that need them.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.executor = ThreadPoolExecutor(thread_name_prefix="asyncio")

    @property
    def are_alive(self) -> bool:
        # until an executor is shut down, no thread of it ends by itself
        return all(thread.is_alive() for thread in self.executor._threads)


_threads: ContextVar[CallThreads] = ContextVar("threads")  # of the present call


class _ThreadsOfCalls(ThreadPoolExecutor):
    """The loop's executor, which hands over to the call's."""

    def submit(self, work: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        of_call = _threads.get(None)
        if of_call is None:  # a serving is asked outside of any call
            return super().submit(work, *arguments, **keywords)
        return of_call.executor.submit(work, *arguments, **keywords)


class LoopThread:
    """An event loop in a thread, with what is kept open there from call to call."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_ThreadsOfCalls())
        self.kept: dict[int, _Kept] = {}  # by the id of its owner
        self._calls = 0  # that are at work
        self._idle_threads: list[CallThreads] = []
        # a daemon: Python's end doesn't wait for it
        self.thread = threading.Thread(target=self._run, name="dataflow-grounding", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            raise InputError(NO_THREAD) from None

    def _run(self) -> None:
        is_over = False
        while not is_over:
            # A task that raises SystemExit ends `run_forever`, too: who waits for it gets that.
            with suppress(BaseException):
                self.loop.run_forever()
                is_over = True  # by `end`

    @contextmanager
    def threads_of_call(self) -> Iterator[CallThreads]:
        """Have the block use threads of its own: an earlier call's, where there are idle ones."""
        threads = self._idle_threads.pop() if self._idle_threads else CallThreads()
        _threads.set(threads)
        self._calls += 1
        try:
            yield threads
        finally:
            self._calls -= 1
            if len(self._idle_threads) < IDLE_THREADS:
                self._idle_threads.append(threads)
            else:
                threads.executor.shutdown(wait=False)

    def end(self) -> None:
        """Close connections at the process's end, without a word."""
        if self._calls:  # in daemon threads, which nobody waits for: they end where they are
            return
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._close_all(), self.loop).result(END_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(END_SECONDS)
        if not self.thread.is_alive():
            self.loop.close()

    async def _close_all(self) -> None:
        while self.kept:
            _, kept = self.kept.popitem()
            await kept.closed()


class _Kept(NamedTuple):
    thing: Any
    close: Callable[[Any], Awaitable[None]] | None

    async def closed(self) -> None:
        if self.close is not None:
            with suppress(Exception):
                await self.close(self.thing)


_lock = threading.Lock()
_of_process: LoopThread | None = None


def loop_thread() -> LoopThread:
    """Return the process's loop, which begins where it hasn't."""
    global _of_process
    ours = _of_process
    if ours is None:
        with _lock:  # several threads may ask for it at once
            if _of_process is None:
                _of_process = LoopThread()
                atexit.register(_end, _of_process)
            ours = _of_process
    return ours


def _end(ours: LoopThread) -> None:
    global _of_process
    if ours is _of_process:  # else it is the one of a process that this one was forked from
        _of_process = None
        ours.end()


def _forget_in_fork() -> None:
    global _of_process, _lock
    if _of_process is not None:
        import ctypes  # which nothing else needs

        # Never cleared away: that would close connections which are the parent's, too.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_of_process))
    _of_process = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)


async def on_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work on the process's loop: connections and locks work in one loop only."""
    loop = loop_thread().loop
    if asyncio.get_running_loop() is loop:
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


def kept_open(
    owner: object, make: Callable[[], T], close: Callable[[T], Awaitable[None]] | None = None
) -> T:
    """Return what is kept on the process's loop for an owner. It is closed once the owner is gone,
    or at the process's end. Called on the loop.
    """
    ours = loop_thread()
    if id(owner) not in ours.kept:
        ours.kept[id(owner)] = _Kept(make(), close)
        weakref.finalize(owner, _let_go, ours, id(owner)).atexit = False
    thing: T = ours.kept[id(owner)].thing
    return thing


def _let_go(ours: LoopThread, owner: int) -> None:
    if ours is _of_process:
        asyncio.run_coroutine_threadsafe(ours.kept.pop(owner).closed(), ours.loop)
