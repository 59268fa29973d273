"""What the answers about probe pictures show of a format: whether boxes are where it puts them.

A probe picture has rectangles at known places, for which the model is asked (`probes.py`). A model
that is merely inexact passes. The check fails if another format explains the answers
better, or if all boxes are stretched or shifted together.

How far off a rectangle is, is said by its worst edge, as a share of the side.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from dataflow_grounding.boxes.coordinates import ORDERS, BoxFormat, Scale
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, ordered, size_text
from dataflow_grounding.trust.maps import Point, RoughLine, edges_on, fit_line
from dataflow_grounding.trust.probes import ProbedPicture

LEAST_ANSWERS = 4  # of a picture's seven: fewer say nothing
# How far off the median rectangle's worst edge may be, as a share of the side. Models in use are
# off by up to 6%, boxes at random places by 30% and more.
MOST_OFF = 0.15
# A model that always is so inexact passes: up to this many times what the run's median is.
TIMES_USUAL = 2.0
LEAST_USUAL = 21  # rectangles of the run to compare with: those of three pictures
# Probability below which a picture's rectangles are further off than the run's others: a run of
# 10,000 requests makes a hundred checks.
LEAST_CHANCE = 0.0005
MOST_OFF_IN_OTHER = 0.10  # as MOST_OFF, in another format that explains the answers
# How much better the other format has to explain them: by a factor, so that noise alone doesn't
# name another, and by a share of the side, because 999 for 1000 harms nobody.
LEAST_TIMES_BETTER = 2.0
LEAST_BETTER = 0.03
AS_GOOD = 0.005  # share of the side by which two formats are as good as each other
# How far the line through all answers may be off at an end of a side: the goal of a map, and this
# many standard errors, which chance exceeds in one of a million pictures.
GOAL_OFF = 0.01
STANDARD_ERRORS = 5.0
AS_ASKED = RoughLine(slope=1.0, start=0.0)  # of boxes that are where the format puts them
SCALES: tuple[Scale, ...] = (1000, "px", 1, 100, 1024)  # of plain formats, the usual ones first


@dataclass(frozen=True)
class Rectangles:
    """Rectangles as read in a format, and as drawn: x1, y1, x2, y2 in parts of the sides."""

    # The sides are of what the model is shown, padding and all: its errors are parts of these.
    read: Sequence[Bbox]
    drawn: Sequence[Bbox]

    @cached_property
    def edges_off(self) -> list[tuple[float, ...]]:
        """How far off each rectangle's edges are, in parts of the sides."""
        off = []
        for read, drawn in zip(self.read, self.drawn, strict=True):
            off.append(tuple(abs(a - b) for a, b in zip(read, drawn, strict=True)))
        return off

    @cached_property
    def off(self) -> list[float]:
        """How far off each rectangle's worst edge is."""
        return list(map(max, self.edges_off))

    @property
    def median_off(self) -> float:
        """How far off the median rectangle's worst edge is."""
        return statistics.median(self.off)


@dataclass(frozen=True)
class Showing:
    """What probe pictures show of the run's format: nothing if too few rectangles were answered."""

    kind: Literal["fits", "misses", "silent"]
    why: str = ""  # what was seen, for a message
    fitting: str | None = None  # the name of another format, where one clearly would fit
    rectangles: Rectangles | None = None  # those that were answered
    finds_nothing: bool = False  # whether the answers say that no rectangle is there


def showing_of(
    pictures: Sequence[ProbedPicture], asked: BoxFormat, usual: Sequence[float] = ()
) -> Showing:
    """Return what the answers about one or more copies of a picture show of a format.

    `usual` says how far off the worst edge of each of the run's rectangles was so far, in parts of
    the side: a model that is always so inexact doesn't miss.
    """
    usable = sum(answer.usable for picture in pictures for answer in picture.answers)
    if usable < LEAST_ANSWERS * len(pictures):
        return _silent(pictures, usable)
    rectangles = read_in(pictures, asked)
    off_as_asked = rectangles.median_off
    size = size_text(pictures[0].sent)
    seen = f"in a picture of {size} px rectangles are off by {off_as_asked:.0%} of the side"
    better = _better_format(pictures, asked, off_as_asked)
    if better is not None:
        why = f"{seen}, and by {better.off:.0%} in {better.name}"
        return Showing("misses", why, better.name, rectangles)
    is_usual = len(usual) >= LEAST_USUAL and off_as_asked <= TIMES_USUAL * statistics.median(usual)
    if off_as_asked > MOST_OFF and not is_usual:
        why = f"{seen}, and hardly less in any other format"
        return Showing("misses", why, rectangles=rectangles)
    moved = shift_of([rectangles])
    if moved:
        why = f"in a picture of {size} px {moved}"
        return Showing("misses", why, rectangles=rectangles)
    return Showing("fits", rectangles=rectangles)


def _silent(pictures: Sequence[ProbedPicture], usable: int) -> Showing:
    total = sum(picture.asked for picture in pictures)
    why = f"{usable} of {total} rectangles were answered"
    troubles = [picture.trouble for picture in pictures if picture.trouble]
    if troubles:
        why += f": {troubles[0]}"
    finds_nothing = all(picture.finds_nothing for picture in pictures)
    return Showing("silent", why, finds_nothing=finds_nothing)


class _BetterFormat(NamedTuple):
    """A format that explains the answers better than the one asked for."""

    name: str
    off: float  # how far off the median rectangle is


def _better_format(
    pictures: Sequence[ProbedPicture], asked: BoxFormat, off_as_asked: float
) -> _BetterFormat | None:
    if off_as_asked < LEAST_BETTER:  # no format can be LEAST_BETTER better
        return None
    off_by_name = {}  # the formats most like the one asked for come first
    for name in plain_names(asked):
        off_by_name[name] = read_in(pictures, find_box_format(name, model="")).median_off
    best = min(off_by_name.values())
    is_clearly_better = off_as_asked >= max(LEAST_TIMES_BETTER * best, best + LEAST_BETTER)
    if best > MOST_OFF_IN_OTHER or not is_clearly_better:
        return None
    # of those that are as good as the best, the one most like the format asked for
    name = next(name for name, off in off_by_name.items() if off <= best + AS_GOOD)
    return _BetterFormat(name, best)


def is_further_off(off: Sequence[float], usual: Sequence[float]) -> bool:
    """Whether rectangles are further off than usual ones, by more than chance explains."""
    # Fisher's exact test: new and usual rectangles are put together, and the furthest fifth is
    # taken (or as many as are new, if that is more). Without a difference, the number of new ones
    # among the furthest is hypergeometric, for any distribution of a model's errors.
    count_of_new = len(off)
    count_of_both = count_of_new + len(usual)
    count_of_furthest = max(count_of_new, count_of_both // 5)
    # how far off the first one is that isn't among the furthest
    threshold = sorted([*off, *usual])[-count_of_furthest - 1]
    new_among_furthest = sum(distance > threshold for distance in off)
    # Each way to choose which of both are the new ones is as likely as any other. `ways` counts
    # those with as many new ones among the furthest, or more: their share in all ways is the
    # probability that chance does it.
    ways = 0
    for number in range(new_among_furthest, count_of_new + 1):
        ways_among_furthest = math.comb(count_of_furthest, number)
        ways_among_others = math.comb(count_of_both - count_of_furthest, count_of_new - number)
        ways += ways_among_furthest * ways_among_others
    return ways <= LEAST_CHANCE * math.comb(count_of_both, count_of_new)


def read_in(pictures: Sequence[ProbedPicture], box_format: BoxFormat) -> Rectangles:
    """Read the answered rectangles in a format."""
    read: list[Bbox] = []
    drawn: list[Bbox] = []
    for picture in pictures:
        for answer in picture.answers:
            if not answer.usable:
                continue
            # In a grid format only special tokens name cells. Plain numbers, which have no family,
            # mean nothing there: they count as an empty box, far from any rectangle.
            cant_be_read = box_format.scale == "grid_32" and answer.family is None
            box = (0.0, 0.0, 0.0, 0.0) if cant_be_read else picture.in_pixels(answer, box_format)
            read.append(_as_fractions(ordered(box), picture.shown))
            drawn.append(_as_fractions(answer.asked, picture.shown))
    return Rectangles(read, drawn)


def _as_fractions(box: Bbox, size: Size) -> Bbox:
    width, height = size
    x1, y1, x2, y2 = box
    return x1 / width, y1 / height, x2 / width, y2 / height


class _LineEnds(NamedTuple):
    """How far off an axis' line is at both ends of its side, and its standard error."""

    side: str  # width or height
    first: float
    last: float
    error: float


def _ends(pictures: Sequence[Rectangles], near: RoughLine | None = None) -> list[_LineEnds]:
    """How far off the ends of the lines from edges as drawn to edges as read are."""
    ends = []
    for axis, side in enumerate(("width", "height")):
        points: list[Point] = []
        for rectangles in pictures:
            for drawn, read in zip(rectangles.drawn, rectangles.read, strict=True):
                points += zip(edges_on(axis, drawn), edges_on(axis, read), strict=True)
        line = fit_line(points, 1, near)
        if line is not None:  # else the axis has too few answers
            off_at_end = line.number_at(1) - 1  # where boxes are right, a line runs from 0 to 1
            ends.append(_LineEnds(side, line.start, off_at_end, line.error))
    return ends


def drift_of(pictures: Sequence[Rectangles]) -> str | None:
    """Return what `shift_of` does, for pictures that are each answered as asked."""
    # Their lines are near the right one, so the search begins there, which is quicker.
    return shift_of(pictures, AS_ASKED)


def shift_of(pictures: Sequence[Rectangles], near: RoughLine | None = None) -> str | None:
    """Return in words how all boxes are stretched or shifted; None if that isn't sure."""
    for side, first, last, error in _ends(pictures, near):
        if max(abs(first), abs(last)) > GOAL_OFF + STANDARD_ERRORS * error:
            return (
                f"all boxes are off by {first:+.1%} of the {side} at its beginning and"
                f" {last:+.1%} at its end"
            )
    return None


def least_noticed(pictures: Sequence[Rectangles]) -> float | None:
    """Return the share of the side by which all boxes have to be off together to be noticed."""
    ends = _ends(pictures)
    if len(ends) < 2:  # an axis has too few answers
        return None
    return GOAL_OFF + STANDARD_ERRORS * max(axis.error for axis in ends)


def plain_names(asked: BoxFormat) -> list[str]:
    """Return the names of all formats in the frame of this one, those most like it first."""
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    names = []
    for scale in (asked.scale, *SCALES):
        for order in (asked.order, *ORDERS):
            names.append(f"{order}_{scale}{frame}")
    return list(dict.fromkeys(names))
