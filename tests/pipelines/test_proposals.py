"""`data.proposals`: boxes that something else made, verified in a run from a spec and by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.places.workplace import Workplace, command
from benchmarks.stand_ins.check_quality import scenes
from benchmarks.stand_ins.erring_model import ErringModel, Errors, about_probes
from benchmarks.stand_ins.proposal_quality import proposals_for, verified
from benchmarks.stand_ins.seeing_model import COLORS
from dataflow_grounding import ProposalVerifier
from dataflow_grounding.extras.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.serving import OpenAIServing

PICTURES = 4
PHRASES = [f"the {color} box" for color in sorted(COLORS)]


class Judge(ErringModel):
    """Makes no errors; keeps what it was sent."""

    def __init__(self, box_format: str = "xyxy_px") -> None:
        super().__init__(Errors(), box_format=box_format)
        self.received: list[ReceivedRequest] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        self.received.append(request)
        return super().__call__(request)


def as_coco(records: list[dict[str, Any]], path: Path) -> None:
    """Write the proposals as a detector's COCO file, with scores."""
    images = []
    annotations = []
    for number, record in enumerate(records, 1):
        name = Path(record["image_path"]).name
        images.append({"id": number, "file_name": name, "width": 1200, "height": 900})
        for category, expression in enumerate(record["expressions"], 1):
            for instance in expression["instances"]:
                x1, y1, x2, y2 = instance["bbox"]
                annotation = {"id": len(annotations) + 1, "image_id": number}
                annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                annotation["score"] = instance["score"]
                annotations.append({**annotation, "category_id": category})
    categories = [{"id": number, "name": text} for number, text in enumerate(PHRASES, 1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(coco), encoding="utf-8")


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    gold = scenes(workplace.folder, PICTURES, seed=5)
    as_coco(proposals_for(gold, seed=5), workplace.folder / "detections.json")
    lines = [json.dumps(record) + "\n" for record in gold]
    (workplace.folder / "gold.jsonl").write_text("".join(lines), encoding="utf-8")
    workplace.input = workplace.folder / "detections.json"
    workplace.settings.update({"data.proposals": "coco", "vlm.check_every": 100})
    return workplace


def test_false_ones_go_true_ones_keep_their_numbers_and_what_lacks_is_found(
    place: Workplace,
) -> None:
    gold = scenes(place.folder, PICTURES, seed=5)
    proposed = proposals_for(gold, seed=5)
    model = Judge()
    with LoopbackServer(model, keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url, "data.classes": PHRASES}
        done = place.run(**settings)
        assert done.code == 0, done
        assert model.requests["box_check"] == PICTURES + 1  # and a test of the judge
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


def test_the_judge_sees_no_score_and_no_order(tmp_path: Path) -> None:
    [gold] = scenes(tmp_path, 1, seed=3)
    bbox = next(e for e in gold["expressions"] if e["instances"])["instances"][0]["bbox"]
    expressions = []
    for text in PHRASES:
        instances = []
        for shift in (0, 0.12345678901234, 40.5, 200):
            moved = [bbox[0] + shift, bbox[1], bbox[2] + shift, bbox[3]]
            instances.append({"bbox": moved, "score": 0.8125})
        expressions.append({"text": text, "instances": instances})
    shuffled = [{**e, "instances": [*reversed(e["instances"])]} for e in expressions]
    random.Random(1).shuffle(shuffled)
    sent = []
    outcomes = []
    for order in (expressions, shuffled):
        model = Judge("xyxy_1000")
        with LoopbackServer(model, keep_bodies=True) as server:
            serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
            record = {"image_path": gold["image_path"], "expressions": order}
            judged = ProposalVerifier(serving, check_every=None)(record)["expressions"]
        [request] = model.received
        sent.append(request.body)
        assert "0.8125" not in json.dumps(request.body)
        outcomes.append({e["text"]: sorted(i["bbox"] for i in e["instances"]) for e in judged})
        for before, after in zip(order, judged, strict=True):
            given = [instance["bbox"] for instance in before["instances"]]
            left = [instance["bbox"] for instance in after["instances"]]
            assert left == [bbox for bbox in given if bbox in left]
    assert sent[0] == sent[1]
    assert outcomes[0] == outcomes[1]


def test_goals_hold_on_the_stand_in(tmp_path: Path) -> None:
    figures = verified(scenes(tmp_path, 40, seed=1), 0.92, seed=1)
    assert not set(figures.missed_goals(0.92)) - {"dropped"}, figures
    assert figures.dropped > 0.85  # of about 60 boxes: the goal is that of a larger number


def test_estimate_counts_the_verification(place: Workplace) -> None:
    settings = {"vlm.openai.base_url": "http://127.0.0.1:9", "data.classes": PHRASES}
    done = command(["estimate", "-e", str(place.spec(**settings)), "--json"])
    assert done.code == 0, done
    told = {step["step"].partition("_")[2]: step["requests"] for step in done.summary["steps"]}
    assert told["proposal_check"] == PICTURES + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.proposals": "cocoa"}, "'cocoa'"),
        ({"data.input_jsonl": "nowhere.json"}, "nowhere.json: check data.input_jsonl"),
        ({"workflow.check": True}, "workflow.check is of boxes that the model finds"),
        ({"workflow.samples": 3}, "workflow.samples is of boxes that the model finds"),
    ],
)
def test_what_a_spec_says_wrong_is_told(
    place: Workplace, settings: dict[str, Any], message: str
) -> None:
    done = place.run(**{"vlm.openai.base_url": "http://127.0.0.1:9", **settings})
    assert done.code == 2, done
    assert message in done.err
