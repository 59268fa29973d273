"""The tokens and tags of model families: one way of writing each, and what breaks it."""

from __future__ import annotations

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes

CAT, DOG = (10, 20, 30, 40), (50, 60, 70, 80)


def read(reply: str, format: str = "xyxy_1000", phrases: list[str] | None = None) -> Reading:
    return read_boxes(reply, format=format, image_size=(1000, 1000), phrases=phrases or ())


def ids_and_boxes(reading: Reading) -> list[tuple[int | None, tuple[float, ...]]]:
    return [(box.id, tuple(round(value) for value in box.bbox)) for box in reading.boxes]


CAT_TOKENS = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>"
DOG_TOKENS = "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(50,60),(70,80)"
# forms.jsonl has the forms with all of their tags.
BOTH = {
    "with its tags": f"{CAT_TOKENS}{DOG_TOKENS}<|box_end|><|im_end|>",
    "without its last token": CAT_TOKENS + DOG_TOKENS,
    "without its tags": "cat(10,20),(30,40)\ndog(50,60),(70,80)",
    "with words between": "<ref>cat</ref><box>(10,20),(30,40)</box> and <ref>dog</ref><box>(50,60),(70,80)</box>",
}


@pytest.mark.parametrize("reply", BOTH.values(), ids=BOTH)
def test_tags_are_read_with_their_labels(reply: str) -> None:
    assert ids_and_boxes(read(reply, phrases=["cat", "dog"])) == [(1, CAT), (2, DOG)]
    assert ids_and_boxes(read(reply, phrases=["dog", "cat"])) == [(2, CAT), (1, DOG)]
    assert ids_and_boxes(read(reply, phrases=["dog"])) == [(1, DOG)]


@pytest.mark.parametrize(
    ("format", "reply", "boxes"),
    [
        ("florence-2", "</s><s>cat<loc_10><loc_20><loc_30><loc_40>dog<loc_50><loc_60><loc_70><loc_80></s><pad>", [(1, (10, 20, 30, 40)), (2, (50, 60, 70, 80))]),
        ("florence-2", "dog<loc_10><loc_20><loc_30><loc_40><loc_50><loc_60><loc_70><loc_80>", [(2, (10, 20, 30, 40)), (2, (50, 60, 70, 80))]),
        ("florence-2", "cat<loc_10><loc_20><loc_30><loc_21><loc_31><loc_41><loc_11><loc_40>", [(1, (10, 20, 32, 42))]),
        ("paligemma", "<loc0512><loc0256><loc1023><loc0768> cat ; <loc0000><loc0000><loc0512><loc0512> dog", [(1, (250, 500, 750, 999)), (2, (0, 0, 500, 500))]),
        ("kosmos-2", "<grounding> An image of<phrase> a cat</phrase><object><patch_index_0044><patch_index_0863></object>.", [(1, (391, 47, 984, 828))]),
        ("doctags", "<doctag><cat><loc_10><loc_20><loc_30><loc_40>x</cat><dog><loc_50><loc_60><loc_70><loc_80></dog></doctag>", [(1, (20, 40, 60, 80)), (2, (100, 120, 140, 160))]),
        ("xyxy_1000", "<loc0512><loc0256><loc1023><loc0768> cat", [(1, (250, 500, 750, 999))]),
    ],
)  # fmt: skip
def test_location_tokens_mean_what_their_family_means(
    format: str, reply: str, boxes: list[tuple[int, tuple[float, ...]]]
) -> None:
    reading = read(reply, format, ["cat", "dog"])
    assert ids_and_boxes(reading) == boxes
    assert reading.count("native_tokens") == (format == "xyxy_1000")


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("<|begin_of_box|>[[10,20,30,40]]<|end_of_box|> or <|begin_of_box|>[[50,60,70,80]]<|end_of_box|>", id="two answers"),
        pytest.param("<ref>cat</ref><ref>dog</ref><box>(10,20),(30,40)</box>", id="two labels before a box"),
        pytest.param("<box>(10,20),(30,40)</box><ref>cat</ref>", id="a label after its box, where none of the family writes so"),
        pytest.param("<ref>cat</ref><box>about (10,20),(30,40)</box>", id="words in a box"),
        pytest.param("<ref>cat</ref><box>(10,20),(30,40),(50,60)</box>", id="three pairs"),
        pytest.param("<loc_10><loc_20><loc_30><loc_40>cat<loc_50><loc_60><loc_70><loc_80>", id="labels before or after"),
        pytest.param("<phrase text='dog'><box>10 20 30 40</box></phrase>", id="an attribute with a name"),
        pytest.param("<zorb>cat</zorb><box>(10,20),(30,40)</box>", id="an unknown tag"),
        pytest.param("<box>[x1, y1, x2, y2]</box>", id="letters"),
        pytest.param("<points>(100, 200), (300, 400)</points>", id="points"),
    ],
)  # fmt: skip
def test_tokens_that_may_be_meant_otherwise_are_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, phrases=["cat"])


def test_a_tag_that_says_none_is_an_absence() -> None:
    reading = read(
        "<ref>cat</ref><box>(10,20),(30,40)</box><ref>dog</ref><box>none</box>",
        phrases=["cat", "dog"],
    )
    assert ids_and_boxes(reading) == [(1, CAT)]
    assert (reading.unread, reading.unsure) == ([], {})


def test_a_tag_that_the_end_cuts_off_is_marked() -> None:
    reading = read(
        "<ref>cat</ref><box>(10,20),(30,40)</box><ref>dog</ref><box>(50,6", phrases=["cat", "dog"]
    )
    assert ids_and_boxes(reading) == [(1, CAT)]
    assert reading.unread == [2]
    with pytest.raises(TruncatedReply):
        read("<ref>cat</ref><box>(10,20),(30", phrases=["cat"])


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        ("xyxy_1000", "<ref>cat</ref><box>(10,20),(30,40)</box><ref>dog</ref;><box>(50,60),(70,80)</box>"),
        ("xyxy_1000", "<ref>cat</ref><box>(10,20),(30,40)</box>dog</ref><box>(50,60),(70,80)</box>"),
        ("xyxy_1000", "<ref>cat</ref><box>(10,20),(30,40)</box><re"),
        ("doctags", "<doctag><cat><loc_1><loc_2><loc_3><loc_4></cat>\n<dog;><loc_5><loc_6><loc_7><loc_8></dog></doctag>"),
        ("doctags", "<doctag><cat><loc_1><loc_2><loc_3><loc_4></cat>\n"),
        ("xyxy_1000", '<p data-bbox="1 2 3 4" data-label="cat"></p><p data-bb'),
        ("xyxy_1000", '<p data-label="cat" data-bbox="1 2 3 4"></p><p data-label="dog" data-bbox="5 6 7 8\'9"></p>'),
        ("xyxy_1000", '<p data-label="cat" data-bbox="1 2 3 4"></p><p data-label="do\'g" data-bbox="5 6 7 8"></p>'),
        ("xyxy_1000", '{"bboxes": [[10, 20, 30, 40], "?"], "labels": ["cat", "dog"]}'),
        ("xyxy_1000", "<ref>cat</ref><box>(10,20),(30,40)</box><ref>dog</ref>"),
        ("xyxy_1000", "<|ref|>cat<|/ref|><|det|>[[10, 20, 30, 40]]<|/det|><|ref|>dog<|/ref|>"),
        ("xyxy_1000", "<ref>cat</ref><box>[[10,20,30,40]]</box><ref></ref><box>[[5,6,700,800]]</box>"),
        ("xyxy_1000", '<p data-label="cat" data-bbox="1 2 3 4"></p><p data-label="dog" data-bbx="5 6 7 8"></p>'),
        ("florence-2", "cat<loc_10><loc_20><loc_300><loc_400>dog<loc_1><loc_2>"),
    ],
)  # fmt: skip
def test_what_is_lost_of_a_reply_never_says_that_a_phrase_is_absent(
    format: str, reply: str
) -> None:
    try:
        reading = read(reply, format, ["cat", "dog"])
    except UnreadableReply:
        return
    assert [box.id for box in reading.boxes] == [1]
    assert 2 in {*reading.unread, *reading.unsure}


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        # the sentence may be about another thing
        ("xyxy_1000", "<ref>cat</ref><box>(640,0),(917,27)</box> The fox is at <box>(10,20),(300,400)</box>."),
        ("xyxy_1000", "<ref>cat</ref><box>(1,2),(30,4),(30,60),(1,60)</box>"),  # a quadrangle
        ("xyxy_1000", "<|object_ref_start|>cat<|object_ref_end|><|box_start|><554><353><856><9,56><|box_end|>"),
        ("florence-2", "cat<loc_10><loc_20><loc_300><loc_400><loc_5><loc_50><loc_60><loc_700><loc_800>"),
        ("florence-2", "cat<loc_117><loc_62><loc_471><loc_999><loc_818><loc_631><loc_99><loc_769>"),
    ],
)  # fmt: skip
def test_a_damaged_reply_never_gives_other_boxes(format: str, reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, format, ["cat"])


def test_an_outline_in_location_tokens_is_never_split_into_boxes() -> None:
    numbers = (279, 379, 282, 379, 290, 372, 293, 372, 298, 368, 301, 368, 306, 364, 310, 362)
    outline = "".join(f"<loc_{number}>" for number in numbers)
    for reply in (
        f"</s><s>{outline}</s>",
        f"cat{outline}",
        f"cat<poly>{outline}</poly>",
        "cat<loc_1><loc_2><loc_9><loc_8><loc_3><loc_4>",
    ):
        with pytest.raises(UnreadableReply, match=r"location tokens|cut off"):
            read(reply, "florence-2", ["cat"])
