"""Faults of a bucket that results go to: refusals in the middle, slow listings, torn uploads,
silence, and kills.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any
from unittest import mock

from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.fault_case import (
    IN_FLIGHT,
    Case,
    Outcome,
    Witness,
    at_work,
    calm,
    lost_rows,
    reached_by,
    undisturbed,
)
from tests.support.store import BUCKET, FaultyStore, faulty_store
from tests.support.waiting import wait_until
from tests.support.workplace import LEFT, Done, Running, Workplace, ended

QUICK = {"SEND_SECONDS": 0.3}
"""More often than usual."""


class Bucket:
    """A store, and runs of a place with so many records whose results go there."""

    def __init__(self, place: Workplace, store: FaultyStore, count: int) -> None:
        # a process has one moto, with all buckets
        self.place, self.store, self.name, self.count = place, store, token_hex(4), count
        self.here, self.place.results = place.results, f"s3://{BUCKET}/{self.name}"  # type: ignore[assignment]

    def start(self) -> Running:
        """A process that sends what it has more often than usual."""
        set_up = f"import dataflow_grounding.bucket.bucket as b; vars(b).update({QUICK})"
        return self.place.start(first=set_up)

    def run(self) -> Done:
        with mock.patch.multiple("dataflow_grounding.bucket.bucket", **QUICK):
            return self.place.run()

    def objects(self) -> dict[str, bytes]:
        return {
            name: self.store.data(f"{self.name}/{name}") for name in self.store.names(self.name)
        }

    def goes_on(self, witness: Witness, allowed: int = 0) -> Outcome:
        """Healed, the same command ends it, and there are the files of an undisturbed run."""
        self.store.heal()
        witness.server.latency = 0.0
        done = self.run()
        calm(done)
        assert done.code == 0, done
        there = self.objects()
        found = [there.get(name) for name in LEFT if name != "failures.jsonl"]
        assert found == [*undisturbed(self.count)], sorted(there)
        asked = witness.sent
        again = self.run()
        assert (again.code, witness.sent) == (0, asked), again
        for name, data in there.items():  # for lost_rows
            path = self.here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.place.results = self.here
        return Outcome(witness.sent, witness.twice, lost_rows(self.place, self.count), allowed)


@contextmanager
def bucket(place: Workplace, full: bool) -> Iterator[tuple[Bucket, Witness]]:
    count = 100 if full else 30
    work = {"DF_WORK_FOLDER": str(place.folder / "work")}
    with (
        faulty_store() as store,
        at_work(place, count, 0.1) as witness,
        mock.patch.dict(os.environ, work),
    ):
        yield Bucket(place, store, count), witness


def denied(status: int, code: str, message: str) -> Callable[[Workplace, bool], Outcome]:
    """From the middle on all is refused: then, and when the command is given again, one line says
    so.
    """

    def play(place: Workplace, full: bool) -> Outcome:
        with bucket(place, full) as (there, witness):

            def rule(request: ReceivedRequest) -> None:
                if request.index == there.count:
                    there.store.denies = (status, code, message)

            witness.rules.append(rule)
            for told, exit_code in ((there.run(), 130), (there.run(), 2)):
                calm(told)
                assert told.code == exit_code, told
                assert told.err.splitlines()[-1].startswith("Error: "), told
                assert f"{there.place.results}: " in told.err, told
            assert not [name for name in there.objects() if "ckpt" not in name], (
                "nothing is there by halves"
            )
            return there.goes_on(witness)

    return play


SAYS = (
    "The results stay on this machine, and the run ends with exit 130. The same command sends them."
)


def spoilt(what: str, **faults: Any) -> Callable[[Workplace, bool], Outcome]:
    """The store does something else wrong from the beginning, which it counts as `what`; a run is
    killed meanwhile.
    """

    def play(place: Workplace, full: bool) -> Outcome:
        with bucket(place, full) as (there, witness):
            vars(there.store).update(faults)
            running = there.start()
            reached_by(running, witness, there.count)
            running.kill()
            running.communicate()
            done = there.run()
            calm(done)
            assert done.code == 0, done
            assert there.store.counts[what], there.store.counts
            return there.goes_on(witness, IN_FLIGHT)

    return play


def silent(place: Workplace, full: bool) -> Outcome:
    """The store takes what is sent and never answers: that is told, and Ctrl-C ends the wait."""
    with bucket(place, full) as (there, witness):
        running = there.start()
        reached_by(running, witness, there.count)
        there.store.hangs = True
        assert running.stderr
        line = ""
        while "to s3://" not in line or "Sending" not in line:  # once the run is over
            line = running.stderr.readline()
            assert line or running.poll() is None, ended(running)
        running.send_signal(signal.SIGINT)
        done = ended(running)
        calm(done)
        assert done.code == 130, done
        return there.goes_on(witness)


def killed(place: Workplace, full: bool) -> Outcome:
    """Killed at several moments, also while files are sent; nothing that is there is half of a
    file.
    """
    moments = [0.2, 0.9, 1.6, 1.99, 2] if full else [0.9, 2]
    with bucket(place, full) as (there, witness):
        for most in moments:
            running = there.start()
            reached_by(running, witness, most * there.count)
            if most == 2:
                wait_until(lambda: "annotations.jsonl" in there.objects())  # run.json comes last
            running.kill()
            running.communicate()
            for name, data in there.objects().items():
                assert not data or data.endswith((b"\n", b"}")), name
        return there.goes_on(witness, IN_FLIGHT * len(moments))


HIDDEN = "The run tries until it succeeds. Nothing is lost or half-written."


KILLED = "Only whole files are there, and the run resumes."
EXPIRED = denied(400, "ExpiredToken", "The token has expired.")
BUCKETS: list[Case] = [
    Case("a bucket: 403", SAYS, denied(403, "AccessDenied", "Access Denied"), "moto"),
    Case("a bucket: an expired token", SAYS, EXPIRED, "moto"),
    Case("a bucket: deleted", SAYS, denied(404, "NoSuchBucket", "gone"), "moto"),
    Case("a bucket: silent until Ctrl-C", SAYS, silent, "moto"),
    Case("a bucket: slow listings", HIDDEN, spoilt("LIST late", late=0.5), "moto"),
    Case("a bucket: torn uploads", HIDDEN, spoilt("torn", tear="jsonl|claim|run.json"), "moto"),
    Case("a bucket: lost answers", HIDDEN, spoilt("answers lost", loses=True), "moto"),
    Case("a bucket: refusals", HIDDEN, spoilt("refused", refuse_every=4), "moto"),
    Case("a bucket: kill -9", KILLED, killed, "moto"),
]
