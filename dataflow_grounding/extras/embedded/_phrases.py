"""What a referring phrase asks for, and which of the things seen it means.

A phrase is read over the closed word lists.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._picture import Box, Candidate, Picture
from dataflow_grounding.extras.embedded.noun_phrases import NounPhrase, read_noun_phrase, tokenize
from dataflow_grounding.extras.embedded.regions import Thing

C = TypeVar("C", Candidate, Thing)

# of the picture's side: how far apart in place two candidates must be to tell them by it
_CLEAR_GAP = 0.06
_CLEAR_RATIO = 1.3  # of areas: how much larger a candidate must be to be called the large one
_READ_CHARACTERS = 400
_COLORS = words.CHROMATIC | words.ACHROMATIC
_COUNTS = {**words.NUMBERS, "both": 2, "couple": 2}
_ONE_NOUN = re.compile(r"\b(licen[cs]e|number|cat)(?:['’]s)?\s+(plates?|faces?)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase as read: what it names and by which words the right one is chosen.

    ``head`` is the singular noun; ``count`` an exact number or None; ``refusal`` says why the
    phrase can't be looked for, or is empty; ``relation`` is a side (``"left"``, ``"right"``,
    ``"above"``, ``"below"``) and of what. ``is_bare`` is true of a singular without article, number
    or any word that chooses: as names of classes are, of which there may be several. ``unread`` is
    true when words stand in the phrase that choose between things in a way that is not understood.
    """

    head: str
    is_plural: bool = False
    is_bare: bool = False
    count: int | None = None
    color: str | None = None
    positions: frozenset[str] = frozenset()
    size: str | None = None
    relation: "tuple[str, Phrase] | None" = None
    unread: bool = False
    refusal: str = ""


def parse_phrase(text: str) -> Phrase:
    """Read one referring phrase.

    It never raises, whatever the text: ``refusal`` says what is not understood.
    """
    tokens = tokenize(_ONE_NOUN.sub(r"\1-\2", text[:_READ_CHARACTERS]))
    while tokens and tokens[-1] in (".", ",", ";", "!", "?"):
        tokens.pop()
    if not words.NEGATIONS.isdisjoint(tokens):
        return Phrase("", refusal="negation is not understood")
    if len(text) > _READ_CHARACTERS:
        return Phrase("", refusal="the phrase is too long")
    read = read_noun_phrase(tokens, 0, is_label=True)
    if read is None:
        return Phrase("", refusal="no object is named")
    return _phrase(tokens, read)


def _phrase(tokens: list[str], read: NounPhrase) -> Phrase:
    """What a noun phrase, whose tokens were found, says of the thing that it names."""
    head = words.singular(tokens[read.head])
    before_head = tokens[read.start : read.head]
    modifiers = [word for word in before_head if word not in words.ARTICLES]
    tail = tokens[read.end : read.tail]
    relation, unread = _relation(tokens, read.tail)
    colors = _terms(modifiers, _COLORS)
    sizes = _terms(modifiers, words.SIZES)
    positions = _terms(modifiers + tail, words.POSITIONS)
    is_plural = words.is_plural(tokens[read.head])
    count = _count(before_head)
    is_choosing = bool(count or sizes or positions or relation)
    return Phrase(
        head=head,
        is_plural=is_plural,
        is_bare=modifiers == before_head and not is_plural and not is_choosing,
        count=count,
        color=colors[0] if colors else None,
        positions=frozenset(positions),
        size=sizes[0] if sizes else None,
        relation=relation,
        unread=unread,
        refusal=_refusal(head, tokens[read.head : read.end], modifiers, tail),
    )


def _terms(tokens: Sequence[str], terms: Mapping[str, str]) -> list[str]:
    """The terms that those of the words mean that are in a list, in their order."""
    return [terms[token] for token in tokens if token in terms]


def _count(determiners: list[str]) -> int | None:
    """The first number among the words before a noun."""
    for word in determiners:
        if word.isdecimal():
            return int(word[:3])
        if word in _COUNTS:
            return _COUNTS[word]
    return None


def _relation(tokens: list[str], at: int) -> tuple[tuple[str, Phrase] | None, bool]:
    """The side and its anchor, and whether words are left that were not understood."""
    for text, side in words.RELATIONS.items():
        pattern = text.split()
        if tokens[at : at + len(pattern)] == pattern:
            inner = read_noun_phrase(tokens, at + len(pattern), is_label=True)
            # Only one step deep: the anchor's own relation is left unread.
            if inner is not None and inner.tail == len(tokens):
                return (side, _phrase(tokens, inner)), False
    return None, at < len(tokens)


def _refusal(head: str, compound: list[str], modifiers: list[str], tail: list[str]) -> str:
    """Why a phrase can't be looked for: the first reason that holds, or nothing."""
    if head in words.PICTURES | (words.PLACES | words.DEPTHS) - words.NEVER.keys():
        return "no object is named"
    if any(word.endswith(("'s", "s'")) for word in modifiers):
        return "whose it is can't be seen"
    if len(compound) > 1:
        return "things made of things can't be looked for"
    if head in words.NEVER:
        return f"{words.NEVER[head]} can't be looked for"
    if not words.MANY_COLORED.isdisjoint(modifiers):
        return "patterns can't be looked for"
    if not words.OTHER_COLORS.isdisjoint(modifiers):
        return "only plain colour words can be looked for"
    for word in modifiers:
        if not _is_read(word):
            return f"{word!r} is not understood"
    return _refusal_of_known(modifiers, tail)


def _refusal_of_known(modifiers: list[str], tail: list[str]) -> str:
    """Why words that are all known can't be looked for together, or nothing."""
    if len(set(_terms(modifiers, _COLORS))) > 1:
        return "only one colour at a time can be looked for"
    never = _terms(modifiers, words.NEVER)
    if "animals" in never or "body parts" in never:
        return "animals and body parts can't be looked for"
    if not words.DEPTHS.isdisjoint(modifiers + tail):
        return "depth can't be seen"
    if not words.ORDINALS.isdisjoint(modifiers):
        return "ordinal words are not understood"
    return ""


def _is_read(word: str) -> bool:
    """Whether a word before a noun is one that is known, a number or a comma."""
    return words.is_known(word) or word.isdecimal() or word == ","


def choose(candidates: Sequence[C], phrase: Phrase, picture: Picture) -> list[C] | None:
    """The candidates that the phrase means, in reading order; None when its words don't tell which.

    One for a singular with an article, as many as an exact count, else all that its position words
    leave; none on the wrong side.
    """
    wanted = phrase.count
    if wanted is None and not phrase.is_plural and not phrase.is_bare:
        wanted = 1
    left: Sequence[C] = [c for c in candidates if _lies_at_all(c.bbox, phrase.positions, picture)]
    if wanted is None:
        least = 1 if phrase.is_bare else 2
        if len(left) < least or phrase.size is not None:
            return None
        return _in_order(left)
    if len(left) < wanted < len(candidates):
        left = candidates  # "the left one" of two that both lie on the right
    if len(left) > wanted and phrase.size is not None:
        left = _by_size(left, phrase.size, wanted)
    if len(left) > wanted and phrase.positions:
        left = _by_position(left, phrase.positions, wanted, picture)
    if len(left) != wanted:
        return None
    return _in_order(left)


def _in_order(candidates: Sequence[C]) -> list[C]:
    return sorted(candidates, key=lambda c: (c.bbox[0], c.bbox[1]))


def beside(candidates: Sequence[C], side: str, anchor: Box) -> list[C]:
    """The candidates that lie wholly on one side of the anchor.

    Sides are "left", "right", "above" and "below".
    """
    tests = {
        "left": lambda box: box[2] <= anchor[0] + 1,
        "right": lambda box: box[0] >= anchor[2] - 1,
        "above": lambda box: box[3] <= anchor[1] + 1,
        "below": lambda box: box[1] >= anchor[3] - 1,
    }
    return [c for c in candidates if tests[side](c.bbox)]


def center(box: Box, picture: Picture) -> tuple[float, float]:
    """Where a box's middle lies, in parts of the picture's width and height."""
    return (box[0] + box[2]) / 2 / picture.width, (box[1] + box[3]) / 2 / picture.height


def lies(box: Box, position: str, picture: Picture, far: float = 0.5) -> bool:
    """Whether a box lies in the middle, or at a side.

    At a side means that its middle is `far` from there at most, in parts of the picture.
    """
    if position == "middle":
        return all(0.3 <= share <= 0.7 for share in center(box, picture))
    return _distance(box, position, picture) <= far


def _lies_at_all(box: Box, positions: frozenset[str], picture: Picture) -> bool:
    """Whether a box lies at each of these positions."""
    return all(lies(box, position, picture) for position in positions)


def _distance(box: Box, position: str, picture: Picture) -> float:
    """How far a box's middle lies from a side of the picture, or its middle, in parts of it."""
    x, y = center(box, picture)
    return {
        "left": x,
        "right": 1 - x,
        "top": y,
        "bottom": 1 - y,
        "middle": math.hypot(x - 0.5, y - 0.5),
    }[position]


def _by_size(candidates: Sequence[C], size: str, wanted: int) -> Sequence[C]:
    """The largest or smallest candidates, where they are clearly so; else all."""
    ordered = sorted(candidates, key=lambda c: c.size, reverse=size == "large")
    last_in = ordered[wanted - 1].size
    first_out = ordered[wanted].size
    if size == "large":
        is_clear = last_in >= _CLEAR_RATIO * first_out
    else:
        is_clear = first_out >= _CLEAR_RATIO * last_in
    return ordered[:wanted] if is_clear else candidates


def _by_position(
    candidates: Sequence[C], positions: frozenset[str], wanted: int, picture: Picture
) -> Sequence[C]:
    """The outermost candidates, where a clear gap parts them from the next; else all."""

    def distance(candidate: C) -> float:
        return sum(_distance(candidate.bbox, position, picture) for position in sorted(positions))

    ordered = sorted(candidates, key=distance)
    gap = distance(ordered[wanted]) - distance(ordered[wanted - 1])
    return ordered[:wanted] if gap >= _CLEAR_GAP else candidates
