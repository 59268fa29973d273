"""The way out for models that count pixels, where no sizes arrive as sent: squares of one size.

Whatever a server does to a picture, it does the same to every picture of that size. So how large
the model sees this one is measured, and no rule has to be known: servers that always enlarge, or
stretch pictures over tiles, are read so too. A picture is padded to the square at the right or the
bottom; elongated ones lose detail by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, Order
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.calibration._fitting import NEAR, SECOND, Scores
from dataflow_grounding.calibration._seen import (
    SYSTEMATIC,
    Array,
    SeenSize,
    answered_boxes,
    is_by_chance,
    measured_in,
    sizes_in_words,
)
from dataflow_grounding.calibration._taken import Taken
from dataflow_grounding.calibration.probes import SIZES, AskProbes, NoFit, ProbedPicture, probe_of
from dataflow_grounding.images.image import SizeLimits

# a multiple of 14, 16, 24, 28, 36, 42, 48 and 56: seldom rounded, and over no usual limit by far
SIDE = 1008
STEP = 28
FIRST = 4  # pictures that are asked for at first
MORE = 4  # and then at a time, where the model is noisy
MOST = 16
EXACT = 0.0022  # standard error of the side that is measured, as a share of it
AS_SENT = 0.004  # a square that is seen with sides so near to its own is taken to be seen as sent
LEVEL = 0.002  # how far off the first edge may be, as a share of the side
ONE_ORDER = 2 / 3  # share of the rectangles that one order has to explain
PARTS = (1, 100, 1000, 1024)  # what stands for the whole side where a model counts no pixels
APART = 0.2  # of the side: a slope is taken between edges that are further apart


@dataclass(frozen=True)
class SeenSides:
    """The width and height in which all squares are seen, and the relative error of that."""

    width: float
    height: float
    error: float


def squares(side: int) -> SizeLimits:
    """The limits by which every picture is sent as a square of this side."""
    return SizeLimits(side, min_pixels=side**2, multiple=side, max_wide=1.0, max_tall=1.0)


async def on_canvas(
    ask: AskProbes, order: Order, max_side: int, taken: Taken
) -> tuple[str, list[ProbedPicture], SizeLimits]:
    """How a model that counts pixels sees squares.

    Returns the frame in which it counts, the pictures that show it, and the limits that make
    squares of all. Raises NoFit.
    """
    side = _side_of_squares(max_side, taken)
    stated = find_box_format(f"{order}_px", "")
    pictures: list[ProbedPicture] = []
    wanted = FIRST
    while True:
        layouts = range(len(pictures), len(pictures) + wanted)
        pictures += await ask([probe_of((side, side), layout) for layout in layouts], stated)
        measured = _measured(pictures, order)
        sides = _sides(measured, side)
        if sides.error <= EXACT:
            break
        if len(pictures) >= MOST:
            raise NoFit(
                "answers are too noisy to tell in which size a square is seen"
                f" ({sizes_in_words(measured)})"
            )
        wanted = MORE
    if abs(sides.width / side - 1) <= AS_SENT and abs(sides.height / side - 1) <= AS_SENT:
        return "sent", pictures, squares(side)
    frame = f"seen_{round(sides.width)}_{round(sides.height)}"
    last_probe = probe_of((side, side), len(pictures))
    [last] = await ask([last_probe], find_box_format(f"{order}_px@{frame}", ""))
    [last_seen] = _measured([last], order)
    for axis, expected in enumerate((sides.width, sides.height)):
        gap = abs(last_seen.scale[axis] * side / expected - 1)
        if gap > 2 * SYSTEMATIC + 4 * last_seen.error[axis]:
            raise NoFit(
                "the size that is stated changes the answers"
                f" ({sizes_in_words([*measured, last_seen])})"
            )
    return frame, [*pictures, last], squares(side)


def _side_of_squares(max_side: int, taken: Taken) -> int:
    """The side of a square that may be sent and is taken, in multiples that are seldom rounded."""
    most = min(SIDE, max_side)
    side = min(taken.fitted((most, most)))
    return side // STEP * STEP or side


def _measured(pictures: Sequence[ProbedPicture], order: Order) -> list[SeenSize]:
    """How large each square was seen. Raises NoFit unless the answers are clearly in this order."""
    orders = [order] + [candidate for candidate in ORDERS if candidate != order]
    formats = [find_box_format(f"{candidate}_px", "") for candidate in orders]
    scores = Scores(pictures, formats, measured=True)
    scores.check_found(0)
    scores.check_one_format(0)
    measured = measured_in(pictures, order, "sent")
    if len(measured) < len(pictures):
        raise NoFit(scores.message("too few boxes came back"))
    return measured


def _sides(measured: Sequence[SeenSize], side: int) -> SeenSides:
    """The width and height in which all squares of this side are seen. Raises NoFit."""
    scales = np.array([picture.scale for picture in measured])
    errors = np.array([picture.error for picture in measured])
    mean, error = _mean(scales, errors * scales)
    spread = float((((scales / mean - 1) / np.hypot(errors, SYSTEMATIC)) ** 2).sum())
    if not is_by_chance(spread, scales.size):
        raise NoFit(f"pictures of one size are seen in several ({sizes_in_words(measured)})")
    shifts = np.array([picture.shift for picture in measured])
    shift_errors = np.array([picture.shift_error for picture in measured])
    shift, shift_error = _mean(shifts, shift_errors)
    if (np.abs(shift) > LEVEL + 2.5 * shift_error).any():
        raise NoFit(
            f"numbers begin at {shift.max():.1%} of a square's side ({sizes_in_words(measured)})"
        )
    relative = error / mean
    if abs(mean[0] / mean[1] - 1) <= 3 * math.hypot(*relative):  # a square that stays one
        both = float(np.average(mean, weights=relative**-2.0))
        return SeenSides(both * side, both * side, 1 / math.sqrt(float((relative**-2.0).sum())))
    return SeenSides(float(mean[0]) * side, float(mean[1]) * side, float(relative.max()))


def _mean(values: Array, errors: Array) -> tuple[Array, Array]:
    """Return the mean of x and y over all pictures, and its standard error."""
    weights = errors**-2.0
    mean: Array = (values * weights).sum(axis=0) / weights.sum(axis=0)
    error: Array = weights.sum(axis=0) ** -0.5
    return mean, error


def one_order(pictures: Sequence[ProbedPicture]) -> Order | None:
    """The order in which all pictures were answered in pixels of some size; None without such."""
    if len(pictures) < 2:
        return None
    explained: dict[Order, Array] = {}
    for order in ORDERS:
        explained[order] = np.array([_explained(picture, order) for picture in pictures])
    best = max(ORDERS, key=lambda order: int(explained[order].sum()))
    for order in ORDERS:
        if (explained[order] >= explained[best] + SECOND).any():
            return None
    if explained[best].sum() < ONE_ORDER * sum(picture.asked for picture in pictures):
        return None
    for picture in measured_in(pictures[: len(SIZES)], best, "sent"):
        if _is_in_parts(picture):
            return None
    return best


def _explained(picture: ProbedPicture, order: Order) -> int:
    """How many rectangles lie on one line for x and one for y, wherever these begin."""
    boxes = answered_boxes(picture, order)
    if boxes is None:
        return 0
    near = np.ones(len(boxes.asked), dtype=bool)
    for axis in (0, 1):
        edges = boxes.asked[:, axis::2] / picture.size[axis]
        numbers = boxes.written[:, axis::2]
        x = edges.ravel()
        y = numbers.ravel()
        apart = np.subtract.outer(x, x)
        far = apart > APART
        slope = float(np.median(np.subtract.outer(y, y)[far] / apart[far]))
        if slope <= 0:
            return 0
        start = float(np.median(y - slope * x))
        near &= (np.abs(numbers - start - slope * edges) <= NEAR * slope).all(axis=1)
    return int(near.sum())


def _is_in_parts(picture: SeenSize) -> bool:
    """Whether a picture was answered as models do that count in parts of the side.

    In a square, parts of the side look like pixels of a picture that was resized.
    """
    if max(picture.sent) <= 1.1 * min(picture.sent):
        return False
    return any(_is_whole_side(picture, part) for part in PARTS)


def _is_whole_side(picture: SeenSize, part: int) -> bool:
    """Whether this number stands for the picture's width and for its height."""
    for axis in (0, 1):
        number = picture.scale[axis] * picture.sent[axis]
        if abs(number / part - 1) > 0.01 + 3 * min(picture.error[axis], 0.01):
            return False
    return True
