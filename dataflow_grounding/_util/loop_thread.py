"""The event loop of the process, in a thread of its own: all requests are sent there.

It begins when it is first needed, and goes on from call to call, with its connections. A forked
process begins one of its own. A process that ends leaves the thread as it is: so nothing complains
of open connections, which end with the process.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.threads import NO_THREAD

T = TypeVar("T")
P = ParamSpec("P")

threads_of_call: ContextVar[ThreadPoolExecutor] = ContextVar("threads_of_call")
"""Each call has threads of its own. A call that is made in one of them would else wait for a thread
that waits for such a call.
"""


def are_alive(threads: ThreadPoolExecutor) -> bool:
    """Return whether no thread has ended, as one does for want of memory."""
    return all(thread.is_alive() for thread in threads._threads)


class _ThreadsOfCalls(ThreadPoolExecutor):
    """The loop's executor: hands over to the call's."""

    def submit(self, work: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        threads = threads_of_call.get(None)
        if threads is None:
            return super().submit(work, *arguments, **keywords)
        return threads.submit(work, *arguments, **keywords)


class LoopThread:
    """An event loop in a thread, with what is kept open there from call to call."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_ThreadsOfCalls())
        self.kept: dict[int, Any] = {}  # by the id of its owner
        self.thread = threading.Thread(target=self._run, name="dataflow-grounding", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            raise InputError(NO_THREAD) from None

    def _run(self) -> None:
        while True:
            # A task that raises SystemExit ends `run_forever`: who waits for it gets that.
            with suppress(BaseException):
                self.loop.run_forever()


_lock = threading.Lock()
_of_process: LoopThread | None = None


def loop_thread() -> LoopThread:
    """Return the process's loop, which begins where it hasn't."""
    global _of_process
    with _lock:  # several threads may ask for it at once
        if _of_process is None:
            _of_process = LoopThread()
        return _of_process


def _forget_in_fork() -> None:
    """The parent's loop is never cleared away, which would close its connections, too: the thread
    that has it isn't there any more, and so never lets go of it.
    """
    global _of_process, _lock
    _of_process = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)


def on_loop(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a coroutine run on the process's loop: connections and locks work in one loop only."""

    @wraps(work)
    async def done_there(*arguments: P.args, **keywords: P.kwargs) -> T:
        loop = loop_thread().loop
        if asyncio.get_running_loop() is loop:
            return await work(*arguments, **keywords)
        done = asyncio.run_coroutine_threadsafe(work(*arguments, **keywords), loop)
        return await asyncio.wrap_future(done)

    return done_there


def kept_open(owner: object, make: Callable[[], T]) -> T:
    """Return what is kept on the process's loop for an owner. It is closed once the owner is gone,
    if it has an `aclose`. Called on the loop.
    """
    ours = loop_thread()
    if id(owner) not in ours.kept:
        ours.kept[id(owner)] = make()
        weakref.finalize(owner, _let_go, ours, id(owner)).atexit = False
    thing: T = ours.kept[id(owner)]
    return thing


def _let_go(ours: LoopThread, owner: int) -> None:
    if ours is not _of_process:
        return
    aclose = getattr(ours.kept.pop(owner), "aclose", None)
    if aclose is not None:
        asyncio.run_coroutine_threadsafe(aclose(), ours.loop)
