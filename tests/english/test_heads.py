"""The noun that a phrase names: figures, exports, reviews and the watch go by it."""

from __future__ import annotations

import pytest

from dataflow_grounding.english.heads import head_of
from dataflow_grounding.english.nouns import plural, singular


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("the two red mugs on the left", "mug"),
        ("a cup of tea", "cup"),
        ("A man wearing a hat", "man"),
        ("man without a hat", "man"),
        ("a man dressed in blue", "man"),
        ("a red building", "building"),
        ("the damaged box on the bottom shelf", "box"),
        ("the dog that is not wearing a collar", "dog"),
        ("the cat isn't white", "cat"),
        ("a big, red ball", "ball"),
        ("a young smiling woman", "woman"),
        ("a man running", "man"),
        ("tall lightning towers", "tower"),
        ("traffic light", "light"),
        ("a lot of cars", "car"),
        ("red scissors", "scissors"),
        ("bus 17", "bus"),
        ("cat (2)", "cat"),
        ("ＣＡＴ", "cat"),
        ("the second", "second"),
        ("红色的杯子", "红色的杯子"),
        ("?", ""),
        ("the", ""),
        ("", ""),
    ],
)
def test_heads(phrase: str, head: str) -> None:
    assert head_of(phrase) == head


def test_of_a_long_phrase_the_beginning_is_read() -> None:
    assert head_of("red " * 300 + "car") == "red"


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("person", "people"),
        ("bookshelf", "bookshelves"),
        ("roof", "roofs"),
        ("bus", "buses"),
        ("cherry", "cherries"),
        ("sheep", "sheep"),
        ("scissors", "scissors"),
        ("series", "series"),
    ],
)
def test_singular_and_plural(one: str, several: str) -> None:
    assert (singular(several), plural(one)) == (one, several)
