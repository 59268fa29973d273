"""English read by rules over closed word lists: noun phrases, as spans of tokens, and the
expressions of a caption.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from dataflow_grounding.extras.embedded import words

# Nobody says more in one phrase, and reading stays linear.
_MOST_DETERMINERS, _MOST_WORDS = 3, 12
_WHERE = words.DEPTHS | set(words.POSITIONS)
_PLACING = words.PLACES.union(words.POSITIONS, words.DEPTHS, ["far", "very", "extreme", "hand"])
# a bare plural may come after
_BEFORE_PLURALS = words.PREPOSITIONS | words.VERBS | words.CONJUNCTIONS
_MODIFIERS = words.ADJECTIVES.union(
    words.CHROMATIC,
    words.ACHROMATIC,
    words.TONES,
    words.SIZES,
    words.POSITIONS,
    words.MANY_COLORED,
    words.VAGUE_COUNTS,
    words.NUMBERS,
)
_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]|_+")
# A longer text is not a caption; only its beginning is read, so that time stays bounded.
_READ_CHARACTERS = 20_000
_COUNTS = words.VAGUE_COUNTS.union(words.NUMBERS)


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """Token indices: ``[start, end)``, ``chunk`` after articles and numbers, ``head``, ``[end,
    tail)`` the position.
    """

    start: int
    chunk: int
    head: int
    end: int
    tail: int


def tokenize(text: str) -> list[str]:
    """Words (letters and digits, joined by hyphens and apostrophes) in lower case and single
    punctuation marks.
    """
    return [token.lower().replace("’", "'") for token in _TOKEN.findall(text)]


def read_noun_phrase(
    tokens: Sequence[str], at: int, *, is_label: bool = False, is_inner: bool = False
) -> NounPhrase | None:
    """The noun phrase that begins at ``tokens[at]``, or None; ``is_label`` may be unknown,
    ``is_inner``: after "of".
    """
    chunk = at + len([*takewhile(words.ARTICLES.__contains__, tokens[at : at + _MOST_DETERMINERS])])
    head = _first_noun(
        tokens, chunk, chunk > at or is_label, _token(tokens, at - 1) in _BEFORE_PLURALS
    )
    if head is None:
        return None
    while (
        head + 1 < chunk + _MOST_WORDS
        and _continues(tokens, head + 1)
        and _extends(*tokens[head : head + 2])
    ):
        head += 1
    end, singular_head = head + 1, words.singular(tokens[head])
    # One "of" deep: the rest of "a cup of a brand of tea" is left.
    if (
        not is_inner
        and _token(tokens, end) == "of"
        and singular_head in words.OF_HEADS | words.QUANTITIES
    ):
        inner = read_noun_phrase(tokens, end + 1, is_label=True, is_inner=True)
        if inner is not None:
            if singular_head in words.QUANTITIES:
                chunk, head = inner.chunk, inner.head
            end = inner.end
    while chunk < head and (tokens[chunk] in _COUNTS or tokens[chunk].isdecimal()):
        chunk += 1
    return NounPhrase(at, chunk, head, end, read_position(tokens, end))


def read_position(tokens: Sequence[str], at: int) -> int:
    """Where position words that begin at ``tokens[at]`` end ("in the top left corner"); ``at`` if
    there are none.
    """
    if _token(tokens, at) not in ("on", "at", "in", "to", "near", "towards", "toward", "from"):
        return at
    here = first = at + 2 if _token(tokens, at + 1) in ("the", "its") else at + 1
    while here < first + _MOST_WORDS and _token(tokens, here) in _PLACING:
        here += 1
    if _WHERE.isdisjoint(tokens[first:here]):
        return at
    if _token(tokens, here) != "of":
        # "in the left lane": the position word belongs to a noun of its own.
        return at if words.is_known_noun(_token(tokens, here)) else here
    after = here + 2 if _token(tokens, here + 1) in ("the", "this", "a") else here + 1
    return after + 1 if _token(tokens, after) in words.PICTURES else at


def _token(tokens: Sequence[str], at: int) -> str:
    """The token that stands there; empty before the first and after the last."""
    return tokens[at] if 0 <= at < len(tokens) else ""


def _first_noun(
    tokens: Sequence[str], start: int, may_be_unknown: bool, may_be_plural: bool
) -> int | None:
    """The index of the first noun after the adjectives that begin at ``start``."""
    modified = may_be_unknown
    for at in range(start, min(len(tokens), start + _MOST_WORDS)):
        word = tokens[at]
        if at > start and _joins_adjectives(tokens, at):
            continue
        if not _continues(tokens, at):
            return None
        if _is_modifier(word):
            if (
                word in ("orange", "square", "oval")
                and may_be_unknown
                and not _continues(tokens, at + 1)
            ):
                return at
            modified = True
        elif not modified and may_be_plural and _describes_next(tokens, at):
            modified = True
        elif _is_noun_here(tokens, at, modified, may_be_plural):
            return at
        elif not modified:
            return None
    return None


def _extends(noun: str, word: str) -> bool:
    """Whether the word after a noun is a noun too, as in "traffic light"."""
    known = words.is_known_noun(word)
    if (
        (_is_modifier(word) and word != "light")
        or word in words.VERBS
        or (words.is_plural(noun) and not known)
    ):
        return False
    # After a noun, an unknown word in -s, -ing, -ed or -ly is rather a verb or an adverb.
    return known or not word.endswith(("s", "ing", "ed", "ly")) or word.endswith(("ss", "us", "is"))


def _describes_next(tokens: Sequence[str], at: int) -> bool:
    """Whether an unknown word stands before a known noun ("with curly-ish hair")."""
    word, after = tokens[at], _token(tokens, at + 1)
    return not words.is_known(word) and words.is_known_noun(after) and after not in words.VERBS


def _is_modifier(word: str) -> bool:
    return (
        (word in _MODIFIERS or word.isdecimal() or word.endswith(("'s", "s'")))
        or ("-" in word and word.endswith("ed"))
        or any(word.startswith(color + "-") for color in words.CHROMATIC)
    )


def _joins_adjectives(tokens: Sequence[str], at: int) -> bool:
    """Whether a comma or "and" stands between two adjectives of one noun ("a big, red ball", "black
    and white cat").
    """
    return (
        tokens[at] in (",", "and")
        and _is_modifier(_token(tokens, at - 1))
        and _is_modifier(_token(tokens, at + 1))
        and not tokens[at - 1].isdecimal()
        and _continues(tokens, at + 2)
    )


def _continues(tokens: Sequence[str], at: int) -> bool:
    word = _token(tokens, at)
    return word[:1].isalnum() and word not in words.STOPS and word not in words.ARTICLES


def _is_noun_here(tokens: Sequence[str], at: int, modified: bool, may_be_plural: bool) -> bool:
    word = tokens[at]
    known, verb = words.is_known_noun(word), word in words.VERBS
    if modified:
        return known or not (word.endswith(("ing", "ed", "ly")) and _continues(tokens, at + 1))
    if known:
        return not verb or (words.is_plural(word) and may_be_plural)
    if word in words.NOT_OBJECTS:
        return True
    return may_be_plural and not verb and len(word) > 3 and word.isascii() and words.is_plural(word)


def extract_expressions(caption: str) -> dict[str, Any]:
    """The referring expressions of an English caption, by word lists and rules (no model).

    Returns ``{"cleaned_caption": str, "expressions": [{"text": str, "noun_chunk": str}, ...]}``.
    ``cleaned_caption`` is the caption in NFC with single spaces; each ``text`` is an exact part of
    it, in order of occurrence and not overlapping: a noun phrase with the position words that
    follow it. ``noun_chunk`` is that phrase without article, number and position words. A caption
    in another language has no expressions.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    read = cleaned[:_READ_CHARACTERS]
    tokens, spans = tokenize(read), [match.span() for match in _TOKEN.finditer(read)]
    expressions = []
    for phrase in _noun_phrases(tokens) if _is_english(tokens, read) else ():
        text = cleaned[spans[phrase.start][0] : spans[phrase.tail - 1][1]]
        chunk = cleaned[spans[phrase.chunk][0] : spans[phrase.end - 1][1]]
        expressions.append({"text": text, "noun_chunk": chunk})
    return {"cleaned_caption": cleaned, "expressions": expressions}


def _noun_phrases(tokens: list[str]) -> Iterator[NounPhrase]:
    at = 0
    while at < len(tokens):
        phrase = read_noun_phrase(tokens, at)
        head = words.singular(tokens[phrase.head]) if phrase else ""
        # "on the left", "in the picture": where something is, not a thing.
        is_thing = (
            head not in words.NOT_OBJECTS and not head.isdecimal() and head not in words.NUMBERS
        )
        if phrase and is_thing and _token(tokens, at - 1) not in words.NEGATIONS:
            yield phrase
            at = phrase.tail
        else:
            at = phrase.end if phrase else at + 1


def _is_english(tokens: list[str], text: str) -> bool:
    read = [token for token in tokens if token[0].isalpha()]
    letters = sum(character.isalpha() for character in text)
    latin = sum(character.isalpha() and character < "\u0250" for character in text)
    known = sum(words.is_known(word) for word in read)
    foreign = sum(word in words.FOREIGN for word in read)
    stops = sum(word in words.STOPS or word in words.ARTICLES for word in read)
    is_latin = bool(read) and latin * 2 >= letters
    return is_latin and known * 3 >= len(read) and foreign * 2 <= max(stops, 1)
