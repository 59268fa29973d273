"""One run at a time in a folder: with `flock`, and where the system has none by a claim."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import FolderTaken, InputError, TakenOver
from dataflow_grounding.engine import run_lock
from dataflow_grounding.engine.run_lock import check_held, only_run
from tests.support.forking import Forked
from tests.support.waiting import wait_until

HOLDER = """
import os, sys, time
from dataflow_grounding.engine.run_lock import only_run
how = {how!r}
with only_run({folder!r}):
    fork = os.fork() if how else None
    if fork == 0 and how == "a fork stays":
        time.sleep(600)
    if fork == 0:
        os._exit(0)
    if how == "a fork ends":
        os.waitpid(fork, 0)
    print(fork, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "results" / ".ckpt")


@pytest.fixture
def claim(folder: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The claim on a file system without flock."""

    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(run_lock, "CLAIM_SECONDS", 1.0)
    return Path(folder, "claim")


def holder(folder: str, how: str = "") -> Forked:
    return Forked([], first=HOLDER.format(folder=folder, how=how))


def is_free(folder: str) -> bool:
    try:
        with only_run(folder):
            return True
    except FolderTaken:
        return False


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_killed_whenever_that_is(
    folder: str,
) -> None:
    for moment in (0.0, 0.01, 0.02, 0.05):  # also before it has begun
        first = holder(folder)
        time.sleep(moment)
        is_free(folder)
        first.kill()
        first.communicate()
        assert is_free(folder)
    first = holder(folder)
    assert first.stdout.readline()
    with pytest.raises(FolderTaken, match="another run is working in"), only_run(folder):
        pass
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_a_fork_that_outlives_the_run_keeps_nobody_out(folder: str) -> None:
    first = holder(folder, "a fork stays")
    fork = int(first.stdout.readline())
    assert not is_free(folder)
    first.kill()
    first.wait()
    wait_until(lambda: is_free(folder))  # once the fork has had its turn
    os.kill(fork, 0)  # it lives
    os.kill(fork, signal.SIGKILL)
    first.communicate()


@pytest.mark.slow
def test_a_fork_that_ends_frees_nothing(folder: str) -> None:
    first = holder(folder, "a fork ends")
    assert first.stdout.readline()
    assert not is_free(folder)
    first.kill()
    first.communicate()


def test_a_folder_that_can_not_be_written_is_named(folder: str) -> None:
    Path(folder).parent.mkdir()
    Path(folder).write_text("a file")
    with pytest.raises(InputError, match=r"can't write in .*\.ckpt"), only_run(folder):
        pass


def test_who_holds_a_claim_puts_it_back(folder: str, claim: Path) -> None:
    with only_run(folder):
        held = claim.read_bytes()
        with pytest.raises(FolderTaken, match="another run is working in"), only_run(folder):
            pass
        assert claim.read_bytes() == held
    assert not claim.exists()
    assert is_free(folder)


def test_a_killed_runs_claim_keeps_nobody_out(folder: str, claim: Path) -> None:
    claim.parent.mkdir(parents=True)
    claim.write_text("1234 holds")
    assert is_free(folder)


def test_a_run_that_slept_is_told_that_another_has_its_folder(folder: str, claim: Path) -> None:
    with only_run(folder):
        check_held(folder)
        claim.write_text("another run's holds")

        def told() -> bool:
            try:
                check_held(folder)
            except TakenOver:
                return True
            return False

        wait_until(told)
    assert claim.read_text() == "another run's holds"
    with only_run(folder):
        check_held(folder)


@pytest.mark.usefixtures("claim")
def test_of_several_that_begin_at_once_one_gets_it(folder: str) -> None:
    together = threading.Barrier(6)
    over = threading.Event()
    outcomes: list[str] = []

    def take() -> None:
        together.wait()
        try:
            with only_run(folder):
                outcomes.append("held")
                over.wait()
        except FolderTaken:
            outcomes.append("refused")

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) == 6)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", *["refused"] * 5]
