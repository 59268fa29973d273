"""What a referring expression claims of its own boxes, read by closed lists of words.

Only what is certain is read: "the second cup from the left" claims a rank, "the cup that grandma
liked" claims nothing. Words that aren't known claim nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dataflow_grounding.english import words
from dataflow_grounding.english.noun_phrases import (
    NounPhrase,
    read_noun_phrase,
    tokenize,
)
from dataflow_grounding.english.nouns import singular


class Superlative(NamedTuple):
    """A measure of a box (area, width, height), and whether the most or the least is claimed."""

    measure: str
    is_most: bool


class Rank(NamedTuple):
    """Which one a thing is, counted from 1; -1 for the last one. Counting begins at a side."""

    number: int
    side: str


_MOST_CHARACTERS = 300  # of a phrase that is read
_COLORS = {**words.CHROMATIC, **words.ACHROMATIC}  # word → the colour term that it means
_COLOR_WORDS = frozenset(_COLORS) | words.OTHER_COLORS | words.MANY_COLORED
_COUNTS = {**words.NUMBERS, "both": 2}  # word → number
_ORDINALS = {
    "first": 1,
    "1st": 1,
    "second": 2,
    "2nd": 2,
    "third": 3,
    "3rd": 3,
    "fourth": 4,
    "4th": 4,
    "fifth": 5,
    "5th": 5,
}

_SUPERLATIVES = {
    "largest": Superlative("area", True),
    "biggest": Superlative("area", True),
    "smallest": Superlative("area", False),
    "tiniest": Superlative("area", False),
    "tallest": Superlative("height", True),
    "widest": Superlative("width", True),
    "narrowest": Superlative("width", False),
}
_OUTERMOST = {
    "leftmost": "left",
    "left-most": "left",
    "rightmost": "right",
    "right-most": "right",
    "topmost": "top",
    "uppermost": "top",
    "highest": "top",
    "bottommost": "bottom",
    "lowest": "bottom",
}
# Words that select one thing of several.
_SELECTING = frozenset(_SUPERLATIVES) | frozenset(_OUTERMOST) | frozenset(_ORDINALS)
_ARTICLES = words.ARTICLES - {"both"}
_SIDES = {
    "left": "left",
    "left-hand": "left",
    "right": "right",
    "right-hand": "right",
    "top": "top",
    "upper": "top",
    "bottom": "bottom",
    "lower": "bottom",
}
# Words that claim something before a noun with nothing behind it: "the largest cup", "left cup".
_SELECTING_ALONE = frozenset(_SUPERLATIVES) | frozenset(_OUTERMOST) | frozenset(_SIDES)
# Words before a noun that leave all things of the noun comparable with it.
_KNOWN_BEFORE = _SELECTING | frozenset(_COUNTS) | {"last"}
# "the far left", "top"
_DIRECTION = r"(?:the )?(?:far |very |extreme )?(?P<side>left|right|top|bottom)"
# " of the picture", or nothing
_PICTURE = r"(?: of the (?:picture|image|photo|photograph|frame|scene))?"
# The patterns below are held against all the words behind a noun.
# "on the left", "that is not at the far right side of the image"
_AT_A_SIDE = re.compile(
    rf"(?:(?:that|which) (?:is|are) )?(?P<negation>not )?(?:on|at|in|to|near) (?:the )?"
    rf"(?P<far>far |very |extreme )?(?P<side>left|right|top|bottom|upper|lower)"
    rf"(?:-hand)?(?: (?:side|half|part|edge|end))?{_PICTURE}"
)
# "second from the left", "that is the last one from the top"
_RANK_BEHIND = re.compile(
    rf"(?:that is )?(?:the )?(?P<ordinal>{'|'.join(_ORDINALS)}|last) (?:one )?from {_DIRECTION}"
)
# "from the left", which an ordinal before the noun needs
_FROM_SIDE = re.compile(rf"(?:from|counting from|counted from) {_DIRECTION}")
# "that is not red"
_NOT_COLORED = re.compile(rf"(?:that|which) (?:is not|isn't|are not|aren't) ({'|'.join(_COLORS)})")
# "not red", "not a red one"
_ALSO_NOT_COLORED = re.compile(rf"not (?:a )?({'|'.join(_COLORS)})(?: one)?")
# words between a thing and its anchor → on which side of the anchor the thing is
_RELATIONS = {
    "to the left of": "left",
    "on the left of": "left",
    "on the left side of": "left",
    "left of": "left",
    "to the right of": "right",
    "on the right of": "right",
    "on the right side of": "right",
    "right of": "right",
    "above": "top",
    "below": "bottom",
    "beneath": "bottom",
}
# "two slices of cake", "a pair of shoes": what is counted may be boxed in one.
_COLLECTIVE = frozenset(words.OF_HEADS | words.QUANTITIES | {"pair", "couple", "dozen", "set"})


@dataclass(frozen=True, slots=True)
class Relation:
    """On which `side` of an `anchor`, a phrase of its own, a thing is: left, right, top, bottom."""

    side: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What the words of a phrase say of its boxes. What they don't say is None.

    Attributes:
        thing: The singular of its noun.
        is_bare: Whether nothing else in the phrase chooses among things of the same noun, so that
            all of these can be compared with it.
        count: How many there are, exactly.
        color, not_color: The colour that it has, or hasn't.
        side, not_side: The side of the picture that it is on, or isn't: left, right, top, bottom.
        outermost: The side than which no other is further out; of things of the same noun.
        superlative: Of which measure it has the most or the least.
        rank: Which one it is, counted from a side.
        relation: Where it is beside another thing.
        without: The singular of what isn't in its box.
    """

    thing: str
    is_bare: bool = True
    count: int | None = None
    color: str | None = None
    not_color: str | None = None
    side: str | None = None
    not_side: str | None = None
    outermost: str | None = None
    superlative: Superlative | None = None
    rank: Rank | None = None
    relation: Relation | None = None
    without: str | None = None


_CLAIMING_WORDS = sorted(
    {*_COUNTS, *_SUPERLATIVES, *_OUTERMOST, *_ORDINALS, *_SIDES, "last", "not", "without"}
    | {"isn't", "aren't", "above", "below", "beneath"}
)
_CLAIMING = re.compile(rf"\b(?:{'|'.join(_CLAIMING_WORDS)}|\d)", re.IGNORECASE)
_CLAIMING_COLORS = re.compile(rf"\b(?:{'|'.join(_COLORS)})\b", re.IGNORECASE)


def may_claim(text: str, *, colors: bool) -> bool:
    """Return whether a phrase may have a word by which it can claim something.

    With `colors`, a colour is such a word too. Words that only begin like one count as well
    ("leftover"): this test is to be quick, at a fiftieth of the time that `read_claims` takes.
    """
    if _CLAIMING.search(text):
        return True
    return colors and _CLAIMING_COLORS.search(text) is not None


def read_claims(text: str) -> Claims | None:
    """Return what a phrase claims of its boxes; None where its thing isn't understood.

    That is so for more than 300 characters, for somebody's thing ("Ann's cup"), and for no noun or
    none of an object.

    Args:
        text: An English referring expression.

    Example:
        >>> claims = read_claims("the second cup from the left")
        >>> claims.thing, claims.rank
        ('cup', Rank(number=2, side='left'))
        >>> read_claims("two dogs").count
        2
    """
    if len(text) > _MOST_CHARACTERS:
        return None
    tokens = tokenize(text)
    while tokens and tokens[-1] in (".", ",", "!", ";"):
        tokens.pop()
    if any(token.endswith(("'s", "s'")) for token in tokens):
        return None  # what somebody's thing is can't be seen
    # Selecting words are adjectives, though the list of adjectives lacks most of them: "big" stands
    # for them while the noun is looked for.
    readable = ["big" if token in _SELECTING else token for token in tokens]
    phrase = read_noun_phrase(readable, 0, is_label=True)
    if phrase is None:
        return None
    thing = singular(tokens[phrase.head])
    if thing in words.NOT_OBJECTS or thing in _SELECTING:
        return None
    before = [token for token in tokens[phrase.start : phrase.head] if token not in _ARTICLES]
    behind = " ".join(tokens[phrase.head + 1 :])
    if phrase.head > phrase.start and _is_compound(tokens, phrase):
        # "cup holder": the first noun says what kind it is.
        before = [token for token in before if not words.is_known_noun(token)]
        thing = f"{tokens[phrase.head - 1]} {thing}"
    return _claims(thing, words.is_plural(tokens[phrase.head]), before, behind)


def _is_compound(tokens: Sequence[str], phrase: NounPhrase) -> bool:
    """Return whether the noun's kind is said by a noun before it: "traffic light"."""
    word = tokens[phrase.head - 1]
    is_describing = word in _COLOR_WORDS or word in words.SIZES or word in words.POSITIONS
    return words.is_known_noun(word) and not is_describing and word not in words.ADJECTIVES


def _claims(thing: str, is_plural: bool, before: list[str], behind: str) -> Claims:
    """Return the claims of a noun with the words before and behind it.

    Args:
        thing: The noun in the singular.
        is_plural: Whether it stands in the plural.
        before: The words of its phrase before it, without articles.
        behind: The rest of the text, words with single blanks between.
    """
    tail = _read_tail(behind, _ordinal_of(before))
    unknown = [word for word in before if word not in _KNOWN_BEFORE and not word.isdecimal()]
    claims = Claims(
        thing,
        is_bare=not unknown and tail.is_read,
        count=_count_of(before, thing, is_plural, behind),
        color=_color_of(before, thing),
        not_color=tail.not_color,
        side=tail.side,
        not_side=tail.not_side,
        outermost=tail.outermost,
        rank=tail.rank,
        relation=tail.relation,
        without=tail.without,
    )
    if behind:
        return claims  # "the left arm of the chair": who knows whose left
    return _with_selecting_word(claims, thing, before)


def _with_selecting_word(claims: Claims, thing: str, before: Sequence[str]) -> Claims:
    """Return the claims with that of the one selecting word before a noun: "largest", "left".

    They are as they were where there is none, or several. `thing` and `before` are those of
    `_claims`.
    """
    selecting = [word for word in before if word in _SELECTING_ALONE]
    if len(selecting) != 1:
        return claims
    word = selecting[0]
    if word in _SUPERLATIVES:
        return replace(claims, superlative=_SUPERLATIVES[word])
    if thing.split()[-1] in words.OF_AN_OWNER:
        return claims  # "the left shoe": left is its owner's, not the picture's
    if word in _OUTERMOST:
        return replace(claims, outermost=_OUTERMOST[word])
    return replace(claims, side=_SIDES[word])


def _color_of(before: Sequence[str], thing: str) -> str | None:
    """Return the term of the one plain colour before a noun; None for no colour and for several.

    None also for "red wine", which is a name, for words with a hyphen, as "red-haired" isn't the
    thing's colour, and for colours that have no term ("navy", "striped").
    """
    if thing in words.NAMED_BY_COLOR or any("-" in word for word in before):
        return None
    color_words = [word for word in before if word in _COLOR_WORDS]
    colors = {_COLORS.get(word) for word in color_words}
    return colors.pop() if len(colors) == 1 else None


def _ordinal_of(before: Sequence[str]) -> int | None:
    """Return the first ordinal before a noun as a number; -1 for "last", None without one."""
    for word in before:
        if word in _ORDINALS:
            return _ORDINALS[word]
        if word == "last":
            return -1
    return None


def _count_of(before: Sequence[str], thing: str, is_plural: bool, behind: str) -> int | None:
    """Return the exact number of things that is said, where each of them is a box of its own.

    None where none is said, where it doesn't agree with the noun ("two dog"), for things that may
    be boxed in one ("two slices of cake"), and from 100 on. The arguments are those of `_claims`.
    """
    if thing.split()[-1] in _COLLECTIVE and behind.startswith("of "):
        return None
    for word in before:
        count = int(word) if word.isdecimal() and len(word) < 3 else _COUNTS.get(word)
        if count == 1 and not is_plural:
            return 1
        if count is not None and count > 1 and is_plural:
            return count
    return None


@dataclass(frozen=True, slots=True)
class _Tail:
    """What the words behind a noun claim, as in `Claims`.

    `is_read` says whether all of them are understood, and none chooses among things of the noun by
    anything but their place in the picture.
    """

    is_read: bool = False
    not_color: str | None = None
    side: str | None = None
    not_side: str | None = None
    outermost: str | None = None
    rank: Rank | None = None
    relation: Relation | None = None
    without: str | None = None


def _read_tail(behind: str, ordinal: int | None) -> _Tail:
    """Return what the words behind a noun claim; nothing where they aren't understood.

    Args:
        behind: The words, in lower case, single blanks between them.
        ordinal: The number before the noun, which "from the left" belongs to; -1 for "last", None
            without one. Unless a side to count from stands behind the noun, nothing is claimed.
    """
    if not behind:
        return _Tail(is_read=True)
    from_side = _FROM_SIDE.fullmatch(behind)
    if from_side and ordinal is not None:
        return _Tail(is_read=True, rank=Rank(ordinal, from_side["side"]))
    rank = _RANK_BEHIND.fullmatch(behind)
    if rank:
        number = _ORDINALS.get(rank["ordinal"], -1)
        return _Tail(is_read=True, rank=Rank(number, rank["side"]))
    if ordinal is not None:
        return _Tail()  # the ordinal may be counted from anywhere
    at_side = _AT_A_SIDE.fullmatch(behind)
    if at_side:
        side = _SIDES[at_side["side"]]
        if at_side["negation"]:
            return _Tail(is_read=True, not_side=side)
        # "on the far left" means that nothing of its kind is further out.
        return _Tail(is_read=True, outermost=side if at_side["far"] else None, side=side)
    not_colored = _NOT_COLORED.fullmatch(behind) or _ALSO_NOT_COLORED.fullmatch(behind)
    if not_colored:
        return _Tail(not_color=_COLORS[not_colored[1]])
    if behind.startswith("without "):
        return _Tail(without=_noun_alone(behind.removeprefix("without ")))
    return _Tail(relation=_relation_of(behind))


def _relation_of(behind: str) -> Relation | None:
    """Return where a thing is beside another one, by the words behind its noun.

    None where they name no side of an anchor, or words stand behind the anchor's noun.

    Example:
        >>> _relation_of("standing left of the red cup")
        Relation(side='left', anchor='the red cup')
    """
    behind = re.sub(r"^(?:that|which|who) (?:is|are|stands|sits|lies) ", "", behind)
    behind = re.sub(r"^(?:standing|sitting|lying|placed|located|just|directly) ", "", behind)
    for relation, side in _RELATIONS.items():
        if behind.startswith(f"{relation} "):
            anchor = behind.removeprefix(f"{relation} ")
            return Relation(side, anchor) if _noun_alone(anchor) else None
    return None


def _noun_alone(text: str) -> str | None:
    """Return the singular of a phrase's noun; None without one, or with words behind it."""
    tokens = text.split()
    phrase = read_noun_phrase(tokens, 0, is_label=True)
    if phrase is None or phrase.head + 1 != len(tokens):
        return None
    return singular(tokens[phrase.head])
