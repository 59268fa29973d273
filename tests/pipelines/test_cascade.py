"""`vlm.cascade`: a better model, asked only what a check leaves in doubt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.places.workplace import Done, Workplace, command
from benchmarks.stand_ins.check_quality import scenes
from benchmarks.stand_ins.erring_model import ErringModel, Errors, about_probes
from benchmarks.stand_ins.seeing_model import COLORS
from dataflow_grounding import SecondOpinion
from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.serving import OpenAIServing

CLASSES = [f"the {color} box" for color in sorted(COLORS)]
PICTURES = 8
CHEAP = Errors(absent=0.9, accuracy=0.85)


class Model(ErringModel):
    """Errs as it is told to; a second one behind the same address, `large`, never errs."""

    def __init__(self) -> None:
        super().__init__(CHEAP, box_format="xyxy_px", seed=5)
        self._large = ErringModel(Errors(), box_format="xyxy_px")
        self.asked: Counter[tuple[str, str]] = Counter()
        self.phrases_of_large: list[str] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        assert request.body is not None
        model = request.body["model"]
        if not about_probes(request):
            self.asked[model, request.task] += 1
        if model != "large":
            return super().__call__(request)
        if not about_probes(request):
            self.phrases_of_large += [phrase["text"] for phrase in request.input["phrases"]]
        return self._large(request)


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    gold = scenes(workplace.folder, PICTURES, seed=5)
    workplace.rows([{"image_path": record["image_path"]} for record in gold])
    lines = [json.dumps(record) + "\n" for record in gold]
    (workplace.folder / "gold.jsonl").write_text("".join(lines), encoding="utf-8")
    workplace.settings.update({"data.classes": CLASSES, "vlm.check_every": 100})
    return workplace


def run(place: Workplace, server: LoopbackServer, **settings: Any) -> Done:
    done = place.run(**{"vlm.openai.base_url": server.base_url, "workflow.check": True, **settings})
    assert done.code == 0, done
    return done


def il_mcc(place: Workplace) -> float:
    gold = str(place.folder / "gold.jsonl")
    done = command(["eval", str(place.results), "--gold", gold, "--json"])
    return float(done.summary["il_mcc"])


def expressions(place: Workplace) -> list[dict[str, Any]]:
    return [row for record in place.annotations() for row in record["expressions"]]


def test_what_the_check_doubts_is_asked_of_the_other_model_and_nothing_else(
    place: Workplace,
) -> None:
    with LoopbackServer(Model(), keep_bodies=True) as server:
        run(place, server)
        in_doubt = [row["text"] for row in expressions(place) if row["verified"] is None]
        before = il_mcc(place)
    assert len(in_doubt) > PICTURES / 2
    place.results = place.folder / "cascade"
    model = Model()
    with LoopbackServer(model, keep_bodies=True) as server:
        run(place, server, **{"vlm.cascade": "large"})
        sent = server.count()
        for path in [place.results / "annotations.jsonl", *place.results.glob("step_*/*")]:
            path.unlink()
        run(place, server, **{"vlm.cascade": "large"})
        assert server.count() == sent
    assert sorted(model.phrases_of_large) == sorted(in_doubt)
    assert model.asked["large", "phrase_grounding"] <= PICTURES
    assert {task for name, task in model.asked if name == "large"} == {"phrase_grounding"}
    settled = expressions(place)
    assert sum(row["verified"] is None for row in settled) < len(in_doubt) / 4
    assert il_mcc(place) > before + 0.05
    reasons = [box["reason"] for row in settled for box in row.get("rejected", [])]
    assert any("large: none" in reason for reason in reasons)


def test_its_cost_is_told_apart_at_prices_of_its_own(place: Workplace) -> None:
    prices = {"vlm.prices": {"input": 1.0, "output": 1.0}}
    cascade: dict[str, Any] = {
        "openai": {"model_name": "large"},
        "prices": {"input": 50.0, "output": 50.0},
    }
    judge: dict[str, Any] = {
        "openai": {"model_name": "judge"},
        "prices": {"input": 7.0, "output": 7.0},
    }
    for other in (cascade, judge):
        other["box_format"] = "xyxy_px"
    with LoopbackServer(Model(), keep_bodies=True) as server:
        run(place, server, **prices, **{"vlm.cascade": cascade, "vlm.check": judge})
    bill = command(["cost", str(place.results), "--json"]).summary
    for step in bill["steps"]:
        price = 1.0
        if step["step"].endswith("second_opinion"):
            price = 50.0
        elif step["step"].endswith(("box_check", "crop_judgement")):
            price = 7.0
        tokens = step["tokens"]["input"] + step["tokens"]["output"]
        assert step["cost_usd"] == pytest.approx(price * tokens / 1e6, rel=1e-3), step
    without = {**cascade, "prices": None}
    done = place.run(
        **{
            "vlm.openai.base_url": "http://127.0.0.1:9/v1",
            "vlm.cascade": without,
            "workflow.budget_usd": 1.0,
            "workflow.check": True,
            **prices,
        }
    )
    assert done.code == 2
    assert "needs the prices of large, too: set vlm.cascade.prices" in done.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vlm.cascade": "large"}, "vlm.cascade is asked what a check leaves in doubt"),
        ({"vlm.cascade": 3, "workflow.check": True}, "vlm.cascade"),
        ({"vlm.cascade": {"opnai": {}}, "workflow.check": True}, "vlm.cascade.opnai"),
    ],
)
def test_what_a_spec_says_wrong_is_told(
    place: Workplace, settings: dict[str, Any], message: str
) -> None:
    done = command(["check", "-e", str(place.spec(**settings))])
    assert done.code == 2, done
    assert message in done.err


BOX = {"bbox_id": "a.0", "bbox": [300, 200, 500, 400]}
DOUBT = {"bbox_id": "a.0", "verdict": "other", "crop": True, "decision": "undecided"}
THERE = '{"objects": [{"id": 1, "bbox_2d": [375, 333, 625, 667]}]}'
ELSEWHERE = '{"objects": [{"id": 1, "bbox_2d": [0, 0, 100, 100]}]}'
NONE = '{"objects": []}'


@pytest.fixture
def square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of 800 x 600, in the current folder."""
    Image.new("RGB", (800, 600), "white").save(tmp_path / "square.png")
    monkeypatch.chdir(tmp_path)


def asked_again(reply: str, **expression: Any) -> dict[str, Any]:
    said = {"method": "check", "there": True, "count": 1, "boxes": [DOUBT]}
    row = {"text": "the red square", "instances": [BOX], "verified": None, "verification": said}
    with LoopbackServer(CannedAnswers(reply)) as server:
        serving = OpenAIServing(server.base_url, "large", box_format="xyxy_1000")
        operator = SecondOpinion(serving, check_every=None)
        record = operator({"image_path": "square.png", "expressions": [{**row, **expression}]})
        record["asked"] = server.count()
    return {**record["expressions"][0], "asked": record["asked"]}


@pytest.mark.parametrize(
    ("reply", "verified", "boxes", "rejected"),
    [(THERE, True, 1, 0), (NONE, True, 0, 1), (ELSEWHERE, None, 1, 0)],
    ids=["it finds it too", "it finds none", "it finds another"],
)
def test_what_the_other_models_boxes_settle(
    square: None, reply: str, verified: bool | None, boxes: int, rejected: int
) -> None:
    settled = asked_again(reply)
    assert settled["verified"] is verified
    assert len(settled["instances"]) == boxes
    assert len(settled.get("rejected", [])) == rejected
    assert settled.get("doubtful", False) is (verified is None)
    if rejected:
        assert settled["status"] == "none"
        assert settled["rejected"][0]["reason"] == "on another thing; large: none"


def test_a_phrase_without_a_box_gets_those_that_it_finds(square: None) -> None:
    said = {"method": "check", "there": True, "count": 1, "boxes": []}
    settled = asked_again(THERE, instances=[], verification=said, status="none")
    assert (settled["verified"], settled["status"]) == (True, "grounded")
    [box] = settled["instances"]
    assert (box["bbox"], box["found_by"]) == ([300, 200, 500, 400], "second_opinion")
    settled = asked_again(NONE, instances=[], verification=said, status="none")
    assert (settled["verified"], settled["instances"]) == (True, [])


@pytest.mark.parametrize(
    "expression",
    [
        {"verified": True},
        {"verified": None, "verification": {"method": "check", "reason": "not obeyed"}},
        {"verified": None, "verification": {"method": "reground"}},
        {"verified": None, "reviewed_by": "ann", "verification": None},
    ],
)
def test_what_is_decided_or_was_never_judged_is_not_asked_about(
    square: None, expression: Any
) -> None:
    assert asked_again(NONE, **expression)["asked"] == 0
