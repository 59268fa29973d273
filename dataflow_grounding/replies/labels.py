"""Labels: which phrase a label is, and whether it names the phrase's thing.

A label is the phrase that it equals, apart from spelling, articles and plural.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.english.heads import head_of
from dataflow_grounding.english.nouns import ARTICLES, singular

_BETWEEN_WORDS = lazy_pattern(r"[\s_-]+")
_WORD = lazy_pattern(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_NEGATIONS = frozenset(["no", "not", "without"])
_SIDES = frozenset(["left", "right", "top", "bottom", "middle", "center", "centre"])
_AROUND = " \t\r\n.,:;!\"'`*“”‘’「」«»。，、：；！"  # characters around a label that say nothing
_LONGEST = 400  # characters of a label that are compared
_CAMEL = lazy_pattern(r"(?<=[a-z])(?=[A-Z])")  # pottedPlant
_COUNTER = lazy_pattern(r"[\s#:]*\d{1,3}$")  # of "bike_1", "cat #1"


def ids_of(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that a label equals: more than one where some are alike."""
    if len(label) > _LONGEST:
        return []
    # Comparing is slow, so phrases of quite another length are left out first. An article makes the
    # most difference: "the " has four characters, and each word may have one.
    most_difference = 4 * (label.count(" ") + 2)
    candidates = {
        phrase_id: phrase
        for phrase_id, phrase in phrases.items()
        if abs(len(phrase) - len(label)) <= most_difference
    }
    if not candidates or not folded(label):
        return []  # a label of marks alone, such as "?", is no phrase
    # "the cup" is "cup" where no phrase is equal, and then "cups" is.
    for in_form in (folded, _without_articles, in_singular):
        label_in_form = in_form(label)
        ids: list[int] = []
        for phrase_id, phrase in candidates.items():
            if in_form(phrase) == label_in_form:
                ids.append(phrase_id)
        if ids:
            return ids
    return []


def phrase_named(id: int | None, label: str | None, phrases: Mapping[int, str]) -> int | None:
    """Return the phrase that a box names by its id or, without one, by its label."""
    if id is not None:
        return id if id in phrases else None
    ids = ids_of(label, phrases) if label else []
    return ids[0] if len(ids) == 1 else None


@lru_cache(maxsize=2048)  # the phrases of a request are compared with each of a reply's labels
def folded(text: str) -> str:
    """Return a text as labels are compared: without regard to case, blanks and marks around it."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _BETWEEN_WORDS.sub(" ", plain).strip(_AROUND)


@lru_cache(maxsize=2048)
def _without_articles(text: str) -> str:
    words = folded(text).split(" ")
    without_articles = [word for word in words[:-1] if word not in ARTICLES]
    # an "a" at the end is no article: "plan A"
    return " ".join([*without_articles, words[-1]]) or folded(text)


@lru_cache(maxsize=2048)
def in_singular(text: str) -> str:
    """Return a text folded, in the singular and without articles."""
    return " ".join(singular(word) for word in _without_articles(text).split(" "))


@lru_cache(maxsize=2048)
def _words_of(text: str) -> frozenset[str]:
    """A text's words, folded, in the singular and without articles."""
    plain = with_whole_negations(unicodedata.normalize("NFKC", text).replace("_", " "))
    words = _WORD.findall(plain)
    but_last = [word for word in words[:-1] if word not in ARTICLES]
    return frozenset(singular(word) for word in [*but_last, *words[-1:]])


def fits_phrase(label: str, phrase: str) -> bool:
    """Whether a label names a phrase's thing: "red cup" or "cup #1" for "the cup".

    It equals the phrase, or one has all words of the other, both have the same head, and neither
    has a "no", "not" or "without" that the other lacks.
    """
    if len(label) > _LONGEST:
        return False
    label = _CAMEL.sub(" ", label)
    if not any(map(str.isdigit, phrase)):  # where "bus 12" was asked for, a number counts
        label = _COUNTER.sub("", label.strip(_AROUND))
    if ids_of(label, {0: phrase}):
        return True
    differing = _words_of(label) ^ _words_of(phrase)
    if not shares_all_words(label, phrase) or differing & _NEGATIONS:
        return False
    return _head(label) == _head(phrase)


def shares_all_words(first: str, second: str) -> bool:
    """Whether one text has all words of the other: "man" and "the man in blue"."""
    first_words, second_words = _words_of(first), _words_of(second)
    return first_words <= second_words or second_words <= first_words


def _head(text: str) -> str:
    """The man of "man (left)", the shelf of "shelf, top"."""
    words = re.split(r"[(\[,]", folded(text))[0].split()
    while len(words) > 1 and words[-1] in _SIDES:
        words.pop()
    return head_of(" ".join(words))


def share_a_word(first: str, second: str) -> bool:
    """Whether texts have a word in common, or can't be compared, as "cup" and "杯子"."""
    is_first_latin = re.search("[a-z]", folded(first)) is not None
    is_second_latin = re.search("[a-z]", folded(second)) is not None
    if is_first_latin != is_second_latin:
        return True
    if _words_of(first) & _words_of(second):
        return True
    # In Chinese, which has no blanks between words, one text may be a part of the other.
    return folded(first) in folded(second) or folded(second) in folded(first)


def with_whole_negations(text: str) -> str:
    """Return a text in lower case in which "isn't" is "is not"."""
    plain = text.casefold().replace("’", "'")
    plain = re.sub(r"\bcan(?:'t|not)\b", "can not", plain)
    plain = re.sub(r"\bwon't\b", "will not", plain)
    return re.sub(r"n't\b", " not", plain)
