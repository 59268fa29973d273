"""`tune`: the best way of asking a model, found out on pictures with gold."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.places.waiting import wait_until
from benchmarks.places.workplace import Done, Workplace, command, ended, process
from benchmarks.stand_ins.asking_model import AskingModel
from benchmarks.stand_ins.check_quality import scenes
from dataflow_grounding.extras.testing import LoopbackServer, faults, on

pytestmark = pytest.mark.slow

KEY = "sk-of-tuning"
CANDIDATES = """
- {name: loudly, set: {workflow.guidance: LOUDLY}}
- {name: softly, set: {workflow.guidance: SOFTLY}}
"""
Gold = list[dict[str, Any]]


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Gold:
    return scenes(tmp_path_factory.mktemp("pictures"), 20)


@pytest.fixture
def here(tmp_path: Path, gold: Gold, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with gold and candidates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DF_API_KEY", KEY)
    write_gold(tmp_path / "gold.jsonl", gold)
    (tmp_path / "ways.yaml").write_text(CANDIDATES)
    return tmp_path


def write_gold(path: Path, gold: Gold) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in gold))


def served(accuracy: dict[str, float]) -> LoopbackServer:
    return LoopbackServer(AskingModel(accuracy), key=KEY, keep_bodies=True)


def spec_at(here: Path, server: LoopbackServer, **settings: Any) -> str:
    place = Workplace(here, server.base_url, **{"vlm.box_format": "xyxy_1000", **settings})
    place.rows([{"image_path": "a.jpg", "caption": "A box."}])
    return str(place.spec())


def tune(spec: str, *arguments: str) -> Done:
    return command(["tune", spec, "--gold", "gold.jsonl", "--candidates", "ways.yaml", *arguments])


def test_finds_the_better_way_leaves_it_for_generate_and_sends_nothing_twice(here: Path) -> None:
    with served({"": 0.4, "LOUDLY": 0.9, "SOFTLY": 0.4}) as server:
        spec = spec_at(here, server)
        done = tune(spec, "--json")
        assert done.code == 0, done
        sent = server.count()
        assert done.summary["chosen"] == "loudly"
        assert done.summary["requests"] == sent <= 160
        files = {path: path.read_bytes() for path in here.glob("tuning/t*.*")}
        assert len(files) == 3
        again = tune(spec, "--json")
        assert again.summary == done.summary
        assert server.count() == sent
        assert files == {path: path.read_bytes() for path in here.glob("tuning/t*.*")}
        planned = command(["estimate", "-e", spec, "-e", "tuning/tuned.yaml", "--json"])
    tuned = yaml.safe_load((here / "tuning/tuned.yaml").read_text())
    assert tuned == {"image_grounding": {"workflow": {"guidance": "LOUDLY"}}}
    assert planned.code == 0, planned
    page = (here / "tuning/tuning.html").read_text()
    assert "loudly" in page
    assert "guidance: LOUDLY" in page
    for path in here.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_asks_about_nothing_but_the_gold_of_which_it_knows_the_answers(here: Path) -> None:
    with served({"": 0.5, "LOUDLY": 0.5, "SOFTLY": 0.5}) as server:
        assert tune(spec_at(here, server)).code == 0
        asked = {request.task for request in server.requests}
        phrases = {p["text"] for r in server.requests for p in r.input["phrases"]}
    assert asked == {"phrase_grounding"}
    assert phrases == {e["text"] for line in read(here / "gold.jsonl") for e in line["expressions"]}


def test_spec_stays_as_it_is_where_no_way_is_better(here: Path) -> None:
    with served({"": 0.7, "LOUDLY": 0.3, "SOFTLY": 0.3}) as server:
        done = tune(spec_at(here, server))
    assert done.code == 0, done
    assert "The spec's own way stays" in done.out
    assert yaml.safe_load((here / "tuning/tuned.yaml").read_text()) == {"image_grounding": {}}


def test_bound_is_said_before_anything_is_sent_and_kept(here: Path) -> None:
    with served({"": 0.5, "LOUDLY": 0.5, "SOFTLY": 0.5}) as server:
        spec = spec_at(here, server, **{"vlm.prices": {"input": 1.0, "output": 2.0}})
        said = tune(spec, "--estimate", "--json", "--max-requests", "30")
        assert (said.code, server.count()) == (0, 0)
        assert said.summary["max_requests"] == 30
        assert said.summary["max_usd"] > 0
        done = tune(spec, "--json", "--max-requests", "30")
        assert server.count() <= 30
        assert done.summary["cost_usd"] <= said.summary["max_usd"]
        page = (here / "tuning/tuning.html").read_text()
        assert f"{done.summary['requests']} requests of at most 30" in page
        assert f"{done.summary['cost_usd']:.4f} USD" in page
        for way in done.summary["ways"].values():
            assert f">{way['score']:.3f}</td>" in page
            if way["interval"]:
                low, high = way["interval"]
                assert f">{low:+.3f} to {high:+.3f}</td>" in page
        sent = server.count()
        assert tune(spec, "--json", "--max-requests", "30").summary == done.summary
        assert server.count() == sent


def test_retries_count_for_the_budget(here: Path) -> None:
    model = AskingModel({"": 0.5, "LOUDLY": 0.5, "SOFTLY": 0.5})
    garbled = on(faults.says("no boxes today"), share=0.5)
    with LoopbackServer(model, faults=[garbled], key=KEY, keep_bodies=True) as server:
        done = tune(spec_at(here, server), "--json", "--max-requests", "40")
        assert done.code == 0, done
        assert server.count() <= 40
        assert done.summary["ended"] == "the budget of requests was spent"


def test_requests_go_to_the_ways_and_one_check_to_the_box_format(here: Path) -> None:
    """A run checks it by a probe picture; a round is a run, and there are three for each way."""
    with served({"": 0.5, "LOUDLY": 0.5, "SOFTLY": 0.5}) as server:
        done = tune(spec_at(here, server, **{"vlm.check_every": 100}), "--json")
        assert done.code == 0, done
        probes = [request for request in server.requests if "rectangle" in request.text]
        assert len(probes) == 1
        assert "LOUDLY" not in probes[0].text
        assert "SOFTLY" not in probes[0].text
        own, *others = done.summary["ways"].values()
        assert own["requests"] == own["pictures"] + 1
        assert all(way["requests"] == way["pictures"] for way in others)
        assert done.summary["requests"] == server.count()


def test_check_of_the_box_format_counts_for_the_budget(here: Path) -> None:
    """Three ways, 15 pictures and a check: 46 requests, and the race has all that was paid for."""
    with served({"": 0.5, "LOUDLY": 0.5, "SOFTLY": 0.5}) as server:
        spec = spec_at(here, server, **{"vlm.check_every": 100})
        done = tune(spec, "--json", "--max-requests", "46", "--pictures", "15")
        assert done.code == 0, done
        assert server.count() == sum(way["pictures"] for way in done.summary["ways"].values()) + 1
    assert done.summary["ended"] == "all pictures were asked about"


def test_scores_that_were_paid_for_count_where_the_budget_ends_within_a_round(here: Path) -> None:
    def softly(request: Any) -> bool:
        return "SOFTLY" in request.text

    garbled = on(faults.says("no boxes today"), where=softly)
    model = AskingModel({"": 0.2, "LOUDLY": 0.95, "SOFTLY": 0.2})
    with LoopbackServer(model, faults=[garbled], key=KEY, keep_bodies=True) as server:
        spec = spec_at(here, server)
        done = tune(spec, "--json", "--max-requests", "30")
        assert done.code == 0, done
        sent = server.count()
        assert sent <= 30
        assert done.summary["ended"] == "the budget of requests was spent"
        assert [way["pictures"] for way in done.summary["ways"].values()] == [8, 8, 0]
        assert done.summary["chosen"] == "loudly"
        assert tune(spec, "--json", "--max-requests", "30").summary == done.summary
        assert server.count() == sent


def test_killed_call_goes_on_and_pays_nothing_twice(here: Path) -> None:
    accuracy = {"": 0.5, "LOUDLY": 0.6, "SOFTLY": 0.5}
    with served(accuracy) as server:
        spec = spec_at(here, server)
        whole = tune(spec, "--json", "-o", "whole")
        needed = server.count()
        arguments = ["tune", spec, "--gold", "gold.jsonl", "--candidates", "ways.yaml"]
        child = process(arguments, cwd=here, env={**os.environ, "DF_API_KEY": KEY})
        wait_until(lambda: server.count() >= needed + 12, child)
        child.send_signal(signal.SIGKILL)
        ended(child)
        done = tune(spec, "--json")
        assert done.summary == whole.summary
        assert server.count() <= 2 * needed + 8  # those in flight when it was killed


def test_way_that_the_endpoint_refuses_leaves_and_is_not_asked_again(here: Path) -> None:
    (here / "ways.yaml").write_text(
        "- {name: wrong, set: {vlm.openai.extra_body: {no_such_field: 1}}}\n"
        "- {name: loudly, set: {workflow.guidance: LOUDLY}}\n"
    )
    model = AskingModel({"": 0.4, "LOUDLY": 0.9})

    def refuses(request: Any) -> bool:
        return "no_such_field" in (request.body or {})

    wrong = on(faults.bad_request(), where=refuses)
    with LoopbackServer(model, faults=[wrong], key=KEY, keep_bodies=True) as server:
        spec = spec_at(here, server)
        done = tune(spec, "--json")
        assert done.code == 0, done
        sent = server.count()
        assert done.summary["chosen"] == "loudly"
        assert done.summary["ways"]["wrong"]["left"]
        assert tune(spec, "--json").summary == done.summary
        assert server.count() == sent


def test_reviewed_results_are_gold_without_a_word(here: Path, gold: Gold) -> None:
    reviewed = []
    for record in gold:
        expressions = []
        for expression in record["expressions"]:
            expressions.append({**expression, "reviewed_by": "ann", "verified": True})
            expressions[-1]["status"] = "ok" if expression["instances"] else "none"
        expressions.append({"text": "not looked at", "instances": [{"bbox": [0, 0, 9, 9]}]})
        reviewed.append({**record, "expressions": expressions})
    (here / "results").mkdir()
    write_gold(here / "results/annotations.reviewed.jsonl", reviewed)
    with served({"": 0.3, "LOUDLY": 0.9, "SOFTLY": 0.3}) as server:
        done = command(["tune", spec_at(here, server), "--candidates", "ways.yaml", "--json"])
        phrases = {p["text"] for r in server.requests for p in r.input["phrases"]}
    assert done.code == 0, done
    assert done.summary["chosen"] == "loudly"
    assert "not looked at" not in phrases


@pytest.mark.parametrize(
    "settings",
    [
        {"data.columns": {"image": "file_name"}},
        {"data.split": "train"},
        {"data.classes": {"red": {"phrases": ["the red box"]}}},
        {"workflow.fuse": True},
        {"workflow.steps": ["0"]},
        {"workflow.negatives": 3},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_input_of_the_spec_makes_no_difference(here: Path, settings: dict[str, Any]) -> None:
    with served({"": 0.3, "LOUDLY": 0.9, "SOFTLY": 0.3}) as server:
        done = tune(spec_at(here, server, **settings), "--json")
        assert done.code == 0, done
        assert {request.task for request in server.requests} == {"phrase_grounding"}
    assert done.summary["chosen"] == "loudly"


def test_shipped_ways_are_of_the_backend_that_is_asked(here: Path) -> None:
    with served({"": 0.5}) as server:
        arguments = ["--gold", "gold.jsonl", "--estimate", "--json"]
        ours = command(["tune", spec_at(here, server), *arguments])
        gemini = {"vlm.backend": "gemini", "vlm.gemini": {"api_key": KEY, "model": "gemini-flash"}}
        theirs = command(["tune", spec_at(here, server, **gemini), *arguments])
    assert (ours.code, theirs.code) == (0, 0), (ours, theirs)
    assert len(ours.summary["ways"]) == len(set(ours.summary["ways"])) > 4
    assert ours.summary["ways"] == theirs.summary["ways"]


REFUSED = {
    "no YAML": ("a: [", "ways.yaml is not YAML"),
    "no list": ("a: 1", "write a list of ways"),
    "no set": ("- {name: a}", "ways.yaml, way 1 (a): set should be spec keys"),
    "no name": ("- {set: {vlm.box_format: auto}}", "way 1: needs a name"),
    "a name twice": (
        "- {name: a, set: {workflow.zoom: true}}\n- {name: a, set: {workflow.zoom: true}}",
        "two ways are called 'a'",
    ),
    "a name for any backend, then for one": (
        "- {name: a, set: {workflow.zoom: true}}\n"
        "- {name: a, backend: openai, set: {workflow.zoom: true}}",
        "two ways are called 'a'",
    ),
    "a name for one backend, then for any": (
        "- {name: a, backend: openai, set: {workflow.zoom: true}}\n"
        "- {name: a, set: {workflow.zoom: true}}",
        "two ways are called 'a'",
    ),
    "no such key": ("- {name: a, set: {workflow.zoooom: 1}}", "ways.yaml, a: "),
    "a key that all have alike": (
        "- {name: a, set: {workflow.fuse: true}}",
        "ways.yaml, a: workflow.fuse can't be tried: every way is asked about the gold's own",
    ),
    "a wrong value": ("- {name: a, set: {workflow.phrases_per_request: lots}}", "ways.yaml, a: "),
}


@pytest.mark.parametrize(("table", "said"), REFUSED.values(), ids=REFUSED)
def test_wrong_table_is_told_in_a_line_before_anything_is_sent(
    here: Path, table: str, said: str
) -> None:
    (here / "ways.yaml").write_text(table)
    with served({"": 0.5}) as server:
        done = tune(spec_at(here, server))
        assert (done.code, server.count()) == (2, 0)
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_too_few_pictures_and_no_gold_are_told_in_a_line(here: Path, gold: Gold) -> None:
    with served({"": 0.5}) as server:
        spec = spec_at(here, server)
        none = command(["tune", spec])
        write_gold(here / "gold.jsonl", gold[:5])
        few = tune(spec)
        write_gold(here / "gold.jsonl", [{**r, "image_path": "gone.png"} for r in gold])
        gone = tune(spec)
    assert (none.code, few.code, gone.code) == (2, 2, 2)
    assert "--gold" in none.err
    assert "5 pictures with gold" in few.err
    assert "gone.png isn't there" in gone.err


def read(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines())


def test_shipped_ways_that_the_model_is_not_asked_in_are_passed_over(here: Path) -> None:
    model = AskingModel({"": 0.6})
    with LoopbackServer(model, key=KEY, keep_bodies=True) as server:
        spec = spec_at(here, server)
        done = command(["tune", spec, "--gold", "gold.jsonl", "--estimate", "--json"])
        assert done.code == 0, done
        assert server.received == 0
    ways = done.summary["ways"]
    assert {"JSON in words", "lines", "a list for each phrase"} < set(ways)
    assert "no thinking" not in ways
    assert "not tried: no thinking (how" in done.err
    (here / "ways.yaml").write_text("- {name: mine, set: {vlm.asking: no_thinking}}")
    with LoopbackServer(model, key=KEY) as server:
        done = tune(spec_at(here, server))
    assert done.code == 2
    assert done.err.startswith("Error: ways.yaml, mine: how ")


@pytest.mark.parametrize("folder", ["taken", "taken/below", ""])
def test_a_folder_that_can_not_be_made_is_told_in_a_line(here: Path, folder: str) -> None:
    (here / "taken").touch()
    with served({"": 0.4}) as server:
        done = tune(spec_at(here, server), "-o", folder)
        assert server.count() == 0
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "can't write" in done.err
