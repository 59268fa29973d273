"""The places of phrases in a caption: spans as [start, end) in code points (`find_spans`).

Phrase and caption are compared in a folded form, in which case, spacing, kinds of quotation marks,
accents' composition and the like make no difference. A folded text knows where each of its
characters comes from, so that a match becomes a span in the original. Phrases are found between
edges of words only: the folded text is cut into words at each edge, and so is the phrase.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Span: TypeAlias = tuple[int, int]

_QUOTES = dict.fromkeys(map(ord, "‘’‚‛‹›❛❜ʼʻʹ′´"), "'") | dict.fromkeys(
    map(ord, "“”„‟«»「」『』〝〞〟❝❞″"), '"'
)
_HYPHENS = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")  # an em dash too: models write a hyphen for it
# Characters that can't be seen: soft hyphen, zero-width space, marks of direction, word joiner,
# byte order mark. Joiners (U+200C, U+200D) are left: they make other letters and emoji of those
# around them.
_UNSEEN = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
# What characters are compared as; None removes one.
_SAME = _QUOTES | _HYPHENS | dict.fromkeys(map(ord, _UNSEEN))
# Markdown's marks of emphasis, code and links, as many as come together: in "**[a dog](x.html)**"
# "**[" and "](x.html)**". An address has no brackets, so that none is read twice.
_MARKS = re.compile(r"(?:[*_`\[]|~~|\](?:\([^()\[\]]*\))?)+")
# The kinds of characters: part of a word, or not. The kind is a capital where the character
# continues the letter before it, as an accent does, so that no word ends between the two.
_WORD = "w"
_SIGN = "s"


def _ascii_kind(code: int) -> str:
    return _WORD if chr(code).isalnum() or chr(code) == "_" else _SIGN


_ASCII_KINDS = {code: _ascii_kind(code) for code in range(128)}
# Matches the places in a string of kinds where a word may begin or end: before no continuation, and
# not between two characters of a word. In "wswww", the kinds of "a cat", these are 0, 1, 2 and 5.
_EDGES = re.compile("(?![WS])(?:(?<![wW])|(?!w))")
_JOINER = "\u200d"  # U+200D, which makes one emoji of those next to it


def clean_caption(caption: str) -> str:
    """Return the caption in Unicode NFC, stripped; control characters and gaps are one blank."""
    text = unicodedata.normalize("NFC", caption)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text)
    return " ".join(text.split())


def find_spans(phrases: Sequence[str], caption: str) -> list[Span | None]:
    """Find where each phrase occurs in a caption.

    Long phrases choose first. A phrase prefers occurrences that overlap no span taken yet, and
    takes others only where these are too few: "dog" in "the brown dog and a dog" is the second, if
    "the brown dog" is sought as well.

    Args:
        phrases: The phrases; equal ones get different occurrences, in order.
        caption: The text to look in.

    Returns:
        For each phrase `[start, end)` in code points, at word edges; None if it is empty or doesn't
        occur (again). The text equals the phrase but for case, spacing, kinds of quotation mark and
        dash, Unicode's composition and compatibility forms (full-width digits, ligatures), unseen
        characters, and Markdown's marks at the edges of words.

    Example:
        >>> find_spans(["a cat", "a cat", "dog"], "A cat and a  cat")
        [(0, 5), (10, 16), None]
        >>> find_spans(["the red car"], "the **red** car")
        [(0, 15)]
    """
    if not caption:
        return [None] * len(phrases)
    folded_caption = _fold(caption)
    plain_caption = _without_marks(folded_caption)
    spans: list[Span | None] = [None] * len(phrases)
    is_taken = bytearray(len(caption))  # 1 for each character of the caption that is in a span
    for wanted in _wanted_phrases(phrases):
        free: list[Span] = []
        overlapping: list[Span] = []  # those that share a character with a span taken already
        for start, end in _occurrences(wanted.phrase, folded_caption, plain_caption):
            if any(is_taken[start:end]):
                overlapping.append((start, end))
            else:
                free.append((start, end))
        chosen = [*free, *overlapping][: len(wanted.indices)]
        # The first of equal phrases gets the first place in the caption. If there are fewer places
        # than phrases, the last phrases get none, hence strict=False.
        for index, (start, end) in zip(wanted.indices, sorted(chosen), strict=False):
            spans[index] = (start, end)
            is_taken[start:end] = b"\1" * (end - start)
    return spans


class _WantedPhrase(NamedTuple):
    """A phrase that is looked for, and the indices of the phrases that are equal to it."""

    phrase: "_Folded"
    indices: list[int]


def _wanted_phrases(phrases: Sequence[str]) -> list[_WantedPhrase]:
    """Return the phrases that are looked for, equal ones as one, the longest first."""
    wanted_by_words: dict[tuple[str, ...], _WantedPhrase] = {}
    for index, text in enumerate(phrases):
        phrase = _stripped(_fold(text))
        wanted = wanted_by_words.setdefault(phrase.words, _WantedPhrase(phrase, []))
        wanted.indices.append(index)
    return sorted(
        wanted_by_words.values(), key=lambda wanted: len(wanted.phrase.text), reverse=True
    )


def nearest_place(phrase: str, offset: float, caption: str) -> Span | None:
    """Return the place of a phrase, as `find_spans` finds it, that begins nearest to an offset."""
    folded_caption = _fold(caption)
    plain_caption = _without_marks(folded_caption)
    places = _occurrences(_stripped(_fold(phrase)), folded_caption, plain_caption)
    return min(places, key=lambda place: abs(place[0] - offset), default=None)


def whole_words(span: Span, caption: str) -> Span:
    """Return a span without blanks at its ends, and with the words that it cuts."""
    # The span is one that a label file states: what is outside of the caption is cut off.
    start = max(0, span[0])
    end = max(start, min(span[1], len(caption)))
    words = caption[start:end]
    blanks_before = len(words) - len(words.lstrip())
    start += blanks_before
    end = start + len(words.strip())
    if start == end:
        return start, end
    folded = _fold(caption)
    # A word is what is between two edges, so each edge begins and ends one, but for the outer two.
    # In "a cat", with edges at 0, 1, 2 and 5, words begin at 0, 1 and 2, and end at 1, 2 and 5.
    starts_of_words = [folded.starts[edge] for edge in folded.edges if edge < len(folded.starts)]
    ends_of_words = [folded.ends[edge - 1] for edge in folded.edges if edge > 0]
    whole_start = max((place for place in starts_of_words if place <= start), default=start)
    whole_end = min((place for place in ends_of_words if place >= end), default=end)
    return whole_start, whole_end


def as_compared(phrase: str) -> str:
    """Return a phrase in the form in which `find_spans` compares it, equal for equal phrases."""
    return _stripped(_fold(phrase)).text


class _Folded:
    """A text in the form in which it is compared.

    A letter, as a reader sees it, may be several characters before folding (é as e and an accent)
    or after it (ß as ss). `starts` and `ends` say where each character's letter is in the original.
    """

    def __init__(self, text: str, kinds: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.text = text
        self.kinds = kinds
        self.starts = starts
        self.ends = ends
        self.edges = [edge.start() for edge in _EDGES.finditer(kinds)]
        # blanks and signs as well: "a", " " and "cat" of "a cat"
        self.words = tuple(text[start:end] for start, end in pairwise(self.edges))

    @cached_property
    def _places_of(self) -> Mapping[str, Sequence[int]]:
        """Return the indices of each word among the words."""
        places_of = defaultdict[str, list[int]](list)
        for place, word in enumerate(self.words):
            places_of[word].append(place)
        return places_of

    def part(self, ranges: Sequence[Span]) -> "_Folded":
        """Return what is in these ranges of the folded text, joined."""
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
        """Yield a phrase's places in the original text, from left to right, without overlap."""
        if not phrase.text:
            return
        # Only places of the phrase's rarest word are looked at, so that the time doesn't grow with
        # the caption times the phrases: a caption may have as many words as there are phrases.
        rarest = min(phrase.words, key=lambda word: len(self._places_of.get(word, ())))
        words_before = phrase.words.index(rarest)
        end_of_last = 0  # where the last occurrence ends, as an index of words
        for place in self._places_of.get(rarest, ()):
            start = place - words_before
            if start < end_of_last:
                continue  # before the text's first word, or on words of the last occurrence
            stop = start + len(phrase.words)
            if self.words[start:stop] == phrase.words:
                end_of_last = stop
                # the word with index i is from edge i to edge i + 1 of the folded text
                first_character = self.edges[start]
                last_character = self.edges[stop] - 1
                yield self.starts[first_character], self.ends[last_character]


def _occurrences(phrase: _Folded, caption: _Folded, plain_caption: _Folded) -> list[Span]:
    """Return the places of a phrase, first those with its own Markdown marks, then any others."""
    with_marks = list(caption.occurrences(phrase))
    plain_phrase = _without_marks(phrase)
    has_no_marks = plain_phrase is phrase and plain_caption is caption
    if has_no_marks:
        return with_marks
    without_marks: list[Span] = []
    for span in plain_caption.occurrences(plain_phrase):
        if not _overlaps_one_of(span, with_marks):
            without_marks.append(span)
    return with_marks + without_marks


def _overlaps_one_of(span: Span, spans: Sequence[Span]) -> bool:
    """Whether a span shares a character with one of several, which are in order."""
    start, end = span
    # Only the last of them that begins before the span's end may share one.
    # (end, end) comes before all that begin at `end` or later
    last_before_end = bisect_left(spans, (end, end)) - 1
    return last_before_end >= 0 and spans[last_before_end][1] > start


def _without_marks(folded: _Folded) -> _Folded:
    """Return a text without Markdown's marks; the same object where it has none."""
    ranges_between_marks: list[Span] = []
    end_of_last_mark = 0
    for signs in _MARKS.finditer(folded.text):
        start, end = signs.span()
        if _are_signs_of_the_text(folded, start, end):
            continue
        ranges_between_marks.append((end_of_last_mark, start))
        end_of_last_mark = end
    if not ranges_between_marks:
        return folded
    ranges_between_marks.append((end_of_last_mark, len(folded.text)))
    return folded.part(ranges_between_marks)


def _are_signs_of_the_text(folded: _Folded, start: int, end: int) -> bool:
    """Whether signs belong to the text, though Markdown has such marks: vis_a, "2 * 3"."""

    # the characters next to the signs, "" at an end of the text, and their kinds
    before = folded.text[max(0, start - 1) : start]
    after = folded.text[end : end + 1]
    kind_before = folded.kinds[max(0, start - 1) : start]
    kind_after = folded.kinds[end : end + 1]
    is_bare = before in ("", " ") and after in ("", " ")
    is_within_a_word = kind_before.lower() == _WORD and kind_after.lower() == _WORD
    return is_bare or is_within_a_word


def _stripped(folded: _Folded) -> _Folded:
    start = len(folded.text) - len(folded.text.lstrip(" "))
    end = len(folded.text.rstrip(" "))
    if (start, end) == (0, len(folded.text)):
        return folded
    return folded.part([(start, end)])


@lru_cache(maxsize=16)  # expressions of one caption come one after the other
def _fold(text: str) -> _Folded:
    # Most texts are ASCII with single blanks: each character is a letter of its own.
    if text.isascii() and " ".join(text.split()) == text:
        lower = text.lower()
        kinds = lower.translate(_ASCII_KINDS)
        return _Folded(lower, kinds, range(len(text)), range(1, len(text) + 1))
    return _fold_letters(text)


def _fold_letters(text: str) -> _Folded:
    """Fold a text by letters as a reader sees them, each of one or several characters."""
    letters: list[str] = []
    kinds: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _are_of_one_letter(text[end - 1], text[end]):
            continue  # the letter that began at `start` goes on
        letter = _fold_letter(text[start:end])  # "" for one that can't be seen
        is_second_blank = letter == " " and letters[-1:] == [" "]
        if letter and not is_second_blank:
            letter_before = letters[-1] if letters else " "
            kinds.append(_kinds_of(letter, text[start], letter_before))
            letters.append(letter)
            starts += [start] * len(letter)
            ends += [end] * len(letter)
        start = end
    return _Folded("".join(letters), "".join(kinds), starts, ends)


def _kinds_of(letter: str, original: str, letter_before: str) -> str:
    """Return the kind of each character of a folded letter: "wW" of "ss", which was ß."""
    kind = _WORD if _is_of_word(original, letter[0]) else _SIGN
    continuing_kind = kind.upper()
    # Folding leaves an accent alone if it was on a character that can't be seen.
    goes_on_with_letter_before = _is_accent(letter[0]) and letter_before != " "
    if goes_on_with_letter_before:
        return continuing_kind * len(letter)
    return kind + continuing_kind * (len(letter) - 1)


def _are_of_one_letter(before: str, after: str) -> bool:
    """Whether a character goes on with the letter before it, as an accent does."""
    if before.isspace():
        return False
    if after < "\u0300":  # where accents begin: what is below is a letter or sign of its own
        return False
    if _is_accent(after):
        return True
    is_rest_of_hangul = "\u1160" <= after <= "\u11ff"  # vowels and final consonants
    is_sound_mark = after in "ﾞﾟ"  # of half-width kana
    is_skin_tone = "🏻" <= after <= "🏿"  # of the emoji before
    is_joined = _JOINER in (before, after)
    return is_rest_of_hangul or is_sound_mark or is_skin_tone or is_joined


def _fold_letter(letter: str) -> str:
    if letter.isspace():
        return " "
    if letter.isascii():
        return letter.lower()
    decomposed = _decomposed(letter.translate(_SAME))
    return _decomposed(decomposed.casefold()).translate(_SAME)  # may become several: ß, İ


def _decomposed(letter: str) -> str:
    """Return the compatibility form if it is one word or character; else the canonical one."""
    # "fi" of the ligature ﬁ, but not "1⁄2" of ½, which would be cut into several words.
    compatible = unicodedata.normalize("NFKD", letter)
    is_of_one_word = all(part.isalnum() or _is_accent(part) for part in compatible)
    if is_of_one_word or len(compatible) == 1:
        return compatible
    return unicodedata.normalize("NFD", letter)


def _is_accent(letter: str) -> bool:
    return letter >= "\u0300" and unicodedata.category(letter).startswith("M")


@lru_cache(maxsize=4096)
def _is_of_word(letter: str, folded: str) -> bool:
    """Whether a letter holds a word together: no phrase begins or ends next to it in the word."""
    if _is_accent(folded):
        return True
    # The compatibility form of a sign may be spelt with letters (™, ㎡).
    is_sign = unicodedata.category(letter).startswith("S")
    if is_sign or not (folded.isalnum() or folded == "_"):
        return False
    # In scripts without spaces a phrase may begin or end at any letter. So it may in Hangul, whose
    # particles follow a noun without a space.
    name = unicodedata.name(folded, "")
    return not name.startswith(
        ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL")
    )
