"""`workflow.check` and `vlm.judge` in a run: from the spec to the report, the costs and the review."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, faults
from tests.support.stand_ins.check_quality import scenes
from tests.support.stand_ins.erring_model import ErringModel, Errors, about_probes
from tests.support.stand_ins.seeing_model import COLORS
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Done, Workplace, command

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


def place_in(folder: Path, results: Path) -> Workplace:
    place = Workplace(folder, **{"data.classes": CLASSES, "vlm.check_every": 100})
    place.results = results
    return place


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with half of the colours in them; all are looked for."""
    folder = tmp_path_factory.mktemp("drawn")
    rows = [{"image_path": each["image_path"]} for each in scenes(folder, PICTURES, 5, shrink=2)]
    place_in(folder, folder / "results").rows(rows)
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Workplace:
    return place_in(drawn, tmp_path / "results")


def checked(place: Workplace, server: LoopbackServer, **settings: Any) -> Done:
    done = place.run(**{"vlm.openai.base_url": server.base_url, "workflow.check": True, **settings})
    assert done.code == 0, done
    return done


def told(place: Workplace, server: LoopbackServer) -> Done:
    """A checked run, and what it tells people."""
    settings = {"vlm.openai.base_url": server.base_url, "workflow.check": True}
    done = command(["generate", "-e", str(place.spec(**settings))])
    assert done.code == 0, done
    return done


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


def test_a_second_run_sends_nothing_and_writes_the_same(place: Workplace) -> None:
    model = Model()
    with LoopbackServer(model, keep_bodies=True) as server:
        checked(place, server, **{"workflow.check": "fast"})  # as specs of 0.2.0 have it
        assert model.requests["box_check"] == PICTURES
        assert model.requests["missing_boxes"] == 0
        annotations = (place.results / "annotations.jsonl").read_bytes()
        sent = server.count()
        checked(place, server)
        (place.results / "annotations.jsonl").unlink()
        for step in place.results.glob("step_*/annotations.jsonl"):
            step.unlink()
        checked(place, server)
        assert server.count() == sent
    assert (place.results / "annotations.jsonl").read_bytes() == annotations


def test_the_report_says_why_a_box_was_dropped(place: Workplace) -> None:
    with LoopbackServer(Model(), keep_bodies=True) as server:
        done = told(place, server)
    assert "verified" in done.err
    assert "not checked" not in done.err
    assert "the judge left" not in done.err
    dropped = [row for row in expressions(place) if row.get("rejected")]
    assert dropped
    for row in dropped:
        assert (row["status"], row["verified"], row["instances"]) == ("none", True, [])
        assert [box["reason"] for box in row["rejected"]] == ["on another thing; presence: no"]
    page = place.results / "page.html"
    done = command(["report", str(place.results), "-o", str(page), "--single-file"])
    assert done.code == 0, done
    text = page.read_text("utf-8")
    assert "dropped: on another thing; presence: no" in text


def test_another_judge_is_asked_at_its_address_and_billed_apart(place: Workplace) -> None:
    repeat_rows(place, 2)
    prices = {"vlm.prices": {"input": 1.0, "output": 1.0}}
    judges_prices = {"input": 100.0, "output": 100.0}
    grounder, judge = Model(), Model()
    with (
        LoopbackServer(grounder, keep_bodies=True) as server,
        LoopbackServer(judge, keep_bodies=True) as other,
    ):
        check = {"base_url": other.base_url, "model_name": "judge"}
        check["prices"] = judges_prices  # type: ignore[assignment]
        settings = {"vlm.judge": {**check, "box_format": "xyxy_px"}, **prices}
        checked(place, server, **settings)
        sent = server.count() + other.count()
        checked(place, server, **settings)
        assert server.count() + other.count() == sent
    assert {model for model, _ in grounder.asked} == {"loopback"}
    assert {model for model, _ in judge.asked} == {"judge"}
    assert {task for _, task in judge.asked} == {"box_check"}
    assert "box_check" not in {task for _, task in grounder.asked}
    bill = command(["cost", str(place.results), "--json"]).summary
    for step in bill["steps"]:
        is_judges = step["step"].endswith("box_check")
        tokens = step["tokens"]["input"] + step["tokens"]["output"]
        price = 100.0 if is_judges else 1.0
        assert step["cost_usd"] == pytest.approx(price * tokens / 1e6, rel=1e-3), step


@pytest.mark.parametrize("denies_all", [True, False])
def test_a_judge_that_denies_all_boxes_is_told_of(place: Workplace, denies_all: bool) -> None:
    model = Model()

    def says(request: ReceivedRequest) -> Any:
        answer = model(request)
        if request.task == "box_check" and denies_all:
            for box in answer["boxes"]:
                box["verdict"] = "nothing"
            for phrase in answer["phrases"]:
                phrase.update(there=False, count=0)
        return answer

    repeat_rows(place, 10)
    with LoopbackServer(says, keep_bodies=True) as server:
        first = told(place, server)
        again = told(place, server)
    assert ("it may say no to anything" in first.err) is denies_all
    assert ("it may say no to anything" in again.err) is denies_all


def test_a_judge_that_does_not_answer_is_asked_again_by_the_same_command(place: Workplace) -> None:
    repeat_rows(place, 2)
    is_down = True

    def fails(request: ReceivedRequest) -> faults.Fault | None:
        return faults.server_error() if is_down and request.task == "box_check" else None

    with LoopbackServer(Model(), keep_bodies=True, faults=fails) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.check": True}
        settings["workflow.max_attempts"] = 1
        generate = ["generate", "-e", str(place.spec(**settings))]
        done = command(generate)
        assert done.code == 1, done
        assert "the same command tries again what may pass" in done.err
        is_down = False
        done = command(generate)
        assert done.code == 0, done
    assert any(row["verified"] for row in expressions(place))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"workflow.check": "slow"}, "workflow.check"),
        ({"workflow.check": True, "vlm.judge": {"modelname": "x"}}, "vlm.judge"),
        (
            {
                "workflow.check": True,
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
    settings = {"workflow.zoom": True, "workflow.verify": "reground", "workflow.check": True}
    spec = place.spec(**settings, **{"vlm.openai.base_url": "http://127.0.0.1:9/v1"})
    done = command(["estimate", "-e", str(spec), "--json"])
    assert done.code == 0, done
    steps = [step["step"].partition("_")[2] for step in done.summary["steps"]]
    assert steps[-4:] == ["box_refinement", "box_verification", "box_check", "missing_search"]


def test_nothing_secret_goes_to_another_address(place: Workplace) -> None:
    repeat_rows(place, 2)
    with (
        LoopbackServer(Model(), keep_bodies=True, key="sk-mine") as server,
        LoopbackServer(Model(), keep_bodies=True) as other,
    ):
        settings = {
            "vlm.openai.api_key": "sk-mine",
            "vlm.openai.extra_headers": {"X-Token": "sk-header"},
            "vlm.openai.extra_body": {"top_k": 7, "more": {"api_key": "sk-body", "seed": 1}},
        }
        check = {"base_url": other.base_url, "model_name": "judge"}
        checked(place, server, **settings, **{"vlm.judge": check})
        sent = [f"{dict(request.headers)} {request.body}" for request in other.requests]
        bodies = [request.body for request in other.requests if request.task]
    assert bodies
    assert not any("sk-" in text for text in sent)
    for body in bodies:
        assert body is not None
        assert (body["top_k"], body["more"]) == (7, {"seed": 1})  # all else is as in vlm


def test_a_judge_at_the_same_address_has_its_key(place: Workplace) -> None:
    repeat_rows(place, 2)
    model = Model()
    with LoopbackServer(model, keep_bodies=True, key="sk-mine") as server:
        settings = {"vlm.openai.api_key": "sk-mine", "vlm.judge": {"model_name": "judge"}}
        checked(place, server, **settings, **{"workflow.verify": "reground"})
    assert {task for name, task in model.asked if name == "judge"} >= {
        "box_check",
        "phrase_grounding",
    }
    assert ("loopback", "box_check") not in model.asked


def test_a_budget_in_usd_wants_the_judges_prices_too(place: Workplace) -> None:
    settings = {
        "vlm.prices": {"input": 1.0, "output": 1.0},
        "vlm.judge": {"model_name": "unheard-of"},
        "workflow.check": True,
        "workflow.budget_usd": 1.0,
    }
    done = place.run(**settings, **{"vlm.openai.base_url": "http://127.0.0.1:9/v1"})
    assert done.code == 2
    assert "unheard-of" in done.err
    assert "vlm.judge.prices" in done.err


def judged_by(server: LoopbackServer) -> dict[str, Any]:
    """Settings of a check by the model at this server."""
    check: dict[str, Any] = {"base_url": server.base_url, "model_name": "judge"}
    check["box_format"] = "xyxy_px"  # else it is asked for probes, too
    return {"vlm.judge": check, "workflow.check": True}


def test_shards_ask_the_judge_too(place: Workplace) -> None:
    judge = Model()
    with (
        LoopbackServer(Model(), keep_bodies=True) as server,
        LoopbackServer(judge, keep_bodies=True) as other,
    ):
        settings = {**judged_by(other), "vlm.openai.base_url": server.base_url}
        for number in (1, 2):
            done = place.run("--shard", f"{number}/2", **settings)
            assert done.code == 0, done
        done = command(["merge", str(place.results)])
        assert done.code == 0, done
        merged = json.loads((place.results / "run.json").read_text("utf-8"))["summary"]["classes"]
        sent = server.count() + other.count()
        assert place.run(**settings).code == 0
        assert server.count() + other.count() == sent
    whole = json.loads((place.results / "run.json").read_text("utf-8"))["summary"]["classes"]
    for row, expected in zip(merged, whole, strict=True):
        assert row == {**expected, "mean_side": pytest.approx(expected["mean_side"], abs=0.1)}
    assert judge.of_records == PICTURES
    assert {task for _, task in judge.asked} == {"box_check"}
    assert all(row["verification"]["there"] is not None for row in expressions(place))


def test_a_judge_of_another_backend_is_asked(place: Workplace) -> None:
    repeat_rows(place, 2)
    own = place.folder / "own_judge.py"
    own.write_text(
        "from dataflow_grounding.serving import OpenAIServing\n\n\n"
        "class Judge(OpenAIServing):\n"
        "    def __init__(self, base_url):\n"
        "        super().__init__(base_url, 'of another backend', box_format='xyxy_px')\n"
    )
    judge = Model()
    with (
        LoopbackServer(Model(), keep_bodies=True) as server,
        LoopbackServer(judge, keep_bodies=True) as other,
    ):
        check = {"backend": "own_judge:Judge", "base_url": other.base_url}
        checked(place, server, **{"vlm.judge": check})
    assert {model for model, _ in judge.asked} == {"of another backend"}
    assert {task for _, task in judge.asked} == {"box_check"}


def test_a_run_killed_amid_the_check_goes_on_and_pays_for_little_twice(place: Workplace) -> None:
    judge = Model()
    # the third answer is under way at the kill, however long that takes to come
    with (
        LoopbackServer(Model(), keep_bodies=True) as server,
        LoopbackServer(
            judge, keep_bodies=True, latency=lambda _: HANGING * (judge.of_records == 2)
        ) as other,
    ):
        settings = {**judged_by(other), "vlm.openai.base_url": server.base_url}
        settings["workflow.max_workers"] = 1
        running = place.start(**settings)
        wait_until(lambda: judge.of_records == 3, running)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate(timeout=HANGING)
        assert running.returncode == -signal.SIGKILL
        assert judge.of_records == 3 < PICTURES
        done = place.run(**settings)
        assert done.code == 0, done
    # one worker: of what was answered, the one request under way at the kill alone is sent again
    assert judge.of_records <= PICTURES + 1
    assert len(place.annotations()) == PICTURES
    assert all(row["verification"]["there"] is not None for row in expressions(place))


def test_a_judge_whose_answers_differ_is_told_of(place: Workplace) -> None:
    """It contradicts itself."""
    model = Model()

    def says(request: ReceivedRequest) -> Any:
        answer = model(request)
        if request.task == "box_check" and not about_probes(request):
            for box in answer["boxes"]:
                box["verdict"] = "other" if box["verdict"] == "right" else "right"
        return answer

    with LoopbackServer(says, keep_bodies=True) as server:
        done = told(place, server)
    rows = expressions(place)
    undecided = [row for row in rows if row["verified"] is None]
    assert len(undecided) > len(rows) / 2
    assert not any(row.get("rejected") for row in rows)
    assert f"{len(undecided)} undecided" in done.err
    assert f"Warning: the judge left {len(undecided)} of {len(rows)} undecided" in done.err
