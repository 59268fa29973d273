"""`data.proposals`: boxes that something else made, verified in a run from a spec and by hand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import BoxChecker
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.half_filled import proposals_for, scenes
from tests.support.labelled import FORMATS, labelled, pictures_of
from tests.support.stand_ins.erring_model import ErringModel, Errors, about_probes
from tests.support.stand_ins.seeing_model import COLORS
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow  # each is one or several runs with a judge

PICTURES, SIZE = 4, (600, 450)
PHRASES = [f"the {color} box" for color in sorted(COLORS)]


class Judge(ErringModel):
    """Makes no errors; keeps what it was sent."""

    def __init__(self, box_format: str = "xyxy_px") -> None:
        super().__init__(Errors(), box_format=box_format)
        self.received: list[ReceivedRequest] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        self.received.append(request)
        return super().__call__(request)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return scenes(tmp_path_factory.mktemp("drawn"), PICTURES, seed=5, shrink=2)


@pytest.fixture
def gold(workplace: Workplace, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    linked = []
    for record in drawn:
        path = workplace.folder / Path(record["image_path"]).name
        os.link(record["image_path"], path)
        linked.append({**record, "image_path": str(path)})
    return linked


@pytest.fixture
def place(workplace: Workplace, gold: list[dict[str, Any]]) -> Workplace:
    pictures = pictures_of(proposals_for(gold, seed=5), SIZE)
    path = labelled(workplace.folder, "coco", pictures, classes=PHRASES, drawn=False)
    lines = [json.dumps(record) + "\n" for record in gold]
    (workplace.folder / "gold.jsonl").write_text("".join(lines), encoding="utf-8")
    workplace.input = path.rename(workplace.folder / "detections.json")
    workplace.settings.update({"data.proposals": "coco", "vlm.check_every": 100})
    return workplace


def test_false_ones_go_true_ones_keep_their_numbers_and_what_lacks_is_found(
    place: Workplace, gold: list[dict[str, Any]]
) -> None:
    proposed = proposals_for(gold, seed=5)
    model = Judge()
    with LoopbackServer(model, keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url, "data.classes": PHRASES}
        done = place.run(**settings)
        assert done.code == 0, done
        assert model.requests["box_check"] == PICTURES
        assert model.requests["missing_boxes"] <= PICTURES
        grounded = [r for r in model.received if r.task == "phrase_grounding"]
        assert all(about_probes(request) for request in grounded)
        sent = server.count()
        (place.results / "annotations.jsonl").unlink()
        for step in place.results.glob("step_*/annotations.jsonl"):
            step.unlink()
        assert place.run(**settings).code == 0
        assert server.count() == sent
    for truth, before, after in zip(gold, proposed, place.annotations(), strict=True):
        results = {expression["text"]: expression for expression in after["expressions"]}
        for expected, proposal in zip(truth["expressions"], before["expressions"], strict=True):
            result = results[expected["text"]]
            assert len(result["instances"]) == len(expected["instances"])
            dropped = [instance for instance in proposal["instances"] if instance["false"]]
            assert len(result.get("rejected", [])) == len(dropped)
            has_true = len(proposal["instances"]) > len(dropped)
            for instance in result["instances"]:
                assert ("found_by" in instance) is not has_true
                assert (instance.get("score") is not None) is has_true
    done = command(
        ["eval", str(place.results), "--gold", str(place.folder / "gold.jsonl"), "--json"]
    )
    assert done.summary["n_acc"] == 1


def test_a_proposal_that_cannot_be_read_is_a_failure(place: Workplace) -> None:
    data = json.loads(place.input.read_text())
    bad = {**data["annotations"][0], "id": 999, "bbox": [1, 2, 3]}
    place.input.write_text(json.dumps({**data, "annotations": [*data["annotations"], bad]}))
    with LoopbackServer(Judge(), keep_bodies=True) as server:
        done = place.run(**{"vlm.openai.base_url": server.base_url})
    assert done.code == 1, done
    [failure] = place.failures()
    assert "detections.json, annotation 999: " in failure["message"]
    assert len(place.annotations()) == PICTURES


def test_every_class_has_a_status_in_every_picture(
    place: Workplace, gold: list[dict[str, Any]]
) -> None:
    """What the check found absent was neither there nor absent, and proposals had no class."""
    with LoopbackServer(Judge(), keep_bodies=True) as server:
        classes = {phrase: phrase.split()[1] for phrase in PHRASES} | {"a grey cow": "cow"}
        done = place.run(**{"vlm.openai.base_url": server.base_url, "data.classes": classes})
    assert done.code == 0, done
    for truth, record in zip(gold, place.annotations(), strict=True):
        there = {row["text"]: bool(row["instances"]) for row in truth["expressions"]}
        assert [row["text"] for row in record["expressions"]].count("a grey cow") == 1
        for row in record["expressions"]:
            expected = "grounded" if there.get(row["text"]) else "none"
            assert (row["status"], row["class"]) == (expected, classes[row["text"]])
    for row in place.run_json()["summary"]["classes"]:
        assert row["pictures"] + row["none"] == PICTURES, row


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_a_detectors_boxes_may_be_in_the_format_of_its_tool(
    place: Workplace, gold: list[dict[str, Any]], name: str
) -> None:
    proposed = proposals_for(gold, seed=5)
    pictures = pictures_of(proposed, SIZE)
    place.input = labelled(place.folder / "of_a_tool", name, pictures, classes=PHRASES)
    for record in gold:
        shutil.copy(record["image_path"], place.input / FORMATS[name].pictures)
    model = Judge()
    with LoopbackServer(model, keep_bodies=True) as server:
        done = place.run(**{"vlm.openai.base_url": server.base_url, "data.proposals": name})
    assert done.code == 0, done
    records = {Path(record["image_path"]).name: record for record in place.annotations()}
    for before in proposed:
        after = records[Path(before["image_path"]).name]
        results = {expression["text"]: expression for expression in after["expressions"]}
        for proposal in before["expressions"]:
            if not proposal["instances"]:
                continue
            result = results[proposal["text"]]
            for instance in proposal["instances"]:
                where = result.get("rejected", []) if instance["false"] else result["instances"]
                assert any(
                    item["bbox"] == pytest.approx(instance["bbox"], abs=0.01) for item in where
                )


def test_the_judge_sees_no_score_and_boxes_stay_as_they_are(tmp_path: Path) -> None:
    [gold] = scenes(tmp_path, 1, seed=3)
    expressions = []
    for expression in gold["expressions"]:
        instances = [{**box, "score": 0.8125} for box in expression["instances"]]
        for instance in instances:
            instance["bbox"] = [edge + 0.12345678901234 for edge in instance["bbox"]]
        expressions.append({"text": expression["text"], "instances": instances})
    model = Judge("xyxy_1000")
    with LoopbackServer(model, keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        record = {"image_path": gold["image_path"], "expressions": expressions}
        judged = BoxChecker(serving, check_every=None)(record)["expressions"]
    [request] = model.received
    assert "0.8125" not in json.dumps(request.body)
    for before, after in zip(expressions, judged, strict=True):
        given = [(instance["bbox"], instance["score"]) for instance in before["instances"]]
        assert [(box["bbox"], box["score"]) for box in after["instances"]] == given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.proposals": "cocoa"}, "'cocoa'"),
        ({"data.input_jsonl": "nowhere.json"}, "nowhere.json: check data.input_jsonl"),
        ({"workflow.zoom": True}, "workflow.zoom is for boxes that the model finds"),
        ({"data.proposals": "samples"}, "'samples'"),
        ({"workflow.samples": 3}, "workflow.samples is for boxes that the model finds"),
        ({"data.split": "val"}, "data.split is of data sets from a hub: with data.proposals leave"),
    ],
)
def test_what_a_spec_says_wrong_is_told(
    place: Workplace, settings: dict[str, Any], message: str
) -> None:
    done = place.run(**{"vlm.openai.base_url": "http://127.0.0.1:9", **settings})
    assert done.code == 2, done
    assert message in done.err


def test_proposals_in_a_picture_of_another_size_fail_their_record_alone(place: Workplace) -> None:
    coco = json.loads(place.input.read_text("utf-8"))
    coco["images"][1] |= {"width": 450, "height": 600}
    place.input.write_text(json.dumps(coco), encoding="utf-8")
    model = Judge()
    with LoopbackServer(model, keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url}
        checked = command(["check", "-e", str(place.spec(**settings))])
        assert checked.code == 2
        assert "EXIF orientation turns it" in checked.err
        assert place.run(**settings).code == 1
    [failure] = place.failures()
    assert failure["kind"] == "size_differs"
    assert len(place.annotations()) == PICTURES - 1
