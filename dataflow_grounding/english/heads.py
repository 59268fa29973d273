"""The head of a noun phrase: the word that says what thing the phrase means."""

import re
import unicodedata
from functools import lru_cache
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.english.nouns import PAIRS, singular

_LISTS: dict[str, Any] = load_table(__package__, "heads.yaml")


def _words(name: str) -> frozenset[str]:
    """Return the words of a list of heads.yaml."""
    return frozenset(_LISTS[name].split())


_EMPTY_WORDS = _words("empty_words")
_RELATIONS = _words("relations")
_NEGATIONS = _words("negations")
_NEGATIONS_AFTER_NOUN = _words("negations_after_noun")
_QUALITIES = _words("qualities")
# Words for numbers → the number as a word: "two" → "2".
_NUMBER_WORDS = {word: str(i) for i, word in enumerate(_LISTS["number_words"].split(), 1)}
# Words for places in a row → the place: "second" → 2.
_ORDINALS = {word: i for i, word in enumerate(_LISTS["ordinals"].split(), 1)}
_ORDINALS.update((word, i) for i, word in enumerate(_LISTS["ordinals_in_digits"].split(), 1))
_WORD = lazy_pattern(r"[^\W_]+")
# Scripts written without blanks between words: each of their characters counts as a word.
_SPACELESS = lazy_pattern(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_PREFIX = "non"  # a negation of the next word alone: "non-alcoholic beer"
# A verb with its negation, as in "isn't", "doesnt" and "can't"; the group is the verb.
_NEGATED_VERB = lazy_pattern(
    r"\b(can?|wo|is|are|was|were|do|does|did|has|have|had|could|would|should|must)n['’`]?t\b",
    re.IGNORECASE,
)
_NUMBER_SIGN = lazy_pattern(r"\bno\.?\s?(?=\d)")  # "No. 5"
_EVERYTHING_BUT = lazy_pattern(r"\b(all|anything|everything|nothing|none) but\b")
_NUMBERING = lazy_pattern(r"[\s#_(-]{1,4}\d{1,3}\)?$")  # " 2" of "cat 2", "(2)" of "cat (2)"
_MOST_OF_NUMBERING = 8  # characters at the end of a phrase
_LONGEST = 1000  # characters of a phrase that are read


def head_noun(phrase: str) -> str:
    """Return the head of a noun phrase in the singular, "" for a text without words.

    Example:
        >>> [head_noun(phrase) for phrase in ("two cups of tea", "man riding a horse", "cat 2")]
        ['cup', 'man', 'cat']
    """
    return singular(_head(_WORD.findall(_fold(phrase))))


@lru_cache(maxsize=1024)
def head_word(phrase: str) -> str:
    """Return the head of a noun phrase as heads are compared, "" for a text without words.

    It is in the singular even where English has none, numbers are digits, and in a script without
    blanks it is one character.

    Example:
        >>> [head_word(phrase) for phrase in ("red scissors", "the two", "the second", "红杯子")]
        ['scissor', '2', '2.', '子']
    """
    return _compared(_head(_words_of(_WORD.findall(_fold(phrase)))))


def _fold(text: str) -> str:
    """Return a text in lower case and single-spaced, without marks around it or a final number.

    The negations of its verbs are words: "is not" for "isn't".
    """
    text = unicodedata.normalize("NFKC", text[:_LONGEST]).casefold()
    if "n" in text:
        text = _NEGATED_VERB.sub(r"\1 not", text)
    if " but" in text:
        text = _EVERYTHING_BUT.sub(r"\1 except", text)
    if "no" in text:
        text = _NUMBER_SIGN.sub("", text)
    text = " ".join(text.split()).strip(" \"'`“”‘’.,;:*")
    numbering = _NUMBERING.search(text, max(0, len(text) - _MOST_OF_NUMBERING))
    return text if numbering is None else text[: numbering.start()]


def _words_of(tokens: list[str]) -> list[str]:
    """Return words, each character of those in a script without blanks by itself.

    "non" and the word that it negates are one: "not alcoholic" for "non-alcoholic".
    """
    words: list[str] = []
    for token in tokens:
        if words and words[-1] == _PREFIX:
            words[-1] = "not " + token
        elif _SPACELESS.search(token):
            words += token
        else:
            words.append(token)
    return words


def _head(words: list[str]) -> str:
    """Return the head: the last word before those that relate its thing to others; "" for none.

    Such are "of", "is", "not", and a word in -ing that doesn't follow a quality: the head of "man
    riding a horse" is "man". After a negation at the beginning it is the head itself: "parking" of
    "no parking sign", which may be called "no parking".
    """
    head = ""
    negations = _negation_indices(words)
    for i, word in enumerate(words):
        relates = word in _RELATIONS or word in ("is", "are")
        participle = len(word) > 4 and word.endswith("ing") and head not in _QUALITIES
        has_name = head != "" and not _is_number(head)
        if (head and relates) or (has_name and (i in negations or participle)):
            break
        if word not in _EMPTY_WORDS and i not in negations:
            head = word
            if participle and i - 1 in negations:
                break
    return head


def _negation_indices(words: list[str]) -> set[int]:
    """Return the indices of the words by which a thing is one without another."""
    indices: set[int] = set()
    has_name = False  # whether a word before is neither empty nor a number
    for i, word in enumerate(words):
        if word in _NEGATIONS and (has_name or word not in _NEGATIONS_AFTER_NOUN):
            indices.add(i)
        elif word not in _EMPTY_WORDS and not _is_number(word):
            has_name = True
    return indices


def _is_number(word: str) -> bool:
    """Whether a word is a number or a place in a row: "2", "two", "second"."""
    return word.isdigit() or word in _NUMBER_WORDS or word in _ORDINALS


def _compared(word: str) -> str:
    """Return a word as heads are compared: in the singular, also "scissor" for "scissors".

    A word for a number is the number: "2" for "two". Words for a place in a row are alike: "1." for
    "first" and "1st".
    """
    if word in _ORDINALS:
        return f"{_ORDINALS[word]}."
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word in PAIRS:
        return word.removesuffix("es" if word.endswith("sses") else "s")
    return singular(word)
