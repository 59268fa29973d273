"""Labels that stand before, behind or around their boxes: each box goes to its own phrase, or the
reply is refused.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.formats import format_of_model
from dataflow_grounding.replies import read_boxes

BOXES = {"cat": (100, 200, 300, 400), "dog": (0, 600, 700, 800), "red mug": (500, 0, 600, 1000)}
LABELS = [*BOXES]


def read(
    reply: str, phrases: list[str], box_format: str = "xyxy_1000"
) -> dict[str, list[tuple[float, ...]]] | None:
    """The boxes of a reply by the phrases that they are given to, or by their labels; None where it
    is unreadable.
    """
    try:
        boxes = read_boxes(reply, format=box_format, image_size=(1000, 1000), phrases=phrases).boxes
    except UnreadableReply:
        return None
    found: dict[str, list[tuple[float, ...]]] = {}
    for box in boxes:
        found.setdefault(phrases[(box.id or 0) - 1] if phrases else box.label or "", []).append(
            box.bbox
        )
    return found


# `@` is a box, `*` its label; one item after another.
NUMBERS = ["{} {} {} {}", "[{}, {}, {}, {}]", "({},{}),({},{})"]
BOX_TAGS = ["<bbox>@</bbox>", "<box>@</box>", "<|box_start|>@<|box_end|>", "<|det|>@<|/det|>"]
IN_TAGS = [
    "<ref>*</ref>@",
    "@<ref>*</ref>",
    "<label>*</label>@",
    "@<label>*</label>\n",
    "<|ref|>*<|/ref|>@\n",
    "@<|ref|>*<|/ref|>\n",
    "<|ref_start|>*<|ref_end|>@",
    "@<|ref_start|>*<|ref_end|>",
    "@<|ref_start|>*<|ref_end|><|rotate_up|>\n",
    "@<|ref_start|>*<|ref_end|><|md_start|>I see what it is about.<|md_end|>\n",
    "<|object_ref_start|>*<|object_ref_end|>@",
    "@<|object_ref_start|>*<|object_ref_end|>",
    "@ <ref> * </ref>, ",
    "@\n<ref>*</ref>\n\n",
]
IN_WORDS = [
    "* @\n",
    "@ *\n",
    "*: @\n",
    "@: *\n",
    "@ - *\n",
    "- * @\n",
    "- @ *\n",
    "1. * @\n",
    "1. @ *\n",
    "@*",
    "*@",
    "@ *, ",
    "* @, ",
    "@ (*)\n",
    "**\\*** @\n",
    "*\n@\n",
    "<zorb>*</zorb>@",
    "@<zorb>*</zorb>",
    "@<class>*</class>\n",
    "<object><name>*</name>@</object>\n",
    "<object>@<name>*</name></object>\n",
    "The * is at @.\n",
    "@ is the *.\n",
    "<tr><td>*</td><td>@</td></tr>",
    "<tr><td>@</td><td>*</td></tr>",
]


def of_items(item: str, box_tag: str, numbers: str, labels: tuple[str, ...]) -> str:
    def filled(label: str) -> str:
        placed = (
            item.replace("**\\***", "**\0**").replace("*", "\0")
            if "\\" not in item
            else item.replace("\\*", "\0")
        )
        return placed.replace("\0", label).replace(
            "@", box_tag.replace("@", numbers.format(*BOXES[label]))
        )

    return "".join(map(filled, labels))


@pytest.mark.slow
@pytest.mark.sampled(40)
@pytest.mark.parametrize("item", IN_TAGS + IN_WORDS)
@pytest.mark.parametrize("box_tag", BOX_TAGS)
def test_each_box_in_a_tag_goes_to_its_own_phrase(item: str, box_tag: str) -> None:
    for numbers in NUMBERS:
        for order in permutations(LABELS):
            reply = of_items(item, box_tag, numbers, order)
            for phrases in (LABELS, LABELS[::-1]):
                assert read(reply, phrases) == {label: [BOXES[label]] for label in LABELS}, reply
            for label in LABELS:
                assert read(reply, [label]) == {label: [BOXES[label]]}, (reply, label)
            assert read(reply, ["horse"]) is None, reply


@pytest.mark.parametrize(
    "item",
    [
        "@ - the *; ",
        "@ the *, ",
        "@ *\n",
        "@: *\n",
        "@ *, ",
        "@ * ",
        "- @ *\n",
        "* @\n",
        "*: @\n",
        "* @ ",
        "@ (*)\n",
    ],
)
@pytest.mark.parametrize("numbers", NUMBERS[1:])
def test_each_list_of_numbers_goes_to_its_own_phrase(item: str, numbers: str) -> None:
    for order in permutations(LABELS):
        reply = of_items(item, "@", numbers, order)
        assert read(reply, LABELS) == {label: [BOXES[label]] for label in LABELS}, reply
        for label in LABELS:
            assert read(reply, [label]) == {label: [BOXES[label]]}, (reply, label)


@pytest.mark.parametrize(
    "lead",
    [
        "Here are the boxes: ",
        "Here are the boxes:\n",
        "Here are the objects in the street scene:\n",
        "Sure!\n\n",
        "The answer is: ",
    ],
)
@pytest.mark.parametrize(
    "item", ["@ *\n", "@ *, ", "* @\n", "*: @\n", "@<ref>*</ref>", "<ref>*</ref>@"]
)
def test_words_before_all_of_it_are_no_label(lead: str, item: str) -> None:
    for order in permutations(LABELS):
        reply = lead + of_items(item, "<bbox>@</bbox>", NUMBERS[0], order)
        found = read(reply, LABELS)
        assert found == {label: [BOXES[label]] for label in LABELS}, reply


A, B = "<bbox>100 200 300 400</bbox>", "<bbox>500 600 700 800</bbox>"


@pytest.mark.parametrize(
    "reply",
    [
        f"{A} cat {B}",
        f"{A}cat{B}",
        f"{A}<zorb>cat</zorb>{B}",
        f"{A}<ref>cat</ref>{B}",
        f"{A}\n<ref>cat</ref>{B}<ref>dog</ref>",
        f"cat {A} (left) dog {B} (right)",
        f"{A} <cat> {B} <dog>",
        f"{A}\ncat\n{B}\ndog",
        "<loc_10><loc_20><loc_300><loc_400>cat<loc_50><loc_60><loc_100><loc_499>",
        "[100, 200, 300, 400] cat [500, 600, 700, 800]",
    ],
)
def test_labels_of_which_it_is_unclear_whose_they_are_make_a_reply_unreadable(reply: str) -> None:
    for phrases in ([], ["cat"], ["dog"], ["cat", "dog"]):
        assert read(reply, phrases) is None


@pytest.mark.parametrize(
    "reply",
    [
        f"{A}{B}",
        f"{A} and {B}",
        f"{A}\n{B}",
        f"1. {A}\n2. {B}",
        f"Here they are: {A}, {B}.",
        f"I found it: {A}\nIt is also at {B}",
        f"{A} {B} Let me know if you need anything else.",
        f"{A}\n{B}\n\nLet me know if you need anything else.",
    ],
)
def test_boxes_without_any_label_are_all_the_only_phrases(reply: str) -> None:
    assert read(reply, ["cat"]) == {"cat": [(100, 200, 300, 400), (500, 600, 700, 800)]}


@pytest.mark.parametrize(
    "lead",
    [
        "目标位于",
        "坐标：",
        "该物体的边界框是",
        "图中的猫位于",
        "The location of the requested object is ",
        "Bounding box: ",
    ],
)
def test_words_that_name_no_other_thing_leave_a_box_to_the_only_phrase(lead: str) -> None:
    assert read(lead + A, ["猫" if "猫" in lead else "cat"]) is not None
    assert (read(lead + A, ["狗"]) is None) == ("猫" in lead)


# DocTags and other location tokens

PAGE = (
    "<doctag><picture><loc_10><loc_20><loc_300><loc_400></picture>\n"
    "<text><loc_0><loc_0><loc_100><loc_499>What you need is what the user should see first.</text>\n"
    "<list_item><loc_5><loc_6><loc_7><loc_8>It is one of them.</list_item>\n"
    "<section_header_level_1><loc_0><loc_0><loc_499><loc_30>Intro</section_header_level_1>"
    "<otsl><loc_50><loc_60><loc_250><loc_260><fcel>A<fcel>1<nl></otsl></doctag>"
)


def scaled(bbox: tuple[int, ...], scale: int) -> list[tuple[float, ...]]:
    return [pytest.approx([value * 1000 / scale for value in bbox])]


@pytest.mark.parametrize(
    ("box_format", "scale"),
    [
        ("doctags", 500),
        ("xyxy_500", 500),
        ("xyxy_512", 512),
        ("qwen3-vl", 500),
        ("xyxy_1000", 1000),
    ],
)
@pytest.mark.parametrize("page", [PAGE, PAGE[8:-9], PAGE.replace("\n", "")])
def test_doctags_are_read_with_their_elements_in_the_scale_that_was_stated(
    page: str, box_format: str, scale: int
) -> None:
    asked = ["text", "section header", "picture", "table", "list item"]
    expected = [
        (0, 0, 100, 499),
        (0, 0, 499, 30),
        (10, 20, 300, 400),
        (50, 60, 250, 260),
        (5, 6, 7, 8),
    ]

    assert read(page, asked, box_format) == {
        phrase: scaled(bbox, scale) for phrase, bbox in zip(asked, expected, strict=True)
    }
    assert read(page, ["picture"], box_format) == {"picture": scaled(expected[2], scale)}
    assert read(page, ["horse"], box_format) is None
    assert [*(read(page, [], box_format) or ())] == [
        "picture",
        "text",
        "list_item",
        "section_header_level_1",
        "otsl",
    ]


def test_doctags_are_a_family_by_the_names_of_its_models() -> None:
    for model in ("ibm-granite/granite-docling-258M", "ds4sd/SmolDocling-256M-preview"):
        found = format_of_model(model)
        assert found is not None
        assert (found.name, found.order, found.scale) == ("doctags", "xyxy", 500)


def test_a_stated_scale_goes_before_the_one_that_tokens_suggest() -> None:
    florence = "cat<loc_100><loc_50><loc_400><loc_250>"

    assert read(florence, ["cat"], "xyxy_500") == {"cat": [(200, 100, 800, 500)]}
    assert read(florence, ["cat"], "yxyx_1000") == {"cat": [(50, 100, 250, 400)]}
    assert read(florence, ["cat"], "xyxy_1000") == {"cat": [(100.5, 50.5, 400.5, 250.5)]}
    assert read(florence, ["cat"], "qwen3-vl") == {"cat": [(100.5, 50.5, 400.5, 250.5)]}
    assert read("<loc0512><loc0256><loc0768><loc1023> cat", ["cat"], "xyxy_1024") == {
        "cat": [pytest.approx((500, 250, 750, 999), abs=0.1)]
    }


@pytest.mark.parametrize(
    ("reply", "box_format"),
    [
        ("cat<loc_1><loc_2><loc_30><loc_40>dog<loc_5><loc_6><loc_70><loc_80>", "florence-2"),
        ("<loc_1><loc_2><loc_30><loc_40>cat<loc_5><loc_6><loc_70><loc_80>dog", "florence-2"),
        (
            "<loc0001><loc0002><loc0030><loc0040> cat ; <loc0005><loc0006><loc0070><loc0080> dog",
            "paligemma",
        ),
        (
            "cat <loc0001><loc0002><loc0030><loc0040> ; dog <loc0005><loc0006><loc0070><loc0080>",
            "paligemma",
        ),
        (
            "detect cat ; dog\n<loc0001><loc0002><loc0030><loc0040> cat ;"
            " <loc0005><loc0006><loc0070><loc0080> dog",
            "paligemma",
        ),
        (
            "The objects: <loc_1><loc_2><loc_30><loc_40>cat<loc_5><loc_6><loc_70><loc_80>dog",
            "florence-2",
        ),
        (
            "cat<loc_1><loc_2><loc_30><loc_40>, dog<loc_5><loc_6><loc_70><loc_80>. That is all.",
            "florence-2",
        ),
        (
            "cat<loc_1><loc_2><loc_30><loc_40>dog<loc_5><loc_6><loc_70><loc_80>\nThat is all.",
            "florence-2",
        ),
    ],
)
def test_labels_on_either_side_of_location_tokens_go_to_their_own_boxes(
    reply: str, box_format: str
) -> None:
    reading = read_boxes(reply, format=box_format, image_size=(1000, 1000), phrases=["dog", "cat"])

    assert [(box.id, box.numbers[0]) for box in reading.boxes] == [(2, 1), (1, 5)]


@pytest.mark.parametrize("end", ["", "</s>", "\n", " </s>\n"])
def test_a_label_that_may_be_of_either_run_of_locations_is_unreadable(end: str) -> None:
    reply = "The objects <loc_1><loc_2><loc_30><loc_40>cat<loc_5><loc_6><loc_70><loc_80>dog" + end
    with pytest.raises(UnreadableReply):
        read_boxes(reply, format="florence-2", image_size=(1000, 1000), phrases=["dog", "cat"])


def test_of_what_is_echoed_no_label_goes_to_a_box_without_one() -> None:
    reply = (
        "detect cat ; dog\n<loc0001><loc0002><loc0030><loc0040> cat ;"
        " <loc0005><loc0006><loc0070><loc0080>"
    )
    reading = read_boxes(reply, format="paligemma", image_size=(1000, 1000), phrases=["dog", "cat"])
    assert [(box.id, box.numbers[0]) for box in reading.boxes] == [(2, 1)]
    assert reading.unsure == {1: "a box without an id or a label may be its own"}


@pytest.mark.parametrize("label", ["猫", '"猫"', "'猫'"])
def test_a_label_in_brackets_may_be_of_one_character(label: str) -> None:
    other = label.replace("猫", "狗")
    reply = f"[{label}] [100, 200, 300, 400]\n[{other}] [500, 600, 700, 800]"
    reading = read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=["猫", "狗"])
    assert [(box.id, box.bbox[0]) for box in reading.boxes] == [(1, 100), (2, 500)]
