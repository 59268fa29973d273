"""What was read once as another answer than it is, or as none."""

from __future__ import annotations

import json

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from tests.support.reading import read

ONE = '[{"label": "cat", "bbox_2d": [100, 200, 300, 400]}]'
OTHER = '[{"label": "cat", "bbox_2d": [500, 200, 700, 400]}]'
ADDRESSED = '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [100, 200, 300, 400]}]}'


@pytest.mark.parametrize(
    ("reply", "phrase"),
    [
        ("I'm sorry, but I can't identify the man.", "the man"), ("Sorry, I cannot see the man.", "the man"),
        ("I can't identify the man in this image.", "the man"), ("No man could be identified.", "man"),
        ("I can't see the photo.", "the photo"), ("The image is not visible.", "the image"), ("No screenshot found.", "screenshot"),
        ("没有图片", "图片"), ("图中没有图片", "图片"), ("Ich sehe kein Bild", "Bild"), ("이미지는 없습니다", "이미지"),
        ("NO SMOKING", "smoking"), ("NO PARKING.", "parking"),
    ],
)  # fmt: skip
def test_a_refusal_or_a_sign_is_never_none(reply: str, phrase: str) -> None:
    for text in (reply, json.dumps({phrase: reply}), f"<answer>{reply}</answer>"):
        with pytest.raises(UnreadableReply):
            read(text, [phrase])


@pytest.mark.parametrize(
    "reply",
    ["no smoking", "NO OBJECTS", "NOT FOUND", "NO SMOKING FOUND", "I can't see any smoking.", "Unfortunately, I can't find smoking."],
)  # fmt: skip
def test_none_stays_none(reply: str) -> None:
    assert read(reply, ["smoking"]).boxes == []


TWO_ANSWERS = {
    "two lists in a row": f"{ONE}\n{OTHER}",
    "two lists with a comma": f"{ONE}, {OTHER}",
    "two objects in a row": f'{{"objects": {ONE}}}\n{{"objects": {OTHER}}}',
    "an object and a list": f'{{"objects": {ONE}}}\n{OTHER}',
    "two lists of boxes": "[[100, 200, 300, 400]]\n[[500, 200, 700, 400]]",
    "two lists in answer tags": f"<answer>{ONE}\n{OTHER}</answer>",
    "a list before answer tags": f"{OTHER}<answer>{ONE}</answer>",
    "a list and tokens": f"{ADDRESSED}\n<box>(500,200),(700,400)</box>",
    "null, then a list": f"null\n{ONE}",
    "null, then a fence": f"null\n```json\n{ADDRESSED}\n```",
    "null, then a list in tags": f"<answer>null\n{ONE}</answer>",
    "null before tags": f"null<answer>{ONE}</answer>",
    "an object with null, then a list": f'{{"objects": null}}\n{ONE}',
    "a list, then null": f"{ADDRESSED}\nnull",
    "an empty list, then a list": f"[]\n{ONE}",
    "an empty list, then an addressed answer": f"[] {ADDRESSED}",
    "an empty list before a fence": f"[]\n```json\n{ADDRESSED}\n```",
    "an addressed answer, then an empty list": f"{ADDRESSED}\n[]",
    "an empty object of objects, then another": f'{{"objects": []}}\n{{"objects": {ONE}}}',
    "an empty list, then a box": "[]\n[100, 200, 300, 400]",
    "an empty list, then a word": "[] okay",
    "an empty list and a list, with words": f"Here:\n```json\n[]\n{ONE}\n```",
}


@pytest.mark.parametrize("reply", TWO_ANSWERS.values(), ids=TWO_ANSWERS)
def test_of_two_answers_that_differ_none_is_taken(reply: str) -> None:
    for phrases in (["cat"], ["cat", "dog"]):
        with pytest.raises(UnreadableReply):
            read(reply, phrases)


@pytest.mark.parametrize(
    ("reply", "boxes"),
    [
        (f"{ONE}\n{ONE}", 1),
        ('{"label": "cat", "bbox": [1, 2, 30, 40]}\n{"label": "cat", "bbox": [5, 6, 70, 80]}', 2),
        ("[1, 2, 30, 40]\n[5, 6, 70, 80]", 2),
    ],
)
def test_an_answer_twice_is_one_and_items_in_a_row_are_one_list(reply: str, boxes: int) -> None:
    assert len(read(reply, ["cat"]).boxes) == boxes


@pytest.mark.parametrize(
    ("boxes", "is_runaway"),
    [
        ([[10 + 20 * i, 10, 25 + 20 * i, 40] for i in range(40)], True),
        ([[10, 10 + 10 * i, 40, 19 + 10 * i] for i in range(90)], True),
        ([[10 + 90 * (i % 10), 10 + 100 * (i // 10), 80 + 90 * (i % 10), 90 + 100 * (i // 10)] for i in range(90)], True),
        ([[10 + 12 * i + i // 2, 10, 20 + 12 * i + i // 2, 40] for i in range(70)], True),
        ([[10 + 20 * i, 10, 25 + 20 * i, 40] for i in range(12)], False),
        ([[10 + 37 * i * i % 900, 10 + 61 * i * i % 800, 80 + 37 * i * i % 900, 90 + 61 * i * i % 800] for i in range(60)], False),
    ],
    ids=["40 in a row", "90 in a column", "rows of ten", "rounded steps", "12 in a row", "60 here and there"],
)  # fmt: skip
def test_many_boxes_in_equal_steps_are_doubtful(boxes: list[list[int]], is_runaway: bool) -> None:
    reading = read(json.dumps([{"label": "cat", "bbox_2d": box} for box in boxes]), ["cat", "dog"])
    assert len(reading.boxes) == len(boxes)
    assert (reading.doubtful, bool(reading.count("runaway"))) == (is_runaway, is_runaway)


def test_a_letter_at_the_end_of_a_phrase_is_no_article() -> None:
    def ids_of(label: str, phrases: list[str]) -> list[int | None]:
        reply = ONE.replace("cat", label)
        try:
            return [box.id for box in read(reply, phrases).boxes]
        except UnreadableReply:
            return []

    assert ids_of("plan", ["plan A", "plan B"]) == []
    assert ids_of("plan a", ["plan A", "plan B"]) == [1]
    assert ids_of("the cat", ["a cat"]) == [1]
    assert ids_of("man in hat", ["a man in a hat"]) == [1]
