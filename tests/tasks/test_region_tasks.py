"""Reading the replies of the tasks about regions: what models write, and anything at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks import (
    Request,
    double_check,
    grounding_expression,
    image_caption,
    region_expression,
)
from dataflow_grounding.tasks.region_tasks import Check, Described, Merged, read_by_id
from tests.support.json_values import any_json

REGIONS = [Region((10, 20, 110, 220), "Car"), Region((300.5, 0, 640, 480.0))]
PIXELS, GEMINI = find_box_format("xyxy_px", ""), find_box_format("yxyx_1000", "")


def requests(image: Image) -> dict[str, Request[Any]]:
    return {
        "region_expression": region_expression(image, REGIONS).with_boxes_in(PIXELS),
        "image_caption": image_caption(image),
        "grounding_expression": grounding_expression(image, "A car.", REGIONS).with_boxes_in(
            GEMINI
        ),
        "double_check": double_check(
            image,
            [Merged("the car", [0]), Merged("both", [0, 1])],
            [Instance(region.bbox) for region in REGIONS],
        ).with_boxes_in(PIXELS),
    }


def test_requests_are_as_the_wire_wants_them(image: Image) -> None:
    made = requests(image)
    assert made["region_expression"].input == {
        "image": {"width": 640, "height": 480},
        "regions": [
            {"id": 1, "bbox_2d": [10, 20, 110, 220], "type": "Car"},
            {"id": 2, "bbox_2d": [300, 0, 640, 480], "type": ""},
        ],
    }
    assert made["image_caption"].input == {}
    about = {"type": "Car", "color": "", "description": ""}
    merge = made["grounding_expression"].input
    assert merge["caption"] == "A car."
    assert merge["regions"][0] == {"id": 1, "box_2d": [42, 16, 458, 172], **about}
    assert made["double_check"].input == {
        "expressions": [
            {"id": 1, "text": "the car", "region_ids": [1]},
            {"id": 2, "text": "both", "region_ids": [1, 2]},
        ],
        "regions": [
            {"id": 1, "bbox_2d": [10, 20, 110, 220]},
            {"id": 2, "bbox_2d": [300, 0, 640, 480]},
        ],
    }
    for request in made.values():
        assert "{box" not in request.instructions
        assert request.text.count("<input>") == 1
    assert "y before x" in made["grounding_expression"].instructions


ONE, TWO = (
    '{"id": 1, "type": "car", "color": "red", "description": "a  car"}',
    '{"id": "2", "description": "x"}',
)
DESCRIBED = [Described("car", "red", "a car"), Described("", "", "x")]
READ: list[tuple[str, str, Any]] = [
    ("region_expression", f'{{"regions": [{ONE}, {TWO}]}}', DESCRIBED),
    ("region_expression", f"```json\n[{TWO}, {ONE}]\n```", DESCRIBED),
    ("region_expression", f'Sure!\n{{"regions": [{ONE}, {TWO}, {{"id": 3, "description": "y"}}, {ONE}]}}', DESCRIBED),
    ("image_caption", '{"caption": " A  car.\\n"}', "A car."),
    ("grounding_expression", '{"expressions": [{"text": "it", "region_ids": 2}]}', [Merged("it", [1])]),
    ("grounding_expression", '[{"text": "it", "region_ids": ["1", 2.0, 1, 7]}]', [Merged("it", [0, 1])]),
    (
        "double_check",
        '{"checks": [{"id": 2, "matches": "no", "region_ids": [2], "text": " the  bus"},'
        ' {"id": 1, "matches": true}]}',
        [Check(True, "", []), Check(False, "the bus", [1])],
    ),
    (
        "double_check",
        '{"checks": [{"id": 1, "matches": null, "region_ids": null}, {"id": 2, "matches": "TRUE", "region_ids": [true, "x"]}]}',
        [Check(None, "", []), Check(None, "", [])],
    ),
    (
        "region_expression",
        '{"regions": [{"region_id": 1, "description": "a car"}, {"id": "region_2", "description": "x"}]}',
        [Described("", "", "a car"), Described("", "", "x")],
    ),
    (
        "grounding_expression",
        '{"expressions": [{"text": "it", "region_ids": ["region_1", "Region 2"]},'
        ' {"text": "that", "region_id": 2}]}',
        [Merged("it", [0, 1]), Merged("that", [1])],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task", "reply", "expected"), READ)
def test_replies_are_read(image: Image, task: str, reply: str, expected: Any) -> None:
    assert requests(image)[task].read(reply)[0] == expected


UNREADABLE = [
    ("region_expression", f'{{"regions": [{ONE}]}}', "missing for id 2"),
    (
        "region_expression",
        '{"regions": [{"id": 1, "description": ""}, {"id": 2}]}',
        "missing for id 1, 2",
    ),
    ("region_expression", '{"regions": "none"}', "is not a list"),
    ("region_expression", "I can't see any.", "the model refuses"),
    ("image_caption", '{"caption": null}', "is not a text"),
    ("grounding_expression", '{"expressions": []}', "no item"),
    ("grounding_expression", '{"expressions": [{"text": "x", "region_ids": [9]}]}', "no item"),
    (
        "grounding_expression",
        '{"expressions": [{"text": "x", "region_ids": [1]}, {"text": "y", "region_ids": ["left"]}]}',
        "names no region",
    ),
    (
        "grounding_expression",
        '{"expressions": [{"text": "x", "region_ids": [1]}, {"text": "N/A", "region_ids": [2]}]}',
        "has no .text.",
    ),
    (
        "double_check",
        '{"checks": [{"region_id": 1, "matches": true}, {"id": 2, "matches": true}]}',
        "missing for id 1",
    ),
    (
        "double_check",
        '{"checks": [{"id": 1, "matches": true, "matches": false}, {"id": 2, "matches": true}]}',
        "'matches' twice",
    ),
    ("double_check", '{"checks": [{"id": 1, "matches": true}]}', "missing for id 2"),
    ("double_check", '{"checks": [{"id": 1}, {"id": 2, "matches": 1}]}', "neither true nor false"),
]


def test_an_item_of_no_use_is_dropped_where_each_region_has_another(image: Image) -> None:
    reply = (
        '{"expressions": [{"text": "both", "region_ids": [1, 2]}, {"text": "", "region_ids": [1]}]}'
    )
    merged, notes = requests(image)["grounding_expression"].read(reply)
    assert merged == [Merged("both", [0, 1])]
    assert [note.code for note in notes] == ["dropped"]


# what is said of "the car", meant for region 1 → whether it matches
SAID_NEXT_TO_YES = [
    ({"region_ids": [1], "text": "the car"}, True),
    ({"region_ids": [1], "text": "The car."}, True),
    ({"region_ids": [1], "text": "the car on the left"}, True),
    ({"region_ids": [1], "text": "unchanged"}, True),
    ({"region_ids": [], "text": ""}, True),  # nothing to mend
    ({"region_ids": None}, True),
    ({"region_ids": [1], "reason": "It is the only car."}, True),  # nobody asked why
    ({"region_ids": [1, 9], "text": "the car"}, True),
    ({"region_ids": [2], "text": "the car"}, None),
    ({"region_ids": [9], "text": "the car"}, None),
    ({"region_ids": [], "text": "the car"}, None),
    ({"region_ids": [1], "text": "the bus"}, None),
    ({"region_ids": [1], "text": "the car's wheel"}, None),
]


@pytest.mark.parametrize(("said", "matches"), SAID_NEXT_TO_YES)
def test_a_yes_that_contradicts_itself_tells_nothing(
    image: Image, said: dict[str, Any], matches: bool | None
) -> None:
    checks = [{"id": 1, "matches": True, **said}, {"id": 2, "matches": True}]
    [check, _], notes = requests(image)["double_check"].read(json.dumps({"checks": checks}))
    assert check.matches is matches
    assert ("contradiction" in [note.code for note in notes]) == (matches is None)


@pytest.mark.parametrize(
    ("text", "matches"),
    [("both", None), ("Both.", None), ("the bus", False)],
)
def test_a_new_text_that_means_other_regions_too_mends_nothing(
    image: Image, text: str, matches: bool | None
) -> None:
    checks = [
        {"id": 1, "matches": False, "region_ids": [1], "text": text},
        {"id": 2, "matches": True, "region_ids": [1, 2], "text": "both"},
    ]
    [check, other], _ = requests(image)["double_check"].read(json.dumps({"checks": checks}))
    assert (check.matches, other.matches) == (matches, True)


def test_two_expressions_may_change_their_texts(image: Image) -> None:
    checks = [
        {"id": 1, "matches": False, "region_ids": [1], "text": "both"},
        {"id": 2, "matches": False, "region_ids": [1, 2], "text": "the car"},
    ]
    answer, _ = requests(image)["double_check"].read(json.dumps({"checks": checks}))
    assert [check.matches for check in answer] == [False, False]


@pytest.mark.parametrize(("task", "reply", "why"), UNREADABLE)
def test_what_can_not_be_read_says_what_is_wrong(
    image: Image, task: str, reply: str, why: str
) -> None:
    with pytest.raises(UnreadableReply, match=why):
        requests(image)[task].read(reply)


@pytest.mark.parametrize(
    ("task", "reply"),
    [
        ("region_expression", f'{{"regions": [{ONE}, {{"id": 2, "descr'),
        ("region_expression", f'{{"regions": [{ONE}, {{"id": 2, "description": "the re'),
        ("image_caption", '{"caption": "A red car on the le'),
        ("grounding_expression", '{"expressions": [{"text": "it", "region_ids": [1]}, {"text": "the'),
        ("double_check", '{"checks": [{"id": 1, "matches": true, "region_ids": [1]}, {"id": 2, "ma'),
    ],
)  # fmt: skip
def test_the_rest_of_a_reply_that_is_cut_off_is_not_taken_for_none(
    image: Image, task: str, reply: str
) -> None:
    with pytest.raises(TruncatedReply):
        requests(image)[task].read(reply)


values = any_json("id", "matches", "text")
keys = st.sampled_from(
    ["id", "region_ids", "text", "matches", "description", "type", "color", "caption"]
)
items = st.lists(values | st.dictionaries(keys, values, max_size=6), max_size=4)
replies = st.dictionaries(
    st.sampled_from(["regions", "expressions", "checks", "caption"]), items | values, max_size=4
)


@pytest.mark.slow
@given(
    replies.map(json.dumps) | st.text(max_size=30),
    st.sampled_from(["region_expression", "image_caption", "grounding_expression", "double_check"]),
)
def test_anything_at_all_is_read_or_refused(image: Image, reply: str, task: str) -> None:
    read: Callable[[str], Any] = requests(image)[task].read
    try:
        answer, notes = read(reply)
    except UnreadableReply:
        return
    assert all(isinstance(note, Note) for note in notes)
    json.dumps(str(answer))


def test_two_answers_for_one_id_that_differ_are_asked_again() -> None:
    """The first counted, though the model says of a box that it is right, and that it is wrong."""
    reply = '{"checks": [{"id": 1, "ok": true}, {"id": 1, "ok": %s}]}'
    for equal in ("true", "1"):  # of equal ones the first counts
        assert str(read_by_id(reply % equal, "checks", 1)[0]) == "{1: {'id': 1, 'ok': True}}"
    with pytest.raises(UnreadableReply, match="two answers that differ"):
        read_by_id(reply % "false", "checks", 1)
