"""What a referring expression claims of its own boxes, read by closed lists of words.

Only what is certain is read: "the second cup from the left" claims a rank, "the cup that grandma
liked" claims nothing. Words that aren't known claim nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded.noun_phrases import (
    NounPhrase,
    read_noun_phrase,
    tokenize,
)

_READ_CHARACTERS = 300
_COLORS = {**words.CHROMATIC, **words.ACHROMATIC}
_COLOR_WORDS = frozenset(_COLORS) | words.OTHER_COLORS | words.MANY_COLORED
_COUNTS = {**words.NUMBERS, "both": 2}
_RANKS = {
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
# Superlatives: of what figure of a box, and whether it is the most or the least of it.
_SUPERLATIVES = {
    "largest": ("area", True),
    "biggest": ("area", True),
    "smallest": ("area", False),
    "tiniest": ("area", False),
    "tallest": ("height", True),
    "widest": ("width", True),
    "narrowest": ("width", False),
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
_CHOOSING = frozenset(_SUPERLATIVES) | frozenset(_OUTERMOST) | frozenset(_RANKS)
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
_CHOOSING_ALONE = frozenset(_SUPERLATIVES) | frozenset(_OUTERMOST) | frozenset(_SIDES)
_KNOWN_BEFORE = _CHOOSING | frozenset(_COUNTS) | {"last"}
_DIRECTION = r"(?:the )?(?:far |very |extreme )?(left|right|top|bottom)"
_PICTURE = r"(?: of the (?:picture|image|photo|photograph|frame|scene))?"
_AT_A_SIDE = re.compile(
    rf"(?:(?:that|which) (?:is|are) )?(not )?(?:on|at|in|to|near) (?:the )?"
    rf"(far |very |extreme )?(left|right|top|bottom|upper|lower)"
    rf"(?:-hand)?(?: (?:side|half|part|edge|end))?{_PICTURE}"
)
_RANK_BEHIND = re.compile(
    rf"(?:that is )?(?:the )?({'|'.join(_RANKS)}|last) (?:one )?from {_DIRECTION}"
)
_FROM = re.compile(rf"(?:from|counting from|counted from) {_DIRECTION}")
_NOT_COLORED = re.compile(rf"(?:that|which) (?:is not|isn't|are not|aren't) ({'|'.join(_COLORS)})")
_ALSO_NOT_COLORED = re.compile(rf"not (?:a )?({'|'.join(_COLORS)})(?: one)?")
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
        superlative: A figure of a box (area, width, height), and whether it is the most.
        rank: Which one it is, counted from a side, from 1; -1 for the last one.
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
    superlative: tuple[str, bool] | None = None
    rank: tuple[int, str] | None = None
    relation: Relation | None = None
    without: str | None = None


_CLAIMING_WORDS = sorted(
    {*_COUNTS, *_SUPERLATIVES, *_OUTERMOST, *_RANKS, *_SIDES, "last", "not", "without"}
    | {"isn't", "aren't", "above", "below", "beneath"}
)
_CLAIMING = re.compile(rf"\b(?:{'|'.join(_CLAIMING_WORDS)}|\d)", re.IGNORECASE)
_CLAIMING_COLORS = re.compile(rf"\b(?:{'|'.join(_COLORS)})\b", re.IGNORECASE)


def may_claim(text: str, *, colors: bool) -> bool:
    """Whether a phrase has a word by which it can claim something; `colors` too, where asked.

    It costs a fiftieth of reading the phrase, and most phrases claim nothing.
    """
    if _CLAIMING.search(text):
        return True
    return colors and _CLAIMING_COLORS.search(text) is not None


def read_claims(text: str) -> Claims | None:
    """Return what a phrase claims of its boxes; None where its thing isn't understood.

    Args:
        text: An English referring expression.

    Example:
        >>> claims = read_claims("the second cup from the left")
        >>> claims.thing, claims.rank
        ('cup', (2, 'left'))
        >>> read_claims("two dogs").count
        2
    """
    if len(text) > _READ_CHARACTERS:
        return None
    tokens = tokenize(text)
    while tokens and tokens[-1] in (".", ",", "!", ";"):
        tokens.pop()
    if any(token.endswith(("'s", "s'")) for token in tokens):
        return None  # what somebody's thing is can't be seen
    # Words that choose are adjectives, though the list of adjectives lacks most of them.
    plain = ["big" if token in _CHOOSING else token for token in tokens]
    read = read_noun_phrase(plain, 0, is_label=True)
    if read is None:
        return None
    thing = words.singular(tokens[read.head])
    if thing in words.NOT_OBJECTS or thing in _CHOOSING:
        return None
    before = [token for token in tokens[read.start : read.head] if token not in _ARTICLES]
    behind = " ".join(tokens[read.head + 1 :])
    if read.head > read.start and _is_compound(tokens, read):
        # "cup holder": the first noun says what kind it is
        before = [token for token in before if not words.is_known_noun(token)]
        thing = f"{tokens[read.head - 1]} {thing}"
    return _claims(thing, words.is_plural(tokens[read.head]), before, behind)


def _is_compound(tokens: Sequence[str], read: NounPhrase) -> bool:
    """Whether the noun's kind is said by a noun before it: "traffic light"."""
    word = tokens[read.head - 1]
    is_other = word in _COLOR_WORDS or word in words.SIZES or word in words.POSITIONS
    return words.is_known_noun(word) and not is_other and word not in words.ADJECTIVES


def _claims(thing: str, is_plural: bool, before: list[str], behind: str) -> Claims:
    """Return the claims of a noun with the words before and behind it."""
    tail = _read_tail(behind, _rank_of(before))
    others = [word for word in before if word not in _KNOWN_BEFORE and not word.isdecimal()]
    claims = Claims(
        thing,
        is_bare=not others and tail.is_read,
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
    choosing = [word for word in before if word in _CHOOSING_ALONE]
    if behind or len(choosing) != 1:
        return claims  # "the left arm of the chair": who knows whose left
    word = choosing[0]
    if word in _SUPERLATIVES:
        return replace(claims, superlative=_SUPERLATIVES[word])
    if thing.split()[-1] in words.OF_AN_OWNER:
        return claims
    if word in _OUTERMOST:
        return replace(claims, outermost=_OUTERMOST[word])
    return replace(claims, side=_SIDES[word])


def _color_of(before: Sequence[str], thing: str) -> str | None:
    """Return the one plain colour before a noun; None for none, several, and a name with one."""
    if thing in words.NAMED_BY_COLOR or any("-" in word for word in before):
        return None
    color_words = [word for word in before if word in _COLOR_WORDS]
    colors = {_COLORS.get(word) for word in color_words}
    return colors.pop() if len(colors) == 1 else None


def _rank_of(before: Sequence[str]) -> int | None:
    """Return the ordinal before a noun; -1 for the last one."""
    for word in before:
        if word in _RANKS:
            return _RANKS[word]
        if word == "last":
            return -1
    return None


def _count_of(before: Sequence[str], thing: str, is_plural: bool, behind: str) -> int | None:
    """Return the exact number that is said of things, where each is a box of its own."""
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
    """What the words behind a noun claim; `is_read` says whether all of them are understood."""

    is_read: bool = False
    not_color: str | None = None
    side: str | None = None
    not_side: str | None = None
    outermost: str | None = None
    rank: tuple[int, str] | None = None
    relation: Relation | None = None
    without: str | None = None


def _read_tail(behind: str, rank: int | None) -> _Tail:
    """Return what the words behind a noun claim.

    Args:
        behind: The words, in lower case, single blanks between them.
        rank: The ordinal before the noun, which "from the left" belongs to.
    """
    if not behind:
        return _Tail(is_read=True)
    from_side = _FROM.fullmatch(behind)
    if from_side and rank is not None:
        return _Tail(is_read=True, rank=(rank, from_side[1]))
    ranked = _RANK_BEHIND.fullmatch(behind)
    if ranked:
        return _Tail(is_read=True, rank=(_RANKS.get(ranked[1], -1), ranked[2]))
    if rank is not None:
        return _Tail()
    at_side = _AT_A_SIDE.fullmatch(behind)
    if at_side:
        side = _SIDES[at_side[3]]
        if at_side[1]:
            return _Tail(is_read=True, not_side=side)
        return _Tail(is_read=True, outermost=side if at_side[2] else None, side=side)
    colored = _NOT_COLORED.fullmatch(behind) or _ALSO_NOT_COLORED.fullmatch(behind)
    if colored:
        return _Tail(not_color=_COLORS[colored[1]])
    if behind.startswith("without "):
        return _Tail(without=_thing_of(behind.removeprefix("without ")))
    return _Tail(relation=_relation_of(behind))


def _relation_of(behind: str) -> Relation | None:
    """Return where a thing is beside another one, which the words behind its noun name."""
    behind = re.sub(r"^(?:that|which|who) (?:is|are|stands|sits|lies) ", "", behind)
    behind = re.sub(r"^(?:standing|sitting|lying|placed|located|just|directly) ", "", behind)
    for relation, side in _RELATIONS.items():
        if behind.startswith(f"{relation} "):
            anchor = behind.removeprefix(f"{relation} ")
            return Relation(side, anchor) if _thing_of(anchor) else None
    return None


def _thing_of(text: str) -> str | None:
    """Return the singular of a phrase's noun, where there is nothing behind it."""
    tokens = text.split()
    read = read_noun_phrase(tokens, 0, is_label=True)
    if read is None or read.head + 1 != len(tokens):
        return None
    return words.singular(tokens[read.head])
