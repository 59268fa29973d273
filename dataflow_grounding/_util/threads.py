"""Threads that wait for stores (s3://, gs://, hf://), so that nobody else has to.

A process has one pool of them, made when it is first needed. What it is made of is imported then:
every command imports this module, and few wait for a store.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.pool import ThreadPool

T = TypeVar("T")
A = TypeVar("A")

LEAVING = "leaving Ray"
"""The name of the thread that ends the connection to a Ray cluster. Where the cluster doesn't
answer, the thread never ends: the process then leaves without it.
"""
NO_THREAD = (
    "this machine can't start a thread: give it more memory (ulimit -v) or tasks (ulimit -u)"
)
THREADS = 64  # the most of the pool
BATCH = 4 * THREADS  # items of `side_by_side` that are worked on before the next are taken
THREAD_BYTES = 2**27  # of address space that Linux sets aside for a thread's stack and allocator


@cache
def _threads(process: int) -> "ThreadPool":
    """The pool of a process, by its id: a forked process can't use its parent's."""
    # At its end, Python doesn't wait for these threads, which may be waiting for a store.
    from multiprocessing.pool import ThreadPool

    try:
        pool = ThreadPool(_most_threads())
    except (RuntimeError, AttributeError):  # the second is what ThreadPool makes of the first
        raise InputError(NO_THREAD) from None
    atexit.register(pool.terminate)  # a pool that is only cleared away may complain
    return pool


def _most_threads() -> int:
    """Where the address space is limited (`ulimit -v`), threads get half of it."""
    with suppress(ImportError):  # Windows has no such limits
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            return max(1, min(THREADS, limit // (2 * THREAD_BYTES)))
    return THREADS


def in_threads(work: Callable[[A], T], items: Iterable[A]) -> list[T]:
    """Return what `work` returns for each item, in order, done by the pool's threads."""
    return _threads(os.getpid()).map(work, items, 1)


async def off_loop(work: Callable[..., T], *arguments: Any) -> T:
    """Do `work`, which waits for stores, in a thread; if the caller is cancelled, it goes on."""
    import asyncio
    from concurrent.futures import Future

    # not in the event loop's own threads, which are too few
    future: Future[T] = Future()
    _threads(os.getpid()).apply_async(work, arguments, {}, future.set_result, future.set_exception)
    return await asyncio.shield(asyncio.wrap_future(future))


def side_by_side(
    work: Callable[[A], T], items: Iterable[A], waits: Callable[[A], bool], *, cores: bool = False
) -> Iterator[T]:
    """Yield results in order; the pool does a batch if any item of it `waits` for a store."""
    remaining = iter(items)
    with ExitStack() as stack:
        map_here: Callable[..., Iterable[T]] = map  # does a batch that waits for no store
        if cores:
            from multiprocessing.pool import ThreadPool

            map_here = stack.enter_context(ThreadPool(os.cpu_count())).map
        while batch := list(islice(remaining, BATCH)):
            if any(map(waits, batch)):
                yield from in_threads(work, batch)
            else:
                yield from map_here(work, batch)
