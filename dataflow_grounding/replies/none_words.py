"""Whether a reply says that a thing is not there, or refuses to look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.replies import none_patterns as patterns
from dataflow_grounding.replies.labels import all_words, head_word, matching_ids

_MARKUP = " \t\r\n.,:!?\"'`*_[](){}<>|-–•#。，、：！？“”‘’「」"
_PUNCTUATION = re.compile(r"[\s(),;:–—-]+")
_NUMBERING = re.compile(r"^[^\S\n]*\d{1,3}[.)]\s+", re.MULTILINE)
_LONGEST = 600


class Missing(NamedTuple):
    """What a text says is not there: `thing` in its words, "" for anything at all; `foreign`: not in English."""

    thing: str
    foreign: bool = False

    def answers_for(self, phrases: Mapping[int, str]) -> bool:
        """Whether it answers for all of the phrases that were asked: it is anything, the only phrase, or each of them."""
        if not self.thing or not phrases:
            return True
        if len(phrases) == 1:
            phrase = next(iter(phrases.values()))
            if self.foreign:  # words of two languages can't be compared
                return phrase.isascii() or self.thing.isascii() or bool(all_words(phrase) & all_words(self.thing))
            return any(head_word(part) == head_word(phrase) and _covers(part, phrase) for part in self.parts)
        covered = {i for part in self.parts for i in matching_ids(part, phrases) if _covers(part, phrases[i])}
        return covered == set(phrases)

    @property
    def parts(self) -> list[str]:
        """The things, one by one."""
        return [part for part in patterns.AND.split(self.thing) if part.strip()]


def _covers(part: str, phrase: str) -> bool:
    """Whether the lack of a thing is that of a phrase's: of a narrower thing, as "second cat", it may be any other."""
    return all_words(part) <= all_words(phrase)


def missing_in(text: str) -> Missing | None:
    """Return what a text says is not there, when it says nothing else; None for any other text."""
    text = text.strip()
    if len(text) > _LONGEST or patterns.NEGATION.search(text) is None:
        return None
    text = _NUMBERING.sub("", text)
    sentences = [part for part in patterns.SENTENCE_END.split(text) if part.strip(_MARKUP)]
    readings = [_missing_in_sentence(part) for part in sentences]
    missing = [reading for reading in readings if reading is not None]
    others = [part for part, reading in zip(sentences, readings, strict=True) if reading is None]
    anything = not all(reading.thing for reading in missing)
    if not missing or (others and (anything or any(patterns.CONTRAST.search(part) for part in others))):
        return None
    named = {head_word(part) for reading in missing for part in reading.parts}
    if any(named & all_words(part) for part in others):
        return None  # what one sentence misses another one speaks of
    things = "" if anything else ", ".join(reading.thing for reading in missing)
    return Missing(things, any(reading.foreign for reading in missing))


def says_none(text: str) -> bool:
    """Whether a text says, and only says, that something, or anything at all, is not there."""
    return missing_in(text) is not None


def missing_in_clause(text: str) -> Missing | None:
    """Return what a sentence, or a part of one, says is not there; None for any other."""
    return _missing_in_sentence(text) if len(text) <= _LONGEST and patterns.NEGATION.search(text) else None


def denies_itself(label: str) -> bool:
    """Whether a label says that what it names is not there, as "cat (not visible)" and "no cat" do."""
    return any(missing_in_clause(text) for text in (label, _PUNCTUATION.sub(" ", label)))


def refuses(text: str) -> bool:
    """Whether a text says that the model can't or won't look: whatever else it gives is not an answer."""
    return patterns.REFUSAL.search(text[:4000]) is not None


def _missing_in_sentence(asked: str) -> Missing | None:
    sentence = patterns.CAPTION.sub("", asked.strip(_MARKUP), count=1).strip(_MARKUP)
    if "?" in asked or "？" in asked:
        return None
    if patterns.WORDS.fullmatch(sentence):
        return Missing("")
    for text in dict.fromkeys((sentence, patterns.PREAMBLE.sub("", sentence, count=1).strip(_MARKUP))):
        for group in (patterns.OTHER_LANGUAGES, patterns.ENGLISH):
            match = next((match for pattern in group if (match := pattern.fullmatch(text))), None)
            if match is not None:
                thing = " ".join(filter(None, match.groupdict().values())).strip(_MARKUP)
                thing = patterns.LEADING.sub("", thing + " ", count=1).strip()
                if patterns.NO_THING.search(thing):
                    return None
                return Missing("" if patterns.ANYTHING.fullmatch(thing) else thing, group is patterns.OTHER_LANGUAGES)
    return None
