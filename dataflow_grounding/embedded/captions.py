"""The expressions of an English caption, without a model."""

import re
import unicodedata
from typing import Any

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
    """By word lists and rules (no model), for English. `cleaned_caption` is in NFC with single
    spaces; each `text` is an exact part of it, in order and not overlapping: a noun phrase that
    begins with an article or a number, or is a plural, with the position words that follow it.
    `noun_chunk` is without article, number and position.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    beginning = cleaned[:_MOST_CHARACTERS]
    matches = list(_TOKEN.finditer(beginning))
    tokens = [match.group().lower() for match in matches]
    expressions: list[dict[str, str]] = []
    if sum(token in words.FOREIGN for token in tokens) > 1:
        return {"cleaned_caption": cleaned, "expressions": expressions}
    at = 0
    while at < len(tokens):
        start, chunk, end = _phrase_at(tokens, at)
        if chunk < end and _is_thing(tokens, start, chunk, end):
            if _token(tokens, end) == "of":
                _, _, after = _phrase_at(tokens, end + 1)
                end = max(end, after)
            last = matches[end - 1].end()
            position = POSITION.match(beginning, last)
            text = cleaned[matches[start].start() : position.end() if position else last]
            noun_chunk = cleaned[matches[chunk].start() : last]
            expressions.append({"text": text, "noun_chunk": noun_chunk})
        at = max(end, at + 1)
    return {"cleaned_caption": cleaned, "expressions": expressions}


def _phrase_at(tokens: list[str], start: int) -> tuple[int, int, int]:
    chunk = start
    while _token(tokens, chunk) in words.ARTICLES or _token(tokens, chunk) in words.NUMBERS:
        chunk += 1
    is_one = _token(tokens, chunk - 1) in ("a", "an") and chunk > start
    end = chunk
    while end < min(len(tokens), chunk + _MOST_WORDS):
        word = tokens[end]
        after = _token(tokens, end + 1)
        is_between_words = (
            word in (",", "and") and _is_modifier(tokens[end - 1]) and _is_modifier(after)
        )
        is_verb = word in words.VERBS or (is_one and singular(word) != word)
        if not is_between_words and (
            not word[0].isalnum()
            or word in words.ARTICLES
            or ends_phrase(word, after)
            or (end > chunk and is_verb)
        ):
            break
        end += 1
    return start, chunk, end


def _is_modifier(word: str) -> bool:
    return word in words.COLORS or word in words.SIZES


def _is_thing(tokens: list[str], start: int, chunk: int, end: int) -> bool:
    last = tokens[end - 1]
    has_article = chunk > start
    is_plural = singular(last) != last or last in ("glasses", "trousers", "jeans")
    is_denied = not words.NEGATIONS.isdisjoint(tokens[max(0, start - 1) : end])
    if last in words.NO_THINGS or last in words.VERBS or is_denied:
        return False
    before = _token(tokens, start - 1)
    return has_article or (is_plural and (start == 0 or ends_phrase(before, last)))


def _token(tokens: list[str], at: int) -> str:
    return tokens[at] if 0 <= at < len(tokens) else ""
