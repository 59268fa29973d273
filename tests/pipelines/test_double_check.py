"""The checks of `image_referring_expression`: what is found, what is mended, and what an unreadable
answer leaves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import FileStorage, OpenAIServing, SpecError
from dataflow_grounding.pipelines.shipped import ImageReferringExpressionPipeline
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, faults, on
from tests.support.referring_place import ReferringPlace
from tests.support.stand_ins.gold import GoldAnswers

CAR, BUS, VAN = [10, 20, 110.5, 90], [300, 40, 600, 260], [200, 300, 260, 420.25]
TEXTS = {
    "the red car": [CAR],
    "the bus": [BUS],
    "the van": [VAN],
    "the car and the bus": [CAR, BUS],
}


def gold(texts: dict[str, list[list[float]]] = TEXTS) -> list[dict[str, Any]]:
    expressions = [
        {"text": text, "instances": [{"bbox": box} for box in boxes]}
        for text, boxes in texts.items()
    ]
    regions = [
        {"bbox": box, "type": "thing", "color": "red", "description": f"d{n}"}
        for n, box in enumerate((CAR, BUS, VAN))
    ]
    size = {"width": 640, "height": 480}
    return [
        {
            "image_path": "a.png",
            "caption": "A car, the bus.",
            **size,
            "regions": regions,
            "expressions": expressions,
        }
    ]


class Swapping:
    """Answers as the gold does, but for the regions of the first two expressions of step 2, which
    change places.
    """

    reads = "images"

    def __init__(
        self,
        folder: Path,
        swapped: bool = True,
        **changes: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        self.gold = GoldAnswers(gold(), image_root=folder)
        self.swapped = swapped
        self.changes = changes

    def __call__(self, request: Any) -> dict[str, Any]:
        answer = copy.deepcopy(self.gold(request))
        if request.task == "grounding_expression" and self.swapped:
            first, second = answer["expressions"][:2]
            first["region_ids"], second["region_ids"] = second["region_ids"], first["region_ids"]
        return self.changes.get(request.task, lambda given: given)(answer)


def placed(folder: Path, base_url: str = "", **settings: Any) -> ReferringPlace:
    """One picture with three regions, as annotations."""
    place = ReferringPlace(folder, base_url, **settings)
    place.picture("a.png")
    row = {
        "image_path": "a.png",
        "regions": [{"bbox": box, "type": "thing"} for box in (CAR, BUS, VAN)],
    }
    place.given(row)
    return place


def boxes(expression: dict[str, Any]) -> list[list[float]]:
    return [instance["bbox"] for instance in expression["instances"]]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ask", "reground", "both"])
def test_swapped_expressions_are_found_and_mended_and_it_is_said(
    tmp_path: Path, method: str
) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": method})
        server.answers = Swapping(place.images)
        done = place.run()
        assert done.code == 0, done
        tasks = server.by_task
        assert done.summary["notes"]["mended"] == 2
        grounded_again = [r for r in server.requests if r.task == "phrase_grounding"]
    for request in grounded_again:  # the boxes that it has are not shown
        assert set(request.input) == {"task", "image", "phrases"}
        assert "110" not in json.dumps(request.input)
    assert ("phrase_grounding" in tasks, "double_check" in tasks) == (
        method != "ask",
        method != "reground",
    )
    before = {e["text"]: boxes(e) for e in place.annotations(2)[0]["expressions"]}
    assert before["the red car"] == [BUS]
    expressions = {e["text"]: e for e in place.annotations()[0]["expressions"]}
    assert {text: boxes(e) for text, e in expressions.items()} == TEXTS, "mended, to the last digit"
    assert all(e["verified"] is True and e["status"] == "grounded" for e in expressions.values())
    for text, region in (("the red car", 2), ("the bus", 1)):
        checked = expressions[text]["verification"]
        assert checked["before"] == {"text": text, "region_ids": [region]}
        assert checked["method"] == method
        assert checked["reason"]
        assert checked["iou"] is None if method == "ask" else checked["iou"] > 0.9
    assert "before" not in expressions["the van"]["verification"]
    ids = [i["bbox_id"] for e in expressions.values() for i in e["instances"]]
    assert len(set(ids)) == len(ids) == 5


def test_a_mended_text_gets_its_own_span(tmp_path: Path) -> None:
    def mend(answer: dict[str, Any]) -> dict[str, Any]:
        for check in answer["checks"]:
            if check["text"] == "the red car":
                check |= {"matches": False, "text": "A car", "reason": "it is blue"}
        return answer

    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url)
        server.answers = Swapping(place.images, swapped=False, double_check=mend)
        assert place.run().code == 0
    [mended] = [e for e in place.annotations()[0]["expressions"] if e["text"] == "A car"]
    assert (mended["char_span"], boxes(mended), mended["verified"]) == ([0, 5], [CAR], True)
    assert mended["verification"]["before"] == {"text": "the red car", "region_ids": [1]}
    assert mended["verification"]["reason"] == "it is blue"


UNREADABLE = [
    (faults.says("I am sure that all is well."), "unreadable_reply"),
    (faults.server_error(500), "server_fault"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [pytest.param(*case, id=f"{n} {case[1]}") for n, case in enumerate(UNREADABLE)],
)
def test_an_answer_that_cannot_be_had_changes_nothing_and_is_a_failure(
    tmp_path: Path, fault: Any, kind: str
) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"workflow.max_attempts": 2})
        server.answers = Swapping(place.images)
        server.faults = [on(fault, task="double_check")]
        done = place.run()
        assert done.code == 1, done
        [record], [earlier] = place.annotations(), place.annotations(2)
        checks = ("verified", "verification")
        kept = [{k: v for k, v in e.items() if k not in checks} for e in record["expressions"]]
        before = [{**row, "verified": None} for row in kept]
        assert before == earlier["expressions"]
        assert all(e["verified"] is None for e in record["expressions"])
        [failure] = place.failures()
        assert (failure["id"], failure["step"], failure["kind"]) == (
            "a",
            "step3_double_check",
            kind,
        )
        server.faults = []
        again = place.run("--retry-failed")
        assert again.code == 0, again
    assert all(e["verified"] for e in place.annotations()[0]["expressions"])
    assert place.failures() == []


def several(answer: dict[str, Any]) -> dict[str, Any]:
    for check in answer["checks"]:
        if check["text"] == "the van":
            check |= {"matches": False, "region_ids": [2, 3], "reason": "the bus is one too"}
    return answer


def seen_twice(answer: dict[str, Any]) -> dict[str, Any]:
    van = next(thing for thing in answer["objects"] if thing["label"] == "the van")
    answer["objects"].append({**van, "bbox_2d": BUS})
    return answer


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        pytest.param("ask", {"double_check": several}, id="the model says so"),
        pytest.param("reground", {"phrase_grounding": seen_twice}, id="it is found twice"),
        pytest.param("both", {"phrase_grounding": seen_twice}, id="only found twice"),
        pytest.param("both", {"double_check": several}, id="only said"),
    ],
)
def test_what_is_meant_for_one_region_and_fits_several_is_ambiguous(
    tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": method})
        server.answers = Swapping(place.images, swapped=False, **changes)
        done = place.run()
        assert done.code == 0, done
        grounded_again = [
            phrase["text"]
            for request in server.requests
            if request.task == "phrase_grounding"
            for phrase in request.input["phrases"]
        ]
    # what was said to fit several regions has no boxes to compare another answer with
    assert ("the van" in grounded_again) == ("phrase_grounding" in changes)
    assert (done.summary["ambiguous"], done.summary["grounded"]) == (1, 3)
    van = next(e for e in place.annotations()[0]["expressions"] if e["text"] == "the van")
    assert (van["status"], van["instances"], van["verified"]) == ("ambiguous", [], False)
    assert van["verification"]["region_ids"] == [2, 3]
    assert van["verification"]["before"] == {"text": "the van", "region_ids": [3]}


def nowhere(answer: dict[str, Any]) -> dict[str, Any]:
    return {"objects": [thing for thing in answer["objects"] if thing["label"] != "the van"]}


def elsewhere(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "objects": [
            {**t, "bbox_2d": [1, 400, 60, 470]} if t["label"] == "the van" else t
            for t in answer["objects"]
        ]
    }


def at_the_bus(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "objects": [
            {**t, "bbox_2d": BUS} if t["label"] == "the van" else t for t in answer["objects"]
        ]
    }


@pytest.mark.parametrize(
    ("method", "change", "reason"),
    [
        pytest.param("reground", nowhere, "nothing is found", id="found nowhere"),
        pytest.param(
            "reground",
            elsewhere,
            "1 of 1 boxes are on no region",
            id="found where there is no region",
        ),
        pytest.param(
            "both", at_the_bus, "disagree", id="asked it is right, found on another region"
        ),
    ],
)
def test_what_does_not_match_and_can_not_be_mended_is_false_and_keeps_its_boxes(
    tmp_path: Path, method: str, change: Any, reason: str
) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": method})
        server.answers = Swapping(place.images, swapped=False, phrase_grounding=change)
        assert place.run().code == 0
    van = next(e for e in place.annotations()[0]["expressions"] if e["text"] == "the van")
    assert (van["verified"], van["status"], boxes(van)) == (False, "grounded", [VAN])
    assert reason in van["verification"]["reason"]
    assert "before" not in van["verification"]


def test_a_second_model_may_ground_afresh(tmp_path: Path) -> None:
    with LoopbackServer() as first, LoopbackServer() as second:
        other = {
            "box_format": "yxyx_1000",
            "base_url": second.base_url,
            "model_name": "two",
        }
        place = placed(
            tmp_path, first.base_url, **{"double_check.method": "both", "vlm.judge": other}
        )
        first.answers = Swapping(place.images)
        second.answers = GoldAnswers(gold(), image_root=place.images, box_format="yxyx_1000")
        done = place.run()
        assert done.code == 0, done
        assert "phrase_grounding" not in first.by_task
        assert second.by_task == {"phrase_grounding": 1}
        assert {r.model for r in second.requests} == {"two"}
        sent = first.count() + second.count()
        assert place.run().code == 0
        assert first.count() + second.count() == sent
    expressions = place.annotations()[0]["expressions"]
    assert {e["text"]: boxes(e) for e in expressions} == TEXTS
    assert all(e["verified"] and 0.9 < e["verification"]["iou"] <= 1 for e in expressions)


def test_equal_texts_on_two_regions_are_grounded_once_and_found_ambiguous(tmp_path: Path) -> None:
    rows = [("the car", CAR), ("the car", VAN)]

    def answers(request: Any) -> dict[str, Any]:
        if request.task == "grounding_expression":
            return {"expressions": [{"text": "the car", "region_ids": [n]} for n in (1, 3)]}
        if request.task == "phrase_grounding":
            return {"objects": [{"id": 1, "label": text, "bbox_2d": box} for text, box in rows]}
        return EchoAnswers()(request)

    with LoopbackServer(answers) as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": "reground"})
        assert place.run().code == 0
        [asked] = [r for r in server.requests if r.task == "phrase_grounding"]
        assert len(asked.input["phrases"]) == 1
    found = place.annotations()[0]["expressions"]
    assert [(e["status"], e["verification"]["region_ids"]) for e in found] == [
        ("ambiguous", [1, 3])
    ] * 2


def test_the_check_runs_alone_on_annotations_of_the_other_pipeline(tmp_path: Path) -> None:
    """Its boxes are in no region: they are checked all the same, and stay exact."""
    row = of_another_pipeline() | {"source": "image_grounding", "pipeline_steps": ["step0"]}
    expressions = row["expressions"]
    expressions[0] |= {"noun_chunk": "bus", "char_span": [2, 5]}
    expressions.append({"expression_id": "x#2", "text": "a cat", "instances": [], "status": "none"})
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"workflow.steps": ["3"]})
        place.given(row)
        server.answers = Swapping(place.images)
        done = place.run()
        assert done.code == 0, done
        assert server.by_task == {"double_check": 1}
    [record] = place.annotations()
    *checked, cat = record["expressions"]
    for now, given in zip(checked, expressions[:2], strict=True):
        assert {name: now[name] for name in given} == given
        assert now["verified"] is True
    assert {name: cat[name] for name in expressions[2]} == expressions[2]
    assert cat["verified"] is None  # which nobody checked
    assert record["source"] == "image_grounding"
    assert record["pipeline_steps"] == ["step0", "step3_double_check"]


def at_the_van(answer: dict[str, Any]) -> dict[str, Any]:
    for check in answer["checks"]:
        if check["text"] == "the red car":
            check |= {"matches": False, "region_ids": [3], "text": "A car", "reason": "not there"}
    return answer


def of_another_pipeline() -> dict[str, Any]:
    """A record with the boxes of the first two texts, in no region."""
    row: dict[str, Any] = {"image_path": "a.png", "caption": "A car.", "expressions": []}
    for number, box in enumerate((CAR, VAN)):
        text = ["the red car", "the van"][number]
        instance = {"bbox_id": f"x#{number}.0", "bbox": box, "score": 0.7}
        expression = {"expression_id": f"x#{number}", "text": text, "instances": [instance]}
        row["expressions"].append({**expression, "status": "grounded"})
    return row


@pytest.mark.parametrize("has_regions", [True, False])
def test_what_is_asked_is_one_step_and_what_grounding_again_does_not_confirm_is_undone(
    tmp_path: Path, has_regions: bool
) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": "both"})
        server.answers = Swapping(place.images, swapped=False, double_check=at_the_van)
        if not has_regions:
            place.settings["workflow.steps"] = ["3"]
            place.given(of_another_pipeline())
            server.answers = Swapping(place.images, swapped=False, double_check=in_second)
        done = place.run()
        assert done.code == 0, done
        sent = server.by_task
    assert (sent["double_check"], sent["phrase_grounding"]) == (1, 1)
    [asked] = place.annotations(3)[0]["expressions"][:1]
    assert (asked["text"], boxes(asked), asked["verified"]) == ("A car", [VAN], True)
    assert asked["verification"]["method"] == "ask"
    [record] = place.annotations()
    [undone] = record["expressions"][:1]
    assert (undone["text"], boxes(undone), undone["verified"]) == ("the red car", [CAR], False)
    assert "the two checks disagree" in undone["verification"]["reason"]
    assert "before" not in undone["verification"]
    if not has_regions:
        assert undone["instances"][0]["score"] == 0.7, "the very box that it had"
    assert record["pipeline_steps"][-2:] == ["step3_double_check", "step4_box_verification"]


def in_second(answer: dict[str, Any]) -> dict[str, Any]:
    answer["checks"][0] |= {"matches": False, "region_ids": [2], "text": "A car", "reason": "no"}
    return answer


def test_boxes_that_are_grounded_again_are_watched_as_the_spec_says(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        place = placed(tmp_path, server.base_url, **{"double_check.method": "both"})
        server.answers = Swapping(place.images)
        assert place.run().summary["probes"] == 0
        place.results = tmp_path / "watched"
        place.settings["vlm.check_every"] = 100
        assert place.run().summary["probes"] > 0
        before = server.count()
        assert place.run().summary["requests"] == 0
        assert server.count() == before


def test_a_method_that_does_not_exist_is_refused_in_one_line(tmp_path: Path) -> None:
    storage = FileStorage(str(tmp_path / "rows.jsonl"), str(tmp_path / "cache"))
    method: Any = "typo"
    serving = OpenAIServing("http://127.0.0.1:9/v1", "qwen2.5-vl")
    with pytest.raises(SpecError, match=r"method 'typo' is not one of ask, reground, both$"):
        ImageReferringExpressionPipeline(storage, serving, method=method)
