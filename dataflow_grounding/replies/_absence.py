"""Whether a reply says a thing is not there."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.labels import all_words, head_word, matching_ids
from dataflow_grounding.replies.vocabulary import COORDINATE, pattern, patterns, words

_ENGLISH, _OTHER_LANGUAGES = patterns("english"), patterns("other_languages")
_NONE, _NEGATION, _PREAMBLE, _CAPTION = map(pattern, ("none", "negation", "preamble", "caption"))
_NEGATION_ELSEWHERE = pattern("negation_elsewhere")
_LEADING, _ANYTHING, _NO_THING, _NOT_GIVEN = map(
    pattern, ("leading", "anything", "no_thing", "not_given")
)
_CONTRAST, _AND, BLIND, UNREAL = map(pattern, ("contrast", "and", "blind", "unreal"))
SENTENCE_END = lazy_pattern(r"(?<=[.!?。！？；;])(?:\s+|$)|(?<=[。！？；])|\n+")
_MARKUP = " \t\r\n.,:!?\"'`*_[](){}<>|-–•#。，、：！？“”‘’「」"
_PUNCTUATION = lazy_pattern(r"[\s(),;:–—-]+")
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
_CAMEL = lazy_pattern(r"(?<=[a-z])(?=[A-Z])")
# Words of keys and labels that name no thing, as "detected_objects" and "submit_boxes".
_NAMES_NOTHING = words("filler") | words("of_tools")
_ZERO_FIRST = lazy_pattern(r"(?<![\w.])0[\d.]{0,20}\s{0,3}[,;|/\s]\s{0,3}[-+.]?\d")
_SPACELESS = lazy_pattern(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]")
_COUNTED = lazy_pattern(
    r"^(?:任何|[一那这该]?[只个隻個条辆位头匹张把台朵棵艘架]|[一那这该](?=.))|(?:的|は|が|も)$"
)
_LONGEST = 600


class Missing(NamedTuple):
    """What a text says is not there: `thing` in its words, "" for anything at all; `foreign`: not
    in English.

    `counted` is how many numbered lines say so and name nothing, as "1. none" does: they answer for
    as many phrases.
    """

    thing: str
    foreign: bool = False
    counted: int | None = None

    def answers_for(self, phrases: Mapping[int, str]) -> bool:
        """Whether it answers for all of the phrases asked: it is anything, the only phrase, or each
        of them.
        """
        if not self.thing or not phrases:
            return self.counted is None or self.counted >= len(phrases)
        if len(phrases) == 1:
            phrase = next(iter(phrases.values()))
            if self.foreign:  # of words of two languages nobody knows that they mean one thing
                return any(_same_word(part, phrase) for part in self.parts)
            return any(
                head_word(part) == head_word(phrase) and _covers(part, phrase)
                for part in self.parts
            )
        covered = {
            i
            for part in self.parts
            for i in matching_ids(part, phrases)
            if _covers(part, phrases[i])
        }
        return covered == set(phrases)

    @property
    def parts(self) -> list[str]:
        """The things, one by one."""
        return parts_of(self.thing)


def _same_word(thing: str, phrase: str) -> bool:
    """Whether a thing in a language other than English is a phrase's, in that language: the same or
    a wider one.

    Scripts without blanks have the thing at the phrase's end: "汽车" is missing, so "红色汽车" is.
    A single character is a part of many words, and must stand by itself. Elsewhere the words
    agree up to their endings.
    """
    if _SPACELESS.search(thing + phrase):
        thing, phrase = (_COUNTED.sub("", text.strip()) for text in (thing, phrase))
        return thing == phrase or (
            phrase.endswith(thing) and (len(thing) > 1 or phrase[-2:-1] in ("的", "の"))
        )
    things, words = sorted(all_words(thing)), sorted(all_words(phrase))
    return bool(things) and all(any(_same_stem(one, other) for other in words) for one in things)


def _same_stem(one: str, other: str) -> bool:
    shorter = min(len(one), len(other))
    return one == other or (
        shorter > 3
        and abs(len(one) - len(other)) < 3
        and one[: shorter - 1] == other[: shorter - 1]
    )


def parts_of(things: str) -> list[str]:
    """Return the things in a list of them, one by one."""
    return [part for part in _AND.split(things) if part.strip()]


def thing_missed(label: str) -> str:
    """Return the thing beside which a reply says "none"; "" for a name of nothing, as "objects" or
    "No match" are.
    """
    for text in (label, _PUNCTUATION.sub(" ", label)):
        missing = missing_in_clause(text)
        if missing is not None:
            return missing.thing
    if _ANOTHER.search(label):
        return label
    words = _WORD.findall(_CAMEL.sub(" ", label))
    rest = [word for word in words if word.lower() not in _NAMES_NOTHING]
    if len(rest) < len(words):  # "occurredObjects" names no thing either
        rest = [word for word in rest if len(word) <= 4 or not word.lower().endswith("ed")]
    return " ".join(rest)


def covered_ids(thing: str, phrases: Mapping[int, str]) -> set[int]:
    """Return the phrases that are not there when a thing is not: those that mean it, or a narrower
    one.
    """
    head = head_word(thing)
    narrower = {
        i for i, phrase in phrases.items() if head_word(phrase) == head and _covers(thing, phrase)
    }
    return narrower.union(matching_ids(thing, phrases))


def _covers(part: str, phrase: str) -> bool:
    """Whether the lack of a thing is that of a phrase's: of a narrower thing, as "second cat", it
    may be any other.
    """
    return all_words(part) <= all_words(phrase)


def missing_in(text: str) -> Missing | None:
    """Return what a text says is not there, when it says nothing else; None for any other text."""
    text = text.strip()
    if len(text) > _LONGEST or _NEGATION.search(text) is None:
        return None
    sentences = [
        part for part in SENTENCE_END.split(_NUMBERING.sub("", text)) if part.strip(_MARKUP)
    ]
    readings = [(part, _missing_in_sentence(part)) for part in sentences]
    missing = [reading for _, reading in readings if reading is not None]
    if not missing or _in_doubt(missing, [part for part, reading in readings if reading is None]):
        return None
    return _all_missing(missing, len(_NUMBERING.findall(text)), len(sentences))


def _all_missing(missing: list[Missing], numbered: int, sentences: int) -> Missing:
    """Return what sentences miss together: anything, where one of them does."""
    things = [reading.thing for reading in missing]
    foreign = any(reading.foreign for reading in missing)
    if all(things):
        return Missing(", ".join(things), foreign)
    return Missing("", foreign, numbered if numbered == sentences else None)


def _in_doubt(missing: list[Missing], others: list[str]) -> bool:
    """Whether the other sentences of a text may take back what it misses, or speak of the same
    thing.
    """
    if others and not all(reading.thing for reading in missing):
        return True
    named = {head_word(part) for reading in missing for part in reading.parts}
    return any(_CONTRAST.search(part) or named & all_words(part) for part in others)


def says_none(text: str) -> bool:
    """Whether a text says, and only says, that something, or anything at all, is not there."""
    return missing_in(text) is not None


def only_says_none(text: str) -> bool:
    """Whether a text is a word for none, as "not found" is, without any thing that isn't there."""
    return _NONE.fullmatch(text.strip(_MARKUP)) is not None


def missing_in_clause(text: str) -> Missing | None:
    """Return what a sentence, or a part of one, says is not there; None for any other."""
    return _missing_in_sentence(text) if len(text) <= _LONGEST and _NEGATION.search(text) else None


def holds_box(text: str) -> bool:
    """Whether a text has four numbers in a row, not all of them zero."""
    return any(re.search("[1-9]", match[0]) for match in _FOUR_NUMBERS.finditer(text))


def denies_itself(label: str) -> bool:
    """Whether a label says that what it names is not there, as "cat (not visible)"
    and "no cat" do.
    """
    return any(missing_in_clause(text) for text in (label, _PUNCTUATION.sub(" ", label)))


def negates(text: str) -> bool:
    """Whether a text in any of many languages has a word of negation."""
    return _NEGATION.search(text) is not None or _NEGATION_ELSEWHERE.search(text) is not None


def _numbered(text: str) -> bool:
    return BOX_NUMBERS.search(text) is not None or _ZERO_FIRST.search(text) is not None


def _missing_in_sentence(asked: str) -> Missing | None:
    sentence = _CAPTION.sub("", asked.strip(_MARKUP), count=1).strip(_MARKUP)
    if "?" in asked or "？" in asked or _NOT_GIVEN.search(asked) or _numbered(asked):
        return None
    if _NONE.fullmatch(sentence):
        return Missing("")
    for text in dict.fromkeys((sentence, _PREAMBLE.sub("", sentence, count=1).strip(_MARKUP))):
        for group in (_OTHER_LANGUAGES, _ENGLISH):
            match = next((match for pattern in group if (match := pattern.fullmatch(text))), None)
            if match is not None:
                thing = " ".join(filter(None, match.groupdict().values())).strip(_MARKUP)
                thing = _LEADING.sub("", thing + " ", count=1).strip()
                if _NO_THING.search(thing) or (thing and _LETTER.search(thing) is None):
                    # a number counts none
                    return None
                return Missing(
                    "" if _ANYTHING.fullmatch(thing) else thing, group is _OTHER_LANGUAGES
                )
    return None
