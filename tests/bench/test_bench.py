"""`bench`: an endpoint measured on the pictures that come with the package."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.bench.bench_set import FOLDER, gold_records, shipped_set
from dataflow_grounding.engine.run_lock import only_run
from dataflow_grounding.testing import CannedAnswers, LoopbackServer, ReceivedRequest
from tests.support.benching import KEY, bench
from tests.support.endpoint import Serves
from tests.support.stand_ins.bench_model import BenchModel, Planted
from tests.support.stand_ins.gateway import OF_LITELLM, Gateway
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, REPOSITORY, Done, command, process


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the set


def test_the_set_has_what_the_page_says_of_it() -> None:
    gold = gold_records()
    phrases = [expression for record in gold for expression in record["expressions"]]
    absent = [expression for expression in phrases if not expression["instances"]]
    assert len(gold) == 50
    assert len(phrases) >= 300
    assert 0.32 <= len(absent) / len(phrases) <= 0.36
    kinds = {record["kind"] for record in gold}
    assert kinds == {"photo", "scene", "crowd", "small", "wide", "tall", "text", "night", "texture"}
    files = [path for path in Path(FOLDER).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    named = {record["image_path"] for record in gold}
    assert {f"pictures/{path.name}" for path in files if path.suffix == ".jpg"} == named


def test_gold_is_of_its_picture_and_absent_phrases_differ_in_a_word() -> None:
    sources = (REPOSITORY / "example_data/SOURCES.md").read_text("utf-8")
    for record in gold_records():
        with Image.open(Path(FOLDER, record["image_path"])) as picture:
            assert picture.size == (record["width"], record["height"])
        if record["kind"] == "photo":  # which is listed with its licence
            assert f"`images/{record['image_id']}.jpg`" in sources
        there = {e["text"] for e in record["expressions"] if e["instances"]}
        for expression in record["expressions"]:
            check_gold(expression, record, there)


def check_gold(expression: dict[str, Any], record: dict[str, Any], there: set[str]) -> None:
    for instance in expression["instances"]:
        x1, y1, x2, y2 = instance["bbox"]
        assert 0 <= x1 < x2 <= record["width"]
        assert 0 <= y1 < y2 <= record["height"]
    if expression["char_span"]:
        start, end = expression["char_span"]
        assert record["caption"][start:end] == expression["text"]
    if not expression["instances"]:
        true = expression["differs_from"].split()
        assert expression["differs_from"] in there
        false = expression["text"].split()
        assert len(true) == len(false)
        assert sum(a != b for a, b in zip(true, false, strict=True)) == 1


# --- measuring


@pytest.mark.slow
def test_planted_errors_lie_in_their_intervals_and_stored_replies_say_the_same(
    here: Path, serves: Serves
) -> None:
    planted = Planted()
    server = serves(BenchModel(planted), key=KEY, keep_bodies=True)
    done = bench(server, "--ways", "plain,check,spans", "--json")
    assert done.code == 0, done
    sent = server.count()
    again = bench(server, "--ways", "spans", "--json")
    assert (again.code, server.count()) == (0, sent)
    assert "has replies from" not in again.err
    for way, row in again.summary["ways"].items():
        assert row["figures"] == done.summary["ways"][way]["figures"]
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    plain = document["ways"]["plain"]["figures"]["all"]
    spans = document["ways"]["spans"]["figures"]["all"]
    for name, value in planted.figures().items():
        low, high = (spans if name in spans else plain)[name]["interval"]
        assert low <= value <= high, name
    checked = document["ways"]["check"]["figures"]["all"]
    assert checked["il_mcc"]["value"] > plain["il_mcc"]["value"] + 0.2
    assert sum(way["run"]["requests"] for way in document["ways"].values()) == sent
    assert document["ways"]["plain"]["run"]["cost_usd"] > 0
    for path in here.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    for name in ("DF_BASE_URL", "DF_MODEL"):
        assert name not in os.environ
    page = (here / "bench_results/bench.html").read_text("utf-8")
    assert "gemini-2.5-flash-lite" in page
    assert f"{plain['il_mcc']['value']:.3f}" in page


@pytest.mark.slow
def test_a_way_that_an_endpoint_cannot_answer_is_left_out(here: Path) -> None:
    """Of its pictures, one of each kind, there is no interval: every sample of one is that one."""
    done = command(["bench", "--pictures", "1", "--ways", "plain,check", "--json"])
    assert done.code == 0, done
    assert "check is left out: embedded-opencv can't answer box_check" in done.err
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    assert list(document["ways"]) == ["plain"]
    figures = done.summary["ways"]["plain"]["figures"]
    for name in ("precision_at_iou_0.5", "recall_at_iou_0.5"):
        for of_kind in figures["kinds"].values():
            assert of_kind[name]["interval"] is None
    # a picture of each kind is several
    assert figures["all"]["recall_at_iou_0.5"]["interval"] is not None
    page = (here / "bench_results/bench.html").read_text("utf-8")
    [kinds] = re.findall(r'<div class="kinds">.*</div>', page, re.DOTALL)
    assert "–" not in kinds  # between the ends of an interval
    assert "there is none (-) where all samples come to the same" in page
    none = command(["bench", "--pictures", "1", "--ways", "check", "-o", "other"])
    assert none.code == 2
    assert "the endpoint can answer none of these ways" in none.err


class Difficult(BenchModel):
    """Answers on boxes in a way that can't be read until it is told so, judges in no way that can be
    read, and declines to read captions.
    """

    def __call__(self, request: ReceivedRequest) -> Any:
        if request.task == "expression_extraction":
            return CannedAnswers("I can't help with that.")(request)
        if request.task == "box_check":
            return {"answer": "I'd rather not say."}
        if request.task == "phrase_grounding" and "earlier reply" not in request.text:
            return {"thoughts": "Let me see."}
        return super().__call__(request)


@pytest.mark.slow
def test_what_is_wrong_with_the_replies_of_each_way_is_told(here: Path, serves: Serves) -> None:
    kept = {**OF_LITELLM, "x-litellm-cache-key": "6a1466"}
    server = serves(Difficult())
    with (
        Gateway(server.base_url, keeps=False, headers=kept) as gateway,
    ):
        done = bench(gateway, "--pictures", "1", "--ways", "plain,json,check,spans")
        of_plain = bench(gateway, "--pictures", "1", "--ways", "plain")
        of_check = bench(gateway, "--pictures", "1", "--ways", "plain,check")
    # the exit code is of the ways that a call asks; a warning stands as long as its way does
    assert [one.code for one in (done, of_plain, of_check)] == [4, 0, 1], (done, of_plain, of_check)
    assert re.search(r"plain: \d+ replies came from a gateway's cache", done.err)
    page = (here / "bench_results/bench.html").read_text("utf-8")
    ways = json.loads((here / "bench_results/bench.json").read_text("utf-8"))["ways"]
    nothing = "spans measured nothing: all 9 pictures failed"
    for one in (done, of_plain):
        assert f"Warning: {nothing}" in one.err
    unchecked = "check checked nothing"
    assert f"{unchecked}, as the judge's answers could not be used" in done.err
    assert unchecked in page
    # each question twice more
    assert ways["check"]["figures"]["counts"]["unreadable"] > 9
    for way, form in (("plain", "json"), ("json", "lines")):
        says_what_to_try(done, page, way, ways[way], f"vlm.asking: {form}.")
    says_what_to_try(of_plain, page, "plain", ways["plain"], "vlm.asking: json.")


def says_what_to_try(done: Done, page: str, way: str, measured: Any, what: str) -> None:
    counts = measured["figures"]["counts"]
    assert counts["unreadable"] == sum(counts["unreadable_reasons"].values()) >= 3
    share = counts["unreadable"] / counts["answered"]
    begin = f"{way}: {share:.0%} of replies could not be read as asked"
    [line] = [line for line in done.err.splitlines() if begin in line]
    assert line.endswith(f": try {what}")
    assert begin in page


@pytest.mark.slow
def test_spans_of_pictures_that_failed_count_as_missed(here: Path, serves: Serves) -> None:
    def silent(request: ReceivedRequest) -> dict[str, Any]:
        return {"cleaned_caption": request.input["caption"], "expressions": []}

    done = bench(serves(silent), "--pictures", "1", "--ways", "spans", "--json")
    assert done.summary["ways"]["spans"]["figures"]["all"]["span_exact_f1"]["value"] == 0
    server = serves(Unreadable(Planted(unsaid=0)))
    done = bench(server, "--pictures", "3", "--ways", "spans", "-o", "half", "--json")
    figures = done.summary["ways"]["spans"]["figures"]
    assert 0 < figures["counts"]["failed"] < figures["counts"]["pictures"]
    assert figures["all"]["span_exact_f1"]["value"] < 0.95


@pytest.mark.slow
def test_ways_stay_as_long_as_the_same_is_measured(here: Path) -> None:
    file = here / "bench_results/bench.json"

    def ways() -> list[str]:
        return list(json.loads(file.read_text())["ways"])

    few = ("--pictures", "1", "--ways")
    with LoopbackServer(BenchModel()) as server:
        first = bench(server, *few, "plain,spans")
        assert first.code == 0, first
        assert "could not be read" not in first.err
        counts = json.loads(file.read_text())["ways"]["plain"]["figures"]["counts"]
        assert set(counts) == {"pictures", "failed", "unreadable", "unchecked"}
        sent = server.count()
        other = bench(server, *few, "plain", model="other")
        assert (other.code, server.count()) == (2, sent)
        assert "bench_results has replies of gemini-2.5-flash-lite: measure other in" in other.err
    with LoopbackServer(BenchModel()) as server:  # at another port
        done = bench(server, *few, "plain,spans")
        assert done.code == 0, done
        assert done.err.count("to measure another server, name another folder with -o.") == 1
        assert bench(server, *few, "json").code == 0
        assert ways() == ["plain", "spans", "json"]  # measured before, and now
        assert bench(server, "--pictures", "2", "--ways", "spans").code == 0
        assert ways() == ["spans"]
        file.write_bytes(file.read_bytes()[:2000])
        assert bench(server, *few, "plain").code == 0
        assert ways() == ["plain"]


@pytest.mark.slow
def test_two_calls_in_one_folder_do_not_write_over_each_other(here: Path, serves: Serves) -> None:
    server = serves(BenchModel())
    with (
        only_run(str(here / "bench_results/.ckpt")),
    ):
        done = bench(server, "--pictures", "1", "--ways", "plain")
        assert (done.code, server.count()) == (2, 0), done
    assert "another run is working in" in done.err


@pytest.mark.slow
def test_ways_that_were_measured_are_kept_where_a_later_one_stops(
    here: Path, serves: Serves
) -> None:
    server = serves(BenchModel(box_format="yxyx_1000"))
    done = bench(server, "--pictures", "1", "--ways", "spans,plain")
    assert done.code == 2, done
    assert "the boxes don't look like xyxy_1000" in done.err
    assert "bench_results/bench.json has spans." in done.err


@pytest.mark.slow
def test_a_form_that_a_model_has_no_word_for_is_left_out_before_anything_is_sent(
    here: Path, serves: Serves
) -> None:
    server, few = serves(BenchModel()), ("--pictures", "1", "--ways")
    done = bench(server, *few, "spans,no_thinking", model="acme/narwhal")
    assert done.code == 0, done
    assert "no_thinking is left out: how to set thinking off for acme/narwhal" in done.err
    sent = server.count()
    done = bench(server, *few, "no_thinking", "-o", "none", model="acme/narwhal")
    assert (done.code, server.count()) == (2, sent), done


class Unreadable(BenchModel):
    """A model that answers about some captions in a way that can't be read."""

    def refuses(self, caption: str) -> bool:
        """Whether it does so of this caption."""
        return len(caption) % 4 == 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task == "expression_extraction" and self.refuses(request.input["caption"]):
            return {"thoughts": "Let me see."}
        return super().__call__(request)


class Pausing(Unreadable):
    """The same, which answers no more after so many requests, until `go_on` is set."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = threading.Semaphore(most)
        self.go_on = threading.Event()

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if not self.left.acquire(blocking=False):
            self.go_on.wait(HANGING)
        return super().__call__(request)


@pytest.mark.slow
def test_a_killed_bench_goes_on_and_counts_what_failed_in_its_first_call(
    here: Path, serves: Serves
) -> None:
    """It goes on at another address, which is told, though no way was measured to its end."""
    model = Pausing(14)
    environment = {**os.environ, "DF_MODEL": "m", "DF_BOX_FORMAT": "xyxy_1000"}
    line = ["bench", "--pictures", "2", "--ways", "spans"]
    captions = [record["caption"] for record in shipped_set(2).records]
    refused = sum(map(model.refuses, captions))
    assert refused > 0
    with LoopbackServer(model) as server:
        other = serves(Unreadable())
        running = process(line, cwd=here, env={**environment, "DF_BASE_URL": server.base_url})
        wait_until(lambda: server.count() > 14, running)
        running.kill()
        running.communicate(timeout=HANGING)
        model.go_on.set()
        done = bench(other, *line[1:], model="m")
        # what can't be read is asked for three times; at most what was in flight is asked again
        assert server.count() + other.count() <= len(captions) + 2 * refused + 8
    assert done.code == 0, done
    assert f"has replies from {server.base_url}" in done.err
    assert "name another folder with -o." in done.err
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    counts = document["ways"]["spans"]["figures"]["counts"]
    assert counts["failed"] == refused
    assert 0 < counts["unreadable"] <= 3 * refused
    assert f"{refused} of {len(captions)} pictures failed" in done.err


def test_wrong_arguments_are_told(here: Path) -> None:
    (here / "a_file").write_text("")
    done = command(["bench", "--ways", "plain", "-o", "a_file"])
    assert (done.code, "can't write in a_file/.ckpt" in done.err) == (2, True), done
    done = command(["bench", "a=b"])
    assert "key=value goes with a spec" in done.err


# --- forms


def test_a_form_in_the_spec_is_told_to_be_a_way(here: Path) -> None:
    (here / "spec.yaml").write_text("""
results_dir: results
autolabel_type: image_grounding
image_grounding:
  vlm: {backend: openai, asking: lines, openai: {base_url: "http://127.0.0.1:9/v1", model_name: m}}
  data: {input_jsonl: a.jsonl}
""")
    done = command(["bench", "-e", "spec.yaml"])
    assert done.code == 2
    assert "name the form in --ways" in done.err
