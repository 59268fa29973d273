"""Reading phrases that a model made up: nothing that it wasn't asked for is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images.image import Image
from dataflow_grounding.tasks import negative_phrases
from dataflow_grounding.tasks.negatives import CHANGES, MOST_CHARACTERS, Changed
from tests.support.json_values import any_json

PHRASES = ["the red mug", "a dog"]
GOOD = {"id": 1, "change": "attribute", "text": "the blue mug"}
OTHER = {"id": 1, "change": "attribute", "text": "the green mug"}


def reply_of(*items: Any) -> str:
    return json.dumps({"negatives": list(items)})


def test_the_question_has_the_phrases_and_how_many_are_wanted(image: Image) -> None:
    request = negative_phrases(image, PHRASES, 8)
    assert request.input == {
        "count": 8,
        "phrases": [{"id": 1, "text": "the red mug"}, {"id": 2, "text": "a dog"}],
    }
    assert request.images == (image,)


def test_what_was_changed_is_read(image: Image) -> None:
    noun = {"id": "2", "change": "Noun", "text": " a   cat\n"}
    changed, notes = negative_phrases(image, PHRASES, 8).read(reply_of(GOOD, noun))
    assert changed == [Changed(0, "attribute", "the blue mug"), Changed(1, "noun", "a cat")]
    assert notes == []


@pytest.mark.parametrize(
    "item",
    [
        {**OTHER, "id": 3},
        {**OTHER, "id": 0},
        {**OTHER, "id": None},
        {**OTHER, "change": "mood"},
        {**OTHER, "change": ["noun"]},
        {**GOOD, "text": ""},
        {**GOOD, "text": 7},
        {**GOOD, "text": "x" * (MOST_CHARACTERS + 1)},
        {**GOOD, "text": "The Red  Mug"},
        {**GOOD, "text": "A dog"},
        "the blue mug",
    ],
)
def test_what_is_no_change_is_dropped_and_counted(image: Image, item: Any) -> None:
    changed, notes = negative_phrases(image, PHRASES, 8).read(reply_of(GOOD, item))
    assert changed == [Changed(0, "attribute", "the blue mug")]
    assert [note.code for note in notes] == ["dropped"]


def test_one_phrase_counts_once_and_no_more_than_are_wanted(image: Image) -> None:
    items = [GOOD, {**GOOD, "id": 2, "text": "THE BLUE MUG"}]
    items += [{**GOOD, "text": f"the mug of {number}"} for number in range(9)]
    changed, _ = negative_phrases(image, PHRASES, 3).read(reply_of(*items))
    assert [answer.text for answer in changed] == ["the blue mug", "the mug of 0", "the mug of 1"]


def test_a_reply_without_a_phrase_is_asked_for_again(image: Image) -> None:
    read = negative_phrases(image, PHRASES, 8).read
    assert read(reply_of())[0] == []
    for reply in ("none", '{"negatives": "none"}', reply_of({"id": 1}), reply_of("the blue mug")):
        with pytest.raises(UnreadableReply):
            read(reply)


def test_of_a_reply_that_is_cut_off_the_whole_phrases_count(image: Image) -> None:
    whole = reply_of(GOOD, {"id": 2, "change": "noun", "text": "a cat"})
    changed, notes = negative_phrases(image, PHRASES, 8).read(whole[: whole.index("a cat") + 3])
    assert [answer.text for answer in changed] == ["the blue mug"]
    assert "truncated" in [note.code for note in notes]
    with pytest.raises(TruncatedReply):
        negative_phrases(image, PHRASES, 8).read(whole[: whole.index("the blue") + 3])


JUNK = any_json()
ITEM = st.fixed_dictionaries(
    {"id": st.sampled_from([1, 2]) | JUNK, "change": st.sampled_from(CHANGES) | JUNK, "text": JUNK}
)


@pytest.mark.slow
@given(st.lists(ITEM | JUNK, max_size=8))
def test_no_reply_gives_more_than_phrases_of_the_image(image: Image, items: list[Any]) -> None:
    try:
        changed, _ = negative_phrases(image, PHRASES, 3).read(json.dumps({"negatives": items}))
    except UnreadableReply:
        return
    assert len(changed) <= 3
    for place, change, text in changed:
        assert 0 <= place < len(PHRASES)
        assert change in CHANGES
        assert 0 < len(text) <= MOST_CHARACTERS
        assert text.casefold() not in PHRASES
