"""Faults of the machine and of the user's hands: full disks, damaged files, odd inputs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dataflow_grounding.testing import on
from tests.support import faults
from tests.support.fault_cases.fault_case import (
    IN_FLIGHT,
    LOCAL_CLOCK,
    REFUSED,
    UNTIL_ROOM,
    Case,
    Outcome,
    at_work,
    calm,
    goes_on,
    lost_rows,
    undisturbed,
)
from tests.support.workplace import Workplace, ended

LIMITED = """
import resource, sys
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""


def file_limit(place: Workplace, full: bool) -> Outcome:
    """No file may grow past some size, at several sizes: the system's answer is the same as for a
    full disk.
    """
    sizes = range(2_000, 60_000, 2_000) if full else (2_000, 9_000)
    count = 40 if full else 20
    measured = Outcome()
    for size in sizes:
        here = Workplace(place.folder / str(size))
        with at_work(here, count, 0.002) as witness:
            done = ended(here.start(first=LIMITED.format(size=size)))
            calm(done)
            assert done.code in ((0, 130) if full else (130,)), done
            assert done.code == 0 or "can't write" in done.err, done
            outcome = goes_on(here, witness, count, IN_FLIGHT)
            assert outcome.sent <= 2 * count + IN_FLIGHT
        measured += outcome
    return measured


def full_disk(place: Workplace, full: bool) -> Outcome:
    """A small disk of its own fills up; where none can be made, a limit on each file's size stands
    in for it.
    """
    disk = place.folder / "disk"
    disk.mkdir()
    size, count = ("64k", 200) if full else ("16k", 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return file_limit(place, full)
    try:
        place.results = disk / "results"
        with at_work(place, count, 0.002) as witness:
            stopped = ended(place.start())
            calm(stopped)
            assert stopped.code == 130, stopped
            assert "can't write" in stopped.err, stopped
            subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
            outcome = goes_on(place, witness, count, IN_FLIGHT)
            assert outcome.sent <= 2 * count + IN_FLIGHT
            return outcome
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def not_writable(place: Workplace, full: bool) -> Outcome:
    """A results folder that can't be written: told before the first request."""
    with at_work(place, 3) as witness:
        place.folder.joinpath("taken").write_text("a file")
        blocked = [
            place.folder / "taken",
            place.folder / "taken" / "results",
            Path("/proc/results"),
        ]
        if os.getuid():
            place.folder.joinpath("mine").mkdir(mode=0o500)
            blocked.append(place.folder / "mine" / "results")
        for results in blocked:
            stopped = place.run(f"results_dir={results}")
            calm(stopped)
            assert stopped.code == 2, stopped
            assert "can't write" in stopped.err
        assert witness.sent == 0
        return goes_on(place, witness, 3)


CLOCK = """
import time
_start, _true = time.time(), time.time_ns
time.time = lambda: _start - 7200 - (_true() / 1e9 - _start) * 50
time.time_ns = lambda: int(time.time() * 1e9)
"""


def clock_backwards(place: Workplace, full: bool) -> Outcome:
    """The clock is two hours slow and runs backwards, 50 times as fast; the endpoint gives dates to
    wait for.
    """
    with at_work(place, 20, 0.02) as witness:
        witness.rules.append(on(faults.too_many_requests(1, http_date=True), times=6))
        done = ended(place.start(first=CLOCK))  # by its own clock it would wait for hours
        calm(done)
        assert done.code == 0, done
        assert witness.sent < 40 + 6 * 4
        return goes_on(place, witness, 20)


PIPED = """
import os, threading, time
out, into = os.pipe()
os.dup2(out, 0)

def write():
    with open({lines!r}, "rb") as lines:
        for line in lines:
            os.write(into, line)
            time.sleep(0.005)
    os.close(into)

threading.Thread(target=write, daemon=True).start()
"""


def from_a_pipe(place: Workplace, full: bool) -> Outcome:
    """The input comes through a pipe, slowly, and only once."""
    count = 30 if full else 20
    with at_work(place, count) as witness:
        for _ in range(2):
            piped = PIPED.format(lines=str(place.input))
            done = ended(place.start(first=piped, **{"data.input_jsonl": "/dev/stdin"}))
            calm(done)
            assert done.code == 0, done
            assert place.files() == undisturbed(count)
            assert witness.sent == 2 * count, "the second time nothing is sent"
        return Outcome(witness.sent, witness.twice, lost_rows(place, count))


MACHINE: list[Case] = [
    Case("disk full", UNTIL_ROOM, full_disk),
    Case("a quota on files", UNTIL_ROOM, file_limit),
    Case("an unwritable results folder", REFUSED, not_writable),
    Case("a clock: runs backwards", LOCAL_CLOCK, clock_backwards),
    Case(
        "an input that is a pipe",
        "The run reads it once, and the same command resumes.",
        from_a_pipe,
    ),
]
