"""`data.proposals`: boxes that something else made, verified in a run from a spec and by hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding import BoxChecker
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.endpoint import serving_of
from tests.support.half_filled import proposals_for, scenes
from tests.support.labelled import FORMATS, labelled, pictures_of, saved
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
def gold(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Pictures with boxes, in a folder with a file of detections and the truth."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn = scenes(folder, PICTURES, seed=5, shrink=2)
    pictures = pictures_of(proposals_for(drawn, seed=5), SIZE)
    path = labelled(folder, "coco", pictures, classes=PHRASES, drawn=False)
    path.rename(folder / "detections.json")
    lines = [json.dumps(record) + "\n" for record in drawn]
    (folder / "gold.jsonl").write_text("".join(lines), encoding="utf-8")
    return drawn


def place_in(folder: Path, results: Path, base_url: str) -> Workplace:
    place = Workplace(folder, base_url, **{"data.proposals": "coco", "vlm.check_every": 100})
    place.input, place.results = folder / "detections.json", results
    return place


@pytest.fixture
def place(gold: list[dict[str, Any]], tmp_path: Path, server: LoopbackServer) -> Workplace:
    """The folder of `gold`, and results of the test's own."""
    server.answers = Judge()
    return place_in(Path(gold[0]["image_path"]).parent, tmp_path, server.base_url)


def changed(place: Workplace, change: Callable[[dict[str, Any]], object]) -> None:
    """Give the run a changed copy of the detections."""
    data = json.loads(place.input.read_text("utf-8"))
    change(data)
    place.input = saved(place.folder / f"{len([*place.folder.iterdir()])}.json", data)


CLASSES = {phrase: phrase.split()[1] for phrase in PHRASES} | {"a grey cow": "cow"}


class Ran(NamedTuple):
    """A run that looks for all classes, and what the judge was asked."""

    place: Workplace
    asked: Counter[str]
    grounded: list[ReceivedRequest]


@pytest.fixture(scope="module")
def ran(gold: list[dict[str, Any]], one_server: LoopbackServer) -> Ran:
    folder = Path(gold[0]["image_path"]).parent
    one_server.answers = judge = Judge()
    place = place_in(folder, folder / "results", one_server.base_url)
    done = place.run(**{"data.classes": CLASSES})
    assert done.code == 0, done
    grounded = [r for r in judge.received if r.task == "phrase_grounding"]
    return Ran(place, Counter(judge.requests), grounded)


def test_each_picture_is_checked_once_and_no_phrase_is_grounded(ran: Ran) -> None:
    assert ran.asked["box_check"] == PICTURES
    assert ran.asked["missing_boxes"] <= PICTURES
    assert all(about_probes(request) for request in ran.grounded)


def test_false_ones_go_true_ones_keep_their_numbers_and_what_lacks_is_found(
    ran: Ran, gold: list[dict[str, Any]]
) -> None:
    proposed = proposals_for(gold, seed=5)
    for truth, before, after in zip(gold, proposed, ran.place.annotations(), strict=True):
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
    line = [
        "eval",
        str(ran.place.results),
        "--gold",
        str(ran.place.folder / "gold.jsonl"),
        "--json",
    ]
    assert command(line).summary["n_acc"] == 1


def test_every_class_has_a_status_in_every_picture(ran: Ran, gold: list[dict[str, Any]]) -> None:
    """What the check found absent was neither there nor absent, and proposals had no class."""
    for truth, record in zip(gold, ran.place.annotations(), strict=True):
        there = {row["text"]: bool(row["instances"]) for row in truth["expressions"]}
        assert [row["text"] for row in record["expressions"]].count("a grey cow") == 1
        for row in record["expressions"]:
            expected = "grounded" if there.get(row["text"]) else "none"
            assert (row["status"], row["class"]) == (expected, CLASSES[row["text"]])
    for row in ran.place.run_json()["summary"]["classes"]:
        assert row["pictures"] + row["none"] == PICTURES, row


def test_a_second_run_sends_nothing(ran: Ran, server: LoopbackServer) -> None:
    for path in ran.place.results.rglob("annotations.jsonl"):
        path.unlink()
    assert ran.place.run(**{"data.classes": CLASSES}).code == 0
    assert server.count() == 0


def test_a_proposal_that_cannot_be_read_is_a_failure(place: Workplace) -> None:
    bad = {"image_id": 1, "category_id": 1, "id": 999, "bbox": [1, 2, 3]}
    changed(place, lambda data: data["annotations"].append(bad))
    done = place.run()
    assert done.code == 1, done
    [failure] = place.failures()
    assert f"{place.input.name}, annotation 999: " in failure["message"]
    assert len(place.annotations()) == PICTURES - 1  # without that object it would be incomplete


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_a_detectors_boxes_may_be_in_the_format_of_its_tool(
    place: Workplace, tmp_path: Path, gold: list[dict[str, Any]], name: str
) -> None:
    proposed = proposals_for(gold, seed=5)
    pictures = pictures_of(proposed, SIZE)
    place.input = labelled(tmp_path / "of_a_tool", name, pictures, classes=PHRASES)
    for record in gold:
        shutil.copy(record["image_path"], place.input / FORMATS[name].pictures)
    done = place.run(**{"data.proposals": name})
    assert done.code == 0, done
    records = {Path(record["image_path"]).name: record for record in place.annotations()}
    for before in proposed:
        after = records[Path(before["image_path"]).name]
        results = {expression["text"]: expression for expression in after["expressions"]}
        for proposal in before["expressions"]:
            for instance in proposal["instances"]:
                result = results[proposal["text"]]
                where = result.get("rejected", []) if instance["false"] else result["instances"]
                near = pytest.approx(instance["bbox"], abs=0.01)
                assert any(item["bbox"] == near for item in where)


def test_the_judge_sees_no_score_and_boxes_stay_as_they_are(
    server: LoopbackServer, tmp_path: Path
) -> None:
    [gold] = scenes(tmp_path, 1, seed=3)
    expressions = []
    for expression in gold["expressions"]:
        instances = [{**box, "score": 0.8125} for box in expression["instances"]]
        for instance in instances:
            instance["bbox"] = [edge + 0.12345678901234 for edge in instance["bbox"]]
        expressions.append({"text": expression["text"], "instances": instances})
    server.answers = Judge("xyxy_1000")
    record = {"image_path": gold["image_path"], "expressions": expressions}
    judged = BoxChecker(serving_of(server), check_every=None)(record)["expressions"]
    [request] = server.requests
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
    done = place.run(**settings)
    assert done.code == 2, done
    assert message in done.err


def test_proposals_in_a_picture_of_another_size_fail_their_record_alone(place: Workplace) -> None:
    changed(place, lambda data: data["images"][1].update(width=450, height=600))
    checked = command(["check", "-e", str(place.spec())])
    assert checked.code == 2
    assert "EXIF orientation turns it" in checked.err
    assert place.run().code == 1
    [failure] = place.failures()
    assert failure["kind"] == "size_differs"
    assert len(place.annotations()) == PICTURES - 1
