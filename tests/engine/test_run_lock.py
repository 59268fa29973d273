"""The lock of a folder where the system has none: another machine's run is known by
its heartbeat.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.engine import run_lock
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow


@pytest.fixture
def lock(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 0.6)
    workplace.many(2)
    held = workplace.results / ".ckpt" / "lock-1"
    held.parent.mkdir(parents=True)
    return held


OTHER = {"host": "elsewhere", "pid": 1, "started": "5"}


@pytest.mark.parametrize(
    "left", [json.dumps(OTHER), "", "[]", '{"host":', '{"host": 3, "pid": "x"}']
)
def test_a_lock_whose_heart_has_stopped_keeps_nobody_out(
    workplace: Workplace, lock: Path, left: str
) -> None:
    lock.write_text(left)
    with LoopbackServer() as server:
        first, second = (
            workplace.run(**{"vlm.openai.base_url": server.base_url}) for _ in range(2)
        )
    assert (first.code, second.code) == (0, 0)
    assert "is locked" in first.err
    assert "is locked" not in second.err  # a run that has ended is not waited for
    assert json.loads((lock.parent / "lock-3").read_text())["free"]


def test_a_lock_whose_heart_beats_keeps_others_out(
    workplace: Workplace, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats between any two looks at it."""
    lock.write_text(json.dumps(OTHER))

    def sleep(seconds: float) -> None:
        write_bytes(str(lock), json.dumps({**OTHER, "beat": time.time()}).encode())
        time.sleep(seconds)

    clock = SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(run_lock, "time", clock)
    with LoopbackServer() as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert (done.code, server.count()) == (2, 0)
    assert "another run is working" in done.err
    assert "elsewhere, process 1" in done.err
    assert [path.name for path in lock.parent.glob("lock-*")] == ["lock-1"]


def test_a_process_number_given_anew_is_no_old_run(workplace: Workplace, lock: Path) -> None:
    with LoopbackServer() as server:
        assert workplace.run(**{"vlm.openai.base_url": server.base_url}).code == 0
        left = json.loads(lock.read_text())
        lock.write_text(json.dumps({**left, "free": False, "pid": os.getpid(), "started": "1"}))
        again = workplace.run(**{"vlm.openai.base_url": server.base_url})
    assert (again.code, "is locked" in again.err) == (0, False), again


def test_a_lock_given_up_meanwhile_is_taken_at_once(
    workplace: Workplace, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waited for the other's death would not come to an end."""
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 36_000.0)
    monkeypatch.setattr(run_lock, "LOOKS", 360_000)
    lock.write_text(json.dumps(OTHER))
    threading.Timer(1.0, lock.write_text, [json.dumps({**OTHER, "free": True})]).start()
    with LoopbackServer() as server:
        assert workplace.run(**{"vlm.openai.base_url": server.base_url}).code == 0
