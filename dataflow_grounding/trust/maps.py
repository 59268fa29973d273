"""How a model's numbers become pixels in pictures of one exact size: a straight line for each axis.

A server may resize, pad or crop a picture before the model sees it. It does the same to every
picture of one size, so that a number n means the pixel a·n + b, for x and for y, with an a and a b
of that size. Both are measured: rectangles are drawn at known places, and each that is answered
gives two pairs (number, pixel) for an axis. No rule of the server has to be known.

An edge of a rectangle is a pixel, as drawn, and the number that was answered for it. Noise is how
far numbers are off by chance; outliers are boxes in quite another place.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from dataflow_grounding.boxes.coordinates import (
    ORDERS,
    BoxFormat,
    FrameMap,
    Order,
    to_xyxy,
)
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, ordered, size_text
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import ProbedPicture

Point: TypeAlias = tuple[float, float]
"""An edge, as a pixel or in parts of the side, and the number that was answered for it."""

DEVIATION_PER_MEDIAN = 1.4826  # of normal errors: the standard deviation over the median
MEASURED = "measured"  # in the name of a format whose numbers are known by maps
LEAST_PAIRS = 8  # of an axis, which four rectangles have: fewer make no line
# Tukey's bisquare: what is further off than this many standard deviations counts for nothing. At
# 4.685 the fit has 95% of least squares' efficiency for normal errors (Holland and Welsch, 1977).
BISQUARE = 4.685
ROUNDS = 30  # of reweighting, at most
STILL = 1e-6  # of a side, by which a line may change in its last round
LEAST_DEVIATION = 0.0005  # of a side, that numbers are taken to be off by: half of a whole number
# A shift smaller than this many of its standard errors is taken for noise: nearly all servers keep
# a picture's corner, and a line through the corner is known twice as exactly.
SHIFT_ERRORS = 3.0
# A rectangle is on the lines if no edge is further off than this share of the side, or than this
# multiple of the answers' noise, up to a limit: boxes at random places lie on no line. Half of all
# rectangles have to be on the lines: a fifth of a model's boxes may be at random places.
NEAR = 0.06
MOST_NEAR = 0.12
NEAR_PER_NOISE = 2.5
LEAST_ON_LINES = 0.5
# How far the line of a single picture may be from the line of all: a share of the side, which is
# the noise of a dozen rectangles, and this many of its standard errors.
ONE_OFF = 0.01
ONE_OFF_ERRORS = 6
# An order has to explain this share of the pictures' rectangles on average, and have this
# log-likelihood ratio to any other. Without a line, the noise counts as this share of the side.
LEAST_EXPLAINED = 0.3
LEAST_LOG_RATIO = 10.0
NO_LINE = 0.3
LEAST_EDGE_GAP = 0.1  # of the side: edges closer together give no reliable slope
# Weights that leave outliers out make the rest look less noisy than it is, by about this factor.
TRIMMING_FACTOR = 1.1


@dataclass(frozen=True)
class Line:
    """One axis: number = scale · pixel + start, in pixels of the picture as sent."""

    scale: float
    start: float
    error: float
    """Standard error of the number at the far edge, as a share of the side."""
    noise: float
    """Standard deviation of a number, as a share of the side, without outliers."""

    def number_at(self, pixel: float) -> float:
        return self.scale * pixel + self.start


class AxisLines(NamedTuple):
    """The lines of both axes in pictures of one size."""

    across: Line
    down: Line


class RoughLine(NamedTuple):
    """A line near which another is looked for: `slope` is in numbers for the whole side."""

    slope: float
    start: float


def fit_map(pictures: Sequence[ProbedPicture], order: Order) -> FrameMap:
    """Fit a map to the answers about pictures of one size.

    `order` is for answers that don't name their own. Raises NoFit where they lie on no line, or are
    too few, or where pictures are seen in several sizes.
    """
    size = pictures[0].sent
    answers = _answers(pictures, order)
    lines = _common_lines(answers, size)
    if lines is None:
        raise NoFit(f"the answers about pictures of {size_text(size)} px lie on no line")
    lines_by_picture = [_fit_lines(_answers([picture], order), size) for picture in pictures]
    _check_alike(lines_by_picture, lines, size)
    across, down = lines.across, lines.down
    return FrameMap(
        size,
        first=(across.start, down.start),
        last=(across.number_at(size[0]), down.number_at(size[1])),
        error=max(across.error, down.error),
    )


def _check_alike(
    lines_by_picture: Sequence[AxisLines | None], common_lines: AxisLines, size: Size
) -> None:
    """Raise NoFit where a picture's own lines are far from those of all pictures together."""
    for axis, common in enumerate(common_lines):
        own_lines = [lines[axis] for lines in lines_by_picture if lines is not None]
        if not own_lines:
            continue
        # A line of a dozen rectangles may have too small a standard error by chance, so the median
        # error of all pictures is the least that counts.
        usual_error = statistics.median([line.error for line in own_lines])
        whole_side = common.scale * size[axis]  # in numbers
        for own in own_lines:
            most_apart = ONE_OFF + ONE_OFF_ERRORS * max(own.error, usual_error)
            for pixel in (0, size[axis]):
                apart = abs(own.number_at(pixel) - common.number_at(pixel)) / whole_side
                if apart > most_apart:
                    raise NoFit(f"pictures of {size_text(size)} px are seen in several sizes")


class _Answer(NamedTuple):
    """What was answered about a rectangle."""

    numbers: tuple[float, ...]  # as they were written
    written: Bbox  # `numbers` as x1, y1, x2, y2
    drawn: Bbox  # x1, y1, x2, y2 in pixels as sent


def lines_of(pictures: Sequence[ProbedPicture], order: Order) -> AxisLines | None:
    """Return the lines in pictures of one size; None unless half of the answers are on them."""
    return _common_lines(_answers(pictures, order), pictures[0].sent)


def _common_lines(answers: Sequence[_Answer], size: Size) -> AxisLines | None:
    lines = _fit_lines(answers, size)
    if lines is None or _share_on(lines, answers, size) < LEAST_ON_LINES:
        return None
    return lines


def _answers(pictures: Sequence[ProbedPicture], order: Order) -> list[_Answer]:
    """All answers with four numbers, in the order that they name, else in `order`."""
    answers = []
    for picture in pictures:
        # pixels as sent for one as drawn
        x_scale = picture.sent[0] / picture.size[0]
        y_scale = picture.sent[1] / picture.size[1]
        for answer in picture.answers:
            if len(answer.numbers) != 4:
                continue
            written = ordered(to_xyxy(answer.numbers, answer.order or order))
            x1, y1, x2, y2 = answer.asked
            drawn = (x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale)
            answers.append(_Answer(answer.numbers, written, drawn))
    return answers


def edges_on(axis: int, box: Bbox) -> tuple[float, float]:
    """Return x1 and x2 of a box for axis 0, y1 and y2 for axis 1."""
    return box[axis], box[axis + 2]


def _fit_lines(answers: Sequence[_Answer], size: Size) -> AxisLines | None:
    """None where the answers lie on no line for x, or on none for y."""
    lines = []
    for axis, side in enumerate(size):
        points: list[Point] = []  # two for each answer: where its edges are, and what was written
        for answer in answers:
            points += zip(edges_on(axis, answer.drawn), edges_on(axis, answer.written), strict=True)
        lines.append(fit_line(points, side))
    across, down = lines
    if across is None or down is None:
        return None
    return AxisLines(across, down)


def _is_on(lines: AxisLines, answer: _Answer, size: Size) -> bool:
    """Whether all four edges of an answer are near the lines."""
    for axis, line in enumerate(lines):
        share = min(max(NEAR, NEAR_PER_NOISE * line.noise), MOST_NEAR)
        allowed = share * line.scale * size[axis]  # in numbers
        pixels = edges_on(axis, answer.drawn)
        numbers = edges_on(axis, answer.written)
        for pixel, number in zip(pixels, numbers, strict=True):
            if abs(line.number_at(pixel) - number) > allowed:
                return False
    return True


def _share_on(lines: AxisLines, answers: Sequence[_Answer], size: Size) -> float:
    return sum(_is_on(lines, answer, size) for answer in answers) / len(answers)


def fit_line(points: Sequence[Point], side: float) -> Line | None:
    """Fit a robust line to one axis; None where there are too few points, or it doesn't grow."""
    if len(points) < LEAST_PAIRS:
        return None
    # The numbers have noise, and the edges are exact. So the line gives numbers by edges: the other
    # way round, noise would flatten it.
    points = [(pixel / side, number) for pixel, number in points]  # edges from 0 to 1
    rough = _theil_sen(points)
    if rough is None:
        return None
    least = LEAST_DEVIATION * rough.slope  # in numbers: the slope is for the whole side
    fit = _fit_near(points, rough, least)
    if fit is None or fit.slope <= 0:
        return None
    error = TRIMMING_FACTOR * fit.end_error / fit.slope
    off = statistics.median(map(abs, _residuals(points, fit.slope, fit.start)))
    noise = DEVIATION_PER_MEDIAN * off / fit.slope
    return Line(scale=fit.slope / side, start=fit.start, error=error, noise=noise)


def _fit_near(points: Sequence[Point], rough: RoughLine, least_deviation: float) -> "_Fit | None":
    """A line that may start anywhere or, if its shift from 0 is within noise, one from 0."""
    fit = _reweighted(points, rough, least_deviation, starts_anywhere=True)
    if fit is None or fit.slope <= 0:
        return fit
    is_shift_noise = abs(fit.start) <= SHIFT_ERRORS * fit.start_error
    if not is_shift_noise:
        return fit
    # LEAST_EDGE_GAP keeps edges near 0 from making the slope huge.
    slope = statistics.median([number / max(edge, LEAST_EDGE_GAP) for edge, number in points])
    return _reweighted(points, RoughLine(slope, 0.0), least_deviation, starts_anywhere=False)


def _theil_sen(points: Sequence[Point]) -> RoughLine | None:
    """None where the line doesn't grow, or all points are at one edge."""
    # Outliers hardly move the median over all pairs of points.
    slopes = []
    for index, (edge, number) in enumerate(points):
        for other_edge, other in points[index + 1 :]:
            across = other_edge - edge
            if abs(across) > LEAST_EDGE_GAP:
                slopes.append((other - number) / across)
    if not slopes:
        return None
    slope = statistics.median(slopes)
    if slope <= 0:
        return None
    return RoughLine(slope, statistics.median(_residuals(points, slope, 0.0)))


class _Fit(NamedTuple):
    """number = slope · edge + start, and standard errors of the numbers at both ends."""

    slope: float
    start: float
    start_error: float
    end_error: float


class _WeightedSums(NamedTuple):
    """Sums over points, each times its weight: of 1, of edges x, of numbers y, of x·x and x·y."""

    ones: float
    x: float
    y: float
    xx: float
    xy: float

    @property
    def determinant(self) -> float:
        """Of the equations of least squares, for a line that may start anywhere."""
        return self.ones * self.xx - self.x * self.x

    @property
    def are_at_one_edge(self) -> bool:
        """Whether the determinant is 0, but for rounding: the points name no slope."""
        return self.determinant <= 1e-12 * self.ones * self.xx


def _weighted_sums(points: Sequence[Point], weights: Sequence[float]) -> _WeightedSums:
    ones = x = y = xx = xy = 0.0
    for weight, (edge, number) in zip(weights, points, strict=True):
        weighted = weight * edge
        ones += weight
        x += weighted
        y += weight * number
        xx += weighted * edge
        xy += weighted * number
    return _WeightedSums(ones, x, y, xx, xy)


class _Settled(NamedTuple):
    """A line that no further round would change, and what its last round used."""

    line: RoughLine
    weights: list[float]  # of each point
    sums: _WeightedSums


def _reweighted(
    points: Sequence[Point],
    rough: RoughLine,
    least_deviation: float,
    *,
    starts_anywhere: bool,
) -> _Fit | None:
    """The line that fits best near a rough one; its start is fitted if it `starts_anywhere`."""
    settled = _settled(points, rough, least_deviation, starts_anywhere=starts_anywhere)
    if settled is None:
        return None
    line, weights, sums = settled
    squares = 0.0
    for weight, off in zip(weights, _residuals(points, line.slope, line.start), strict=True):
        squares += weight * off * off
    parameters = 2 if starts_anywhere else 1
    degrees_of_freedom = max(sums.ones - parameters, 1.0)
    noise = math.sqrt(max(squares / degrees_of_freedom, least_deviation**2))
    # The standard errors are those of least squares, with the last round's weights.
    if not starts_anywhere:
        return _Fit(line.slope, 0.0, 0.0, noise / math.sqrt(sums.xx))
    start_error = noise * math.sqrt(sums.xx / sums.determinant)
    end_error = noise * math.sqrt((sums.ones - 2 * sums.x + sums.xx) / sums.determinant)
    return _Fit(line.slope, line.start, start_error, end_error)


def _settled(
    points: Sequence[Point],
    rough: RoughLine,
    least_deviation: float,
    *,
    starts_anywhere: bool,
) -> _Settled | None:
    """Fit by least squares, in rounds in which points far off the last line weigh less."""
    line = rough
    for _ in range(ROUNDS):
        weights = _weights(_residuals(points, line.slope, line.start), least_deviation)
        sums = _weighted_sums(points, weights)
        if sums.are_at_one_edge:
            return None
        line_before = line
        line = _least_squares(sums) if starts_anywhere else RoughLine(sums.xy / sums.xx, line.start)
        change = abs(line.slope - line_before.slope) + abs(line.start - line_before.start)
        if change <= STILL * abs(line.slope):
            break
    return _Settled(line, weights, sums)


def _least_squares(sums: _WeightedSums) -> RoughLine:
    ones, x, y, xx, xy = sums
    slope = (ones * xy - x * y) / sums.determinant
    start = (xx * y - x * xy) / sums.determinant
    return RoughLine(slope, start)


def _residuals(points: Sequence[Point], slope: float, start: float) -> list[float]:
    return [number - slope * edge - start for edge, number in points]


def _weights(off: Sequence[float], least_deviation: float) -> list[float]:
    """Tukey's bisquare: from 1 for a point on the line to 0 for one that is too far off."""
    deviation = max(DEVIATION_PER_MEDIAN * statistics.median(map(abs, off)), least_deviation)
    furthest_square = (BISQUARE * deviation) ** 2
    squares = [distance * distance / furthest_square for distance in off]
    return [(1 - square) * (1 - square) if square < 1 else 0.0 for square in squares]


def format_in_frames(order: Order, maps: Sequence[FrameMap]) -> BoxFormat:
    plain = find_box_format(f"{order}_px", model="")
    return replace(plain, name=f"{order}_px@{MEASURED}", maps=tuple(maps))


def order_of(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order in which the numbers of all pictures lie on lines; None if it is unclear."""
    fits = {order: _order_fit(pictures, order) for order in ORDERS}
    # the order in which the numbers are least off, and the next best
    best, second = sorted(ORDERS, key=lambda order: fits[order].log_noise)[:2]
    is_clear = fits[second].log_noise - fits[best].log_noise >= LEAST_LOG_RATIO
    return best if is_clear and fits[best].share >= LEAST_EXPLAINED else None


class _OrderFit(NamedTuple):
    """How well answers in an order lie on lines."""

    log_noise: float  # the sum of the logarithms of all edges' noise
    share: float  # of the rectangles, on the lines


def _order_fit(pictures: Sequence[ProbedPicture], order: Order) -> _OrderFit:
    log_noise = 0.0
    shares = []
    for picture in pictures:
        answers = _answers([picture], order)
        lines = _fit_lines(answers, picture.sent)
        if lines is None:
            noises = [NO_LINE, NO_LINE]  # of x and of y
            shares.append(0.0)
        else:
            noises = [max(line.noise, LEAST_DEVIATION) for line in lines]
            shares.append(_share_on(lines, answers, picture.sent))
        # With normal noise of deviation s, the likelihood of n edges at their best fit is
        # proportional to s^-n. So the difference of n·log(s) between two orders is the logarithm of
        # how much likelier one of them is.
        edges_of_axis = 2 * len(answers)
        log_noise += edges_of_axis * sum(map(math.log, noises))
    return _OrderFit(log_noise, sum(shares) / max(1, len(shares)))
