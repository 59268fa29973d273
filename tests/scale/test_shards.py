"""Shards: each works on its part, `merge` leaves what one machine would have left, and no reply is
paid for twice.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.testing import Fault, LoopbackServer, ReceivedRequest
from tests.support.faults import refusal
from tests.support.workplace import (
    STEPS,
    Done,
    Running,
    Workplace,
    caption,
    command,
    ended,
    left,
    tar_of,
)

ROWS = 24


def rows(place: Workplace) -> list[dict[str, Any]]:
    """Rows with their own ids or without, several of one picture, broken ones, one whose picture is
    missing.
    """
    place.picture("a.jpg")
    place.picture("deep/b c.jpg")
    made: list[dict[str, Any]] = []
    for n in range(ROWS):
        own: dict[str, Any] = {"image_id": n} if n % 3 else {}
        picture = "gone.jpg" if n == 13 else "deep/b c.jpg" if n % 2 else "a.jpg"
        made.append({"image_path": picture, "caption": caption(n), **own})
    return [*made[:15], {"image_path": "a.jpg"}, *made[15:]]


def with_rows(place: Workplace, server: LoopbackServer) -> Workplace:
    place.settings["vlm.openai.base_url"] = server.base_url
    place.rows([*map(json.dumps, rows(place)), "{broken"])
    return place


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    return with_rows(workplace, server)


class Alone(NamedTuple):
    """What one machine leaves of the rows, with so many requests, and what it says."""

    files: dict[str, bytes]
    requests: int
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def alone(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    place = with_rows(Workplace(tmp_path_factory.mktemp("alone") / "work"), one_server)
    done = place.run()
    assert done.code == 1, done  # the rows that can't be done
    return Alone(left_in(place), done.summary["requests"], done.summary)


def left_in(place: Workplace) -> dict[str, bytes]:
    """What the results have, without the name of the place's folder."""
    folder = str(place.folder).encode()
    return {name: data.replace(folder, b"") for name, data in left(place.results).items()}


def in_folder(place: Workplace, name: str) -> Workplace:
    """The same input and settings, with other results."""
    place.results = place.folder / name
    return place


def run_shards(place: Workplace, count: int, **settings: Any) -> list[Done]:
    """All shards of a split, one after the other."""
    numbers = range(1, count + 1)
    return [place.run("--shard", f"{number}/{count}", **settings) for number in numbers]


def merged(place: Workplace) -> Done:
    return command(["merge", str(place.results), "--no-report", "--json"])


def test_shards_killed_side_by_side_go_on_and_are_merged_to_what_one_machine_leaves(
    place: Workplace, server: LoopbackServer, alone: Alone
) -> None:
    """What is paid for again is at most what was in flight: 3 requests for each of two."""
    running: list[Running] = []

    def kill(request: ReceivedRequest) -> None:
        if request.index >= 15:
            for one in running:
                one.kill()

    server.faults, server.latency = kill, 0.05
    for number in (1, 2):
        running.append(place.start("--shard", f"{number}/3"))
    # on a busy machine one may be done before the other begins
    assert -9 in [ended(one).code for one in running]
    server.faults, server.latency = (), 0.0
    assert {done.code for done in run_shards(place, 3)} <= {0, 1}
    assert server.count() <= alone.requests + 3 * 2
    done = merged(place)
    assert done.code == 1, done
    assert left_in(place) == alone.files
    run = place.run_json()
    assert run["shards"] == 3
    for name in ("images", "done", "failed", "expressions", "failures"):
        assert done.summary[name] == alone.summary[name], name
    assert sum(step["requests"] for step in run["steps"]) == alone.requests


def test_merge_says_what_steps_cost_at_the_prices_of_the_spec(
    place: Workplace, server: LoopbackServer
) -> None:
    """And how replies were read, which each shard counts."""
    place.many(10)
    no_answer = Fault(change=lambda answer: replace(answer, text="no answer"))
    server.faults = lambda request: no_answer if request.index == 0 else None
    place.settings["vlm.prices"] = {"input": 1.0, "output": 2.0}
    run_shards(place, 2)
    summary = merged(place).summary
    assert summary["requests"] == summary["answered"] == 21
    assert summary["unreadable_reasons"] == {"no answer": 1}
    spent = summary["cost_usd"]
    steps = place.run_json()["steps"]
    assert sum(step["cost_usd"] for step in steps) == pytest.approx(spent, abs=1e-5)
    cost = command(["cost", str(place.results), "--json"]).summary
    assert cost["steps"] == steps


def test_the_estimate_knows_what_shards_have_paid_for(
    place: Workplace, server: LoopbackServer
) -> None:
    run_shards(place, 2)
    done, anew = (
        command(
            ["estimate", "-e", str(place.spec(**{"workflow.force_reprocess": again})), "--json"]
        ).summary
        for again in (False, True)
    )
    # rows that can't be done count as rows to come
    assert done["requests"] <= 4
    assert done["stored"] == server.count()
    assert (anew["requests"], anew["stored"]) == (pytest.approx(server.count(), abs=4), 0)


def test_a_folder_goes_on_as_shards_as_more_shards_and_back(
    place: Workplace, server: LoopbackServer, alone: Alone
) -> None:
    for how in ((), ("--shard", "1/2")):
        stopped = place.run(*how, **{"workflow.max_requests": 10})
        assert stopped.code == 3, stopped
    place.run("--shard", "1/3")
    place.run("--shard", "2/3")
    back = place.run()
    assert back.code == 1, back
    assert server.count() == alone.requests
    assert left_in(place) == alone.files
    place.run("--shard", "3/3")
    assert "of 2 and of 3: move those of one split" in merged_err(place)
    shutil.rmtree(place.results / "shards" / "1-of-2")
    assert merged(place).code == 1
    assert server.count() == alone.requests
    assert left_in(place) == alone.files


def test_what_the_whole_was_refused_or_answered_shards_ask_again(
    place: Workplace, server: LoopbackServer
) -> None:
    """In folders whose own store holds nothing yet; from then on the later answer counts, also for
    other shards.
    """
    place.many(8)
    server.faults = lambda request: refusal() if caption(5) in request.text else None
    assert place.run().code == 1
    once, server.faults = server.count(), ()
    anew: dict[str, Any] = {"workflow.force_reprocess": True}
    for arguments, settings, sent in ((["--retry-failed"], {}, 2), ([], anew, once + 1)):
        before = server.received
        for number in (1, 2):
            done = place.run("--shard", f"{number}/2", *arguments, **settings)
            assert done.code == 0, done
        assert server.received - before == sent
    before = server.received
    place.rows(
        [
            *map(json.loads, place.input.read_text().splitlines()),
            {"image_path": "a.jpg", "caption": caption(9)},
        ]
    )
    done = place.run()
    assert done.code == 0, done
    assert server.received - before == 2


def test_rows_added_later_move_no_other(place: Workplace, server: LoopbackServer) -> None:
    run_shards(place, 3)
    before = server.count()
    with place.input.open("a") as file:
        row = {"image_path": "a.jpg", "image_id": "new", "caption": caption(1000)}
        file.write(f"\n{json.dumps(row)}\n")
    assert merged(place).code in (0, 1)
    codes = [place.run("--shard", f"{number}/3").code for number in (1, 2)]
    assert "3-of-3 has seen" in merged_err(place)
    place.run("--shard", "3/3")
    assert server.count() == before + 2, codes
    assert merged(place).code == 1
    assert len(place.annotations()) == ROWS


def test_older_shards_do_not_replace_what_a_later_run_of_the_whole_left(place: Workplace) -> None:
    place.many(10)
    run_shards(place, 2)
    assert merged(place).code == 0
    place.many(15)
    assert place.run().code == 0
    assert "began after all shards: remove it" in merged_err(place)
    assert len(place.annotations()) == 15
    run_shards(place, 2)
    assert merged(place).code == 0
    assert merged(place).code == 0
    assert len(place.annotations()) == 15


def test_a_merged_table_of_classes_counts_a_thing_once(place: Workplace) -> None:
    """Rows of one picture have the same boxes."""
    place.settings["data.classes"] = ["cup", "plate"]
    place.many(6)
    whole = in_folder(place, "alone").run().summary["classes"]
    run_shards(in_folder(place, "results"), 2)
    assert merged(place).summary["classes"] == whole
    assert [row["boxes"] for row in whole] == [1, 1]


def test_where_all_records_failed_merge_ends_as_one_machine_does(place: Workplace) -> None:
    place.rows({"image_path": f"gone{n}.jpg", "caption": caption(n)} for n in range(6))
    assert in_folder(place, "alone").run().code == 4
    assert [done.code for done in run_shards(in_folder(place, "results"), 2)] == [4, 4]
    assert merged(place).summary["tokens"] == {"input": 0, "cached": 0, "output": 0}
    done = command(["merge", str(place.results)])
    assert done.code == 4, done
    assert f"no results were written: see {place.results}/failures.jsonl" in done.out
    assert left(place.results)["failures.jsonl"] == left(place.folder / "alone")["failures.jsonl"]


def test_merge_says_which_output_format_is_still_to_be_written(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(10)
    code = "def write(step):\n    open(step.storage.output_path + '.mine', 'w').write('here')\n"
    (place.folder / "writer_of_mine.py").write_text(code)
    for settings in ({}, {"workflow.output_format": "writer_of_mine:write"}):
        place.settings.update(settings)
        assert [done.code for done in run_shards(place, 2)] == [0, 0]
        done = merged(place)
        assert done.code == 0
        assert ("writer_of_mine:write writes in addition" in done.err) == bool(settings)
    whole, before = left(place.results), server.count()
    assert place.run().code == 0
    assert (left(place.results), server.count()) == (whole, before)
    assert len([*place.results.glob("step_*/*.mine")]) == 2


def test_merge_has_the_pictures_of_an_input_that_holds_them(place: Workplace) -> None:
    members = []
    for n, color in enumerate(("red", "navy", "green", "gold", "black", "pink")):
        picture = place.folder / place.picture("b.jpg", color=color)
        members += [(f"{n}.jpg", picture.read_bytes()), (f"{n}.txt", caption(n).encode())]
    place.input = tar_of(place.folder / "some.tar", members)
    assert in_folder(place, "alone").run().code == 0
    run_shards(in_folder(place, "results"), 2)
    assert merged(place).code == 0
    assert left(place.results) == left(place.folder / "alone")
    pictures = {path.name: path.read_bytes() for path in (place.results / "pictures").iterdir()}
    assert pictures == {
        path.name: path.read_bytes() for path in (place.folder / "alone" / "pictures").iterdir()
    }
    shutil.rmtree(place.results / "shards")
    moved = place.results.rename(place.folder / "moved")
    assert json.loads((moved / "run.json").read_text())["image_folders"][-1] == str(place.results)
    done = command(["export", str(moved), "--format", "coco", "-o", str(place.folder / "coco")])
    assert done.code == 0, done


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b"])
def test_a_wrong_shard_is_refused(place: Workplace, text: str) -> None:
    done = place.run("--shard", text)
    assert done.code == 2
    assert "--shard" in done.err


def test_a_shard_killed_before_its_last_file_is_finished_by_the_same_command(
    place: Workplace,
) -> None:
    """The files are all there, and `run.json` is that of the run before, which was stopped."""
    place.many(20)
    said = place.results / "shards" / "1-of-2" / "run.json"
    assert place.run("--shard", "1/2", **{"workflow.max_requests": 10}).code == 3
    stopped = said.read_text()
    run_shards(place, 2)
    said.write_text(stopped)
    again = place.run("--shard", "1/2")
    assert again.summary["already_complete"]
    assert json.loads(said.read_text())["state"] == "finished"
    assert merged(place).code == 0
    assert place.run("--shard", "1/2").summary["already_complete"]


OWN = """
from dataflow_grounding import Pipeline, operator

@operator(reads=["caption"], writes=["words"])
def count(record):
    return {"words": len(record["caption"].split()) + ADDED}

class Mine(Pipeline):
    name = "mine"

    def __init__(self, storage, serving, timeout=1):
        self.storage = storage

    def forward(self):
        count.run(self.storage.step())
"""


def test_shards_of_other_code_or_settings_are_told(place: Workplace) -> None:
    place.many(8)
    mine = {
        "vlm": {"backend": "embedded"},
        "data": {"input_jsonl": str(place.input)},
        "settings": {"timeout": 1},
    }
    spec = {"results_dir": str(place.results), "autolabel_type": "counting:Mine", "mine": mine}
    (place.folder / "own.yaml").write_text(json.dumps(spec))
    for added, timeout, said in (
        (1, 1, ""),
        (2, 1, "another code of an operator"),
        (1, 2, "mine.settings.timeout"),
    ):
        for number, other in (("1/2", 1), ("2/2", added)):
            (place.folder / "counting.py").write_text(OWN.replace("ADDED", str(other)))
            given = f"mine.settings.timeout={timeout if number == '2/2' else 1}"
            line = ["generate", "-e", str(place.folder / "own.yaml"), given, "--no-report"]
            assert command([*line, "--shard", number]).code == 0
        done = merged(place)
        assert (done.code, said in done.err) == (2 if said else 0, True), done


def test_the_steps_of_a_shard_begin_with_the_input(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(10)
    assert all(done.code == 0 for done in run_shards(place, 2, **{"workflow.steps": ["0"]}))
    assert merged(place).code == 0
    refused = place.run("--shard", "1/2", **{"workflow.steps": ["1"]})
    assert refused.code == 2
    assert "a shard begins with the input" in refused.err
    assert server.count() == 10
    assert all(done.code == 0 for done in run_shards(place, 2, **{"workflow.steps": ["0", "1"]}))
    assert merged(place).code == 0
    assert server.count() == 20


def test_what_is_missing_is_named(place: Workplace) -> None:
    assert "no shards" in merged_err(place)
    place.run("--shard", "1/3")
    assert "--shard 2/3, 3/3" in merged_err(place)
    place.run("--shard", "2/3")
    place.run("--shard", "3/3", **{"workflow.max_requests": 6})
    assert "3-of-3 was stopped" in merged_err(place)


def test_merge_refuses_what_no_one_machine_could_leave(
    place: Workplace, server: LoopbackServer
) -> None:
    place.run("--shard", "1/2")
    place.run("--shard", "2/2", **{"vlm.openai.temperature": 0.9})
    assert "another image_grounding.vlm.openai.temperature" in merged_err(place)
    place.run("--shard", "2/2", **{"workflow.output_format": "jsonl"})
    assert "workflow.output_format than" in merged_err(place)
    sent = server.count()
    # a server of its own is no matter, and a complete shard takes on what the spec states now
    place.run("--shard", "2/2", **{"vlm.openai.base_url": f"{server.base_url}/"})
    assert merged(place).code == 1
    assert server.count() == sent
    whole = left(place.results)
    [step, *_] = sorted((place.results / "shards" / "1-of-2").glob("step_1*/*.lines"))
    step.rename(place.folder / "aside")
    assert "copy it again, whole" in merged_err(place)
    assert left(place.results) == whole
    (place.folder / "aside").rename(step)
    [first] = (place.results / "shards" / "1-of-2").glob("step_0*/annotations.jsonl")
    # as a run that was killed after it leaves it
    first.write_text((found := first.read_text()).replace("}\n", " }\n"))
    assert "copy it again, whole" in merged_err(place)
    first.write_text(found)
    text = place.input.read_text()
    place.input.write_text(text.replace('"caption": "', '"caption": "so ', 3))
    place.run("--shard", "1/2")
    assert "another version of the input" in merged_err(place)
    place.run("--shard", "2/2")
    assert merged(place).code == 1


def test_shards_that_calibrated_on_other_days_are_merged(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.many(10)
    del place.settings["vlm.box_format"]
    place.run("--shard", "1/2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "another machine"))
    place.run("--shard", "2/2")
    path = place.results / "shards" / "2-of-2" / "run.json"
    run = json.loads(path.read_text())
    assert run["box_format"]["from"].startswith("calibrated on ")
    run["box_format"]["from"] = "calibrated on 2026-01-01, error 0.3 px"
    path.write_text(json.dumps(run))
    assert merged(place).code == 0
    run["box_format"]["name"] = "xyxy_1000"
    path.write_text(json.dumps(run))
    assert "another box_format" in merged_err(place)


def test_shards_of_two_versions_of_an_input_are_told_apart_by_its_rows(place: Workplace) -> None:
    """Also where both have as many bytes and rows: two captions were exchanged."""
    names = [place.picture(f"p{n}.jpg") for n in range(8)]
    made = [{"image_path": name, "caption": caption(n)} for n, name in enumerate(names)]
    of = [
        next(i for i in (1, 2) if Shard(i, 2).has(Row(1, row), "image_path", None)) for row in made
    ]
    first, second = of.index(1), of.index(2)
    place.rows(made)
    place.run("--shard", "1/2")
    made[first]["image_path"], made[second]["image_path"] = names[second], names[first]
    place.rows(made)
    place.run("--shard", "2/2")
    assert "another version of the input" in merged_err(place)
    run_shards(place, 2)
    assert merged(place).code == 0
    assert sorted(row["caption"] for row in place.annotations()) == [caption(n) for n in range(8)]


def test_a_shard_whose_steps_run_one_after_the_other_says_what_it_has_read_and_what_is_left(
    place: Workplace,
) -> None:
    place.many(40)
    place.input.with_name(f"{place.input.name}.lines").write_text("a file of the user's own")
    place.settings["workflow.stream"] = False
    stopped = place.run("--shard", "1/2", **{"workflow.max_requests": 60})  # in the second step
    assert stopped.code == 3, stopped
    assert [done.code for done in run_shards(place, 2)] == [0, 0]
    shard = place.results / "shards" / "1-of-2"
    rows = len((shard / "annotations.jsonl").read_text().splitlines())
    assert 15 < rows < 28  # so that its 30 requests end among those of the second step
    assert f"the rest takes about {2 * rows - 30} more requests" in stopped.err
    assert merged(place).code == 0


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("results_dir", "https://bucket/x", "results can't be written to https://bucket/x"),
        ("results_dir", "s3:/bucket/x", "name a folder, or a bucket as s3://bucket/run"),
        ("results_dir", "s3://AKIAKEYKEY:SECRETSECRETKEY@bucket/x", "keys belong into the environment"),
        ("image_grounding.vlm.openai.endpoints", '[{base_url: ""}]', "base_url"),
        ("image_grounding.vlm.openai.endpoints.0.base_url", "http://127.0.0.1:9/v1", "give the whole list"),
    ],
)  # fmt: skip
def test_places_that_are_none_are_refused(
    place: Workplace, key: str, value: str, why: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if key.endswith("0.base_url"):
        place.settings["vlm.openai.endpoints"] = [
            {"base_url": place.settings.pop("vlm.openai.base_url")}
        ]
    done = command([*place.arguments(), f"{key}={value}"])
    assert done.code == 2, done
    assert why in done.err
    assert "Internal error" not in done.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"SECRETSECRETKEY" not in file.read_bytes()


def merged_err(place: Workplace) -> str:
    place.results.mkdir(exist_ok=True)
    done = merged(place)
    assert done.code == 2, done
    return done.err


@pytest.mark.slow
def test_all_rows_of_a_picture_are_in_one_shard() -> None:
    for n in range(200):
        homes = {
            tuple(
                number
                for number in range(1, 6)
                if Shard(number, 5).has(Row(line, row), "image_path", "/data")
            )
            for line, row in enumerate(
                [
                    {"image_path": f"a/{n}.jpg"},
                    {"image_path": f"/data/a/{n}.jpg"},
                    *({"image_id": f"a/{n}{ending}"} for ending in ("@2", "@2@2", "~2", "~2@3")),
                ]
            )
        }
        assert len(homes) == 1
        assert len(next(iter(homes))) == 1


HOSTILE = ["../../../.profile", "/", "step_1_x\\..\\..\\x", "run.json", 7]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_merge_writes_no_file_but_those_of_steps(place: Workplace) -> None:
    in_folder(place, "a/b/c/results").many(2)
    assert place.run("--shard", "1/1").code == 0
    shard = place.results / "shards" / "1-of-1"
    whole = json.loads((shard / "run.json").read_text())
    for name in HOSTILE:
        name = str(place.folder / "absolute") if name == "/" else name
        run = json.loads(json.dumps(whole))
        run["shard"]["files"][-1] = name
        if isinstance(name, str) and not os.path.exists(brought := os.path.normpath(shard / name)):
            os.makedirs(os.path.dirname(brought), exist_ok=True)
            for ending in ("", ".lines"):
                # what it would write stands there, as an archive can bring it
                shutil.copy(f"{shard / STEPS[1]}/annotations.jsonl{ending}", f"{brought}{ending}")
        (shard / "run.json").write_text(json.dumps(run))
        before = files_of(place.folder.parent)
        err = merged_err(place)
        assert "run.json" in err, name
        assert len(err.strip().splitlines()) == 1, name
        assert files_of(place.folder.parent) == before, name


OF_OTHER_KINDS: list[tuple[tuple[str, ...], Any]] = [
    (("box_format",), "xyxy_px"),
    (("shard", "rows_of_all"), "6"),
    (("summary", "images"), None),
]


def test_merge_refuses_a_run_json_of_other_kinds_in_one_line(place: Workplace) -> None:
    place.many(4)
    assert [done.code for done in run_shards(place, 2)] == [0] * 2
    path = place.results / "shards" / "2-of-2" / "run.json"
    whole = path.read_text()
    for keys, value in OF_OTHER_KINDS:
        run = inner = json.loads(whole)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(run))
        before = files_of(place.folder)
        err = merged_err(place)
        assert str(path.parent.parent) in err, (keys, value)
        assert len(err.strip().splitlines()) == 1, (keys, value)
        assert files_of(place.folder) == before, (keys, value)


def test_each_shard_has_its_part_of_the_limits(place: Workplace, server: LoopbackServer) -> None:
    place.many(60)
    server.latency = 0.02
    for number, part in ((1, 4), (2, 3), (3, 3)):
        before = server.count()
        done = place.run("--shard", f"{number}/3", **{"workflow.max_requests": 10})
        assert done.code == 3, done
        assert server.count() - before == part
        assert f"shard {number}/3 has its part of the limits: max_workers 3 of 8, " in done.err or (
            number == 3 and "max_workers 2 of 8, " in done.err
        )
        assert f"max_requests {part} of 10" in done.err
    assert server.max_in_flight <= 3
    prices = {"vlm.prices": {"input": 100.0, "output": 1000.0}, "vlm.openai.max_tokens": 300}
    done = place.run("--shard", "1/3", "--budget-usd", "6", **prices)
    assert done.code == 3, done
    assert "budget_usd 2 of 6" in done.err
    assert 0.5 < done.summary["cost_usd"] <= 2
    before = server.count()
    one_of_many = place.run("--shard", "3/12", **{"workflow.max_requests": 2})
    assert one_of_many.code == 3, one_of_many
    assert "max_workers 1 of 8, max_requests 0 of 2" in one_of_many.err
    assert server.count() == before
