"""A rule-based reader of English noun phrases over closed word lists: tokens in, spans of tokens out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.embedded import words

# Nobody says more in one phrase, and reading stays linear.
_MOST_DETERMINERS, _MOST_WORDS = 3, 12
_WHERE = words.DEPTHS.union(words.POSITIONS, ["distance"])
_PLACING = words.PLACES.union(words.POSITIONS, words.DEPTHS, ["far", "very", "extreme", "hand"])
_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]|_+")


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a punctuation mark: ``text[start:end]`` of what was tokenised, and its lower-case form."""

    lower: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """Token indices: ``[start, end)``, ``chunk`` after articles, ``head`` the noun, ``[end, tail)`` position words."""

    start: int
    chunk: int
    head: int
    end: int
    tail: int


def tokenize(text: str) -> list[Token]:
    """Words (letters and digits, joined by hyphens and apostrophes) and single punctuation marks, in order."""
    return [Token(m.group().lower().replace("’", "'"), m.start(), m.end()) for m in _TOKEN.finditer(text)]


def read_noun_phrase(
    tokens: Sequence[Token], at: int, *, is_label: bool = False, is_inner: bool = False
) -> NounPhrase | None:
    """The noun phrase that begins at ``tokens[at]``, or None; ``is_label`` may be unknown, ``is_inner``: after "of"."""
    chunk = _skip_determiners(tokens, at)
    determined = chunk > at
    noun_at, end = _read_nouns(tokens, chunk, determined or is_label, _may_be_bare_plural(tokens, at))
    if noun_at is None:
        return None
    head, singular_head = noun_at, words.singular(tokens[noun_at].lower)
    # One "of" deep: the rest of "a cup of a brand of tea" is left.
    if not is_inner and _lower(tokens, end) == "of" and singular_head in words.OF_HEADS | words.QUANTITIES:
        inner = read_noun_phrase(tokens, end + 1, is_label=True, is_inner=True)
        if inner is not None:
            if singular_head in words.QUANTITIES:
                chunk, head = inner.chunk, inner.head
            end = inner.end
    return NounPhrase(at, chunk, head, end, read_position(tokens, end))


def read_position(tokens: Sequence[Token], at: int) -> int:
    """Where position words that begin at ``tokens[at]`` end ("in the top left corner"); ``at`` if there are none."""
    here = at
    if _lower(tokens, here) not in ("on", "at", "in", "to", "near", "towards", "toward", "from"):
        return at
    here += 1
    if _lower(tokens, here) in ("the", "its"):
        here += 1
    first = here
    while here < first + _MOST_WORDS and _lower(tokens, here) in _PLACING:
        here += 1
    if not any(token.lower in _WHERE for token in tokens[first:here]):
        return at
    if _lower(tokens, here) != "of":
        # "in the left lane": the position word belongs to a noun of its own.
        return at if words.is_known_noun(_lower(tokens, here)) else here
    after = here + 1
    if _lower(tokens, after) in ("the", "this", "a"):
        after += 1
    return after + 1 if _lower(tokens, after) in words.PICTURES else at


def _lower(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].lower if 0 <= at < len(tokens) else ""


def _skip_determiners(tokens: Sequence[Token], at: int) -> int:
    here = at
    while _lower(tokens, here) in words.ARTICLES and here < at + _MOST_DETERMINERS:
        here += 1
    return here


def _may_be_bare_plural(tokens: Sequence[Token], at: int) -> bool:
    before = _lower(tokens, at - 1)
    return before in words.PREPOSITIONS or before in words.VERBS or before in words.CONJUNCTIONS


def _read_nouns(
    tokens: Sequence[Token], start: int, may_be_unknown: bool, may_be_plural: bool
) -> tuple[int | None, int]:
    """The index of the last noun of a run of adjectives and nouns that begins at ``start``, and the run's end."""
    noun: int | None = None
    modified = may_be_unknown
    at = start
    while at < min(len(tokens), start + _MOST_WORDS):
        word = tokens[at].lower
        if _joins_adjectives(tokens, at, noun is None and at > start):
            at += 1
            continue
        if word in words.STOPS or word in words.ARTICLES or not word[0].isalnum():
            break
        if _is_modifier(word) and not (word == "light" and noun is not None):
            if noun is not None:
                break
            modified = True
            at += 1
            if word in ("orange", "square", "oval") and not _continues(tokens, at) and may_be_unknown:
                noun = at - 1
                break
            continue
        if noun is None and not modified and may_be_plural and _describes_next(tokens, at):
            modified = True
            at += 1
            continue
        if not _is_noun_here(tokens, at, noun, modified, may_be_plural):
            if noun is None and word.endswith(("ing", "ed", "ly")) and modified and _continues(tokens, at + 1):
                at += 1
                continue
            break
        noun = at
        modified = True
        at += 1
    return noun, at if noun is None else noun + 1


def _describes_next(tokens: Sequence[Token], at: int) -> bool:
    """Whether an unknown word stands before a known noun ("with curly-ish hair")."""
    word, after = tokens[at].lower, _lower(tokens, at + 1)
    return not words.is_known(word) and words.is_known_noun(after) and after not in words.VERBS


def _is_modifier(word: str) -> bool:
    return (
        (word in words.CHROMATIC or word in words.ACHROMATIC or word in words.TONES or word in words.SIZES)
        or (word in words.POSITIONS or word in words.MANY_COLORED or word in words.VAGUE_COUNTS)
        or (word in words.ADJECTIVES or word in words.NUMBERS or word.isdecimal() or word.endswith(("'s", "s'")))
        or ("-" in word and word.endswith("ed"))
        or any(word.startswith(color + "-") for color in words.CHROMATIC)
    )


def _joins_adjectives(tokens: Sequence[Token], at: int, inside: bool) -> bool:
    """Whether a comma or "and" stands between two adjectives of one noun ("a big, red ball", "black and white cat")."""
    return (
        inside
        and tokens[at].lower in (",", "and")
        and _is_modifier(_lower(tokens, at - 1))
        and _is_modifier(_lower(tokens, at + 1))
        and not tokens[at - 1].lower.isdecimal()
        and _continues(tokens, at + 2)
    )


def _continues(tokens: Sequence[Token], at: int) -> bool:
    word = _lower(tokens, at)
    return bool(word) and word[0].isalnum() and word not in words.STOPS and word not in words.ARTICLES


def _is_noun_here(tokens: Sequence[Token], at: int, noun: int | None, modified: bool, may_be_plural: bool) -> bool:
    word = tokens[at].lower
    known, verb = words.is_known_noun(word), word in words.VERBS
    if noun is not None:
        before = tokens[noun].lower
        if verb or (words.is_plural(before) and not known):
            return False
        # After a noun, an unknown word in -s, -ing, -ed or -ly is rather a verb or an adverb.
        return known or not word.endswith(("s", "ing", "ed", "ly")) or word.endswith(("ss", "us", "is"))
    if modified:
        return known or not (word.endswith(("ing", "ed", "ly")) and _continues(tokens, at + 1))
    if known:
        return not verb or (words.is_plural(word) and may_be_plural)
    if word in words.NOT_OBJECTS:
        return True
    return may_be_plural and not verb and len(word) > 3 and word.isascii() and words.is_plural(word)
