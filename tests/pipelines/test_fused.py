"""`workflow.fuse`: expressions and boxes in one request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image as Picture

from dataflow_grounding import CaptionGrounder
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.answering import Answering
from tests.support.workplace import Workplace, command

PICTURES = 3
CAPTIONS = (
    "A red mug stands on a wooden table near an open window.",
    "Two brown dogs run across the lawn behind a white house.",
    "A man in a blue jacket holds a yellow umbrella.",
)


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    rows = []
    for number, caption in enumerate(CAPTIONS):
        path = workplace.picture(f"{number}.jpg", size=(64 + number, 48))
        rows.append({"image_path": path, "image_id": f"r{number}", "caption": caption})
    workplace.rows(rows)
    workplace.settings |= {"vlm.openai.base_url": server.base_url, "workflow.fuse": True}
    return workplace


def test_one_request_a_picture_leaves_what_two_do(place: Workplace, server: LoopbackServer) -> None:
    assert place.run(**{"workflow.fuse": False}).code == 0
    two = place.annotations()
    place.results = place.folder / "fused"
    done = place.run()
    assert done.code == 0, done
    tasks = ("expression_extraction", "phrase_grounding", "caption_grounding")
    assert server.by_task == dict.fromkeys(tasks, PICTURES)
    request = next(one for one in server.requests if one.task == "caption_grounding")
    schema = request.settings["response_format"]["json_schema"]["schema"]["properties"]
    assert "text" in schema["expressions"]["items"]["properties"]
    assert "bbox_2d" in schema["objects"]["items"]["properties"]
    for before, after in zip(two, place.annotations(), strict=True):
        assert {**before, "pipeline_steps": 0} == {**after, "pipeline_steps": 0}
        assert after["expressions"][0]["instances"]
        assert after["expressions"][0]["caption_span"]


class Cutting(EchoAnswers):
    """Cuts each fused reply off in the middle of its boxes."""

    def __call__(self, request: ReceivedRequest) -> Any:
        reply = super().__call__(request)
        if request.task != "caption_grounding":
            return reply
        return json.dumps(reply)[:-25]


def test_a_reply_that_is_cut_off_is_made_up_for_by_two(
    place: Workplace, server: LoopbackServer
) -> None:
    server.answers = Cutting()
    done = place.run()
    assert done.code == 0, done
    tasks = ("caption_grounding", "expression_extraction", "phrase_grounding")
    assert server.by_task == dict.fromkeys(tasks, PICTURES)
    assert all(record["expressions"][0]["instances"] for record in place.annotations())


def test_checks_follow_as_the_estimate_says(place: Workplace, server: LoopbackServer) -> None:
    place.settings["workflow.check"] = True
    estimate = command(["estimate", "-e", str(place.spec()), "--json"])
    assert (estimate.code, server.count()) == (0, 0), estimate
    done = place.run()
    assert done.code == 0, done
    assert server.by_task["box_check"] == PICTURES
    first, second, *_ = estimate.summary["steps"]
    assert first["step"].endswith("caption_grounding")
    assert first["requests"] == PICTURES
    assert second["step"].endswith("box_check")
    assert place.annotations()[0]["expressions"][0]["verification"]["method"] == "check"


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
    done = command(["check", "-e", str(place.spec(**settings))])
    assert done.code == 2, done
    assert message in done.err


CUP, DOG = [10, 10, 20, 20], [30, 10, 40, 20]
BOTH = {"a cup": [CUP], "a dog": [DOG]}


def by_ids(expressions: list[tuple[Any, str]], objects: list[tuple[Any, list[int]]]) -> Any:
    """A reply with these ids."""
    return {
        "expressions": [{"id": own, "text": text} for own, text in expressions],
        "objects": [{"id": own, "bbox_2d": box} for own, box in objects],
    }


BOX_OF_CUP, BOX_OF_DOG = {"bbox_2d": CUP}, {"bbox_2d": DOG}
OBJECTS = [{"id": 1, "bbox_2d": CUP}, {"id": 2, "bbox_2d": DOG}]


def within(cup: Any, dog: Any, objects: Any) -> dict[str, Any]:
    """A reply that says boxes in its expressions, too."""
    reply: dict[str, Any] = {
        "expressions": [{"id": 1, "text": "a cup", **cup}, {"id": 2, "text": "a dog", **dog}]
    }
    return reply if objects is None else {**reply, "objects": objects}


READ: dict[str, tuple[Any, dict[str, Any]]] = {
    "no expressions": ({"expressions": [], "objects": []}, {}),
    "ids from 0": (by_ids([(0, "a cup"), (1, "a dog")], [(0, CUP), (1, DOG)]), BOTH),
    "ids in another order": (by_ids([(2, "a dog"), (1, "a cup")], [(1, CUP), (2, DOG)]), BOTH),
    "ids with gaps": (by_ids([(1, "a cup"), (3, "a dog")], [(3, DOG), (1, CUP)]), BOTH),
    "ids in quotation marks": (
        by_ids([("1", "a cup"), ("2", "a dog")], [("2", DOG), ("1", CUP)]),
        BOTH,
    ),
    "no ids": (by_ids([(None, "a cup"), (None, "a dog")], [(1, CUP), (2, DOG)]), BOTH),
    "ids of some": (by_ids([(1, "a cup"), (None, "a dog")], [(1, CUP), (2, DOG)]), BOTH),
    "one without a text": (
        by_ids([(1, "a cup"), (2, ""), (3, "a dog")], [(1, CUP), (3, DOG)]),
        BOTH,
    ),
    "no ids, and one without a text": (
        by_ids([(None, ""), (None, "a cup"), (None, "a dog")], [(2, CUP), (3, DOG)]),
        BOTH,
    ),
    "within, with an empty list": (within(BOX_OF_CUP, BOX_OF_DOG, []), BOTH),
    "within, without a list": (within(BOX_OF_CUP, BOX_OF_DOG, None), BOTH),
    "within, under another key": (
        within({"box": CUP}, {"x1": 30, "y1": 10, "x2": 40, "y2": 20}, []),
        BOTH,
    ),
    "within, the same in both": (within(BOX_OF_CUP, BOX_OF_DOG, OBJECTS), BOTH),
    "within, the same of one": (within(BOX_OF_CUP, {}, OBJECTS), BOTH),
    "within, places in words": (
        within({"location": "left", "bbox_2d": "see below"}, {"bbox_2d": None}, OBJECTS),
        BOTH,
    ),
    "within, one that says that it has none": (
        within(BOX_OF_CUP, {"bbox_2d": None}, []),
        {"a cup": [CUP], "a dog": []},
    ),
}
OF_ONE = [{"id": 1, "text": "a cup", "noun_chunk": "cup"}]
SAME_IDS = "the ids don't tell expressions apart"
UNREADABLE: dict[str, tuple[Any, str | None]] = {
    "no objects": ({"expressions": OF_ONE}, None),
    "objects that are none": ({"expressions": OF_ONE, "objects": {"1": [0, 0, 5, 5]}}, None),
    "expressions that are none": ({"expressions": "a cup", "objects": []}, None),
    "a box of two numbers": (by_ids([(1, "a cup")], [(1, [1, 2])]), None),
    "one id twice": (by_ids([(1, "a cup"), (1, "a dog")], [(1, CUP)]), SAME_IDS),
    "ids of some, not from 1": (by_ids([(5, "a cup"), (None, "a dog")], [(1, CUP)]), SAME_IDS),
    "ids that are no numbers": (by_ids([("a", "a cup"), ("b", "a dog")], [(1, CUP)]), SAME_IDS),
    "within, another box": (within(BOX_OF_CUP, {"bbox_2d": [0, 0, 5, 5]}, OBJECTS), None),
    "within, the boxes of each other": (within(BOX_OF_DOG, BOX_OF_CUP, OBJECTS), None),
    "within, a box of what has none": (within(BOX_OF_CUP, BOX_OF_DOG, OBJECTS[:1]), None),
    "within, a box of one alone": (within(BOX_OF_CUP, {}, []), None),
    "within, no boxes anywhere": (within({}, {}, None), None),
}


def grounded(reply: dict[str, Any], words: str = "") -> dict[str, Any]:
    """The boxes of each expression of a reply, which may have words next to it."""
    text = json.dumps({"cleaned_caption": "a cup and a dog", **reply}) + words
    record = {"image_path": Picture.new("RGB", (64, 48)), "caption": "a cup and a dog"}
    done: dict[str, Any] = CaptionGrounder(Answering(text))(record)
    return {row["text"]: [one["bbox"] for one in row["instances"]] for row in done["expressions"]}


@pytest.mark.parametrize(("reply", "boxes"), READ.values(), ids=READ)
def test_a_box_is_of_the_expression_that_the_reply_says(
    reply: dict[str, Any], boxes: dict[str, Any]
) -> None:
    assert grounded(reply) == boxes


@pytest.mark.parametrize(("reply", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_reply_that_contradicts_itself_or_says_no_boxes_is_unreadable(
    reply: dict[str, Any], said: str | None
) -> None:
    with pytest.raises(UnreadableReply, match=said):
        grounded(reply)


@pytest.mark.parametrize(
    "words",
    [
        "I found 2 objects.",
        "No other objects are mentioned.",
        "Note that the boxes may be slightly inaccurate.",
    ],
)
def test_harmless_words_next_to_the_answer_cost_nothing(words: str) -> None:
    assert grounded(within({}, {}, OBJECTS), f"\n{words}") == BOTH
