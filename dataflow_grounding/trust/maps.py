"""How a model's numbers become pixels in pictures of one exact size: a straight line for each axis.

A server may resize, pad or crop a picture before the model sees it. It does the same to every
picture of one size, so that a number n means the pixel a·n + b, for x and for y, with an a and a b
of that size. Both are measured: rectangles are drawn at known places, and each that is answered
gives two pairs (number, pixel) for an axis. No rule of the server has to be known.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dataflow_grounding.boxes.coordinates import (
    ORDERS,
    BoxFormat,
    FrameMap,
    Order,
    to_xyxy,
)
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size, ordered, size_text
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import ProbedPicture

Array: TypeAlias = NDArray[np.float64]
DEVIATION_PER_MEDIAN = 1.4826  # of normal errors: the standard deviation over the median
MEASURED = "measured"  # in the name of a format whose numbers are known by maps
LEAST_PAIRS = 8  # of an axis, which four rectangles have: fewer make no line
# Tukey's bisquare: what is further off than this many standard deviations counts for nothing. At
# 4.685 the fit has 95% of least squares' efficiency for normal errors (Holland and Welsch, 1977).
BISQUARE = 4.685
ROUNDS = 30  # of reweighting, after which the line no longer changes in any digit that matters
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
# This many rectangles off the lines, and this share of all, may be in another format.
LEAST_LEFT = 5
LEAST_LEFT_SHARE = 0.15
LEAST_ON_OTHERS = 6  # of these are on the other format's lines: fewer may be by chance
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


def fit_map(pictures: Sequence[ProbedPicture], order: Order) -> FrameMap:
    """Fit a map to the answers about pictures of one size.

    `order` is for answers that don't name their own. Raises NoFit where they lie on no line, or on
    several, or are too few.
    """
    size = pictures[0].sent
    answers = _answers(pictures, order)
    lines = _common_lines(answers, size)
    if lines is None:
        raise NoFit(f"the answers about pictures of {size_text(size)} px lie on no line")
    on_lines = _on_lines(answers, lines, size)
    _check_left_over(answers.taken(~on_lines), len(on_lines), size)
    _check_alike(
        [_fit_lines(_answers([picture], order), size) for picture in pictures], lines, size
    )
    across, down = lines
    return FrameMap(
        size,
        first=(across.start, down.start),
        last=(across.number_at(size[0]), down.number_at(size[1])),
        error=max(across.error, down.error),
    )


def _check_alike(
    of_pictures: "Sequence[tuple[Line, Line] | None]", lines: "tuple[Line, Line]", size: Size
) -> None:
    # A dozen rectangles are few, so that their line takes itself for too exact now and then. It
    # counts as no more exact than those of most pictures.
    for axis, all_lines in enumerate(lines):
        own = [both[axis] for both in of_pictures if both is not None]
        usual = statistics.median([one.error for one in own]) if own else 0.0
        for one in own:
            error = max(one.error, usual)
            for pixel in (0, size[axis]):
                gap = abs(one.number_at(pixel) - all_lines.number_at(pixel))
                if gap / (all_lines.scale * size[axis]) > ONE_OFF + ONE_OFF_ERRORS * error:
                    raise NoFit(f"pictures of {size_text(size)} px are seen in several sizes")


def _check_left_over(left: "_Answers", asked: int, size: Size) -> None:
    if len(left.drawn) < max(LEAST_LEFT, LEAST_LEFT_SHARE * asked):
        return
    for order in ORDERS:
        corners = np.array([ordered(to_xyxy(numbers, order)) for numbers in left.numbers])
        others = _Answers(left.numbers, corners, left.drawn)
        lines = _fit_lines(others, size)
        if lines is None:
            continue
        on_lines = _on_lines(others, lines, size)
        if on_lines.sum() >= LEAST_ON_OTHERS and on_lines.mean() >= LEAST_ON_LINES:
            raise NoFit(
                f"the answers about pictures of {size_text(size)} px are in more than one format"
            )


@dataclass(frozen=True)
class _Answers:
    """What was answered about rectangles; all arrays are of shape (rectangles, 4)."""

    numbers: Array  # as they were written
    written: Array  # the same as x1, y1, x2, y2
    drawn: Array  # x1, y1, x2, y2 in pixels as sent

    def taken(self, rows: NDArray[np.bool_]) -> "_Answers":
        return _Answers(self.numbers[rows], self.written[rows], self.drawn[rows])


def lines_of(pictures: Sequence[ProbedPicture], order: Order) -> tuple[Line, Line] | None:
    """Return the lines of x and of y in pictures of one size; None where most are near no two."""
    return _common_lines(_answers(pictures, order), pictures[0].sent)


def _common_lines(answers: _Answers, size: Size) -> tuple[Line, Line] | None:
    lines = _fit_lines(answers, size)
    if lines is None or _on_lines(answers, lines, size).mean() < LEAST_ON_LINES:
        return None
    return lines


def _answers(pictures: Sequence[ProbedPicture], order: Order) -> _Answers:
    numbers: list[tuple[float, ...]] = []
    written: list[tuple[float, ...]] = []
    drawn: list[tuple[float, ...]] = []
    for picture in pictures:
        x = picture.sent[0] / picture.size[0]
        y = picture.sent[1] / picture.size[1]
        for answer in picture.answers:
            if len(answer.numbers) != 4:
                continue
            numbers.append(answer.numbers)
            written.append(ordered(to_xyxy(answer.numbers, answer.order or order)))
            x1, y1, x2, y2 = answer.asked
            drawn.append((x1 * x, y1 * y, x2 * x, y2 * y))
    as_arrays = [np.array(rows, dtype=float).reshape(-1, 4) for rows in (numbers, written, drawn)]
    return _Answers(*as_arrays)


def _fit_lines(answers: _Answers, size: Size) -> tuple[Line, Line] | None:
    across = fit_line(answers.written[:, 0::2].ravel(), answers.drawn[:, 0::2].ravel(), size[0])
    down = fit_line(answers.written[:, 1::2].ravel(), answers.drawn[:, 1::2].ravel(), size[1])
    return None if across is None or down is None else (across, down)


def _on_lines(answers: _Answers, lines: tuple[Line, Line], size: Size) -> NDArray[np.bool_]:
    near = np.ones(len(answers.drawn), dtype=bool)
    for axis, line in enumerate(lines):
        share = min(max(NEAR, NEAR_PER_NOISE * line.noise), MOST_NEAR)
        allowed = share * line.scale * size[axis]
        expected = line.scale * answers.drawn[:, axis::2] + line.start
        near &= (np.abs(expected - answers.written[:, axis::2]) <= allowed).all(axis=1)
    return near


def fit_line(numbers: Array, pixels: Array, side: float) -> Line | None:
    """Fit a robust line to one axis; None where there are too few pairs, or it doesn't grow."""
    # The numbers are what is off, so they are fitted to the pixels, which are exact: the other way
    # round, noise would flatten the line.
    if len(numbers) < LEAST_PAIRS:
        return None
    edges = pixels / side  # from 0 to 1
    begin = _theil_sen(numbers, edges)
    if begin is None:
        return None
    slope, start, covariance = _reweighted(numbers, edges, begin, starts_anywhere=True)
    if slope > 0 and abs(start) <= SHIFT_ERRORS * math.sqrt(covariance[1, 1]):
        slope, start, covariance = _reweighted(numbers, edges, begin, starts_anywhere=False)
    if slope <= 0:
        return None
    variance = float(covariance.sum())  # of slope + start, which is the number at the far edge
    error = TRIMMING_FACTOR * math.sqrt(max(variance, 0.0)) / slope
    off = np.abs(slope * edges + start - numbers)
    noise = DEVIATION_PER_MEDIAN * float(np.median(off)) / slope
    return Line(slope / side, start, error, noise)


def _theil_sen(numbers: Array, edges: Array) -> tuple[float, float] | None:
    across = np.subtract.outer(edges, edges)
    up = np.subtract.outer(numbers, numbers)
    apart = across > LEAST_EDGE_GAP
    if not apart.any():
        return None
    slope = float(np.median(up[apart] / across[apart]))
    return (slope, float(np.median(numbers - slope * edges))) if slope > 0 else None


def _reweighted(
    numbers: Array, edges: Array, begin: tuple[float, float], *, starts_anywhere: bool
) -> tuple[float, float, Array]:
    # Returns slope, start and their covariance, of 2 x 2. The start is 0 unless it may be anywhere.
    fitted = 1 + starts_anywhere
    columns = np.stack([edges, np.ones_like(edges)], axis=1)[:, :fitted]
    solution = np.array(begin)[:fitted]
    if not starts_anywhere:
        solution = np.array([float(np.median(numbers / np.maximum(edges, LEAST_EDGE_GAP)))])
    weights = np.ones_like(numbers)
    least = LEAST_DEVIATION * begin[0]
    for _ in range(ROUNDS):
        off = numbers - columns @ solution
        deviation = max(DEVIATION_PER_MEDIAN * float(np.median(np.abs(off))), least)
        weights = np.clip(1 - (off / (BISQUARE * deviation)) ** 2, 0, None) ** 2
        weighted = columns * weights[:, None]
        solution = np.linalg.lstsq(columns.T @ weighted, weighted.T @ numbers, rcond=None)[0]
    off = numbers - columns @ solution
    kept = max(float(weights.sum()) - fitted, 1.0)
    noise = max(float((weights * off**2).sum()) / kept, least**2)
    covariance = np.zeros((2, 2))
    inverse = np.linalg.pinv(columns.T @ (columns * weights[:, None]))
    covariance[:fitted, :fitted] = noise * inverse
    return float(solution[0]), float(solution[1]) if starts_anywhere else 0.0, covariance


def format_in_frames(order: Order, maps: Sequence[FrameMap]) -> BoxFormat:
    plain = find_box_format(f"{order}_px", "")
    return replace(plain, name=f"{order}_px@{MEASURED}", maps=tuple(maps))


def order_of(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order in which the numbers of all pictures lie on lines; None if it is unclear."""
    found = {order: _found_in(pictures, order) for order in ORDERS}
    best, second = sorted(ORDERS, key=lambda order: found[order].log_noise)[:2]
    is_clear = found[second].log_noise - found[best].log_noise >= LEAST_LOG_RATIO
    return best if is_clear and found[best].share >= LEAST_EXPLAINED else None


class _Found(NamedTuple):
    """How well answers lie on lines: the sum of their noise's logarithms, the share on them."""

    log_noise: float
    share: float


def _found_in(pictures: Sequence[ProbedPicture], order: Order) -> _Found:
    log_noise = 0.0
    shares = []
    for picture in pictures:
        answers = _answers([picture], order)
        lines = _fit_lines(answers, picture.sent)
        share = 0.0
        noises = [NO_LINE, NO_LINE]
        if lines is not None:
            share = float(_on_lines(answers, lines, picture.sent).mean())
            noises = [max(line.noise, LEAST_DEVIATION) for line in lines]
        log_noise += 2 * len(answers.drawn) * sum(map(math.log, noises))  # two edges on each axis
        shares.append(share)
    return _Found(log_noise, sum(shares) / max(1, len(shares)))
