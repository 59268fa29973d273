"""Which phrase of the request a label in the reply means."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.vocabulary import PAIRS, singular, word_list, words

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
_FILLER = words("filler")  # with which no name begins: "asked", "for"
_QUALITIES = words("qualities")  # that leave a thing what it is: "red", "left"
NEGATIONS = words("negations")  # by which a thing is one without another: "no", "except"
_NEGATION = "not"  # what each of them is compared as: "man with no hat" is "man without a hat"
# A verb with its negation, as in "isn't", "doesnt" and "can't"; the group is the verb.
_NEGATED_VERB = lazy_pattern(
    r"\b(can?|wo|is|are|was|were|do|does|did|has|have|had|could|would|should|must)n['’`]?t\b",
    re.IGNORECASE,
)
# The words that begin a clause on a thing: " that " of "dog that is sleeping".
_CLAUSE_BEGIN = lazy_pattern(r"\s(?:that|which|who|whose)\s", re.IGNORECASE)
# Words for numbers → the number as a word: "two" → "2".
_NUMBER_WORDS = {word: str(i) for i, word in enumerate(word_list("number_words"), 1)}
# Words for places in a row → the place: "second" → 2.
ORDINALS = {word: i for i, word in enumerate(word_list("ordinals"), 1)}
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

    They are those that the name in it means. Where that means none, they are those that it means
    without its clause: after "that is sleeping" only phrases that say no more than the name, as
    "dog" does; or without the number before it ("2 cats", "first cat"), if no phrase has one.
    """
    ids = _ids_of_name(talk, phrases)
    if ids:
        return ids
    clause = _CLAUSE_BEGIN.search(talk)
    if clause is not None:
        name = talk[: clause.start()]
        ids = named_ids(name, phrases)
        if all_words(talk[clause.start() :]) <= _FILLER:  # "that you asked for"
            return ids
        return [i for i in ids if all_words(phrases[i]) <= all_words(name)]
    first, _, others = talk.partition(" ")
    if _is_number(first) and not any(_has_number(phrase) for phrase in phrases.values()):
        return named_ids(others, phrases)
    return []


def _ids_of_name(name: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that a name in talk means.

    They are those that it means as a label, by `matching_ids`. Else it is the one phrase that is
    like it and all of whose words it has, among any number of others; [] where several are so, or
    none is.
    """
    matching = matching_ids(name, phrases)
    if matching:
        return matching
    thing = _PARTICIPLE.split(name, maxsplit=1)[0]
    words = all_words(name)
    ids: list[int] = []
    for i, phrase in phrases.items():
        if not all_words(phrase) <= words or is_negated(name) != is_negated(phrase):
            continue
        if alike(name, phrase) or alike(thing, phrase):
            ids.append(i)
    return ids if len(ids) == 1 else []


def is_negated(text: str) -> bool:
    """Whether a word in a text makes its thing one without another, as "without" does."""
    return _NEGATION in all_words(text)


def _has_number(text: str) -> bool:
    """Whether a text has a number, in digits or as a word."""
    return any(_is_number(word) for word in _WORD.findall(_fold(text)))


def _is_number(word: str) -> bool:
    """Whether a word is a number or a place in a row: "2", "two", "second"."""
    word = word.lower()
    return word.isdigit() or word in _NUMBER_WORDS or word in ORDINALS


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
    text = with_whole_negations(unicodedata.normalize("NFKC", text[:_LONGEST]).casefold())
    return " ".join(text.split()).strip(" \"'`“”‘’.,;:*")


def with_whole_negations(text: str) -> str:
    """Return a text with the negations of its verbs as words: "is not" for "isn't"."""
    return _NEGATED_VERB.sub(r"\1 not", text) if "n" in text or "N" in text else text


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
    """Whether both texts have a number of the same word, and not the same one.

    So do "bus 17" and "bus 42", and "second car" and "car 3". "car 1" and "cars in lane 2" don't:
    one is the car's number, the other the lane's.
    """
    one = _number_of(first)
    other = _number_of(second)
    if one.number is None or other.number is None or one.of != other.of:
        return False
    return one.number != other.number


@lru_cache(maxsize=1024)
def _number_of(text: str) -> _Numbered:
    """Return a text with the number that it ends in, or with its place in a row: "second car"."""
    numbered = _split_number(_fold(text))
    words = _fold_without_empty_words(text).split()
    if numbered.number is not None or not words or words[0] not in ORDINALS:
        return numbered
    counted = " ".join(word for word in words[1:] if word not in _QUALITIES)
    return _Numbered(numbered.text, ORDINALS[words[0]], _compared(_head(_WORD.findall(counted))))


def _likeness(first: str, second: str) -> float:
    """Return the share of the longer phrase's words that the shorter one has, from 0 to 1.

    0 where the two can't mean the same thing, by `alike`.
    """
    head, words = _meaning(first)
    other_head, other_words = _meaning(second)
    if head != other_head or (_NEGATION in words) != (_NEGATION in other_words):
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
        if word in NEGATIONS:
            compared_words.add(_NEGATION)
        elif word not in _EMPTY_WORDS and word not in _RELATIONS:
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
        if head and (word in _RELATIONS or word in NEGATIONS or word in ("is", "are")):
            break
        if head and participle:
            break
        if word not in _EMPTY_WORDS and word not in NEGATIONS:
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
        if compared not in _QUALITIES and not compared.isdigit() and not participle:
            words_of_kind.add(compared)
    return frozenset(words_of_kind)


def _compared(word: str) -> str:
    """Return a word as words are compared: in the singular, also "scissor" for "scissors".

    A word for a number is the number: "2" for "two".
    """
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word in PAIRS:
        return word.removesuffix("es" if word.endswith("sses") else "s")
    return singular(word)
