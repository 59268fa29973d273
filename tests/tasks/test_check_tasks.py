"""Reading what a judge says of boxes: strictly, in any form that it writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.images.image import Image
from dataflow_grounding.images.sheet import CropSheet
from dataflow_grounding.tasks import Request, box_check, missing_boxes
from dataflow_grounding.tasks.checks import FITS, Checked, DrawnBox, Presence
from tests.support.json_values import any_json

PIXELS = find_box_format("xyxy_px", "")
PHRASES = ["a dog", "a cat"]
BOXES = [DrawnBox("a dog", (10, 20, 110, 220)), DrawnBox("a dog", (300, 40, 310, 49))]


def reply_of(phrases: Any, boxes: Any) -> str:
    return json.dumps({"phrases": phrases, "boxes": boxes})


def checked(image: Image, phrases: Any, boxes: Any) -> Checked:
    """What is read of a reply about PHRASES and BOXES."""
    return box_check(image, PHRASES, BOXES).read(reply_of(phrases, boxes))[0]


THERE = [{"id": 1, "there": True, "count": 2}, {"id": 2, "there": False, "count": 0}]
RIGHT = [{"id": 1, "verdict": "right"}, {"id": 2, "verdict": "Loose "}]


def test_the_check_shows_all_boxes_and_asks_about_all_phrases(image: Image) -> None:
    request = box_check(image, PHRASES, BOXES).with_boxes_in(PIXELS)
    assert request.input == {
        "image": {"width": 640, "height": 480},
        "phrases": [{"id": 1, "text": "a dog"}, {"id": 2, "text": "a cat"}],
        "boxes": [
            {"id": 1, "bbox_2d": [10, 20, 110, 220], "text": "a dog"},
            {"id": 2, "bbox_2d": [300, 40, 310, 49], "text": "a dog"},
        ],
        "boxes_from_closer_by": [2],  # both its sides are under 3% of the image's
    }
    marked, crops = request.images
    assert marked.sent_digest != image.sent_digest
    assert isinstance(crops, CropSheet)
    assert crops.numbers == (2,)
    assert len(box_check(image, PHRASES, BOXES[:1]).images) == 1


def test_without_boxes_the_picture_is_sent_as_it_is(image: Image) -> None:
    request = box_check(image, PHRASES, []).with_boxes_in(PIXELS)
    assert request.images == (image,)
    checked, _ = request.read(json.dumps({"phrases": THERE}))
    assert checked.presences == [Presence(True, 2), Presence(False, 0)]
    assert checked.verdicts == []


def test_what_the_judge_says_is_read(image: Image) -> None:
    checked, notes = box_check(image, PHRASES, BOXES).read(reply_of(THERE, RIGHT))
    assert checked.presences == [Presence(True, 2), Presence(False, 0)]
    assert checked.verdicts == ["right", "loose"]
    assert notes == []


@pytest.mark.parametrize(
    ("phrases", "boxes", "complaint"),
    [
        (THERE, [RIGHT[0], {"id": 2, "verdict": "fine"}], "none of right, loose"),
        (THERE, [RIGHT[0], {"id": 2}], "none of right, loose"),
        (THERE, [RIGHT[0], {"id": 2, "verdict": ["right"]}], "none of right, loose"),
        (THERE, [*RIGHT, {"id": 2, "verdict": "other"}], "id 2 is answered twice"),
        (THERE, RIGHT[:1], "the verdict is missing for id 2"),
        (THERE, "all right", '"boxes" is not a list'),
        (THERE[:1], RIGHT, "missing for id 2"),
        ([{"id": 1, "there": "maybe"}, THERE[1]], RIGHT, "none of yes, no and unsure"),
        ([THERE[0], {"id": 2, "count": 1}], RIGHT, "none of yes, no and unsure"),
        ([{"id": 1, "there": 1, "count": 1}, THERE[1]], RIGHT, "none of yes, no and unsure"),
        ({"1": True}, RIGHT, '"phrases" is not a list'),
    ],
)
def test_what_was_not_asked_for_is_no_answer(
    image: Image, phrases: Any, boxes: Any, complaint: str
) -> None:
    with pytest.raises(UnreadableReply, match=complaint):
        checked(image, phrases, boxes)


def test_an_answer_that_contradicts_itself_is_none(image: Image) -> None:
    read = box_check(image, PHRASES, []).read
    said = [{"id": 1, "there": True, "count": 0}, {"id": 2, "there": False, "count": 3}]
    checked, _ = read(json.dumps({"phrases": said}))
    assert checked.presences == [Presence(None, None)] * 2
    said = [{"id": 1, "there": None, "count": 10**9}, {"id": 2, "there": "yes", "count": "many"}]
    checked, _ = read(json.dumps({"phrases": said}))
    assert checked.presences == [Presence(None, None), Presence(True, None)]


def test_a_full_stop_behind_a_word_is_no_other_word(image: Image) -> None:
    boxes = [{"id": 1, "verdict": "Right."}, {"id": 2, "verdict": " other. "}]
    said = [{"id": 1, "there": "Yes."}, {"id": 2, "there": "no.", "count": 0}]
    read = checked(image, said, boxes)
    assert read.verdicts == ["right", "other"]
    assert [presence.there for presence in read.presences] == [True, False]


def test_one_unknown_word_among_answers_leaves_the_others(image: Image) -> None:
    """A judge who uses its own word for one box has judged the others all the same."""
    boxes = [DrawnBox("a cat", (10 * n, 10, 10 * n + 9, 60)) for n in range(3)]
    said = [{"id": n, "verdict": word} for n, word in enumerate(("right", "fine", "other"), 1)]
    checked, notes = box_check(image, PHRASES, boxes).read(reply_of(THERE, said))
    assert checked.verdicts == ["right", None, "other"]
    assert [note.code for note in notes] == ["unknown_word"]

    said = [{"id": n, "there": word} for n, word in enumerate(("yes", "No, it isn't", "no"), 1)]
    checked, notes = box_check(image, ["a", "b", "c"], []).read(reply_of(said, []))
    assert [presence.there for presence in checked.presences] == [True, None, False]
    assert [note.code for note in notes] == ["unknown_word"]


@pytest.mark.parametrize("lacking", [{"id": 2}, {"id": 2, "there": 0}, {"id": 2, "there": ""}])
def test_an_answer_that_lacks_is_no_unknown_word(image: Image, lacking: dict[str, Any]) -> None:
    said = [{"id": 1, "there": "yes"}, lacking, {"id": 3, "there": "no"}]
    with pytest.raises(UnreadableReply, match="none of yes, no and unsure"):
        box_check(image, ["a", "b", "c"], []).read(reply_of(said, []))


def test_a_judge_may_not_know(image: Image) -> None:
    boxes = [{"id": 1, "verdict": None}, {"id": 2, "verdict": "nothing"}]
    first, second = checked(image, THERE, boxes).verdicts
    assert (first, second) == (None, "nothing")


@pytest.mark.parametrize(
    "words",
    [
        "No corrections needed.",
        "The second box is too large.",
        "There are 1 cup and 1 fork.",
        "The second picture shows box 2.",
    ],
)
def test_words_around_the_verdicts_do_no_harm(image: Image, words: str) -> None:
    reply = f"{words}\n\n{reply_of(THERE, RIGHT)}\n\n{words}"
    checked, _ = box_check(image, PHRASES, BOXES).read(reply)
    assert checked.verdicts == ["right", "loose"]


def test_a_verdict_that_is_given_twice_in_one_item_is_refused(image: Image) -> None:
    reply = reply_of(THERE, RIGHT).replace('"verdict"', '"verdict": "other", "verdict"', 1)
    with pytest.raises(UnreadableReply, match="an object has 'verdict' twice"):
        box_check(image, PHRASES, BOXES).read(reply)


@pytest.mark.parametrize("cut_after", ['"there": true', '"verdict": "right"', '"boxes": ['])
def test_a_reply_that_is_cut_off_is_asked_for_in_parts(image: Image, cut_after: str) -> None:
    reply = reply_of(THERE, RIGHT)
    cut = reply[: reply.index(cut_after) + len(cut_after)]
    with pytest.raises(TruncatedReply):
        box_check(image, PHRASES, BOXES).read(cut)
    assert box_check(image, PHRASES, BOXES).divisible


def test_what_lacks_is_read_as_grounding_is(image: Image) -> None:
    request = missing_boxes(image, PHRASES, BOXES, PIXELS).with_boxes_in(PIXELS)
    assert request.task == "missing_boxes"
    assert [box["text"] for box in request.input["boxes"]] == ["a dog", "a dog"]
    assert "{" not in request.instructions.replace('{"objects"', "").replace('{"id"', "")
    found, _ = request.read('{"objects": [{"id": 2, "bbox_2d": [1, 2, 30, 40]}]}')
    assert [one.status for one in found] == ["none", "grounded"]


JSON = any_json("id", "there", "count", "verdict", "x")
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([1, 2, 3, "2", None, 1.5])},
        optional={
            "there": st.booleans() | st.sampled_from(["yes", "no", "unsure"]) | JSON,
            "count": st.integers() | JSON,
            "verdict": st.sampled_from(FITS) | JSON,
        },
    ),
    max_size=5,
)


def read_or_refused(request: Request[Any], reply: str) -> Any:
    try:
        return request.read(reply)[0]
    except UnreadableReply:
        return None


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)  # to draw the JSON takes long
@given(phrases=ITEMS | JSON, boxes=ITEMS | JSON)
def test_whatever_the_judge_writes_is_read_or_refused(
    image: Image, phrases: Any, boxes: Any
) -> None:
    checked = read_or_refused(box_check(image, PHRASES, BOXES), reply_of(phrases, boxes))
    if checked is not None:
        assert (len(checked.presences), len(checked.verdicts)) == (2, 2)
        assert all(verdict in (*FITS, None) for verdict in checked.verdicts)
        for presence in checked.presences:
            assert presence.there in (True, False, None)
            assert presence.count is None or 0 <= presence.count <= 10_000
