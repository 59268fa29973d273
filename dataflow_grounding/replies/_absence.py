"""Whether a reply says a thing is not there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.labels import (
    all_words,
    differ_in_number,
    head_word,
    matching_ids,
)
from dataflow_grounding.replies.vocabulary import COORDINATE, pattern, patterns, words

# Sentences that say that a thing, which is the group, is not there: "there is no cat".
_ENGLISH = patterns("english")
_OTHER_LANGUAGES = patterns("other_languages")
_NONE = pattern("none")  # a whole text without a thing: "none", "not found"
_NEGATION = pattern("negation")  # a word that is in each of these: "no", "not"
_NEGATION_ELSEWHERE = pattern("negation_elsewhere")  # one in further languages
_PREAMBLE = pattern("preamble")  # what may come before: "Unfortunately, ", "I looked, but "
_ANSWER_HEADING = pattern("caption")  # "Final answer: "
_LEADING = pattern("leading")  # words before a thing that aren't its name: "any such"
_ANYTHING = pattern("anything")  # a thing that is any: "objects", ""
_NO_THING = pattern("no_thing")  # what may be missing without any thing being absent: "file"
_BOXES_NOT_GIVEN = pattern("not_given")  # "no boxes were provided"
_CONTRAST = pattern("contrast")  # "but", "there is"
_AND = pattern("and")  # what stands between things: ", nor the"
BLIND = pattern("blind")  # "I can't see the image"
UNREAL = pattern("unreal")  # "hypothetical", "only a guess"
# What stands between two sentences: blanks behind a full stop, but that of "No. 5"; or new lines.
SENTENCE_END = lazy_pattern(r"(?<=[.!?。！？；;])(?<!\b[Nn]o\.)(?:\s+|$)|(?<=[。！？；])|\n+")
# Characters around a sentence or thing that say nothing.
_MARKUP = " \t\r\n.,:!?\"'`*_[](){}<>|-–•#。，、：！？“”‘’「」"
_PUNCTUATION = lazy_pattern(r"[\s(),;:–—-]+")
# The number of a line: "1. " of "1. none".
_NUMBERING = lazy_pattern(r"^[^\S\n]*\d{1,3}[.)]\s+", re.MULTILINE)
_LETTER = lazy_pattern(r"[^\W\d_]")
_NUMBER = r"[-+]?(?:\d{1,9}(?:\.\d{1,20})?|\.\d{1,20})(?:\s?(?:px|%))?"
# The numbers of a box: no part of them says that something is not there, as "dog: 0" of "dog: 0,
# 120, 480, 640" would.
_FOUR_NUMBERS = lazy_pattern(rf"{_NUMBER}(?:[\s,;|/()\[\]<>]{{1,6}}{_NUMBER}){{3,}}")
BOX_NUMBERS = lazy_pattern(
    rf"{_FOUR_NUMBERS.pattern}|\b{COORDINATE}\s{{0,3}}[=:]\s{{0,3}}{_NUMBER}", re.IGNORECASE
)
_WORD = lazy_pattern(r"[^\W_]+")
_ANOTHER = lazy_pattern(
    r"\b(?:other|another|more|second|third|further|additional)\b", re.IGNORECASE
)
_CAMEL = lazy_pattern(r"(?<=[a-z])(?=[A-Z])")  # between the words of "redCar"
# Words of keys and labels that name no thing, as "detected_objects" and "submit_boxes".
_NAMES_NOTHING = words("filler") | words("of_tools")
# A 0 with another number behind it: "0, 120".
_ZERO_FIRST = lazy_pattern(r"(?<![\w.])0[\d.]{0,20}\s{0,3}[,;|/\s]\s{0,3}[-+.]?\d")
# A character of a script without blanks between words: Thai, Burmese, kana or Chinese.
_SPACELESS = lazy_pattern(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]")
# What may stand before a thing in Chinese, such as "any" or "a", and particles behind it.
_COUNTED = lazy_pattern(
    r"^(?:任何|[一那这该]?[只个隻個条辆位头匹张把台朵棵艘架]|[一那这该](?=.))|(?:的|は|が|も)$"
)
_LONGEST = 600  # characters of a text that says nothing else


class Missing(NamedTuple):
    """What a text says is not there.

    Attributes:
        thing: The thing in the text's words; "" for anything at all.
        foreign: Whether the text is in another language than English.
        answer_count: How many numbered lines, such as "1. none", say so: they answer for as many
            phrases. None where the lines aren't all numbered.
    """

    thing: str
    foreign: bool = False
    answer_count: int | None = None

    def answers_for(self, phrases: Mapping[int, str]) -> bool:
        """Whether it says of all phrases of a request that they are not there.

        It does where its things are the phrases', or wider ones; and where nothing at all is there,
        but for numbered lines that are fewer than the phrases.
        """
        if not self.thing or not phrases:
            return self.answer_count is None or self.answer_count >= len(phrases)
        if len(phrases) == 1:
            phrase = next(iter(phrases.values()))
            return any(self._is_phrase(part, phrase) for part in self.parts)
        ids_not_there: set[int] = set()
        for part in self.parts:
            for phrase_id in matching_ids(part, phrases):
                if _lack_covers(part, phrases[phrase_id]):
                    ids_not_there.add(phrase_id)
        return ids_not_there == set(phrases)

    def denies(self, labels: Sequence[str]) -> bool:
        """Whether it says that what has these labels is not there, or that nothing at all is."""
        return self.answers_for(dict(enumerate(labels)))

    def _is_phrase(self, part: str, phrase: str) -> bool:
        """Whether one of the things is a phrase's thing, or a wider one: "cat" for "black cat"."""
        if self.foreign:  # whether words of two languages mean one thing isn't known
            return _same_word(part, phrase)
        return head_word(part) == head_word(phrase) and _lack_covers(part, phrase)

    @property
    def parts(self) -> list[str]:
        """The things, one by one."""
        return parts_of(self.thing)


def _same_word(thing: str, phrase: str) -> bool:
    """Whether a thing in a language other than English is a phrase's, or a wider one.

    Scripts without blanks have the thing at the phrase's end: "汽车" is missing, so "红色汽车" is.
    Elsewhere each of the thing's words agrees with one of the phrase's up to its ending. False for
    a thing without words.
    """
    if _SPACELESS.search(thing + phrase):
        return _ends_with(_COUNTED.sub("", phrase.strip()), _COUNTED.sub("", thing.strip()))
    words = all_words(thing)
    words_of_phrase = all_words(phrase)
    for word in words:
        if not any(_same_stem(word, candidate) for candidate in words_of_phrase):
            return False
    return bool(words)


def _ends_with(phrase: str, thing: str) -> bool:
    """Whether a phrase in a script without blanks has a thing at its end, or is it.

    A thing of one character must stand by itself, or behind "of".
    """
    if thing == phrase:
        return True
    # A single character may be the end of another word, but behind "of" it is a word of its own.
    stands_alone = len(thing) > 1 or phrase[-2:-1] in ("的", "の")
    return stands_alone and phrase.endswith(thing)


def _same_stem(first: str, second: str) -> bool:
    """Whether two words agree up to their endings.

    The shorter has four letters or more, which agree but for the last; the longer has at most two
    letters more.
    """
    if first == second:
        return True
    shorter = min(len(first), len(second))
    if shorter <= 3 or abs(len(first) - len(second)) >= 3:
        return False
    return first[: shorter - 1] == second[: shorter - 1]


def parts_of(things: str) -> list[str]:
    """Return the things in a list of them, one by one: "cat" and "dog" of "cat, dog"; [] for ""."""
    return [part for part in _AND.split(things) if part.strip()]


def thing_beside_none(label: str) -> str:
    """Return the thing that a label names beside which a reply says "none".

    Of "no cat" that is "cat", of "detectedCats" "Cats". "" for a label that names nothing, such as
    "objects" or "No match"; the label itself where it says "another".
    """
    for text in (label, _PUNCTUATION.sub(" ", label)):
        missing = missing_in_clause(text)
        if missing is not None:
            return missing.thing
    if _ANOTHER.search(label):
        return label
    words = _WORD.findall(_CAMEL.sub(" ", label))
    words_of_name = [word for word in words if word.lower() not in _NAMES_NOTHING]
    if len(words_of_name) < len(words):  # "occurredObjects" names no thing either
        words_of_name = [word for word in words_of_name if not _is_participle(word)]
    return " ".join(words_of_name)


def _is_participle(word: str) -> bool:
    """Whether a word ends as participles do, in "ed", and has more than four letters."""
    return len(word) > 4 and word.lower().endswith("ed")


def missing_ids(thing: str, phrases: Mapping[int, str]) -> set[int]:
    """Return the ids of the phrases that are not there when a thing is not.

    These are the phrases that mean the thing, or a narrower one.
    """
    ids = set(matching_ids(thing, phrases))
    head = head_word(thing)
    for phrase_id, phrase in phrases.items():
        if head_word(phrase) == head and _lack_covers(thing, phrase):
            ids.add(phrase_id)
    return ids


def _lack_covers(part: str, phrase: str) -> bool:
    """Whether a phrase's thing is not there when a thing is not.

    That is so for the same and for wider things: where there is no "cat" there is no "black cat".
    Where there is no "bus 17" there may be a "bus 42".
    """
    return all_words(part) <= all_words(phrase) and not differ_in_number(part, phrase)


def missing_in(text: str) -> Missing | None:
    """Return what a text says is not there, where it says nothing that may take this back.

    None for a text that doesn't say so, for one longer than `_LONGEST`, and where `_is_taken_back`.
    """
    text = text.strip()
    if len(text) > _LONGEST or _NEGATION.search(text) is None:
        return None
    missing: list[Missing] = []
    others: list[str] = []  # sentences that don't say that something is missing
    for sentence in SENTENCE_END.split(_NUMBERING.sub("", text)):
        if not sentence.strip(_MARKUP):
            continue
        missing_in_it = _missing_in_sentence(sentence)
        if missing_in_it is None:
            others.append(sentence)
        else:
            missing.append(missing_in_it)
    if not missing or _is_taken_back(missing, others):
        return None
    numbers = len(_NUMBERING.findall(text))
    all_numbered = numbers == len(missing) + len(others)
    return _missing_together(missing, numbers if all_numbered else None)


def _missing_together(missing: list[Missing], answer_count: int | None) -> Missing:
    """Return what several sentences together say is not there.

    These are all the things that they name; or, where one of them names none, anything at all.

    Args:
        missing: What each sentence says.
        answer_count: How many numbered lines say so; None where lines aren't numbered.
    """
    things = [in_sentence.thing for in_sentence in missing]
    foreign = any(in_sentence.foreign for in_sentence in missing)
    if all(things):
        return Missing(", ".join(things), foreign)
    return Missing("", foreign, answer_count)


def _is_taken_back(missing: list[Missing], others: list[str]) -> bool:
    """Whether other sentences of a text may take back what it says is not there.

    They may where they have a word of contrast or speak of the same thing, and any sentence may
    where the text says that nothing at all is there. False without other sentences.
    """
    if not others:
        return False
    heads: set[str] = set()
    for in_sentence in missing:
        if not in_sentence.thing:
            return True
        heads.update(head_word(part) for part in in_sentence.parts)
    return any(_CONTRAST.search(sentence) or heads & all_words(sentence) for sentence in others)


def says_none(text: str) -> bool:
    """Whether a text says that something, or anything at all, is not there, as `missing_in`."""
    return missing_in(text) is not None


def only_says_none(text: str) -> bool:
    """Whether a text is only a word for none, such as "not found", and names no thing."""
    return _NONE.fullmatch(text.strip(_MARKUP)) is not None


def missing_in_clause(text: str) -> Missing | None:
    """Return what a sentence, or a part of one, says is not there.

    None for any other, and for one longer than `_LONGEST`.
    """
    if len(text) > _LONGEST or _NEGATION.search(text) is None:
        return None
    return _missing_in_sentence(text)


def holds_box(text: str) -> bool:
    """Whether a text has four or more numbers in a row, not all of them zero."""
    return any(re.search("[1-9]", match[0]) for match in _FOUR_NUMBERS.finditer(text))


def denies_itself(label: str) -> bool:
    """Whether a label says that it is not there, as "cat (not visible)" and "no cat" do."""
    return any(missing_in_clause(text) for text in (label, _PUNCTUATION.sub(" ", label)))


def negates(text: str) -> bool:
    """Whether a text in any of many languages has a word of negation."""
    return _NEGATION.search(text) is not None or _NEGATION_ELSEWHERE.search(text) is not None


def _has_box_numbers(text: str) -> bool:
    """Whether a text has numbers as of a box, so that a 0 in it isn't "none"."""
    return BOX_NUMBERS.search(text) is not None or _ZERO_FIRST.search(text) is not None


def _fullmatch(alternatives: Iterable[re.Pattern[str]], text: str) -> re.Match[str] | None:
    """Return the match of the first pattern that matches a whole text; None where none does."""
    for alternative in alternatives:
        match = alternative.fullmatch(text)
        if match is not None:
            return match
    return None


def _missing_in_sentence(sentence: str) -> Missing | None:
    """Return what a sentence says is not there; None for any other sentence.

    So are questions, sentences on boxes that nobody gave, and those with a box's numbers.
    """
    if "?" in sentence or "？" in sentence:
        return None
    if _BOXES_NOT_GIVEN.search(sentence) or _has_box_numbers(sentence):
        return None
    sentence = _ANSWER_HEADING.sub("", sentence.strip(_MARKUP), count=1).strip(_MARKUP)
    if _NONE.fullmatch(sentence):
        return Missing("")
    without_preamble = _PREAMBLE.sub("", sentence, count=1).strip(_MARKUP)
    for text in dict.fromkeys([sentence, without_preamble]):
        match = _fullmatch(_OTHER_LANGUAGES, text)
        if match is not None:
            return _missing_by(match, foreign=True)
        match = _fullmatch(_ENGLISH, text)
        if match is not None:
            return _missing_by(match, foreign=False)
    return None


def _missing_by(match: re.Match[str], *, foreign: bool) -> Missing | None:
    """Return what is not there by a pattern's match; None where the match is about no thing.

    It is about none where its groups hold a word such as "file", or only a number.
    """
    thing = " ".join(group for group in match.groupdict().values() if group).strip(_MARKUP)
    thing = _LEADING.sub("", thing + " ", count=1).strip()
    if _NO_THING.search(thing):
        return None
    if thing and _LETTER.search(thing) is None:  # a number counts none
        return None
    if _ANYTHING.fullmatch(thing):
        thing = ""
    return Missing(thing, foreign)
