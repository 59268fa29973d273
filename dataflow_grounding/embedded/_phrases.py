"""Phrases: what their words ask for, and which of the candidates they mean.

Where the words leave open which are meant, none is: a wrong box is worse than no box.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._picture import Box, Candidate, Picture
from dataflow_grounding.embedded.captions import POSITION
from dataflow_grounding.english.colors import COLORS
from dataflow_grounding.english.nouns import singular

# How far the middle of a thing on the left may be from the left side, in parts of the picture's
# width; so for all sides.
_MOST_FROM_SIDE = 0.42
# Between which parts of the picture's width, and of its height, the middle of a thing "in the
# middle" is.
_MIDDLE = (0.3, 0.7)
_MOST_CHARACTERS = 400  # of a phrase that is read
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


class Undecided(Exception):
    """A phrase gets no box: its status, "ambiguous" or "unsupported", and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a phrase asks for."""

    head: str  # the singular noun
    is_plural: bool
    wanted: int | None  # None for all: of a plural, and of a bare singular, as names of classes are
    color: str | None  # a term of the word lists
    positions: frozenset[str]  # "left", "right", "top", "bottom", "middle"


def parse_phrase(text: str) -> Phrase:
    """Read what a phrase asks for. Raises Undecided where a word of it isn't understood."""
    tokens, place_words = _words_and_place(text)
    without_articles = [word for word in tokens if word not in words.ARTICLES]
    if not without_articles:
        raise Undecided("unsupported", "no object is named")
    *modifiers, noun = without_articles
    head = singular(noun)
    if head not in words.FOUND:
        raise Undecided("unsupported", f"{head!r} can't be looked for")
    _refuse_unknown(modifiers)
    color = _only_color(modifiers)
    places = [*modifiers, *place_words]  # "the left cup", "the cup on the left"
    positions = frozenset(words.POSITIONS[word] for word in places if word in words.POSITIONS)
    is_plural = head != noun
    has_size = not words.SIZES.isdisjoint(modifiers)
    has_article = without_articles != tokens
    is_name_of_class = not has_article and not positions and not has_size  # "car", "red car"
    before_noun = tokens[:-1]
    wanted = _wanted(before_noun, is_plural, has_size, is_name_of_class)
    return Phrase(head, is_plural, wanted, color, positions)


def _only_color(modifiers: Sequence[str]) -> str | None:
    colors = {COLORS[word] for word in modifiers if word in COLORS}
    if len(colors) > 1:
        raise Undecided("unsupported", "only one colour at a time can be looked for")
    return next(iter(colors), None)


def _wanted(
    words_before_noun: Sequence[str], is_plural: bool, has_size: bool, is_name_of_class: bool
) -> int | None:
    """Return 2 for "two large balls", 1 for "the ball", None for all: "balls", the class "ball"."""
    for word in words_before_noun:
        count = _count(word)
        if count is not None:
            return count
    if is_plural and has_size:  # "large balls" could be any
        raise Undecided("unsupported", "sizes are not compared")
    if is_plural or is_name_of_class:
        return None
    return 1


def _words_and_place(text: str) -> tuple[list[str], list[str]]:
    """Return a phrase's words, and those of a place at its end: "in the top left corner"."""
    if len(text) > _MOST_CHARACTERS:
        raise Undecided("unsupported", "the phrase is too long")
    before_place = text
    place_words: list[str] = []
    place = POSITION.search(text)
    if place is not None and not text[place.end() :].strip(" ."):  # the phrase ends with it
        before_place = text[: place.start()]
        place_words = place[0].lower().split()
    tokens = _WORD.findall(before_place.lower())
    if not words.NEGATIONS.isdisjoint(tokens):
        raise Undecided("unsupported", "negation is not understood")
    return tokens, place_words


def _count(word: str) -> int | None:
    """Return the number that a word means: "two", "2" or "both"; None for any other word."""
    if word.isdecimal():
        return int(word[:3])  # no picture shows a thousand
    return 2 if word == "both" else words.NUMBERS.get(word)


def _refuse_unknown(modifiers: Sequence[str]) -> None:
    known = {*COLORS, *words.SIZES, *words.POSITIONS, *words.HARMLESS}
    for word in modifiers:
        if _count(word) is None and word not in known:
            raise Undecided("unsupported", f"{word!r} is not understood")


def select_meant(
    candidates: Sequence[Candidate], phrase: Phrase, picture: Picture
) -> list[Candidate]:
    """Return the candidates that a phrase means; raise Undecided where it isn't told which."""
    if not candidates:  # the thing isn't in the picture: that is clear
        return []
    meant = []
    for candidate in candidates:
        if _is_at(candidate.bbox, phrase.positions, picture):
            meant.append(candidate)
    is_count_right = phrase.wanted is None or phrase.wanted == len(meant)
    if not meant or not is_count_right:
        count = "1 candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
        raise Undecided("ambiguous", f"{count}, and the words don't tell which")
    return sorted(meant, key=lambda candidate: candidate.bbox)


def relative_center(box: Box, picture: Picture) -> tuple[float, float]:
    """Return the middle of a box in parts of the picture's width and height."""
    return (box[0] + box[2]) / 2 / picture.width, (box[1] + box[3]) / 2 / picture.height


def _is_at(box: Box, positions: frozenset[str], picture: Picture) -> bool:
    x, y = relative_center(box, picture)
    least, most = _MIDDLE
    holds = {
        "left": x <= _MOST_FROM_SIDE,
        "right": 1 - x <= _MOST_FROM_SIDE,
        "top": y <= _MOST_FROM_SIDE,
        "bottom": 1 - y <= _MOST_FROM_SIDE,
        "middle": least <= x <= most and least <= y <= most,
    }
    return all(holds[position] for position in positions)
