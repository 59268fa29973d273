"""Words: labels that are phrases, words next to an answer, and a sentence in place of an answer.

A label is the phrase that it equals, apart from spelling. Words are skipped only if they can't
change what the answer says. The lists of words, and the wordings that say that nothing is there,
are in grammar.yaml.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.data.nouns import singular

_BETWEEN_WORDS = lazy_pattern(r"[\s_-]+")
_WORD = lazy_pattern(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_ARTICLES = frozenset(["a", "an", "the"])
_AROUND = " \t\r\n.,:;!\"'`*“”‘’「」«»。，、：；！"  # characters around a label that say nothing
_LONGEST = 400  # characters of a label that are compared
_MARKS = lazy_pattern(r"[\d\[\](){}<>［］｛｝（）\"“”„«»「」『』`|?？=~]|//|/\*|#\s*\Z")
_NOT = lazy_pattern(r"n['’]t\b", re.IGNORECASE)
_MARKUP = "*#_ \t\r\n:：.,。，!！-–—•>"  # characters around a sentence that say nothing
_LONGEST_SENTENCE = 120  # characters of a sentence that says that nothing is there
_SENTENCE_END = lazy_pattern(r"[.!?;。！？；\n]")
_SENTENCES = lazy_pattern(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
_AND = r"\b(?:and|or|nor|und|oder|et|ou|y|e|o)\b|[和或与及、]"
_AND_ONE = lazy_pattern(r"\band (?:an?|the|one|some)\b")  # "no cat and a dog"
# In capitals it is a sign's text: "NO SMOKING" says nothing of a picture.
_SIGN = lazy_pattern(r"no (?!.*\b(?:found|detected|visible|present|seen|there|here|in)\b).+")
_AND_WORDS = frozenset(["and", "und", "et", "y", "e", "和", "与", "と", "및"])  # between things
_THING = "namedthing"  # for a thing that words name
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
    return " ".join(_but_articles(folded(text).split(" "))) or folded(text)


def _but_articles(words: Sequence[str]) -> list[str]:
    without_articles = [word for word in words[:-1] if word not in _ARTICLES]
    return [*without_articles, *words[-1:]]  # an "a" at the end is no article: "plan A"


@lru_cache(maxsize=2048)
def _in_singular(text: str) -> str:
    return " ".join(singular(word) for word in _without_articles(text).split(" "))


@lru_cache(maxsize=2048)
def words_of(text: str) -> tuple[str, ...]:
    """Return a text's words, folded and in the singular, such as "isn't" and "close-up"."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(singular(word) for word in _WORD.findall(plain))


def shortens(text: str, longer: str) -> bool:
    """Whether the longer text has all words of the other, articles aside: "mug", "a red mug"."""
    return set(words_of(text)) - _ARTICLES <= set(words_of(longer)) - _ARTICLES


def share_a_word(first: str, second: str) -> bool:
    """Whether texts have a word in common, or can't be compared, as "cup" and "杯子"."""
    is_first_latin = re.search("[a-z]", folded(first)) is not None
    is_second_latin = re.search("[a-z]", folded(second)) is not None
    if is_first_latin != is_second_latin:
        return True
    words = set(words_of(first)) - _ARTICLES
    if words & set(words_of(second)):
        return True
    # In Chinese, which has no blanks between words, one text may be a part of the other.
    return folded(first) in folded(second) or folded(second) in folded(first)


def all_words(texts: Sequence[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in words_of(text))


def _grammar(name: str) -> Any:
    return load_table(__package__, "grammar.yaml")[name]


@cache
def grammar_words(name: str) -> frozenset[str]:
    """Return the words that grammar.yaml lists under a name, with blanks between."""
    return frozenset(_grammar(name).split())


@cache
def _turning() -> frozenset[str]:
    return all_words([_grammar("turning")])


@cache
def _turning_parts() -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, _grammar("turning_parts").split())))


@cache
def _neutral() -> frozenset[str]:
    return all_words([_grammar("neutral"), _grammar("neutral_parts")])


def is_neutral(word: str) -> bool:
    """Whether a word, in lower case, says nothing of which thing a box is."""
    return singular(word) in _neutral()


def neutral_parts() -> list[str]:
    """Return the neutral words of scripts without blanks between words."""
    return list(_grammar("neutral_parts").split())


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_grammar(name), re.IGNORECASE)


@cache
def _neutral_phrases() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{_grammar('neutral_phrases')})\b", re.IGNORECASE)


@cache
def _neutral_parts() -> re.Pattern[str]:
    parts = sorted(_grammar("neutral_parts").split(), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, parts)))


def objection(text: str, *, to_pixels: bool | None = None) -> str | None:
    """Return why words next to an answer can't be skipped, or None where they can.

    They may name the unit that was asked for. `to_pixels` says which: True is pixels, False is
    parts of the picture. With None, they may name no unit.
    """
    if not text or text.isspace():
        return None
    text = _pattern("polite").sub(" ", text)
    mark = _MARKS.search(text)
    if mark is not None:
        return f"{mark[0]!r} is in the words next to it"
    unit = ""  # the words of the unit that was asked for, which turn nothing round
    if to_pixels is not None:
        unit = _grammar("units_of_pixels" if to_pixels else "units_of_parts")
    word = turning_word(text, unit)
    return None if word is None else f"{word!r} is in the words next to it"


def points_back(text: str) -> bool:
    """Whether a sentence after an answer speaks of that: "That's the plate."."""
    return _pattern("points_back").search(text) is not None


def other_thing(text: str, things: Sequence[str]) -> str | None:
    """Return a word of a text that may name another thing than `things`; None without any."""
    text = _neutral_phrases().sub(" ", _pattern("polite").sub(" ", text))
    words, named = _with_things_marked(text, things)
    # "Here is the cup" where there is a plate, too: only some of the things are named.
    distinct_things = {_spaced(thing) for thing in things}
    if named and len(named) != len(distinct_things):
        return " ".join(min(named).split())  # `min` only so that the message is always the same
    things_and_ands = {_THING, *_AND_WORDS}
    indices = [index for index, word in enumerate(words) if word == _THING]
    # "The cup on the plate" is about the cup alone, and "The cup and the plate" about both.
    between_things = words[indices[0] : indices[-1]] if indices else []
    for word in between_things:
        if word not in things_and_ands:
            return word
    for word in words:
        if word not in _neutral() and word not in things_and_ands:
            return word
    return None


def tells_place(text: str, thing: str) -> bool:
    """Whether a sentence says only where a thing is: "the cup is on the table"."""
    words, named = _with_things_marked(_neutral_phrases().sub(" ", text), [thing])
    if words.count(_THING) != 1 or not named:
        return False
    index = words.index(_THING)
    before = words[:index]
    after = words[index + 1 :]
    if any(word not in _neutral() for word in before):
        return False
    if any(word in _pictures() for word in after):
        return False  # "in the second image"
    if all(word in _neutral() for word in after):
        return True  # "the cup is here"
    return after[0] in grammar_words("near")  # "on the table", "under a tree"


def tells_list(text: str) -> bool:
    """Whether a sentence says only that a list follows: "Here are the boxes of dogs and cats"."""
    before, _, after = _neutral_phrases().sub(" ", text).partition(" of ")
    is_neutral_before = all(word in _neutral() for word in words_of(before))
    skipped = _neutral() | _AND_WORDS | {"their"}
    listed_things = [word for word in words_of(after) if word not in skipped]
    has_picture = not _pictures().isdisjoint(listed_things)  # "boxes of the second image"
    return is_neutral_before and len(listed_things) <= 2 and not has_picture


def names_any(text: str, things: Sequence[str]) -> str | None:
    """Return one of the things that a text names whole; None where it names none."""
    named = _with_things_marked(text, things).named
    return " ".join(min(named).split()) if named else None


class _MarkedWords(NamedTuple):
    """A text's words with _THING in place of each thing, and the things that it names, spaced."""

    words: list[str]
    named: set[str]


def _with_things_marked(text: str, things: Sequence[str]) -> _MarkedWords:
    named: set[str] = set()
    if not text.isascii():  # it may be in a script without blanks between words: they are added
        for thing in things:
            if not thing.isascii() and thing in text:
                named.add(_spaced(thing))
                text = text.replace(thing, f" {_THING} ")
        text = _neutral_parts().sub(r" \g<0> ", text)
    spaced = _spaced(text)
    # The longest thing comes first, so that "the red cup" isn't taken for "cup".
    spaced_things = sorted({_spaced(thing) for thing in things}, key=len, reverse=True)
    for spaced_thing in spaced_things:
        if spaced_thing and spaced_thing in spaced:
            named.add(spaced_thing)
            spaced = spaced.replace(spaced_thing, f" {_THING} ")
    return _MarkedWords(spaced.split(), named)


def _spaced(text: str) -> str:
    """Write " red  cup " for "the red cups", so that "cup" isn't found within "cupboard"."""
    return "".join(f" {word} " for word in _but_articles(words_of(text)))


def turning_word(text: str, phrase: str = "") -> str | None:
    """Return a word that can turn a text's meaning round, as "not", unless the phrase has it."""
    if "?" in text and "?" not in phrase:
        return "?"
    if _NOT.search(text) and not _NOT.search(phrase):
        return "not"
    for word in words_of(text):
        if word in _turning() and word not in words_of(phrase):
            return word
    if text.isascii():
        return None
    part = _turning_parts().search(text)  # in scripts without blanks between words
    if part is None or part[0] in phrase:
        return None
    return part[0]


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


def agrees_with_none(text: str, phrases: Sequence[str], *, may_be_neutral: bool) -> bool:
    """Whether all sentences of a text agree with the answer that nothing is there."""
    for sentence in _SENTENCES.split(text):
        bare = sentence.strip(_MARKUP)
        if bare and not _sentence_agrees(sentence, phrases, may_be_neutral=may_be_neutral):
            return False
    return True


def _sentence_agrees(sentence: str, phrases: Sequence[str], *, may_be_neutral: bool) -> bool:
    if says_none(sentence, phrases) or any(says_none(sentence, [phrase]) for phrase in phrases):
        return True
    # It says nothing: "Here you are."
    is_neutral_sentence = objection(sentence) is None and other_thing(sentence, ()) is None
    if may_be_neutral and is_neutral_sentence:
        return True
    # It says that there is no more to say.
    plain = " ".join(sentence.strip(_MARKUP).casefold().split())
    if _pattern("nothing_more").fullmatch(plain) is not None:
        return True
    # It says what is there instead: "I see a bicycle."
    return tells_picture(plain) and names_any(plain, phrases) is None


def tells_picture(text: str) -> bool:
    """Whether a sentence says what the picture shows: "I see a dog", but not "I see nothing"."""
    for sentence in _SENTENCES.split(text):
        sees = _pattern("sees").match(sentence.strip(_MARKUP))
        if sees is not None and _pattern("sees_nothing").search(sees["what"]) is None:
            return True
    return False


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
