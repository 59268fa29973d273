"""`workflow.check` and `vlm.judge` in a run: from the spec to the report, the costs and the review."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.review.queues import Queue, Reviewable
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, faults, on
from tests.support.half_filled import scenes
from tests.support.stand_ins.erring_model import ErringModel, Errors, about_probes
from tests.support.stand_ins.seeing_model import COLORS
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Workplace, command

pytestmark = pytest.mark.slow  # each is one or several runs with a judge

CLASSES = [f"the {color} box" for color in sorted(COLORS)]
PICTURES = 4
ERRORS = Errors(absent=0.9, loose=0.2, accuracy=1.0)


class Model(ErringModel):
    """Errs as it is told to, in pixels; counts requests by model and task."""

    def __init__(self, errors: Errors = ERRORS) -> None:
        super().__init__(errors, box_format="xyxy_px", seed=5)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.of_records = 0
        """Requests about the pictures of records, not of known content."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        assert request.body is not None
        if not request.images:  # whether the endpoint answers at all
            return {"ok": True}
        self.asked[request.body["model"], request.task] += 1
        self.of_records += not about_probes(request)
        return super().__call__(request)


class Played(LoopbackServer):
    """An endpoint with such a model."""

    def __init__(self) -> None:
        self.model = Model()
        super().__init__(self.model, keep_bodies=True)


@pytest.fixture
def grounder() -> Iterator[Played]:
    with Played() as running:
        yield running


@pytest.fixture
def judge() -> Iterator[Played]:
    with Played() as running:
        yield running


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with half of the colours in them, and an input that names them."""
    folder = tmp_path_factory.mktemp("drawn")
    records = scenes(folder, PICTURES, seed=5, shrink=2)
    Workplace(folder).rows({"image_path": record["image_path"]} for record in records)
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path, grounder: Played) -> Workplace:
    """All colours are looked for, and checked."""
    place = Workplace(drawn, grounder.base_url)
    place.settings |= {"data.classes": CLASSES, "vlm.check_every": 100, "workflow.check": True}
    place.results = tmp_path / "results"
    return place


def checked(place: Workplace, **settings: Any) -> None:
    done = place.run(**settings)
    assert done.code == 0, done


def told(place: Workplace, code: int = 0) -> str:
    """What a run tells people."""
    done = command(["generate", "-e", str(place.spec())])
    assert done.code == code, done
    return done.err


def repeat_rows(place: Workplace, count: int) -> None:
    """Give the run an input of `count` rows, which repeat its pictures."""
    lines = place.input.read_text("utf-8").splitlines()
    place.input = place.results.with_name("many.jsonl")
    place.rows(
        {**json.loads(lines[number % PICTURES]), "image_id": f"r{number}"}
        for number in range(count)
    )


def expressions(place: Workplace) -> list[dict[str, Any]]:
    return [row for record in place.annotations() for row in record["expressions"]]


def test_a_second_run_sends_nothing_and_writes_the_same(place: Workplace, grounder: Played) -> None:
    checked(place, **{"workflow.check": "fast"})  # as specs of 0.2.0 have it
    assert grounder.model.requests["box_check"] == PICTURES
    assert grounder.model.requests["missing_boxes"] == 0
    annotations = (place.results / "annotations.jsonl").read_bytes()
    sent = grounder.count()
    checked(place)
    (place.results / "annotations.jsonl").unlink()
    for step in place.results.glob("step_*/annotations.jsonl"):
        step.unlink()
    checked(place)
    assert grounder.count() == sent
    assert (place.results / "annotations.jsonl").read_bytes() == annotations


def test_the_report_says_why_a_box_was_dropped(place: Workplace) -> None:
    said = told(place)
    assert "verified" in said
    assert "not checked" not in said
    assert "the judge left" not in said
    dropped = [row for row in expressions(place) if row.get("rejected")]
    assert dropped
    for row in dropped:
        assert (row["status"], row["verified"], row["instances"]) == ("none", True, [])
        assert [box["reason"] for box in row["rejected"]] == ["on another thing; presence: no"]
    page = place.results / "page.html"
    done = command(["report", str(place.results), "-o", str(page), "--single-file"])
    assert done.code == 0, done
    assert "dropped: on another thing; presence: no" in page.read_text("utf-8")


def judged_at(judge: Played, **more: Any) -> dict[str, Any]:
    """A spec's judge at this address, which is known to answer in pixels."""
    judges = {"base_url": judge.base_url, "model_name": "judge", "box_format": "xyxy_px"}
    return {"vlm.judge": {**judges, **more}}


def test_another_judge_is_asked_at_its_address_and_billed_apart(
    place: Workplace, grounder: Played, judge: Played
) -> None:
    repeat_rows(place, 2)
    place.settings |= judged_at(judge, prices={"input": 100.0, "output": 100.0})
    checked(place, **{"vlm.prices": {"input": 1.0, "output": 1.0}})
    assert {model for model, _ in grounder.model.asked} == {"loopback"}
    assert set(judge.model.asked) == {("judge", "box_check")}
    assert "box_check" not in {task for _, task in grounder.model.asked}
    bill = command(["cost", str(place.results), "--json"]).summary
    for step in bill["steps"]:
        tokens = step["tokens"]["input"] + step["tokens"]["output"]
        price = 100.0 if step["step"].endswith("box_check") else 1.0
        assert step["cost_usd"] == pytest.approx(price * tokens / 1e6, rel=1e-3), step


@pytest.mark.parametrize("denies_all", [True, False])
def test_a_judge_that_denies_all_boxes_is_told_of(
    place: Workplace, grounder: Played, denies_all: bool
) -> None:
    def says(request: ReceivedRequest) -> Any:
        answer = grounder.model(request)
        if request.task == "box_check" and denies_all:
            for box in answer["boxes"]:
                box["verdict"] = "nothing"
            for phrase in answer["phrases"]:
                phrase.update(there=False, count=0)
        return answer

    repeat_rows(place, 10)
    grounder.answers = says
    for _ in range(2):
        assert ("it may say no to anything" in told(place)) is denies_all


def test_a_judge_that_does_not_answer_is_asked_again_by_the_same_command(
    place: Workplace, grounder: Played
) -> None:
    repeat_rows(place, 2)
    place.settings["workflow.max_attempts"] = 1
    grounder.faults = on(faults.server_error(), task="box_check")
    assert "the same command tries again what may pass" in told(place, code=1)
    grounder.faults = []
    told(place)
    assert any(row["verified"] for row in expressions(place))


def test_where_the_answers_differ_a_box_is_first_in_review(
    place: Workplace, grounder: Played
) -> None:
    large = scenes(place.results.parent, PICTURES, seed=5)
    place.input = place.results.with_name("large.jsonl")
    place.rows({"image_path": record["image_path"]} for record in large)
    grounder.answers = Model(Errors(accuracy=0.9))
    checked(place)
    doubtful = {row["text"] for row in expressions(place) if row.get("doubtful")}
    assert 0 < len(doubtful) < len(CLASSES)
    filters = dict.fromkeys(("status", "text", "head", "below", "record", "show"), "")
    queue = Queue(Reviewable(str(place.results)), {**filters, "order": "doubt"})
    first = next(item for item, why in queue.why.items() if why == "doubt")
    assert first.text in doubtful


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"workflow.check": "slow"}, "workflow.check"),
        ({"vlm.judge": {"modelname": "x"}}, "vlm.judge"),
        (
            {
                "vlm.judge": {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"},
                "vlm.backend": "embedded",
            },
            "set vlm.judge.model_name",
        ),
    ],
)
def test_what_a_spec_says_wrong_is_told(
    place: Workplace, settings: dict[str, Any], complaint: str
) -> None:
    done = command(["check", "-e", str(place.spec(**settings))])
    assert done.code != 0
    assert complaint in done.err + done.out


def test_zoom_and_verify_stay_and_the_check_comes_last(place: Workplace) -> None:
    spec = place.spec(**{"workflow.zoom": True, "workflow.verify": "reground"})
    done = command(["estimate", "-e", str(spec), "--json"])
    assert done.code == 0, done
    steps = [step["step"].partition("_")[2] for step in done.summary["steps"]]
    assert steps[-4:] == ["box_refinement", "box_verification", "box_check", "missing_search"]


def test_nothing_secret_goes_to_another_address(
    place: Workplace, grounder: Played, judge: Played
) -> None:
    repeat_rows(place, 2)
    grounder.key = "sk-mine"
    place.settings |= {
        "vlm.openai.api_key": "sk-mine",
        "vlm.openai.extra_headers": {"X-Token": "sk-header"},
        "vlm.openai.extra_body": {"top_k": 7, "more": {"api_key": "sk-body", "seed": 1}},
    }
    checked(place, **{"vlm.judge": {"base_url": judge.base_url, "model_name": "judge"}})
    sent = [f"{dict(request.headers)} {request.body}" for request in judge.requests]
    bodies = [request.body for request in judge.requests if request.task]
    assert bodies
    assert not any("sk-" in text for text in sent)
    for body in bodies:
        assert body is not None
        assert (body["top_k"], body["more"]) == (7, {"seed": 1})  # all else is as in vlm


def test_a_judge_at_the_same_address_has_its_key(place: Workplace, grounder: Played) -> None:
    repeat_rows(place, 2)
    grounder.key = "sk-mine"
    place.settings |= {"vlm.openai.api_key": "sk-mine", "vlm.judge": {"model_name": "judge"}}
    checked(place, **{"workflow.verify": "reground"})
    asked = grounder.model.asked
    assert {task for name, task in asked if name == "judge"} >= {"box_check", "phrase_grounding"}
    assert ("loopback", "box_check") not in asked


def test_a_budget_in_usd_wants_the_judges_prices_too(place: Workplace) -> None:
    place.settings |= {
        "vlm.prices": {"input": 1.0, "output": 1.0},
        "vlm.judge": {"model_name": "unheard-of"},
        "workflow.budget_usd": 1.0,
    }
    done = place.run()
    assert done.code == 2
    assert "unheard-of" in done.err
    assert "vlm.judge.prices" in done.err


def test_shards_ask_the_judge_too(place: Workplace, grounder: Played, judge: Played) -> None:
    place.settings |= judged_at(judge)
    for number in (1, 2):
        done = place.run("--shard", f"{number}/2")
        assert done.code == 0, done
    done = command(["merge", str(place.results)])
    assert done.code == 0, done
    merged = place.run_json()["summary"]["classes"]
    sent = grounder.count() + judge.count()
    checked(place)
    assert grounder.count() + judge.count() == sent
    whole = place.run_json()["summary"]["classes"]
    for row, expected in zip(merged, whole, strict=True):
        assert row == {**expected, "mean_side": pytest.approx(expected["mean_side"], abs=0.1)}
    assert judge.model.of_records == PICTURES
    assert set(judge.model.asked) == {("judge", "box_check")}
    assert all(row["verification"]["there"] is not None for row in expressions(place))


OWN_JUDGE = """
from dataflow_grounding.serving import OpenAIServing
class Judge(OpenAIServing):
    def __init__(self, base_url):
        super().__init__(base_url, "of another backend", box_format="xyxy_px")
"""


def test_a_judge_of_another_backend_is_asked(place: Workplace, judge: Played) -> None:
    repeat_rows(place, 2)
    (place.folder / "own_judge.py").write_text(OWN_JUDGE)
    check = {"backend": "own_judge:Judge", "base_url": judge.base_url}
    checked(place, **{"vlm.judge": check})
    assert set(judge.model.asked) == {("of another backend", "box_check")}


def test_a_run_killed_amid_the_check_goes_on_and_pays_for_little_twice(
    place: Workplace, judge: Played
) -> None:
    # the third answer is under way at the kill, however long that takes to come
    judge.latency = lambda _: HANGING * (judge.model.of_records == 2)
    place.settings |= {**judged_at(judge), "workflow.max_workers": 1}
    running = place.start()
    wait_until(lambda: judge.model.of_records == 3, running)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=HANGING)
    assert running.returncode == -signal.SIGKILL
    assert judge.model.of_records == 3 < PICTURES
    checked(place)
    # one worker: of what was answered, the one request under way at the kill alone is sent again
    assert judge.model.of_records <= PICTURES + 1
    assert len(place.annotations()) == PICTURES
    assert all(row["verification"]["there"] is not None for row in expressions(place))


def test_a_judge_whose_answers_differ_is_told_of(place: Workplace, grounder: Played) -> None:
    def says(request: ReceivedRequest) -> Any:
        answer = grounder.model(request)
        if request.task == "box_check" and not about_probes(request):
            for box in answer["boxes"]:
                box["verdict"] = "other" if box["verdict"] == "right" else "right"
        return answer

    grounder.answers = says
    said = told(place)
    rows = expressions(place)
    undecided = [row for row in rows if row["verified"] is None]
    assert len(undecided) > len(rows) / 2
    assert not any(row.get("rejected") for row in rows)
    assert f"{len(undecided)} undecided" in said
    assert f"Warning: the judge left {len(undecided)} of {len(rows)} undecided" in said
