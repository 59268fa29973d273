"""Reading the referring expressions out of a caption by rules."""

import unicodedata
from collections.abc import Iterator
from typing import Any

from dataflow_grounding.embedded import words
from dataflow_grounding.embedded.noun_phrases import NounPhrase, Token, read_noun_phrase, tokenize

# A longer text is not a caption; only its beginning is read, so that time stays bounded.
_READ_CHARACTERS = 20_000
_COUNTS = words.VAGUE_COUNTS.union(words.NUMBERS)


def extract_expressions(caption: str) -> dict[str, Any]:
    """The referring expressions of an English caption, by word lists and rules (no model).

    Returns ``{"cleaned_caption": str, "expressions": [{"text": str, "noun_chunk": str}, ...]}``. ``cleaned_caption`` is
    the caption in NFC with single spaces; each ``text`` is an exact part of it, in order of occurrence and not
    overlapping: a noun phrase with the position words that follow it. ``noun_chunk`` is that phrase without article,
    number and position words. A caption in another language has no expressions.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    read = cleaned[:_READ_CHARACTERS]
    tokens = tokenize(read)
    if not _is_english(tokens, read):
        return {"cleaned_caption": cleaned, "expressions": []}
    expressions = []
    for phrase in _noun_phrases(tokens):
        text = cleaned[tokens[phrase.start].start : tokens[phrase.tail - 1].end]
        chunk = cleaned[tokens[_after_counts(tokens, phrase)].start : tokens[phrase.end - 1].end]
        expressions.append({"text": text, "noun_chunk": chunk})
    return {"cleaned_caption": cleaned, "expressions": expressions}


def _noun_phrases(tokens: list[Token]) -> Iterator[NounPhrase]:
    at = 0
    while at < len(tokens):
        phrase = read_noun_phrase(tokens, at)
        if phrase and _names_object(tokens, phrase) and (at == 0 or tokens[at - 1].lower not in words.NEGATIONS):
            yield phrase
            at = phrase.tail
        else:
            at = phrase.end if phrase else at + 1


def _names_object(tokens: list[Token], phrase: NounPhrase) -> bool:
    head = words.singular(tokens[phrase.head].lower)
    # "on the left", "in the picture": where something is, not a thing.
    return head not in words.NOT_OBJECTS and not head.isdecimal() and head not in words.NUMBERS


def _after_counts(tokens: list[Token], phrase: NounPhrase) -> int:
    at = phrase.chunk
    while at < phrase.head and (tokens[at].lower in _COUNTS or tokens[at].lower.isdecimal()):
        at += 1
    return at


def _is_english(tokens: list[Token], text: str) -> bool:
    read = [token.lower for token in tokens if token.lower[0].isalpha()]
    letters = sum(character.isalpha() for character in text)
    latin = sum(character.isalpha() and character < "\u0250" for character in text)
    if not read or latin * 2 < letters:
        return False
    known = sum(words.is_known(word) for word in read)
    foreign = sum(word in words.FOREIGN for word in read)
    stops = sum(word in words.STOPS or word in words.ARTICLES for word in read)
    return known * 3 >= len(read) and foreign * 2 <= max(stops, 1)
