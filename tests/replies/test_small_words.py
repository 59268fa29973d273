"""Small words, numbers and keys by which a box is another one, another thing's, or nobody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from benchmarks.places.bytecode import instructions_of
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
        "cat: [100, 300, 200, 400]. The first number represents the y coordinate.",
        "cat: [100, 300, 200, 400]. Format: (y1, x1), (y2, x2).",
        "cat: [100, 300, 200, 400]. Format: [y-min, x-min, y-max, x-max].",
        "cat: [100, 300, 200, 400]. The order is y then x.",
        "cat: [100, 300, 200, 400] as y, x, y, x.",
        "cat: [100, 300, 200, 400], that is top-left (y, x) and bottom-right (y, x).",
        '{"label": "cat", "bbox": [100, // y1\n 300, // x1\n 200, // y2\n 400 // x2\n]}',
        '{"label": "cat", "bbox": [100, /* ymin */ 300, /* xmin */ 200, /* ymax */ 400 /* xmax */]}',
        '{"bbox": [100, // y1: top edge\n 300, // x1: left\n 200, // y2: below\n 400 // x2 - right\n]}',
        '{"bbox": [100, // y-min\n 300, // x-min\n 200, // y-max\n 400 // x-max\n]}',
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
        "cat: [100, 300, 200, 400]. Its top, left, bottom, and right edges are fully visible.",
        "I checked the left, right, top, and bottom boundaries. cat: [100, 300, 200, 400]",
        '{"bbox": [100, 300, 200, 400], "reasoning": "Windows at the top, left, bottom, and right."}',
        "cat: [100, 300, 200, 400]. The first one is top left, the second one is top right.",
        "cat: [100, 300, 200, 400]. The first one is vertical.",
        "cat: [100, 300, 200, 400] (x, y first, then x, y of the other corner)",
        "cat: [100, 300, 200, 400]. I found the vertical first.",
        "cat: [100, 300, 200, 400]. The last two are size L.",
        "cat: [100, 300, 200, 400]. Here xmin, xmax, ymin, and ymax are in pixels.",
        '{"xmin": 100, // left\n"xmax": 200, // right\n"ymin": 300, // top\n"ymax": 400 // bottom\n}',
    ],
)
def test_other_words_state_no_order(reply: str) -> None:
    assert found(reply) == [(1, ASKED)]


@pytest.mark.parametrize(
    "words",
    [
        "The last two numbers are its width and height.",
        "The third and fourth values represent the size.",
        "The first two values are the top-left corner, the last two represent width and height.",
    ],
)
def test_a_size_in_place_of_a_corner_is_heeded_where_corners_were_asked_for(words: str) -> None:
    reply = f"cat: [100, 300, 200, 400]. {words}"
    assert found(reply) is None
    assert found(reply, format="xywh_px") == [(1, (100, 300, 300, 700))]


def test_so_is_a_center() -> None:
    reply = "cat: [100, 300, 200, 400]. The first two numbers are the center."
    assert found(reply) is None
    assert found(reply, format="cxcywh_px") == [(1, (0, 100, 200, 500))]


def test_boxes_of_one_list_may_be_told_apart_by_their_sides() -> None:
    boxes = (
        "[100, 300, 200, 400]",
        "[500, 300, 600, 400]",
        "[100, 500, 200, 600]",
        "[500, 5, 6, 600]",
    )
    sides = ("top", "left", "bottom", "right")
    items = [
        f'{{"label": "cat", "bbox": {box}}} // {side}'
        for box, side in zip(boxes, sides, strict=True)
    ]
    lines = [item.replace("} //", "}, //") for item in items[:-1]]
    read = found("[\n" + "\n".join([*lines, items[-1]]) + "\n]")
    assert read is not None
    assert read[0] == (1, ASKED)


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
    # what counts in parts of the side is the same in a picture of any size
    assert found(reply, format="xyxy_1000", image_size=(1000, 1000)) == [(1, ASKED)]


@pytest.mark.parametrize(
    "words",
    [
        "The image is 640x480 pixels.",
        "The picture has a size of 640 by 480 pixels.",
        "The image appears to be 640 pixels by 480 pixels.",
        "The image is 640 wide and 480 tall.",
        "Image width: 640, image height: 480.",
        "The dimensions of the image are 640 x 480.",
        "I resized the image to 640x480.",
        "The image is 640 pixels wide and 480 pixels high.",
    ],
)
def test_so_are_pixels_of_a_picture_that_is_told_to_be_of_another_size(words: str) -> None:
    reply = f"{words} cat: [100, 300, 200, 400]"
    assert found(reply) is None
    assert found(reply, image_size=(640, 480)) == [(1, ASKED)]
    # what counts in parts of the side is the same in a picture of any size
    assert found(reply, format="xyxy_1000", image_size=(1000, 1000)) == [(1, ASKED)]


@pytest.mark.parametrize(
    "words",
    [
        "The original image is 4000x3000, resized to 1280x960.",
        "The image is 4000x3000 but I use the resized 1280x960 one.",
        "The image was 640x480 originally and is 1280x960 now.",
        "The screenshot has a dialog of 300 x 250 pixels.",
        "The picture is a 500x700 mm print.",
        "The photo was taken in 2019 by 21 students.",
    ],
)
def test_sizes_of_other_things_are_no_picture_s(words: str) -> None:
    assert found(f"{words}\ncat: [100, 300, 200, 400]") == [(1, ASKED)]


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
        ('[{"phrase": 2, "boxes": [{"id": 1, "bbox": @}]}]', [2]),
        ('[{"phrase_index": 2, "boxes": [{"id": 1, "bbox": @}]}]', [2]),
        ('{"2": [{"id": 1, "bbox": @}]}', [2]),
    ],
)
def test_running_numbers_of_boxes_dont_go_before_the_phrases(reply: str, ids: list[int]) -> None:
    boxes = found(reply.replace("@", "[100, 300, 200, 400]"), ("cat", "dog"))
    assert boxes is not None
    assert [phrase_id for phrase_id, _ in boxes] == ids


def test_a_coco_document_is_refused_where_corners_were_asked_for() -> None:
    annotation = '{"id": 1, "image_id": 1, "category_id": 2, "bbox": [100, 300, 200, 400]}'
    categories = '[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]'
    reply = f'{{"annotations": [{annotation}], "categories": {categories}}}'
    assert found(reply, ("cat", "dog")) is None
    assert found(reply, ("dog",), format="xywh_px") == [(1, (100, 300, 300, 700))]


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
        ("car 1", "cars in lane 2"),
    ],
)
def test_what_differs_in_spelling_alone_is_the_same(label: str, phrase: str) -> None:
    reply = f'{{"label": "{label}", "bbox": [100, 300, 200, 400]}}'
    assert found(reply, [phrase]) == [(1, ASKED)]


def test_an_article_makes_no_difference_beside_a_number() -> None:
    reply = '{"label": "the door", "bbox": [100, 300, 200, 400]}'
    assert found(reply, ["door", "door 2"]) == [(1, ASKED)]


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
        '{"label": "cat", "answer": "No, it is a fox.", "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "is_cat_present": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "isCatVisible": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "contains_cat": false, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "cat_absent": true, "bbox": [100, 300, 200, 400]}',
        '{"label": "cat", "CAT_PRESENT": false, "bbox": [100, 300, 200, 400]}',
        "The cat is at [100, 300, 200, 400]. It looks more like a fox than a cat.",
        "The cat is at `[100, 300, 200, 400]` or `[500, 300, 600, 400]`.",
        "The cat is at [100, 300, 200, 400] (or [500, 300, 600, 400]).",
        "The cat is at [100, 300, 200, 400], or it could be the one at [500, 300, 600, 400]",
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
        '"whole_cat_visible": false',
        '"another_cat_present": false',
        '"question": "Is it asleep?", "answer": "No"',
        '"result": 0',
        '"reason": "It is a tabby rather than a Persian cat."',
        '"reason": "The dog lies on the sofa rather than a mat."',
    ],
)
def test_flags_of_other_things_take_nothing_back(beside: str) -> None:
    assert found(f'{{"label": "cat", {beside}, "bbox": [100, 300, 200, 400]}}') == [(1, ASKED)]


@pytest.mark.parametrize(
    "reply",
    [
        "The man is at [100, 300, 200, 400], on a horse rather than a bicycle. The bicycle is at @.",
        "The man at [100, 300, 200, 400] sits on a bench instead of a bicycle. The bicycle: @",
    ],
)
def test_what_a_thing_is_done_with_is_not_told_from_it(reply: str) -> None:
    boxes = found(reply.replace("@", "[500, 300, 600, 400]"), ["man", "bicycle"])
    assert boxes == [(1, ASKED), (2, (500, 300, 600, 400))]


def test_one_box_that_is_told_twice_is_one() -> None:
    reply = "The cat is at [100, 300, 200, 400] or (100, 300, 200, 400)."
    assert found(reply) == [(1, ASKED)]


def _of_blanks(count: int) -> str:
    return "cat: [1, 2, 30, 40] x1, y1, x2, y2 = 1" + " " * count + "z"


def _of_dashes(count: int) -> str:
    return f'{{"label": "cat{"-" * count}x", "bbox": [1, 2, 30, 40]}}'


def _of_comments(count: int) -> str:
    return '{"bbox": [' + ", // y1\n".join(map(str, range(count))) + "]}"


def _of_flag(count: int) -> str:
    return f'{{"is{"a_" * count}!": false, "bbox": [1, 2, 30, 40]}}'


@pytest.mark.slow
@pytest.mark.parametrize("long_reply", [_of_blanks, _of_dashes, _of_comments, _of_flag])
def test_long_replies_are_read_in_linear_time(long_reply: Callable[[int], str]) -> None:
    """A search that is quadratic in their length would not come to an end."""
    things = ["cat thing", "cats thing 2"]

    def instructions(count: int) -> int:
        return instructions_of(lambda: found(long_reply(count), things))

    found(long_reply(200_000), things)
    assert instructions(1600) < 10 * instructions(200)


def test_two_boxes_that_and_joins_are_both() -> None:
    reply = "The cats are at [100, 300, 200, 400] and [500, 300, 600, 400]."
    assert found(reply, ["cats"]) == [(1, ASKED), (1, (500, 300, 600, 400))]
