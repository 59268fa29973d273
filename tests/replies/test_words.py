"""Words next to an answer, and one sentence instead of one."""

from __future__ import annotations

from itertools import product

import pytest

from dataflow_grounding import read_object
from dataflow_grounding._util.errors import RequestRefused, UnreadableReply
from tests.support.reading import read

ADDRESSED = '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [100, 200, 300, 400]}]}'
ANSWERS = [
    '{"objects": [{"label": "cat", "bbox_2d": [100, 200, 300, 400]}]}',
    '```json\n[{"label": "cat", "bbox_2d": [100, 200, 300, 400]}]\n```',
    "[100, 200, 300, 400]",
    "<ref>cat</ref><box>(100,200),(300,400)</box>",
    "<|begin_of_box|>[[100, 200, 300, 400]]<|end_of_box|>",
]


@pytest.mark.parametrize(
    "words",
    [
        "Here is the bounding box:", "Sure! The cat is at", "The spatial extent of the object is given by",
        "The coordinates of the cat in the image are", "Here are the detections:", "以下是检测结果：", "猫的位置：",
        "Voici les coordonnées:", "Final answer:", "The cat occupies the area", "This is not the cat:", "The dog next to the cat is at",
    ],
)  # fmt: skip
def test_words_next_to_an_answer_are_its_remark(words: str) -> None:
    phrase = "猫" if "猫" in words else "cat"
    for answer in [ADDRESSED, *ANSWERS]:
        reading = read(f"{words} {answer.replace('cat', phrase)}", [phrase])
        assert reading.remark == words
        assert [box.bbox for box in reading.boxes] == [(100, 200, 300, 400)]


TWO = '[{"label": "cat", "bbox_2d": [1, 2, 3, 4]}, {"label": "dog", "bbox_2d": [5, 6, 7, 8]}]'


@pytest.mark.parametrize(
    "words",
    [
        "Here are the boxes of the cat and the dog:", "The cat, the dog:", "Here are the detections:", "cat和dog的位置：",
    ],
)  # fmt: skip
def test_words_before_an_answer_may_name_all_that_has_a_box(words: str) -> None:
    assert [box.id for box in read(f"{words}\n{TWO}", ["the cat", "the dog"]).boxes] == [1, 2]


def test_a_further_fence_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(UnreadableReply, match="breaks off"):
        read("```json\n[1, 2, 3, 4]\n```\n```json\n", ["cat"])


@pytest.mark.parametrize(
    "reply",
    [
        "I found [100, 200, 300, 400] (cat), [500, 500, 600, 600] (dog) and [1, 2, 300, 400] (fox)",
        "cat: [100, 200, 300, 400], dog: [500, 500, 600, 600]",
        "[100, 200, 300, 400] and [500, 500, 600, 600], only the second is a dog",
        "The cat is at [100, 200, 300, 400] and the dog at [500, 500, 600, 600].",
        "| cat | 100 | 200 | 300 | 400 |", "cat: x1=100, y1=200, x2=300, y2=400", "cat,100,200,300,400",
        "- label: cat\n  bbox:\n    - 100\n    - 200\n    - 300\n    - 400",
        "Top left (100, 200), bottom right (300, 400)", '[{"label": "cat", "bbox_2d": [1, 2, 3, 4]}]\nWait, [{"label": "cat", "bbox_2d": [5, 6, 7, 8]}]',
        "```json\n[[1, 2, 3, 4]]\n```\n```json\n[[5, 6, 7, 8]]\n```", "[100, 200, 300, 400] or [500, 500, 600, 600]",
        "The box is [x1, y1, x2, y2].", "There is a cat on the left.", "I'm sorry, I can't help with that.", "cat",
    ],
)  # fmt: skip
def test_prose_and_tables_are_no_form(reply: str) -> None:
    for phrases in (["cat"], ["cat", "dog"], ["dog"]):
        with pytest.raises((UnreadableReply, RequestRefused)):
            read(reply, phrases)


@pytest.mark.parametrize(
    "reply",
    [
        "Sorry, I cannot help with identifying people.",
        "I'm sorry, but I can't assist with that request.",
        "I am unable to comply with this request.",
    ],
)
def test_a_refusal_to_help_at_all_is_not_asked_again(reply: str) -> None:
    """A first day at an endpoint that doesn't name people paid for three of them a record."""
    with pytest.raises(RequestRefused, match="refuses to answer"):
        read(reply, ["cat"])
    with pytest.raises(RequestRefused, match="refuses to answer"):
        read_object(reply, required="caption")


NONE = [
    "none", "None.", "nothing", "N/A", "not found", "No objects detected.", "there are none.", "No object detected.",
    "There is no cat in the image.", "There are no cats in the picture.", "No cat found.", "I don't see a cat in the image.",
    "I cannot see any cat.", "The image does not contain a cat.", "The cat is not visible in the image.", "Cat not found.",
    "Unfortunately, there is no cat.", "Sorry, I don’t see any cat in this photo.", "There isn't any cat here.",
    "None of the objects are present in the image.", "Nothing was found.", "无", "没有找到cat", "图中没有cat", "找不到这个元素", "未检测到目标", "図にありません".replace("図に", "画像に"),
    "catは見つかりませんでした", "이미지에 cat이 없습니다", "Es gibt keine cat im Bild.", "Auf dem Bild ist keine cat zu sehen.",
    "Il n'y a pas de cat dans l'image.", "No hay ningún cat en la imagen.", "Não há cat na imagem.", "Нет cat на изображении.",
]  # fmt: skip


@pytest.mark.parametrize("reply", NONE)
def test_one_short_sentence_may_say_that_nothing_is_there(reply: str) -> None:
    reading = read(reply, ["cat"])
    assert (reading.boxes, reading.unread, reading.unsure) == ([], [], {})


@pytest.mark.parametrize(
    "reply",
    [
        "I could not see the image.", "There is no image.", "No image was provided.", "No bounding boxes were provided.",
        "There is no cat. But a dog is there.", "There is no cat, but a dog.", "There is no doubt that the cat is there.",
        "There is no second cat.", "No cat is missing.", "Nothing is hidden.", "There is no cat on the sofa.",
        "I don't see why the cat would be there.", "The cat is not far away.", "The cat is not fully visible.",
        "Sorry, I can’t find any cat in this photo.", "There is no 2nd cat.", "There is no dog.", 'There is no "dog".', "No problem.", "Not only a cat.",
        "none of these boxes are wrong", "No.", "There is a cat.", "空の画像です", "看不到图片", "没有问题",
        "There is no cat in the left half, and the right half shows a car, a house, a tree and something that may be a cat in the shade.",
    ],
)  # fmt: skip
def test_anything_else_without_a_box_is_refused_and_never_none(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, ["cat"])


def test_a_sentence_about_one_of_several_phrases_says_nothing_of_the_others() -> None:
    one_alone = ["There is no cat in the image.", "No cat, a dog.", "No cat and a dog."]
    for reply in (*one_alone, "It is not in the image.", "No - the cat in the image and the dog"):
        with pytest.raises(UnreadableReply):
            read(reply, ["cat", "dog"])
    assert read("There is no cat or dog in the image.", ["cat", "dog"]).boxes == []
    assert read("There are no such objects in the image.", ["cat", "dog"]).boxes == []


@pytest.mark.slow
def test_boxes_that_nobody_gave_say_nothing_of_the_picture() -> None:
    things = ("bounding box", "boxes", "coordinates", "bbox", "detections", "annotations")
    verbs = ("provided", "given", "available", "returned", "supplied")
    frames = ("No {} {}.", "No {} was {}.", "The {} is not {}.", "No {} {} for cat.", "{} not {}")
    for frame, thing, verb in product(frames, things, verbs):
        sentence = frame.format(thing, verb)
        for reply in (sentence, f'{{"answer": "{sentence}"}}', f"<box>{sentence}</box>"):
            with pytest.raises(UnreadableReply):
                read(reply, ["cat"])
