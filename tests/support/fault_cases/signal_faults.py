"""Faults of a run's end: kills and signals."""

from __future__ import annotations

import functools
import json
import random
import signal
import time

from dataflow_grounding.testing import on
from tests.support import faults
from tests.support.fault_cases.fault_case import (
    IN_FLIGHT,
    SAME_FILES,
    Case,
    Outcome,
    at_work,
    calm,
    goes_on,
    reached_by,
)
from tests.support.workplace import Workplace, ended


def killed(place: Workplace, full: bool) -> Outcome:
    """kill -9 at random moments: of start, work and end."""
    count, moments = (200, 50) if full else (10, 3)
    measured = Outcome()
    for number in range(moments):
        here = Workplace(place.folder / str(number))
        with at_work(here, count, 0.004) as witness:
            running = here.start()
            share = random.Random(number).uniform(0.01, 0.99) if full else (0.02, 0.5, 1.0)[number]
            reached_by(running, witness, share * 2 * count)
            time.sleep(random.Random(number).uniform(0, 0.01))
            running.kill()
            running.communicate()
            outcome = goes_on(here, witness, count, IN_FLIGHT)
            assert outcome.sent <= 2 * count + IN_FLIGHT, f"moment {number}: {outcome}"
        measured += outcome
    return measured


def interrupted(which: signal.Signals, place: Workplace, full: bool) -> Outcome:
    """One signal: what is in flight is waited for, and nothing is paid again."""
    count = 40 if full else 20
    with at_work(place, count) as witness:
        witness.server.latency = lambda request: 0.5 if request.index >= 10 else 0.0
        running = place.start()
        reached_by(running, witness, 11)
        running.send_signal(which)
        stopped = ended(running)
        calm(stopped)
        assert stopped.code == 130, stopped
        assert "Run the same command again" in stopped.err
        assert json.loads((place.results / "run.json").read_text())["state"] == "stopped"
        assert witness.server.abandoned == 0, "what was in flight was waited for"
        assert not list(place.results.rglob("*.part"))
        outcome = goes_on(place, witness, count)
        assert outcome.sent == 2 * count
        return outcome


GRACE = """
from dataflow_grounding.engine.workers import Workers
Workers.__init__.__defaults__ = ({seconds},)
"""
"""Has what is in flight waited for so long."""


UNTIMED = {"vlm.openai.timeout": 3600.0}
"""Has no request end by itself that hangs."""


def interrupted_twice(place: Workplace, full: bool) -> Outcome:
    with at_work(place, 20) as witness:
        witness.rules.append(on(faults.hang(), indexes=range(6, 1000)))
        running = place.start(first=GRACE.format(seconds=3600.0), **UNTIMED)
        reached_by(running, witness, 10)
        running.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert running.poll() is None, "the first waits for what is in flight"
        running.send_signal(signal.SIGINT)
        stopped = ended(running)
        calm(stopped)
        assert stopped.code == 130, stopped
        return goes_on(place, witness, 20)


def interrupted_with_a_hang(place: Workplace, full: bool) -> Outcome:
    """One Ctrl-C while the endpoint hangs: a few seconds, then it stops."""
    with at_work(place, 20) as witness:
        witness.rules.append(on(faults.hang(), indexes=range(6, 1000)))
        running = place.start(first="" if full else GRACE.format(seconds=0.5), **UNTIMED)
        reached_by(running, witness, 10)
        running.send_signal(signal.SIGTERM)
        assert ended(running).code == 130
        return goes_on(place, witness, 20)


ONCE = "The run waits up to five seconds for replies, then stops with exit 130."
SIGNALS: list[Case] = [
    Case("kill -9: at random moments", SAME_FILES, killed),
    Case("Ctrl-C", ONCE, functools.partial(interrupted, signal.SIGINT)),
    Case("SIGTERM at a hanging endpoint", ONCE, interrupted_with_a_hang),
    Case(
        "Ctrl-C twice", "The run stops at once, and the same command resumes it.", interrupted_twice
    ),
]
