"""Phrases: what their words ask for, and which of the candidates they mean.

Where the words leave open which are meant, none is: a wrong box is worse than no box.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dataflow_grounding.data.nouns import singular
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._picture import Box, Picture
from dataflow_grounding.embedded.captions import POSITION

# In parts of the picture's side: a candidate must lie so much further out to be told by its place.
_CLEAR_GAP = 0.06
_CLEAR_STEP = math.log(1.3)  # a candidate's area must be 1.3 times another's to be told by its size
_MIDDLE = (0.3, 0.7)  # parts of a side between which the middle of the picture is
_MOST_CHARACTERS = 400  # of a phrase that is read
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


class _Placed(Protocol):
    """What is selected from: things seen by a detector, or regions that a request describes."""

    @property
    def bbox(self) -> Box: ...

    @property
    def size(self) -> float: ...


Selectable = TypeVar("Selectable", bound=_Placed)


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a phrase asks for.

    Attributes:
        head: The singular noun; empty where none was read.
        is_plural: Whether the noun stands in the plural.
        is_bare: Whether it is a singular without article, number or any selecting word: as names
            of classes are, of which there may be several.
        count: An exact number.
        color: A colour term of the word lists.
        positions: Where in the picture: "left", "right", "top", "bottom", "middle".
        size: "small" or "large".
        refusal: Why the phrase can't be looked for; empty if it can.
    """

    head: str
    is_plural: bool = False
    is_bare: bool = False
    count: int | None = None
    color: str | None = None
    positions: frozenset[str] = frozenset()
    size: str | None = None
    refusal: str = ""


def parse_phrase(text: str) -> Phrase:
    """Return what one phrase asks for; `refusal` says what is not understood."""
    if len(text) > _MOST_CHARACTERS:
        return Phrase("", refusal="the phrase is too long")
    found = POSITION.search(text)
    at_end = found is not None and not text[found.end() :].strip(" .")
    place = text[found.start() :].lower().split() if found is not None and at_end else []
    tokens = _WORD.findall((text[: found.start()] if found and at_end else text).lower())
    if not words.NEGATIONS.isdisjoint(tokens):
        return Phrase("", refusal="negation is not understood")
    plain = [word for word in tokens if word not in words.ARTICLES]
    if not plain:
        return Phrase("", refusal="no object is named")
    *modifiers, noun = plain
    colors = {words.COLORS[word] for word in modifiers if word in words.COLORS}
    sizes = [words.SIZES[word] for word in modifiers if word in words.SIZES]
    positions = [words.POSITIONS[word] for word in modifiers + place if word in words.POSITIONS]
    counts = [count for count in map(_count, tokens[:-1]) if count is not None]
    is_plural = singular(noun) != noun
    is_chosen = bool(counts or sizes or positions)
    return Phrase(
        head=singular(noun),
        is_plural=is_plural,
        is_bare=len(plain) == len(tokens) and not is_plural and not is_chosen,
        count=counts[0] if counts else None,
        color=min(colors, default=None),
        positions=frozenset(positions),
        size=sizes[0] if sizes else None,
        refusal=_refusal(noun, modifiers, len(colors)),
    )


def _count(word: str) -> int | None:
    if word.isdecimal():
        return int(word[:3])
    return 2 if word == "both" else words.NUMBERS.get(word)


def _refusal(noun: str, modifiers: Sequence[str], colors: int) -> str:
    if noun in words.COLORS and noun != "orange":
        return "no object is named"
    for word in modifiers:
        if _count(word) is None and not any(
            word in known for known in (words.COLORS, words.SIZES, words.POSITIONS, words.HARMLESS)
        ):
            return f"{word!r} is not understood"
    return "only one colour at a time can be looked for" if colors > 1 else ""


def select_meant(
    candidates: Sequence[Selectable], phrase: Phrase, picture: Picture
) -> list[Selectable] | None:
    """Return the candidates that a phrase means, from left to right; None where that isn't told.

    "The left ball" means one, "two balls" two, "balls" all, and so does "ball", the bare name of a
    class.
    """
    at_positions = [each for each in candidates if is_at(each.bbox, phrase.positions, picture)]
    wanted = phrase.count
    if wanted is None and not phrase.is_plural and not phrase.is_bare:
        wanted = 1
    if wanted is None:
        meant = at_positions if phrase.size is None else []
        return sorted(meant, key=lambda each: each.bbox) or None
    # "The left one" of two that both lie on the right.
    is_relative = len(at_positions) < wanted < len(candidates)
    meant = list(candidates) if is_relative else at_positions
    if phrase.size is not None:
        sign = -1 if phrase.size == "large" else 1
        meant = _first(meant, wanted, lambda each: sign * math.log(max(each.size, 1)), _CLEAR_STEP)
    if phrase.positions:
        place = phrase.positions
        meant = _first(meant, wanted, lambda each: _distance(each.bbox, place, picture), _CLEAR_GAP)
    if len(meant) != wanted:
        return None
    return sorted(meant, key=lambda each: each.bbox) or None


def _first(
    candidates: list[Selectable], wanted: int, rank: Callable[[Selectable], float], gap: float
) -> list[Selectable]:
    if not 0 < wanted < len(candidates):
        return candidates
    ordered = sorted(candidates, key=rank)
    is_clear = rank(ordered[wanted]) - rank(ordered[wanted - 1]) >= gap
    return ordered[:wanted] if is_clear else candidates


def relative_center(box: Box, picture: Picture) -> tuple[float, float]:
    """Return x and y of a box's middle, in parts of the picture's width and height."""
    return (box[0] + box[2]) / 2 / picture.width, (box[1] + box[3]) / 2 / picture.height


def is_at(
    box: Box, positions: frozenset[str], picture: Picture, most_distance: float = 0.5
) -> bool:
    """Return whether a box's middle is so near to each side, or in the inner 40% for "middle"."""
    least, most = _MIDDLE
    for position in positions:
        if position == "middle":
            if not all(least <= share <= most for share in relative_center(box, picture)):
                return False
        elif _distance(box, frozenset([position]), picture) > most_distance:
            return False
    return True


def _distance(box: Box, positions: frozenset[str], picture: Picture) -> float:
    x, y = relative_center(box, picture)
    distance = {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}
    distance["middle"] = abs(x - 0.5) + abs(y - 0.5)
    return sum(distance[position] for position in sorted(positions))
