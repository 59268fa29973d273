"""Faults of a cluster: head, workers, driver lost or frozen, and an object store that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.fault_cases.fault_case import (
    IN_FLIGHT,
    Case,
    Outcome,
    at_work,
    calm,
    goes_on,
    reached_by,
)
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace, ended, interpreter

RAY = ("--engine", "ray", "--workers", "2")
QUICK = """
import dataflow_grounding.scale.cluster.ray_run as ray_run
ray_run.LEAVE_SECONDS = 3.0
"""
FULL = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # else workers get no time while other tests run
os.environ["RAY_local_fs_capacity_threshold"] = "1"  # else a nearly full disk stops them
import numpy, ray
from ray.cluster_utils import Cluster
there = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20})
ray.init(address=there.address, log_to_driver=False, configure_logging=False)
kept = [ray.put(numpy.zeros(2**22, "uint8")) for _ in range(40)]
print(there.address, flush=True)
sys.stdin.read()
ray.shutdown()
there.shutdown()
"""
"""A cluster with twice as much in its store as that has room for, until its standard input ends."""


def family(pid: int) -> dict[int, str]:
    """A process and those that came of it, with their command lines."""
    told = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    lines = (line.split(None, 2) for line in told.splitlines()[1:])
    processes = [(int(own), int(parent), what) for own, parent, what in lines]
    found = {pid: ""}
    while more := {
        own: what for own, parent, what in processes if parent in found and own not in found
    }:
        found |= more
    return found


def called_so(running: subprocess.Popen[str], what: str) -> list[int]:
    """Those of a driver's processes that have this in their name."""
    processes = family(running.pid).items()
    return [pid for pid, called in processes if what in called.partition(" ")[0]]


def driver(place: Workplace, *arguments: str) -> subprocess.Popen[str]:
    """A run on Ray that waits for less long than usual."""
    return interpreter(place.arguments(*(arguments or RAY)), first=QUICK, cwd=place.folder)


@contextmanager
def struck(running: subprocess.Popen[str], what: str, how: signal.Signals) -> Iterator[None]:
    """Send a signal to the first process of a driver's that is called so; one that was frozen ends
    with the block.
    """

    # one that has just begun isn't called so yet
    wait_until(lambda: called_so(running, what))
    pid = min(called_so(running, what))
    os.kill(pid, how)
    try:
        yield
    finally:
        if how == signal.SIGSTOP:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def losing(what: str, how: signal.Signals) -> Callable[[Workplace, bool], Outcome]:
    """One process is killed or frozen, and the run finishes."""

    def play(place: Workplace, full: bool) -> Outcome:
        count = 300 if full else 100
        with at_work(place, count, 0.2) as witness:
            running = driver(place)
            reached_by(running, witness, count / 3)
            workers = called_so(running, "ray::work_on")
            with struck(running, what, how):
                done = ended(running)  # Ray takes a minute to notice; a busy machine several
            calm(done)
            assert done.code == 0, done
            lines = [
                line
                for line in done.err.splitlines()
                if not line.startswith("No worker has begun yet")
            ]
            assert not lines, done
            return goes_on(place, witness, count, 2 * IN_FLIGHT, workers)

    return play


def killed(place: Workplace, full: bool) -> Outcome:
    """A worker, then the driver is killed, several times; then the same command goes on."""
    rounds = 3 if full else 1
    with at_work(place, 300, 0.1) as witness:
        for number in range(rounds):
            running = driver(place)
            reached_by(running, witness, 500 * number / rounds + 60)
            with struck(running, "ray::work_on", signal.SIGKILL):
                reached_by(running, witness, 500 * number / rounds + 120)
            running.kill()
            running.communicate()
        done = ended(driver(place))
        calm(done)
        assert done.code == 0, done
        return goes_on(place, witness, 300, 4 * IN_FLIGHT * rounds)


@contextmanager
def full_store(place: Workplace) -> Iterator[str]:
    """A cluster of its own whose object store is full; gives its address."""
    log = place.folder / "ray.log"
    pipe = subprocess.PIPE
    with log.open("w") as stderr:
        cluster = subprocess.Popen(
            [sys.executable, "-c", FULL], stdin=pipe, stdout=pipe, stderr=stderr, text=True
        )
    assert cluster.stdin
    assert cluster.stdout
    try:
        for line in cluster.stdout:
            address = line.strip()
            if address.rpartition(":")[2].isdecimal():
                break
        else:
            raise ClusterNotStarted(log.read_text()[-3000:])
        yield address
    finally:
        cluster.stdin.close()
        cluster.wait(60)


class ClusterNotStarted(Exception):
    """Ray's own cluster ended before it said its address; with the end of its log."""


def store_full(place: Workplace, full: bool) -> Outcome:
    """What is asked and answered doesn't go through Ray's object store."""
    try:
        return generated_with_a_full_store(place)
    except ClusterNotStarted:
        # Ray picks ports before it binds them: another process may take one in between
        return generated_with_a_full_store(place)


def generated_with_a_full_store(place: Workplace) -> Outcome:
    with full_store(place) as address, at_work(place, 60, 0.02) as witness:
        done = ended(driver(place, *RAY, "--ray-address", address))
        calm(done)
        assert done.code == 0, done
        return goes_on(place, witness, 60)


GOES_ON = "The run goes on."
RESUMES = (
    "Without workers the run goes on. Without the driver it stops, and the same command resumes it."
)
WITHOUT_HEAD = (
    "What tasks do goes on for a minute. Then Ray ends them, and the same command resumes the run."
)
ON_RAY: list[Case] = [
    Case("Ray: workers and the driver killed", RESUMES, killed, "ray"),
    Case("Ray: the head is lost", WITHOUT_HEAD, losing("/gcs_server", signal.SIGKILL), "ray"),
    Case("Ray: the head doesn't answer", GOES_ON, losing("/gcs_server", signal.SIGSTOP), "ray"),
    Case("Ray: the object store is full", GOES_ON, store_full, "ray"),
]
