"""Referring phrases: what their words ask for, and which of the candidates they mean.

``parse_phrase`` reads a phrase by the closed word lists. ``select_meant`` takes from all the
candidates of its noun those that its other words mean: by number, side, size and place. Where the
words leave it open, it says so and never guesses.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from dataflow_grounding.data.nouns import singular
from dataflow_grounding.extras.embedded import _words as words
from dataflow_grounding.extras.embedded._noun_phrases import NounPhrase, read_noun_phrase, tokenize
from dataflow_grounding.extras.embedded._picture import Box, Candidate, Picture
from dataflow_grounding.extras.embedded.regions import Thing

# What is selected from: things seen by a detector, or regions that a request describes.
Selectable = TypeVar("Selectable", Candidate, Thing)

# In parts of the picture's side: a candidate must lie so much further out to be told by its place.
_CLEAR_GAP = 0.06
_CLEAR_RATIO = 1.3  # a candidate's area must be so many times another's to be told by its size
_MOST_CHARACTERS = 400  # of a phrase that is read
_COLORS = words.CHROMATIC | words.ACHROMATIC
_COUNTS = {**words.NUMBERS, "both": 2, "couple": 2}  # word → number
_MIDDLE = (0.3, 0.7)  # parts of a side between which the middle of the picture is
# Two words that are one noun: "number plate", "licence plates", "cat's face".
_ONE_NOUN = re.compile(r"\b(licen[cs]e|number|cat)(?:['’]s)?\s+(plates?|faces?)\b", re.IGNORECASE)


class Relation(NamedTuple):
    """A side ("left", "right", "above", "below") and the phrase for what it is a side of."""

    side: str
    anchor: "Phrase"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase as read: what it names, and the words that select one of several.

    Attributes:
        head: The singular noun; empty where none was read.
        is_plural: Whether the noun stands in the plural.
        is_bare: Whether it is a singular without article, number or any selecting word: as names
            of classes are, of which there may be several.
        count: An exact number.
        color: A colour term of the word lists.
        positions: Where in the picture: "left", "right", "top", "bottom", "middle".
        size: "small" or "large".
        relation: Beside what it is.
        unread: Whether words are left that may select in a way that is not understood.
        refusal: Why the phrase can't be looked for; empty if it can.
    """

    head: str
    is_plural: bool = False
    is_bare: bool = False
    count: int | None = None
    color: str | None = None
    positions: frozenset[str] = frozenset()
    size: str | None = None
    relation: Relation | None = None
    unread: bool = False
    refusal: str = ""


def parse_phrase(text: str) -> Phrase:
    """Return what one referring phrase asks for.

    It never raises, whatever the text: ``refusal`` says what is not understood. A phrase with a
    negation, without a noun, or of more than 400 characters has the head "".
    """
    # "number plate" becomes "number-plate", which is one word of the lists.
    tokens = tokenize(_ONE_NOUN.sub(r"\1-\2", text[:_MOST_CHARACTERS]))
    while tokens and tokens[-1] in (".", ",", ";", "!", "?"):
        tokens.pop()
    if not words.NEGATIONS.isdisjoint(tokens):
        return Phrase("", refusal="negation is not understood")
    if len(text) > _MOST_CHARACTERS:
        return Phrase("", refusal="the phrase is too long")
    noun_phrase = read_noun_phrase(tokens, 0, is_label=True)
    if noun_phrase is None:
        return Phrase("", refusal="no object is named")
    return _phrase(tokens, noun_phrase)


def _phrase(tokens: list[str], noun_phrase: NounPhrase) -> Phrase:
    """Return what a noun phrase among the tokens, and the words behind it, ask for."""
    head_token = tokens[noun_phrase.head]
    head = singular(head_token)
    before_head = tokens[noun_phrase.start : noun_phrase.head]
    modifiers = [word for word in before_head if word not in words.ARTICLES]
    position_words = tokens[noun_phrase.end : noun_phrase.position_end]
    behind = tokens[noun_phrase.position_end :]
    relation = _relation(behind)
    colors = _meanings(modifiers, _COLORS)
    sizes = _meanings(modifiers, words.SIZES)
    positions = _meanings(modifiers + position_words, words.POSITIONS)
    is_plural = words.is_plural(head_token)
    count = _count(before_head)
    has_article = modifiers != before_head
    has_selecting_words = bool(count or sizes or positions or relation)
    compound = tokens[noun_phrase.head : noun_phrase.end]
    return Phrase(
        head=head,
        is_plural=is_plural,
        is_bare=not has_article and not is_plural and not has_selecting_words,
        count=count,
        color=colors[0] if colors else None,
        positions=frozenset(positions),
        size=sizes[0] if sizes else None,
        relation=relation,
        unread=bool(behind) and relation is None,
        refusal=_refusal(head, compound, modifiers, position_words),
    )


def _meanings(tokens: Sequence[str], term_of_word: Mapping[str, str]) -> list[str]:
    """Return what the tokens mean by a word list, in their order; tokens not in it are left out."""
    return [term_of_word[token] for token in tokens if token in term_of_word]


def _count(before_head: list[str]) -> int | None:
    """Return the first number among the words before a noun; None without one.

    Of a number in digits the first three count, so that it stays small.
    """
    for word in before_head:
        if word.isdecimal():
            return int(word[:3])
        if word in _COUNTS:
            return _COUNTS[word]
    return None


def _relation(behind: list[str]) -> Relation | None:
    """Return beside what a thing is, by the words behind its noun: "left of the red ball".

    None unless all of these words are understood.
    """
    for text, side in words.RELATIONS.items():
        relation_words = text.split()
        if behind[: len(relation_words)] == relation_words:
            anchor = read_noun_phrase(behind, len(relation_words), is_label=True)
            # Only one step deep: an anchor that has a relation of its own is left unread.
            if anchor is not None and anchor.position_end == len(behind):
                return Relation(side, _phrase(behind, anchor))
    return None


def _refusal(
    head: str, compound: list[str], modifiers: list[str], position_words: list[str]
) -> str:
    """Return the first reason for which a phrase can't be looked for; empty if it can.

    ``compound`` is the noun with what stands behind it after "of": "cup of tea".
    """
    places = (words.PLACES | words.DEPTHS) - words.NEVER.keys()
    if head in words.PICTURES or head in places:
        return "no object is named"
    if any(word.endswith(("'s", "s'")) for word in modifiers):
        return "whose it is can't be seen"
    if len(compound) > 1:
        return "a thing of others, such as a row of cups, can't be looked for"
    if head in words.NEVER:
        return f"{words.NEVER[head]} can't be looked for"
    if not words.MANY_COLORED.isdisjoint(modifiers):
        return "patterns can't be looked for"
    if not words.OTHER_COLORS.isdisjoint(modifiers):
        return "only plain colour words can be looked for"
    for word in modifiers:
        if not _is_known_modifier(word):
            return f"{word!r} is not understood"
    return _refusal_of_known_words(modifiers, position_words)


def _refusal_of_known_words(modifiers: list[str], position_words: list[str]) -> str:
    """Return why words that are all known can't be looked for together; empty if they can."""
    if len(set(_meanings(modifiers, _COLORS))) > 1:
        return "only one colour at a time can be looked for"
    never_sought = _meanings(modifiers, words.NEVER)
    if "animals" in never_sought or "body parts" in never_sought:
        return "animals and body parts can't be looked for"
    if not words.DEPTHS.isdisjoint(modifiers + position_words):
        return "depth can't be seen"
    if not words.ORDINALS.isdisjoint(modifiers):
        return "ordinal words are not understood"
    return ""


def _is_known_modifier(word: str) -> bool:
    """Return whether a word before a noun is one that is known, a number or a comma."""
    return words.is_known(word) or word.isdecimal() or word == ","


def select_meant(
    candidates: Sequence[Selectable], phrase: Phrase, picture: Picture
) -> list[Selectable] | None:
    """Return the candidates that a phrase means, from left to right; None where that isn't told.

    "The left cup" means one, "two cups" two, "cups on the left" all that lie there, at least two;
    "cup" without an article all, at least one. None is returned where there are fewer than that,
    where the words leave open which are meant ("the cup" of three), and for a plural with a size
    and no number ("small cups"). The colour and the relation of the phrase are not looked at here.
    """
    at_positions = []
    for candidate in candidates:
        if all(is_at(candidate.bbox, position, picture) for position in phrase.positions):
            at_positions.append(candidate)
    wanted = phrase.count
    if wanted is None and not phrase.is_plural and not phrase.is_bare:
        wanted = 1
    if wanted is None:
        # All are meant, by the bare name of a class or a plural, which means two at least.
        least = 1 if phrase.is_bare else 2
        if len(at_positions) < least or phrase.size is not None:
            return None
        return _left_to_right(at_positions)
    return _select_number(candidates, at_positions, wanted, phrase, picture)


def _select_number(
    candidates: Sequence[Selectable],
    at_positions: Sequence[Selectable],
    wanted: int,
    phrase: Phrase,
    picture: Picture,
) -> list[Selectable] | None:
    """Return exactly as many candidates as are wanted, from left to right.

    None where there are fewer, or neither size nor place tells which of more are meant.
    ``at_positions`` are those of the candidates that lie where the phrase says; where these are too
    few, all candidates are compared by their place.
    """
    remaining = at_positions
    if len(remaining) < wanted < len(candidates):
        remaining = candidates  # "the left one" of two that both lie on the right
    if len(remaining) > wanted and phrase.size is not None:
        remaining = _narrow_by_size(remaining, phrase.size, wanted)
    if len(remaining) > wanted and phrase.positions:
        remaining = _narrow_by_position(remaining, phrase.positions, wanted, picture)
    if len(remaining) != wanted:
        return None
    return _left_to_right(remaining)


def _left_to_right(candidates: Sequence[Selectable]) -> list[Selectable]:
    """Return the candidates sorted by their left edges, of equal ones the upper first."""
    return sorted(candidates, key=lambda candidate: (candidate.bbox[0], candidate.bbox[1]))


def on_side_of(candidates: Sequence[Selectable], side: str, anchor: Box) -> list[Selectable]:
    """Return the candidates that lie wholly on one side of the anchor's box.

    Sides are "left", "right", "above" and "below". Boxes may overlap by one pixel.
    """
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = anchor
    beside = []
    for candidate in candidates:
        x1, y1, x2, y2 = candidate.bbox
        lies_at = {
            "left": x2 <= anchor_x1 + 1,
            "right": x1 >= anchor_x2 - 1,
            "above": y2 <= anchor_y1 + 1,
            "below": y1 >= anchor_y2 - 1,
        }
        if lies_at[side]:
            beside.append(candidate)
    return beside


def relative_center(box: Box, picture: Picture) -> tuple[float, float]:
    """Return x and y of a box's middle, in parts of the picture's width and height."""
    return (box[0] + box[2]) / 2 / picture.width, (box[1] + box[3]) / 2 / picture.height


def is_at(box: Box, position: str, picture: Picture, most_distance: float = 0.5) -> bool:
    """Return whether a box lies at a side of the picture, or in its "middle".

    At a side means that the box's middle is at most ``most_distance`` from there, in parts of the
    picture's width or height. In the middle is what has its middle in the inner 40% both ways,
    whatever ``most_distance`` is.
    """
    if position == "middle":
        start, end = _MIDDLE
        return all(start <= share <= end for share in relative_center(box, picture))
    return _distance_from(position, box, picture) <= most_distance


def _distance_from(position: str, box: Box, picture: Picture) -> float:
    """Return how far a box's middle is from a side of the picture, or from its "middle".

    The unit is the picture's width or height.
    """
    x, y = relative_center(box, picture)
    return {
        "left": x,
        "right": 1 - x,
        "top": y,
        "bottom": 1 - y,
        "middle": math.hypot(x - 0.5, y - 0.5),
    }[position]


def _narrow_by_size(
    candidates: Sequence[Selectable], size: str, wanted: int
) -> Sequence[Selectable]:
    """Return the ``wanted`` largest or smallest candidates, by size.

    All of them, as they are, where the last one taken and the first one left are nearly of one
    size. There have to be more than ``wanted``.
    """
    is_large = size == "large"
    ordered = sorted(candidates, key=lambda candidate: candidate.size, reverse=is_large)
    last_in = ordered[wanted - 1].size
    first_out = ordered[wanted].size
    if is_large:
        is_clear = last_in >= _CLEAR_RATIO * first_out
    else:
        is_clear = first_out >= _CLEAR_RATIO * last_in
    return ordered[:wanted] if is_clear else candidates


def _narrow_by_position(
    candidates: Sequence[Selectable], positions: frozenset[str], wanted: int, picture: Picture
) -> Sequence[Selectable]:
    """Return the ``wanted`` candidates that are nearest to the positions, the nearest first.

    All of them, as they are, where no clear gap parts these from the others. There have to be more
    than ``wanted``.
    """
    distances = [_total_distance(candidate.bbox, positions, picture) for candidate in candidates]
    nearest_first = sorted(range(len(candidates)), key=lambda index: distances[index])
    gap = distances[nearest_first[wanted]] - distances[nearest_first[wanted - 1]]
    if gap < _CLEAR_GAP:
        return candidates
    return [candidates[index] for index in nearest_first[:wanted]]


def _total_distance(box: Box, positions: frozenset[str], picture: Picture) -> float:
    """Return how far a box is from all positions together: "top left" adds two distances."""
    return sum(_distance_from(position, box, picture) for position in sorted(positions))
