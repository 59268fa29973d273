"""Faults of shards: kills while files are written, names of others' files, damage; tests/scale has
more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time

from tests.support.fault_cases.fault_case import (
    REFUSED,
    SAME_FILES,
    Case,
    Outcome,
    at_work,
    calm,
    lost_rows,
    undisturbed,
)
from tests.support.fault_cases.shard_faults import STEP, merged
from tests.support.workplace import Running, Workplace, ended, process


def _killed_after(running: Running, seconds: float) -> bool:
    """Whether a process was still there to be killed."""
    time.sleep(seconds)
    if running.poll() is None:
        os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    return running.returncode == -signal.SIGKILL


def killed_while_writing(place: Workplace, full: bool) -> Outcome:
    """kill -9 at random moments of three shards (quickly: of one) and of `merge`, most of them when
    files are written.
    """
    count, times = (60, 8) if full else (20, 1)
    chance, kills = random.Random(7), 0
    with at_work(place, count, 0) as witness:
        for shard in ("1/3", "2/3", "3/3"):
            if not full and shard != "2/3":
                assert place.run("--shard", shard).code == 0
                continue
            start = time.monotonic()
            assert ended(place.start("--shard", shard)).code == 0
            takes = time.monotonic() - start
            for _ in range(times):
                written = (
                    place.results / "shards" / shard.replace("/", "-of-") / STEP.partition("/")[0]
                )
                shutil.rmtree(written, ignore_errors=True)  # so that all is written again
                kills += _killed_after(
                    place.start("--shard", shard), chance.uniform(0.5, 1.0) * takes
                )
            assert ended(place.start("--shard", shard)).code == 0
        for _ in range(times):
            merging = process(["merge", str(place.results), "--no-report"])
            kills += _killed_after(merging, chance.uniform(0.4, 0.9) * takes)
            assert set(place.files()) <= {None, *undisturbed(count)}, (
                "each file is whole, or not there"
            )
        done = merged(place)
        assert done.code == 0, done
        assert place.files() == undisturbed(count)
        assert not full or kills
        assert not list(place.results.rglob("*.part"))
        return Outcome(witness.sent, witness.twice, lost_rows(place, count), 8 * kills)


def names_of_others(place: Workplace, full: bool) -> Outcome:
    """A shard's run.json names files outside of the results; what it would write is next to it."""
    with at_work(place, 6, 0) as witness:
        place.results = place.folder / "a" / "b" / "results"
        assert place.run("--shard", "1/1").code == 0
        shard = place.results / "shards" / "1-of-1"
        run = json.loads((shard / "run.json").read_text())
        victim = place.folder / "a" / ".profile"
        for name in (
            "../../.profile",
            str(victim),
            "step_1_x/../../../.profile",
            ".ckpt/lock",
            "run.json",
            "a\nb",
        ):
            victim.write_text("mine\n")
            changed = {**run["shard"], "files": [run["shard"]["files"][0], name]}
            for unknown in ("digests", "bytes"):
                changed.pop(unknown, None)
            (shard / "run.json").write_text(json.dumps({**run, "shard": changed}))
            if ".profile" in name and not os.path.isabs(name):
                brought = os.path.normpath(shard / name)
                for ending in ("", ".lines"):
                    shutil.copy(f"{shard / STEP}{ending}", f"{brought}{ending}")
            done = merged(place)
            calm(done)
            assert (done.code, victim.read_text()) == (2, "mine\n"), (name, done)
        (shard / "run.json").write_text(json.dumps(run))
        assert merged(place).code == 0
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


def damaged_places(place: Workplace, full: bool) -> Outcome:
    """The file that says where a shard's rows were is damaged: turned round, cut, another's."""
    with at_work(place, 20, 0) as witness:
        for number in (1, 2):
            assert place.run("--shard", f"{number}/2").code == 0
        one, two = (
            place.results / "shards" / f"{number}-of-2" / f"{STEP}.lines" for number in (1, 2)
        )
        whole = one.read_bytes()
        for data in (
            whole[::-1],
            whole[:-8],
            whole[:-3],
            two.read_bytes(),
            b"\0" * len(whole),
            b"",
        ):
            one.write_bytes(data)
            done = merged(place)
            calm(done)
            assert done.code == 2, done
            assert not place.files().annotations
        one.write_bytes(whole)
        assert merged(place).code == 0
        assert place.files() == undisturbed(20)
        return Outcome(witness.sent, witness.twice, lost_rows(place, 20))


OF_SHARDS: list[Case] = [
    Case("kill -9: shards and merge", SAME_FILES, killed_while_writing),
    Case("a shard: names others' files", REFUSED, names_of_others),
    Case("a shard: damaged", REFUSED, damaged_places),
]
