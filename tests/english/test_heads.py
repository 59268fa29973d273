"""The head of a phrase, as the watch compares boxes of one thing by it."""

from __future__ import annotations

import pytest

from dataflow_grounding.english.heads import head_noun, head_word


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("Two Red Mugs on the shelf", "mug"),
        ("man riding a horse", "man"),
        ("the red building", "building"),
        ("the cat isn't white", "cat"),
        ("chair rather than table", "chair"),
        ("everything but cats", "everything"),
        ("man without a hat", "man"),
        ("missing tooth", "tooth"),
        ("missing", "missing"),
        ("clock missing a hand", "clock"),
        ("no parking sign", "parking"),
        ("non-smoking area", "area"),
        ("non-alcoholic", "not alcoholic"),
        ("red scissors", "scissor"),
        ("reading glasses", "glass"),
        ("bus 17", "bus"),
        ("cat (2)", "cat"),
        ("subway No. 7 train", "train"),
        ("the two", "2"),
        ("the first", "1."),
        ("1st", "1."),
        ("ＣＡＴ", "cat"),
        ("红色的杯子", "子"),
        ("的", ""),
        ("the", ""),
        ("", ""),
    ],
)
def test_head_words(phrase: str, head: str) -> None:
    assert head_word(phrase) == head


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("two cups of tea", "cup"),
        ("red scissors", "scissors"),
        ("the second", "second"),
        ("non-alcoholic", "alcoholic"),
        ("红色的杯子", "红色的杯子"),
        ("?", ""),
    ],
)
def test_head_nouns(phrase: str, head: str) -> None:
    assert head_noun(phrase) == head


def test_of_a_long_phrase_the_beginning_is_read() -> None:
    assert head_word("red " * 300 + "car") == "red"
