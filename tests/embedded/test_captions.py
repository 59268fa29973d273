"""Reading expressions out of captions."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding.embedded.captions import extract_expressions


def texts(caption: str) -> list[str]:
    return [expression["text"] for expression in extract_expressions(caption)["expressions"]]


CAPTIONS = {
    "an article begins a phrase": ("A cat sleeps.", ["A cat"]),
    "a verb ends it": ("Two dogs run along the beach.", ["Two dogs", "the beach"]),
    "an unknown verb ends it too": ("A raccoon zorps its paw.", ["A raccoon", "its paw"]),
    "nouns join": ("A baseball player swings.", ["A baseball player"]),
    "position words belong to it": ("the red car on the left", ["the red car on the left"]),
    "a corner of the picture belongs to it": (
        "a big, red ball in the top left corner of the picture",
        ["a big, red ball in the top left corner of the picture"],
    ),
    "a place in something else does not": ("The vase in the middle of the room.", ["The vase", "the room"]),
    "a cup of something is one thing": ("A cup of espresso on a red saucer.", ["A cup of espresso", "a red saucer"]),
    "two colours are one description": ("A black and white cat.", ["A black and white cat"]),
    "a list has one phrase each": ("a bowl, a spoon and a fork", ["a bowl", "a spoon", "a fork"]),
    "plurals need no article": ("A cat with long white whiskers.", ["A cat", "long white whiskers"]),
    "a participle describes": ("A smiling woman waves.", ["A smiling woman"]),
    "places and views are no things": ("In the background, a view of a city.", ["a city"]),
    "whose it is belongs to it": ("The boy's red backpack hangs there.", ["The boy's red backpack"]),
    "what is not there is left out": ("There are no dogs here.", []),
    "repeated phrases come twice": ("A cat looks at a cat.", ["A cat", "a cat"]),
    "German is not read": ("Ein Mann in einem roten Hemd steht auf der Straße.", []),
    "Spanish is not read": ("Voy a la playa con un perro", []),
    "Dutch is not read": ("De hond loopt in de park met een man", []),
    "Chinese is not read": ("一只猫坐在沙发上", []),
    "nothing is in nothing": ("", []),
    "of what is not said": ("A man with a cup of, and a bowl of the", ["A man", "a cup", "a bowl"]),
}  # fmt: skip


@pytest.mark.parametrize(("caption", "expected"), CAPTIONS.values(), ids=CAPTIONS.keys())
def test_phrases_of_a_caption(caption: str, expected: list[str]) -> None:
    assert texts(caption) == expected


CHUNKS = {
    "no article": ("the red car", "red car"),
    "no position": ("the red car on the left", "red car"),
    "no number": ("two green triangles", "green triangles"),
    "all of a cup of tea": ("a cup of tea", "cup of tea"),
}


@pytest.mark.parametrize(("text", "chunk"), CHUNKS.values(), ids=CHUNKS.keys())
def test_noun_chunk_leaves_out(text: str, chunk: str) -> None:
    [expression] = extract_expressions(text)["expressions"]
    assert (expression["text"], expression["noun_chunk"]) == (text, chunk)


WORDS = st.sampled_from(
    [
        *("a", "the", "two", "red", "car", "cars", "on", "left", "of", "in", "and"),
        *(",", ".", "'", "-", "café", "man's", "is"),
    ]
)
HOSTILE = st.one_of(st.text(max_size=300), st.lists(WORDS, max_size=60).map(" ".join))


@pytest.mark.slow
@given(HOSTILE)
def test_any_text_gives_parts_of_itself_in_order(caption: str) -> None:
    read = extract_expressions(caption)
    cleaned = read["cleaned_caption"]
    assert cleaned == " ".join(unicodedata.normalize("NFC", caption).split())
    at = 0
    for expression in read["expressions"]:
        found = cleaned.find(expression["text"], at)
        assert found >= 0
        assert expression["text"].strip()
        assert expression["noun_chunk"] in expression["text"]
        at = found + len(expression["text"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["a red ", "on the left of ", "\x00", "🐈", "aaaa", "the cup of the cup of "]
)
def test_a_megabyte_is_read_in_bounded_time(unit: str) -> None:
    caption = unit * (1_000_000 // len(unit))
    assert len(extract_expressions(caption)["expressions"]) < 10_000


@pytest.mark.slow
def test_reading_captions_needs_no_opencv() -> None:
    import subprocess
    import sys

    code = (
        "import sys, dataflow_grounding.embedded.captions as c; c.extract_expressions('a cat');"
        "print([m for m in ('cv2', 'numpy', 'PIL.Image') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
