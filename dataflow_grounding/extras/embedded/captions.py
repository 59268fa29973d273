"""The expressions of an English caption, without a model."""

import unicodedata
from typing import Any

from dataflow_grounding.extras.embedded import _words as words
from dataflow_grounding.extras.embedded._noun_phrases import TOKEN, noun_phrases, tokenize

# A longer text is not a caption; only its beginning is read, so that time stays bounded.
_MOST_CHARACTERS = 20_000
_AFTER_LATIN = "\u0250"  # the first character behind those blocks of Unicode that are Latin


def extract_expressions(caption: str) -> dict[str, Any]:
    """Return the referring expressions of an English caption, by word lists and rules (no model).

    Returns ``{"cleaned_caption": str, "expressions": [{"text": str, "noun_chunk": str}, ...]}``.
    ``cleaned_caption`` is the caption in NFC with single spaces; each ``text`` is an exact part of
    it, in order of occurrence and not overlapping: a noun phrase with the position words that
    follow it. ``noun_chunk`` is that phrase without article, number and position words. A caption
    in another language, or without any words, has no expressions; nor has what stands after the
    first 20,000 characters.
    """
    cleaned = " ".join(unicodedata.normalize("NFC", caption).split())
    beginning = cleaned[:_MOST_CHARACTERS]
    tokens = tokenize(beginning)
    expressions: list[dict[str, str]] = []
    if not _is_english(tokens, beginning):
        return {"cleaned_caption": cleaned, "expressions": expressions}
    matches = list(TOKEN.finditer(beginning))  # one for each token
    for phrase in noun_phrases(tokens):
        start = matches[phrase.start].start()
        text = cleaned[start : matches[phrase.position_end - 1].end()]
        chunk_start = matches[phrase.chunk].start()
        chunk = cleaned[chunk_start : matches[phrase.end - 1].end()]
        expressions.append({"text": text, "noun_chunk": chunk})
    return {"cleaned_caption": cleaned, "expressions": expressions}


def _is_english(tokens: list[str], text: str) -> bool:
    """Return whether a text is in Latin letters, many of its words known and few foreign.

    At least half of the letters must be Latin and a third of the words known. Where there are
    function words of other languages, there must be twice as many English ones; some are spelled
    alike ("die", "in"). A text without words is not English.
    """
    text_words = [token for token in tokens if token[0].isalpha()]
    letters = sum(character.isalpha() for character in text)
    latin = sum(character.isalpha() and character < _AFTER_LATIN for character in text)
    known = sum(words.is_known(word) for word in text_words)
    foreign = sum(word in words.FOREIGN for word in text_words)
    english = sum(word in words.STOPS or word in words.ARTICLES for word in text_words)
    is_latin = bool(text_words) and latin * 2 >= letters
    is_known = known * 3 >= len(text_words)
    return is_latin and is_known and foreign * 2 <= max(english, 1)
