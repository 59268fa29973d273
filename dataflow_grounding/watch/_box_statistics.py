"""What a run's boxes look like, in all and for each thing, and so how likely a further box is.

A box is described by four figures: where its middle is, how large it is and how wide to high. Each
is taken to be normal, independently of the others. What is expected of it is the posterior
predictive of a normal distribution with a normal-inverse-gamma prior (K. Murphy, Conjugate Bayesian
analysis of the Gaussian distribution, 2007, section 3), approximated by a normal one. The prior of
all boxes is what pictures in general have; the prior of a thing's boxes is what all boxes have. A
share of boxes are slips, which may be anything: a mixture of two densities.
"""

import math
from typing import NamedTuple

MOST_WORDS = 4000  # things that are remembered apart
# Share of the picture's side: thinner boxes count as this thin, as a logarithm has to be taken.
LEAST_SIDE = 0.003
# How far a box may reach out of the picture, in parts of the side, before it says something.
OUTSIDE = 0.03
# Share of boxes that are like no others of their thing: slips, and things of two kinds.
SOMETHING_ELSE = 0.12
# How likely a box anywhere, in the picture or out of it, is in a format that nobody knows.
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
    """What is expected of a figure: mean, standard deviation, and how many boxes that counts as."""

    mean: float
    deviation: float
    boxes: float


# Of pictures in general: things lie anywhere, mostly near the middle; their sides are log-normal.
ANY_X = Expected(0.5, 0.24, 6.0)
ANY_Y = Expected(0.53, 0.21, 6.0)
ANY_SIZE = Expected(-1.6, 0.8, 6.0)
ANY_SHAPE = Expected(0.0, 0.7, 6.0)
OF_A_THING = 4.0  # boxes that the figures of all things count as, for one thing
# No figure is expected more exactly than with these standard deviations.
LEAST_DEVIATION = BoxShape(0.04, 0.04, 0.2, 0.2, 0.0, 0)

# Things that are nearly always taller than wide, or wider than tall, and the usual logarithm of
# width to height.
TALL = (
    "person man woman boy girl child pedestrian lady guy player tower bottle lamp door tree giraffe"
    " vase skyscraper"
)
WIDE = "car bus truck train van sofa couch bed table bench boat ship airplane plane river keyboard"
USUAL_SHAPE = {**dict.fromkeys(TALL.split(), -0.7), **dict.fromkeys(WIDE.split(), 0.5)}
DEVIATION_OF_SHAPE = 0.45  # the standard deviation from that

LOG_USUAL = math.log(1 - SOMETHING_ELSE)
LOG_SLIP = math.log(SOMETHING_ELSE)
LOG_UNEXPLAINED = math.log(UNEXPLAINED)
# How often a box ends before it begins, as if so many axes of so many had been seen already.
TURNED_BEFORE = 0.5
AXES_BEFORE = 40.0
# What reaching out of the picture by more than OUTSIDE costs, in log-likelihood.
BEYOND_AT_ONCE = 3.0
BEYOND_PER_SIDE = 12.0  # besides, times how far in parts of the side
BEYOND_AT_MOST = 8.0  # in all


class Moments:
    """Values so far: how many, their mean, and the sum of their squared distances from it."""

    __slots__ = ("count", "mean", "squares")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, value: float) -> None:
        """Add a value (Welford's algorithm)."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    def after(self, before: Expected, before_boxes: float, least: float) -> Expected:
        """Return what to expect of the next value, given the values so far.

        It is the posterior predictive of a normal distribution with a normal-inverse-gamma prior;
        see the module. Without values it is about the prior.

        Args:
            before: What was expected before any of these values: the prior.
            before_boxes: How many values the prior counts as.
            least: The least standard deviation that is returned.
        """
        boxes = before_boxes + self.count
        mean = (before_boxes * before.mean + self.count * self.mean) / boxes
        apart = before_boxes * self.count / boxes * (self.mean - before.mean) ** 2
        variance = (before_boxes * before.deviation**2 + self.squares + apart) / boxes
        deviation = math.sqrt(variance * (1 + 1 / boxes))
        return Expected(mean, deviation if deviation > least else least, boxes)


class ThingStatistics:
    """The middles, sizes and shapes of the boxes of one thing, or of all."""

    __slots__ = ("shape", "size", "x", "y")

    def __init__(self) -> None:
        self.x = Moments()
        self.y = Moments()
        self.size = Moments()
        self.shape = Moments()

    def add(self, box: BoxShape) -> None:
        """Add a box."""
        self.x.add(box.x)
        self.y.add(box.y)
        self.size.add(box.size)
        self.shape.add(box.shape)


class Figures:
    """What is expected of a box's four figures (see BoxShape), each independently of the others."""

    __slots__ = (
        "_log_peak",
        "_per_shape",
        "_per_size",
        "_per_x",
        "_per_y",
        "shape",
        "size",
        "x",
        "y",
    )

    def __init__(self, x: Expected, y: Expected, size: Expected, shape: Expected) -> None:
        self.x = x
        self.y = y
        self.size = size
        self.shape = shape
        # These are worked out once: a density is asked for ten times as often as a box is learnt.
        self._per_x = 1 / x.deviation
        self._per_y = 1 / y.deviation
        self._per_size = 1 / size.deviation
        self._per_shape = 1 / shape.deviation
        # The density at the means, but for the constant of the normal distribution.
        self._log_peak = -math.log(x.deviation * y.deviation * size.deviation * shape.deviation)

    def log_density(self, x: float, y: float, size: float, shape: float) -> float:
        """Return the logarithm of the density of a box with these figures.

        The constant of the normal distribution, which all densities share, is left out.
        """
        # Each figure becomes its distance from the mean, in standard deviations.
        x = (x - self.x.mean) * self._per_x
        y = (y - self.y.mean) * self._per_y
        size = (size - self.size.mean) * self._per_size
        shape = (shape - self.shape.mean) * self._per_shape
        return self._log_peak - (x * x + y * y + size * size + shape * shape) / 2


ANYTHING = Figures(ANY_X, ANY_Y, ANY_SIZE, ANY_SHAPE)
# A slip may be anywhere, of any size and shape: the deviations are larger by two fifths than those
# of pictures in general.
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
        self._turned = TURNED_BEFORE  # axes on which a box ended before it began
        self._axes = AXES_BEFORE  # all axes, two for each box
        # What is expected of boxes of any thing; None where it has to be worked out anew, as
        # further ones were learnt.
        self._expected_of_all: Figures | None = ANYTHING
        # The same by the word for a thing, kept until further boxes of this thing are learnt:
        # those of others change its prior only a little.
        self._expected: dict[str, Figures] = {}

    def learn(self, box: BoxShape, thing: str) -> None:
        """Add a box of a thing, which is given by the word for it.

        One that reaches out of the picture by more than OUTSIDE counts only for how often boxes
        end before they begin. Further things than MOST_WORDS count only among all boxes.
        """
        self._turned += box.turned
        self._axes += 2
        if box.beyond > OUTSIDE:
            return
        self._all.add(box)
        self._expected_of_all = None
        if thing in self._things or len(self._things) < MOST_WORDS:
            self._things.setdefault(thing, ThingStatistics()).add(box)
            self._expected.pop(thing, None)

    def log_likelihood(
        self, box: tuple[float, float, float, float, float, int], expected: Figures
    ) -> float:
        """Return the logarithm of a box's density over its four figures, but for a constant.

        It is a mixture of what is expected and of slips, which may be anything, so that one strange
        box never says more than a few others. Reaching out of the picture, and ending before it
        begins, cost extra.

        Args:
            box: A BoxShape, or a tuple of the same figures.
            expected: What is expected of a box of its thing.
        """
        x, y, size, shape, beyond, turned = box
        usual = expected.log_density(x, y, size, shape) + LOG_USUAL
        slip = SLIP.log_density(x, y, size, shape) + LOG_SLIP
        # The logarithm of the sum of both densities, without the exponential of a large number,
        # which might be too small for a float.
        if usual > slip:
            total = usual + math.log(1.0 + math.exp(slip - usual))
        else:
            total = slip + math.log(1.0 + math.exp(usual - slip))
        if beyond > OUTSIDE:
            total -= min(BEYOND_AT_ONCE + BEYOND_PER_SIDE * beyond, BEYOND_AT_MOST)
        if turned:
            total += turned * math.log(self._turned / self._axes)
        return total

    def log_likelihood_anywhere(self, box: BoxShape) -> float:
        """Return `log_likelihood` for a format that nobody knows, in which a box may be anywhere.

        Reaching out of the picture, and ending before it begins, cost nothing there.
        """
        return SLIP.log_density(box.x, box.y, box.size, box.shape) + LOG_UNEXPLAINED

    def expected_of(self, thing: str) -> Figures:
        """Return what is expected of a box of a thing, which is given by the word for it.

        It follows from the boxes of the thing so far and, as their prior, from all boxes; for some
        things, the prior of the shape is their usual one.
        """
        known = self._expected.get(thing)
        if known is not None:
            return known
        of_all = self._expected_of_all
        if of_all is None:
            before = ANYTHING
            of_all = _figures_after(self._all, before, before.x.boxes, before.shape)
            self._expected_of_all = of_all
        statistics = self._things.get(thing)
        usual_shape = USUAL_SHAPE.get(thing)
        if statistics is None and usual_shape is None:
            return of_all
        shape = of_all.shape
        if usual_shape is not None:
            shape = Expected(usual_shape, DEVIATION_OF_SHAPE, OF_A_THING)
        if statistics is None:
            return Figures(of_all.x, of_all.y, of_all.size, shape)
        if len(self._expected) >= MOST_WORDS:  # so that memory is bounded
            self._expected.clear()
        figures = _figures_after(statistics, of_all, OF_A_THING, shape)
        self._expected[thing] = figures
        return figures


def _figures_after(
    seen: ThingStatistics, before: Figures, before_boxes: float, shape_before: Expected
) -> Figures:
    """Return what to expect of a box's figures, given the boxes that were seen.

    Args:
        seen: The boxes that were seen.
        before: What was expected of position and size before them.
        before_boxes: How many boxes that, and `shape_before`, count as.
        shape_before: What was expected of the shape before them.
    """
    return Figures(
        seen.x.after(before.x, before_boxes, LEAST_DEVIATION.x),
        seen.y.after(before.y, before_boxes, LEAST_DEVIATION.y),
        seen.size.after(before.size, before_boxes, LEAST_DEVIATION.size),
        seen.shape.after(shape_before, before_boxes, LEAST_DEVIATION.shape),
    )
