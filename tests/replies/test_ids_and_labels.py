"""Ids and labels that don't go together: a box goes where both allow it, or nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes

BOXES = [[100, 200, 300, 400], [500, 500, 600, 600], [700, 700, 800, 800]]
PHRASES = ["red car", "bus", "person"]


def read(entries: list[dict[str, Any]], phrases: list[str]) -> Reading:
    objects = [{**entry, "bbox_2d": box} for entry, box in zip(entries, BOXES, strict=False)]
    return read_boxes(
        json.dumps({"objects": objects}),
        format="xyxy_1000",
        image_size=(1000, 1000),
        phrases=phrases,
    )


@pytest.mark.parametrize(
    ("entries", "ids"),
    [
        ([{"id": 0}, {"id": 1}, {"id": 2}], [1, 2, 3]),
        (
            [
                {"id": 0, "label": "red car"},
                {"id": 1, "label": "bus"},
                {"id": 2, "label": "person"},
            ],
            [1, 2, 3],
        ),
        ([{"id": 0, "label": "a car"}, {"id": 2, "label": "the person"}], [1, 3]),
        ([{"id": 0, "label": "bus"}, {"id": 1, "label": "red car"}], [2, 1]),
        (
            [{"id": 1, "label": "car"}, {"id": 2, "label": "car"}, {"id": 3, "label": "bus"}],
            [1, 1, 2],
        ),
        ([{"id": 2, "label": "red car"}, {"id": 1, "label": "bus"}], [1, 2]),
        ([{"id": 1, "label": "红色汽车"}, {"id": 2, "label": "公交车"}], [1, 2]),
    ],
)
def test_ids_that_count_otherwise_are_put_right_where_all_fits(
    entries: list[dict[str, Any]], ids: list[int]
) -> None:
    assert [box.id for box in read(entries, PHRASES).boxes] == ids


def test_ids_from_0_are_put_right_also_where_one_phrase_means_nearly_another() -> None:
    assert [
        box.id
        for box in read(
            [{"id": 0, "label": "red car"}, {"id": 1, "label": "car"}], ["red car", "car"]
        ).boxes
    ] == [1, 2]


@pytest.mark.parametrize(
    "entries",
    [
        [{"id": 0}, {"id": 1}],  # of three phrases: 0 and 1, or 1 and 2
        [{"id": 0, "label": "红色汽车"}, {"id": 1, "label": "公交车"}, {"id": 2, "label": "人"}],
        [{"id": 2}, {"id": 3}, {"id": 4}],
        [{"id": 0, "label": "red car"}, {"id": 1, "label": "coach"}, {"id": 2, "label": "person"}],
    ],
)
def test_ids_that_count_otherwise_and_may_mean_several_phrases_are_unreadable(
    entries: list[dict[str, Any]],
) -> None:
    with pytest.raises(UnreadableReply, match="ids"):
        read(entries, PHRASES)


def test_a_label_that_tells_its_box_from_the_phrase_of_its_id_leaves_that_phrase_unread() -> None:
    reading = read([{"id": 1, "label": "blue car"}, {"id": 2, "label": "bus"}], PHRASES)

    assert [box.id for box in reading.boxes] == [2]
    assert reading.unread == [1]


def test_a_label_that_has_nothing_of_the_phrase_of_its_id_is_noted() -> None:
    reading = read([{"id": 1, "label": "automobile"}], PHRASES)

    assert [box.id for box in reading.boxes] == [1]
    assert reading.count("unlike_label") == 1
    assert reading.doubtful


@pytest.mark.parametrize(
    "said",
    [
        {"label": label}
        for label in (
            "red car (not visible)",
            "red car - not visible",
            "not found",
            "no red car",
            "red car (absent)",
            "Red car: none",
        )
    ]
    + [
        {"label": "red car", key: value}
        for key, value in (
            ("status", "not_found"),
            ("status", "none"),
            ("present", 0),
            ("match", False),
            ("correct", False),
            ("found", "no"),
            ("visible", "not visible"),
        )
    ],
)
def test_an_object_that_says_that_its_thing_is_not_there_has_no_box(said: dict[str, Any]) -> None:
    for entry in (said, {"id": 1, **said}):
        reading = read([entry, {"id": 2, "label": "bus", "status": "ok", "present": 1}], PHRASES)
        assert [box.id for box in reading.boxes] == [2]


def test_a_phrase_may_itself_say_that_something_is_not_there() -> None:
    for phrase in ("no parking sign", "man without a hat", "missing tooth"):
        assert [box.id for box in read([{"label": phrase}], [phrase]).boxes] == [1]
        assert [box.id for box in read([{"id": 1, "label": f"the {phrase}"}], [phrase]).boxes] == [
            1
        ]


@pytest.mark.parametrize(
    ("label", "phrase", "sure"),
    [
        ("car", "red car", True),
        ("old car", "car", True),
        ("man", "man in a shirt", True),
        ("parked cars", "car", True),
        ("dogs", "two dogs", True),
        ("hot dog", "dog", False),
        ("dog", "hot dog", False),
        ("teddy bear", "bear", False),
        ("toy car", "car", False),
        ("car", "police car", False),
    ],
)
def test_a_label_that_may_be_another_thing_is_noted_where_no_id_says_whose_it_is(
    label: str, phrase: str, sure: bool
) -> None:
    reading = read([{"label": label}], [phrase])

    assert [box.id for box in reading.boxes] == [1]
    assert reading.doubtful is not sure
    assert not read([{"id": 1, "label": label}], [phrase]).doubtful


@pytest.mark.parametrize(
    ("phrase", "label"),
    [
        ("the horse", "horses"),
        ("a house on the hill", "houses on the hill"),
        ("the man", "men"),
        ("the tomato", "tomatoes"),
        ("a bus", "buses"),
        ("a cookie", "cookies"),
        ("a glass", "glasses"),
        ("the scissors", "scissor"),
    ],
)
def test_labels_of_several_things_mean_the_phrase_of_one(phrase: str, label: str) -> None:
    reading = read([{"label": label}, {"label": "bird"}], [phrase, "bird"])
    assert [box.id for box in reading.boxes] == [1, 2]


def test_one_phrase_is_not_taken_letter_by_letter() -> None:
    reading = read_boxes(
        '{"id": 1, "label": "cat", "bbox_2d": [100, 200, 500, 800]}',
        format="xyxy_1000",
        image_size=(640, 480),
        phrases="cat",
    )
    assert [(box.id, box.label) for box in reading.boxes] == [(1, "cat")]
