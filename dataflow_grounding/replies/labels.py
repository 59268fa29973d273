"""Which phrase of the request a label in the reply means."""

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.vocabulary import PAIRS, singular, words

_WORD = lazy_pattern(r"[^\W_]+")
# Scripts written without blanks between words: each of their characters counts as a word.
_SPACELESS = lazy_pattern(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_LATIN = lazy_pattern(r"[A-Za-z\u00c0-\u024f]")
_PARTICIPLE = lazy_pattern(r"\s+[^\W\d_]{3,}(?:ed|ing)\b")  # " sitting" of "cat sitting there"
# A label's final number: " 2" of "cat 2", "(2)" of "cat (2)". The group is the number.
_NUMBERING = lazy_pattern(r"[\s#_(-]{1,4}(\d{1,3})\)?$")
_MOST_OF_NUMBERING = 8  # characters at the end of a label
_WORD_FOR_NUMBER = lazy_pattern(r"\s(?:number|no|nr|num)\.?$")  # before such a number
_EMPTY_WORDS = words("empty_words")  # that make no difference: "the", "her"
_RELATIONS = words("relations")  # at which the head of a noun phrase ends: "of", "with"
_QUALITIES = words("qualities")  # that leave a thing what it is: "red", "left"
_NEGATIONS = frozenset(["no", "not", "without", "never", "non"])
# A verb with its negation, as in "isn't", "doesnt" and "can't"; the group is the verb.
_NEGATED_VERB = lazy_pattern(
    r"\b(ca|wo|is|are|was|were|do|does|did|has|have|had|could|would|should|must)n['’`]?t\b"
)
_RELATIONS_OF_THINGS = _RELATIONS - _NEGATIONS
_LEAST_LIKENESS = 0.5  # from which on a label means a phrase
_LONGEST = 1000  # characters of a text that are compared
_LONGEST_WORD = 60  # characters in which the word before a number is looked for


def matching_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that a label means: none, one, or several of the same text.

    The first of these rules counts that any phrase meets:
    1. The phrase equals the label up to case, spacing and quotation marks.
    2. It equals the label but for articles, or else but for a final number of one of them ("cat
       2"). A number of both tells one thing from another: "bus 17" never means "bus 42".
    3. It says more or less about the same thing, and no other phrase is as close. The two have the
       same head word and the same negations; the longer has all words of the shorter, and at most
       twice as many. So "mug" means "the red mug" where there is no other mug, and "blue mug" never
       does.
    """
    same = equal_ids(label, phrases)
    if same:
        return same
    folded = _fold_without_empty_words(label)
    if folded:
        same = [i for i, phrase in phrases.items() if _fold_without_empty_words(phrase) == folded]
        if same:
            return same
    same = [i for i, phrase in phrases.items() if _equal_but_for_number(label, phrase)]
    if same:
        return _ids_of_one_text(same, phrases)
    return _closest_ids(label, phrases)


def _equal_but_for_number(label: str, phrase: str) -> bool:
    """Whether label and phrase are equal but for articles, and a final number of one of them."""
    full = _fold_without_empty_words(label)
    full_phrase = _fold_without_empty_words(phrase)
    unnumbered = _without_number(full)
    return unnumbered != "" and (unnumbered == full_phrase or _without_number(full_phrase) == full)


def _ids_of_one_text(ids: list[int], phrases: Mapping[int, str]) -> list[int]:
    """Return ids of phrases if these are equal but for articles; [] where they differ."""
    texts = {_fold_without_empty_words(phrases[i]) for i in ids}
    return ids if len(texts) == 1 else []


def _closest_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases most like a label.

    [] where no phrase has half of the words in common with it, or where several are as close that
    aren't equal but for articles and a final number.
    """
    closest: list[int] = []
    best = _LEAST_LIKENESS
    for i, phrase in phrases.items():
        likeness = _likeness(label, phrase)
        if likeness > best:
            closest = []
            best = likeness
        if likeness == best:
            closest.append(i)
    return _ids_of_one_text(closest, phrases)


def named_ids(talk: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that talk means.

    They are those that it means as a label, by `matching_ids`. Else it is the one phrase that is
    like it and all of whose words it has, among any number of others; [] where several are so, or
    none is.
    """
    matching = matching_ids(talk, phrases)
    if matching:
        return matching
    thing = _PARTICIPLE.split(talk, maxsplit=1)[0]
    words = all_words(talk)
    ids: list[int] = []
    for i, phrase in phrases.items():
        if all_words(phrase) <= words and (alike(talk, phrase) or alike(thing, phrase)):
            ids.append(i)
    return ids if len(ids) == 1 else []


def alike(first: str, second: str) -> bool:
    """Whether two phrases can mean one thing, as "car" and "red car" can.

    They have the same head word and negations, and one has all words of the other.
    """
    return _likeness(first, second) > 0


def surely_alike(first: str, second: str) -> bool:
    """Whether two phrases are alike, and no word of either makes another kind of thing of it.

    "car" and "red car" are surely alike, "car" and "toy car" are not.
    """
    return alike(first, second) and _words_of_kind(first) == _words_of_kind(second)


def contradicts(first: str, second: str) -> bool:
    """Whether two phrases mean different things of one kind, as "red car" and "blue car" do.

    Both have further words beside their head word, and none in common; or each its own number.
    """
    head, words = _meaning(first)
    other_head, other_words = _meaning(second)
    if head != other_head:
        return False
    if differ_in_number(first, second):
        return True
    if len(words) < 2 or len(other_words) < 2:
        return False
    return words & other_words == {head}


def comparable(first: str, second: str) -> bool:
    """Whether two texts can have words in common: both have Latin letters, or neither has."""
    return bool(_LATIN.search(first)) == bool(_LATIN.search(second))


def equal_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases equal to `label`, up to case, spacing and quotation marks."""
    return [i for i, phrase in phrases.items() if equal(label, phrase)]


def equal(first: str, second: str) -> bool:
    """Whether two texts are equal up to case, spacing and quotation marks, and not empty."""
    folded = _fold(first)
    return folded != "" and folded == _fold(second)


def head_noun(phrase: str) -> str:
    """Return the head of a noun phrase, which says what thing it means, in the singular.

    "cup" for "two cups of tea"; "" for a text without any.
    """
    return singular(_head(_WORD.findall(_without_number(_fold(phrase)))))


def head_word(phrase: str) -> str:
    """Return the head of a noun phrase as words are compared: "scissor" for "red scissors".

    In a script without blanks it is one character. "" for a text without any.
    """
    return _meaning(phrase)[0]


def all_words(text: str) -> frozenset[str]:
    """Return the words of a text as words are compared, without articles and words such as "of".

    In a script without blanks each character is one.
    """
    return _meaning(text)[1]


@lru_cache(maxsize=1024)
def _fold(text: str) -> str:
    """Return a text single-spaced, without case and without marks around it."""
    text = unicodedata.normalize("NFKC", text[:_LONGEST]).casefold()
    if "n" in text:
        text = _NEGATED_VERB.sub(r"\1 not", text)
    return " ".join(text.split()).strip(" \"'`“”‘’.,;:*")


@lru_cache(maxsize=1024)
def _fold_without_empty_words(text: str) -> str:
    """Return a folded text without words such as articles."""
    return " ".join(word for word in _fold(text).split() if word not in _EMPTY_WORDS)


class _Numbered(NamedTuple):
    """A text with its final number apart.

    Attributes:
        text: The text without it.
        number: The number; None where it ends in none.
        of: The word whose number it is, as words are compared: "bus" of "red bus 17".
    """

    text: str
    number: int | None
    of: str


@lru_cache(maxsize=1024)
def _split_number(folded: str) -> _Numbered:
    """Return a folded text with its final number apart: "cat" and 2 for "cat 2" and "cat (2)"."""
    match = _NUMBERING.search(folded, max(0, len(folded) - _MOST_OF_NUMBERING))
    if match is None:
        return _Numbered(folded, None, "")
    text = folded[: match.start()]
    words = _WORD.findall(_WORD_FOR_NUMBER.sub("", text)[-_LONGEST_WORD:])
    return _Numbered(text, int(match[1]), _compared(words[-1]) if words else "")


def _without_number(folded: str) -> str:
    """Return a folded text without its final number."""
    return _split_number(folded).text


def differ_in_number(first: str, second: str) -> bool:
    """Whether both texts end in a number of the same word, and not in the same one.

    So do "bus 17" and "bus 42". "car 1" and "cars in lane 2" don't: one is the car's number, the
    other the lane's.
    """
    one = _split_number(_fold(first))
    other = _split_number(_fold(second))
    if one.number is None or other.number is None or one.of != other.of:
        return False
    return one.number != other.number


def _likeness(first: str, second: str) -> float:
    """Return the share of the longer phrase's words that the shorter one has, from 0 to 1.

    0 where the two can't mean the same thing, by `alike`.
    """
    head, words = _meaning(first)
    other_head, other_words = _meaning(second)
    if head != other_head or (words & _NEGATIONS) != (other_words & _NEGATIONS):
        return 0.0
    if differ_in_number(first, second):
        return 0.0
    shorter, longer = sorted((words, other_words), key=len)
    if not shorter or not shorter <= longer:
        return 0.0
    return len(shorter) / len(longer)


@lru_cache(maxsize=1024)
def _meaning(text: str) -> tuple[str, frozenset[str]]:
    """Return the head word and all words of a phrase, as compared, without empty words."""
    words: list[str] = []
    for word in _WORD.findall(_without_number(_fold(text))):
        if _SPACELESS.search(word):
            words += word  # each character
        else:
            words.append(word)
    compared_words: set[str] = set()
    for word in words:
        if word not in _EMPTY_WORDS and word not in _RELATIONS_OF_THINGS:
            compared_words.add(_compared(word))
    return _compared(_head(words)), frozenset(compared_words)


def _head(words: list[str]) -> str:
    """Return the head word: the last one before words that relate its thing to others; "" for none.

    Such are "of", "is", "not", and a word in -ing that doesn't follow a quality: the head of "man
    riding a horse" is "man".
    """
    head = ""
    for word in words:
        participle = len(word) > 4 and word.endswith("ing") and head not in _QUALITIES
        if head and (word in _RELATIONS or word in ("is", "are", "no", "not") or participle):
            break
        if word not in _EMPTY_WORDS:
            head = word
    return head


def _words_of_kind(text: str) -> frozenset[str]:
    """Return the words before a phrase's head that make another kind of thing: "toy" of "toy car".

    Qualities such as "red" and words in -ed don't.
    """
    head = _meaning(text)[0]
    words_of_kind: set[str] = set()
    for word in _WORD.findall(_without_number(_fold_without_empty_words(text))):
        compared = _compared(word)
        if compared == head:
            break
        participle = len(compared) > 4 and compared.endswith("ed")
        if compared not in _QUALITIES and not participle:
            words_of_kind.add(compared)
    return frozenset(words_of_kind)


def _compared(word: str) -> str:
    """Return a word as words are compared: in the singular, also "scissor" for "scissors"."""
    if word in PAIRS:
        return word.removesuffix("es" if word.endswith("sses") else "s")
    return singular(word)
