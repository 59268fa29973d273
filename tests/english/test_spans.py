"""Spans of phrases in captions: exact, at the edges of words, each repeated phrase at an occurrence
of its own.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow_grounding.english.spans import (
    Span,
    as_compared,
    clean_caption,
    find_spans,
    whole_words,
)

PLACES: dict[str, tuple[str, list[str], list[str | None]]] = {
    "case": ("The Red Car", ["the red car"], ["The Red Car"]),
    "spacing": ("a red  \t car", ["red car"], ["red  \t car"]),
    "a no-break space": ("a red\u00a0car", ["red car"], ["red\u00a0car"]),
    "an ideographic space": ("红色\u3000汽车", ["红色 汽车"], ["红色\u3000汽车"]),
    "a line break": ("a red\r\ncar", ["RED CAR"], ["red\r\ncar"]),
    "not there": ("a red car", ["dog"], [None]),
    "empty": ("a red car", ["", "  "], [None, None]),
    "an empty caption": ("", ["car"], [None]),
    "part of a word": ("a scar on a cart", ["car"], [None]),
    "a hyphen ends a word": ("a car-park", ["car"], ["car"]),
    "an apostrophe ends a word": ("the dog's ball", ["the dog"], ["the dog"]),
    "quotation marks": ('a sign "STOP"!', ['"stop"'], ['"STOP"']),
    "regular expression characters": ("a (red) [car]* a.b $5 ^_^ \\d", ["(red)", "[car]*", "a.b", "$5", "\\d"], []),
    "a dot is a dot": ("axb", ["a.b"], [None]),
    "sharp s": ("Die Straße", ["DIE STRASSE"], ["Die Straße"]),
    "dotted capital i": ("İstanbul gezisi", ["i\u0307stanbul"], ["İstanbul"]),
    "ligature": ("the ﬁsh", ["the fish"], ["the ﬁsh"]),
    "an accent belongs to its letter": ("a cafe\u0301", ["cafe"], [None]),
    "an accent is a letter": ("a cafe\u0301", ["cafe\u0301"], ["cafe\u0301"]),
    "Chinese has no spaces": ("一只黑色的狗和一只猫", ["黑色的狗", "猫"], ["黑色的狗", "猫"]),
    "Latin inside Chinese": ("一辆red车", ["red"], ["red"]),
    "Japanese": ("赤い車とネコ", ["赤い車", "ネコ"], ["赤い車", "ネコ"]),
    "Thai": ("แมวดำกับหมา", ["หมา"], ["หมา"]),
    "Devanagari vowel signs": ("की किताब", ["क"], [None]),
    "Cyrillic": ("Красная машина", ["красная"], ["Красная"]),
    "Arabic": ("سيارة حمراء", ["حمراء"], ["حمراء"]),
    "emoji": ("a 🚗 and a 🚗", ["🚗", "🚗"], ["🚗", "🚗"]),
    "a family is one emoji": ("a 👩‍👧 here", ["👩"], [None]),
    "a skin tone belongs to its hand": ("a 👍🏽", ["👍"], [None]),
    "more often than it stands there": ("a car", ["car", "Car", "CAR"], ["car", None, None]),
    "a plain apostrophe": ("the dog's ball", ["the dog’s ball", "the dog"], ["the dog's ball", "the dog"]),
    "typographic quotation marks": ("a sign “STOP” „x“", ['"stop"', '"x"'], ["“STOP”", "„x“"]),
    "dashes": (
        "well‑known, 10–12 m, t-shirt",
        ["well-known", "10-12 m", "t–shirt"],
        ["well‑known", "10–12 m", "t-shirt"],
    ),
    "an em dash": ("a dog — a beagle", ["dog - a beagle"], ["dog — a beagle"]),
    "decomposed in the caption": ("a cafe\u0301 in cre\u0301me", ["café", "créme"], ["cafe\u0301", "cre\u0301me"]),
    "a Hangul syllable, decomposed": ("\u1112\u1161\u11ab 글", ["하", "한"], [None, "\u1112\u1161\u11ab"]),
    "a soft hyphen": ("a play\u00adground", ["playground", "play", "ground"], ["play\u00adground", None, None]),
    "not seen, beside the phrase": ("\ufeffa\u200b car\u00ad.", ["a car"], ["a\u200b car"]),
    "emphasis": (
        "a **red** car, *the* _dog_, ***a cat***",
        ["red car", "the dog", "a cat"],
        ["red** car", "the* _dog", "a cat"],
    ),
    "emphasis of the whole phrase": ("beside a _red mug_.", ["red mug", "mug"], ["red mug", "mug"]),
    "emphasis begun in the phrase": ("a **red car** and", ["a red", "car and"], ["a **red", "car** and"]),
    "struck out": ("an ~~old~~ new car", ["an old new"], ["an ~~old~~ new"]),
    "code": ("the `STOP` sign", ["the stop sign", "stop"], ["the `STOP` sign", "STOP"]),
    "a link": (
        "a [red car](https://x.org/a_b) here",
        ["a red car", "red car here"],
        ["a [red car", "red car](https://x.org/a_b) here"],
    ),
    "brackets": ("the [red] car", ["the red car"], ["the [red] car"]),
    "marks and signs": ("(**red**) car", ["(red) car"], ["(**red**) car"]),
    "marks in Chinese": ("**红色**的车", ["红色的车", "车"], ["红色**的车", "车"]),
    "marks in the phrase alone": ("a red car", ["**red** car"], ["red car"]),
    "as it is written goes first": ("red car, **red** car", ["**red** car", "red car"], ["**red** car", "red car"]),
    "low lines in a word": (
        "vis_a and snake_case",
        ["vis", "case", "vis a", "snake_case"],
        [None, None, None, "snake_case"],
    ),
    "a sign within a word": ("2*3 and 23, a*b", ["23", "23", "ab"], ["23", None, None]),
    "a sign between blanks": ("a * b _ c", ["a b", "b c"], [None, None]),
    "full-width digits": ("３ cars and １２ dogs", ["3 cars", "12 dogs", "2 dogs"], ["３ cars", "１２ dogs", None]),
    "full-width signs": ("红色（大）杯子", ["红色(大)杯子"], ["红色（大）杯子"]),
    "full-width letters": ("ａ ＲＥＤ ｃａｒ", ["a red car", "car"], ["ａ ＲＥＤ ｃａｒ", "ｃａｒ"]),
    "half-width kana": ("ｶﾞｲﾄﾞ", ["ガイド", "カ"], ["ｶﾞｲﾄﾞ", None]),
    "ligatures": ("an oﬃce ﬂoor ĳs", ["office floor", "ijs", "of"], ["oﬃce ﬂoor", "ĳs", None]),
    "a letter that is several": ("a ㎡ and 10 ℃", ["a m2", "m", "10 ℃", "c"], ["a ㎡", None, "10 ℃", None]),
    "a trade mark ends a word": ("a Lego™ car", ["lego", "lego™", "lego tm"], ["Lego", "Lego™", None]),
    "a fraction is one letter": ("½ of 1/2", ["½", "1", "2"], ["½", "1", "2"]),
    "guillemets": ("a sign «STOP» ‹go›", ['"stop"', "'go'"], ["«STOP»", "‹go›"]),
    "corner brackets": ("看板「止まれ」", ['"止まれ"', "止まれ"], ["「止まれ」", "止まれ"]),
    "kinds of quotation mark in the phrase": (
        'a sign "STOP"',
        ["»stop«", "„STOP“", "「stop」"],
        ['"STOP"', None, None],
    ),
    "an acute accent for an apostrophe": ("the dog´s ball", ["the dog's ball"], ["the dog´s ball"]),
    "half of a surrogate pair": ("a \ud83d car", ["car"], ["car"]),
}  # fmt: skip


@pytest.mark.parametrize(("caption", "phrases", "texts"), PLACES.values(), ids=PLACES)
def test_the_text_at_a_span(caption: str, phrases: list[str], texts: list[str | None]) -> None:
    found = [caption[slice(*span)] if span else None for span in find_spans(phrases, caption)]
    assert found == (texts or phrases)


SPANS: dict[str, tuple[str, list[str], list[tuple[int, int] | None]]] = {
    "in order": ("a dog and a dog", ["a dog", "a dog"], [(0, 5), (10, 15)]),
    "equal up to case, in order": ("A dog and a dog", ["a DOG", "a dog"], [(0, 5), (10, 15)]),
    "the inner one outside of the long one": (
        "a man in a hat and a man",
        ["a man in a hat", "a man"],
        [(0, 14), (19, 24)],
    ),
    "the same, named first": ("a man in a hat and a man", ["a man", "a man in a hat"], [(19, 24), (0, 14)]),
    "inside where there is no outside": ("the red car", ["the red car", "car"], [(0, 11), (8, 11)]),
    "both, in order": ("a red car, a car", ["a red car", "car", "car"], [(0, 9), (6, 9), (13, 16)]),
    "three deep": ("a b c b c c", ["a b c", "b c", "c"], [(0, 5), (6, 9), (10, 11)]),
    "without overlap": ("no no no", ["no no", "no no"], [(0, 5), None]),
    "without overlap between marks": ("a a b a a *a*", ["a a", "a a", "a a"], [(0, 3), (6, 9), None]),
    "code points, not bytes": ("🚗🚗 é 狗 dog", ["dog"], [(7, 10)]),
}  # fmt: skip


@pytest.mark.parametrize(("caption", "phrases", "spans"), SPANS.values(), ids=SPANS)
def test_each_phrase_has_an_occurrence_of_its_own(
    caption: str, phrases: list[str], spans: list[tuple[int, int] | None]
) -> None:
    assert find_spans(phrases, caption) == spans


@pytest.mark.slow
@given(st.text())
@example(" \u093a")
def test_any_text_is_found_in_itself(caption: str) -> None:
    [span] = find_spans([caption], caption)
    found = caption[slice(*span)] if span else ""
    assert as_compared(found) == as_compared(caption)


@given(st.text())
def test_a_clean_caption_is_clean(caption: str) -> None:
    clean = clean_caption(caption)
    assert clean == clean_caption(clean)
    assert clean == " ".join(clean.split())
    assert not any(unicodedata.category(letter) == "Cc" for letter in clean)
    assert unicodedata.is_normalized("NFC", clean) or "\ud800" <= max(clean) <= "\udfff"


@pytest.mark.slow
def test_a_long_caption_with_many_phrases() -> None:
    """100 KB and 400 phrases; what takes time in the square of either would never end."""
    sentence = "a small dog runs after the red ball near a big tree, "
    caption = sentence * 2000
    phrases = ["a small dog", "the red ball", "a", "a big tree", "dog"] * 80
    spans = find_spans(phrases, caption)
    assert [caption[slice(*span)] for span in spans if span] == phrases
    assert find_spans(["b" * 100_000, "a" * 100_001], "a" * 100_000) == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("a" * 100_000, "a" * 50_000),
        ("ab " * 35_000, "ab " * 17_500 + "a"),
        ("*a" * 50_000, "*a" * 25_000),
        ("a* " * 35_000, "a " * 17_500 + "b"),
        ("[a](" * 25_000, "a" * 25_000),
        ("](" * 50_000, "a"),
        ("[a](b)" * 15_000, "a" * 25_000),
        ("~~" * 50_000 + "a", "a"),
        ("\u0301" * 75_000, "a\u0301"),
        ("½" * 50_000, "½" * 25_000 + "1"),
    ],
    ids=lambda text: text[:6].encode("ascii", "backslashreplace").decode(),
)
def test_captions_that_were_made_to_take_long(caption: str, phrase: str) -> None:
    """A search that is quadratic in their length would not come to an end."""
    find_spans([phrase], caption)


@pytest.mark.parametrize(
    ("span", "words"), [((0, 7), (0, 9)), ((1, 6), (2, 5)), ((1, 2), (2, 2)), ((-1, 99), (0, 9))]
)
def test_a_span_gets_the_words_that_it_cuts(span: Span, words: Span) -> None:
    assert whole_words(span, "A red cup") == words
