"""Which phrase of a request a label means: the one that it equals, but for how it is written."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.english.nouns import singular

_BETWEEN_WORDS = lazy_pattern(r"[\s_-]+")
_WORD = lazy_pattern(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_ARTICLES = frozenset(["a", "an", "the"])
_AROUND = " \t\r\n.,:;!\"'`*“”‘’「」«»。，、：；！"  # characters around a label that say nothing
_LONGEST = 400  # characters of a label that are compared


def ids_of(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that a label is equal to; several where it can't tell.

    The first of these rules counts that any phrase meets: it is equal but for case, blanks and
    marks around it; but for articles, too; but for the plural of its words, too.

    Example:
        >>> ids_of("The Red_Cups", {1: "red cup", 2: "cup"})
        [1]
    """
    if len(label) > _LONGEST:
        return []
    for form in (folded, _without_articles, _in_singular):
        wanted = form(label)
        ids = [i for i, phrase in phrases.items() if form(phrase) == wanted]
        if ids and wanted:
            return ids
    return []


@lru_cache(maxsize=2048)  # the phrases of a request are compared with each of a reply's labels
def folded(text: str) -> str:
    """Return a text as labels are compared: without regard to case, blanks and marks around it."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _BETWEEN_WORDS.sub(" ", plain).strip(_AROUND)


@lru_cache(maxsize=2048)
def _without_articles(text: str) -> str:
    """Return a folded text without its articles; the text itself where it has nothing else."""
    words = folded(text).split(" ")
    return " ".join(word for word in words if word not in _ARTICLES) or folded(text)


@lru_cache(maxsize=2048)
def _in_singular(text: str) -> str:
    """Return a folded text without articles, each of its words in the singular."""
    return " ".join(singular(word) for word in _without_articles(text).split(" "))


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text, folded, each in the singular.

    A word keeps its apostrophes and hyphens: "isn't", "close-up".
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [singular(word) for word in _WORD.findall(plain)]


def share_a_word(first: str, second: str) -> bool:
    """Whether two texts have a word in common, or can't be compared.

    They can't where they have no letters of one script in common, as a translation has.
    """
    if bool(re.search("[a-z]", folded(first))) != bool(re.search("[a-z]", folded(second))):
        return True
    words = set(words_of(first)) - _ARTICLES
    if words & set(words_of(second)):
        return True
    # scripts without blanks between words, as Chinese
    return folded(first) in folded(second) or folded(second) in folded(first)


def all_words(texts: Sequence[str]) -> frozenset[str]:
    """Return all words of some texts."""
    return frozenset(word for text in texts for word in words_of(text))
