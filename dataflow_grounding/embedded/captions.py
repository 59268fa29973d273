"""The expressions of an English caption, without a model."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from dataflow_grounding.embedded import _words as words
from dataflow_grounding.english.colors import COLORS
from dataflow_grounding.english.heads import ends_phrase
from dataflow_grounding.english.nouns import singular

# A longer text is not a caption; only its beginning is read, so that time stays bounded.
_MOST_CHARACTERS = 20_000
_MOST_WORDS = 12  # of a phrase
_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]|_+")
POSITION = re.compile(
    rf"\s+(?:on|at|in) the (?:far )?(?:{'|'.join(words.POSITIONS)})\b(?: (?:left|right))?\b"
    r"(?: (?:side|corner|half))?(?: of the (?:picture|image|photo))?\b(?! of)",
    re.IGNORECASE,
)
"""Words that may follow a phrase: " in the top left corner"."""


class ExtractedCaption(TypedDict):
    """A caption, and its expressions, each with `text` and `noun_chunk`."""

    cleaned_caption: str
    expressions: list[dict[str, str]]


def extract_expressions(caption: str) -> ExtractedCaption:
    """Find the expressions of an English caption by word lists and rules, without a model.

    Each `text` is an exact part of `cleaned_caption`, with the position words that follow it;
    `noun_chunk` is without article, number and position.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    beginning = cleaned[:_MOST_CHARACTERS]
    matches = list(_TOKEN.finditer(beginning))
    tokens = [match.group().lower() for match in matches]
    expressions: list[dict[str, str]] = []
    foreign_words = sum(token in words.FOREIGN for token in tokens)
    if foreign_words > 1:  # a single one may be English, too: "die", "met", "bar"
        return {"cleaned_caption": cleaned, "expressions": expressions}
    start = 0
    while start < len(tokens):
        phrase = _phrase_at(tokens, start)
        if _is_thing(tokens, phrase):
            phrase = _with_what_it_is_of(tokens, phrase)
            expressions.append(_expression_of(phrase, matches, beginning))
        start = max(phrase.end, start + 1)  # a phrase of no words ends at `start`
    return {"cleaned_caption": cleaned, "expressions": expressions}


class _PhraseTokens(NamedTuple):
    """The tokens of a phrase, "two red cars", by index."""

    start: int  # "two"
    chunk_start: int  # "red", the first after article and number
    end: int  # the one after "cars"; equal to `start` where no phrase begins


def _with_what_it_is_of(tokens: list[str], phrase: _PhraseTokens) -> _PhraseTokens:
    """Return the phrase "a cup" up to the end of "a cup of tea", which is one thing."""
    if _token(tokens, phrase.end) != "of":
        return phrase
    after_of = _phrase_at(tokens, phrase.end + 1)
    if after_of.end == after_of.chunk_start:  # "a cup of the", and no thing
        return phrase
    return phrase._replace(end=after_of.end)


def _expression_of(
    phrase: _PhraseTokens, matches: Sequence[re.Match[str]], caption: str
) -> dict[str, str]:
    """Return a phrase's texts; `matches` are where the tokens are in the caption."""
    text_start = matches[phrase.start].start()
    chunk_start = matches[phrase.chunk_start].start()
    chunk_end = matches[phrase.end - 1].end()
    position = POSITION.match(caption, chunk_end)
    text_end = position.end() if position else chunk_end
    return {"text": caption[text_start:text_end], "noun_chunk": caption[chunk_start:chunk_end]}


def _phrase_at(tokens: list[str], start: int) -> _PhraseTokens:
    """Return the longest run of words from `start` on that may be one phrase, of a thing or not."""
    chunk_start = start
    while _is_article_or_number(_token(tokens, chunk_start)):
        chunk_start += 1
    has_a = chunk_start > start and _token(tokens, chunk_start - 1) in ("a", "an")
    end = chunk_start
    while end < min(len(tokens), chunk_start + _MOST_WORDS):
        is_first = end == chunk_start
        # a comma ends a phrase, but not the one in "a small, red car"
        ends_here = _ends_before(tokens, end, is_first, has_a)
        if ends_here and not _is_between_modifiers(tokens, end):
            break
        end += 1
    return _PhraseTokens(start, chunk_start, end)


def _ends_before(tokens: list[str], at: int, is_first: bool, has_a: bool) -> bool:
    """Whether a phrase ends before a token: a sign, an article, a word such as "on", or a verb."""
    word = tokens[at]
    is_sign = not word[0].isalnum()
    if is_sign or word in words.ARTICLES or ends_phrase(word, _token(tokens, at + 1)):
        return True
    looks_plural = singular(word) != word
    # After "a", what looks like a plural is a verb: "a man walks".
    is_verb = word in words.VERBS or (has_a and looks_plural)
    return is_verb and not is_first


def _is_between_modifiers(tokens: list[str], at: int) -> bool:
    """Whether a token is the comma or the "and" of "a small, red and white car"."""
    if tokens[at] not in (",", "and"):
        return False
    return _is_modifier(tokens[at - 1]) and _is_modifier(_token(tokens, at + 1))


def _is_article_or_number(word: str) -> bool:
    return word in words.ARTICLES or word in words.NUMBERS


def _is_modifier(word: str) -> bool:
    return word in COLORS or word in words.SIZES


def _is_thing(tokens: list[str], phrase: _PhraseTokens) -> bool:
    """Whether a phrase names a thing, by its last word and what is before the phrase."""
    if phrase.chunk_start == phrase.end:
        return False  # an article alone
    last = tokens[phrase.end - 1]
    before = _token(tokens, phrase.start - 1)
    own_words = tokens[phrase.start : phrase.end]
    is_denied = not words.NEGATIONS.isdisjoint([before, *own_words])  # "without a hat", "no cars"
    if last in words.NO_THINGS or last in words.VERBS or is_denied:
        return False
    has_article_or_number = phrase.chunk_start > phrase.start
    if has_article_or_number:
        return True
    # "cars" needs no article. "glasses" and the like have no singular.
    is_plural = singular(last) != last or last in ("glasses", "trousers", "jeans")
    # Without an article, it may be the rest of a longer phrase. It isn't if the word before it,
    # such as "with", ends phrases.
    begins_here = phrase.start == 0 or ends_phrase(before, last)
    return is_plural and begins_here


def _token(tokens: list[str], at: int) -> str:
    return tokens[at] if 0 <= at < len(tokens) else ""
