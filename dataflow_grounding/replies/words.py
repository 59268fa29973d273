"""Words that decide: labels that are phrases, and sentences which say that nothing is there.

A label is the phrase that it equals, apart from spelling. The wordings that say that nothing is
there are a closed list in grammar.yaml. No other words of a reply decide anything.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.nouns import singular

_BETWEEN_WORDS = lazy_pattern(r"[\s_-]+")
_WORD = lazy_pattern(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_ARTICLES = frozenset(["a", "an", "the"])
_NEGATIONS = frozenset(["no", "not", "without"])
_SIDES = frozenset(["left", "right", "top", "bottom", "middle", "center", "centre"])
_AROUND = " \t\r\n.,:;!\"'`*“”‘’「」«»。，、：；！"  # characters around a label that say nothing
_LONGEST = 400  # characters of a label that are compared
_CAMEL = lazy_pattern(r"(?<=[a-z])(?=[A-Z])")  # pottedPlant
_COUNTER = lazy_pattern(r"[\s#:]*\d{1,3}$")  # of "bike_1", "cat #1"
_MARKUP = "*#_ \t\r\n:：.,。，!！-–—•>"  # characters around a sentence that say nothing
_LONGEST_SENTENCE = 120  # characters of a sentence that says that nothing is there
_SENTENCE_END = lazy_pattern(r"[.!?;。！？；\n]")
_SENTENCES = lazy_pattern(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
_AND = r"\b(?:and|or|nor|und|oder|et|ou|y|e|o)\b|[和或与及、]"
_AND_ONE = lazy_pattern(r"\band (?:an?|the|one|some)\b")  # "no cat and a dog"
# In capitals it is a sign's text: "NO SMOKING" says nothing of a picture.
_SIGN = lazy_pattern(r"no (?!.*\b(?:found|detected|visible|present|seen|there|here|in)\b).+")
_BETWEEN_THINGS = lazy_pattern(rf",|{_AND}")


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
    for in_form in (folded, _without_articles, _in_singular):
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
    without_articles = [word for word in words[:-1] if word not in _ARTICLES]
    # an "a" at the end is no article: "plan A"
    return " ".join([*without_articles, words[-1]]) or folded(text)


@lru_cache(maxsize=2048)
def _in_singular(text: str) -> str:
    return " ".join(singular(word) for word in _without_articles(text).split(" "))


@lru_cache(maxsize=2048)
def _words_of(text: str) -> frozenset[str]:
    """A text's words, folded, in the singular and without articles."""
    plain = with_whole_negations(unicodedata.normalize("NFKC", text).replace("_", " "))
    words = _WORD.findall(plain)
    but_last = [word for word in words[:-1] if word not in _ARTICLES]
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


def _grammar(name: str) -> Any:
    return load_table(__package__, "grammar.yaml")[name]


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
    if folded(sentence) in _grammar("none_words"):
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


def with_whole_negations(text: str) -> str:
    """Return a text in lower case in which "isn't" is "is not"."""
    plain = text.casefold().replace("’", "'")
    plain = re.sub(r"\bcan(?:'t|not)\b", "can not", plain)
    plain = re.sub(r"\bwon't\b", "will not", plain)
    return re.sub(r"n't\b", " not", plain)


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
    is_anything = plain.removeprefix("no ") in _grammar("anything")
    return _SIGN.fullmatch(plain) is not None and not is_anything


@cache
def _wordings() -> list[re.Pattern[str]]:
    """In "there is no THING(?: SEEN)?PLACE", names in capitals are patterns of grammar.yaml."""
    parts = _grammar("nothing_parts")
    patterns: list[re.Pattern[str]] = []
    for text in _grammar("nothing"):
        for name, part in parts.items():
            text = text.replace(name, part)
        patterns.append(re.compile(text))
    return patterns


@cache
def _pictures() -> frozenset[str]:
    return frozenset(_in_singular(word) for word in _grammar("pictures").split())


def _means_all(things: str, phrases: Sequence[str]) -> bool:
    """Whether the denied things are all that was asked for."""
    things = folded(things)
    if _in_singular(things) in _pictures():
        return False  # "There is no image."
    if not things or things in _grammar("anything"):
        # "Nothing was found." denies all; "There is no object." denies one
        return len(phrases) < 2 or things not in _grammar("one_thing")
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
