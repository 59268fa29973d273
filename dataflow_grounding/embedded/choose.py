"""Choosing among candidates by the position, size and count words of a phrase."""

import math
from collections.abc import Sequence
from typing import TypeVar

from dataflow_grounding.embedded.phrases import Phrase
from dataflow_grounding.embedded.picture import Box, Candidate, Picture
from dataflow_grounding.embedded.regions import Thing

C = TypeVar("C", Candidate, Thing)

_CLEAR_GAP = 0.06  # of the picture's side: how far apart in place two candidates must be to tell them by it
_CLEAR_RATIO = 1.3  # of areas: how much larger a candidate must be to be called the large one


def choose(candidates: Sequence[C], phrase: Phrase, picture: Picture) -> list[C] | None:
    """The candidates that the phrase means, in reading order; None when its words don't tell which.

    One for a singular, as many as an exact count, else all that its position words leave; none on the wrong side.
    """
    wanted = phrase.count if phrase.count is not None else (None if phrase.is_plural else 1)
    left: Sequence[C] = [c for c in candidates if all(_lies(c.bbox, side, picture) for side in phrase.positions)]
    if wanted is None:
        return _in_order(left) if len(left) > 1 and phrase.size is None else None
    if len(left) < wanted < len(candidates):
        left = candidates  # "the left one" of two that both lie on the right
    if len(left) > wanted and phrase.size is not None:
        left = _by_size(left, phrase.size, wanted)
    if len(left) > wanted and phrase.positions:
        left = _by_position(left, phrase.positions, wanted, picture)
    return _in_order(left) if len(left) == wanted else None


def _in_order(candidates: Sequence[C]) -> list[C]:
    return sorted(candidates, key=lambda c: (c.bbox[0], c.bbox[1]))


def beside(candidates: Sequence[C], side: str, anchor: Box) -> list[C]:
    """The candidates that lie wholly on one side of the anchor: "left", "right", "above" or "below"."""
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


def _lies(box: Box, position: str, picture: Picture) -> bool:
    if position == "middle":
        return all(0.3 <= share <= 0.7 for share in center(box, picture))
    return _distance(box, position, picture) <= 0.5


def _distance(box: Box, position: str, picture: Picture) -> float:
    """How far a box's middle lies from a side of the picture, or from the middle of it, in parts of it."""
    x, y = center(box, picture)
    if position == "middle":
        return math.hypot(x - 0.5, y - 0.5)
    return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[position]


def _by_size(candidates: Sequence[C], size: str, wanted: int) -> Sequence[C]:
    ordered = sorted(candidates, key=lambda c: c.size, reverse=size == "large")
    inner, outer = ordered[wanted - 1].size, ordered[wanted].size
    clear = inner >= _CLEAR_RATIO * outer if size == "large" else outer >= _CLEAR_RATIO * inner
    return ordered[:wanted] if clear else candidates


def _by_position(candidates: Sequence[C], positions: frozenset[str], wanted: int, picture: Picture) -> Sequence[C]:
    """The outermost candidates in the stated direction, where a clear gap parts them from the next; else all."""

    def distance(candidate: C) -> float:
        return sum(_distance(candidate.bbox, position, picture) for position in sorted(positions))

    ordered = sorted(candidates, key=distance)
    gap = distance(ordered[wanted]) - distance(ordered[wanted - 1])
    return ordered[:wanted] if gap >= _CLEAR_GAP else candidates
