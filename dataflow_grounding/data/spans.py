"""Where phrases stand in a caption: spans as [start, end) in code points."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

_QUOTES = dict.fromkeys(map(ord, "‘’‚‛‹›❛❜ʼʻʹ′´"), "'") | dict.fromkeys(
    map(ord, "“”„‟«»「」『』〝〞〟❝❞″"), '"'
)
_HYPHENS = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")  # an em dash too: models write a hyphen for it
# What can't be seen: soft hyphen, zero-width space, marks of direction, word joiner, byte order
# mark. Joiners (U+200C, U+200D) stay: they make other letters and emoji of those around them.
_UNSEEN = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
_SAME = _QUOTES | _HYPHENS | dict.fromkeys(map(ord, _UNSEEN))
# Markdown's marks of emphasis, code and links, as many as stand together: **, ~~, `, [, ](address).
# An address has no brackets, so that none is read twice.
_MARKS = re.compile(r"(?:[*_`\[]|~~|\](?:\([^()\[\]]*\))?)+")
_EDGE = "\n"  # stands where a word may begin or end; a line break of the text is a blank by then
# What a character is: of a word or not; in capitals where it goes on a letter, so that no word ends
# before it.
_WORD = "w"
_SIGN = "s"


def _ascii_kind(code: int) -> str:
    return _WORD if chr(code).isalnum() or chr(code) == "_" else _SIGN


_ASCII_KINDS = {code: _ascii_kind(code) for code in range(128)}
_WHERE_WORDS_END = re.compile("(?![WS])(?:(?<![wW])|(?!w))")


def clean_caption(caption: str) -> str:
    """Return the caption in Unicode NFC, without control characters, single-spaced, stripped.

    Example:
        >>> clean_caption("  A cat\\ton a\\nmat. ")
        'A cat on a mat.'
    """
    text = unicodedata.normalize("NFC", caption)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text)
    return " ".join(text.split())


def find_spans(phrases: Sequence[str], caption: str) -> list[Span | None]:
    """Find where each phrase occurs in a caption.

    Long phrases choose first, and a phrase that could lie inside another's span or outside it is
    placed outside.

    Args:
        phrases: The phrases; equal ones get occurrences of their own, in order.
        caption: The text to look in.

    Returns:
        For each phrase `[start, end)` in code points, at word edges; None if it doesn't occur
        (again). The text equals the phrase but for case, spacing, kinds of quotation mark and dash,
        Unicode's composition and compatibility forms (full-width digits, ligatures), unseen
        characters, and Markdown's marks at the edges of words.

    Example:
        >>> find_spans(["a cat", "a cat", "dog"], "A cat beside a  cat")
        [(0, 5), (13, 19), None]
        >>> find_spans(["the red car"], "the **red** car")
        [(0, 15)]
    """
    if not caption:
        return [None] * len(phrases)
    folded = _fold(caption)
    plain = _without_marks(folded)
    wanted: dict[str, tuple[_Folded, list[int]]] = {}
    for index, text in enumerate(phrases):
        phrase = _stripped(_fold(text))
        wanted.setdefault(phrase.edged, (phrase, []))[1].append(index)
    spans: list[Span | None] = [None] * len(phrases)
    taken = bytearray(len(caption))
    longest_first = sorted(wanted.values(), key=lambda pair: len(pair[0].text), reverse=True)
    for phrase, indices in longest_first:
        occurrences = _occurrences(phrase, folded, plain)
        free_first = sorted(occurrences, key=lambda span: taken.find(1, *span) >= 0)
        chosen = sorted(free_first[: len(indices)])
        for index, (start, end) in zip(indices, chosen, strict=False):
            spans[index] = (start, end)
            taken[start:end] = bytes([1]) * (end - start)
    return spans


def as_compared(phrase: str) -> str:
    """A phrase as `find_spans` looks for it: phrases that have this in common are equal to it."""
    return _stripped(_fold(phrase)).text


class _Folded:
    """A text as it is compared. What a reader takes for one letter may be several characters: ß, é.

    `kinds` says of each character what it is, `starts` and `ends` where its letter is in the text.
    `edged` has a sign wherever a word may begin or end: a phrase that is written in the same way
    has its signs at the same places, so that plain search finds it between edges of words only, in
    linear time.
    """

    def __init__(self, text: str, kinds: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.text = text
        self.kinds = kinds
        self.starts = starts
        self.ends = ends
        edges = [edge.start() for edge in _WHERE_WORDS_END.finditer(kinds)]
        words = [text[start:end] for start, end in pairwise(edges)]
        self.edged = _EDGE.join(["", *words, ""])

    def part(self, ranges: Sequence[Span]) -> "_Folded":
        """The characters at these places alone."""
        texts: list[str] = []
        kinds: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for start, end in ranges:
            texts.append(self.text[start:end])
            kinds.append(self.kinds[start:end])
            starts += self.starts[start:end]
            ends += self.ends[start:end]
        return _Folded("".join(texts), "".join(kinds), starts, ends)

    def occurrences(self, phrase: "_Folded") -> Iterator[Span]:
        """Where a phrase stands, from left to right, without overlap."""
        if not phrase.text:
            return
        edges = 0  # of words, up to `counted`
        counted = 0
        at = self.edged.find(phrase.edged)
        while at >= 0:
            edges += self.edged.count(_EDGE, counted, at + 1)
            counted = at + 1
            first = counted - edges  # of the phrase's characters, in the text without edges
            last = first + len(phrase.text) - 1
            yield self.starts[first], self.ends[last]
            # Its last edge may be the first one of the next.
            at = self.edged.find(phrase.edged, at + len(phrase.edged) - 1)


def _occurrences(phrase: _Folded, caption: _Folded, plain_caption: _Folded) -> list[Span]:
    """Where a phrase stands.

    First as it is written, then in other places with marks in it or left out.
    """
    spans = list(caption.occurrences(phrase))
    plain = _without_marks(phrase)
    if plain is phrase and plain_caption is caption:
        return spans
    covered = bytearray(caption.ends[-1] if caption.text else 0)
    for start, end in spans:
        covered[start:end] = bytes([1]) * (end - start)
    for span in plain_caption.occurrences(plain):
        if covered.find(1, *span) < 0:
            spans.append(span)
    return spans


def _without_marks(folded: _Folded) -> _Folded:
    """The text without Markdown's marks.

    Between two letters of a word (vis_a, 2*3) or between blanks is none.
    """
    kept: list[Span] = []
    end = 0
    for mark in _MARKS.finditer(folded.text):
        before = slice(max(0, mark.start() - 1), mark.start())
        after = slice(mark.end(), mark.end() + 1)
        is_bare = not (folded.text[before] + folded.text[after]).strip(" ")
        is_within_a_word = (folded.kinds[before] + folded.kinds[after]).lower() == 2 * _WORD
        has_accent = folded.kinds[after].isupper()
        if not is_bare and not is_within_a_word and not has_accent:
            kept.append((end, mark.start()))
            end = mark.end()
    if not kept:
        return folded
    return folded.part([*kept, (end, len(folded.text))])


def _stripped(folded: _Folded) -> _Folded:
    """The text without blanks before and after it."""
    start = len(folded.text) - len(folded.text.lstrip(" "))
    end = len(folded.text.rstrip(" "))
    if (start, end) == (0, len(folded.text)):
        return folded
    return folded.part([(start, end)])


def _fold(text: str) -> _Folded:
    if text.isascii() and " ".join(text.split()) == text:  # most are: each character is a letter
        lower = text.lower()
        kinds = lower.translate(_ASCII_KINDS)
        return _Folded(lower, kinds, range(len(text)), range(1, len(text) + 1))
    return _fold_letters(text)


def _fold_letters(text: str) -> _Folded:
    """A text folded letter by letter; blanks that follow one another are one."""
    letters: list[str] = []
    kinds: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _goes_on(text[end - 1], text[end]):
            continue
        letter = _fold_letter(text[start:end])
        is_second_blank = letter == " " and letters[-1:] == [" "]
        if letter and not is_second_blank:
            kind = _WORD if _is_of_word(text[start], letter[0]) else _SIGN
            goes_on = kind.upper()
            # An accent may be left from a letter that can't be seen.
            if _is_accent(letter[0]) and letters and letters[-1] != " ":
                kind = goes_on
            letters.append(letter)
            kinds.append(kind + goes_on * (len(letter) - 1))
            starts += [start] * len(letter)
            ends += [end] * len(letter)
        start = end
    return _Folded("".join(letters), "".join(kinds), starts, ends)


def _goes_on(before: str, after: str) -> bool:
    """Whether `after` is part of the letter before.

    So is an accent, the rest of a Hangul syllable or of a joined emoji.
    """
    if after < "\u0300" or before.isspace():
        return before == "\u200d" and not after.isspace()
    if _is_accent(after) or "\u1160" <= after <= "\u11ff" or after in "ﾞﾟ":
        return True
    return "\u200d" in (before, after) or "🏻" <= after <= "🏿"


def _fold_letter(letter: str) -> str:
    if letter.isspace():
        return " "
    if letter.isascii():
        return letter.lower()
    decomposed = _decomposed(letter.translate(_SAME))
    return _decomposed(decomposed.casefold()).translate(_SAME)  # may become several: ß, İ


def _decomposed(letter: str) -> str:
    """Return a text in Unicode's compatibility form: ３, ﬁ, ㎡.

    Where words would end within that it stays a sign: ½, …, ℃, ¨.
    """
    compatible = unicodedata.normalize("NFKD", letter)
    is_of_one_word = all(part.isalnum() or _is_accent(part) for part in compatible)
    if is_of_one_word or len(compatible) == 1:
        return compatible
    return unicodedata.normalize("NFD", letter)


def _is_accent(letter: str) -> bool:
    return letter >= "\u0300" and unicodedata.category(letter).startswith("M")


@lru_cache(maxsize=4096)
def _is_of_word(letter: str, folded: str) -> bool:
    """Whether words of this letter's script end where its letters end.

    Scripts written without spaces have no edges. `folded` is how the letter begins as it is
    compared: a modifier letter may be an apostrophe. A sign isn't of a word, though its
    compatibility form is spelt with letters: ™, ㎡. Half-width kana are folded to kana.
    """
    if _is_accent(folded):
        return True
    if not (folded.isalnum() or folded == "_") or unicodedata.category(letter).startswith("S"):
        return False
    name = unicodedata.name(folded, "")
    return not name.startswith(
        ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL")
    )
