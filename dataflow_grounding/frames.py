"""What the numbers of a box refer to: their order, a grid of cells, and the frame, the picture as the model sees it."""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from dataflow_grounding.errors import SpecError
from dataflow_grounding.geometry import Bbox, Size

Order: TypeAlias = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
GRID = 32

_FRAME = re.compile(
    r"sent|pad_square|pad_square_corner|round_(?P<nearest>\d+)"
    r"|smart_resize_(?P<factor>\d+)(?:_(?P<min>\d+)_(?P<max>\d+))?"
    r"|long_edge_(?P<edge>\d+)(?:_patch_(?P<patch>\d+)_(?P<patches>\d+))?"
)


class Canvas(NamedTuple):
    """The picture that a model's numbers refer to: its size, and where in it the image lies, all in its own pixels."""

    width: float
    height: float
    left: float
    top: float
    image_width: float
    image_height: float


def frame_of(frame: str, sent: Size) -> Canvas:
    """Return the picture that a model's numbers refer to, for a picture sent in the size `sent` (width, height).

    `sent`: the picture as sent. `round_F`: sides rounded to multiples of F px. `smart_resize_F` or
    `smart_resize_F_MIN_MAX`: that, and the area kept between MIN and MAX square pixels (Qwen2.5-VL; the formula is in
    qwen-vl-utils' vision_process.py). `long_edge_N`: reduced, never enlarged, until the longer side is N px at most;
    with `_patch_P_M` also until it takes M patches of P px at most. `pad_square`: padded to a square with the image in
    the middle; `pad_square_corner`: with the image in the top left corner. Raises SpecError for any other name.
    """
    match = _FRAME.fullmatch(frame)
    if match is None:
        raise SpecError(
            f"unknown box frame {frame!r}; known: sent, round_28, smart_resize_28, smart_resize_28_3136_12845056, "
            "long_edge_2048, long_edge_1568_patch_28_1568, pad_square, pad_square_corner"
        )
    width, height = sent
    if match["nearest"]:
        factor = max(1, int(match["nearest"]))
        width, height = (max(factor, round(side / factor) * factor) for side in sent)
    elif match["factor"]:
        factor = max(1, int(match["factor"]))
        low, high = int(match["min"] or 4 * factor**2), int(match["max"] or 16384 * factor**2)
        width, height = _smart_resize(width, height, factor, low, high)
    elif match["edge"]:
        width, height = _long_edge(sent, int(match["edge"]), int(match["patch"] or 0), int(match["patches"] or 0))
    elif frame.startswith("pad_square"):
        side = max(sent)
        left, top = ((side - width) / 2, (side - height) / 2) if frame == "pad_square" else (0, 0)
        return Canvas(side, side, left, top, width, height)
    return Canvas(width, height, 0, 0, width, height)


def _smart_resize(width: int, height: int, factor: int, low: int, high: int) -> Size:
    new_width, new_height = (max(factor, round(side / factor) * factor) for side in (width, height))
    if new_width * new_height > high:
        shrink = math.sqrt(width * height / high)
        new_width, new_height = (max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height))
    elif new_width * new_height < low:
        grow = math.sqrt(low / (width * height))
        new_width, new_height = (math.ceil(side * grow / factor) * factor for side in (width, height))
    return new_width, new_height


def _long_edge(sent: Size, edge: int, patch: int, patches: int) -> Size:
    def at(long: int) -> Size:
        width, height = (max(1, round(side * long / max(sent))) for side in sent)
        return width, height

    def takes_too_many(long: int) -> bool:
        width, height = at(long)
        return math.ceil(width / patch) * math.ceil(height / patch) > patches

    longest = max(1, min(edge, max(sent)))
    if patch and takes_too_many(longest):
        longest = max(1, bisect_left(range(1, longest), True, key=takes_too_many))
    return at(longest)


def to_xyxy(numbers: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    """Return four numbers written in `order` as x1, y1, x2, y2 in the same units; ValueError unless there are four."""
    a, b, c, d = numbers
    if order == "yxyx":
        return b, a, d, c
    if order == "xywh":
        return a, b, a + c, b + d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


def from_xyxy(corners: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 as the four numbers of `order`, in the same units."""
    x1, y1, x2, y2 = corners
    if order == "yxyx":
        return y1, x1, y2, x2
    if order == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if order == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    return x1, y1, x2, y2


def cells_to_fractions(cells: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box between two of 32 x 32 cells in parts of the sides, as Kosmos-2 does. Raises ValueError."""
    first, last = cells
    (row1, column1), (row2, column2) = divmod(int(first), GRID), divmod(int(last), GRID)
    inset = 0.0 if row1 == row2 or column1 == column2 else 0.5
    return ((column1 + inset) / GRID, (row1 + inset) / GRID, (column2 + 1 - inset) / GRID, (row2 + 1 - inset) / GRID)


def fractions_to_cells(bbox: Bbox, original: Size) -> tuple[int, int]:
    """Return the cells of a 32 x 32 grid over an image of `original` size that hold the corners of a pixel box."""
    hair = 1e-9  # keeps a corner that lies on a cell's edge in its own cell
    column1, row1 = (math.floor(bbox[i] / original[i] * GRID + hair) for i in (0, 1))
    column2, row2 = (math.ceil(bbox[i + 2] / original[i] * GRID - hair) - 1 for i in (0, 1))
    kept = [min(max(cell, 0), GRID - 1) for cell in (row1, column1, row2, column2)]
    return kept[0] * GRID + kept[1], max(kept[2], kept[0]) * GRID + max(kept[3], kept[1])
