"""Random faults, one after the other, for as long as you like; then the results have to be those of
an undisturbed run.

    python -m benchmarks.soak [--minutes 30] [--seed 0] [--rounds N] [--only OnRay]

A round takes a pipeline, streaming or not, on this machine, on Ray, or with its results in a
bucket, against a loopback server that spoils a share of its answers (429, 500, 503, closed and cut
connections, garbage, replies that can't be read or are cut off). Its run is killed, interrupted,
terminated, given a disk that fills up, a changed input (rows in another order, and some twice) or
another step at random moments, and gone on with each time. On Ray a worker may be killed; the
bucket's store refuses, tears uploads, lists late, loses answers or is down. In the end the files
are compared byte by byte. A question that was well answered more than once was paid for twice: at
most what was in flight at a stop that waits for nothing (a kill, a full disk).
"""

from __future__ import annotations

import argparse
import functools
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.fault_cases.fault_case import Witness
from benchmarks.fault_cases.soak_jobs import COUNT, SIGNALS, InABucket, Job, OnRay
from benchmarks.fault_cases.store_faults import client_of
from benchmarks.places.store import BUCKET, faulty_store
from benchmarks.places.waiting import wait_until
from benchmarks.places.workplace import Workplace, ended
from dataflow_grounding.extras.testing import FaultRule, faults, on


def rules(seed: int) -> list[FaultRule]:
    """Whatever an endpoint may do, each to a few in a hundred of its requests."""
    kinds = [
        faults.too_many_requests(0.1),
        faults.too_many_requests(),
        faults.server_error(500),
        faults.server_error(503, 0.1),
        faults.disconnect(),
        faults.cut_body(0.7),
        faults.garbage(),
        faults.html_error(502),
        faults.says("I see a cup."),
        faults.slow(0.3),
    ]
    struck = [on(kind, share=0.02, seed=100 * seed + number) for number, kind in enumerate(kinds)]
    # Phrases that are asked for in halves get other boxes from this server.
    return [*struck, on(faults.truncated(), task="expression_extraction", share=0.02, seed=seed)]


def disturbed(job: Job, witness: Witness, draw: random.Random, stops: Counter[str]) -> int:
    """Let it run for a while and stop it somehow; returns how many questions may be in flight then,
    unanswered.
    """
    kind = draw.choice(job.stops)
    stops[kind] += 1
    job.disturb(draw)
    if kind == "changed input" and job.kind != "image_referring_expression":
        job.change_input(draw)
    if kind == "step put in":
        job.put_in = not job.put_in
    options: dict[str, Any] = {}
    if kind == "full disk":
        size = draw.randrange(2_000, 60_000)
        options["preexec_fn"] = functools.partial(
            resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)
        )
    running = job.start(witness.server.base_url, **options)
    if kind in (*SIGNALS, "worker killed"):
        most = witness.sent + draw.randrange(1, 3 * COUNT)
        wait_until(lambda: witness.sent >= most or running.poll() is not None)
        time.sleep(draw.uniform(0, 0.05))
        if running.poll() is None:
            job.stop(kind, running)
    done = ended(running, 240)
    assert "Traceback" not in done.err or kind == "kill" or job.kind == "by hand", done
    job.place.rows(job.rows)
    return job.at_once if kind in ("kill", "full disk", "worker killed") else 0


def played(job: Job, seed: int, stops: Counter[str]) -> tuple[int, int, int]:
    """One round: requests, questions paid for twice, and how many of them were allowed to be.
    Asserts the rest.
    """
    draw = random.Random(seed)
    with Witness(rules(seed), latency=0.02) as witness:
        allowed = sum(disturbed(job, witness, draw, stops) for _ in range(draw.randrange(2, 6)))
        witness.rules.clear()
        job.put_in = False
        job.heal()
        done = ended(job.start(witness.server.base_url), 240)
        assert done.code == 0, done
        differing = different(job.files(), expected(job.kind))
        assert not differing, f"other files than an undisturbed run's: {differing}"
        sent = witness.sent
        again = ended(job.start(witness.server.base_url), 240)
        assert (again.code, witness.sent) == (0, sent), again
        assert witness.twice <= allowed, f"{witness.twice} paid for twice, {allowed} were in flight"
        return sent, witness.twice, allowed


def different(found: dict[str, bytes], undisturbed: dict[str, bytes]) -> list[str]:
    """The first line of each file that is not as it should be; files of a step that was put in for
    a while are left.
    """
    told = []
    for name, data in undisturbed.items():
        mine, right = found.get(name, b"").splitlines(), data.splitlines()
        if mine != right:
            place = next(
                (n for n, (a, b) in enumerate(zip(mine, right, strict=False)) if a != b),
                min(len(mine), len(right)),
            )
            told.append(
                f"{name} line {place + 1} of {len(mine)} ({len(right)}): "
                f"{mine[place : place + 1]} for {right[place : place + 1]}"
            )
    return told


@functools.cache
def expected(kind: str) -> dict[str, bytes]:
    """The files of a run in which nothing goes wrong."""
    with tempfile.TemporaryDirectory() as folder, Witness() as witness:
        job = Job(Workplace(Path(folder) / "work"), kind, True)
        job.prepare()
        done = ended(job.start(witness.server.base_url), 120)
        assert done.code == 0, done
        return job.files()


SHIPPED = ("image_grounding", "image_referring_expression", "image_region_caption")
KINDS: list[tuple[str, type[Job]]] = [
    *((kind, Job) for kind in (*SHIPPED, "by hand")),
    ("image_grounding", OnRay),
    *((kind, InABucket) for kind in SHIPPED[:2]),
]


@contextmanager
def made(kind: str, way: type[Job], stream: bool) -> Iterator[Job]:
    """A job in a folder of its own, with what it needs around it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job = way(Workplace(Path(folder) / "work"), kind, stream)
        if isinstance(job, InABucket):
            job.store = stack.enter_context(faulty_store())
            client_of(job.store).create_bucket(Bucket=BUCKET)
        job.prepare()
        yield job


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many rounds")
    parser.add_argument(
        "--only", default="", help="rounds whose way holds this text: Job, OnRay, InABucket"
    )
    given = parser.parse_args()
    return soak(
        given.seed,
        lambda number, began: (
            time.monotonic() - began < 60 * given.minutes
            and (not given.rounds or number < given.rounds)
        ),
        given.only,
    )


def soak(seed: int, going_on: Callable[[int, float], bool], only: str = "") -> int:
    """Rounds until told to end; 1 where one went wrong."""
    kinds = [(kind, way) for kind, way in KINDS if only in way.__name__]
    began, number, broke = time.monotonic(), 0, 0
    sent = twice = allowed = 0
    stops, rounds = Counter[str](), Counter[str]()
    while going_on(number, began):
        (kind, way), stream = kinds[number % len(kinds)], number // len(kinds) % 2 == 0
        what = f"round {number} (seed {seed + number}): {kind}, {way.__name__}, stream {stream}"
        with made(kind, way, stream) as job:
            try:
                figures = played(job, seed + number, stops)
            except AssertionError as error:
                broke += 1
                print(f"BROKE {what}: {str(error)[:2000]}", flush=True)
            else:
                sent, twice, allowed = sent + figures[0], twice + figures[1], allowed + figures[2]
                rounds[way.__name__] += 1
        number += 1
    minutes = (time.monotonic() - began) / 60
    told = ", ".join(
        f"{count} {what}" for what, count in [*sorted(rounds.items()), *sorted(stops.items())]
    )
    print(
        f"{number - broke} of {number} rounds with the files of an undisturbed run, in"
        f" {minutes:.1f} minutes ({told})"
    )
    print(
        f"{sent} requests; {twice} questions paid for twice, "
        f"of at most {allowed} in flight at stops that wait for nothing"
    )
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main())
