"""English noun phrases, read by rules over closed word lists."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataflow_grounding.data.nouns import singular
from dataflow_grounding.extras.embedded import _words as words

# Nobody says more in one phrase, and reading takes time in proportion to the text's length.
_MOST_DETERMINERS = 3  # articles before a noun
_MOST_WORDS = 12  # behind them, or of a position
_LONGEST = 400  # characters of a phrase
# Words that may stand in a position: "in the far left corner".
_PLACING_WORDS = words.PLACES.union(
    words.POSITIONS, words.DEPTHS, ["far", "very", "extreme", "hand"]
)
# Of these, those of which one must be there: "left", "foreground".
_POSITION_WORDS = words.DEPTHS | set(words.POSITIONS)
# Behind these a plural without an article may stand: "with cups".
_BEFORE_PLURALS = words.PREPOSITIONS | words.VERBS | words.CONJUNCTIONS
# Words that may stand between article and noun.
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
# A word, perhaps with hyphens and apostrophes, or a single mark.
TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]|_+")
_COUNTS = words.VAGUE_COUNTS.union(words.NUMBERS)


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """The tokens that a noun phrase takes, by their indices.

    Of "the two red cups on the left": "the" is at ``start``, "red" at ``chunk``, "cups" at
    ``head``, "on" at ``end``, and ``position_end`` is behind "left".

    Attributes:
        start: Its first token.
        chunk: The first token after articles and numbers.
        head: Its noun.
        end: The first token behind it.
        position_end: The first token behind the position words that follow it; `end` without any.
    """

    start: int
    chunk: int
    head: int
    end: int
    position_end: int


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case, and its punctuation marks, one by one.

    A word is letters and digits, perhaps with hyphens and apostrophes between them.
    """
    return [token.lower().replace("’", "'") for token in TOKEN.findall(text)]


def read_noun_phrase(
    tokens: Sequence[str], at: int, *, is_label: bool = False, is_inner: bool = False
) -> NounPhrase | None:
    """Return the noun phrase that begins at ``tokens[at]``; None if none begins there.

    Args:
        tokens: Those of a text.
        at: Where it begins.
        is_label: Whether its noun may be an unknown word, as in a label or a phrase of its own.
        is_inner: Whether it stands behind "of" in another one.
    """
    chunk = at  # where the words of the noun phrase begin, behind articles and numbers
    while chunk < at + _MOST_DETERMINERS and _token(tokens, chunk) in words.ARTICLES:
        chunk += 1
    may_be_unknown = chunk > at or is_label
    may_be_plural = _token(tokens, at - 1) in _BEFORE_PLURALS
    head = _first_noun(tokens, chunk, may_be_unknown, may_be_plural)
    if head is None:
        return None
    head = _last_noun(tokens, head, chunk + _MOST_WORDS)
    end = head + 1
    singular_head = singular(tokens[head])
    takes_of = singular_head in words.OF_HEADS or singular_head in words.QUANTITIES
    # One "of" deep: the rest of "a cup of a brand of tea" is left.
    if takes_of and not is_inner and _token(tokens, end) == "of":
        inner = read_noun_phrase(tokens, end + 1, is_label=True, is_inner=True)
        if inner is not None:
            # "a lot of cups" are cups; "a cup of tea" is a cup.
            if singular_head in words.QUANTITIES:
                chunk = inner.chunk
                head = inner.head
            end = inner.end
    while chunk < head and (tokens[chunk] in _COUNTS or tokens[chunk].isdecimal()):
        chunk += 1
    return NounPhrase(at, chunk, head, end, read_position(tokens, end))


def read_position(tokens: Sequence[str], at: int) -> int:
    """Return the index behind the position words that begin at ``tokens[at]``.

    They are words like "in the top left corner". Without any, it is ``at``.
    """
    if _token(tokens, at) not in ("on", "at", "in", "to", "near", "towards", "toward", "from"):
        return at
    first = at + 1
    if _token(tokens, first) in ("the", "its"):
        first += 1
    end = first
    while end < first + _MOST_WORDS and _token(tokens, end) in _PLACING_WORDS:
        end += 1
    if _POSITION_WORDS.isdisjoint(tokens[first:end]):
        return at
    if _token(tokens, end) != "of":
        # "in the left lane": the position word belongs to a noun of its own.
        return at if words.is_known_noun(_token(tokens, end)) else end
    # "in the corner of the image" is a position, "in the corner of the room" is not.
    of_what = end + 1
    if _token(tokens, of_what) in ("the", "this", "a"):
        of_what += 1
    return of_what + 1 if _token(tokens, of_what) in words.PICTURES else at


def _token(tokens: Sequence[str], at: int) -> str:
    """Return the token at an index; "" before the first and after the last."""
    return tokens[at] if 0 <= at < len(tokens) else ""


def _first_noun(
    tokens: Sequence[str], start: int, may_be_unknown: bool, may_be_plural: bool
) -> int | None:
    """Return the index of the first noun after the adjectives that begin at ``start``.

    None where another word stands before a noun, or none comes within `_MOST_WORDS` tokens.

    Args:
        tokens: Those of a text.
        start: Where articles and numbers have ended.
        may_be_unknown: Whether an article stood there, or the text is a label: then a noun must
            come, even if it isn't in the lists.
        may_be_plural: Whether a plural without an article may stand there.
    """
    modified = may_be_unknown  # whether the words so far ask for a noun
    for at in range(start, min(len(tokens), start + _MOST_WORDS)):
        word = tokens[at]
        if at > start and _is_between_adjectives(tokens, at):
            continue
        if not _may_belong(tokens, at):
            return None
        if _is_modifier(word):
            may_be_noun = may_be_unknown and word in ("orange", "square", "oval")
            if may_be_noun and not _may_belong(tokens, at + 1):
                return at
            modified = True
        elif not modified and may_be_plural and _is_unknown_before_noun(tokens, at):
            modified = True
        elif _is_noun_of_phrase(tokens, at, modified, may_be_plural):
            return at
        elif not modified:
            return None
    return None


def _last_noun(tokens: Sequence[str], head: int, limit: int) -> int:
    """Return the index of the last of several nouns in a row, as "light" in "traffic light".

    The row begins at ``head``, and ends before the index ``limit``.
    """
    while head + 1 < limit and _may_belong(tokens, head + 1):
        if not _is_second_noun(tokens[head], tokens[head + 1]):
            break
        head += 1
    return head


def _is_second_noun(noun: str, word: str) -> bool:
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


def _is_unknown_before_noun(tokens: Sequence[str], at: int) -> bool:
    """Whether the token at an index is an unknown word before a known noun: "curly-ish hair"."""
    word = tokens[at]
    after = _token(tokens, at + 1)
    return not words.is_known(word) and words.is_known_noun(after) and after not in words.VERBS


def _is_modifier(word: str) -> bool:
    """Whether a word modifies a noun behind it: an adjective, a number, "one's", "red-haired"."""
    if word in _MODIFIERS or word.isdecimal() or word.endswith(("'s", "s'")):
        return True
    if "-" not in word:
        return False
    return word.endswith("ed") or any(word.startswith(color + "-") for color in words.CHROMATIC)


def _is_between_adjectives(tokens: Sequence[str], at: int) -> bool:
    """Whether the token at an index is a comma or "and" between two adjectives of one noun.

    So it is in "a big, red ball" and "black and white cat".
    """
    return (
        tokens[at] in (",", "and")
        and _is_modifier(_token(tokens, at - 1))
        and _is_modifier(_token(tokens, at + 1))
        and not tokens[at - 1].isdecimal()
        and _may_belong(tokens, at + 2)
    )


def _may_belong(tokens: Sequence[str], at: int) -> bool:
    """Whether the token at an index may belong to a noun phrase: a word that doesn't end one.

    False before the first token and after the last.
    """
    word = _token(tokens, at)
    return word[:1].isalnum() and word not in words.STOPS and word not in words.ARTICLES


def _is_noun_of_phrase(tokens: Sequence[str], at: int, modified: bool, may_be_plural: bool) -> bool:
    """Whether the token at an index is the noun of its phrase.

    ``modified`` says that an article or adjective stands before it, so that a noun must come;
    ``may_be_plural`` that a plural without an article may stand there.
    """
    word = tokens[at]
    is_known = words.is_known_noun(word)
    is_verb = word in words.VERBS
    if modified:
        is_rather_modifier = word.endswith(("ing", "ed", "ly")) and _may_belong(tokens, at + 1)
        return is_known or not is_rather_modifier
    if is_known:
        return not is_verb or (words.is_plural(word) and may_be_plural)
    if word in words.NOT_OBJECTS:
        return True
    if is_verb or not may_be_plural:
        return False
    return len(word) > 3 and word.isascii() and words.is_plural(word)


def noun_phrases(tokens: Sequence[str]) -> Iterator[NounPhrase]:
    """Yield the noun phrases that name a thing, one after the other.

    Not those that say where something is, "the left", nor one behind "no" or "without".
    """
    at = 0
    while at < len(tokens):
        phrase = read_noun_phrase(tokens, at)
        if phrase is None:
            at += 1
            continue
        head = singular(tokens[phrase.head])
        # "on the left", "in the picture": where something is, not a thing.
        is_no_thing = head in words.NOT_OBJECTS or head.isdecimal() or head in words.NUMBERS
        if is_no_thing or _token(tokens, at - 1) in words.NEGATIONS:
            at = phrase.end
        else:
            yield phrase
            at = phrase.position_end
