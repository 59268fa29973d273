"""Shapes that are read as a whole or not at all: tables, comments, outlines, grid cells, names
beside names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.replies import Reading, read_boxes

CAT, DOG = (10, 20, 30, 40), (50, 60, 70, 80)
PHRASES = ["cat", "dog"]


def read(reply: str, phrases: Any = (), format: str = "xyxy_1000") -> Reading:
    return read_boxes(reply, format=format, image_size=(1000, 1000), phrases=phrases)


def found(reading: Reading) -> list[tuple[str | None, tuple[float, ...]]]:
    return [(box.label, box.bbox) for box in reading.boxes]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("label,x1,y1,x2,y2\ncat,10,20,30,40\ndog,50,60,70,80", id="values by commas"),
        pytest.param(
            "label,ymin,xmin,ymax,xmax\ncat,20,10,40,30\ndog,60,50,80,70",
            id="values by commas, y first",
        ),
        pytest.param("x1,y1,x2,y2,label\n10,20,30,40,cat\n50,60,70,80,dog", id="the label last"),
        pytest.param(
            "| Object | y1 | x1 | y2 | x2 |\n|---|---|---|---|---|\n| cat | 20 | 10 | 40 | 30 |\n| dog | 60 | 50 | 80 | 70 |\n\nDone.",
            id="a table, y first",
        ),
        pytest.param(
            "| # | thing | x | y | width | height | label |\n|---|---|:-:|---|---|---|---|\n| 1 | a | 10 | 20 | 20 | 20 | cat |\n| 2 | b | 50 | 60 | 20 | 20 | dog |",
            id="a table with sizes",
        ),
        pytest.param(
            "label\tcx\tcy\tw\th\ncat\t20\t30\t20\t20\ndog\t60\t70\t20\t20",
            id="values by tabs, middles",
        ),
        pytest.param(
            "```csv\nlabel;left;top;right;bottom\ncat;10;20;30;40\ndog;50;60;70;80\n```",
            id="fenced",
        ),
    ],
)
@pytest.mark.parametrize("format", ["xyxy_1000", "yxyx_1000", "cxcywh_1000"])
def test_the_header_of_a_table_settles_its_order_whatever_the_format(
    reply: str, format: str
) -> None:
    assert found(read(reply, format=format)) == [("cat", CAT), ("dog", DOG)]


def test_the_first_of_two_columns_of_labels_counts() -> None:
    table = "| label | x1 | y1 | x2 | y2 | label |\n|---|---|---|---|---|---|\n| cat | 10 | 20 | 30 | 40 | small |"
    assert found(read(table, ["cat"])) == [("cat", CAT)]


def test_a_row_that_does_not_fit_its_table_is_dropped() -> None:
    reading = read("label,ymin,xmin,ymax,xmax\ncat,20,10,40,30\nred, big dog,60,50,80,70")

    assert found(reading) == [("cat", CAT)]
    assert reading.count("dropped") == 1


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        ("bbox_xyxy", [10, 20, 30, 40]),
        ("ltrb", [10, 20, 30, 40]),
        ("box_yxyx", [20, 10, 40, 30]),
        ("bbox_xywh", [10, 20, 20, 20]),
        ("bbox_cxcywh", [20, 30, 20, 20]),
    ],
)
@pytest.mark.parametrize("format", ["xyxy_1000", "gemini", "xywh_1000"])
def test_a_key_that_names_an_order_settles_it(key: str, numbers: list[int], format: str) -> None:
    assert found(read(f'{{"label": "cat", "{key}": {numbers}}}', format=format)) == [("cat", CAT)]


@pytest.mark.parametrize("mark", ["#", "//"])
def test_json_that_is_commented_out_as_a_whole_is_read_as_a_whole(mark: str) -> None:
    lines = [
        '[{box_2d: [10, 20, 30, 40], label: "cat"},',
        ' {box_2d: [50, 60, 70, 80], label: "dog"}]',
    ]
    code = "img = open('x.png')  # 640 by 480\n"

    assert found(read("\n".join(f"{mark} {line}" for line in lines))) == [
        ("cat", CAT),
        ("dog", DOG),
    ]
    assert found(read(code + "\n".join(f"{mark}{line}" for line in lines))) == [
        ("cat", CAT),
        ("dog", DOG),
    ]


def test_boxes_of_code_that_its_comments_give_again_count_once() -> None:
    reply = 'green_cat = [10, 20, 30, 40]\ndog = [50, 60, 70, 80]\n# [{box_2d: [10, 20, 30, 40], label: "cat"},\n#  {box_2d: [50, 60, 70, 80], label: "dog"}]'

    assert found(read(reply)) == [("cat", CAT), ("dog", DOG)]


def test_comments_within_json_hide_no_box() -> None:
    plain = '{"cat": [10, 20, 30, 40],  # the left one\n "dog": [50, 60, 70, 80]  // (50, 60, 70, 80)\n}'

    assert found(read(plain)) == [("cat", CAT), ("dog", DOG)]
    for comment in ("# [50, 60, 70, 80],", "// dog: (50, 60, 70, 80)", "/* [50, 60, 70, 80] */"):
        with pytest.raises(UnreadableReply, match="comments"):
            read(f'[{{"label": "cat", "bbox": [10, 20, 30, 40]}},\n {comment}\n]')


@pytest.mark.parametrize(
    "outline",
    [
        '"polygon": [[10, 20], [30, 20], [30, 40], [10, 40], [12, 30]]',
        '"polygon": [10, 20, 30, 20, 30, 40, 10, 40]',
        '"segmentation": [[10, 20, 30, 20, 30, 40, 10, 40, 12, 30]]',
        '"contour": [{"x": 10, "y": 20}, {"x": 30, "y": 25}, {"x": 15, "y": 40}]',
        '"corners": [[10, 20], [30, 40]]',
    ],
)
@pytest.mark.parametrize("format", ["xyxy_1000", "xywh_1000", "cxcywh_1000"])
def test_an_outline_gives_the_box_around_it(outline: str, format: str) -> None:
    assert found(read(f'{{"label": "cat", {outline}}}', format=format)) == [("cat", CAT)]
    assert found(
        read(f'{{"label": "cat", {outline}, "bbox_xyxy": [50, 60, 70, 80]}}', format=format)
    ) == [("cat", DOG)]


def test_outlines_of_two_things_give_two_boxes_and_one_that_is_cut_off_none() -> None:
    reply = '{"polygons": [[[10, 20, 30, 20, 30, 40, 10, 40]], [[50, 60, 70, 60, 70, 80]]], "labels": ["cat", "dog"]}'

    assert found(read(f'{{"<REFERRING_EXPRESSION_SEGMENTATION>": {reply}}}')) == [
        ("cat", CAT),
        ("dog", DOG),
    ]
    reading = read(
        '[{"label": "cat", "polygon": [[10,20],[30,20],[30,40]]}, {"label": "dog", "polygon": [[50,60],[70,',
        PHRASES,
    )
    assert [(box.id, box.bbox) for box in reading.boxes] == [(1, CAT)]
    assert reading.unread == [2]


def test_an_outline_in_location_tokens_is_never_split_into_boxes() -> None:
    outline = "".join(
        f"<loc_{n}>"
        for n in (279, 379, 282, 379, 290, 372, 293, 372, 298, 368, 301, 368, 306, 364, 310, 362)
    )

    for reply in (f"</s><s>{outline}</s>", f"cat{outline}", f"cat{outline}<loc_315><loc_360>"):
        with pytest.raises(UnreadableReply, match="outline"):
            read(reply, ["cat"], format="florence-2")


@pytest.mark.parametrize(
    "reply",
    [
        '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [44, 863]}, {"id": 2, "label": "dog", "bbox_2d": [5, 911]}]}',
        '```json\n[{"label": "cat", "bbox_2d": [44, 863]}, {"label": "dog", "bbox_2d": [5, 911]}]\n```',
        '{"cat": [44, 863], "dog": [5, 911]}',
        "<phrase>cat</phrase><object><patch_index_0044><patch_index_0863></object><phrase>dog</phrase><object><patch_index_0005><patch_index_0911></object>",
    ],
)
def test_grid_cells_are_read_from_the_json_that_is_asked_for_as_from_tokens(reply: str) -> None:
    kosmos = find_box_format("kosmos-2", "")
    assert "two numbers" in kosmos.instructions((1000, 1000))

    boxes = read(reply, PHRASES, format="kosmos-2").boxes

    assert [(box.id, box.numbers) for box in boxes] == [(1, (44, 863)), (2, (5, 911))]
    assert boxes[0].bbox == kosmos.to_pixels((44, 863), original=(1000, 1000))


@pytest.mark.parametrize(
    "numbers", ["[863, 44]", "[44, 1024]", "[44]", "[44, 863, 900]", "[10, 20, 30, 40]"]
)
def test_what_are_no_two_grid_cells_is_unreadable(numbers: str) -> None:
    with pytest.raises(UnreadableReply):
        read(
            f'{{"objects": [{{"id": 1, "label": "cat", "bbox_2d": {numbers}}}]}}',
            ["cat"],
            format="kosmos-2",
        )


@pytest.mark.parametrize(
    "beside",
    [
        '"x1": 50, "y1": 60, "x2": 70, "y2": 80',
        '"x_min": 0.5, "y_min": 0.5, "x_max": 0.6, "y_max": 0.6',
        '"center": [50, 60]',
        '"x": 50, "y": 60, "width": 7, "height": 8',
        '"top_left": [1, 2], "bottom_right": [3, 4]',
        '"color": [1, 2, 3, 4]',
        '"scores": [0.9, 0.8, 0.7, 0.6]',
    ],
)
def test_a_box_key_wins_over_what_stands_beside_it(beside: str) -> None:
    for reply in (
        f'{{"box_2d": [10, 20, 30, 40], {beside}, "label": "cat"}}',
        f'[{{{beside}, "label": "cat", "bbox": [10, 20, 30, 40]}}]',
    ):
        reading = read(reply)
        assert found(reading) == [("cat", CAT)]
        assert not reading.doubtful
    with pytest.raises(UnreadableReply):
        read(f'{{"box_2d": [10, 20, 30], {beside}, "label": "cat"}}')


@pytest.mark.parametrize(
    "reply",
    [
        '[{"label": "R&amp;B &lt;sign&gt; &quot;A&quot;", "bbox_2d": [10,20,30,40]}]',
        '{"objects": [{"id": 1, "label": "R&amp;B &lt;sign&gt; &#34;A&#34;", "bbox_2d": [10,20,30,40]}]}',
        '<point_box mention="R&amp;B &lt;sign&gt; &quot;A&quot;"> (10,20) (30,40) </point_box>',
        "<ref>R&amp;B &lt;sign&gt; &quot;A&quot;</ref><box>(10,20),(30,40)</box>",
    ],
)
def test_entities_in_labels_are_resolved(reply: str) -> None:
    assert found(read(reply)) == [('R&B <sign> "A"', CAT)]
    assert [box.id for box in read(reply, {4: 'R&B <sign> "A"', 5: "dog"}).boxes] == [4]


def test_an_entity_that_a_phrase_itself_has_is_matched_too() -> None:
    assert [
        box.id
        for box in read('[{"label": "R&amp;B", "bbox_2d": [10,20,30,40]}]', ["x", "R&amp;B"]).boxes
    ] == [2]


@pytest.mark.parametrize(
    "reply",
    [
        '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [50, 60, 70, 80], "label": "c',
        '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [50, 60, 70, 80], "label":\n  ',
        '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [50, 60, 70, 80],',
    ],
)
def test_a_box_whose_label_is_cut_off_is_no_box(reply: str) -> None:
    for phrases in ([], ["cat"]):
        reading = read(reply, phrases)
        assert found(reading) == [("cat", CAT)]
        assert reading.count("truncated") == reading.count("dropped") == 1


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        (
            '{"<REGION_TO_CATEGORY>": "some object<loc_10><loc_20><loc_30><loc_40>"}',
            ["some object"],
        ),
        (
            '{"<OD>": "car<loc_1><loc_2><loc_3><loc_4>door<loc_1><loc_2><loc_3><loc_4>"}',
            ["car", "door"],
        ),
        ('{"objects": [{"label": "cat", "bbox_2d": "<loc_10><loc_20><loc_30><loc_40>"}]}', ["cat"]),
        ('{"cat": "<box>(10,20),(30,40)</box>"}', ["cat"]),
        ('Here: {"<OD>": "car<loc_1><loc_2><loc_3><loc_4>"}', ["car"]),
        (
            '[{"bbox_2d": {"bbox": <|box_start|>(10,20),(30,40)<|box_end|>, "label": "<ref-object>"}]',
            [None],
        ),
    ],
)
def test_tokens_in_strings_of_json_are_read_with_their_own_labels(
    reply: str, labels: list[str | None]
) -> None:
    assert [box.label for box in read(reply).boxes] == labels


@pytest.mark.parametrize(
    "reply",
    [
        "I found cats number 1, 2, 3, 4",
        "The cats are numbered 1, 2, 3, 4",
        "Pages 1 2 3 4",
        "cat: 10%, 20%, 30%, 40%",
        "cat: 10px, 20px, 30px, 40px",
        "cat: x: 10-30, y: 20-40",
        '{"label": "cat", "bbox_2d": ["10%", "20%", "30%", "40%"]}',
        "0 10 20 30 40",
        "cat: [ten, twenty, thirty, forty]",
    ],
)
def test_four_numbers_of_something_else_are_no_box(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, ["cat"])


def test_json_in_strings_of_json_without_end_is_refused() -> None:
    value: Any = {"bbox": [1, 2, 3, 4]}
    for _ in range(6):
        for _ in range(30):
            value = {"a": value}
        value = {"arguments": json.dumps(value)}
    with pytest.raises(UnreadableReply, match="nested"):
        read(json.dumps(value))
