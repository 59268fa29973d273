"""Tasks that are to end with a run."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from contextlib import suppress

import pytest

from dataflow_grounding.engine.workers import cancel_all, run_blocking


def test_a_task_whose_cancellation_is_dropped_ends_all_the_same() -> None:
    """Before Python 3.12 `wait_for` drops one that comes as its answer does: a watch of Ray's
    cluster went on for ever then, and the run with it.
    """

    async def outlived() -> bool:
        answers: list[asyncio.Future[None]] = []

        async def watch() -> None:
            while True:
                answers.append(asyncio.get_running_loop().create_future())
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(answers[-1], 60)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        answers[-1].set_result(None)
        await asyncio.wait({asyncio.create_task(cancel_all([watching]))}, timeout=30)
        return watching.done()

    assert asyncio.run(outlived())


def test_what_a_cancelled_task_raises_is_passed_over() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("as it ends")

    async def ended() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0.01)
        await cancel_all([task])
        await cancel_all([])

    asyncio.run(ended())


@pytest.mark.slow
@pytest.mark.parametrize("in_a_loop", [False, True])
def test_work_ends_where_memory_runs_out_in_a_thread_before_it_does_what_it_took(
    in_a_loop: bool,
) -> None:
    """A run of six records in 110 MB waited for ever for what such a thread was to do."""

    async def work() -> None:
        thread = await asyncio.to_thread(threading.get_ident)
        # Raised as the thread wakes with what it is to do next.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), ctypes.py_object(MemoryError)
        )
        try:
            await asyncio.to_thread(print)
        finally:
            assert await asyncio.to_thread(str, 7) == "7", "what ends the work has threads"

    async def in_loop() -> None:
        run_blocking(work)

    def run() -> None:
        if in_a_loop:
            asyncio.run(in_loop())
        else:
            run_blocking(work)

    with pytest.raises(MemoryError):
        run()
