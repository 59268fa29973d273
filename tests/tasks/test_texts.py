"""What is no text never becomes data, whichever task it answers; what looks like it stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.images.image import Image
from dataflow_grounding.tasks import (
    Merged,
    Request,
    double_check,
    expression_extraction,
    grounding_expression,
    image_caption,
    negative_phrases,
    region_caption,
    region_expression,
)

PIXELS = find_box_format("xyxy_px", "")
REGIONS = [Region((10, 20, 110, 220))]

# cbh123/narrator issues 17, 27, 35; MMMU-Benchmark/MMMU issue 19; sgl-project/sglang issue 6583;
# BAAI-DCAI/Visual-Instruction-Tuning issue 5, where such texts were published as captions.
REFUSALS = [
    "I'm sorry, but I'm not able to provide visual descriptions of images with real people.",
    "As I am not allowed to provide descriptions, I can't assist with your request.",
    "I'm sorry, but I can't provide descriptions for images with people in them.",
    "I’m sorry, but I’m unable to view images",
    "I'm sorry, but I don't see any image in our conversation. Please upload it.",
    "It seems like your message is empty. How can I assist you today?",
    "I cannot identify this object",
    "Sorry, I can't see it.",
    "As an AI language model, I have no eyes.",
    "Unable to identify the object",
    "I was not able to open it.",
    "No image was provided.",
    "The image could not be loaded",
    "Please upload an image",
    "Error: timeout",
    "抱歉，我无法查看图片。",
    "Es tut mir leid, ich sehe kein Bild.",
    "Lo siento, no puedo ver la imagen",
]
PLACEHOLDERS = [
    "N/A", "None", "…", "?", "string", "unknown", "<caption>", "[object]", "[your text here]",
    "same as above", "no object visible in this region", '{"text": "A dog"}', "region 1",
]  # fmt: skip
TEXTS = [
    # words of a refusal on a sign, in a name, or after a text
    "A sign that says 'I'm sorry'",
    '"I\'m sorry" written on a card',
    "I'm sorry card with flowers",
    "Sorry, we're closed sign on a glass door",
    "Sorry! board game box on a table",
    "I Can't Believe It's Not Butter tub",
    "A man at a desk. I'm not able to identify him.",
    "A card that reads No image available",
    "Please do not touch sign",
    "Error message on a computer screen",
    "As AI-generated art of a cat",
    # words for none, placeholders and brackets
    "a none-too-clean cup",
    "two boxes of unknown brand",
    "Nothing on the plate",
    "No one is on the beach.",
    "no parking sign",
    "a string of lights",
    "the delete key",
    "[a red car]",
    "a map of region 2",
    "42",
    "没有帽子的男人",
]
PHRASES = [
    "the man with no hat",
    "a no entry sign visible",
    "the expression on the man's face",
    "the black car (not moving)",
    "a box marked [2, 4]",
    "the key with ->",
    "图中没有戴帽子的男人",
]
DENIALS = [
    "There is no blue car in this region.",
    "no blue car visible",
    "图中没有蓝色汽车",
    "the car at [500, 100, 800, 400]",
    "The expression should be 'the white van'",
    "the expression is correct",
    "remove this expression",
    "the blue car -> the white van",
    "the black car (was: the blue car)",
    "Corrected: the black car",
]


@pytest.fixture(scope="module")
def asked(image: Image) -> dict[str, Request[Any]]:
    return {
        "image_caption": image_caption(image),
        "region_caption": region_caption(image, [Instance(REGIONS[0].bbox)]),
        "region_expression": region_expression(image, REGIONS),
        "grounding_expression": grounding_expression(image, None, REGIONS),
        "double_check": double_check(image, [Merged("the blue car", [0])], REGIONS),
        "expression_extraction": expression_extraction(image, "a dog"),
        "negative_phrases": negative_phrases(image, ["a dog"], 1),
    }


def reply(task: str, text: str) -> str:
    item: dict[str, Any] = {"id": 1, "text": text}
    answers: dict[str, Any] = {
        "image_caption": {"caption": text},
        "region_caption": {"captions": [item]},
        "region_expression": {"regions": [{"id": 1, "description": text}]},
        "grounding_expression": {"expressions": [{"text": text, "region_ids": [1]}]},
        "double_check": {"checks": [{**item, "matches": False, "region_ids": [1]}]},
        "expression_extraction": {"expressions": [item]},
        "negative_phrases": {"negatives": [{**item, "change": "noun"}]},
    }
    return json.dumps(answers[task])


CAPTIONS = ["image_caption", "region_caption"]
OF_PHRASES = ["region_expression", "grounding_expression", "negative_phrases"]


Asked = dict[str, Request[Any]]


@pytest.mark.parametrize("text", REFUSALS + PLACEHOLDERS)
def test_what_is_no_text_is_asked_for_again(asked: Asked, text: str) -> None:
    for task in (*CAPTIONS, *OF_PHRASES, "expression_extraction"):
        with pytest.raises(UnreadableReply):
            asked[task].read(reply(task, text))


@pytest.mark.parametrize("text", DENIALS)
def test_what_names_nothing_is_asked_for_again(asked: Asked, text: str) -> None:
    for task in OF_PHRASES:
        with pytest.raises(UnreadableReply):
            asked[task].read(reply(task, text))


@pytest.mark.parametrize("text", [*REFUSALS, *PLACEHOLDERS, *DENIALS, "no blue car"])
def test_what_names_nothing_mends_no_expression(asked: Asked, text: str) -> None:
    [check], _ = asked["double_check"].read(reply("double_check", text))
    assert (check.matches, check.text) == (False, "")


def texts_in(answer: Any) -> list[str]:
    """The texts of any task's answer."""
    if isinstance(answer, str):
        return [answer]
    if hasattr(answer, "texts"):
        return list(answer.texts)
    items = getattr(answer, "expressions", answer)
    return [item.description if hasattr(item, "description") else item.text for item in items]


def texts_read(asked: Asked, text: str, *tasks: str) -> set[tuple[str, ...]]:
    return {tuple(texts_in(asked[task].read(reply(task, text))[0])) for task in tasks}


@pytest.mark.parametrize("text", TEXTS)
def test_what_looks_like_it_and_is_a_text_stays(asked: Asked, text: str) -> None:
    assert texts_read(asked, text, *asked) == {(text,)}


@pytest.mark.parametrize("text", PHRASES)
def test_what_looks_like_it_and_is_a_phrase_stays(asked: Asked, text: str) -> None:
    assert texts_read(asked, text, *OF_PHRASES, "double_check") == {(text,)}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("**the red car** on the left", "the red car on the left"),
        ("1. **the red car** (region 2)", "the red car"),
        ("- The bus [regions 1, 2]", "The bus"),
        ("1. FC Köln scarf", "1. FC Köln scarf"),
        ("2. person from the left", "2. person from the left"),
        ("a shirt that says 2 ** 3 ** 4", "a shirt that says 2 ** 3 ** 4"),
        ("the shop (region of Alsace)", "the shop (region of Alsace)"),
    ],
)
def test_markup_and_ids_are_no_part_of_a_text(asked: Asked, text: str, plain: str) -> None:
    assert texts_read(asked, text, *CAPTIONS, *OF_PHRASES, "double_check") == {(plain,)}


def test_a_color_and_a_type_that_are_none_are_empty_and_several_colors_one_text(
    asked: Asked,
) -> None:
    item: dict[str, Any] = {"id": 1, "type": "unknown", "color": "N/A", "description": "a car"}
    [described], _ = asked["region_expression"].read(json.dumps({"regions": [item]}))
    assert described == ("", "", "a car")
    item["color"] = ["red", "white", ""]
    [described], _ = asked["region_expression"].read(json.dumps({"regions": [item]}))
    assert described.color == "red and white"


def test_a_noun_chunk_that_is_none_is_none(asked: Asked) -> None:
    answer = {"expressions": [{"text": "a dog", "noun_chunk": "N/A"}]}
    extracted, _ = asked["expression_extraction"].read(json.dumps(answer))
    assert extracted.expressions == [("a dog", None)]


def test_a_text_may_come_as_a_caption(asked: Asked) -> None:
    reply = json.dumps({"captions": [{"region_id": 1, "caption": "A dog."}]})
    assert asked["region_caption"].read(reply)[0].texts == ["A dog."]


def test_a_refusal_in_the_models_own_words_is_no_caption(asked: Asked) -> None:
    request = asked["region_caption"]
    assert request.read("<region1> is a dog.")[0].texts == ["<region1> is a dog."]
    for said in ("<region1>: I'm sorry, I can't describe it.", "<region1> I cannot identify it."):
        with pytest.raises(UnreadableReply):
            request.read(said)
