"""Words around a box: they say what it is the box of, and may take it back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes

A, B = "[100, 200, 300, 400]", "[500, 500, 600, 600]"
JSON_A = f'[{{"label": "red car", "bbox_2d": {A}}}]'
BOX_A, BOX_B = (1, (100, 200, 300, 400)), (1, (500, 500, 600, 600))


def read(reply: str, phrases: Sequence[str] = ("red car",)) -> Reading:
    return read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=phrases)


def found(
    reply: str, phrases: Sequence[str] = ("red car",)
) -> list[tuple[int | None, tuple[float, ...]]] | None:
    try:
        return [(box.id, box.bbox) for box in read(reply, phrases).boxes]
    except UnreadableReply:
        return None


@pytest.mark.parametrize(
    "words",
    [
        "I'm unable to process images, so here's a hypothetical output:",
        "As an AI language model I cannot see the image. Here it is:",
        "Since I cannot see the image, I will guess:",
        "I cannot view images, but a typical answer would be:",
        "作为AI，我无法查看图片：",
        "There is no red car in the image, but I was asked to give a box, so:",
        "No red car is visible. Placeholder:",
        "Here is an example of the format:",
        "For example:",
        "There is no car. The nearest thing:",
        "图中没有红色汽车，最接近的是：",
    ],
)
def test_words_before_a_box_that_deny_it_make_it_unreadable(words: str) -> None:
    for answer in (
        JSON_A,
        f"```json\n{JSON_A}\n```",
        f"red car: {A}",
        "<ref>red car</ref><box>(100,200),(300,400)</box>",
    ):
        if "example" in words and "<ref>" in answer:
            # what stands in the tokens that a model was trained to answer with is its answer
            continue
        assert found(f"{words}\n{answer}") is None


@pytest.mark.parametrize(
    "words",
    [
        "Note: there is no red car in the image; this is the closest match.",
        "注意：图中没有红色汽车，这是最接近的物体。",
        "This is wrong.",
        "Note: this is actually a bus, not a red car.",
        "Please ignore this box; there is a bus.",
        "The box is incorrect.",
        "Hmm, but this box might be the bus, so please disregard it.",
        "Note: the box is only a guess because no red car is visible.",
        "It isn't a red car.",
        "(this is actually a blue van, so no)",
        "请忽略这个框。",
    ],
)
def test_words_behind_a_box_that_deny_it_make_it_unreadable(words: str) -> None:
    for answer in (
        JSON_A,
        f"```json\n{JSON_A}\n```",
        f"red car: {A}",
        "<ref>red car</ref><box>(100,200),(300,400)</box>",
    ):
        assert found(f"{answer}\n{words}") is None


@pytest.mark.parametrize(
    "words",
    [
        "No other red cars are visible.",
        "The red car is not fully visible.",
        "There is no bus in the image.",
        "It is not far from the tree.",
        "Note: the blue car was not included.",
        "There is no blue car.",
        "Let me know if you need anything else!",
        "I don't see any dogs.",
    ],
)
def test_words_that_deny_another_thing_change_nothing(words: str) -> None:
    for answer in (JSON_A, f"```json\n{JSON_A}\n```", f"red car: {A}"):
        assert found(f"{words}\n{answer}") == found(f"{answer}\n{words}") == [BOX_A]


@pytest.mark.parametrize(
    "reply",
    [
        "The bus is at {A}.",
        "There is no red car in the image. The bus is at {A}.",
        "I see a bus at {A}, but no red car.",
        "I could not find a red car. However, here is a blue car: {A}",
        "The blue car is at {A}.",
        "red car: none. The bus is at {A}.",
        'However, here is a blue car:\n```json\n{{"bbox_2d": {A}}}\n```',
        "A man in front of the red car is at {A}.",
        "<p>bus</p> {A}",
        "画像に赤い車はありません。バスは{A}にあります。",
        "The person {A} is standing where a red car would be.",
        "I see a bus. It is located at {A}.",
        "{A} is the bus.",
        "Es gibt kein rotes Auto, aber einen Bus bei {A}.",
        "El autobús está en {A}.",
        "Le bus se trouve à {A}.",
        "The bus is at 100, 200, 300, 400",
        "No red car found. Bus: {A}",
        "图中没有红色汽车，但有一辆公交车：{A}",
        "红色汽车：{A}\n蓝色汽车：{B}",
    ],
)
def test_a_box_of_another_thing_is_not_the_phrase_s(reply: str) -> None:
    assert found(reply.format(A=A, B=B)) is None


@pytest.mark.parametrize(
    "reply",
    [
        "{A}",
        "Here is the box: {A}",
        "It is located at {A}.",
        "The red car is at {A}.",
        "The answer is: {A}. (The blue car at {B} does not match.)",
        "The red car at {A} is to the left of the bus at {B}.",
        "Relative to the bus {B}, the red car is at {A}.",
        "So the red car must be {A}.",
        "{A}\n\nNote: the blue car at {B} was not included.",
        "The whole image is {B}. The red car is at {A}.",
        "{A} is the red car.",
        "Looking at the picture, the bus is at {B}. So the red car must be {A}.",
        "Sure! I have located the red car. Its bounding box is {A}.",
        "The red car, which is on the left side of the street, is at {A}.",
        'I analyzed the image and here is the JSON:\n[{{"bbox": {A}}}]',
        "The top-left corner of the red car is at (100, 200) and the bottom-right corner is at (300, 400).",
        "The red car is at 100, 200, 300, 400",
        "I can see a red car parked on the street. Its bounding box coordinates are {A}.",
        "Red car's bounding box: {A}",
        "The car is at {A}",
        "Here is the red car highlighted with a bounding box {A}.",
        "I can't be 100% certain, but the red car is at {A}.",
        "Yes, there is a red car: {A}",
        "The red car isn't fully visible, but its box is {A}.",
        'The phrase "red car" refers to the vehicle at {A}.',
        "The image shows a red car at {A}.",
        "Based on the image provided, the red car can be found at {A}.",
        'I\'ve detected the following objects:\n```json\n[{{"bbox": {A}}}]\n```',
        "{A}\nI hope this helps! Let me know if the box is not accurate enough.",
        "[x_min, y_min, x_max, y_max] of the red car: {A}",
        "The red car appears at {A} and is partially occluded by a tree, so it is not fully visible.",
        "The box, normalized to 0-1000, is {A}.",
        "cats: {B}, the red car: {A}",
        "红色汽车的边界框是{A}。",
    ],
)
def test_a_box_in_prose_is_the_phrase_s_where_its_sentence_names_it_or_nothing(reply: str) -> None:
    assert found(reply.format(A=A, B=B)) == [BOX_A]


@pytest.mark.parametrize("words", ["It is at", "It is visible at", "They are located at"])
def test_a_box_in_a_sentence_with_a_pronoun_is_that_of_the_thing_named_before(words: str) -> None:
    reply = f"There is a cat. {words} {A}."
    assert found(reply, ("dog", "cat")) == [(2, (100, 200, 300, 400))]


def test_each_box_in_prose_goes_to_the_phrase_that_its_words_name() -> None:
    reply = f"The bus is at {B} and the red car is at {A}."

    assert sorted(found(reply, ["red car", "bus"]) or []) == [BOX_A, (2, BOX_B[1])]
    assert found(f"图中红色汽车位于{A}。", ["红色汽车", "公交车"]) == [BOX_A]


def test_a_name_in_other_letters_is_taken_for_the_only_phrase_and_looked_at_twice() -> None:
    for name in ("Красная машина", "빨간 차", "红色汽车"):
        reading = read(f"{name}: {A}")
        assert [(box.id, box.bbox) for box in reading.boxes] == [BOX_A]
        assert reading.count("unlike_label") == 1
        assert reading.doubtful
        assert found(f"{name}: {A}", ["red car", "bus"]) is None
