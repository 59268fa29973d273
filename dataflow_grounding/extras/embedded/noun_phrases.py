"""English read by rules over closed word lists: noun phrases, and the expressions of a caption."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.extras.embedded import words

# Nobody says more in one phrase, and reading stays linear.
_MOST_DETERMINERS = 3
_MOST_WORDS = 12
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
    """The tokens that a noun phrase takes, by their indices.

    It is ``[start, end)``, ``[end, tail)`` the position that follows it; ``chunk`` is where
    articles and numbers end, ``head`` the noun.
    """

    start: int
    chunk: int
    head: int
    end: int
    tail: int


def tokenize(text: str) -> list[str]:
    """Words in lower case and single punctuation marks.

    A word is letters and digits, joined by hyphens and apostrophes.
    """
    return [token.lower().replace("’", "'") for token in _TOKEN.findall(text)]


def read_noun_phrase(
    tokens: Sequence[str], at: int, *, is_label: bool = False, is_inner: bool = False
) -> NounPhrase | None:
    """The noun phrase that begins at ``tokens[at]``, or None.

    Args:
        tokens: Those of a text.
        at: Where it begins.
        is_label: Whether its noun may be an unknown word.
        is_inner: Whether it stands after "of".
    """
    chunk = at
    while chunk < at + _MOST_DETERMINERS and _token(tokens, chunk) in words.ARTICLES:
        chunk += 1
    may_be_unknown = chunk > at or is_label
    may_be_plural = _token(tokens, at - 1) in _BEFORE_PLURALS
    head = _first_noun(tokens, chunk, may_be_unknown, may_be_plural)
    if head is None:
        return None
    head = _last_noun(tokens, head, chunk + _MOST_WORDS)
    end = head + 1
    singular_head = words.singular(tokens[head])
    takes_of = singular_head in words.OF_HEADS or singular_head in words.QUANTITIES
    # One "of" deep: the rest of "a cup of a brand of tea" is left.
    if takes_of and not is_inner and _token(tokens, end) == "of":
        inner = read_noun_phrase(tokens, end + 1, is_label=True, is_inner=True)
        if inner is not None:
            if singular_head in words.QUANTITIES:
                chunk = inner.chunk
                head = inner.head
            end = inner.end
    while chunk < head and (tokens[chunk] in _COUNTS or tokens[chunk].isdecimal()):
        chunk += 1
    return NounPhrase(at, chunk, head, end, read_position(tokens, end))


def read_position(tokens: Sequence[str], at: int) -> int:
    """Where position words that begin at ``tokens[at]`` end; ``at`` if there are none.

    They are words like "in the top left corner".
    """
    if _token(tokens, at) not in ("on", "at", "in", "to", "near", "towards", "toward", "from"):
        return at
    first = at + 1
    if _token(tokens, first) in ("the", "its"):
        first += 1
    end = first
    while end < first + _MOST_WORDS and _token(tokens, end) in _PLACING:
        end += 1
    if _WHERE.isdisjoint(tokens[first:end]):
        return at
    if _token(tokens, end) != "of":
        # "in the left lane": the position word belongs to a noun of its own.
        return at if words.is_known_noun(_token(tokens, end)) else end
    of_what = end + 1
    if _token(tokens, of_what) in ("the", "this", "a"):
        of_what += 1
    return of_what + 1 if _token(tokens, of_what) in words.PICTURES else at


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
            may_be_noun = may_be_unknown and word in ("orange", "square", "oval")
            if may_be_noun and not _continues(tokens, at + 1):
                return at
            modified = True
        elif not modified and may_be_plural and _describes_next(tokens, at):
            modified = True
        elif _is_noun_here(tokens, at, modified, may_be_plural):
            return at
        elif not modified:
            return None
    return None


def _last_noun(tokens: Sequence[str], head: int, limit: int) -> int:
    """The index of the last of several nouns in a row, before a limit."""
    while head + 1 < limit and _continues(tokens, head + 1):
        if not _extends(tokens[head], tokens[head + 1]):
            break
        head += 1
    return head


def _extends(noun: str, word: str) -> bool:
    """Whether the word after a noun is a noun too, as in "traffic light"."""
    if _is_modifier(word) and word != "light":
        return False
    if word in words.VERBS:
        return False
    if words.is_known_noun(word):
        return True
    if words.is_plural(noun):
        return False
    # After a noun, an unknown word in -s, -ing, -ed or -ly is rather a verb or an adverb.
    return not word.endswith(("s", "ing", "ed", "ly")) or word.endswith(("ss", "us", "is"))


def _describes_next(tokens: Sequence[str], at: int) -> bool:
    """Whether an unknown word stands before a known noun ("with curly-ish hair")."""
    word = tokens[at]
    after = _token(tokens, at + 1)
    return not words.is_known(word) and words.is_known_noun(after) and after not in words.VERBS


def _is_modifier(word: str) -> bool:
    """Whether a word stands before a noun: an adjective, a number, "one's", "red-haired"."""
    if word in _MODIFIERS or word.isdecimal() or word.endswith(("'s", "s'")):
        return True
    if "-" not in word:
        return False
    return word.endswith("ed") or any(word.startswith(color + "-") for color in words.CHROMATIC)


def _joins_adjectives(tokens: Sequence[str], at: int) -> bool:
    """Whether a comma or "and" stands between two adjectives of one noun.

    So it does in "a big, red ball" and "black and white cat".
    """
    return (
        tokens[at] in (",", "and")
        and _is_modifier(_token(tokens, at - 1))
        and _is_modifier(_token(tokens, at + 1))
        and not tokens[at - 1].isdecimal()
        and _continues(tokens, at + 2)
    )


def _continues(tokens: Sequence[str], at: int) -> bool:
    """Whether a word stands there that may still belong to a noun phrase."""
    word = _token(tokens, at)
    return word[:1].isalnum() and word not in words.STOPS and word not in words.ARTICLES


def _is_noun_here(tokens: Sequence[str], at: int, modified: bool, may_be_plural: bool) -> bool:
    """Whether a word is the noun of its phrase, by itself and by what stands before it."""
    word = tokens[at]
    is_known = words.is_known_noun(word)
    is_verb = word in words.VERBS
    if modified:
        return is_known or not (word.endswith(("ing", "ed", "ly")) and _continues(tokens, at + 1))
    if is_known:
        return not is_verb or (words.is_plural(word) and may_be_plural)
    if word in words.NOT_OBJECTS:
        return True
    if is_verb or not may_be_plural:
        return False
    return len(word) > 3 and word.isascii() and words.is_plural(word)


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
    tokens = tokenize(read)
    expressions: list[dict[str, str]] = []
    if not _is_english(tokens, read):
        return {"cleaned_caption": cleaned, "expressions": expressions}
    spans = [match.span() for match in _TOKEN.finditer(read)]
    for phrase in _noun_phrases(tokens):
        text = cleaned[spans[phrase.start][0] : spans[phrase.tail - 1][1]]
        chunk = cleaned[spans[phrase.chunk][0] : spans[phrase.end - 1][1]]
        expressions.append({"text": text, "noun_chunk": chunk})
    return {"cleaned_caption": cleaned, "expressions": expressions}


def _noun_phrases(tokens: list[str]) -> Iterator[NounPhrase]:
    """The noun phrases that name a thing, one after the other."""
    at = 0
    while at < len(tokens):
        phrase = read_noun_phrase(tokens, at)
        if phrase is None:
            at += 1
            continue
        head = words.singular(tokens[phrase.head])
        # "on the left", "in the picture": where something is, not a thing.
        is_no_thing = head in words.NOT_OBJECTS or head.isdecimal() or head in words.NUMBERS
        if is_no_thing or _token(tokens, at - 1) in words.NEGATIONS:
            at = phrase.end
        else:
            yield phrase
            at = phrase.tail


def _is_english(tokens: list[str], text: str) -> bool:
    """Whether a text is in Latin letters, many of its words known and few foreign."""
    read = [token for token in tokens if token[0].isalpha()]
    letters = sum(character.isalpha() for character in text)
    latin = sum(character.isalpha() and character < "\u0250" for character in text)
    known = sum(words.is_known(word) for word in read)
    foreign = sum(word in words.FOREIGN for word in read)
    stops = sum(word in words.STOPS or word in words.ARTICLES for word in read)
    is_latin = bool(read) and latin * 2 >= letters
    return is_latin and known * 3 >= len(read) and foreign * 2 <= max(stops, 1)
