"""Faults of shards and of folders from a stranger: kills while files are written, names, links,
damage, clocks.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import time

from dataflow_grounding.testing import faults, on
from tests.support.fault_cases.fault_case import (
    LOCAL_CLOCK,
    REFUSED,
    SAME_FILES,
    Case,
    Outcome,
    Witness,
    at_work,
    calm,
    goes_on,
    lost_rows,
    reached_by,
    undisturbed,
)
from tests.support.workplace import Done, Running, Workplace, command, ended, process

STEP = "step_1_grounding/annotations.jsonl"


def _merged(place: Workplace) -> Done:
    return command(["merge", str(place.results), "--no-report", "--json"])


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
            assert set(place.files()) <= {
                None,
                *undisturbed(count),
            }, "each file is whole, or not there"
        done = _merged(place)
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
            done = _merged(place)
            calm(done)
            assert (done.code, victim.read_text()) == (2, "mine\n"), (name, done)
        (shard / "run.json").write_text(json.dumps(run))
        assert _merged(place).code == 0
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
            done = _merged(place)
            calm(done)
            assert done.code == 2, done
            assert not place.files().annotations
        one.write_bytes(whole)
        assert _merged(place).code == 0
        assert place.files() == undisturbed(20)
        return Outcome(witness.sent, witness.twice, lost_rows(place, 20))


def links(place: Workplace, full: bool) -> Outcome:
    """Links to somebody's files are where a run, `merge`, `apply` and `report` are to write
    theirs.
    """
    with at_work(place, 6, 0) as witness:
        victim = place.folder / "precious.txt"
        victim.write_text("mine\n")
        names = [
            "annotations.jsonl.part",
            "failures.jsonl.part",
            "run.json.part",
            f"{STEP}.part",
            f"{STEP}.lines.part",
        ]
        for folder in (place.results, place.results / "shards" / "1-of-1"):
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(victim)
            for name in (
                "annotations.reviewed.jsonl.part",
                "report.html.part",
                ".ckpt/finished.json.part",
            ):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(victim, folder / name)
        assert place.run("--shard", "1/1").code == 0
        assert _merged(place).code == 0
        for arguments in (["report"], ["apply"]):
            calm(command([*arguments, str(place.results)]))
        assert place.run().code == 0
        assert victim.read_text() == "mine\n"
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


def replaced_between_shards(place: Workplace, full: bool) -> Outcome:
    """Pictures are replaced after one shard has seen them, and before the next begins."""
    with at_work(place, 0) as witness:
        names = [place.picture(f"p{number}.bmp") for number in range(8)]
        for name in names:
            os.utime(place.folder / name, (1e9, 1e9))
        place.rows(
            {"image_path": n, "image_id": f"r{number}", "caption": n}
            for number, n in enumerate(names)
        )
        assert place.run("--shard", "1/2").code == 0
        for name in names:
            place.picture(name, color="white")  # of the same size and time
            os.utime(place.folder / name, (1e9, 1e9))
        assert place.run("--shard", "2/2").code == 0
        done = _merged(place)
        assert "1-of-2 are not those that it has seen: run that shard again" in done.err, done
        before = witness.sent
        assert place.run("--shard", "1/2").code == 0
        assert witness.sent > before
        done = _merged(place)
        assert "not those" not in done.err, done
        return Outcome(witness.sent, witness.twice, lost_rows(place, 8))


def better_in_others(place: Workplace, full: bool) -> Outcome:
    """A shard's replies can't be read; another part of the run has asked again, and
    was answered.
    """
    place.many(6)
    with Witness([on(faults.says("?"), task="phrase_grounding")]) as witness:
        place.settings |= {
            "vlm.openai.base_url": witness.server.base_url,
            "workflow.max_attempts": 1,
        }
        assert place.run("--shard", "1/1").code == 4
        witness.rules.clear()
        assert place.run("--retry-failed").code == 0
        before = witness.sent
        done = place.run("--shard", "1/1")
        assert (done.code, witness.sent) == (0, before), done
        assert _merged(place).code == 0
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


JUMPS = """
import random, time
_true, _chance = time.time_ns, random.Random(3)
time.time_ns = lambda: _true() + _chance.choice((0, 1, -1)) * 86400 * 10**9 * _chance.randrange(400)
time.time = lambda: time.time_ns() / 1e9
"""


def clock_that_jumps(no_flock: bool, place: Workplace, full: bool) -> Outcome:
    """The clock jumps by up to a year with each look at it; pictures are of the next year; a run is
    killed.
    """
    from tests.support.fault_cases.lock_faults import NO_FLOCK, aged

    count = 40 if full else 20
    with at_work(place, count, 0.02) as witness:
        os.utime(place.folder / "a.jpg", (time.time() + 3e7,) * 2)
        code = JUMPS + (NO_FLOCK.format(number=38) if no_flock else "")
        running = place.start(first=code)
        reached_by(running, witness, 20)
        running.kill()
        running.communicate()
        if no_flock:
            aged(place.results / ".ckpt" / "lock.touched")
        done = ended(place.start(first=code))
        calm(done)
        assert done.code == 0, done
        again = ended(place.start(first=code))
        assert again.summary["requests"] == 0, again
        return goes_on(place, witness, count, allowed=8)


SHARDS: list[Case] = [
    Case("kill -9: shards and merge", SAME_FILES, killed_while_writing),
    Case(
        "a shard: names others' files",
        REFUSED,
        names_of_others,
    ),
    Case(
        "a shard: damaged",
        REFUSED,
        damaged_places,
    ),
    Case(
        "links in place of files",
        "The run removes them and never follows them.",
        links,
    ),
    Case(
        "pictures replaced between shards",
        "`merge` names the shard to run again.",
        replaced_between_shards,
    ),
    Case(
        "a readable reply in another shard",
        "`merge` takes it in place of an unreadable one.",
        better_in_others,
    ),
    Case(
        "a clock: jumps (pictures of next year)",
        LOCAL_CLOCK,
        functools.partial(clock_that_jumps, False),
    ),
    Case(
        "a clock: jumps (no flock)",
        LOCAL_CLOCK,
        functools.partial(clock_that_jumps, True),
    ),
]
