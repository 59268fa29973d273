"""Waiting for what a process or a thread is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.workplace import HANGING, Running, ended


def wait_until(true: Callable[[], object], *running: Running) -> None:
    """Wait for something that happens soon.

    Args:
        true: Whether it has happened; asked a few hundred times a second.
        running: The processes that do it. One that ends before is an error.

    Raises:
        AssertionError: If it didn't happen, or a process ended before.
    """
    end = time.monotonic() + HANGING
    while not true():
        for process in running:
            if process.poll() is not None and not true():
                raise AssertionError(f"the process ended before: {ended(process)}")
        assert time.monotonic() < end, f"it hasn't happened after {HANGING:g} s"
        time.sleep(0.003)
