"""The head of a phrase: the noun that says what thing the phrase means."""

import unicodedata
from functools import lru_cache

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.english.nouns import singular

_WORD = lazy_pattern(r"[^\W_]+(?:['’\-][^\W_]+)*")
_NUMBERING = lazy_pattern(r"[\s#_(-]+\d{1,3}\)?$")  # " 2" of "cat 2", "(2)" of "cat (2)"
_LONGEST = 400  # characters of a phrase that are read
_WORDS = {
    name: frozenset(words.split()) for name, words in load_table(__package__, "heads.yaml").items()
}


@lru_cache(maxsize=65536)
def head_of(phrase: str) -> str:
    """Return the noun that says what a phrase names: "cup" for "two red cups on a table"."""
    text = unicodedata.normalize("NFKC", phrase[:_LONGEST]).casefold().strip()
    words = _WORD.findall(_NUMBERING.sub("", text))
    head = ""  # the last word so far that may be the noun
    for index, word in enumerate(words):
        next_word = words[index + 1] if index + 1 < len(words) else ""
        is_of_quantity = word in _WORDS["relations"] and head in _WORDS["quantities"]
        if is_of_quantity:  # the "of" of "a lot of cars": the noun comes after it
            head = ""
        elif head and ends_phrase(word, next_word):  # the "on" of "cups on a table"
            break
        elif word not in _WORDS["empty"]:  # no article or the like
            head = word  # "cups" after "red", which was no noun
    return singular(head)


def ends_phrase(word: str, after: str) -> bool:
    """Whether a word after a noun relates the thing to others: "of", or the verb "riding"."""
    if word in _WORDS["relations"]:
        return True
    may_be_verb = len(word) > 4 and word.endswith("ing") and word not in _WORDS["nouns_in_ing"]
    if not may_be_verb:
        return False
    # "man riding a horse", but not "man eating shark"
    return after == "" or after in _WORDS["relations"] or after in _WORDS["empty"]
