"""What a run's boxes look like, in all and for each thing, and so how likely a further box is."""

import math
from dataclasses import dataclass
from typing import NamedTuple

MOST_WORDS = 4000  # things that are remembered apart
# of the picture: thinner boxes count as this thin, as a logarithm has to be taken
LEAST_SIDE = 0.003
# how far a box may reach out of the picture, in parts of the side, before it says something
OUTSIDE = 0.03
# share of boxes that are like no others of their thing: slips, and things of two kinds
SOMETHING_ELSE = 0.12
# how likely a box anywhere, in the picture or out of it, is in a format that nobody knows
UNEXPLAINED = 0.15


class BoxShape(NamedTuple):
    """A box as it is compared with others.

    Attributes:
        x, y: Its middle, in parts of the picture's width and height.
        size: The mean of the logarithms of its sides, these in parts of the picture's.
        shape: The logarithm of its width to its height, in pixels: the same in pictures of any
            shape.
        beyond: How far it reaches out of the picture, in parts of the side.
        turned: On how many axes it ends before it begins.
    """

    x: float
    y: float
    size: float
    shape: float
    beyond: float
    turned: int


class Expected(NamedTuple):
    """What is expected of a figure, and how many boxes that expectation counts as."""

    mean: float
    deviation: float
    boxes: float


# Of pictures in general: things lie anywhere, mostly near the middle; their sides are log-normal.
ANY_X = Expected(0.5, 0.24, 6.0)
ANY_Y = Expected(0.53, 0.21, 6.0)
ANY_SIZE = Expected(-1.6, 0.8, 6.0)
ANY_SHAPE = Expected(0.0, 0.7, 6.0)
OF_A_THING = 4.0  # boxes that the figures of all things count as, for one thing
LEAST_DEVIATION = BoxShape(0.04, 0.04, 0.2, 0.2, 0.0, 0)

# Things that are nearly always taller than wide, or wider than tall, and the usual logarithm of
# width to height.
TALL = (
    "person man woman boy girl child pedestrian lady guy player tower bottle lamp door tree giraffe"
    " vase skyscraper"
)
WIDE = "car bus truck train van sofa couch bed table bench boat ship airplane plane river keyboard"
USUAL_SHAPE = {**dict.fromkeys(TALL.split(), -0.7), **dict.fromkeys(WIDE.split(), 0.5)}
DEVIATION_OF_SHAPE = 0.45

LOG_USUAL = math.log(1 - SOMETHING_ELSE)
LOG_SLIP = math.log(SOMETHING_ELSE)
LOG_UNEXPLAINED = math.log(UNEXPLAINED)
# How often a box ends before it begins, as if so many axes of so many had been seen already.
TURNED_BEFORE = 0.5
AXES_BEFORE = 40.0
# What reaching out of the picture costs, in log-likelihood.
BEYOND_AT_ONCE = 3.0
BEYOND_PER_SIDE = 12.0
BEYOND_AT_MOST = 8.0


@dataclass
class Moments:
    """Values so far: how many, their mean, and the sum of their squared distances from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one more."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    def after(self, before: Expected, least: float) -> Expected:
        """What to expect of the next value: what was expected before, and what was seen since.

        The posterior of a normal distribution with a normal-inverse-gamma prior (K. Murphy,
        Conjugate Bayesian analysis of the Gaussian distribution, 2007, section 3), its deviation
        never below `least`.
        """
        boxes = before.boxes + self.count
        mean = (before.boxes * before.mean + self.count * self.mean) / boxes
        apart = before.boxes * self.count / boxes * (self.mean - before.mean) ** 2
        variance = (before.boxes * before.deviation**2 + self.squares + apart) / boxes
        return Expected(mean, max(math.sqrt(variance * (1 + 1 / boxes)), least), boxes)


class ThingStatistics:
    """The middles, sizes and shapes of the boxes of one thing, or of all."""

    def __init__(self) -> None:
        self.x = Moments()
        self.y = Moments()
        self.size = Moments()
        self.shape = Moments()

    def add(self, box: BoxShape) -> None:
        """Take in one more box."""
        self.x.add(box.x)
        self.y.add(box.y)
        self.size.add(box.size)
        self.shape.add(box.shape)


class Figures:
    """What is expected of a box's four figures, each independently of the others."""

    def __init__(self, x: Expected, y: Expected, size: Expected, shape: Expected) -> None:
        self.x = x
        self.y = y
        self.size = size
        self.shape = shape
        # Taken once: a density is asked for ten times as often as something is learnt.
        self._per_x = 1 / x.deviation
        self._per_y = 1 / y.deviation
        self._per_size = 1 / size.deviation
        self._per_shape = 1 / shape.deviation
        self._at_most = -math.log(x.deviation * y.deviation * size.deviation * shape.deviation)

    def log_density(self, box: BoxShape) -> float:
        """The logarithm of the density of a box with these figures, but for a constant."""
        x = (box.x - self.x.mean) * self._per_x
        y = (box.y - self.y.mean) * self._per_y
        size = (box.size - self.size.mean) * self._per_size
        shape = (box.shape - self.shape.mean) * self._per_shape
        return self._at_most - (x * x + y * y + size * size + shape * shape) / 2


ANYTHING = Figures(ANY_X, ANY_Y, ANY_SIZE, ANY_SHAPE)
# Anywhere, of any size and shape: as in all pictures, spread by two fifths more.
SLIP = Figures(
    Expected(ANY_X.mean, 1.4 * ANY_X.deviation, 0.0),
    Expected(ANY_Y.mean, 1.4 * ANY_Y.deviation, 0.0),
    Expected(ANY_SIZE.mean, 1.4 * ANY_SIZE.deviation, 0.0),
    Expected(ANY_SHAPE.mean, 1.4 * ANY_SHAPE.deviation, 0.0),
)


class BoxStatistics:
    """What the run's boxes look like so far, and how likely a box of a thing is, given them."""

    def __init__(self) -> None:
        self._all = ThingStatistics()
        self._things: dict[str, ThingStatistics] = {}
        self._turned = TURNED_BEFORE
        self._axes = AXES_BEFORE
        self._expected_of_all: Figures | None = ANYTHING  # None: to be taken anew
        self._expected: dict[str, Figures] = {}

    def learn(self, box: BoxShape, thing: str) -> None:
        """Take in one box of a thing, by the word for it."""
        self._turned += box.turned
        self._axes += 2
        if box.beyond > OUTSIDE:
            return
        self._all.add(box)
        self._expected_of_all = None
        if thing in self._things or len(self._things) < MOST_WORDS:
            self._things.setdefault(thing, ThingStatistics()).add(box)
            self._expected.pop(thing, None)

    def log_likelihood(self, box: BoxShape, expected: Figures) -> float:
        """The logarithm of a box's density over its four figures, but for a constant.

        A slip may have any box, so that one strange box never says more than a few others.
        """
        usual = expected.log_density(box) + LOG_USUAL
        slip = SLIP.log_density(box) + LOG_SLIP
        # The logarithm of both densities' sum, so taken that neither is too small for a float.
        total = max(usual, slip) + math.log(1.0 + math.exp(-abs(usual - slip)))
        if box.beyond > OUTSIDE:
            total -= min(BEYOND_AT_ONCE + BEYOND_PER_SIDE * box.beyond, BEYOND_AT_MOST)
        if box.turned:
            total += box.turned * math.log(self._turned / self._axes)
        return total

    def log_likelihood_anywhere(self, box: BoxShape) -> float:
        """The same in a format that nobody knows: a box may be anywhere, out of the picture too."""
        return SLIP.log_density(box) + LOG_UNEXPLAINED

    def expected_of(self, thing: str) -> Figures:
        """What is expected of a box of a thing, by the word for it."""
        known = self._expected.get(thing)
        if known is not None:
            return known
        if self._expected_of_all is None:
            self._expected_of_all = _figures_after(self._all, ANYTHING)
        of_all = self._expected_of_all
        statistics = self._things.get(thing)
        if statistics is None and thing not in USUAL_SHAPE:
            return of_all
        shape = of_all.shape._replace(boxes=OF_A_THING)
        if thing in USUAL_SHAPE:
            shape = Expected(USUAL_SHAPE[thing], DEVIATION_OF_SHAPE, OF_A_THING)
        before = Figures(
            of_all.x._replace(boxes=OF_A_THING),
            of_all.y._replace(boxes=OF_A_THING),
            of_all.size._replace(boxes=OF_A_THING),
            shape,
        )
        if statistics is None:
            return before
        if len(self._expected) >= MOST_WORDS:
            self._expected.clear()
        figures = _figures_after(statistics, before)
        self._expected[thing] = figures
        return figures


def _figures_after(seen: ThingStatistics, before: Figures) -> Figures:
    return Figures(
        seen.x.after(before.x, LEAST_DEVIATION.x),
        seen.y.after(before.y, LEAST_DEVIATION.y),
        seen.size.after(before.size, LEAST_DEVIATION.size),
        seen.shape.after(before.shape, LEAST_DEVIATION.shape),
    )
