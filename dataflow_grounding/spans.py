"""Where phrases stand in a caption: spans as [start, end) in code points."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

_QUOTES = dict.fromkeys(map(ord, "‘’‚‛ʼ′"), "'") | dict.fromkeys(map(ord, "“”„‟″"), '"')
_HYPHENS = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")  # an em dash too: models write a hyphen for it
# What can't be seen: soft hyphen, zero-width space, marks of direction, word joiner, byte order mark. Joiners (U+200C,
# U+200D) stay: they make other letters and emoji of those around them.
_UNSEEN = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
_SAME = _QUOTES | _HYPHENS | dict.fromkeys(map(ord, _UNSEEN))


def clean_caption(caption: str) -> str:
    """Return the caption in Unicode NFC, without control characters, single-spaced, stripped.

    Example:
        >>> clean_caption("  A cat\\ton a\\nmat. ")
        'A cat on a mat.'
    """
    text = unicodedata.normalize("NFC", caption)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


def find_spans(phrases: Sequence[str], caption: str) -> list[Span | None]:
    """Find where each phrase occurs in a caption.

    Long phrases choose first, and a phrase that could lie inside another's span or outside it is placed outside.

    Args:
        phrases: The phrases; equal ones get occurrences of their own, in order.
        caption: The text to look in.

    Returns:
        For each phrase `[start, end)` in code points, at word edges; None if it doesn't occur (again). The text equals
        the phrase but for case, spacing, kinds of quotation mark and dash, Unicode composition, unseen characters.

    Example:
        >>> find_spans(["a cat", "a cat", "dog"], "A cat beside a  cat")
        [(0, 5), (13, 19), None]
    """
    if not caption:
        return [None] * len(phrases)
    folded = _Folded(caption)
    wanted: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        wanted.setdefault(as_compared(phrase), []).append(index)
    spans: list[Span | None] = [None] * len(phrases)
    taken = bytearray(len(caption))
    for key in sorted(wanted, key=len, reverse=True):
        free_first = sorted(folded.occurrences(key), key=lambda span: taken.find(1, *span) >= 0)
        chosen = sorted(free_first[: len(wanted[key])])
        for index, (start, end) in zip(wanted[key], chosen, strict=False):
            spans[index] = (start, end)
            taken[start:end] = bytes([1]) * (end - start)
    return spans


def as_compared(phrase: str) -> str:
    """A phrase as `find_spans` looks for it: phrases that have this in common are equal to it."""
    return _Folded(phrase).text.strip(" ")


class _Folded:
    """A text as it is compared, with the place of each letter; what a reader takes for one letter is one."""

    def __init__(self, text: str) -> None:
        self.starts: Sequence[int] = range(len(text))
        self.ends: Sequence[int] = range(1, len(text) + 1)
        if text.isascii() and " ".join(text.split()) == text:  # most are: each character is a letter
            self.text = self.bases = text.lower()
            return
        parts: list[tuple[str, str, int, int]] = []  # each character; the first of its letter, and where that is
        start = 0
        for end in range(1, len(text) + 1):
            if end < len(text) and _goes_on(text[end - 1], text[end]):
                continue
            folded = _fold(text[start:end])
            if folded != " " or not parts or parts[-1][0] != " ":
                parts += [(character, folded[0], start, end) for character in folded]
            start = end
        self.text, self.bases = "".join(part[0] for part in parts), "".join(part[1] for part in parts)
        self.starts, self.ends = [part[2] for part in parts], [part[3] for part in parts]

    def occurrences(self, key: str) -> Iterator[Span]:
        """Where `key` stands between edges of words, from left to right, without overlap."""
        at = self.text.find(key) if key else -1
        while at >= 0:
            last = at + len(key)
            found = self._is_edge(at) and self._is_edge(last)
            if found:
                yield self.starts[at], self.ends[last - 1]
            at = self.text.find(key, last if found else at + 1)

    def _is_edge(self, at: int) -> bool:
        """Whether a word may begin or end before the folded letter `at`; what can't be seen is passed over."""
        if not 0 < at < len(self.text):
            return True
        before, after = self.bases[at - 1], self.bases[at]
        if self.starts[at - 1] == self.starts[at] or (before != " " and unicodedata.category(after).startswith("M")):
            return False  # within a letter, or before an accent on what can't be seen
        return not (_is_word_letter(before) and _is_word_letter(after))


def _goes_on(before: str, after: str) -> bool:
    """Whether `after` is part of the letter before: an accent, the rest of a Hangul syllable or of a joined emoji."""
    if after < "\u0300" or before.isspace():
        return before == "\u200d" and not after.isspace()
    if unicodedata.category(after).startswith("M") or "\u1160" <= after <= "\u11ff":
        return True
    return "\u200d" in (before, after) or "🏻" <= after <= "🏿"


def _fold(letter: str) -> str:
    if letter.isspace():
        return " "
    if letter.isascii():
        return letter.lower()
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", letter).casefold())  # may become several: ß, İ
    return folded.translate(_SAME)


def _is_word_letter(letter: str) -> bool:
    """Whether words of this letter's script end where its letters end; scripts written without spaces have no edges."""
    if unicodedata.category(letter).startswith("M"):
        return True
    if not (letter.isalnum() or letter == "_"):
        return False
    name = unicodedata.name(letter, "")
    return not name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL"))
