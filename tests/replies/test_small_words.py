"""Small words, numbers and keys by which a box is another one, another thing's, or nobody's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

ASKED = (100, 300, 200, 400)  # [100, 300, 200, 400] as asked for: x1, y1, x2, y2
Y_FIRST = (300, 100, 400, 200)
CAT = ("cat",)


def found(
    reply: str,
    phrases: Sequence[str] = CAT,
    format: str = "xyxy_px",
    image_size: tuple[int, int] = (1280, 960),
) -> list[tuple[int | None, tuple[float, ...]]] | None:
    """Return (phrase id, box) of each box; None for a reply that is refused."""
    try:
        reading = read_boxes(reply, format=format, image_size=image_size, phrases=phrases)
    except UnreadableReply:
        return None
    return [(box.id, box.bbox) for box in reading.boxes]


# --- the order of the numbers


@pytest.mark.parametrize(
    "reply",
    [
        "y1, x1, y2, x2 = 100, 300, 200, 400",
        "cat: (y1, x1, y2, x2) = (100, 300, 200, 400)",
        "[ymin, xmin, ymax, xmax]: [100, 300, 200, 400]",
        "cat [top, left, bottom, right]= 100 300 200 400",
        "cat: [100, 300, 200, 400]. The numbers are y1, x1, y2 and x2.",
        "cat: [100, 300, 200, 400], y comes first.",
        "Values are given y-first.\ncat: [100, 300, 200, 400]",
        "cat: [100, 300, 200, 400]. The first value is the y coordinate.",
        "cat: [100, 300, 200, 400], that is top-left (y, x) and bottom-right (y, x).",
        '{"label": "cat", "bbox": [100, // y1\n 300, // x1\n 200, // y2\n 400 // x2\n]}',
        '{"label": "cat", "bbox": [100, /* ymin */ 300, /* xmin */ 200, /* ymax */ 400 /* xmax */]}',
        '{"label": "cat", "bbox": [\n# top\n100,\n# left (px)\n300,\n# bottom\n200,\n# right\n400]}',
    ],
)
def test_the_stated_order_counts_wherever_it_stands(reply: str) -> None:
    assert found(reply) == [(1, Y_FIRST)]


@pytest.mark.parametrize(
    "reply",
    [
        "x1, y1, x2, y2 = 100, 300, 200, 400",
        "x1 = 100, y1 = 300, x2 = 200, y2 = 400",
        "The top left and bottom right corners of the cat: [100, 300, 200, 400]",
        'The first cat: {"label": "cat", "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "bbox": [100, 300, 200, 400]} // left cat',
    ],
)
def test_other_words_state_no_order(reply: str) -> None:
    assert found(reply) == [(1, ASKED)]


@pytest.mark.parametrize(
    "words",
    [
        "The last two numbers are its width and height.",
        "The third and fourth values are the size.",
        "The first two are the center.",
    ],
)
def test_an_order_that_is_half_told_makes_it_unreadable(words: str) -> None:
    assert found(f"cat: [100, 300, 200, 400]. {words}") is None


def test_comments_in_an_unknown_order_make_it_unreadable() -> None:
    reply = '{"bbox": [100, // x1\n 300, // x2\n 200, // y1\n 400 // y2\n]}'
    assert found(reply) is None


# --- the size of the picture


@pytest.mark.parametrize(
    "size",
    [
        '"original_width": 640, "original_height": 480, ',
        '"orig_w": 640, "orig_h": 480, ',
        '"img_w": 640, "img_h": 480, ',
        '"input_width": 640, "input_height": 480, ',
    ],
)
def test_pixels_of_a_picture_of_another_size_are_refused(size: str) -> None:
    reply = f'{{{size}"label": "cat", "bbox": [100, 300, 200, 400]}}'
    assert found(reply) is None
    assert found(reply, image_size=(640, 480)) == [(1, ASKED)]


@pytest.mark.parametrize(
    "words",
    [
        "The image is 640x480 pixels.",
        "The picture has a size of 640 by 480 pixels.",
        "The image is 640 pixels wide and 480 pixels high.",
    ],
)
def test_so_are_pixels_of_a_picture_that_is_told_to_be_of_another_size(words: str) -> None:
    reply = f"{words} cat: [100, 300, 200, 400]"
    assert found(reply) is None
    assert found(reply, image_size=(640, 480)) == [(1, ASKED)]
    # what counts in parts of the side is the same in a picture of any size
    assert found(reply, format="xyxy_1000", image_size=(1000, 1000)) == [(1, ASKED)]


def test_a_small_box_by_its_center_is_no_size_of_a_picture() -> None:
    box = '"center_x": 20, "center_y": 30, "width": 40, "height": 60'
    assert found(f'{{"label": "cat", {box}}}') == [(1, (0, 0, 40, 60))]


# --- whose box it is


@pytest.mark.parametrize(
    ("reply", "ids"),
    [
        ('[{"phrase_id": 2, "boxes": [{"id": 1, "bbox": @}]}]', [2]),
        ('{"phrase_id": 2, "id": 1, "bbox": @}', [2]),
        (
            '[{"phrase_id": 1, "boxes": [{"id": 1, "bbox": @}, {"id": 2, "bbox": [1, 2, 30, 40]}]},'
            ' {"phrase_id": 2, "boxes": [{"id": 1, "bbox": [5, 6, 70, 80]}]}]',
            [1, 1, 2],
        ),
        ('{"id": 7, "objects": [{"id": 2, "bbox": @}]}', [2]),
    ],
)
def test_running_numbers_of_boxes_dont_go_before_the_phrases(reply: str, ids: list[int]) -> None:
    boxes = found(reply.replace("@", "[100, 300, 200, 400]"), ("cat", "dog"))
    assert boxes is not None
    assert [phrase_id for phrase_id, _ in boxes] == ids


def test_a_coco_document_is_refused() -> None:
    annotation = '{"id": 1, "image_id": 1, "category_id": 2, "bbox": [100, 300, 200, 400]}'
    categories = '[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]'
    reply = f'{{"annotations": [{annotation}], "categories": {categories}}}'
    assert found(reply, ("cat", "dog")) is None


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("man who is smiling", "man who isn't smiling"),
        ("man who isn’t smiling", "man who is smiling"),
        ("woman who wears a hat", "woman who doesnt wear a hat"),
        ("dog that can swim", "dog that can't swim"),
        ("bus 17", "bus 42"),
        ("player number 7", "player number 10"),
        ("red bus 17", "bus 42"),
        ("fox rather than a cat", "cat"),
    ],
)
def test_a_small_difference_is_another_thing(label: str, phrase: str) -> None:
    reply = f'{{"label": "{label}", "bbox": [100, 300, 200, 400]}}'
    assert found(reply, [phrase]) is None
    assert found(reply, [label]) == [(1, ASKED)]


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("man who is not smiling", "man who isn't smiling"),
        ("cat 2", "cat"),
        ("the bus (1)", "bus"),
        ("bus", "bus 42"),
        ("bus 42", "the bus #42"),
        ("bus 42 1", "bus 42"),
        ("bus_07", "bus 7"),
    ],
)
def test_what_differs_in_spelling_alone_is_the_same(label: str, phrase: str) -> None:
    reply = f'{{"label": "{label}", "bbox": [100, 300, 200, 400]}}'
    assert found(reply, [phrase]) == [(1, ASKED)]


def test_a_name_without_a_number_means_neither_of_two() -> None:
    reply = '{"label": "bus", "bbox": [100, 300, 200, 400]}'
    assert found(reply, ["bus 17", "bus 42"]) is None


@pytest.mark.parametrize("reply", ["There is no bus 17.", "No bus 17 in the image."])
def test_the_absence_of_one_number_is_not_anothers(reply: str) -> None:
    assert found(reply, ["bus 42"]) is None
    assert found(reply, ["bus 17"]) == []


# --- what takes a box back


@pytest.mark.parametrize(
    "reply",
    [
        "[100, 300, 200, 400] is a fox rather than a cat.",
        "The cat is at [100, 300, 200, 400]. On a closer look it is a fox rather than a cat.",
        '{"cat_present": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "catVisible": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "in_image": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "object_present": "no", "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "answer": "no", "bbox": [100, 300, 200, 400]}',
        "The cat is at [100, 300, 200, 400] or [500, 300, 600, 400].",
        "The cat is either at [100, 300, 200, 400] or at [500, 300, 600, 400].",
        '{"label": "cat", "bbox": [100, 300, 200, 400]} or perhaps [500, 300, 600, 400]',
    ],
)
def test_what_is_taken_back_or_left_open_gives_no_box(reply: str) -> None:
    assert found(reply) is None


@pytest.mark.parametrize(
    "beside",
    [
        '"collar_visible": false',
        '"cat_not_visible": false',
        '"cat_present": true',
        '"answer": "yes"',
        '"occluded": false',
    ],
)
def test_flags_of_other_things_take_nothing_back(beside: str) -> None:
    assert found(f'{{"label": "cat", {beside}, "bbox": [100, 300, 200, 400]}}') == [(1, ASKED)]


def test_two_boxes_that_and_joins_are_both() -> None:
    reply = "The cats are at [100, 300, 200, 400] and [500, 300, 600, 400]."
    assert found(reply, ["cats"]) == [(1, ASKED), (1, (500, 300, 600, 400))]
