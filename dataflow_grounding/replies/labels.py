"""Which phrase of the request a label in the reply means."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.english.nouns import PAIRS, singular
from dataflow_grounding.replies.vocabulary import ONE_OF_A_KIND, QUALITIES, word_list, words

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
# Words by which a thing is one without another: "no"; those that do so only behind it: "except".
NEGATIONS = words("negations")
_NEGATIONS_BEHIND = words("negations_behind")
_PLAIN_NEGATIONS = NEGATIONS - _NEGATIONS_BEHIND
_PREFIX = "non"  # a negation of the next word alone: "non-alcoholic beer"
_NOT = "not "  # stands before a word that is negated, as words are compared
_NEUTRAL_VERBS = words("neutral_verbs")  # that make no difference within a negation: "wearing"
# A verb with its negation, as in "isn't", "doesnt" and "can't"; the group is the verb.
_NEGATED_VERB = lazy_pattern(
    r"\b(can?|wo|is|are|was|were|do|does|did|has|have|had|could|would|should|must)n['’`]?t\b",
    re.IGNORECASE,
)
CLAUSE_WORDS = words("clause_words")  # that begin a clause on a thing: "dog that is sleeping"
_CLAUSE_BEGIN = lazy_pattern(rf"[\s,(]+(?:{'|'.join(CLAUSE_WORDS)})\s", re.IGNORECASE)
_ENDS_NEGATION = CLAUSE_WORDS | {",", ";", "(", "but"}
# A word, or a mark behind which a negation doesn't reach.
_WORD_OR_MARK = lazy_pattern(r"[^\W_]+|[,;(]")
_NUMBER_SIGN = lazy_pattern(r"\bno\.?\s?(?=\d)")  # "No. 5"
_EVERYTHING_BUT = lazy_pattern(r"\b(all|anything|everything|nothing|none) but\b")
# Words for numbers → the number as a word: "two" → "2".
_NUMBER_WORDS = {word: str(i) for i, word in enumerate(word_list("number_words"), 1)}
# Words for places in a row → the place: "second" → 2.
ORDINALS = {word: i for i, word in enumerate(word_list("ordinals"), 1)}
ORDINALS.update((word, i) for i, word in enumerate(word_list("ordinals_in_digits"), 1))
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
    same = equal_ids(label, phrases) or _ids_equal_but_for_articles(label, phrases)
    if same:
        return same
    same = [i for i, phrase in phrases.items() if _equal_but_for_number(label, phrase)]
    if same:
        return _ids_of_one_text(same, phrases)
    return _closest_ids(label, phrases)


def _ids_equal_but_for_articles(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that equal a label but for words such as "the" and "is"."""
    folded = _fold_without_empty_words(label)
    if not folded:
        return []
    return [i for i, phrase in phrases.items() if _fold_without_empty_words(phrase) == folded]


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

    What the label says its thing lacks ("missing a leg") makes no difference to a phrase that says
    no more than the rest of the label. [] where no phrase has half of the words in common with it,
    or where several are as close that aren't equal but for articles and a final number.
    """
    closest: list[int] = []
    best = _LEAST_LIKENESS
    said = _statement(label)
    affirmed = frozenset(word for word in said if not word.startswith(_NOT))
    for i, phrase in phrases.items():
        words = _statement(phrase)
        if not _same_thing(label, phrase) or _clash(said, words):
            continue
        if _has_plain_negation(label) != _has_plain_negation(phrase):
            continue
        likeness = _share(said, words)
        if words <= affirmed:
            likeness = _share(affirmed, words)
        if likeness > best:
            closest = []
            best = likeness
        if likeness == best:
            closest.append(i)
    return _ids_of_one_text(closest, phrases)


def named_ids(talk: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that talk means, the name of a thing and perhaps its clause.

    What the talk contradicts is no phrase of it: "dog that isn't sleeping" never means "sleeping
    dog". With a clause, the longest phrase counts that says nothing beyond the talk: "dog that is
    sleeping" means "sleeping dog" before "dog". Else they are the phrases that the name without its
    clause means, but for those that the clause tells its thing from.
    """
    said = _statement(talk)
    possible = {i: phrase for i, phrase in phrases.items() if not _clash(said, _statement(phrase))}
    begin = _CLAUSE_BEGIN.search(talk)
    if begin is None:
        return _ids_of_name(talk, possible)
    name = talk[: begin.start()]
    clause = _Clause.of(talk[begin.end() :])
    whole = _ids_equal_but_for_articles(talk, possible)
    whole = whole or _longest_within(name, clause, possible)
    if whole:
        return whole
    words_of_name = _statement(name)
    ids: list[int] = []
    for i in _ids_of_name(name, possible):
        further = _statement(phrases[i]) - words_of_name
        if not further or not ("whose" in begin[0].lower() or clause.tells_from(further)):
            ids.append(i)
    return ids


class _Clause(NamedTuple):
    """What a clause on a thing says of it, as words are compared.

    Attributes:
        words: All of its words that say something, in order.
        qualities: Those that say what the thing itself is: "red" of "is red", none of "is on the
            red car" and "has red wheels".
    """

    words: list[str]
    qualities: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "_Clause":
        """Return what the text of a clause says, without "that" and the like."""
        words = _words_and_marks(_fold(text))
        end = 0
        while end < len(words) and words[end] not in _RELATIONS | _NEUTRAL_VERBS | _ENDS_NEGATION:
            end += 1
        said = [word for word in _stated_words(words) if word not in _NEUTRAL_VERBS]
        return cls(said, frozenset(_stated_words(words[:end])))

    def says(self, phrase: str, name: str) -> bool:
        """Whether the clause says what a phrase says beyond the name.

        What stands before the phrase's head, as in "red car", must be what the thing is; what
        stands behind it, as in "man with a hat", the first that the clause says besides. A clause
        that speaks of another thing of the same name doesn't say that of the first one.
        """
        head = head_word(phrase)
        words = _stated_words(_words_and_marks(_without_number(_fold(phrase))))
        place = words.index(head) if head in words else len(words)
        known = _statement(name) | _NEUTRAL_VERBS
        before = set(words[:place]) - known
        behind = set(words[place:]) - known
        if not before <= self.qualities:
            return False
        others = [word for word in self.words if word not in before]
        return not behind or (head not in others and behind == set(others[: len(behind)]))

    def tells_from(self, further: frozenset[str]) -> bool:
        """Whether the clause tells its thing from that of a phrase with further words.

        It does where it says something else of the same: of the same part, as "has a red roof" and
        "has a blue roof" do, or another color, side or posture of the thing itself.
        """
        if further.intersection(self.words) and not further.issubset(self.words):
            return True
        for kind in ONE_OF_A_KIND:
            if self.qualities & kind and further & kind and not self.qualities & further:
                return True
        return False


def _longest_within(name: str, clause: _Clause, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the longest phrase that says what a name and its clause say, or less.

    [] where no phrase does, or where several are as long that aren't equal but for articles.
    """
    longest: list[int] = []
    most_words = 0
    for i, phrase in phrases.items():
        words = _statement(phrase)
        if len(words) < most_words or not _same_thing(name, phrase):
            continue
        if not clause.says(phrase, name):
            continue
        if len(words) > most_words:
            longest = []
            most_words = len(words)
        longest.append(i)
    return _ids_of_one_text(longest, phrases)


def _ids_of_name(name: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that a name in talk means.

    They are those that it means as a label, by `matching_ids`. Else it is the one phrase that is
    like it and all of whose words it has, among any number of others; [] where several are so, or
    none is. A count or a place before the name ("2 cats", "first cat") may be left out for a phrase
    that has no such number, and says no more: "two men" doesn't mean "man on the left".
    """
    matching = matching_ids(name, phrases)
    if matching:
        return matching
    thing = _PARTICIPLE.split(name, maxsplit=1)[0]
    words = _statement(name)
    ids: list[int] = []
    for i, phrase in phrases.items():
        if _statement(phrase) <= words and (alike(name, phrase) or alike(thing, phrase)):
            ids.append(i)
    if ids:
        return ids if len(ids) == 1 else []
    count, _, counted = name.partition(" ")
    if not counted or not _is_number(count):
        return []
    # a number before each box is often no part of a name
    counts_boxes = count.isdigit() or ORDINALS.get(count.lower()) == 1
    ids = []
    for i in _ids_of_name(counted, phrases):
        says_more = not _statement(phrases[i]) <= _statement(counted)
        if _numbers_in(phrases[i]) <= _numbers_in(counted) and (counts_boxes or not says_more):
            ids.append(i)
    return ids


def is_negated(text: str) -> bool:
    """Whether a word in a text makes its thing one without another, as "without" does."""
    return any(word.startswith(_NOT) for word in _statement(text))


def _has_plain_negation(text: str) -> bool:
    """Whether a text has a negation such as "no" or "without", and not only one like "missing"."""
    return not _PLAIN_NEGATIONS.isdisjoint(_WORD.findall(_fold(text)))


def _numbers_in(text: str) -> set[str]:
    """Return the numbers in a text, in digits or as words."""
    return {word for word in _WORD.findall(_fold(text)) if _is_number(word)}


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
    if " but" in text:
        text = _EVERYTHING_BUT.sub(r"\1 except", text)
    if "no" in text:
        text = _NUMBER_SIGN.sub("", text)
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
    """Whether both texts end in a number of the same word, and not in the same one.

    So do "bus 17" and "bus 42". "car 1" and "cars in lane 2" don't: one is the car's number, the
    other the lane's.
    """
    one = _split_number(_fold(first))
    other = _split_number(_fold(second))
    if one.number is None or other.number is None or one.of != other.of:
        return False
    return one.number != other.number


def _same_thing(first: str, second: str) -> bool:
    """Whether two texts have the same head word, and no different numbers of the same thing."""
    return _meaning(first)[0] == _meaning(second)[0] and not differ_in_number(first, second)


def _clash(first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether one statement has a word that the other negates."""
    for word in first:
        opposite = word.removeprefix(_NOT) if word.startswith(_NOT) else _NOT + word
        if opposite in second:
            return True
    return False


def _share(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the share of the larger set's words that the smaller one has, from 0 to 1.

    0 where the smaller one has any that the larger one lacks, or only one of them has a negation.
    """
    negated = {word for word in first if word.startswith(_NOT)}
    negated_in_second = {word for word in second if word.startswith(_NOT)}
    shorter, longer = sorted((first, second), key=len)
    if bool(negated) != bool(negated_in_second) or not shorter or not shorter <= longer:
        return 0.0
    return len(shorter) / len(longer)


def _likeness(first: str, second: str) -> float:
    """Return the share of the longer phrase's words that the shorter one has, from 0 to 1.

    0 where the two can't mean the same thing, by `alike`.
    """
    return _share(_statement(first), _statement(second)) if _same_thing(first, second) else 0.0


@lru_cache(maxsize=1024)
def _meaning(text: str) -> tuple[str, frozenset[str]]:
    """Return the head word and all words of a phrase, as compared, without empty words."""
    words = _words_of(_WORD.findall(_without_number(_fold(text))))
    compared_words: set[str] = set()
    for word in words:
        if word in NEGATIONS or (word not in _EMPTY_WORDS and word not in _RELATIONS):
            compared_words.add(_compared(word))
    return _compared(_head(words)), frozenset(compared_words)


def _words_of(tokens: list[str]) -> list[str]:
    """Return words, each character of those in a script without blanks by itself.

    "non" and the word that it negates are one: "not alcoholic" for "non-alcoholic".
    """
    words: list[str] = []
    for token in tokens:
        if words and words[-1] == _PREFIX:
            words[-1] = _NOT + token
        elif _SPACELESS.search(token):
            words += token
        else:
            words.append(token)
    return words


def _negation_indices(words: list[str]) -> set[int]:
    """Return the indices of the words by which a thing is one without another.

    Some are such words only behind a thing: in "missing tooth" the tooth is what is meant.
    """
    indices: set[int] = set()
    has_name = False  # whether a word before is neither empty nor a number
    for i, word in enumerate(words):
        if word in NEGATIONS and (has_name or word not in _NEGATIONS_BEHIND):
            indices.add(i)
        elif word not in _EMPTY_WORDS and not _is_number(word):
            has_name = True
    return indices


@lru_cache(maxsize=1024)
def _statement(text: str) -> frozenset[str]:
    """Return the words of a text as compared, each that a negation reaches behind "not ".

    A negation reaches up to a mark, a clause, "but", or a word such as "on" behind what is negated.
    So "man without a hat on a horse" is {"man", "not hat", "horse"}. Whether it reaches beyond
    "and" nobody can tell: words there are left out. One that a text begins with doesn't reach the
    last word: "no parking sign" is {"not parking", "sign"}.
    """
    return frozenset(_stated_words(_words_and_marks(_without_number(_fold(text)))))


def _words_and_marks(folded: str) -> list[str]:
    """Return the words of a folded text, and the marks at which a negation ends."""
    return _words_of(_WORD_OR_MARK.findall(folded))


def _stated_words(words: list[str]) -> list[str]:
    """Return what `_statement` does, in the order of the words."""
    said: list[str] = []
    reach = "none"  # of a negation: "none", "begun", "here", or "unclear" behind "and"
    begins = False  # whether the text begins with the negation
    negations = _negation_indices(words)
    for i, word in enumerate(words):
        if i in negations:
            begins = all(_is_number(word) or not _is_content(word) for word in words[:i])
            reach = "begun"
        elif word == "and" and reach == "here":
            reach = "unclear"
        elif word in _ENDS_NEGATION or (word in _RELATIONS and reach != "begun"):
            _affirm_last(said, begins=begins)
            reach = "none"
            begins = False
        elif word in _NEUTRAL_VERBS:
            said.append(_compared(word))
        elif _is_content(word) and reach != "unclear":
            reach = "here" if reach == "begun" else reach
            said.append(_NOT + _compared(word) if reach == "here" else _compared(word))
    _affirm_last(said, begins=begins)
    return said


def _is_content(word: str) -> bool:
    """Whether a word says something by itself: no article, no relation."""
    return word not in _EMPTY_WORDS and word not in _RELATIONS


def _affirm_last(said: list[str], *, begins: bool) -> None:
    """Affirm the last of several words, in place, if their text begins with the negation."""
    if begins and len(said) > 1 and said[-1].startswith(_NOT):
        said[-1] = said[-1].removeprefix(_NOT)


def _head(words: list[str]) -> str:
    """Return the head word: the last one before words that relate its thing to others; "" for none.

    Such are "of", "is", "not", and a word in -ing that doesn't follow a quality: the head of "man
    riding a horse" is "man". Behind a negation at the beginning it is the head itself: "parking" of
    "no parking sign", which may be called "no parking".
    """
    head = ""
    negations = _negation_indices(words)
    for i, word in enumerate(words):
        relates = word in _RELATIONS or word in ("is", "are")
        participle = len(word) > 4 and word.endswith("ing") and head not in QUALITIES
        has_name = head != "" and not _is_number(head)
        if (head and relates) or (has_name and (i in negations or participle)):
            break
        if word not in _EMPTY_WORDS and i not in negations:
            head = word
            if participle and i - 1 in negations:
                break
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
        is_number = compared.isdigit() or word in ORDINALS
        if compared not in QUALITIES and not is_number and not participle:
            words_of_kind.add(compared)
    return frozenset(words_of_kind)


def _compared(word: str) -> str:
    """Return a word as words are compared: in the singular, also "scissor" for "scissors".

    A word for a number is the number: "2" for "two". Words for a place in a row are alike: "1." for
    "first" and "1st".
    """
    if word in ORDINALS:
        return f"{ORDINALS[word]}."
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word in PAIRS:
        return word.removesuffix("es" if word.endswith("sses") else "s")
    return singular(word)
