"""Spans of phrases in captions: exact, at the edges of words, each repeated phrase at an occurrence of its own."""

from __future__ import annotations

import itertools
import string
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow_grounding.spans import clean_caption, find_spans


def folded(text: str) -> str:
    """A text up to case and spacing."""
    return " ".join(text.split()).casefold()


PLACES: list[tuple[str, str, list[str], list[str | None]]] = [
    ("case", "The Red Car", ["the red car"], ["The Red Car"]),
    ("spacing", "a red  \t car", ["red car"], ["red  \t car"]),
    ("a no-break space", "a red\u00a0car", ["red car"], ["red\u00a0car"]),
    ("an ideographic space", "红色\u3000汽车", ["红色 汽车"], ["红色\u3000汽车"]),
    ("a line break", "a red\r\ncar", ["RED CAR"], ["red\r\ncar"]),
    ("space around the phrase", "a red car", ["  red car\n"], ["red car"]),
    ("not there", "a red car", ["dog"], [None]),
    ("empty", "a red car", ["", "  "], [None, None]),
    ("an empty caption", "", ["car"], [None]),
    ("part of a word", "a scar on a cart", ["car"], [None]),
    ("a word later", "a scar on a car", ["car"], ["car"]),
    ("digits end words too", "bus 12 and bus 1", ["bus 1"], ["bus 1"]),
    ("a hyphen ends a word", "a car-park", ["car"], ["car"]),
    ("an apostrophe ends a word", "the dog's ball", ["the dog"], ["the dog"]),
    ("quotation marks", 'a sign "STOP"!', ['"stop"'], ['"STOP"']),
    ("regular expression characters", "a (red) [car]* a.b $5 ^_^ \\d", ["(red)", "[car]*", "a.b", "$5", "\\d"], []),
    ("a dot is a dot", "axb", ["a.b"], [None]),
    ("sharp s", "Die Straße", ["DIE STRASSE"], ["Die Straße"]),
    ("sharp s the other way", "DIE STRASSE", ["die straße"], ["DIE STRASSE"]),
    ("half of a sharp s", "Maß", ["mas"], [None]),
    ("dotted capital i", "İstanbul gezisi", ["i\u0307stanbul"], ["İstanbul"]),
    ("half of a dotted capital i", "İ b", ["i"], [None]),
    ("sigma at the end", "ΟΔΟΣ", ["οδος"], ["ΟΔΟΣ"]),
    ("ligature", "the ﬁsh", ["the fish"], ["the ﬁsh"]),
    ("an accent belongs to its letter", "a cafe\u0301", ["cafe"], [None]),
    ("an accent is a letter", "a cafe\u0301", ["cafe\u0301"], ["cafe\u0301"]),
    ("accents in the middle", "cre\u0301me", ["cre", "me"], [None, None]),
    ("Chinese has no spaces", "一只黑色的狗和一只猫", ["黑色的狗", "猫"], ["黑色的狗", "猫"]),
    ("Latin inside Chinese", "一辆red车", ["red"], ["red"]),
    ("Japanese", "赤い車とネコ", ["赤い車", "ネコ"], ["赤い車", "ネコ"]),
    ("Thai", "แมวดำกับหมา", ["หมา"], ["หมา"]),
    ("Devanagari vowel signs", "की किताब", ["क"], [None]),
    ("Cyrillic", "Красная машина", ["красная"], ["Красная"]),
    ("Arabic", "سيارة حمراء", ["حمراء"], ["حمراء"]),
    ("emoji", "a 🚗 and a 🚗", ["🚗", "🚗"], ["🚗", "🚗"]),
    ("a family is one emoji", "a 👩‍👧 here", ["👩"], [None]),
    ("a skin tone belongs to its hand", "a 👍🏽", ["👍"], [None]),
    ("more often than it stands there", "a car", ["car", "Car", "CAR"], ["car", None, None]),
    ("half of a surrogate pair", "a \ud83d car", ["car"], ["car"]),
    ("NUL", "a\0car", ["car"], ["car"]),
]


@pytest.mark.parametrize(("caption", "phrases", "texts"), [p[1:] for p in PLACES], ids=[p[0] for p in PLACES])
def test_the_text_at_a_span(caption: str, phrases: list[str], texts: list[str | None]) -> None:
    found = [caption[slice(*span)] if span else None for span in find_spans(phrases, caption)]
    assert found == (texts or phrases)


SPANS: list[tuple[str, str, list[str], list[tuple[int, int] | None]]] = [
    ("in order", "a dog and a dog", ["a dog", "a dog"], [(0, 5), (10, 15)]),
    ("equal up to case, in order", "A dog and a dog", ["a DOG", "a dog"], [(0, 5), (10, 15)]),
    (
        "the inner one outside of the long one",
        "a man in a hat and a man",
        ["a man in a hat", "a man"],
        [(0, 14), (19, 24)],
    ),
    ("the same, named first", "a man in a hat and a man", ["a man", "a man in a hat"], [(19, 24), (0, 14)]),
    ("inside where there is no outside", "the red car", ["the red car", "car"], [(0, 11), (8, 11)]),
    ("both, in order", "a red car, a car", ["a red car", "car", "car"], [(0, 9), (6, 9), (13, 16)]),
    ("three deep", "a b c b c c", ["a b c", "b c", "c"], [(0, 5), (6, 9), (10, 11)]),
    ("without overlap", "no no no", ["no no", "no no"], [(0, 5), None]),
    ("code points, not bytes", "🚗🚗 é 狗 dog", ["dog"], [(7, 10)]),
]


@pytest.mark.parametrize(("caption", "phrases", "spans"), [s[1:] for s in SPANS], ids=[s[0] for s in SPANS])
def test_each_phrase_has_an_occurrence_of_its_own(
    caption: str, phrases: list[str], spans: list[tuple[int, int] | None]
) -> None:
    assert find_spans(phrases, caption) == spans


letters = st.sampled_from("aAbB1 ßSsİiıσςΣéÉﬁ.-_(*\t\u00a0\u0301狗🚗")
small = st.text(letters, max_size=14)


def possible(phrase: str, caption: str) -> list[tuple[int, int]]:
    """All places by brute force: equal up to case and spacing, no word cut, no accent torn off."""

    def inside_word(place: int) -> bool:
        if not 0 < place < len(caption):
            return False
        before, after = caption[place - 1], caption[place]
        word = [c != "狗" and (c.isalnum() or c in "_\u0301") for c in (before, after)]
        return after == "\u0301" or all(word)

    return [
        (start, end)
        for start, end in itertools.combinations(range(len(caption) + 1), 2)
        if folded(caption[start:end]) == folded(phrase)
        and not caption[start].isspace()
        and not caption[end - 1].isspace()
        and not inside_word(start)
        and not inside_word(end)
    ]


@given(st.lists(st.text(letters, max_size=4), max_size=5), small)
@example(["i\u0307"], "İ")
@example(["s", "s"], "ß s s")
def test_spans_are_right_and_none_means_not_there(phrases: list[str], caption: str) -> None:
    spans = find_spans(phrases, caption)
    assert len(spans) == len(phrases)
    by_phrase: dict[str, list[tuple[int, int] | None]] = {}
    for phrase, span in zip(phrases, spans, strict=True):
        by_phrase.setdefault(folded(phrase), []).append(span)
        if span is not None:
            assert span in possible(phrase, caption)
    for key, found in by_phrase.items():
        placed = [span for span in found if span is not None]
        assert found == [*placed, *[None] * (len(found) - len(placed))], "those without a place come last"
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(placed)), "in order, without overlap"
        if key and not placed:
            assert not possible(key, caption)


@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=6), min_size=1, max_size=12), st.data())
def test_a_phrase_cut_from_the_caption_is_found(words: list[str], data: st.DataObject) -> None:
    caption = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    phrase = " ".join(words[first:last])
    [span] = find_spans([phrase.swapcase()], caption)
    assert span is not None
    assert folded(caption[slice(*span)]) == folded(phrase)


@given(st.text())
def test_any_text_is_found_in_itself(caption: str) -> None:
    [span] = find_spans([caption], caption)
    assert (span is not None) == bool(caption.strip())
    if span:
        assert folded(caption[slice(*span)]) == folded(caption)


@given(st.text())
def test_a_clean_caption_is_clean(caption: str) -> None:
    clean = clean_caption(caption)
    assert clean == clean_caption(clean)
    assert clean == " ".join(clean.split())
    assert not any(unicodedata.category(letter) == "Cc" for letter in clean)
    assert unicodedata.is_normalized("NFC", clean) or "\ud800" <= max(clean) <= "\udfff"


def test_a_long_caption_with_many_phrases() -> None:
    """100 KB and 400 phrases; what takes time in the square of either would never end."""
    sentence = "a small dog runs after the red ball near a big tree, "
    caption = sentence * 2000
    phrases = ["a small dog", "the red ball", "a", "a big tree", "dog"] * 80
    spans = find_spans(phrases, caption)
    assert [folded(caption[slice(*span)]) for span in spans if span] == phrases
    assert find_spans(["b" * 100_000, "a" * 100_001], "a" * 100_000) == [None, None]
