"""A cascade's pilot: what each way to run costs and how right it is, as a picture, before more is
spent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.places.workplace import Done, Workplace, command
from benchmarks.stand_ins.check_quality import NOISE, scenes
from benchmarks.stand_ins.erring_model import Errors
from benchmarks.stand_ins.models_by_name import CHEAP, ModelsByName
from benchmarks.stand_ins.seeing_model import COLORS
from dataflow_grounding.extras.testing import LoopbackServer
from dataflow_grounding.extras.tuning.frontier_picture import NARROW, WIDE, Frame, picture_of

CLASSES = [f"the {color} box" for color in sorted(COLORS)][:4]
PICTURES = 12
PILOT = 8
PRICES = {"small": {"input": 0.15, "output": 0.6}, "large": {"input": 1.5, "output": 6.0}}
PERFECT = Errors(noise=NOISE)


def entry(model: str, *, priced: bool = True) -> dict[str, Any]:
    """A model of `vlm.cascade`, whose format is known."""
    prices = PRICES.get(model, PRICES["large"]) if priced else None
    block: dict[str, Any] = {"openai": {"model_name": model}, "prices": prices}
    return {**block, "box_format": "xyxy_1000", "check_every": None}


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    gold = scenes(workplace.folder, PICTURES, seed=5)
    for record in gold:  # looked for beside the input
        record["image_path"] = Path(record["image_path"]).name
    workplace.rows([{"image_path": record["image_path"]} for record in gold])
    lines = [json.dumps(record) + "\n" for record in gold]
    (workplace.folder / "gold.jsonl").write_text("".join(lines), encoding="utf-8")
    workplace.settings.update(
        {
            "vlm.box_format": "xyxy_1000",
            "vlm.openai.timeout": 600,  # requests are counted: none is to be sent again
            "vlm.prices": PRICES["small"],
            "vlm.cascade": ["small", entry("large")],
            "workflow.check": True,
            "data.classes": CLASSES,
        }
    )
    return workplace


def at(place: Workplace, server: LoopbackServer, **settings: Any) -> dict[str, Any]:
    place.settings["vlm.openai.base_url"] = server.base_url
    return {**place.settings, **settings}


def pilot(place: Workplace, *more: str, count: int = PILOT, gold: bool = True) -> Done:
    of_gold = ["--gold", str(place.folder / "gold.jsonl")] if gold else []
    done = place.run("--pilot", str(count), *of_gold, *more)
    assert done.code == 0, done
    return done


def points_of(done: Done) -> dict[str, dict[str, Any]]:
    return {point["name"]: point for point in done.summary["frontier"]["points"]}


def rows_of(place: Workplace, step: str) -> list[dict[str, Any]]:
    """The expressions that a step left."""
    [folder] = place.results.glob(step)
    lines = (folder / "annotations.jsonl").read_text().splitlines()
    return [row for line in lines for row in json.loads(line)["expressions"]]


def f1_in(path: Path, gold: Path) -> float:
    """What `eval` says of the pilot's pictures and phrases."""
    answered = [json.loads(line) for line in path.read_text().splitlines()]
    known = {record["image_path"]: record for record in answered}
    asked = gold.with_name("asked.jsonl")
    lines = []
    for line in gold.read_text().splitlines():
        record = json.loads(line)
        if record["image_path"] in known:
            rows = [row for row in record["expressions"] if row["text"] in CLASSES]
            lines.append(json.dumps({**record, "expressions": rows}) + "\n")
    asked.write_text("".join(lines))
    figures = command(["eval", str(path), "--gold", str(asked), "--json"]).summary
    precision, recall = figures["precision_at_iou_0.5"], figures["recall_at_iou_0.5"]
    return float(2 * precision * recall / (precision + recall))


@pytest.mark.slow
def test_each_way_has_the_f1_that_eval_finds_and_the_cost_that_cost_finds(
    place: Workplace,
) -> None:
    gold = place.folder / "gold.jsonl"
    model = ModelsByName()
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        at(place, server)
        points = points_of(pilot(place))
        bill = command(["cost", str(place.results), "--json"]).summary
        assert list(points)[:3] == ["small alone", "small, checked", "small → large, doubt 1"]
        assert list(points)[-2:] == ["small → large, doubt 0", "large alone"]
        steps = {step["step"].partition("_")[2]: step for step in bill["steps"]}
        for name, step in [
            ("small alone", "step_1_grounding"),
            ("small, checked", "step_6_box_mending"),
            ("small → large, doubt 1", "step_7_second_opinion"),
        ]:
            path = place.results / step / "annotations.jsonl"
            assert points[name]["f1"] == pytest.approx(f1_in(path, gold), abs=1e-4), name
            low, high = points[name]["interval"]
            assert low <= points[name]["f1"] <= high
        grounding = steps["grounding"]["cost_usd"]
        assert points["small alone"]["usd_per_1000"] == pytest.approx(1000 * grounding / PILOT)
        checked = sum(step["cost_usd"] for name, step in steps.items() if name != "second_opinion")
        usd = points["small, checked"]["usd_per_1000"]
        assert usd == pytest.approx(1000 * checked / PILOT, rel=1e-3)
        large = 1000 * steps["second_opinion"]["cost_usd"] / PILOT
        assert points["large alone"]["usd_per_1000"] == pytest.approx(large, rel=1e-3)
        # a model alone, as a run of its own has it
        own = {"vlm.cascade": None, "workflow.check": False, "vlm.openai.model_name": "large"}
        place.results = place.folder / "large"
        assert place.run("--pilot", str(PILOT), **own).code == 0
        f1 = f1_in(place.results / "annotations.jsonl", gold)
    assert points["large alone"]["f1"] == pytest.approx(f1, abs=1e-4)
    assert all(
        point["usd_of_all"] == pytest.approx(point["usd_per_1000"] * PICTURES / 1000, rel=1e-3)
        for point in points.values()
    )


@pytest.mark.slow
def test_a_pilot_of_some_steps_asks_no_more_than_the_run(place: Workplace) -> None:
    """As `tune` does, which makes no picture either."""
    model = ModelsByName()
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        at(place, server)
        for step in ("0", "1"):
            done = place.run("--pilot", str(PILOT), **{"workflow.steps": [step]})
            assert done.code == 0, done
        doubted = [row["text"] for row in rows_of(place, "step_6_*") if row["verified"] is None]
    assert 0 < len(doubted) < PILOT * len(CLASSES) / 2
    assert sorted(text for _, text in model.phrases["large"]) == sorted(doubted)
    assert "frontier" not in done.summary


@pytest.mark.slow
def test_a_whole_run_sends_what_the_picture_said(place: Workplace) -> None:
    """At each doubt, a run anew sends the better model as many requests as the pilot foretold."""
    with LoopbackServer(ModelsByName(), keep_bodies=True, record=False) as server:
        at(place, server)
        points = points_of(pilot(place, count=PICTURES))
    foretold = {}
    sent = {}
    for name, point in points.items():
        if "workflow.cascade_doubt" not in point["set"]:
            continue
        model = ModelsByName()
        with LoopbackServer(model, keep_bodies=True, record=False) as server:
            place.results = place.folder / name
            done = place.run(**at(place, server), **point["set"])
            assert done.code == 0, done
        requests = point["requests_per_1000"].get("large", 0)
        foretold[name] = round(requests * PICTURES / 1000)
        sent[name] = model.requests["large"]
    assert sent == foretold
    assert len(set(sent.values())) > 1
    assert sent["small → large, doubt 0"] == PICTURES


@pytest.mark.slow
def test_a_full_run_goes_on_with_the_pilots_replies_at_any_doubt(place: Workplace) -> None:
    model = ModelsByName()
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        at(place, server)
        foreseen = command(["estimate", "-e", str(place.spec()), "--pilot", str(PILOT), "--json"])
        steps = {step["step"]: step["requests"] for step in foreseen.summary["steps"]}
        assert steps["step7_second_opinion"] == PILOT
        first = pilot(place)
        assert model.requests["large"] == PILOT
        before = dict(model.requests)
        again = pilot(place)
        assert dict(model.requests) == before
        assert again.summary["frontier"] == first.summary["frontier"]
        left = command(["estimate", "-e", str(place.spec()), "--json"]).summary
        steps = {step["step"]: step["requests"] for step in left["steps"]}
        assert steps["step7_second_opinion"] < PICTURES - PILOT + 1
        for doubt in (0.25, 0.0):
            done = place.run(**{"workflow.cascade_doubt": doubt})
            assert done.code == 0, done
        # the better model alone, which is asked in the same words
        alone = {"vlm.openai.model_name": "large", "vlm.cascade": None, "workflow.check": False}
        done = place.run(**alone)
        assert done.code == 0, done
        in_pilot = model.phrases["large"][: PILOT * len(CLASSES)]
    pictures = {picture for picture, _ in in_pilot}
    later = model.phrases["large"][len(in_pilot) :]
    assert len(pictures) == PILOT
    assert later
    assert not [picture for picture, _ in later if picture in pictures]


@pytest.mark.slow
def test_the_pilots_files_are_a_page_a_picture_and_figures(place: Workplace) -> None:
    hostile = "vendor/<script>alert(1)</script>"
    errors = {"small": CHEAP, hostile: PERFECT}
    place.settings["vlm.cascade"] = ["small", entry(hostile)]
    with LoopbackServer(ModelsByName(errors), keep_bodies=True, record=False) as server:
        at(place, server)
        of_gold = ["--gold", str(place.folder / "gold.jsonl")]
        arguments = ["generate", "-e", str(place.spec()), "--pilot", str(PILOT), *of_gold]
        done = command([*arguments, "--no-progress", "--no-report"])
    assert done.code == 0, done
    assert "way to run" in done.out
    assert "USD per 1,000" in done.out
    assert f"USD for all {PICTURES}" in done.out
    assert str(place.results / "frontier.html") in done.err
    document = json.loads((place.results / "frontier.json").read_text())
    assert document["models"] == ["small", hostile]
    page = (place.results / "frontier.html").read_text()
    assert "<script" not in page
    assert f"{PILOT * len(CLASSES)} phrases of {PILOT} pictures" in page
    svg = ElementTree.parse(place.results / "frontier.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    dots = [item for item in svg.iter(f"{name}circle") if "dot" in item.get("class", "")]
    shown = {text.text for text in svg.iter(f"{name}text")}
    assert len(dots) == len(document["points"])
    assert {point["name"] for point in document["points"]} <= shown
    for point in document["points"]:
        worse_than = [
            other["name"]
            for other in document["points"]
            if other["f1"] >= point["f1"]
            and other["usd_per_1000"] <= point["usd_per_1000"]
            and (other["f1"], other["usd_per_1000"]) != (point["f1"], point["usd_per_1000"])
        ]
        assert point["better"] == (worse_than[0] if worse_than else None)


@pytest.mark.slow
def test_without_gold_it_says_whose_boxes_stand_for_it_and_without_prices_it_counts_requests(
    place: Workplace,
) -> None:
    place.settings.update(
        {"vlm.prices": None, "vlm.cascade": ["small", entry("large", priced=False)]}
    )
    with LoopbackServer(ModelsByName(), keep_bodies=True, record=False) as server:
        at(place, server)
        done = pilot(place, gold=False)
    document = done.summary["frontier"]
    points = points_of(done)
    assert (document["gold"], document["judged_by"]) == (None, "large")
    assert points["large alone"]["f1"] == 1.0
    assert points["small alone"]["f1"] < points["small, checked"]["f1"] < 1.0
    assert points["large alone"]["requests_per_1000"] == {"large": 1000}
    assert points["large alone"]["usd_per_1000"] is None
    # fewer requests to another model are no less
    assert points["small, checked"]["better"] is None
    # as many to the one model, and some to the other besides, for boxes that are no better
    assert points["small → large, doubt 1"]["f1"] == points["small, checked"]["f1"]
    assert points["small → large, doubt 1"]["better"] == "small, checked"
    page = (place.results / "frontier.html").read_text()
    assert "No gold was given" in page
    assert "requests per 1,000" in page
    assert "USD per 1,000" not in page


@pytest.mark.slow
def test_the_last_of_three_models_is_asked_what_the_second_leaves_in_doubt(
    place: Workplace,
) -> None:
    errors = {"small": CHEAP, "middle": Errors(absent=0.3, mislabelled=0.6), "large": PERFECT}
    place.settings["vlm.cascade"] = ["small", entry("middle"), entry("large")]
    model = ModelsByName(errors)
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        at(place, server)
        assert place.run().code == 0
        doubted = {}
        for name, step in [("middle", 6), ("large", 7)]:
            rows = rows_of(place, f"step_{step}_*")
            doubted[name] = sorted(row["text"] for row in rows if row["verified"] is None)
        for name, texts in doubted.items():
            assert sorted(text for _, text in model.phrases[name]) == texts
        assert 0 < len(doubted["large"]) < len(doubted["middle"])
        points = points_of(pilot(place))
    assert "small → middle, doubt 1" in points
    assert points["small → middle → large, doubt 1"]["is_own"]
    assert list(points)[-2:] == ["middle alone", "large alone"]


@pytest.mark.slow
def test_gold_that_is_of_no_use_is_told_before_anything_is_sent(place: Workplace) -> None:
    with LoopbackServer(ModelsByName(), keep_bodies=True, record=False) as server:
        at(place, server)
        gold = str(place.folder / "gold.jsonl")
        empty = place.folder / "empty.jsonl"
        empty.write_text(json.dumps({"image_path": "a.jpg", "expressions": []}) + "\n")
        for arguments, message in [
            (["--gold", gold], "--gold is for the pilot of a cascade: add --pilot N"),
            (["--pilot", "2", "--gold", str(empty)], "has no boxes"),
            (["--pilot", "2", "--gold", "nowhere.jsonl"], "nowhere.jsonl"),
        ]:
            done = place.run(*arguments)
            assert (done.code, done.err.count("\n")) == (2, 1), done
            assert message in done.err
        done = place.run("--pilot", "2", "--gold", gold, **{"vlm.cascade": None})
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert server.count() == 0


@pytest.mark.slow
def test_gold_of_other_pictures_leaves_the_pilot_and_says_so(place: Workplace) -> None:
    other = place.folder / "other.jsonl"
    [record] = [json.loads(place.folder.joinpath("gold.jsonl").read_text().splitlines()[-1])]
    other.write_text(json.dumps(record) + "\n")
    with LoopbackServer(ModelsByName(), keep_bodies=True, record=False) as server:
        at(place, server)
        done = place.run("--pilot", "2", "--gold", str(other))
    assert done.code == 0, done
    assert "Warning: no picture of cost and F1" in done.err
    assert "frontier" not in done.summary


@pytest.mark.parametrize("frame", [WIDE, NARROW])
@pytest.mark.parametrize("requests", [0.9, 5200.0, 93_000.0, 640_000.0])
def test_values_of_the_axis_of_costs_are_not_cut_off(frame: Frame, requests: float) -> None:
    point = {
        "name": "small",
        "f1": 0.8,
        "interval": [0.7, 0.9],
        "usd_per_1000": None,
        "requests_per_1000": {"small": requests},
        "better": None,
        "is_own": True,
    }
    svg = ElementTree.fromstring(picture_of({"points": [point]}, frame))
    texts = [item for item in svg if item.tag.endswith("text")]
    of_axis = [item for item in texts if item.get("text-anchor") == "middle"]
    assert len(of_axis) >= 2
    for item in of_axis:
        half = 7 * len(item.text or "") / 2  # px: a digit at 13 px has about 7
        assert float(item.get("x", "")) + half <= frame.width
