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

pytestmark = pytest.mark.slow  # each is one or several runs with a judge

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


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["large"], "vlm.cascade: a list names two models or more, the cheapest first"),
        ([], "vlm.cascade: a list names two models or more, the cheapest first"),
        (["small", "small"], "vlm.cascade: a list names each model once"),
        (["small", ""], "vlm.cascade: each of a list is a model's name, or a block"),
        (["small", 3], "vlm.cascade: each of a list is a model's name, or a block"),
        (["small", {"opnai": {}}], "vlm.cascade.1.opnai is not a key of the spec"),
        (["small", {"backend": "nobody"}], "vlm.cascade.1.backend"),
    ],
)
def test_what_a_list_says_wrong_is_told_in_one_line(
    place: Workplace, models: list[Any], message: str
) -> None:
    done = place.run(**{"vlm.cascade": models, "workflow.check": True})
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert message in done.err


def test_a_list_needs_a_check_and_a_doubt_is_a_share(place: Workplace) -> None:
    place.settings["vlm.openai.base_url"] = "http://127.0.0.1:9/v1"
    done = place.run(**{"vlm.cascade": ["small", "large"]})
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "vlm.cascade is asked what a check leaves in doubt: set workflow.check" in done.err
    done = place.run(**{"workflow.cascade_doubt": 1.5})
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "workflow.cascade_doubt" in done.err


@pytest.mark.parametrize("models", [["small", "nobody"], ["nobody", "small"]])
def test_a_model_that_the_endpoint_doesnt_know_is_told_in_one_line(
    place: Workplace, models: list[str]
) -> None:
    entry = {"openai": {"model_name": models[1]}, "box_format": "xyxy_px", "check_every": None}
    with LoopbackServer(Model(), keep_bodies=True, models=["small"]) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        done = place.run(**{"vlm.cascade": [models[0], entry], "workflow.check": True})
    assert done.code == 4, done
    [error] = [line for line in done.err.splitlines() if line.startswith("Error")]
    assert "(nobody) answered 404" in error
    assert "the model's name" in error


def test_the_first_of_a_list_takes_the_place_of_the_model_of_vlm(place: Workplace) -> None:
    large = {"openai": {"model_name": "large"}, "box_format": "xyxy_px", "check_every": None}
    models: dict[str, Model] = {}
    for name, settings in {
        "named": {"vlm.openai.model_name": "small", "vlm.cascade": large},
        "listed": {"vlm.openai.model_name": "other", "vlm.cascade": ["small", large]},
    }.items():
        place.results = place.folder / name
        models[name] = Model()
        with LoopbackServer(models[name], keep_bodies=True) as server:
            run(place, server, **settings)
    assert models["listed"].asked == models["named"].asked
    assert {name for name, _ in models["listed"].asked} == {"small", "large"}
    written = [
        (place.folder / name / "annotations.jsonl").read_bytes() for name in ("named", "listed")
    ]
    assert written[0] == written[1]
    assert json.loads((place.results / "run.json").read_text())["model"] == "small"


def test_a_key_goes_to_no_other_address_of_a_list(place: Workplace) -> None:
    entry = {"model_name": "large", "timeout": 20}
    with (
        LoopbackServer(Model(), keep_bodies=True, key="sk-of-the-first") as first,
        LoopbackServer(Model(), keep_bodies=True) as second,
    ):
        place.settings["vlm.openai.api_key"] = "sk-of-the-first"
        other = {"openai": {**entry, "base_url": second.base_url}, "box_format": "xyxy_px"}
        run(place, first, **{"vlm.cascade": ["small", other]})
        headers = [str(request.headers) for request in second.requests]
    assert headers
    assert not any("sk-of-the-first" in header for header in headers)


@pytest.mark.parametrize(
    ("doubt", "asked"),
    [(1.0, 1), (0.5, 2), (0.25, 3), (0.0, 4)],
)
def test_phrases_are_asked_about_from_a_doubt_on(square: None, doubt: float, asked: int) -> None:
    kept = {"bbox_id": "a.0", "verdict": "right", "crop": True, "decision": "kept"}
    dropped = {"bbox_id": "a.1", "verdict": "other", "crop": False, "decision": "dropped"}
    said: dict[str, Any] = {"method": "check", "second": "crop", "there": True, "boxes": [kept]}
    out: dict[str, Any] = {"instances": [], "rejected": [{**BOX, "bbox_id": "a.1"}]}
    rows = [
        {"text": "undecided", "instances": [BOX], "verified": None, "verification": said},
        # its box was dropped, and the judge says that it is there
        {"text": "split", **out, "verified": True, "verification": {**said, "boxes": [dropped]}},
        {
            "text": "one against",
            "instances": [BOX],
            "verified": True,
            "verification": {**said, "there": False},
        },
        {"text": "of one mind", "instances": [BOX], "verified": True, "verification": said},
        {"text": "never judged", "instances": [BOX]},
    ]
    with LoopbackServer(CannedAnswers(NONE), keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "large", box_format="xyxy_1000")
        operator = SecondOpinion(serving, from_doubt=doubt, check_every=None)
        operator({"image_path": "square.png", "expressions": rows})
        [request] = server.requests
    texts = [phrase["text"] for phrase in request.input["phrases"]]
    assert texts == [row["text"] for row in rows][:asked]


def test_what_a_check_had_decided_is_decided_anew(square: None) -> None:
    """Below a doubt of 1: a kept box that it doesn't find goes, a dropped one that it finds is back."""
    kept = {**DOUBT, "verdict": "right", "decision": "kept"}
    dropped = {"bbox_id": "a.0", "verdict": "other", "crop": False, "decision": "dropped"}
    said = {"method": "check", "second": "crop", "there": True, "boxes": [kept]}
    with_kept = {"instances": [BOX], "verified": True, "verification": said}
    without = {
        "instances": [],
        "status": "none",
        "rejected": [{**BOX, "reason": "on another thing"}],
        "verified": True,
        "verification": {**said, "boxes": [dropped]},
    }
    gone = asked_again(NONE, from_doubt=0.0, **with_kept)
    assert (gone["instances"], gone["status"]) == ([], "none")
    assert gone["rejected"][0]["reason"] == "right; large: none"
    stays = asked_again(THERE, from_doubt=0.0, **with_kept)
    assert ([box["bbox"] for box in stays["instances"]], stays["verified"]) == ([BOX["bbox"]], True)
    back = asked_again(THERE, from_doubt=0.0, **without)
    assert (back["instances"], back["status"], back["verified"]) == ([BOX], "grounded", True)
    assert "rejected" not in back
    again_none = asked_again(NONE, from_doubt=0.0, **without)
    assert (again_none["instances"], len(again_none["rejected"])) == ([], 1)
    new = asked_again(ELSEWHERE, from_doubt=0.0, **without)
    assert [box["found_by"] for box in new["instances"]] == ["second_opinion"]
    assert [box["bbox"] for box in new["rejected"]] == [BOX["bbox"]]
    untouched = asked_again(NONE, from_doubt=0.3, **with_kept)
    assert (untouched["asked"], untouched["instances"][0]["bbox"]) == (0, BOX["bbox"])


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


def asked_again(reply: str, *, from_doubt: float = 1.0, **expression: Any) -> dict[str, Any]:
    said = {"method": "check", "there": True, "count": 1, "boxes": [DOUBT]}
    row = {"text": "the red square", "instances": [BOX], "verified": None, "verification": said}
    with LoopbackServer(CannedAnswers(reply)) as server:
        serving = OpenAIServing(server.base_url, "large", box_format="xyxy_1000")
        operator = SecondOpinion(serving, from_doubt=from_doubt, check_every=None)
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


def test_a_denied_box_gives_way_to_those_that_the_other_model_finds(square: None) -> None:
    denied = {**DOUBT, "crop": False}
    said = {"method": "check", "second": "crop", "there": True, "count": 1, "boxes": [denied]}
    settled = asked_again(ELSEWHERE, verification=said)
    assert (settled["verified"], settled["status"]) == (True, "grounded")
    assert [box["found_by"] for box in settled["instances"]] == ["second_opinion"]
    [rejected] = settled["rejected"]
    assert (rejected["bbox"], rejected["reason"]) == (
        BOX["bbox"],
        "on another thing; large: elsewhere",
    )
    stays = asked_again(THERE, verification=said)
    assert ([box["bbox"] for box in stays["instances"]], stays["verified"]) == ([BOX["bbox"]], True)


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
