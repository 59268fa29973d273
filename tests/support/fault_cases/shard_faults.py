"""Faults of shards and of folders from a stranger."""

from __future__ import annotations

import os

from dataflow_grounding.testing import on
from tests.support import faults
from tests.support.fault_cases.fault_case import Case, Outcome, Witness, at_work, calm, lost_rows
from tests.support.workplace import Done, Workplace, command

STEP = "step_1_grounding/annotations.jsonl"


def merged(place: Workplace) -> Done:
    return command(["merge", str(place.results), "--no-report", "--json"])


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
                ".ckpt/facts.json.part",
            ):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(victim, folder / name)
        assert place.run("--shard", "1/1").code == 0
        assert merged(place).code == 0
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
        before = witness.sent
        assert place.run("--shard", "1/2").code == 0
        assert witness.sent > before
        merged(place)
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
        assert merged(place).code == 0
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


SHARDS: list[Case] = [
    Case("links in place of files", "The run removes them and never follows them.", links),
    Case(
        "pictures replaced between shards",
        "The shard asks about them when it is run again.",
        replaced_between_shards,
    ),
    Case(
        "a readable reply in another shard",
        "`merge` takes it in place of an unreadable one.",
        better_in_others,
    ),
]
