"""`workflow.fuse`: expressions and boxes in one request."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from PIL import Image as Picture

from dataflow_grounding import CaptionGrounder, OpenAIServing
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.testing import CannedAnswers, EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.workplace import Workplace, command

PICTURES = 3
CAPTIONS = (
    "A red mug stands on a wooden table near an open window.",
    "Two brown dogs run across the lawn behind a white house.",
    "A man in a blue jacket holds a yellow umbrella.",
)


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    rows = []
    for number in range(PICTURES):
        path = workplace.picture(f"{number}.jpg", size=(64 + number, 48))
        caption = f"{CAPTIONS[number % 3]} Number {number}."
        rows.append({"image_path": str(path), "image_id": f"r{number}", "caption": caption})
    workplace.rows(rows)
    workplace.settings.update({"vlm.on_suspect_boxes": "warn", "vlm.box_format": "xyxy_px"})
    return workplace


def tasks_of(server: LoopbackServer) -> Counter[str]:
    """The tasks of all requests but those about probe pictures."""
    asked = [request for request in server.requests if "rectangle" not in request.text]
    return Counter(request.task for request in asked)


def fused(server: LoopbackServer, **more: Any) -> dict[str, Any]:
    return {"vlm.openai.base_url": server.base_url, "workflow.fuse": True, **more}


@pytest.mark.slow
def test_one_request_a_picture_leaves_what_two_do(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as server:
        assert place.run(**{"vlm.openai.base_url": server.base_url}).code == 0
        two = place.annotations()
        place.results = place.folder / "fused"
        done = place.run(**fused(server))
        assert done.code == 0, done
        asked = tasks_of(server)
    assert asked["caption_grounding"] == PICTURES
    assert asked["expression_extraction"] == asked["phrase_grounding"] == PICTURES
    for before, after in zip(two, place.annotations(), strict=True):
        steps = ("pipeline_steps",)
        assert {n: v for n, v in before.items() if n not in steps} == {
            n: v for n, v in after.items() if n not in steps
        }
        assert after["expressions"][0]["instances"]
        assert after["expressions"][0]["caption_span"]


@pytest.mark.slow
def test_a_second_run_sends_nothing(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as server:
        assert place.run(**fused(server)).code == 0
        before = (place.results / "annotations.jsonl").read_bytes()
        sent = server.count()
        for path in [place.results / "annotations.jsonl", *place.results.glob("step_*/*")]:
            path.unlink()
        assert place.run(**fused(server)).code == 0
        assert server.count() == sent
    assert (place.results / "annotations.jsonl").read_bytes() == before


class Cutting(EchoAnswers):
    """Cuts each fused reply off in the middle of its boxes."""

    def __call__(self, request: ReceivedRequest) -> Any:
        reply = super().__call__(request)
        if request.task != "caption_grounding":
            return reply
        return json.dumps(reply)[:-25]


def test_a_reply_that_is_cut_off_is_made_up_for_by_two(place: Workplace) -> None:
    with LoopbackServer(Cutting()) as server:
        done = place.run(**fused(server))
        assert done.code == 0, done
        asked = tasks_of(server)
    assert asked == dict.fromkeys(
        ("caption_grounding", "expression_extraction", "phrase_grounding"), PICTURES
    )
    assert all(record["expressions"][0]["instances"] for record in place.annotations())


@pytest.mark.slow
def test_checks_follow(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as server:
        done = place.run(**fused(server, **{"workflow.check": True}))
        assert done.code == 0, done
        assert tasks_of(server)["box_check"] >= PICTURES
    assert place.annotations()[0]["expressions"][0]["verification"]["method"] == "check"


def test_an_estimate_counts_one_request_a_picture(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as server:
        done = command(["estimate", "-e", str(place.spec(**fused(server))), "--json"])
        assert done.code == 0, done
        [step] = done.summary["steps"]
        assert step["step"].endswith("caption_grounding")
        assert step["requests"] == PICTURES
        assert server.count() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.classes": ["dog"]},
            "workflow.fuse takes captions, and one answer to each: leave out",
        ),
        ({"workflow.samples": 3}, "leave out workflow.samples"),
        ({"vlm.backend": "embedded"}, "can't answer"),
        ({"workflow.fuse": "maybe"}, "workflow.fuse"),
    ],
)
def test_what_does_not_go_with_it_is_told(
    place: Workplace, settings: dict[str, Any], message: str
) -> None:
    spec = place.spec(**{"workflow.fuse": True, **settings})
    done = command(["check", "-e", str(spec)])
    assert done.code == 2, done
    assert message in done.err


WRONG = {
    "no objects": {"expressions": [{"id": 1, "text": "A red mug", "noun_chunk": "red mug"}]},
    "objects that are none": {
        "expressions": [{"id": 1, "text": "A red mug", "noun_chunk": "red mug"}],
        "objects": {"1": [0, 0, 5, 5]},
    },
    "expressions that are none": {"expressions": "A red mug", "objects": []},
    "an object of no expression": {
        "expressions": [{"id": 1, "text": "A red mug", "noun_chunk": "red mug"}],
        "objects": [{"id": 1, "bbox_2d": [1, 2]}],
    },
}


@pytest.mark.parametrize("reply", WRONG.values(), ids=WRONG)
def test_a_reply_that_says_no_boxes_is_unreadable(place: Workplace, reply: Any) -> None:
    class Model(EchoAnswers):
        def __call__(self, request: ReceivedRequest) -> Any:
            return reply if request.task == "caption_grounding" else super().__call__(request)

    with LoopbackServer(Model()) as server:
        done = place.run(**fused(server))
    assert done.code == 4, done
    assert {failure["kind"] for failure in place.failures()} == {"unreadable_reply"}


CUP, DOG = [10, 10, 20, 20], [30, 10, 40, 20]
IDS = {
    "from 0": ([(0, "a cup"), (1, "a dog")], [(0, CUP), (1, DOG)]),
    "in another order": ([(2, "a dog"), (1, "a cup")], [(1, CUP), (2, DOG)]),
    "with gaps": ([(1, "a cup"), (3, "a dog")], [(1, CUP), (3, DOG)]),
    "in quotation marks": ([("1", "a cup"), ("2", "a dog")], [("2", DOG), ("1", CUP)]),
    "none": ([(None, "a cup"), (None, "a dog")], [(1, CUP), (2, DOG)]),
    "of some": ([(1, "a cup"), (None, "a dog")], [(1, CUP), (2, DOG)]),
    "one without a text": ([(1, "a cup"), (2, ""), (3, "a dog")], [(1, CUP), (3, DOG)]),
    "none, and one without a text": (
        [(None, ""), (None, "a cup"), (None, "a dog")],
        [(2, CUP), (3, DOG)],
    ),
}
IDS_OF_NONE = {
    "one twice": [(1, "a cup"), (1, "a dog")],
    "of some, not from 1": [(5, "a cup"), (None, "a dog")],
    "no numbers": [("a", "a cup"), ("b", "a dog")],
}


def by_ids(expressions: list[tuple[Any, str]], objects: list[tuple[Any, list[int]]]) -> Any:
    """A model that replies so of a caption."""
    reply = {
        "cleaned_caption": "a cup and a dog",
        "expressions": [{"id": own, "text": text} for own, text in expressions],
        "objects": [{"id": own, "bbox_2d": box} for own, box in objects],
    }
    return lambda request: reply


@pytest.mark.parametrize(("expressions", "objects"), IDS.values(), ids=IDS)
def test_a_box_is_of_the_expression_whose_id_it_has(
    place: Workplace, expressions: list[tuple[Any, str]], objects: list[tuple[Any, list[int]]]
) -> None:
    place.rows([{"image_path": "0.jpg", "caption": "a cup and a dog"}])
    with LoopbackServer(by_ids(expressions, objects)) as server:
        done = place.run(**fused(server))
    assert done.code == 0, done
    [record] = place.annotations()
    boxes = {row["text"]: row["instances"][0]["bbox"] for row in record["expressions"]}
    assert boxes == {"a cup": CUP, "a dog": DOG}


@pytest.mark.parametrize("expressions", IDS_OF_NONE.values(), ids=IDS_OF_NONE)
def test_ids_that_tell_no_expressions_apart_are_unreadable(
    place: Workplace, expressions: list[tuple[Any, str]]
) -> None:
    place.rows([{"image_path": "0.jpg", "caption": "a cup and a dog"}])
    with LoopbackServer(by_ids(expressions, [(1, CUP)])) as server:
        place.run(**fused(server))
    [failure] = place.failures()
    assert failure["kind"] == "unreadable_reply"
    assert "the ids don't tell expressions apart" in failure["message"]


def test_a_caption_without_expressions_has_none(place: Workplace) -> None:
    class Model(EchoAnswers):
        def __call__(self, request: ReceivedRequest) -> Any:
            if request.task == "caption_grounding":
                return {"cleaned_caption": "x", "expressions": [], "objects": []}
            return super().__call__(request)

    with LoopbackServer(Model()) as server:
        done = place.run(**fused(server))
    assert done.code == 0, done
    assert [record["expressions"] for record in place.annotations()] == [[]] * PICTURES


BOX_OF_CUP, BOX_OF_DOG = {"bbox_2d": CUP}, {"bbox_2d": DOG}
OBJECTS = [{"id": 1, "bbox_2d": CUP}, {"id": 2, "bbox_2d": DOG}]
BOXES_WITHIN: dict[str, tuple[Any, Any, Any]] = {
    "with an empty list": (BOX_OF_CUP, BOX_OF_DOG, []),
    "without a list": (BOX_OF_CUP, BOX_OF_DOG, None),
    "under another key": ({"box": CUP}, {"x1": 30, "y1": 10, "x2": 40, "y2": 20}, []),
    "the same in both": (BOX_OF_CUP, BOX_OF_DOG, OBJECTS),
    "the same of one": (BOX_OF_CUP, {}, OBJECTS),
    "places in words": ({"location": "left", "bbox_2d": "see below"}, {"bbox_2d": None}, OBJECTS),
}
CONTRADICTIONS: dict[str, tuple[Any, Any, Any]] = {
    "another box": (BOX_OF_CUP, {"bbox_2d": [0, 0, 5, 5]}, OBJECTS),
    "the boxes of each other": (BOX_OF_DOG, BOX_OF_CUP, OBJECTS),
    "a box of what has none": (BOX_OF_CUP, BOX_OF_DOG, OBJECTS[:1]),
    "a box of one alone": (BOX_OF_CUP, {}, []),
    "no boxes anywhere": ({}, {}, None),
}


def grounded(cup: Any, dog: Any, objects: Any, words: str = "") -> dict[str, Any]:
    reply: dict[str, Any] = {
        "cleaned_caption": "a cup and a dog",
        "expressions": [{"id": 1, "text": "a cup", **cup}, {"id": 2, "text": "a dog", **dog}],
    }
    if objects is not None:
        reply["objects"] = objects
    with LoopbackServer(CannedAnswers(f"{json.dumps(reply)}{words}")) as server:
        serving = OpenAIServing(server.base_url, "any", box_format="xyxy_px")
        grounder = CaptionGrounder(serving, check_every=None)
        record = {"image_path": Picture.new("RGB", (64, 48)), "caption": "a cup and a dog"}
        done: dict[str, Any] = grounder(record)
    return {row["text"]: [one["bbox"] for one in row["instances"]] for row in done["expressions"]}


@pytest.mark.parametrize(("cup", "dog", "objects"), BOXES_WITHIN.values(), ids=BOXES_WITHIN)
def test_boxes_within_the_expressions_are_read(cup: Any, dog: Any, objects: Any) -> None:
    assert grounded(cup, dog, objects) == {"a cup": [CUP], "a dog": [DOG]}


def test_the_schema_asks_for_expressions_and_for_boxes(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as server:
        place.run(**fused(server))
        asked = next(one for one in server.requests if one.task == "caption_grounding")
    schema = asked.settings["response_format"]["json_schema"]["schema"]["properties"]
    assert "text" in schema["expressions"]["items"]["properties"]
    assert "bbox_2d" in schema["objects"]["items"]["properties"]


def test_an_expression_may_say_that_it_has_no_box() -> None:
    assert grounded(BOX_OF_CUP, {"bbox_2d": None}, []) == {"a cup": [CUP], "a dog": []}


@pytest.mark.parametrize(("cup", "dog", "objects"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_boxes_within_the_expressions_contradict_no_others(
    cup: Any, dog: Any, objects: Any
) -> None:
    with pytest.raises(UnreadableReply):
        grounded(cup, dog, objects)


@pytest.mark.parametrize(
    "words",
    [
        "I found 2 objects.",
        "No other objects are mentioned.",
        "Note that the boxes may be slightly inaccurate.",
    ],
)
def test_harmless_words_next_to_the_answer_cost_nothing(words: str) -> None:
    assert grounded({}, {}, OBJECTS, f"\n{words}") == {"a cup": [CUP], "a dog": [DOG]}


@pytest.mark.parametrize(
    "words", ["The boxes are in thousandths.", "There is no dog.", "The second box is wrong."]
)
def test_words_that_change_the_boxes_are_refused(words: str) -> None:
    with pytest.raises(UnreadableReply, match="words next to the answer may change it"):
        grounded({}, {}, OBJECTS, f"\n{words}")
