"""Where phrases stand in a caption: spans as [start, end) in code points."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
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
    occurrences = {_key(phrase): _occurrences(phrase, caption) for phrase in phrases}
    wanted: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        wanted.setdefault(_key(phrase), []).append(index)
    spans: list[Span | None] = [None] * len(phrases)
    taken: list[Span] = []
    for key in sorted(wanted, key=len, reverse=True):
        free_first = sorted(occurrences[key], key=lambda s: (_inside_any(s, taken), s))
        chosen = sorted(free_first[: len(wanted[key])])
        for index, span in zip(wanted[key], chosen, strict=False):
            spans[index] = span
        taken += chosen
    return spans


def _key(phrase: str) -> str:
    return " ".join(phrase.split()).casefold()


def _occurrences(phrase: str, caption: str) -> list[Span]:
    words = phrase.split()
    if not words:
        return []
    before = r"(?<!\w)" if _has_word_edges(words[0][0]) else ""
    after = r"(?!\w)" if _has_word_edges(words[-1][-1]) else ""
    pattern = re.compile(before + r"\s+".join(map(re.escape, words)) + after, re.IGNORECASE)
    found = [m.span() for m in pattern.finditer(caption)]
    return [(start, end) for start, end in found if _key(caption[start:end]) == _key(phrase)]


def _has_word_edges(letter: str) -> bool:
    """Whether a word of this letter's script ends where its letters end; scripts written without spaces have no edges."""
    if not letter.isalnum():
        return False
    name = unicodedata.name(letter, "")
    return not name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL"))


def _inside_any(span: Span, others: Sequence[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)
