"""Sentences which say that nothing is there: a closed list, in grammar.yaml."""

import re
from collections.abc import Sequence
from functools import cache

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.replies.labels import folded, ids_of, in_singular, with_whole_negations

_MARKUP = "*#_ \t\r\n:：.,。，!！-–—•>"  # characters around a sentence that say nothing
_LONGEST_SENTENCE = 120  # characters of a sentence that says that nothing is there
_SENTENCE_END = lazy_pattern(r"[.!?;。！？；\n]")
_SENTENCES = lazy_pattern(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
_AND = r"\b(?:and|or|nor|und|oder|et|ou|y|e|o)\b|[和或与及、]"
_AND_ONE = lazy_pattern(r"\band (?:an?|the|one|some)\b")  # "no cat and a dog"
# In capitals it is a sign's text: "NO SMOKING" says nothing of a picture.
_SIGN = lazy_pattern(r"no (?!.*\b(?:found|detected|visible|present|seen|there|here|in)\b).+")
_BETWEEN_THINGS = lazy_pattern(rf",|{_AND}")


def _grammar(name: str) -> str:
    text: str = load_table(__package__, "grammar.yaml")[name]
    return text


def _grammar_list(name: str) -> list[str]:
    texts: list[str] = load_table(__package__, "grammar.yaml")[name]
    return texts


@cache
def grammar_words(name: str) -> frozenset[str]:
    """Return the words that grammar.yaml lists under a name, with blanks between."""
    return frozenset(_grammar(name).split())


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_grammar(name), re.IGNORECASE)


def says_none(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text says that nothing is there, or none of the phrases."""
    sentence = text.strip(_MARKUP)
    if folded(sentence) in _grammar_list("none_words"):
        return True
    if len(sentence) > _LONGEST_SENTENCE or _SENTENCE_END.search(sentence):
        return False
    # Numbers may be a box, and after a dash something else may be said.
    if re.search(r"\d|\s[-–—]\s", sentence):
        return False
    plain = " ".join(with_whole_negations(sentence).split())
    if sentence.isupper() and _may_be_sign(plain):
        return False
    for wording in _wordings():
        match = wording.fullmatch(plain)
        if match is None:
            continue
        denied_things = match.groupdict().get("thing") or ""  # "" in "Nothing was found."
        if _means_all(denied_things, phrases):
            return True
    return False


def agrees_with_none(text: str, phrases: Sequence[str]) -> bool:
    """Whether all sentences of a text say no more than that nothing is there."""
    for sentence in _SENTENCES.split(text):
        bare = sentence.strip(_MARKUP)
        if not bare or says_none(sentence, phrases):
            continue
        if any(says_none(sentence, [phrase]) for phrase in phrases):
            continue
        plain = " ".join(bare.casefold().split())
        if _pattern("nothing_more").fullmatch(plain) is None:
            return False
    return True


def _may_be_sign(plain: str) -> bool:
    """As "no smoking", but not "no objects", which a model may write in capitals, too."""
    is_anything = plain.removeprefix("no ") in _grammar_list("anything")
    return _SIGN.fullmatch(plain) is not None and not is_anything


@cache
def _wordings() -> list[re.Pattern[str]]:
    """In "there is no THING(?: SEEN)?PLACE", names in capitals are patterns of grammar.yaml."""
    parts: dict[str, str] = load_table(__package__, "grammar.yaml")["nothing_parts"]
    patterns: list[re.Pattern[str]] = []
    for text in _grammar_list("nothing"):
        for name, part in parts.items():
            text = text.replace(name, part)
        patterns.append(re.compile(text))
    return patterns


@cache
def _pictures() -> frozenset[str]:
    return frozenset(in_singular(word) for word in _grammar("pictures").split())


def _means_all(things: str, phrases: Sequence[str]) -> bool:
    """Whether the denied things are all that was asked for."""
    things = folded(things)
    if in_singular(things) in _pictures():
        return False  # "There is no image."
    if not things or things in _grammar_list("anything"):
        # "Nothing was found." denies all; "There is no object." denies one
        return len(phrases) < 2 or things not in _grammar_list("one_thing")
    # "No cup, a plate is there."
    has_other_clause = "," in things and not re.search(_AND, things)
    if has_other_clause or _AND_ONE.search(things):
        return False
    return _are_all_phrases(things, phrases)


def _are_all_phrases(things: str, phrases: Sequence[str]) -> bool:
    """Whether "cup or plate" names all of the phrases, and nothing else."""
    phrase_at_index = dict(enumerate(phrases))
    if len(phrases) == 1:  # which may have an "and" in it: "salt and pepper"
        return bool(ids_of(things, phrase_at_index))
    denied: set[int] = set()
    for thing in _BETWEEN_THINGS.split(things):
        thing = thing.strip().removeprefix("no ")  # "no cup and no plate"
        indices = ids_of(thing, phrase_at_index)
        if not indices:
            return False
        denied.update(indices)
    return bool(phrases) and denied == set(phrase_at_index)
