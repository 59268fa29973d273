"""Boxes in pixels, each of one phrase: ids, labels, notes, scores and formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import SpecError, UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes
from tests.support.reading import read

CAT, DOG = (10, 20, 30, 40), (50, 60, 70, 80)
ITEM = '{"label": "cat", "bbox": [10, 20, 30, 40]}'


def found(reading: Reading) -> list[tuple[str | None, tuple[float, ...]]]:
    return [(box.label, box.bbox) for box in reading.boxes]


@pytest.mark.parametrize(
    ("reply", "bbox", "code"),
    [
        ("[{'label': 'cat', 'bbox': [30, 40, 10, 20]}]", CAT, "swapped"),
        ("[{'label': 'cat', 'bbox': [-50, 20, 30, 1100]}]", (0, 20, 30, 1000), "clamped"),
        ("[{'label': 'cat', 'bbox': [10, 20, 30, 99999]}]", (10, 20, 30, 999), "clamped"),
        ("[{'label': 'cat', 'bbox': [10, 20, 30, 40]}]", CAT, "repaired_json"),
        (f"[{ITEM}, {ITEM}]", CAT, "merged"),
        ('[{"label": "the cat", "bbox": [10, 20, 30, 40]}]', CAT, "matched_by_label"),
        ('[{"label": "cat", "bbox": [10, 20, 30, 40], "score": 7}]', CAT, "score_ignored"),
        ('[{"label": "cat", "bbox": [10, 20, 30, 40], "score": ""}]', CAT, "score_ignored"),
        (f'[{ITEM}, {{"label": "cow", "bbox": [1, 2, 3, 4]}}]', CAT, "dropped"),
    ],
)
def test_what_is_done_to_a_box_is_noted(reply: str, bbox: tuple[float, ...], code: str) -> None:
    reading = read(reply, phrases=["cat"])

    assert [box.bbox for box in reading.boxes] == [bbox]
    assert reading.count(code) == 1


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.0, 0.4), 0.4), ((None, 0.0), 0.0), ((0.4, 0.0), 0.4), ((0.0, None), 0.0)],
)
def test_of_equal_boxes_the_best_scored_is_kept(
    scores: tuple[float | None, float | None], best: float
) -> None:
    boxes = [{"label": "cat", "bbox": [10, 20, 30, 40], "score": score} for score in scores]
    [box] = read(json.dumps(boxes), phrases=["cat"]).boxes
    assert box.score == best


NAMED = {
    "by id": ({"id": 2}, ["cat", "dog"], 2),
    "by an id in quotes": ({"id": "2"}, ["cat", "dog"], 2),
    "by id, a shorter label": ({"id": 2, "label": "dog"}, ["cat", "a black dog"], 2),
    "by id, a label in another script": ({"id": 2, "label": "狗"}, ["cat", "dog"], 2),
    "case, blanks, full stops": ({"label": " The  DOG. "}, ["cat", "the dog"], 2),
    "another article": ({"label": "a dog"}, ["cat", "the dog"], 2),
    "an underscore": ({"label": "black_cat"}, ["black cat", "dog"], 1),
    "the plural": ({"label": "dogs"}, ["cat", "dog"], 2),
    "the singular": ({"label": "red cup"}, ["the red cups", "cup"], 1),
    "equal goes before the singular": ({"label": "cats"}, ["cat", "cats"], 2),
    "a script without blanks": ({"label": "红杯子"}, ["红杯子", "桌子"], 1),
    "the only phrase": ({}, ["cat"], 1),
    "a shorter label": ({"label": "mug"}, ["red mug", "table"], 1),
    "a shorter label of two phrases": ({"label": "mug"}, ["red mug", "blue mug"], None),
    "a longer label with the same head": ({"label": "old cat"}, ["cat", "dog"], None),
    "a part of the only phrase": ({"label": "sofa"}, ["the cat on the sofa"], None),
    "a longer label": ({"label": "table lamp"}, ["table"], None),
    "a negation": ({"label": "man without a hat"}, ["man with a hat"], None),
    "not the only phrase": ({"label": "dog"}, ["cat"], None),
    "either of two": ({"label": "cat"}, ["a cat", "the cat"], None),
    "another number": ({"label": "bus 17"}, ["bus 42"], None),
    "no word of which": ({}, ["cat", "dog"], None),
}


@pytest.mark.parametrize(("entry", "phrases", "phrase_id"), NAMED.values(), ids=NAMED)
def test_a_box_belongs_to_the_phrase_that_it_names(
    entry: dict[str, Any], phrases: list[str], phrase_id: int | None
) -> None:
    other = [phrase for number, phrase in enumerate(phrases, 1) if number != phrase_id][:1]
    if phrase_id is None and len(phrases) == 1:
        with pytest.raises(UnreadableReply):
            read(json.dumps([{**entry, "bbox_2d": CAT}]), phrases=phrases)
        return
    others = [{"label": text, "bbox_2d": DOG} for text in other]
    reply = json.dumps([{**entry, "bbox_2d": CAT}, *others])
    reading = read(reply, phrases=phrases)
    ids = [box.id for box in reading.boxes if box.bbox == CAT]
    assert ids == ([phrase_id] if phrase_id else [])
    if phrase_id is None:  # a phrase without a box may be that box's
        assert reading.count("dropped") == 1
        answered = {box.id for box in reading.boxes}
        assert set(reading.unsure) == set(range(1, len(phrases) + 1)) - answered


@pytest.mark.parametrize(
    "entries",
    [
        [{"id": 0}, {"id": 1}],
        [{"id": 2}, {"id": 3}, {"id": 4}],
        [{"id": 0, "label": "red car"}, {"id": 1, "label": "bus"}, {"id": 2, "label": "person"}],
        [{"id": 0, "label": "红色汽车"}, {"id": 1, "label": "公交车"}],
        [{"id": 1, "label": "bus"}],
        [{"id": 1, "phrase_id": 2}],
    ],
)
def test_ids_that_may_count_the_boxes_are_refused(entries: list[dict[str, Any]]) -> None:
    objects = [
        {**entry, "bbox_2d": [100 * n, 0, 100 * n + 50, 50]} for n, entry in enumerate(entries)
    ]
    with pytest.raises(UnreadableReply):
        read(json.dumps({"objects": objects}), phrases=["red car", "bus", "person"])


def test_a_box_of_a_thing_that_was_not_asked_for_leaves_the_others_in_doubt() -> None:
    reply = [{"label": "dog", "bbox_2d": DOG}, {"label": "man", "bbox_2d": CAT}]
    reading = read(json.dumps(reply), phrases=["person", "dog"])
    assert [(box.id, box.bbox) for box in reading.boxes] == [(2, DOG)]
    assert list(reading.unsure) == [1]  # which may be the man


@pytest.mark.parametrize(
    ("written", "score"),
    [
        ({"score": 0.5}, 0.5),
        ({"prob": 1}, 1.0),
        ({"confidence": "91%"}, 0.91),
        ({"confidence": "0.25"}, 0.25),
        ({}, None),
        ({"score": None}, None),
        ({"score": 91}, None),
        ({"score": -0.1}, None),
        ({"score": "high"}, None),
        ({"score": True}, None),
    ],
)
def test_a_score_is_a_part_of_one_or_nothing(written: dict[str, Any], score: float | None) -> None:
    assert read(json.dumps([{"label": "cat", "bbox": CAT, **written}])).boxes[0].score == score


def test_statuses_and_evidence_pass_through() -> None:
    reply = {
        "objects": [{"id": 1, "bbox_2d": CAT, "evidence": "seen"}],
        "statuses": [
            {"id": 2, "status": "ambiguous", "reason": "two alike"},
            {"id": 9, "status": "unsupported"},
        ],
    }
    reading = read(json.dumps(reply), phrases=["cat", "dog"])

    assert reading.boxes[0].evidence == "seen"
    assert (reading.statuses, reading.reasons) == ({2: "ambiguous"}, {2: "two alike"})
    alone = read(json.dumps({**reply, "objects": []}), phrases=["cat", "dog"])
    assert (alone.boxes, alone.statuses) == ([], {2: "ambiguous"})


@pytest.mark.parametrize(
    ("name", "bbox"),
    [
        ("gemini", (20, 10, 40, 30)),
        ("xywh_px", (10, 20, 40, 60)),
        ("xyxy_px", (10, 20, 30, 40)),
        ("xyxy_100", (100, 200, 300, 400)),
    ],
)
def test_the_format_and_not_the_key_settles_what_the_numbers_mean(
    name: str, bbox: tuple[float, ...]
) -> None:
    for key in ("bbox_2d", "box_2d", "box"):
        assert read(json.dumps([{key: [10, 20, 30, 40]}]), format=name).boxes[0].bbox == bbox


def test_named_corners_keep_their_meaning_whatever_the_order_of_the_format() -> None:
    reply = '{"label": "cat", "x_min": 10, "y_min": 20, "x_max": 30, "y_max": 40}'

    assert found(read(reply, format="gemini")) == [("cat", CAT)]


def test_a_message_without_text_says_nothing() -> None:
    with pytest.raises(UnreadableReply, match="the reply is empty"):
        read_boxes(None, format="xyxy_1000", image_size=(640, 480))


def test_a_size_from_json_is_taken_and_an_impossible_one_is_not_blamed_on_the_reply() -> None:
    reply = "[100, 200, 500, 800]"
    listed: Any = [640, 480]
    reading = read_boxes(reply, format="xyxy_1000", image_size=listed, sent_size=listed)
    assert [box.bbox for box in reading.boxes] == [(64.0, 96.0, 320.0, 384.0)]
    for wrong in ((0, 480), (float("nan"), 480), (640, float("inf")), (640,), ("640", "480"), 640):
        size: Any = wrong
        with pytest.raises(SpecError, match="image_size should be width and height"):
            read_boxes(reply, format="xyxy_1000", image_size=size)
    with pytest.raises(SpecError, match="sent_size should be"):
        read_boxes(reply, format="xyxy_px", image_size=(640, 480), sent_size=(0, 0))
    no_format: Any = None
    with pytest.raises(SpecError, match="unknown box_format"):
        read_boxes(reply, format=no_format, image_size=(640, 480))


PUBLISHED = {
    # roboflow/inference#2930: the bracket was in the prompt
    '{"bbox_2d": [1, 2, 3, 4], "label": "cup"}, {"bbox_2d": [5, 6, 7, 8], "label": "mug"}]': 2,
    '{"bbox_2d": [1, 2, 3, 4], "label": "cup"} and then {"bbox_2d": [5, 6, 7, 8], "label": "mug"}': 2,
    # google-gemini/cookbook#798: a quotation mark is lost
    '[{"box_2d": [1, 2, 3, 4], "mask": <start_of_mask><seg_35><seg_4>", "label": "cup"}]': 1,
    # CogVLM writes a box on each side of a semicolon
    "[[001,002,003,004;005,006,007,008]]": 2,
    # a loop of dashes after the first box
    '[{"bbox_2d": [1, 2, 3, 4], "label": "cup"}, {"bbox_2d": [5, 6, - ----2-----': 1,
}


@pytest.mark.parametrize("reply", PUBLISHED)
def test_published_slips_are_read(reply: str) -> None:
    phrases = ["cup"] if reply.startswith("[[") else ["cup", "mug"]
    found = read_boxes(reply, format="xyxy_px", image_size=(10, 10), phrases=phrases).boxes
    wanted = [(1, 2, 3, 4), (5, 6, 7, 8)][: PUBLISHED[reply]]
    assert [box.bbox for box in found] == wanted


@pytest.mark.parametrize(
    "reply",
    [
        "[]\nI could not see the image.",
        "none. The image seems to be missing.",
        "```json\n[]\n```\nEverything looks fine to me otherwise.",
        "[]\nLet me know if you need anything else!",
        "<answer>[]</answer>\nLet me know if you need anything else!",
        "I cannot view images. <answer>[]</answer>",
        "The cat is at [1, 2, 30, 40]. <answer>[]</answer>",
        "[] // the file is corrupted",
        "[]\nThe picture shows nothing but black.",
        "[]\nThe image shows a cup.",
        "[]\nI see a blank frame.",
        "I only see a bicycle.\n[]",
    ],
)
def test_nothing_is_there_only_where_nothing_more_is_said(reply: str) -> None:
    """sgl-project/sglang#6583, vllm#20261: pictures that were lost under load."""
    with pytest.raises(UnreadableReply):
        read_boxes(reply, format="xyxy_1000", image_size=(10, 10), phrases=["cup"])


@pytest.mark.parametrize(
    "reply",
    [
        "[]\nNothing is missing.",  # of a picture whose boxes are drawn in
        "[]\nAll phrases are already boxed.",
        "No additional objects found.",
        "[]\nNeither the cup nor a fork appears in the picture.",
        "None of the phrases match anything in the picture.\n[]",
        "Neither a cup nor a fork is visible in this image.",
        "[]\nThere is no cup and no fork in the image.",
        "[]\nThere is no cup. There is no fork.",
        "Here is the answer:\n```json\n[]\n```",
        '{"objects": [], "explanation": "The picture shows a bicycle."}',
    ],
)
def test_words_that_say_the_same_may_be_next_to_nothing(reply: str) -> None:
    """What `[]` says is no other answer, and a line that ends with a colon only introduces it."""
    reading = read_boxes(
        reply, format="xyxy_1000", image_size=(10, 10), phrases=["the cup", "a fork"]
    )
    assert (reading.boxes, reading.unsure) == ([], {})
    assert bool(reading.remark) is (reply[-1] in "]}`" or reply.startswith("[]"))
