"""Where phrases stand in a caption: spans as [start, end) in code points."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]


def clean_caption(caption: str) -> str:
    """The caption in Unicode NFC, without control characters, single-spaced, stripped."""
    text = unicodedata.normalize("NFC", caption)
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


def find_spans(phrases: Sequence[str], caption: str) -> list[Span | None]:
    """The span of each phrase in `caption`, or None where it doesn't stand there (again).

    A span's text equals its phrase up to case and spacing, and begins and ends at a word's edge. Equal phrases get
    occurrences of their own, in order. Long phrases choose first, and one that could stand inside another's span or
    outside of it is placed outside.
    """
    folded = _Folded(caption)
    wanted: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        wanted.setdefault(_fold(phrase), []).append(index)
    spans: list[Span | None] = [None] * len(phrases)
    taken = bytearray(len(caption))
    for key in sorted(wanted, key=len, reverse=True):
        free_first = sorted(folded.occurrences(key), key=lambda span: taken.find(1, *span) >= 0)
        chosen = sorted(free_first[: len(wanted[key])])
        for index, (start, end) in zip(wanted[key], chosen, strict=False):
            spans[index] = (start, end)
            taken[start:end] = bytes([1]) * (end - start)
    return spans


def _fold(phrase: str) -> str:
    return " ".join(phrase.split()).casefold()


class _Folded:
    """A caption as `_fold` writes it, with the place in the caption that each letter comes from."""

    def __init__(self, caption: str) -> None:
        self.caption = caption
        letters: list[str] = []
        self.places: list[int] = []
        for place, letter in enumerate(caption):
            if letter.isspace():
                letter = "" if letters[-1:] == [" "] else " "
            folded = letter.casefold()  # one letter may become several: ß, İ
            letters += folded
            self.places += [place] * len(folded)
        self.text = "".join(letters)

    def occurrences(self, key: str) -> Iterator[Span]:
        """Where `key` stands between edges of words, from left to right, without overlap."""
        at = self.text.find(key) if key else -1
        while at >= 0:
            span = self._span(at, at + len(key))
            if span:
                yield span
            at = self.text.find(key, at + len(key) if span else at + 1)

    def _span(self, first: int, last: int) -> Span | None:
        """The caption's letters that the folded letters [first, last) come from, if they are whole and end at edges."""
        places = self.places
        start, end = places[first], places[last - 1] + 1
        cuts_a_letter = (first > 0 and places[first - 1] == start) or (last < len(places) and places[last] < end)
        if cuts_a_letter or self._joined(start) or self._joined(end):
            return None
        return start, end

    def _joined(self, place: int) -> bool:
        """Whether the letters before and after `place` belong to one word."""
        if not 0 < place < len(self.caption):
            return False
        before, after = self.caption[place - 1], self.caption[place]
        if unicodedata.category(after).startswith("M") or "\u200d" in (before, after) or "🏻" <= after <= "🏿":
            return True  # an accent, a joined emoji, a skin tone: parts of the letter before
        return _is_word_letter(before) and _is_word_letter(after)


def _is_word_letter(letter: str) -> bool:
    """Whether words of this letter's script end where its letters end; scripts written without spaces have no edges."""
    if unicodedata.category(letter).startswith("M"):
        return True
    if not (letter.isalnum() or letter == "_"):
        return False
    name = unicodedata.name(letter, "")
    return not name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL"))
