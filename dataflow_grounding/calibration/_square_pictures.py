"""The way out for models that count pixels, where no sizes arrive as sent: squares of one size.

Whatever a server does to a picture, it does the same to every picture of that size. So every
picture is padded to the same square, and it is measured how large the model sees this square. No
rule of the server has to be known: servers that always enlarge pictures, or stretch them over
tiles, can be read so, too. Padding goes to the right or the bottom; elongated pictures lose detail
by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, Order
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.calibration._accepted_sizes import AcceptedSizes
from dataflow_grounding.calibration._fitting import NEAR, SEVERAL_RECTANGLES, Scores
from dataflow_grounding.calibration._seen_size import (
    CHANCE,
    SYSTEMATIC,
    Array,
    SeenSize,
    answered_boxes,
    is_by_chance,
    measure_seen_sizes,
    sizes_in_words,
)
from dataflow_grounding.calibration.probes import SIZES, AskProbes, NoFit, ProbedPicture, probe_of
from dataflow_grounding.images.image import SizeLimits

# The side of the squares in pixels: a multiple of 14, 16, 24, 28, 36, 42, 48 and 56, so that it is
# seldom rounded, and far below any usual limit.
SIDE = 1008
STEP = 28  # shorter sides are multiples of this
FIRST = 4  # pictures that are asked for at first
MORE = 4  # pictures that are then asked for at a time, while the answers are too noisy
MOST = 16  # pictures after which it is given up
EXACT = 0.0022  # standard error of the side as seen, relative to it, that is exact enough
AS_SENT = 0.004  # a square whose sides are seen within this share of its own counts as seen as sent
LEVEL = 0.002  # how far from 0 the number at the first edge may be, as a share of the side
ONE_ORDER = 2 / 3  # share of the rectangles that one order has to explain
PARTS = (1, 100, 1000, 1024)  # numbers for the whole side where a model counts no pixels
SQUARE = 1.1  # the aspect up to which a picture counts as a square, in which parts don't show
APART = 0.2  # edges closer together than this share of the side give no reliable slope
# A side may be this far from the one that was stated, with so many standard errors beyond that.
OFF_WHEN_STATED = 2 * SYSTEMATIC
STATED_ERRORS = 4
LEVEL_ERRORS = 2.5  # standard errors that the number at the first edge may be off beyond LEVEL


@dataclass(frozen=True)
class SeenSides:
    """The width and height, in pixels, in which all squares are seen.

    `error` is the standard error of the less exact of them, relative to it.
    """

    width: float
    height: float
    error: float


def squares(side: int) -> SizeLimits:
    """Return the limits by which every picture is sent as a square of this side, in pixels."""
    return SizeLimits(side, min_pixels=side**2, multiple=side, max_wide=1.0, max_tall=1.0)


async def measure_on_squares(
    ask: AskProbes, order: Order, max_side: int, accepted: AcceptedSizes
) -> tuple[str, list[ProbedPicture], SizeLimits]:
    """Measure in which size a model that counts pixels sees squares.

    Squares are asked for until their size as seen is exact enough. If it isn't the size as sent,
    one more is asked for in a prompt that states the size as seen: some models scale their answers
    by what they are told.

    Args:
        ask: Puts probe pictures to the model.
        order: The order in which it writes a box's four numbers.
        max_side: The longest side that may be sent, in pixels.
        accepted: The sizes that the endpoint accepts.

    Returns:
        The frame in which the model counts, the pictures that show it, and the limits by which
        every picture is sent as such a square.

    Raises:
        NoFit: Squares of one size are not seen in one size, or answers are too noisy.
    """
    side = _side_of_squares(max_side, accepted)
    pictures = await _ask_until_exact(ask, order, side)
    measured = _measure_squares(pictures, order)
    sides = _seen_sides(measured, side)
    if abs(sides.width / side - 1) <= AS_SENT and abs(sides.height / side - 1) <= AS_SENT:
        return "sent", pictures, squares(side)
    frame = f"seen_{round(sides.width)}_{round(sides.height)}"
    last_probe = probe_of((side, side), len(pictures))
    [last] = await ask([last_probe], find_box_format(f"{order}_px@{frame}", ""))
    [last_seen] = _measure_squares([last], order)
    for axis, expected in enumerate((sides.width, sides.height)):
        gap = abs(last_seen.scale[axis] * side / expected - 1)
        if gap > OFF_WHEN_STATED + STATED_ERRORS * last_seen.error[axis]:
            raise NoFit(
                "the size that is stated changes the answers"
                f" ({sizes_in_words([*measured, last_seen])})"
            )
    return frame, [*pictures, last], squares(side)


async def _ask_until_exact(ask: AskProbes, order: Order, side: int) -> list[ProbedPicture]:
    """Ask about ever more squares of this side, until their size as seen is EXACT enough.

    FIRST are asked for at first, then MORE at a time. Raises NoFit where MOST don't do, where
    answers aren't in pixels and in this order, and where sizes differ or numbers don't begin at 0.
    """
    stated = find_box_format(f"{order}_px", "")
    pictures: list[ProbedPicture] = []
    wanted = FIRST
    while True:
        layouts = range(len(pictures), len(pictures) + wanted)
        pictures += await ask([probe_of((side, side), layout) for layout in layouts], stated)
        measured = _measure_squares(pictures, order)
        if _seen_sides(measured, side).error <= EXACT:
            return pictures
        if len(pictures) >= MOST:
            raise NoFit(
                "answers are too noisy to tell in which size a square is seen"
                f" ({sizes_in_words(measured)})"
            )
        wanted = MORE


def _side_of_squares(max_side: int, accepted: AcceptedSizes) -> int:
    """Return the side, in pixels, of a square that may be sent and is accepted.

    It is a multiple of STEP, which servers seldom round, unless it is shorter than one.
    """
    longest = min(SIDE, max_side)
    side = min(accepted.limits.sent((longest, longest)))
    return side // STEP * STEP or side


def _measure_squares(pictures: Sequence[ProbedPicture], order: Order) -> list[SeenSize]:
    """Measure how large each square was seen.

    Raises NoFit unless the answers are clearly in pixels and in this order, and each picture has
    enough of them.
    """
    orders = [order] + [candidate for candidate in ORDERS if candidate != order]
    formats = [find_box_format(f"{candidate}_px", "") for candidate in orders]
    expected = 0  # the index, among the formats, of the one in `order`
    scores = Scores(pictures, formats, measured=True)
    scores.check_found(expected)
    scores.check_one_format(expected)
    measured = measure_seen_sizes(pictures, order, "sent")
    if len(measured) < len(pictures):
        raise NoFit(scores.message("too few boxes came back"))
    return measured


def _seen_sides(measured: Sequence[SeenSize], side: int) -> SeenSides:
    """Return the width and height in which all squares of this side are seen.

    Raises NoFit where their sizes differ by more than chance, or numbers don't begin at 0.
    """
    # Each of these has a row for each picture, and a column for x and one for y: how many pixels
    # the model counts for a pixel as sent, and the relative standard error of that.
    scales = np.array([picture.scale for picture in measured])
    errors = np.array([picture.error for picture in measured])
    mean, error = _weighted_means(scales, errors * scales)
    chi_squared = float((((scales / mean - 1) / np.hypot(errors, SYSTEMATIC)) ** 2).sum())
    if not is_by_chance(chi_squared, scales.size):
        raise NoFit(f"pictures of one size are seen in several ({sizes_in_words(measured)})")
    shifts = np.array([picture.shift for picture in measured])
    shift_errors = np.array([picture.shift_error for picture in measured])
    shift, shift_error = _weighted_means(shifts, shift_errors)
    if (np.abs(shift) > LEVEL + LEVEL_ERRORS * shift_error).any():
        raise NoFit(
            f"numbers begin at {shift.max():.1%} of a square's side ({sizes_in_words(measured)})"
        )
    relative_error = error / mean
    is_seen_as_square = abs(mean[0] / mean[1] - 1) <= CHANCE * math.hypot(*relative_error)
    if is_seen_as_square:
        # Width and height measure the same side: their mean is more exact than either.
        weights = relative_error**-2.0
        scale = float(np.average(mean, weights=weights))
        return SeenSides(scale * side, scale * side, 1 / math.sqrt(float(weights.sum())))
    return SeenSides(float(mean[0]) * side, float(mean[1]) * side, float(relative_error.max()))


def _weighted_means(values: Array, errors: Array) -> tuple[Array, Array]:
    """Return the means of x and of y over all pictures, and their standard errors.

    They are inverse-variance weighted. `values` and `errors` have a row for each picture.
    """
    weights = errors**-2.0
    mean: Array = (values * weights).sum(axis=0) / weights.sum(axis=0)
    error: Array = weights.sum(axis=0) ** -0.5
    return mean, error


def find_pixel_order(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order in which all pictures were answered, if the numbers seem to count pixels.

    They may be pixels of any size, with the picture anywhere in it. None where no order explains
    most rectangles, where another explains clearly more of one picture, where the numbers are parts
    of the side, and where there are too few pictures to tell.
    """
    if len(pictures) < 2:
        return None
    explained: dict[Order, Array] = {}  # for each order, the rectangles it explains per picture
    for order in ORDERS:
        counts = [_count_on_lines(picture, order) for picture in pictures]
        explained[order] = np.array(counts)
    best = max(ORDERS, key=lambda order: int(explained[order].sum()))
    for order in ORDERS:
        if (explained[order] >= explained[best] + SEVERAL_RECTANGLES).any():
            return None
    if explained[best].sum() < ONE_ORDER * sum(picture.asked for picture in pictures):
        return None
    common = pictures[: len(SIZES)]  # the first pictures; later ones may be of odd shapes
    for picture in measure_seen_sizes(common, best, "sent"):
        if _is_in_parts(picture):
            return None
    return best


def _count_on_lines(picture: ProbedPicture, order: Order) -> int:
    """Count the rectangles whose numbers lie on one line for x and one for y.

    The lines of numbers over true edges may start anywhere. They are fitted by Theil-Sen: the slope
    is the median of the slopes between all pairs of edges that are APART. A rectangle counts where
    all four edges are within NEAR of the side. 0 where too few boxes were answered, or numbers
    don't grow with the edges.
    """
    boxes = answered_boxes(picture, order)
    if boxes is None:
        return 0
    is_near = np.ones(len(boxes.asked), dtype=bool)
    for axis in (0, 1):  # x, then y
        # Columns 0 and 2 are x1 and x2, columns 1 and 3 are y1 and y2.
        edges = boxes.asked[:, axis::2] / picture.size[axis]  # from 0 to 1
        numbers = boxes.written[:, axis::2]
        x = edges.ravel()
        y = numbers.ravel()
        x_differences = np.subtract.outer(x, x)
        y_differences = np.subtract.outer(y, y)
        is_far = x_differences > APART
        slope = float(np.median(y_differences[is_far] / x_differences[is_far]))
        if slope <= 0:
            return 0
        start = float(np.median(y - slope * x))
        off = np.abs(numbers - start - slope * edges)
        is_near &= (off <= NEAR * slope).all(axis=1)
    return int(is_near.sum())


def _is_in_parts(picture: SeenSize) -> bool:
    """Whether one of PARTS stands for the whole side, as where a model counts parts of it.

    False for squares, which tell nothing: parts of their side look like pixels of a resized
    picture.
    """
    if max(picture.sent) <= SQUARE * min(picture.sent):
        return False
    return any(_is_whole_side(picture, part) for part in PARTS)


def _is_whole_side(picture: SeenSize, part: int) -> bool:
    """Whether the model writes about `part` for the whole width, and for the whole height.

    That is within 1% and three standard errors, each of which counts as 1% at most.
    """
    for axis in (0, 1):
        number = picture.scale[axis] * picture.sent[axis]
        tolerance = 0.01 + CHANCE * min(picture.error[axis], 0.01)
        if abs(number / part - 1) > tolerance:
            return False
    return True
