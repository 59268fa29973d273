"""What boxes look like, in all and by their thing, and so how likely a further box is.

A box is described by its middle, its size, and its width to its height, each taken to be normal.
What is expected of the next box is the posterior predictive with a normal-inverse-gamma prior (K.
Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007, section 3). The prior is
what was expected before any box was seen; it counts as some boxes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from dataflow_grounding.boxes.geometry import Bbox

LEAST_SIDE = 0.003  # of the picture's side: a logarithm has to be taken

Shape: TypeAlias = tuple[float, float, float, float]
"""A box as it is compared: its middle, the logarithms of its size and of width to height."""


class Expected(NamedTuple):
    """What is expected of a box's figures: means, standard deviations, logarithm of the peak."""

    mean: Shape
    deviation: Shape
    log_peak: float


def expected(mean: Sequence[float], deviation: Sequence[float]) -> Expected:
    """Return what to expect where each figure is normal and independent of the others."""
    x, y, size, aspect = mean
    x_deviation, y_deviation, size_deviation, aspect_deviation = deviation
    deviations = (x_deviation, y_deviation, size_deviation, aspect_deviation)
    log_peak = -math.log(math.prod(deviations))  # without the factor that all normal densities have
    return Expected((x, y, size, aspect), deviations, log_peak)


# What pictures in general have: things lie anywhere, mostly near the middle, and are of any size.
ANY = expected((0.5, 0.53, -1.6, 0.0), (0.24, 0.21, 0.8, 0.7))
# How many boxes an expectation counts as: ANY for the boxes of a run, and that of the run for the
# boxes of one thing.
ANY_BOXES, BOXES_OF_A_THING = 6.0, 4.0
LEAST_DEVIATION = (0.04, 0.04, 0.2, 0.2)  # no figure is expected more exactly
# This share of the boxes are slips. They lie as in pictures in general, but are spread wider.
SLIPS = 0.12
SLIP = expected(ANY.mean, [1.4 * deviation for deviation in ANY.deviation])
LOG_SLIP, LOG_USUAL = math.log(SLIPS), math.log(1 - SLIPS)
LIKELIEST_SLIP = SLIP.log_peak + LOG_SLIP


class SeenThings:
    """The figures of the boxes of one thing, or of all, and what is expected of the next box."""

    __slots__ = ("count", "last_expected", "means", "refresh_at", "squares")

    def __init__(self) -> None:
        self.count = 0
        self.means = [0.0] * 4
        self.squares = [0.0] * 4  # sums of squared distances from the means
        self.last_expected = ANY  # what `expect` returned last
        self.refresh_at = 0  # the count from which `expect` works it out again

    def add(self, shape: Shape) -> None:
        # Welford's algorithm
        self.count += 1
        for number, value in enumerate(shape):
            step = value - self.means[number]
            self.means[number] += step / self.count
            self.squares[number] += step * (value - self.means[number])

    def expect(self, prior: Expected, prior_boxes: float) -> Expected:
        """Return what to expect of the next box: `prior` counts as much as `prior_boxes` boxes."""
        if self.count < self.refresh_at:
            return self.last_expected
        boxes = prior_boxes + self.count
        own_share = self.count / boxes
        means = []
        deviations = []
        # the posterior predictive, with a normal in place of Student's t
        for number, prior_mean in enumerate(prior.mean):
            apart = self.means[number] - prior_mean
            means.append(prior_mean + own_share * apart)
            # The squared distances of the prior, of these boxes, and between their two means.
            squares = prior_boxes * prior.deviation[number] ** 2
            squares += self.squares[number]
            squares += prior_boxes * own_share * apart**2
            # The next box varies as boxes do; 1 / boxes is for how unsure their mean is.
            deviation = math.sqrt(squares / boxes * (1 + 1 / boxes))
            deviations.append(max(deviation, LEAST_DEVIATION[number]))
        self.last_expected = expected(means, deviations)
        self.refresh_at = self.count + 1 + self.count // 10  # a tenth more boxes change little
        return self.last_expected


def shape_of(corners: Bbox, log_aspect: float) -> Shape:
    """Return how a box is compared; `log_aspect` is of the picture's width to its height."""
    x1, y1, x2, y2 = corners
    width = x2 - x1
    height = y2 - y1
    log_width = math.log(width if width > LEAST_SIDE else LEAST_SIDE)
    log_height = math.log(height if height > LEAST_SIDE else LEAST_SIDE)
    log_size = (log_width + log_height) / 2
    return (x1 + x2) / 2, (y1 + y2) / 2, log_size, log_width - log_height + log_aspect


def _log_density(shape: Shape, of: Expected) -> float:
    mean, deviation, log_peak = of
    # each figure in standard deviations from what is expected
    x = (shape[0] - mean[0]) / deviation[0]
    y = (shape[1] - mean[1]) / deviation[1]
    size = (shape[2] - mean[2]) / deviation[2]
    aspect = (shape[3] - mean[3]) / deviation[3]
    return log_peak - (x * x + y * y + size * size + aspect * aspect) / 2


def log_likelihood(shape: Shape, of: Expected) -> float:
    """Return how likely a box is that may be like others of its thing, or a slip."""
    # The sum of both chances is nearly the larger one.
    usual = _log_density(shape, of) + LOG_USUAL
    if usual >= LIKELIEST_SLIP:  # no slip is likelier: the other density needn't be worked out
        return usual
    return max(usual, _log_density(shape, SLIP) + LOG_SLIP)
