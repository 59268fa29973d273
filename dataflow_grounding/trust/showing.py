"""What the answers about probe pictures show of a format: whether boxes are where it puts them.

A probe picture has rectangles at known places, for which the model is asked (`probes.py`). A line
is fitted for each axis, from edges as drawn to edges as read in the format. Where the format is
right, both run from 0 to 1. A model that is merely inexact passes.

How far off a rectangle is, is said by its worst edge, as a share of the side.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dataflow_grounding.boxes.coordinates import ORDERS, BoxFormat, Scale
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, ordered, size_text
from dataflow_grounding.trust.maps import LEAST_EDGE_GAP, Point, edges_on, fit_line
from dataflow_grounding.trust.probes import ProbedPicture

LEAST_ANSWERS = 4  # of a picture's seven: fewer say nothing
# How far off the median rectangle's worst edge may be, as a share of the side. Models in use are
# off by up to 6%, boxes at random places by 30% and more.
MOST_OFF = 0.15
AS_GOOD = 0.005  # share of the side by which two formats are as good as each other
# How far the line through all answers may be off at an end of a side: the goal of a map, and this
# many standard errors, which chance exceeds in one of a million pictures.
GOAL_OFF = 0.01
STANDARD_ERRORS = 5.0
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
    fitting: str | None = None  # the name of another format, where one fits
    finds_nothing: bool = False  # whether the answers say that no rectangle is there


def showing_of(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> Showing:
    """Return what the answers about one or more copies of a picture show of a format."""
    usable = sum(answer.usable for picture in pictures for answer in picture.answers)
    if usable < LEAST_ANSWERS * len(pictures):
        return _silent(pictures, usable)
    misfit = misfit_of(read_in(pictures, asked))
    if not misfit:
        return Showing("fits")
    why = f"in a picture of {size_text(pictures[0].sent)} px {misfit}"
    off_by_name: dict[str, float] = {}  # the formats most like the one asked for come first
    for name in plain_names(asked):
        rectangles = read_in(pictures, find_box_format(name, model=""))
        if not misfit_of(rectangles):
            off_by_name[name] = rectangles.median_off
    if not off_by_name:
        return Showing("misses", f"{why}, and no other format fits")
    # of those that are as good as the best, the one most like the format asked for
    best = min(off_by_name.values())
    name = next(name for name, off in off_by_name.items() if off <= best + AS_GOOD)
    return Showing("misses", f"{why}, and by {off_by_name[name]:.0%} in {name}", name)


def misfit_of(rectangles: Rectangles) -> str:
    """Return in words how boxes are off together; "" where they are where the format puts them."""
    for axis, side in enumerate(("width", "height")):
        points: list[Point] = []
        for drawn, read in zip(rectangles.drawn, rectangles.read, strict=True):
            points += zip(edges_on(axis, drawn), edges_on(axis, read), strict=True)
        edges = [edge for edge, _ in points]
        if max(edges) - min(edges) <= LEAST_EDGE_GAP and rectangles.median_off <= MOST_OFF:
            continue  # a long picture is a strip of its padded one: no line can be seen across it
        line = fit_line(points, 1)
        if line is None or rectangles.median_off > MOST_OFF:
            return f"rectangles are off by {rectangles.median_off:.0%} of the side"
        off_at_end = line.number_at(1) - 1
        if max(abs(line.start), abs(off_at_end)) > GOAL_OFF + STANDARD_ERRORS * line.error:
            return (
                f"all boxes are off by {line.start:+.1%} of the {side} at its beginning and"
                f" {off_at_end:+.1%} at its end"
            )
    return ""


def _silent(pictures: Sequence[ProbedPicture], usable: int) -> Showing:
    total = sum(picture.asked for picture in pictures)
    why = f"{usable} of {total} rectangles were answered"
    troubles = [picture.trouble for picture in pictures if picture.trouble]
    if troubles:
        why += f": {troubles[0]}"
    finds_nothing = all(picture.finds_nothing for picture in pictures)
    return Showing("silent", why, finds_nothing=finds_nothing)


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


def plain_names(asked: BoxFormat) -> list[str]:
    """Return the names of all formats in the frame of this one, those most like it first."""
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    names = []
    for scale in (asked.scale, *SCALES):
        for order in (asked.order, *ORDERS):
            names.append(f"{order}_{scale}{frame}")
    return list(dict.fromkeys(names))
