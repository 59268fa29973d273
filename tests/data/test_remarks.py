"""What replies say next to their answers: which remarks are one, which are usual and which are rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dataflow_grounding.data import remarks as module
from dataflow_grounding.data.remarks import Remarks, joined_remarks, remarks_of

PHRASES = ("a red cup", "the dog", "two bikes")


def said(remark: Any, phrases: Sequence[str] = PHRASES) -> dict[str, Any]:
    rows = [{"text": phrase, "status": "none"} for phrase in phrases]
    return {"remark": remark, "expressions": rows}


def counted(*remarks: Any) -> Remarks:
    counts = Remarks()
    for remark in remarks:
        counts.add(said(remark))
    return counts


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("I found 2 objects.", "I found 16 object!"),
        ("Here is the dog.", "Here is a red cup"),
        ("Here are the dog, a red cup and two bikes:", "here are dogs:"),
        ('"reason": "It is red."', '"reason": "It is blue."'),
        ('"note": null', '"Note": [1, 2]'),
    ],
)
def test_numbers_phrases_case_and_the_text_of_a_key_tell_no_remarks_apart(
    first: str, second: str
) -> None:
    assert remarks_of(said(first)).keys() == remarks_of(said(second)).keys()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Here is the dog.", "Here was the dog."),
        ('"visible": true', '"visible": false'),
        ('"reason": "It is red."', '"note": "It is red."'),
        ("Note: it is red.", '"note": "it is red."'),
    ],
)
def test_other_words_other_keys_and_other_truths_do(first: str, second: str) -> None:
    assert remarks_of(said(first)).keys() != remarks_of(said(second)).keys()


def test_a_phrase_is_masked_in_scripts_without_blanks_too() -> None:
    assert list(remarks_of(said("我找到了红色杯子。", ["红色杯子"]))) == ["我找到了 …"]


@pytest.mark.parametrize(
    ("with_it", "without", "is_rare"),
    [(30, 30, False), (29, 31, True), (5, 0, False), (4, 0, True), (6, 54, True), (60, 0, False)],
)
def test_usual_is_what_half_of_the_records_and_five_have(
    with_it: int, without: int, is_rare: bool
) -> None:
    remark = "The photo did not arrive."
    counts = counted(*[remark] * with_it, *[None] * without)
    assert counts.is_rare(remarks_of(said(remark))) is is_rare
    assert counts.rare == with_it * is_rare
    assert counts.common() == {"The photo did not arrive": with_it}


def test_a_record_whose_phrases_nobody_looked_for_has_no_reply() -> None:
    counts = counted(*["I see it."] * 5)
    for _ in range(20):
        counts.add({"expressions": [{"text": "a cup"}]})
    assert (counts.records, counts.rare) == (5, 0)


def test_one_rare_sentence_makes_the_record_rare() -> None:
    usual = "Here are the boxes."
    counts = counted(*[usual] * 9, f"{usual} The fork is a guess.", f'{usual} … "sure": false')
    assert counts.rare == 2
    assert counts.line() == (
        "11 records: Here are the boxes; 1 record: sure : false; 1 record: The fork is a guess;"
        " 2 records with a rare remark"
    )


def test_parts_are_counted_as_one_data_set() -> None:
    first, second = counted(*["I see it."] * 3), counted(*["I see it."] * 3, "I guess.")
    second.add(said("I guess."), watched=False)
    first.add_all(second)
    assert (first.records, first.rare) == (8, 1)
    assert first.common() == {"I see it": 6, "I guess": 2}


def test_of_many_remarks_the_seldom_ones_are_dropped_and_stay_rare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 10)
    words = [f"word{letter}" for letter in "abcdefghijklmnopqrst"]
    counts = counted(*["I see it."] * 30, *words)
    assert counts.rare == len(words)
    assert counts.common(1) == {"I see it": 30}


def test_remarks_are_joined_once_each_up_to_200_characters() -> None:
    assert joined_remarks(["One.", "", "…", "Two.  \n Three.", "One. … Four."]) == (
        "One. … Two. Three. … Four."
    )
    assert len(joined_remarks(["x" * 500])) == 200


def test_numbers_and_markup_are_not_shown() -> None:
    assert list(counted("I see 12 <b>dogs</b>.").common()) == ["I see N b dogs /b"]
