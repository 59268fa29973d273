"""`bench`: an endpoint measured on the pictures that come with the package."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.bench.bench_set import FOLDER, gold_records
from dataflow_grounding.engine.run_lock import only_run
from dataflow_grounding.testing import (
    CannedAnswers,
    LoopbackServer,
    ReceivedRequest,
    faults,
    on,
)
from tests.support.stand_ins.bench_model import BenchModel, Planted
from tests.support.stand_ins.gateway import OF_LITELLM, Gateway
from tests.support.stand_ins.heeding_model import Heeding
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, REPOSITORY, Done, command, ended, process

KEY = "sk-of-the-bench"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(server: LoopbackServer | Gateway, *arguments: str) -> Done:
    """The command, for an endpoint that the environment names."""
    environment = {"DF_BASE_URL": server.base_url, "DF_MODEL": "gemini-2.5-flash-lite"}
    environment |= {"DF_API_KEY": KEY, "DF_BOX_FORMAT": "xyxy_1000"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return command(["bench", *arguments])


def killed_and_run_again(
    server: LoopbackServer,
    here: Path,
    *arguments: str,
    after: int,
    then: LoopbackServer | None = None,
) -> tuple[int, Done]:
    """Kill a bench after that many requests, and run it again, maybe at another server.

    Returns the requests before, and the end.
    """
    own = {"DF_BASE_URL": server.base_url, "DF_MODEL": "m", "DF_BOX_FORMAT": "xyxy_1000"}
    environment = {**os.environ, **own}
    line = ["bench", *arguments]
    running = process(line, cwd=here, env=environment)
    wait_until(lambda: server.count() >= after, running)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=HANGING)
    environment["DF_BASE_URL"] = (then or server).base_url
    return server.count(), ended(process(line, cwd=here, env=environment))


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
def test_planted_errors_lie_in_their_intervals_and_stored_replies_say_the_same(here: Path) -> None:
    planted = Planted()
    with LoopbackServer(BenchModel(planted), key=KEY, keep_bodies=True) as server:
        done = bench(server, "--ways", "plain,check,spans", "--json")
        assert done.code == 0, done
        sent = server.count()
        again = bench(server, "--ways", "plain,check,spans", "--json")
        assert (again.code, server.count()) == (0, sent)
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
    done = command(["bench", "--pictures", "1", "--ways", "plain,check"])
    assert done.code == 0, done
    assert "check is left out: embedded-opencv can't answer box_check" in done.err
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    assert list(document["ways"]) == ["plain"]
    none = command(["bench", "--pictures", "1", "--ways", "check", "-o", "other"])
    assert none.code == 2
    assert "the endpoint can answer none of these ways" in none.err


@pytest.mark.slow
def test_replies_of_a_gateways_cache_are_told(here: Path) -> None:
    kept = {**OF_LITELLM, "x-litellm-cache-key": "6a1466"}
    with (
        LoopbackServer(BenchModel()) as server,
        Gateway(server.base_url, keeps=False, headers=kept) as gateway,
    ):
        done = bench(gateway, "--pictures", "1", "--ways", "plain")
    assert done.code == 0, done
    assert re.search(r"plain: \d+ replies came from a gateway's cache", done.err)


class MuteAboutCaptions(BenchModel):
    """It declines to read captions."""

    def __call__(self, request: ReceivedRequest) -> Any:
        if request.task == "expression_extraction":
            return CannedAnswers("I can't help with that.")(request)
        return super().__call__(request)


@pytest.mark.slow
def test_a_way_of_which_every_picture_failed_is_told(here: Path) -> None:
    with LoopbackServer(MuteAboutCaptions()) as server:
        done = bench(server, "--pictures", "1", "--ways", "spans")
        other_way = bench(server, "--pictures", "1", "--ways", "plain")
    warning = "Warning: spans measured nothing: all 9 pictures failed"
    assert done.code == 4, done
    assert warning in done.err
    assert (here / "bench_results" / "bench.json").exists()
    # the exit code is of the ways that a call asks; the warning stands as long as the way does
    assert other_way.code == 0, other_way
    assert warning in other_way.err


class Mute(BenchModel):
    """A model whose judgements can't be read."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task == "box_check":
            return {"answer": "I'd rather not say."}
        return super().__call__(request)


@pytest.mark.slow
@pytest.mark.sampled
def test_a_check_that_checked_nothing_is_told(here: Path) -> None:
    with LoopbackServer(Mute()) as server:
        done = bench(server, "--pictures", "1", "--ways", "plain,check")
    assert done.code == 1, done
    warning = "check checked nothing, as the judge's answers could not be used"
    assert warning in done.err
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    checked = document["ways"]["check"]
    # each question twice more
    assert checked["figures"]["counts"]["unreadable"] > 9
    page = (here / "bench_results/bench.html").read_text("utf-8")
    assert "check checked nothing" in page


@pytest.mark.slow
def test_spans_of_pictures_that_failed_count_as_missed(here: Path) -> None:
    class Silent(BenchModel):
        def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
            return {"cleaned_caption": request.input["caption"], "expressions": []}

    with LoopbackServer(Silent()) as server:
        done = bench(server, "--pictures", "1", "--ways", "spans", "--json")
    assert done.summary["ways"]["spans"]["figures"]["all"]["span_exact_f1"]["value"] == 0
    with LoopbackServer(Unreadable(Planted(unsaid=0))) as server:
        done = bench(server, "--pictures", "3", "--ways", "spans", "-o", "half", "--json")
    figures = done.summary["ways"]["spans"]["figures"]
    assert 0 < figures["counts"]["failed"] < figures["counts"]["pictures"]
    assert figures["all"]["span_exact_f1"]["value"] < 0.95


@pytest.mark.slow
def test_another_model_needs_another_folder_and_ways_stay(here: Path) -> None:
    with LoopbackServer(BenchModel()) as server:
        plain = bench(server, "--pictures", "1", "--ways", "plain")
        assert plain.code == 0, plain
        assert "could not be read" not in plain.err
        done = bench(server, "--pictures", "1", "--ways", "spans,no_thinking")
        assert done.code == 0, done
        document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
        assert list(document["ways"])[:2] == ["plain", "spans"]  # measured before, and now
        counts = document["ways"]["plain"]["figures"]["counts"]
        assert set(counts) == {"pictures", "failed", "unreadable", "unchecked"}
        sent = server.count()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"DF_BASE_URL": server.base_url, "DF_MODEL": "other"}.items():
                patch.setenv(name, value)
            other = command(["bench", "--pictures", "1", "--ways", "plain"])
        assert (other.code, server.count()) == (2, sent)
        assert "bench_results has replies of gemini-2.5-flash-lite: measure other in" in other.err


@pytest.mark.slow
def test_that_replies_are_of_another_address_is_told_though_it_was_killed(here: Path) -> None:
    few = ("--pictures", "1", "--ways", "plain")
    with LoopbackServer(BenchModel(), latency=0.1) as server, LoopbackServer(BenchModel()) as other:
        _, again = killed_and_run_again(server, here, *few, after=5, then=other)
    assert again.code == 0, again
    assert f"has replies from {server.base_url}" in again.err
    assert "name another folder with -o." in again.err


@pytest.mark.slow
def test_ways_stay_as_long_as_the_same_is_measured(here: Path) -> None:
    file = here / "bench_results/bench.json"

    def ways() -> list[str]:
        return list(json.loads(file.read_text())["ways"])

    few = ("--pictures", "1", "--ways")
    with LoopbackServer(BenchModel()) as server:
        assert bench(server, *few, "plain,spans").code == 0
    with LoopbackServer(BenchModel()) as server:  # at another port
        done = bench(server, *few, "plain,spans")
        assert done.code == 0, done
        assert done.err.count("to measure another server, name another folder with -o.") == 1
        assert bench(server, *few, "json").code == 0
        assert ways() == ["plain", "spans", "json"]
        assert bench(server, "--pictures", "2", "--ways", "lines").code == 0
        assert ways() == ["lines"]
        file.write_bytes(file.read_bytes()[:2000])
        assert bench(server, "--pictures", "2", "--ways", "json").code == 0
        assert ways() == ["json"]


def test_one_picture_has_no_interval(here: Path) -> None:
    """Every sample of one picture is that picture: an interval of it would look sure."""
    done = command(["bench", "--pictures", "1", "--ways", "plain", "--json"])
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


@pytest.mark.slow
def test_two_calls_in_one_folder_do_not_write_over_each_other(here: Path) -> None:
    with only_run(str(here / "bench_results/.ckpt")), LoopbackServer(BenchModel()) as server:
        done = bench(server, "--pictures", "1", "--ways", "plain")
        assert (done.code, server.count()) == (2, 0), done
    assert "another run is working in" in done.err


@pytest.mark.slow
def test_ways_that_were_measured_are_kept_where_a_later_one_stops(here: Path) -> None:
    with LoopbackServer(BenchModel(box_format="yxyx_1000")) as server:
        done = bench(server, "--pictures", "1", "--ways", "spans,plain")
    assert done.code == 2, done
    assert "the boxes don't look like xyxy_1000" in done.err
    assert "bench_results/bench.json has spans." in done.err


@pytest.mark.slow
def test_a_form_that_a_model_has_no_word_for_is_left_out_before_anything_is_sent(
    here: Path,
) -> None:
    with LoopbackServer(BenchModel()) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {"DF_BASE_URL": server.base_url, "DF_MODEL": "acme/narwhal"}.items():
            patch.setenv(name, value)
        arguments = ["bench", "--pictures", "1", "--ways"]
        done = command([*arguments, "spans,no_thinking"])
        assert done.code == 0, done
        assert "no_thinking is left out: how to set thinking off for acme/narwhal" in done.err
        sent = server.count()
        done = command([*arguments, "no_thinking", "-o", "none"])
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


class Wordy(BenchModel):
    """A model that answers one task in a way that can't be read, until it is told so."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task == self.task and "earlier reply" not in request.text:
            return {"thoughts": "Let me see."}
        return super().__call__(request)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "ways", "told"),
    [
        ("phrase_grounding", "plain,json", {"plain": "json", "json": "lines"}),
        ("expression_extraction", "spans", {"spans": None}),
    ],
)
def test_a_way_of_which_many_replies_are_unreadable_says_what_to_try(
    here: Path, task: str, ways: str, told: dict[str, str | None]
) -> None:
    with LoopbackServer(Wordy(task)) as server:
        done = bench(server, "--pictures", "1", "--ways", ways)
    assert done.code == 0, done
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    page = (here / "bench_results/bench.html").read_text("utf-8")
    for way, form in told.items():
        counts = document["ways"][way]["figures"]["counts"]
        assert counts["unreadable"] == sum(counts["unreadable_reasons"].values()) >= 3
        share = counts["unreadable"] / counts["answered"]
        begin = f"{way}: {share:.0%} of replies could not be read as asked"
        [line] = [line for line in done.err.splitlines() if begin in line]
        assert line.endswith(f": try vlm.asking: {form}." if form else ": try a stronger model.")
        assert begin in page


@pytest.mark.slow
def test_a_killed_bench_goes_on_and_counts_what_failed_in_its_first_call(here: Path) -> None:
    model = Unreadable()
    with LoopbackServer(model, faults=on(faults.slow(0.1))) as server:
        before, done = killed_and_run_again(server, here, "--ways", "spans", after=40)
        assert done.code == 0, done
        refused = sum(model.refuses(record["caption"]) for record in gold_records())
        assert refused > 0
        asked = 50 + 2 * refused  # what can't be read is asked for three times
        assert 40 <= before < asked
        assert server.count() <= asked + 8  # at most what was in flight
    assert "has replies from" not in done.err
    document = json.loads((here / "bench_results/bench.json").read_text("utf-8"))
    counts = document["ways"]["spans"]["figures"]["counts"]
    assert counts["failed"] == refused
    assert 0 < counts["unreadable"] <= 3 * refused
    assert f"{refused} of 50 pictures failed" in done.err


def test_wrong_arguments_are_told(here: Path) -> None:
    done = command(["bench", "--ways", "plain,psychic"])
    assert done.code == 2
    assert "'psychic' is not one of plain, samples, zoom, check, spans" in done.err
    (here / "a_file").write_text("")
    done = command(["bench", "--ways", "plain", "-o", "a_file"])
    assert (done.code, "can't write in a_file/.ckpt" in done.err) == (2, True), done
    done = command(["bench", "a=b"])
    assert "key=value goes with a spec" in done.err


# --- forms


@pytest.mark.slow
def test_forms_are_ways(here: Path) -> None:
    model = Heeding(BenchModel(Planted()))
    with LoopbackServer(model, key=KEY) as server:
        ways = "plain,json,lines,json_lists"
        done = bench(server, "--ways", ways, "--pictures", "1", "--json")
        assert done.code == 0, done
    figures = {way: row["figures"]["all"] for way, row in done.summary["ways"].items()}
    assert set(figures) == set(ways.split(","))
    assert len({json.dumps(value) for value in figures.values()}) == 1  # the model is the same


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
