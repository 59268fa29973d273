"""Box formats: what a box's numbers mean to a model, translated exactly to pixels of the original
image and back.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import Bbox, Size

Order: TypeAlias = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
Scale: TypeAlias = int | Literal["px", "grid_32"]

SCALES: tuple[Scale, ...] = ("px", 1, 100, 1000, 999, 1024)
"""The scales that models are known to use, and that are tried where it isn't known; any whole
number can be stated.
"""

_ORDER_WORDS: dict[Order, str] = {
    "xyxy": "[x1, y1, x2, y2], the top left corner and the bottom right corner, x before y",
    "yxyx": "[y1, x1, y2, x2], the top left corner and the bottom right corner, y before x",
    "xywh": "[x, y, width, height], the top left corner, then the size",
    "cxcywh": "[x, y, width, height], the middle of the box, then the size",
}
ORDERS = tuple(_ORDER_WORDS)
GRID = 32

_FRAME = re.compile(
    r"sent|pad_square|pad_square_corner|round_(?P<nearest>\d+)"
    r"|smart_resize_(?P<factor>\d+)(?:_(?P<min>\d+)_(?P<max>\d+))?"
    r"|long_edge_(?P<edge>\d+)(?:_patch_(?P<patch>\d+)_(?P<patches>\d+))?"
    r"|seen_(?P<width>[1-9]\d{0,5})_(?P<height>[1-9]\d{0,5})"
)


class Canvas(NamedTuple):
    """The picture that a model's numbers refer to: its size, and where in it the image lies, all in
    its own pixels.
    """

    width: float
    height: float
    left: float
    top: float
    image_width: float
    image_height: float


def frame_of(frame: str, sent: Size) -> Canvas:
    """Return the picture that a model's numbers refer to, for a picture sent in the size `sent`
    (width, height).

    `sent`: the picture as sent. `round_F`: sides rounded to multiples of F px. `smart_resize_F` or
    `smart_resize_F_MIN_MAX`: that, and the area kept between MIN and MAX square pixels (Qwen2.5-VL;
    the formula is in qwen-vl-utils' vision_process.py). `long_edge_N`: reduced, never enlarged,
    until the longer side is N px at most; with `_patch_P_M` also until it takes M patches of P px
    at most. `pad_square`: padded to a square with the image in the middle; `pad_square_corner`:
    with the image in the top left corner. `seen_W_H`: W x H px, whatever size was sent. Raises
    SpecError for any other name.
    """
    match = _FRAME.fullmatch(frame)
    if match is None:
        raise SpecError(
            f"unknown box frame {frame!r}; known: sent, round_28, smart_resize_28,"
            " smart_resize_28_3136_12845056, long_edge_2048, long_edge_1568_patch_28_1568,"
            " pad_square, pad_square_corner, seen_672_672"
        )
    width, height = sent
    if match["nearest"]:
        width, height = _smart_resize(sent, max(1, int(match["nearest"])), 0, math.inf)
    elif match["factor"]:
        factor = max(1, int(match["factor"]))
        low, high = int(match["min"] or 4 * factor**2), int(match["max"] or 16384 * factor**2)
        width, height = _smart_resize(sent, factor, low, high)
    elif match["width"]:
        width, height = int(match["width"]), int(match["height"])
    elif match["edge"]:
        width, height = _long_edge(
            sent, int(match["edge"]), int(match["patch"] or 0), int(match["patches"] or 0)
        )
    elif frame.startswith("pad_square"):
        side = max(sent)
        left, top = ((side - width) / 2, (side - height) / 2) if frame == "pad_square" else (0, 0)
        return Canvas(side, side, left, top, width, height)
    return Canvas(width, height, 0, 0, width, height)


def _smart_resize(sent: Size, factor: int, low: int, high: float) -> Size:
    width, height = (max(factor, round(side / factor) * factor) for side in sent)
    if width * height > high:
        shrink = math.sqrt(math.prod(sent) / high)
        width, height = (max(factor, math.floor(side / shrink / factor) * factor) for side in sent)
    elif width * height < low:
        grow = math.sqrt(low / math.prod(sent))
        width, height = (math.ceil(side * grow / factor) * factor for side in sent)
    return width, height


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
    """Return four numbers written in `order` as x1, y1, x2, y2 in the same units; ValueError unless
    there are four.
    """
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
    """Return the box between two of 32 x 32 cells in parts of the sides, as Kosmos-2 does. Raises
    ValueError.
    """
    first, last = cells
    (row1, column1), (row2, column2) = divmod(int(first), GRID), divmod(int(last), GRID)
    inset = 0.0 if row1 == row2 or column1 == column2 else 0.5
    return (
        (column1 + inset) / GRID,
        (row1 + inset) / GRID,
        (column2 + 1 - inset) / GRID,
        (row2 + 1 - inset) / GRID,
    )


def fractions_to_cells(bbox: Bbox, original: Size) -> tuple[int, int]:
    """Return the cells of a 32 x 32 grid over an image of `original` size that hold the corners of
    a pixel box.
    """
    hair = 1e-9  # keeps a corner that lies on a cell's edge in its own cell
    column1, row1 = (math.floor(bbox[i] / original[i] * GRID + hair) for i in (0, 1))
    column2, row2 = (math.ceil(bbox[i + 2] / original[i] * GRID - hair) - 1 for i in (0, 1))
    kept = [min(max(cell, 0), GRID - 1) for cell in (row1, column1, row2, column2)]
    return kept[0] * GRID + kept[1], max(kept[2], kept[0]) * GRID + max(kept[3], kept[1])


@dataclass(frozen=True)
class BoxFormat:
    """One box convention.

    `key` names a box in JSON. `order` is that of the four numbers. `scale` says what stands for the
    whole side: `px` (the side in pixels), a number, or `grid_32` (two cell numbers of a 32 x 32
    grid instead of four). `offset` is added to a number before it is divided by `scale`; `bins`
    says that the highest number is `scale - 1`. `frame` is the picture that the numbers refer to
    (see `frame_of`); it matters only for `px` and padded frames, as fractions survive a resize.
    `verified` is false for a convention that nobody has confirmed for the model.
    """

    name: str
    key: str
    order: Order
    scale: Scale
    frame: str = "sent"
    offset: float = 0.0
    bins: bool = False
    words: str = ""
    verified: bool = True
    boxes: bool = True
    models: tuple[str, ...] = ()
    source: str = ""
    date: str = ""

    def instructions(self, sent: Size) -> str:
        """Return the sentences of a prompt that state key, order, scale and frame; `sent` is the
        picture as sent.
        """
        if self.scale == "grid_32":
            form = (
                "the two numbers of the cells that hold its top left and its bottom right corner,"
                " in a grid of 32 x 32 cells laid over the picture and numbered from 0 row by row"
            )
            axes = ""
        else:
            form = f"{_ORDER_WORDS[self.order]}, {self._scale_words(sent)}"
            axes = "x grows to the right and y downwards from the top left corner of the picture."
        return " ".join(
            filter(None, (f'Write a box under the key "{self.key}" as {form}.', axes, self.words))
        )

    def _scale_words(self, sent: Size) -> str:
        if self.scale == "px":
            frame = frame_of(self.frame, sent)
            return (
                f"in whole pixels of the picture, which is {frame.width:.0f} px wide and"
                f" {frame.height:.0f} px high"
            )
        top = self.limits(sent)[0]
        usual = "numbers" if self._decimals else "whole numbers"
        numbers = "fractions" if self.scale == 1 else "per cent" if self.scale == 100 else usual
        shares = "x in parts of the picture's width, y in parts of its height, whatever its shape"
        return f"in {numbers} from 0 to {top:g}: {shares}"

    @property
    def _decimals(self) -> int:
        """How many a model writes: 4 for fractions, 2 for per cent, none for more than a hundred
        steps.
        """
        return 5 - len(str(self.scale)) if isinstance(self.scale, int) and self.scale <= 100 else 0

    def limits(self, sent: Size) -> tuple[float, float]:
        """Return the highest number that x and y can take, for a picture sent in the
        size `sent`.
        """
        if self.scale == "px":
            canvas = frame_of(self.frame, sent)
            return canvas.width, canvas.height
        top = GRID * GRID - 1 if self.scale == "grid_32" else self.scale - self.bins
        return top, top

    def to_pixels(
        self, numbers: Sequence[float], *, original: Size, sent: Size | None = None
    ) -> Bbox:
        """Return the box that `numbers` mean, in float xyxy pixels of the upright original, neither
        sorted nor clamped.

        Sizes are (width, height); `sent` defaults to `original`. Raises ValueError without 4
        numbers (2 for a grid).
        """
        if self.scale == "grid_32":
            x1, y1, x2, y2 = cells_to_fractions(numbers)
            return x1 * original[0], y1 * original[1], x2 * original[0], y2 * original[1]
        across, down = self._sides(original, sent)
        x1, y1, x2, y2 = to_xyxy(numbers, self.order)
        x1, x2 = self._to_side(x1, *across), self._to_side(x2, *across)
        return x1, self._to_side(y1, *down), x2, self._to_side(y2, *down)

    def from_pixels(
        self, bbox: Bbox, *, original: Size, sent: Size | None = None, rounded: bool = True
    ) -> list[float | int]:
        """Return the numbers for a box given as xyxy pixels of the original upright image.

        Rounded as a model would write them (whole numbers; with decimals for scales up to 100) and
        kept inside the range, unless `rounded` is false. A grid has whole cells either way.
        """
        if self.scale == "grid_32":
            return list(fractions_to_cells(bbox, original))
        sides = self._sides(original, sent)
        corners = [self._from_side(value, *sides[i % 2]) for i, value in enumerate(bbox)]
        if not rounded:
            return list(from_xyxy(corners, self.order))
        decimals, unit = self._decimals, 10.0**-self._decimals
        limits = self.limits(sent or original)
        kept = [
            round(min(max(value, 0.0), limits[i % 2]), decimals) for i, value in enumerate(corners)
        ]
        for i in (0, 1):
            if kept[i + 2] <= kept[i]:  # rounding has left it without width or height
                kept[i] = min(kept[i], limits[i] - unit)
                kept[i + 2] = kept[i] + unit
        values = [round(value, decimals) for value in from_xyxy(kept, self.order)]
        return list(values) if decimals else [int(value) for value in values]

    def _sides(
        self, original: Size, sent: Size | None
    ) -> tuple[tuple[float, float, float, int], ...]:
        """Of x and y: the frame's side, where the image begins on it, its length there, and its
        original length.
        """
        canvas = frame_of(self.frame, sent or original)
        across = (canvas.width, canvas.left, canvas.image_width, original[0])
        return across, (canvas.height, canvas.top, canvas.image_height, original[1])

    def _to_side(
        self, value: float, side: float, start: float, image_side: float, original: int
    ) -> float:
        if not isinstance(self.scale, int):  # pixels
            return (value + self.offset - start) * original / image_side
        if image_side == side:
            return (value + self.offset) * original / self.scale
        return ((value + self.offset) * side / self.scale - start) * original / image_side

    def _from_side(
        self, pixels: float, side: float, start: float, image_side: float, original: int
    ) -> float:
        inside = pixels * image_side / original + start
        return (inside * self.scale / side if isinstance(self.scale, int) else inside) - self.offset
