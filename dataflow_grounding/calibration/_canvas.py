"""The way out for models that count pixels, where no sizes arrive as sent: all pictures are sent in
one size, a square.

Whatever a server does to a picture, it does the same to every picture of that size. So how large
the model sees this one is measured, and no rule has to be known: servers that always enlarge, or
stretch pictures over tiles, are read so too. A picture is padded to the square at the right or the
bottom; elongated ones lose detail by it.
"""

import math
from collections.abc import Sequence

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, Order, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import ordered
from dataflow_grounding.calibration._fitting import NEAR, SECOND, Scores
from dataflow_grounding.calibration._seen import Array, SeenSize, measured_in, shown
from dataflow_grounding.calibration._taken import Taken
from dataflow_grounding.calibration.probes import SIZES, AskProbes, NoFit, ProbedPicture, probe_of
from dataflow_grounding.images.image import SizeLimits

# a multiple of 14, 16, 24, 28, 36, 42, 48 and 56: seldom rounded, and over no usual limit by far
SIDE = 1008
STEP = 28
FIRST, MORE, MOST = 4, 4, 16  # pictures: at first, and where the model is noisy
EXACT = 0.0022  # standard error of the side that is measured, as a share of it
AS_SENT = 0.004  # a square that is seen with sides so near to its own is taken to be seen as sent
LEVEL = 0.002  # how far off the first edge may be, as a share of the side
SYSTEMATIC = 0.003  # what models are off by beside chance
ONE_ORDER = 2 / 3  # share of the rectangles that one order has to explain
PARTS = (1, 100, 1000, 1024)  # what stands for the whole side where a model counts no pixels


def squares(side: int) -> SizeLimits:
    """The limits by which every picture is sent as a square of this side."""
    return SizeLimits(side, min_pixels=side**2, multiple=side, max_wide=1.0, max_tall=1.0)


async def on_canvas(
    ask: AskProbes, order: Order, max_side: int, taken: Taken
) -> tuple[str, list[ProbedPicture], SizeLimits]:
    """The frame in which a model counts that is only sent squares, the pictures that show it, and
    the limits that make squares of all. Raises NoFit.
    """
    side = min(taken.fitted((square := min(SIDE, max_side), square)))
    side = side // STEP * STEP or side
    stated = find_box_format(f"{order}_px", "")
    pictures: list[ProbedPicture] = []
    while len(pictures) < MOST:
        layouts = range(len(pictures), len(pictures) + (MORE if pictures else FIRST))
        pictures += await ask([probe_of((side, side), layout) for layout in layouts], stated)
        measured = _measured(pictures, order)
        sides, error = _sides(measured, side)
        if error <= EXACT:
            break
    else:
        raise NoFit(
            f"answers are too noisy to tell in which size a square is seen ({shown(measured)})"
        )
    if all(abs(one / side - 1) <= AS_SENT for one in sides):
        return "sent", pictures, squares(side)
    frame = f"seen_{round(sides[0])}_{round(sides[1])}"
    [last] = await ask(
        [probe_of((side, side), len(pictures))], find_box_format(f"{order}_px@{frame}", "")
    )
    [seen] = _measured([last], order)
    if any(
        abs(scale * side / one - 1) > 2 * SYSTEMATIC + 4 * error
        for scale, one, error in zip(seen.scale, sides, seen.error, strict=True)
    ):
        raise NoFit(f"the size that is stated changes the answers ({shown([*measured, seen])})")
    return frame, [*pictures, last], squares(side)


def _measured(pictures: Sequence[ProbedPicture], order: Order) -> list[SeenSize]:
    """How large each square was seen. Raises NoFit unless the answers are clearly in this order."""
    orders: list[Order] = [order, *(one for one in ORDERS if one != order)]
    scores = Scores(pictures, [find_box_format(f"{one}_px", "") for one in orders], measured=True)
    scores.check_found(0)
    scores.check_one_format(0)
    measured = measured_in(pictures, order, "sent")
    if len(measured) < len(pictures):
        raise NoFit(scores.seen("too few boxes came back"))
    return measured


def _sides(measured: Sequence[SeenSize], side: int) -> tuple[tuple[float, float], float]:
    """The width and height in which all squares are seen, and the relative error of that. Raises
    NoFit.
    """
    scales, errors = _table(measured, "scale", "error")
    shifts, shift_errors = _table(measured, "shift", "shift_error")
    mean, error = _mean(scales, errors * scales)
    spread = float((((scales / mean - 1) / np.hypot(errors, SYSTEMATIC)) ** 2).sum())
    if spread > scales.size + 5 * math.sqrt(2 * scales.size):
        raise NoFit(f"pictures of one size are seen in several ({shown(measured)})")
    shift, shift_error = _mean(shifts, shift_errors)
    if (np.abs(shift) > LEVEL + 2.5 * shift_error).any():
        raise NoFit(f"numbers begin at {shift.max():.1%} of a square's side ({shown(measured)})")
    relative = error / mean
    if abs(mean[0] / mean[1] - 1) <= 3 * math.hypot(*relative):  # a square that stays one
        both = float(np.average(mean, weights=relative**-2.0))
        return (both * side, both * side), 1 / math.sqrt(float((relative**-2.0).sum()))
    return (float(mean[0]) * side, float(mean[1]) * side), float(relative.max())


def _table(measured: Sequence[SeenSize], value: str, error: str) -> tuple[Array, Array]:
    """Of each picture, x and y: a value and its error."""
    return (
        np.array([getattr(one, value) for one in measured]),
        np.array([getattr(one, error) for one in measured]),
    )


def _mean(values: Array, errors: Array) -> tuple[Array, Array]:
    """Of x and y: the mean over all pictures, and its standard error."""
    weights = errors**-2.0
    mean: Array = (values * weights).sum(axis=0) / weights.sum(axis=0)
    error: Array = weights.sum(axis=0) ** -0.5
    return mean, error


def one_order(pictures: Sequence[ProbedPicture]) -> Order | None:
    """The order in which all pictures were answered in pixels of some size; None if there is no
    such one.
    """
    if len(pictures) < 2:
        return None
    explained = {
        order: np.array([_explained(picture, order) for picture in pictures]) for order in ORDERS
    }
    best = max(ORDERS, key=lambda order: int(explained[order].sum()))
    beaten = any((explained[order] >= explained[best] + SECOND).any() for order in ORDERS)
    if beaten or explained[best].sum() < ONE_ORDER * sum(picture.asked for picture in pictures):
        return None
    return None if any(map(_in_parts, measured_in(pictures[: len(SIZES)], best, "sent"))) else best


def _explained(picture: ProbedPicture, order: Order) -> int:
    """How many rectangles lie on one line for x and one for y, wherever those begin and however
    steep they are.
    """
    answers = [answer for answer in picture.answers if len(answer.numbers) == 4]
    if len(answers) < 4:
        return 0
    written = np.array(
        [ordered(to_xyxy(answer.numbers, answer.order or order)) for answer in answers]
    )
    true = np.array([answer.asked for answer in answers], dtype=float)
    near = np.ones(len(answers), dtype=bool)
    for axis in (0, 1):
        at, numbers = true[:, axis::2] / picture.size[axis], written[:, axis::2]
        x, y = at.ravel(), numbers.ravel()
        apart = np.subtract.outer(x, x)
        far = apart > 0.2
        slope = float(np.median(np.subtract.outer(y, y)[far] / apart[far]))
        if slope <= 0:
            return 0
        start = float(np.median(y - slope * x))
        near &= (np.abs(numbers - start - slope * at) <= NEAR * slope).all(axis=1)
    return int(near.sum())


def _in_parts(one: SeenSize) -> bool:
    """Whether a picture that is no square was answered as models do that count in parts of the
    side.
    """
    sides = [
        (scale * side, error)
        for scale, side, error in zip(one.scale, one.sent, one.error, strict=True)
    ]
    alike = [
        part
        for part in PARTS
        if all(abs(n / part - 1) <= 0.01 + 3 * min(error, 0.01) for n, error in sides)
    ]
    return bool(alike) and max(one.sent) > 1.1 * min(one.sent)
