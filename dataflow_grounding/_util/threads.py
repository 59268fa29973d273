"""Threads that wait for stores, so that nobody else has to."""

import asyncio
import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from itertools import islice
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from dataflow_grounding._util.errors import InputError

T = TypeVar("T")
A = TypeVar("A")

LEAVING = "leaving Ray"
"""The name of a thread that ends the connection to a cluster.

Without an answer it may never be through.
"""
THREADS = 64
THREAD_BYTES = 2**27  # of addresses that Linux sets aside for a thread's stack and its allocator


@cache
def _threads(process: int) -> ThreadPool:
    """The threads of a process that wait for stores.

    A store may take its time: Python doesn't wait for them at its end.
    """
    try:
        pool = ThreadPool(_most_threads())
    except (RuntimeError, AttributeError):  # the second is what ThreadPool makes of the first
        raise InputError(
            "this machine can't start a thread: give it more memory (ulimit -v) or tasks"
            " (ulimit -u)"
        ) from None
    atexit.register(pool.terminate)  # else it may complain when it is cleared away
    return pool


def _most_threads() -> int:
    """How many threads this machine lets a process have.

    Where memory is limited to so many bytes of addresses, as by `ulimit -v`, that is as many as
    have room in a half.
    """
    with suppress(ImportError):  # Windows has no such limits
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            return max(1, min(THREADS, limit // (2 * THREAD_BYTES)))
    return THREADS


def at_once(work: Callable[[A], T], items: Iterable[A]) -> list[T]:
    """What `work`, which waits for stores, returns for each item. Raises what it raises."""
    return _threads(os.getpid()).map(work, items, 1)


async def off_loop(work: Callable[..., T], *arguments: Any) -> T:
    """What work that waits for stores returns, done by a thread.

    The event loop's own threads are too few for that.
    """
    future: Future[T] = Future()
    _threads(os.getpid()).apply_async(work, arguments, {}, future.set_result, future.set_exception)
    return await asyncio.shield(asyncio.wrap_future(future))


def side_by_side(
    work: Callable[[A], T], items: Iterable[A], waits: Callable[[A], bool]
) -> Iterator[T]:
    """What `work` returns for each item, in order.

    Where it `waits` for stores, threads do some at a time.
    """
    remaining = iter(items)
    while batch := list(islice(remaining, 4 * THREADS)):
        if any(map(waits, batch)):
            yield from at_once(work, batch)
        else:
            yield from map(work, batch)
