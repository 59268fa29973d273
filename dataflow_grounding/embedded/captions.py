"""The expressions of an English caption, without a model."""

import re
import unicodedata
from typing import Any, NamedTuple

from dataflow_grounding.data.heads import ends_phrase
from dataflow_grounding.data.nouns import singular
from dataflow_grounding.embedded import _words as words

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


def extract_expressions(caption: str) -> dict[str, Any]:
    """Find the expressions of an English caption by word lists and rules, without a model.

    `cleaned_caption` is in NFC with single spaces. Each `text` is an exact part of it, in order and
    not overlapping: a noun phrase that begins with an article or a number, or is a plural, with the
    position words that follow it. `noun_chunk` is without article, number and position.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    beginning = cleaned[:_MOST_CHARACTERS]
    matches = list(_TOKEN.finditer(beginning))
    tokens = [match.group().lower() for match in matches]
    expressions: list[dict[str, str]] = []
    is_english = sum(token in words.FOREIGN for token in tokens) <= 1
    if not is_english:
        return {"cleaned_caption": cleaned, "expressions": expressions}
    start = 0
    while start < len(tokens):
        phrase = _phrase_at(tokens, start)
        end = phrase.end  # `start` where no phrase begins there
        if _is_thing(tokens, phrase):
            if _token(tokens, end) == "of":  # "a cup of tea" is one thing
                end = max(end, _phrase_at(tokens, end + 1).end)
            chunk_end = matches[end - 1].end()
            position = POSITION.match(beginning, chunk_end)
            text_end = position.end() if position else chunk_end
            text = cleaned[matches[start].start() : text_end]
            noun_chunk = cleaned[matches[phrase.chunk_start].start() : chunk_end]
            expressions.append({"text": text, "noun_chunk": noun_chunk})
        start = max(end, start + 1)
    return {"cleaned_caption": cleaned, "expressions": expressions}


class _PhraseTokens(NamedTuple):
    """The tokens of a phrase, "two red cars", by index."""

    start: int  # "two"
    chunk_start: int  # "red", the first after article and number
    end: int  # the one after "cars"


def _phrase_at(tokens: list[str], start: int) -> _PhraseTokens:
    # The longest run of words from `start` on that may be one phrase; whether it names a thing is
    # for `_is_thing` to say.
    chunk_start = start
    while _is_article_or_number(_token(tokens, chunk_start)):
        chunk_start += 1
    has_a = chunk_start > start and _token(tokens, chunk_start - 1) in ("a", "an")
    end = chunk_start
    while end < min(len(tokens), chunk_start + _MOST_WORDS):
        word = tokens[end]
        after = _token(tokens, end + 1)
        # "a small, red and white car"
        is_between_modifiers = (
            word in (",", "and") and _is_modifier(tokens[end - 1]) and _is_modifier(after)
        )
        # After "a", what looks like a plural is a verb: "a man walks".
        is_verb = word in words.VERBS or (has_a and singular(word) != word)
        is_verb_after_noun = is_verb and end > chunk_start
        is_sign = not word[0].isalnum()
        begins_next = word in words.ARTICLES or ends_phrase(word, after)
        is_end = is_sign or begins_next or is_verb_after_noun
        if is_end and not is_between_modifiers:
            break
        end += 1
    return _PhraseTokens(start, chunk_start, end)


def _is_article_or_number(word: str) -> bool:
    return word in words.ARTICLES or word in words.NUMBERS


def _is_modifier(word: str) -> bool:
    return word in words.COLORS or word in words.SIZES


def _is_thing(tokens: list[str], phrase: _PhraseTokens) -> bool:
    if phrase.chunk_start == phrase.end:
        return False  # an article alone
    last = tokens[phrase.end - 1]
    has_article = phrase.chunk_start > phrase.start
    # "glasses" and the like are of one form, and need no article either
    is_plural = singular(last) != last or last in ("glasses", "trousers", "jeans")
    from_word_before = tokens[max(0, phrase.start - 1) : phrase.end]
    is_denied = not words.NEGATIONS.isdisjoint(from_word_before)  # "without a hat", "no cars"
    if last in words.NO_THINGS or last in words.VERBS or is_denied:
        return False
    before = _token(tokens, phrase.start - 1)
    # Without an article it may be the rest of a longer phrase, unless a word before it ends that.
    begins_here = phrase.start == 0 or ends_phrase(before, last)
    return has_article or (is_plural and begins_here)


def _token(tokens: list[str], at: int) -> str:
    return tokens[at] if 0 <= at < len(tokens) else ""
