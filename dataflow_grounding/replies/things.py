"""Things in a text: where it names them, and whether a label is one of them.

A thing is what a box is of: a phrase or a label. Its head is the noun that says what it is, as
"cup" in "the red cup on the shelf" (data/heads.py).
"""

import re
from collections.abc import Sequence
from functools import cache

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.data.heads import ends_phrase, head_of
from dataflow_grounding.replies.harm_words import (
    pattern_listed,
    table,
    words_listed,
)
from dataflow_grounding.replies.words import folded, is_neutral, with_whole_negations, words_of

_LONGEST_LABEL = 400  # characters of a label that are compared
THING = "thething"  # for a phrase that has a box, in any of its spellings
_VERB = "(?:is|are|was|were|can|could|does|did|has|not)"
_ASIDE = lazy_pattern(r"[(\[]([^)\]]*)")


def describes_another(text: str, phrase: str) -> bool:
    """Whether a description has no word of its phrase: "A steel spoon on a napkin" for a fork."""
    may_be_english = text.isascii() and phrase.isascii()
    words = words_of(text)
    begins_with_article = words[:1] in (("a",), ("an",), ("the",))
    is_kind_alone = len(words) < 4  # "an animal"
    if not may_be_english or not begins_with_article or is_kind_alone:
        return False
    said = {word for word in words if not is_neutral(word) and not ends_phrase(word, "")}
    if all(map(tells_apart, said)):
        return False  # "the one on the left" names no thing
    return said.isdisjoint(words_of(phrase))


def denies(label: str, phrase: str) -> bool:
    """Whether a label says that its box isn't of the phrase, or is none: "not a cup", "<label>"."""
    is_placeholder = label.startswith("<") and label.endswith(">")  # "<label>"
    is_question = "?" in label and "?" not in phrase
    if is_placeholder or is_question:
        return True
    label_words = set(with_whole_negations(folded(label)).split())
    phrase_words = set(with_whole_negations(folded(phrase)).split())
    denying_words = label_words & words_listed("denying")
    return not denying_words.issubset(phrase_words)


def is_like(label: str, phrase: str) -> bool:
    """Whether a label names the phrase's thing: the same head, and nothing that contradicts it."""
    if len(label) > _LONGEST_LABEL:
        return False
    label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)  # pottedPlant
    # The number of "bike_1" counts boxes, and is left out. Where "bus 12" was asked for, it counts.
    phrase_has_number = re.search(r"\d", phrase) is not None
    head_of_label = head_of(_bare(label, keeps_number=phrase_has_number))
    head_of_phrase = head_of(_bare(phrase, keeps_number=True))
    if head_of_label != head_of_phrase or contradicts(label, phrase):
        return False
    aside = _ASIDE.search(label)
    if aside is not None and not all(map(tells_apart, words_of(aside[1]))):
        return False  # "dog (reflection)"; "dog (left)" only tells it from other dogs
    # A label may say that its box is invented, or in another picture or scale.
    return not any(pattern_listed(name).search(label) for name in ("invented", "other_frame"))


def things_marked(text: str, things: Sequence[str]) -> str:
    """Mark "The red cups are here." as "THING are here." where "a red cup" has a box."""
    for thing in sorted(set(things), key=len, reverse=True):
        words = [word for word in re.split(r"\s+", folded(thing)) if word not in ("the", "a", "an")]
        if not words:
            continue
        pattern = r"[\s_-]+".join(map(re.escape, words))
        if thing.isascii():  # with its article, and in the plural
            pattern = rf"(?:\b(?:the|an?)\s+)?\b{pattern}(?:e?s)?\b"
        text = re.sub(pattern, f" {THING} ", text, flags=re.IGNORECASE)
    return text


def heads_marked(text: str, things: Sequence[str]) -> str:
    """Mark "The cup is here." as "THING is here." where "a red cup" has a box."""
    for head in {head_of(thing) for thing in things} - {""}:
        if head.isascii():
            word = re.escape(head)
            with_article = rf"\b(?:the|an?|this|that)\s+{word}\b(?!['’]s)"
            # "Cup is on a tray."
            begins = rf"(?:\A|(?<=[.!?\n;]))\s*{word}(?=\s+{_VERB}\b)"
            text = re.sub(f"{with_article}|{begins}", f" {THING} ", text, flags=re.IGNORECASE)
    return re.sub(r"[ \t]+", " ", text)


def _bare(label: str, *, keeps_number: bool) -> str:
    """The man of "man (left)", the shelf of "shelf, top", the bike of "bike_1"."""
    text = folded(re.split(r"[(\[,]", label)[0])
    if not keeps_number:
        text = re.sub(r"[\s#:]*\d{1,3}$", "", text)
    words = text.split()
    while len(words) > 1 and words[-1] in {*kind_of_words("side"), *kind_of_words("ordinal")}:
        words.pop()
    return " ".join(words)


def _differ(label: str, phrase: str) -> bool:
    """As "glass on the floor" and "the glass on the shelf": each has a word of its own."""
    said = {word for word in words_of(label) if not _names_no_thing(word)}
    asked = {word for word in words_of(phrase) if not _names_no_thing(word)}
    return bool(said - asked and asked - said)


def _names_no_thing(word: str) -> bool:
    is_relation = ends_phrase(word, "") and not word.endswith(("ing", "ed"))
    return is_neutral(word) or tells_apart(word) or is_relation


def _are_more(said: set[str], asked: set[str], phrase: str) -> bool:
    """As "all six chairs" for "the chair"; "chairs" asks for several itself."""
    several = kind_of_words("number") - {"one"}
    says_several = not said.isdisjoint(several)
    asks_for_several = not asked.isdisjoint(several)
    is_head_in_singular = head_of(phrase) in asked  # `head_of` returns the singular
    return says_several and not asks_for_several and is_head_in_singular


def tells_apart(word: str) -> bool:
    return word.isdigit() or any(word in kind_of_words(name) for name in table("kinds"))


@cache
def kind_of_words(name: str) -> frozenset[str]:
    return frozenset(table("kinds")[name].split())


def contradicts(label: str, phrase: str) -> bool:
    """Whether a label says something that the phrase rules out, or makes another thing of it."""
    said = set(re.sub(r"[(),]", " ", with_whole_negations(folded(label))).split())
    asked = set(with_whole_negations(folded(phrase)).replace(",", " ").split())
    said_alone, asked_alone = said - asked, asked - said
    for name in table("kinds"):  # colors, sides and so on
        if said_alone & kind_of_words(name) and asked_alone & kind_of_words(name):
            return True  # "left" for "right"
    changing_words = words_listed("several") | words_listed("likeness")
    if not (said & changing_words).issubset(asked):
        return True  # "toy dog", or "dog or cat", for "dog"
    if _differ(label, phrase) or _are_more(said, asked, phrase):
        return True
    # "bus 7" for "bus 12", but not for "bus"
    said_numbers = {word for word in said if word.isdigit()}
    asked_numbers = {word for word in asked if word.isdigit()}
    return bool(asked_numbers and said_numbers and said_numbers != asked_numbers)
