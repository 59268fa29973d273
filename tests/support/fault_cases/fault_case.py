"""What a case of the fault table is, and a server that knows which of its answers were good."""

from __future__ import annotations

import functools
import operator
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from dataflow_grounding.testing import Fault, FaultRule, LoopbackServer
from dataflow_grounding.testing.faults import first_of
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Done, Files, Running, Workplace, lives

IN_FLIGHT = 8

SAME_FILES = "The same commands give an undisturbed run's files, to the byte."
REFUSED = "The command is refused with exit 2. It sends and writes nothing."
WHOLE_PARTS = "Only torn replies are asked again."
LOCAL_CLOCK = "The run is the same as with a right clock."
UNTIL_ROOM = "The run stops. The same command resumes it once there is room."


@dataclass(frozen=True)
class Outcome:
    """What was measured. `twice_allowed` is how many questions may be paid for again: those in
    flight at a kill.
    """

    sent: int = 0
    twice: int = 0
    lost: int = 0
    twice_allowed: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Case:
    """A fault, what is promised of it (a sentence of docs/reliability.md), how it is played (False:
    quickly), and the module that it needs.
    """

    name: str
    promise: str
    play: Callable[[Workplace, bool], Outcome]
    needs: str = ""


class Witness:
    """A loopback server that notes which requests its rules spoilt."""

    def __init__(self, rules: Sequence[FaultRule] = (), **settings: Any) -> None:
        self.rules = list(rules)
        self.spoilt: set[int] = set()
        self.server = LoopbackServer(faults=self._rule, **settings)

    def _rule(self, request: ReceivedRequest) -> Fault | None:
        fault = first_of(self.rules)(request)
        if fault is not None:
            self.spoilt.add(request.index)
        return fault

    def __enter__(self) -> Witness:
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()

    @property
    def sent(self) -> int:
        return self.server.count()

    @property
    def twice(self) -> int:
        """Good answers beyond the first to the same question."""
        good = [
            r for r in self.server.requests if r.status_sent == 200 and r.index not in self.spoilt
        ]
        return sum(count - 1 for count in Counter((r.text, r.image_digests) for r in good).values())


@functools.cache
def undisturbed(count: int) -> Files:
    """The files of a run of `count` records in which nothing goes wrong."""
    with tempfile.TemporaryDirectory() as folder, LoopbackServer() as server:
        place = Workplace(Path(folder))
        place.many(count)
        done = place.run(**{"vlm.openai.base_url": server.base_url})
        assert done.code == 0, done
        return place.files()


def lost_rows(place: Workplace, count: int) -> int:
    """Rows r0 to r(count - 1) that are neither done nor named as failed."""
    named = {record["image_id"] for record in place.annotations()} | {
        line["id"] for line in place.failures()
    }
    return len({f"r{n}" for n in range(count)} - named)


def calm(done: Done) -> None:
    """No traceback, no page of text."""
    assert "Traceback" not in done.err, done
    assert "Internal error" not in done.err, done
    assert all(len(line) < 700 for line in done.err.splitlines()), done


@contextmanager
def at_work(place: Workplace, count: int, latency: float = 0.01) -> Iterator[Witness]:
    place.many(count)
    with Witness(latency=latency) as witness:
        place.settings |= {
            "vlm.openai.base_url": witness.server.base_url,
            "workflow.max_workers": IN_FLIGHT,
        }
        yield witness


def until(over: Event) -> FaultRule:
    """A rule by which nothing is answered until then, no matter how busy the machine."""

    def rule(request: ReceivedRequest) -> None:
        over.wait(HANGING)

    return rule


def reached_by(running: Running, witness: Witness, sent: float) -> None:
    wait_until(lambda: witness.sent >= sent, running)


def goes_on(
    place: Workplace, witness: Witness, count: int, allowed: int = 0, workers: Iterable[int] = ()
) -> Outcome:
    """The same command again ends it, and the files are those of an undisturbed run.

    `workers` are processes that may still be at work then, and end on their own, or are killed.
    """
    witness.server.latency = 0.0
    witness.rules.clear()
    done = place.run()
    calm(done)
    assert done.code == 0, done
    assert place.files() == undisturbed(count)
    wait_until(lambda: not any(map(lives, workers)))
    assert place.run().summary["requests"] == 0
    assert not list(place.results.rglob("*.part"))
    return Outcome(witness.sent, witness.twice, lost_rows(place, count), allowed)
