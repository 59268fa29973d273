"""Waiting for what a process or a thread is about to do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from tests.support.workplace import ended

HANGING = 120.0
"""After so many seconds nothing is waited for any longer: on a busy machine, too, what happens at
all has long happened by then.
"""


def wait_until(
    true: Callable[[], object], *running: subprocess.Popen[str], within: float = HANGING
) -> None:
    """Wait for something that happens soon.

    Args:
        true: Whether it has happened; asked a few hundred times a second.
        running: The processes that do it. One that ends before is an error.
        within: The seconds after which it won't happen any more.

    Raises:
        AssertionError: If it didn't happen, or a process ended before.
    """
    end = time.monotonic() + within
    while not true():
        for process in running:
            if process.poll() is not None and not true():
                raise AssertionError(f"the process ended before: {ended(process)}")
        assert time.monotonic() < end, f"it hasn't happened after {within:g} s"
        time.sleep(0.003)
