"""Runs on Ray: the content that one machine leaves, nothing paid for twice, and exit codes as everywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workplace import Workplace, ended
from dataflow_grounding.testing import EchoAnswers, LoopbackServer

ray = pytest.importorskip("ray")

STEPS = ("step_0_expression_extraction", "step_1_grounding")
RAY = ("--engine", "ray", "--workers", "2")


def left(results: Path) -> dict[str, bytes]:
    """What a run leaves for its user, bar run.json."""
    names = ("annotations.jsonl", "failures.jsonl", *(f"{step}/annotations.jsonl" for step in STEPS))
    return {name: (results / name).read_bytes() for name in names if (results / name).exists()}


@pytest.fixture
def slow() -> Iterator[LoopbackServer]:
    """An endpoint that takes eight at once."""
    with LoopbackServer(EchoAnswers(), latency=0.02, capacity=8) as server:
        yield server


def place_at(workplace: Workplace, server: LoopbackServer, rows: int) -> Workplace:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(rows)
    return workplace


def alone(place: Workplace) -> tuple[dict[str, bytes], int]:
    """What one machine leaves, and how many requests it sends."""
    results, place.results = place.results, place.folder / "alone"
    done = place.run()
    assert done.code in (0, 1), done
    place.results, found = results, left(place.results)
    return found, done.summary["requests"] - done.summary["rate_limited"]


def paid(server: LoopbackServer) -> int:
    """Requests that were answered, or would have been."""
    return server.received - server.count(429)


def workers_of(driver: subprocess.Popen[str]) -> list[int]:
    """The processes of a driver's workers."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    family = {driver.pid}
    for _ in range(4):
        family |= {int(pid) for pid, parent, _ in lines if int(parent) in family}
    return [int(pid) for pid, _, what in lines if int(pid) in family and what.startswith("ray::Worker")]


def until(there: Callable[[], Any], driver: subprocess.Popen[str]) -> None:
    while not there():
        assert driver.poll() is None, ended(driver)
        time.sleep(0.02)


def test_lost_workers_and_a_killed_driver_cost_what_was_in_flight(workplace: Workplace, slow: LoopbackServer) -> None:
    place = place_at(workplace, slow, 600)
    expected, once = alone(place)
    before = paid(slow)
    driver = place.start(*RAY)
    for wanted in (100, 300):
        until(lambda wanted=wanted: paid(slow) - before > wanted and workers_of(driver), driver)
        os.kill(workers_of(driver)[0], signal.SIGKILL)
    until(lambda: paid(slow) - before > 600, driver)
    driver.kill()
    ended(driver)
    done = ended(place.start(*RAY), 120)
    assert done.code == 0, done
    assert done.err.strip() == ""
    assert left(place.results) == expected
    assert once <= paid(slow) - before <= once + 8 * 4
    back = place.run()
    assert back.summary["already_complete"], back
