"""The command line, with every turn of its event loops timed; imports nothing of the package before
it does.

    python -m benchmarks.turns_child TURNS.json generate …

leaves the turns, of more than a millisecond of CPU, as JSON.
"""

from __future__ import annotations

import asyncio.events
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import NamedTuple

SAMPLED = 0.005  # seconds between two looks at what the loop's thread is doing


class Turn(NamedTuple):
    """A callback of the event loop: CPU milliseconds, and where most of them went."""

    cpu_ms: float
    where: str


class Turns:
    """Times every turn of the event loops of this process, from `watch` on."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._loop_thread = 0
        self._began: float | None = None  # when the turn that is under way began
        self._seen = Counter[str]()

    def watch(self) -> None:
        """Begin, for the rest of the process."""
        original = asyncio.events.Handle._run

        def timed(handle: asyncio.events.Handle) -> None:
            self._loop_thread = threading.get_ident()
            self._seen.clear()
            self._began, cpu = time.perf_counter(), time.thread_time()
            try:
                original(handle)
            finally:
                spent = (time.thread_time() - cpu) * 1000
                self._began = None
                if spent > 1:
                    self.turns.append(
                        Turn(spent, self._seen.most_common(1)[0][0] if self._seen else str(handle))
                    )

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            time.sleep(SAMPLED)
            began, frame = self._began, sys._current_frames().get(self._loop_thread)
            if began is not None and time.perf_counter() - began > SAMPLED:
                self._seen[place_of(frame)] += 1


def place_of(frame: FrameType | None) -> str:
    """The innermost function of the package in a stack, and its module."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("dataflow_grounding."):
            return f"{module.removeprefix('dataflow_grounding.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "outside the package"


def child(out: str, arguments: list[str]) -> None:
    """The command line, with its turns timed and left in `out`."""
    turns = Turns()
    turns.watch()
    from dataflow_grounding.cli.main import main

    sys.argv[1:] = arguments
    try:
        main()
    finally:
        Path(out).write_text(json.dumps(turns.turns))


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2:])
