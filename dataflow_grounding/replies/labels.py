"""Which phrase of the request a label in the reply means."""

import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.vocabulary import words

_WORD = lazy_pattern(r"[^\W_]+")
# Scripts written without blanks between words: each of their characters counts as a word.
_SPACELESS = lazy_pattern(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_LATIN = lazy_pattern(r"[A-Za-z\u00c0-\u024f]")
_PARTICIPLE = lazy_pattern(r"\s+[^\W\d_]{3,}(?:ed|ing)\b")
_NUMBERING = lazy_pattern(r"(?:[\s#_-]|\()+\d{1,3}\)?$")
_EMPTY_WORDS, _RELATIONS, _QUALITIES = words("empty_words"), words("relations"), words("qualities")
_NEGATIONS = frozenset(["no", "not", "without"])


def matching_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that `label` means: none, one, or several that read the same.

    Equal up to case, spacing and quotation marks comes first; then equal but for articles and a
    final number ("cat 2"); then the phrase that says more or less about the same thing: the same
    head word, all words of the shorter one in the longer one, which has at most twice as many, the
    same negations, and no other phrase as close. So "mug" means "the red mug" where there is no
    other mug, and "blue mug" never does.
    """
    same = equal_ids(label, phrases) or [
        i for i, phrase in phrases.items() if _bare(phrase) == _bare(label) != ""
    ]
    if same:
        return same
    shares = {i: _likeness(label, phrase) for i, phrase in phrases.items()}
    best = max(shares.values(), default=0.0)
    close = [i for i, share in shares.items() if share == best]
    return close if best >= 0.5 and len({_bare(phrases[i]) for i in close}) == 1 else []


def named_ids(talk: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that talk means, as `matching_ids`; but talk may say any more
    about the thing.
    """
    thing = _PARTICIPLE.split(talk, maxsplit=1)[0]
    close = [i for i, phrase in phrases.items() if alike(talk, phrase) or alike(thing, phrase)]
    within = [i for i in close if all_words(phrases[i]) <= all_words(talk)]
    return matching_ids(talk, phrases) or (within if len(within) == 1 else [])


def alike(one: str, other: str) -> bool:
    """Whether two phrases can mean one thing: the same head word and negations, and one has all
    words of the other.
    """
    return _likeness(one, other) > 0


def surely_alike(one: str, other: str) -> bool:
    """Whether two alike phrases differ only by words that make no other thing of it: "red car", but
    not "toy car".
    """
    return alike(one, other) and _kind(one) == _kind(other)


def contradicts(one: str, other: str) -> bool:
    """Whether two phrases tell things of one kind apart, as "red car" and "blue car" do."""
    (head, terms), (other_head, other_terms) = _meaning(one), _meaning(other)
    return (
        head == other_head and len(terms) > 1 < len(other_terms) and terms & other_terms == {head}
    )


def comparable(one: str, other: str) -> bool:
    """Whether the words of two texts can be the same: both have Latin letters, or neither has."""
    return bool(_LATIN.search(one)) == bool(_LATIN.search(other))


def equal_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases equal to `label`, up to case, spacing and quotation marks."""
    return [i for i, phrase in phrases.items() if equal(label, phrase)]


def equal(one: str, other: str) -> bool:
    """Whether two texts say the same, up to case, spacing and quotation marks, and say anything."""
    return _folded(one) == _folded(other) != ""


def head_word(phrase: str) -> str:
    """Return the word that says what thing a noun phrase means: its head, in the singular."""
    return _meaning(phrase)[0]


def all_words(text: str) -> frozenset[str]:
    """Return the words of a text in the singular, without empty ones."""
    return _meaning(text)[1]


@lru_cache(maxsize=1024)
def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", text[:1000]).casefold()
    return " ".join(text.split()).strip(" \"'`“”‘’.,;:*")


@lru_cache(maxsize=1024)
def _bare(text: str) -> str:
    words = _NUMBERING.sub("", _folded(text)).split()
    return " ".join(word for word in words if word not in _EMPTY_WORDS)


def _likeness(one: str, other: str) -> float:
    (head, terms), (other_head, other_terms) = _meaning(one), _meaning(other)
    if head != other_head or (terms & _NEGATIONS) != (other_terms & _NEGATIONS):
        return 0.0
    shorter, longer = sorted((terms, other_terms), key=len)
    return len(shorter) / len(longer) if shorter and shorter <= longer else 0.0


@lru_cache(maxsize=1024)
def _meaning(text: str) -> tuple[str, frozenset[str]]:
    """Return the head word and all words of a phrase, without empty words and plural endings."""
    words: list[str] = []
    for word in _WORD.findall(_NUMBERING.sub("", _folded(text))):
        words += word if _SPACELESS.search(word) else [word]
    head = ""
    for word in words:
        participle = len(word) > 4 and word.endswith("ing") and head not in _QUALITIES
        if head and (word in _RELATIONS or word in ("is", "are", "no", "not") or participle):
            break
        head = head if word in _EMPTY_WORDS else _singular(word)
    relations = _RELATIONS - _NEGATIONS
    return head, frozenset(
        _singular(word) for word in words if word not in _EMPTY_WORDS and word not in relations
    )


def _kind(text: str) -> frozenset[str]:
    head, words = _meaning(text)[0], _WORD.findall(_bare(text))
    before = [_singular(word) for word in words[: [*map(_singular, words), head].index(head)]]
    return frozenset(
        word
        for word in before
        if word not in _QUALITIES and not (len(word) > 4 and word.endswith("ed"))
    )


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
