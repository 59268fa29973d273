"""Spans of phrases in captions: exact, at the edges of words, each repeated phrase at an occurrence of its own."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.span_fuzz import fuzz
from dataflow_grounding.spans import clean_caption, find_spans

UNSEEN = "\u00ad\u200b\u200e\u200f\u2060\ufeff"


def folded(text: str) -> str:
    """A text up to case, spacing, composition, the kind of quotation mark and dash, and what can't be seen."""
    text = " ".join(re.sub(f"[{UNSEEN}]", "", text).split())
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    for plain, kinds in (("'", "‘’‚‛ʼ′"), ('"', "“”„‟″"), ("-", "‐‑‒–—−")):
        text = re.sub(f"[{kinds}]", plain, text)
    return text


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
    ("a typographic apostrophe", "the dog’s ball", ["the dog's ball"], ["the dog’s ball"]),
    ("a plain apostrophe", "the dog's ball", ["the dog’s ball", "the dog"], ["the dog's ball", "the dog"]),
    ("a modifier letter for an apostrophe", "the dogʼs ball", ["the dog's ball", "ball"], ["the dogʼs ball", "ball"]),
    ("typographic quotation marks", "a sign “STOP” „x“", ['"stop"', '"x"'], ["“STOP”", "„x“"]),
    (
        "dashes",
        "well‑known, 10–12 m, t-shirt",
        ["well-known", "10-12 m", "t–shirt"],
        ["well‑known", "10–12 m", "t-shirt"],
    ),
    ("an em dash", "a dog — a beagle", ["dog - a beagle"], ["dog — a beagle"]),
    ("decomposed in the caption", "a cafe\u0301 in cre\u0301me", ["café", "créme"], ["cafe\u0301", "cre\u0301me"]),
    ("decomposed in the phrase", "a café", ["cafe\u0301"], ["café"]),
    ("two accents in either order", "a\u0323\u0302 ậ", ["a\u0302\u0323", "ậ"], ["a\u0323\u0302", "ậ"]),
    ("half of a decomposed accent", "cafe\u0301s", ["cafe", "caf", "s"], [None, None, None]),
    ("a Hangul syllable, decomposed", "\u1112\u1161\u11ab 글", ["하", "한"], [None, "\u1112\u1161\u11ab"]),
    ("a voiced kana, decomposed", "か\u3099く", ["か", "が"], [None, "か\u3099"]),
    ("an Ångström sign", "10 \u212b", ["10 å"], ["10 \u212b"]),
    ("a soft hyphen", "a play\u00adground", ["playground", "play", "ground"], ["play\u00adground", None, None]),
    ("a soft hyphen in the phrase", "a playground", ["play\u00adground"], ["playground"]),
    ("not seen, beside the phrase", "\ufeffa\u200b car\u00ad.", ["a car"], ["a\u200b car"]),
    ("blanks with something not seen between", "a red \u00ad car", ["red car"], ["red \u00ad car"]),
    ("a joiner is no blank", "می\u200cروم", ["میروم"], [None]),
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


letters = st.sampled_from("aAbB1 ßSsİiıσςΣeEéÉﬁ.-–_(*'’\t\u00a0\u0301\u00ad狗🚗")
small = st.text(letters, max_size=14)


def possible(phrase: str, caption: str) -> list[tuple[int, int]]:
    """All places by brute force: equal when folded, no word cut, no accent torn off."""

    def inside_word(place: int) -> bool:
        left, right = caption[:place].rstrip(UNSEEN), caption[place:].lstrip(UNSEEN)
        if not left or not right:
            return False
        base = left.rstrip(UNSEEN + "\u0301")
        before = left[-1] if not base or base[-1].isspace() else base[-1]
        word = [c != "狗" and (c.isalnum() or c in "_\u0301") for c in (before, right[0])]
        return (right[0] == "\u0301" and not left[-1].isspace()) or all(word)

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
@example(" \u093a")
def test_any_text_is_found_in_itself(caption: str) -> None:
    [span] = find_spans([caption], caption)
    assert (span is not None) == bool(folded(caption))
    if span:
        assert folded(caption[slice(*span)]) == folded(caption)


@given(st.text())
def test_a_clean_caption_is_clean(caption: str) -> None:
    clean = clean_caption(caption)
    assert clean == clean_caption(clean)
    assert clean == " ".join(clean.split())
    assert not any(unicodedata.category(letter) == "Cc" for letter in clean)
    assert unicodedata.is_normalized("NFC", clean) or "\ud800" <= max(clean) <= "\udfff"


def test_made_up_captions_have_no_wrong_slice() -> None:
    """`python -m benchmarks.span_fuzz` looks through 40,000."""
    tally = fuzz(3000)
    assert (tally.wrong, tally.missed) == (0, 0), tally.first
    assert tally.found > 3000


def test_a_long_caption_with_many_phrases() -> None:
    """100 KB and 400 phrases; what takes time in the square of either would never end."""
    sentence = "a small dog runs after the red ball near a big tree, "
    caption = sentence * 2000
    phrases = ["a small dog", "the red ball", "a", "a big tree", "dog"] * 80
    spans = find_spans(phrases, caption)
    assert [folded(caption[slice(*span)]) for span in spans if span] == phrases
    assert find_spans(["b" * 100_000, "a" * 100_001], "a" * 100_000) == [None, None]
