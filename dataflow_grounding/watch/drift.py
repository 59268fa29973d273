"""Drift: whether the last answers' numbers look more like the boxes before them when read in another format."""

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.coordinates import ORDERS, SCALES, BoxFormat
from dataflow_grounding.geometry import Size
from dataflow_grounding.watch.signs import Seen, corners_of

BOXES = 2  # of an answer: more of them, of one picture, say little more
LAG = 20  # answers that are too young to be compared with
LEAST = 12  # answers before there is enough to compare with
ALARM = 6.0  # log-likelihood ratio, summed since it was last zero, at which the numbers have drifted
MORE = 3.0  # by how much more it takes after a probe that found nothing
MOST_STRANGE = 12.0  # a box that is anywhere at all says little
MOST_OF_ONE = 3.0  # what one answer may add
FLOORS = (0.06, 0.06, 0.35, 0.3)  # least deviations of the features
MOST = 4000  # words, and sizes of pictures, that are remembered
_WORD = re.compile(r"[^\W\d_]+")

Features: TypeAlias = tuple[float, float, float, float]
"""Middle x and y in parts of the sides, mean log of the sides, and the log of width to height."""


@dataclass
class Moments:
    """The values so far: how many, their mean, and the squares of how far they are from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one more."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)


class Other:
    """Another way to read the same numbers, and how much speaks for it."""

    def __init__(self, asked: BoxFormat, box_format: BoxFormat) -> None:
        self.evidence = 0.0
        self.alarm = ALARM
        self._asked, self._format = asked, box_format
        self._turns = {asked.order, box_format.order} == {"xyxy", "yxyx"} and asked.scale != "px"
        self._stretch = lru_cache(maxsize=MOST)(self._stretched)

    def reread(self, s: Seen, found: Features) -> tuple[Features, float]:
        """The figures of the box in this format, and the log of what reading it so does to the unit of area."""
        if self._turns:
            middle_x, middle_y, size, shape = found
            return (middle_y, middle_x, size, -shape), 0.0
        if self._format.order != self._asked.order:
            return features(corners_of(s.numbers, s.order or self._format.order, s.sent, self._asked)), 0.0
        x, y, across, down = self._stretch(s.sent)
        middle_x, middle_y, size, shape = found
        return (middle_x * x, middle_y * y, size + (across + down) / 2, shape + across - down), across + down

    def _stretched(self, sent: Size) -> tuple[float, float, float, float]:
        """What reading in another scale multiplies x and y with, and the logs of that."""
        (width, height), (w, h) = self._asked.limits(sent), self._format.limits(sent)
        return (width / w, height / h, math.log(width / w), math.log(height / h))


class Drift:
    """Compares each answer's boxes with those more than 20 answers before, as read and as another format reads them.

    For two other orders at the same scale, and every other scale in the same order, log-likelihood ratios are summed as
    long as they speak for it (a CUSUM). An alarm says only that it is time for a probe.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.alarmed = False
        alike = {999: 1000, 1024: 1000}
        scale = alike.get(asked.scale, asked.scale) if isinstance(asked.scale, int) else asked.scale
        orders = [order for order in ORDERS if order != asked.order][:2]  # the others look like one of these
        names = [f"{order}_{scale}" for order in orders]
        names += [f"{asked.order}_{other}" for other in SCALES if other not in (*alike, scale)]
        self._others = [Other(asked, find_box_format(name, "")) for name in names]
        self._moments = [Moments() for _ in FLOORS]
        self._known: list[float] = []
        self._words: dict[str, Moments] = {}
        self._young: deque[list[tuple[Features, list[str]]]] = deque()
        self._answers = 0

    def add(self, boxes: Sequence[Seen]) -> None:
        """Take in one answer's boxes."""
        if not boxes:
            return
        here = [(features(s.corners), _WORD.findall(s.phrase.casefold())[:6]) for s in boxes[:BOXES]]
        if self._answers >= LEAST:
            self._weigh(boxes, here)
        self._young.append(here)
        if len(self._young) > LAG:
            self._learn(self._young.popleft())

    def settled(self) -> None:
        """A probe has shown that the format is right: what alarmed was the data. It takes more the next time."""
        self.alarmed = False
        for other in self._others:
            if other.evidence > other.alarm:
                other.alarm += MORE
            other.evidence = 0.0

    def _weigh(self, boxes: Sequence[Seen], here: Sequence[tuple[Features, list[str]]]) -> None:
        shapes = [self._shape(words) for _, words in here]
        now = [min(self._strangeness(f, shape), MOST_STRANGE) for (f, _), shape in zip(here, shapes, strict=True)]
        for other in self._others:
            total = 0.0
            for i, strange in enumerate(now):
                again, stretch = other.reread(boxes[i], here[i][0])
                total += strange - self._strangeness(again, shapes[i]) + stretch
            other.evidence = max(0.0, other.evidence + min(max(total, -MOST_OF_ONE), MOST_OF_ONE))
            if other.evidence > other.alarm:
                self.alarmed = True

    def _strangeness(self, found: Features, shape: float) -> float:
        """How unlike the boxes before it a box is: minus the log-likelihood."""
        x, dx, y, dy, size, dsize, _, dshape = self._known
        a, b, c, d = (found[0] - x) * dx, (found[1] - y) * dy, (found[2] - size) * dsize, (found[3] - shape) * dshape
        return (a * a + b * b + c * c + d * d) / 2

    def _shape(self, words: Sequence[str]) -> float:
        """The log of width to height to be expected: of the most telling word, drawn towards that of all boxes."""
        mean, known = self._moments[3].mean, [self._words[word] for word in words if word in self._words]
        away = ((shapes.mean - mean) * shapes.count / (shapes.count + 4) for shapes in known)
        return mean + max(away, key=abs, default=0.0)

    def _learn(self, answer: Sequence[tuple[Features, list[str]]]) -> None:
        self._answers += 1
        for found, words in answer:
            for value, moments in zip(found, self._moments, strict=True):
                moments.add(value)
            for word in words:
                if word in self._words or len(self._words) < MOST:
                    self._words.setdefault(word, Moments()).add(found[3])
        spread = [math.sqrt(moments.squares / moments.count) for moments in self._moments]
        known = zip(self._moments, spread, FLOORS, strict=True)
        self._known = [n for moments, own, floor in known for n in (moments.mean, 1 / max(floor, own))]


def features(corners: Sequence[float]) -> Features:
    """The four figures of a box whose corners are parts of the sides."""
    x1, y1, x2, y2 = corners
    width, height = math.log(min(max(x2 - x1, 0.003), 30.0)), math.log(min(max(y2 - y1, 0.003), 30.0))
    return (x1 + x2) / 2, (y1 + y2) / 2, (width + height) / 2, width - height
