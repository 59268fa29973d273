"""The checks of `image_referring_expression`: what is found, what is mended, and what an unreadable
answer leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, on
from tests.support import faults
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import Done

Change = Callable[[dict[str, Any]], dict[str, Any]]
CAR, BUS, VAN = [10, 20, 110.5, 90], [300, 40, 600, 260], [200, 300, 260, 420.25]
TEXTS = {
    "the red car": [CAR],
    "the bus": [BUS],
    "the van": [VAN],
    "the car and the bus": [CAR, BUS],
}


class Swapping:
    """Means by each text what TEXTS says, but for the first two expressions of step 2, whose regions
    change places. `changes` change the answers to a task.
    """

    def __init__(self, swapped: bool = True, **changes: Change) -> None:
        self.swapped = swapped
        self.changes = changes

    def __call__(self, request: Any) -> dict[str, Any]:
        meant = {text: [1 + [CAR, BUS, VAN].index(b) for b in own] for text, own in TEXTS.items()}
        echo: Any = EchoAnswers()
        answer: dict[str, Any] = echo(request)
        if request.task == "image_caption":
            answer = {"caption": "A car, the bus."}
        elif request.task == "grounding_expression":
            expressions = [{"text": text, "region_ids": ids} for text, ids in meant.items()]
            if self.swapped:
                first, second = expressions[:2]
                first["region_ids"], second["region_ids"] = (
                    second["region_ids"],
                    first["region_ids"],
                )
            answer = {"expressions": expressions}
        elif request.task == "double_check":
            for check in answer["checks"]:
                ids = meant[check["text"]]
                if check["region_ids"] != ids:
                    check |= {"matches": False, "region_ids": ids, "reason": "it means others"}
        return self.changes.get(request.task, lambda given: given)(answer)


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    """One picture with three regions, as annotations."""
    made = ReferringPlace(tmp_path, server.base_url)
    made.picture("a.png")
    regions = [{"bbox": box, "type": "thing"} for box in (CAR, BUS, VAN)]
    made.given({"image_path": "a.png", "regions": regions})
    server.answers = Swapping()
    return made


def boxes(expression: dict[str, Any]) -> list[list[float]]:
    return [instance["bbox"] for instance in expression["instances"]]


def checked(place: ReferringPlace, **settings: Any) -> Done:
    done = place.run(**settings)
    assert done.code == 0, done
    return done


def expressions(place: ReferringPlace, step: int | None = None) -> dict[str, dict[str, Any]]:
    """The expressions of the picture, after a step or at the end, by their texts."""
    [record] = place.annotations(step)
    return {expression["text"]: expression for expression in record["expressions"]}


def about(text: str, /, **says: Any) -> Change:
    """A check that doesn't match, and says this of an expression."""

    def changed(answer: dict[str, Any]) -> dict[str, Any]:
        for check in answer["checks"]:
            if check["text"] == text:
                check |= {"matches": False, **says}
        return answer

    return changed


def test_swapped_expressions_are_found_and_mended_and_it_is_said(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    done = checked(place)
    assert done.summary["notes"]["mended"] == 2
    assert set(server.by_task) == {
        "region_expression",
        "image_caption",
        "grounding_expression",
        "double_check",
    }
    assert boxes(expressions(place, 2)["the red car"]) == [BUS]
    mended = expressions(place)
    assert {text: boxes(e) for text, e in mended.items()} == TEXTS, "mended, to the last digit"
    assert all(e["verified"] is True and e["status"] == "grounded" for e in mended.values())
    for text, region in (("the red car", 2), ("the bus", 1)):
        verification = mended[text]["verification"]
        assert verification["before"] == {"text": text, "region_ids": [region]}
        assert verification["method"] == "ask"
    assert mended["the van"]["verification"]["before"] is None
    ids = [i["bbox_id"] for e in mended.values() for i in e["instances"]]
    assert len(set(ids)) == len(ids) == 5


def test_a_mended_text_gets_its_own_span(place: ReferringPlace, server: LoopbackServer) -> None:
    mend = about("the red car", text="A car")
    server.answers = Swapping(swapped=False, double_check=mend)
    checked(place)
    mended = expressions(place)["A car"]
    assert (mended["char_span"], boxes(mended), mended["verified"]) == ([0, 5], [CAR], True)
    assert mended["verification"]["before"] == {"text": "the red car", "region_ids": [1]}


def test_an_answer_that_cannot_be_had_changes_nothing_and_is_a_failure(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.settings["workflow.max_attempts"] = 1
    server.faults = [on(faults.says("I am sure that all is well."), task="double_check")]
    done = place.run()
    assert done.code == 1, done
    earlier = expressions(place, 2)
    for text, expression in expressions(place).items():
        assert expression["verified"] is None
        kept = {name: expression[name] for name in expression.keys() - {"verification"}}
        assert kept == earlier.pop(text)
    assert not earlier
    [failure] = place.failures()
    where = (failure["id"], failure["step"], failure["kind"])
    assert where == ("a", "step3_double_check", "unreadable_reply")
    server.faults = []
    again = place.run("--retry-failed")
    assert again.code == 0, again
    assert all(e["verified"] for e in expressions(place).values())
    assert place.failures() == []


SEVERAL = about("the van", region_ids=[2, 3], reason="the bus is one too")


def test_what_is_meant_for_one_region_and_fits_several_is_ambiguous(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    server.answers = Swapping(swapped=False, double_check=SEVERAL)
    done = checked(place)
    assert (done.summary["ambiguous"], done.summary["grounded"]) == (1, 3)
    van = expressions(place)["the van"]
    assert (van["status"], van["instances"], van["verified"]) == ("ambiguous", [], False)
    assert van["verification"]["region_ids"] == [2, 3]
    assert van["verification"]["before"] == {"text": "the van", "region_ids": [3]}


def of_another_pipeline() -> dict[str, Any]:
    """A record with the boxes of two texts, in no region."""
    row: dict[str, Any] = {"image_path": "a.png", "caption": "A car.", "expressions": []}
    for number, (text, box) in enumerate([("the red car", CAR), ("the van", VAN)]):
        instance = {"bbox_id": f"x#{number}.0", "bbox": box, "score": 0.7}
        expression = {"expression_id": f"x#{number}", "text": text, "instances": [instance]}
        row["expressions"].append({**expression, "status": "grounded"})
    return row


def test_the_check_runs_alone_on_annotations_of_the_other_pipeline(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    """Its boxes are in no region: they are checked all the same, and stay exact."""
    row = of_another_pipeline() | {"source": "image_grounding", "pipeline_steps": ["step0"]}
    row["expressions"][0] |= {"noun_chunk": "bus", "char_span": [2, 5]}
    absent = {"expression_id": "x#2", "text": "a cat", "instances": [], "status": "none"}
    row["expressions"].append(absent)
    place.given(row)
    server.answers = EchoAnswers()
    checked(place, **{"workflow.steps": ["3"]})
    assert server.by_task == {"double_check": 1}
    [record] = place.annotations()
    for now, given in zip(record["expressions"], row["expressions"], strict=True):
        assert {name: now[name] for name in given} == given
        assert now["verified"] is (None if given is absent else True)  # which nobody checked
    assert record["source"] == "image_grounding"
    assert record["pipeline_steps"] == ["step0", "step3_double_check"]
