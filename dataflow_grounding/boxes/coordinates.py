"""Box formats: what a box's numbers mean to a model, and how they become pixels and back.

There are three pictures. The original is the user's image; results are in its pixels. The picture
as sent was resized or padded by this package. The frame is the picture that the model's numbers
refer to: a server may resize or pad the picture again before the model sees it. A `BoxFormat` names
the order of a box's four numbers, their scale and their frame.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import Bbox, Size, size_text

Order: TypeAlias = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
Scale: TypeAlias = int | Literal["px", "grid_32"]

SCALES: tuple[Scale, ...] = ("px", 1, 100, 1000, 999, 1024)
"""The scales that models are known to use, and that are tried where it isn't known. Any whole
number can be stated.
"""

# How a prompt states each order.
_ORDER_WORDS: dict[Order, str] = {
    "xyxy": "[x1, y1, x2, y2], the top left corner and the bottom right corner, x before y",
    "yxyx": "[y1, x1, y2, x2], the top left corner and the bottom right corner, y before x",
    "xywh": "[x, y, width, height], the top left corner, then the size",
    "cxcywh": "[x, y, width, height], the middle of the box, then the size",
}
ORDERS = tuple(_ORDER_WORDS)
GRID = 32  # rows, and columns, of the scale `grid_32`
# Of a side, and 1 px more: what a side may be off in a picture of the same shape.
_SHAPE_SLACK = 0.02

# The names of frames, as `frame_of` explains them: pad_square, round_28, smart_resize_28,
# smart_resize_28_3136_12845056, long_edge_1568_patch_28_1568, seen_672_672.
_FRAME = re.compile(
    r"sent|pad_square|pad_square_corner|round_(?P<nearest>\d+)"
    r"|smart_resize_(?P<factor>\d+)(?:_(?P<min>\d+)_(?P<max>[1-9]\d*))?"
    r"|long_edge_(?P<edge>[1-9]\d*)(?:_patch_(?P<patch>[1-9]\d*)_(?P<patches>[1-9]\d*))?"
    r"|seen_(?P<width>[1-9]\d{0,5})_(?P<height>[1-9]\d{0,5})"
)


class Canvas(NamedTuple):
    """The picture that a model's numbers refer to, in its own pixels."""

    width: float
    height: float
    left: float  # where the picture as sent begins in it
    top: float
    image_width: float  # of the picture as sent, there, without padding
    image_height: float


@dataclass(frozen=True)
class FrameMap:
    """Which numbers a model writes for the edges of pictures of one exact size, as measured."""

    size: Size  # of such a picture as sent, in pixels
    first: tuple[float, float]  # the numbers of its left and its top edge
    last: tuple[float, float]  # the numbers of its right and its bottom edge
    error: float  # standard error of a number of `last`, as a share of the side

    @property
    def canvas(self) -> Canvas:
        # The canvas is measured in the model's numbers. It begins at 0, and ends where the picture
        # does: with edges at 10 and 1000, it is 1000 wide, and the picture 990.
        left, top = self.first
        right, bottom = self.last
        return Canvas(right, bottom, left, top, right - left, bottom - top)


def frame_of(frame: str, sent: Size) -> Canvas:
    """Return the picture that a model's numbers refer to, where one of size `sent` was sent.

    `sent` is (width, height). The frames are:

    - `sent`: the picture as sent.
    - `round_F`: sides rounded to multiples of F px.
    - `smart_resize_F` or `smart_resize_F_MIN_MAX`: sides rounded, and the area kept between MIN and
      MAX square pixels (Qwen2.5-VL; the formula is in qwen-vl-utils' vision_process.py).
    - `long_edge_N`: reduced, never enlarged, until the longer side is N px at most; with
      `_patch_P_M` also until it takes M patches of P px at most.
    - `pad_square`: padded to a square with the image in the middle; `pad_square_corner`: with the
      image in the top left corner.
    - `seen_W_H`: W x H px, for any size that was sent.

    Raises SpecError for any other name.
    """
    match = _FRAME.fullmatch(frame)
    if match is None:
        raise SpecError(
            f"unknown box frame {frame!r}; known: sent, round_28, smart_resize_28,"
            " smart_resize_28_3136_12845056, long_edge_2048, long_edge_1568_patch_28_1568,"
            " pad_square, pad_square_corner, seen_672_672"
        )
    width, height = _resized(match, sent)
    side = max(sent)
    if frame == "pad_square":
        return Canvas(side, side, (side - width) / 2, (side - height) / 2, width, height)
    if frame == "pad_square_corner":
        return Canvas(side, side, 0, 0, width, height)
    return Canvas(width, height, 0, 0, width, height)


def _resized(match: re.Match[str], sent: Size) -> Size:
    """The size to which a server resizes the picture, before any padding."""
    if match["nearest"]:  # round_F
        return _smart_resize(sent, max(1, int(match["nearest"])), 0, math.inf)
    if match["factor"]:  # smart_resize_F_MIN_MAX, whose areas are those of Qwen2.5-VL by default
        factor = max(1, int(match["factor"]))
        least_area = int(match["min"] or 4 * factor**2)
        most_area = int(match["max"] or 16384 * factor**2)
        return _smart_resize(sent, factor, least_area, most_area)
    if match["width"]:  # seen_W_H
        return int(match["width"]), int(match["height"])
    if match["edge"]:  # long_edge_N_patch_P_M
        patch = int(match["patch"] or 0)
        return _long_edge(sent, int(match["edge"]), patch, int(match["patches"] or 0))
    return sent


def _smart_resize(sent: Size, factor: int, least_area: int, most_area: float) -> Size:
    """Round sides to multiples of `factor`, and keep the area, in square pixels, in its limits."""
    width = max(factor, round(sent[0] / factor) * factor)
    height = max(factor, round(sent[1] / factor) * factor)
    if width * height > most_area:  # shrink it to the limit, and round sides down
        shrink = math.sqrt(math.prod(sent) / most_area)
        width = max(factor, math.floor(sent[0] / shrink / factor) * factor)
        height = max(factor, math.floor(sent[1] / shrink / factor) * factor)
    elif width * height < least_area:  # enlarge it to the limit, and round sides up
        grow = math.sqrt(least_area / math.prod(sent))
        width = math.ceil(sent[0] * grow / factor) * factor
        height = math.ceil(sent[1] * grow / factor) * factor
    return width, height


def _long_edge(sent: Size, edge: int, patch: int, patches: int) -> Size:
    """Reduce the longer side to `edge` px, then to no more than `patches` unless `patch` is 0."""
    longest = max(1, min(edge, max(sent)))
    if patch and _count_patches(_reduced(sent, longest), patch) > patches:
        longest = _longest_within(patches, sent, longest, patch)
    return _reduced(sent, longest)


def _reduced(size: Size, longer_side: int) -> Size:
    width, height = size
    scaled_width = max(1, round(width * longer_side / max(size)))
    return scaled_width, max(1, round(height * longer_side / max(size)))


def _count_patches(size: Size, patch: int) -> int:
    width, height = size
    return math.ceil(width / patch) * math.ceil(height / patch)


def _longest_within(patches: int, sent: Size, too_long: int, patch: int) -> int:
    """Find by bisection the longest side below `too_long` with no more than `patches`."""
    longest = 1  # which is always taken to be short enough
    while too_long - longest > 1:
        middle = (longest + too_long) // 2
        if _count_patches(_reduced(sent, middle), patch) > patches:
            too_long = middle
        else:
            longest = middle
    return longest


def to_xyxy(numbers: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    """Turn four numbers in an order into two corners. Raises ValueError unless there are four."""
    a, b, c, d = numbers
    if order == "yxyx":
        return b, a, d, c
    if order == "xywh":
        return a, b, a + c, b + d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


def from_xyxy(corners: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    """Turn two corners into four numbers in an order. Raises ValueError unless there are four."""
    x1, y1, x2, y2 = corners
    if order == "yxyx":
        return y1, x1, y2, x2
    if order == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if order == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    return x1, y1, x2, y2


def cells_to_fractions(cells: Sequence[float]) -> tuple[float, float, float, float]:
    """Turn two of 32 x 32 cells into corners in parts of the sides, as Kosmos-2 does."""
    first, last = cells
    row1, column1 = divmod(int(first), GRID)
    row2, column2 = divmod(int(last), GRID)
    # A box reaches from the middle of one cell to that of the other. From middle to middle within
    # one row or column it would have no area: there it covers both cells whole.
    is_in_one_line = row1 == row2 or column1 == column2
    inset = 0.0 if is_in_one_line else 0.5  # of a cell
    return (
        (column1 + inset) / GRID,
        (row1 + inset) / GRID,
        (column2 + 1 - inset) / GRID,
        (row2 + 1 - inset) / GRID,
    )


def pixels_to_cells(bbox: Bbox, original: Size) -> tuple[int, int]:
    """Return the cells of 32 x 32 that hold a box's corners, numbered from 0 row by row."""
    hair = 1e-9  # of a cell: a corner on an edge stays there when it is rounded down or up
    x1, y1, x2, y2 = bbox
    width, height = original
    # On the edge of two cells, a first corner is in the cell that begins there, a second corner in
    # the one that ends there.
    column1 = _cell(math.floor(x1 / width * GRID + hair))
    row1 = _cell(math.floor(y1 / height * GRID + hair))
    column2 = _cell(math.ceil(x2 / width * GRID - hair) - 1)
    row2 = _cell(math.ceil(y2 / height * GRID - hair) - 1)
    # A box without an area that lies on an edge would end in the cell before its first one.
    row2 = max(row1, row2)
    column2 = max(column1, column2)
    return row1 * GRID + column1, row2 * GRID + column2


def _cell(number: int) -> int:
    return min(max(number, 0), GRID - 1)


@dataclass(frozen=True)
class BoxFormat:
    """How a model writes boxes: a row of box_formats.yaml, or one that `calibrate` has made."""

    name: str  # as in `vlm.box_format`
    key: str  # of a box in JSON; what a model without boxes answers with
    order: Order
    scale: Scale  # the number of the whole side; its pixels; two cells of a 32 x 32 grid
    frame: str = "sent"  # as `frame_of` explains it; only pixels and padded frames need one
    offset: float = 0.0  # added to a number before it is divided by `scale`
    bins: bool = False  # whether the highest number is `scale - 1`
    words: str = ""  # what else a prompt says to such a model
    verified: bool = True  # False for a convention that nobody has confirmed for the model
    boxes: bool = True  # False for models that draw no boxes
    models: tuple[str, ...] = ()  # how the names of its models begin
    source: str = ""  # where the convention is stated or shown
    date: str = ""  # when that was read
    # What `calibrate` measured, one for each size as sent; they go before `frame`.
    maps: tuple[FrameMap, ...] = ()

    def canvas(self, sent: Size) -> Canvas:
        """Return the picture that numbers refer to. Raises SpecError if maps are of other sizes."""
        return _canvas(self.frame, self.maps, sent)

    def instructions(self, sent: Size) -> str:
        """Return the sentences of a prompt that state key, order, scale and frame."""
        if self.scale == "grid_32":
            form = (
                "the two numbers of the cells that hold its top left and its bottom right corner,"
                " in a grid of 32 x 32 cells laid over the picture and numbered from 0 row by row"
            )
            axes = ""  # the numbering of the cells says it
        else:
            form = f"{_ORDER_WORDS[self.order]}, {self._scale_words(sent)}"
            axes = "x grows to the right and y downwards from the top left corner of the picture."
        # `under the key "…" ` has to stay as it is: tasks/ways_to_ask.py replaces these words where
        # a way of asking has another key, or none.
        sentences = [f'Write a box under the key "{self.key}" as {form}.', axes, self.words]
        return " ".join(filter(None, sentences))

    def _scale_words(self, sent: Size) -> str:
        if self.scale == "px":
            # not by the maps: what a model was seen to write doesn't change what it is asked for
            canvas = frame_of(self.frame, sent)
            return (
                f"in whole pixels of the picture, which is {canvas.width:.0f} px wide and"
                f" {canvas.height:.0f} px high"
            )
        if self.scale == 1:
            numbers = "fractions"
        elif self.scale == 100:
            numbers = "per cent"
        elif self._decimals:
            numbers = "numbers"
        else:
            numbers = "whole numbers"
        top, _ = self.limits(sent)  # a scale has one limit for both sides
        shares = "x in parts of the picture's width, y in parts of its height, whatever its shape"
        return f"in {numbers} from 0 to {top:g}: {shares}"

    @property
    def _decimals(self) -> int:
        """4 for scales below 10, 3 below 100, 2 for 100; none for any other."""
        if not isinstance(self.scale, int) or self.scale > 100:
            return 0
        return 5 - len(str(self.scale))

    def limits(self, sent: Size) -> tuple[float, float]:
        """Return the highest number across and down, for a picture of size `sent`."""
        if self.scale == "px":
            canvas = self.canvas(sent)
            return canvas.width, canvas.height
        if self.scale == "grid_32":
            top = GRID * GRID - 1
        else:
            top = self.scale - 1 if self.bins else self.scale
        return top, top

    def to_pixels(
        self, numbers: Sequence[float], *, original: Size, sent: Size | None = None
    ) -> Bbox:
        """Turn numbers into pixels of the upright original, neither sorted nor cut at its edges.

        `sent` is None for a picture sent in the original's size. Raises ValueError for another
        count of numbers, SpecError where maps don't fit the sizes.
        """
        # Maps were measured with padding counted as a part of the picture, so `original` has to
        # include it. A caller that has left it out is told by the shape: it isn't that of `sent`.
        if self.maps and not _has_shape_of(original, sent or original):
            raise SpecError(
                f"a picture of {size_text(original)} px doesn't fill the"
                " size sent: the size of the picture with its padding is wanted"
            )
        if self.scale == "grid_32":  # the grid covers the whole picture, in whichever size
            x1, y1, x2, y2 = cells_to_fractions(numbers)
            return x1 * original[0], y1 * original[1], x2 * original[0], y2 * original[1]
        across, down = _axes(self.canvas(sent or original), original)
        x1, y1, x2, y2 = to_xyxy(numbers, self.order)
        return (
            self._to_pixels_on(across, x1),
            self._to_pixels_on(down, y1),
            self._to_pixels_on(across, x2),
            self._to_pixels_on(down, y2),
        )

    def from_pixels(
        self, bbox: Bbox, *, original: Size, sent: Size | None = None, rounded: bool = True
    ) -> list[float | int]:
        """Return a box's numbers; rounded ones are inside the range, and its sides above 0."""
        if self.scale == "grid_32":
            return list(pixels_to_cells(bbox, original))
        across, down = _axes(self.canvas(sent or original), original)
        x1, y1, x2, y2 = bbox
        left = self._from_pixels_on(across, x1)
        top = self._from_pixels_on(down, y1)
        right = self._from_pixels_on(across, x2)
        bottom = self._from_pixels_on(down, y2)
        if not rounded:
            return list(from_xyxy((left, top, right, bottom), self.order))
        decimals = self._decimals
        most_x, most_y = self.limits(sent or original)
        left, right = _rounded_span(left, right, most_x, decimals)
        top, bottom = _rounded_span(top, bottom, most_y, decimals)
        numbers = from_xyxy((left, top, right, bottom), self.order)
        if decimals == 0:
            return [int(round(number, 0)) for number in numbers]
        return [round(number, decimals) for number in numbers]

    def _to_pixels_on(self, axis: "_Axis", number: float) -> float:
        """Turn a number into a pixel of the original, along one axis."""
        if not isinstance(self.scale, int):  # "px": the number is a pixel of the frame
            return (number + self.offset - axis.start) * axis.original / axis.image_side
        if axis.image_side == axis.side:
            # Without padding, parts of the frame are parts of the original. Going by the frame's
            # pixels would come to the same, but for the last digit.
            return (number + self.offset) * axis.original / self.scale
        on_frame = (number + self.offset) * axis.side / self.scale
        return (on_frame - axis.start) * axis.original / axis.image_side

    def _from_pixels_on(self, axis: "_Axis", pixels: float) -> float:
        on_frame = pixels * axis.image_side / axis.original + axis.start
        if isinstance(self.scale, int):
            return on_frame * self.scale / axis.side - self.offset
        return on_frame - self.offset


def _has_shape_of(original: Size, sent: Size) -> bool:
    """Whether both sizes have one shape, but for rounding."""
    # One side that is as long as expected is enough: 1000x52 sent as 100x5 should be 1040x52 or
    # 1000x50, and its height is near 50.
    width, height = original
    expected_width = height * sent[0] / sent[1]
    expected_height = width * sent[1] / sent[0]
    fits_across = abs(width - expected_width) <= 1 + _SHAPE_SLACK * expected_width
    fits_down = abs(height - expected_height) <= 1 + _SHAPE_SLACK * expected_height
    return fits_across or fits_down


def _rounded_span(low: float, high: float, most: float, decimals: int) -> tuple[float, float]:
    """Put both numbers into the range from 0 to `most`, and at least one last unit apart."""
    unit = 10.0**-decimals
    low = round(min(max(low, 0.0), most), decimals)
    high = round(min(max(high, 0.0), most), decimals)
    if high <= low:  # the box has no width or height, perhaps only by rounding
        low = min(low, most - unit)  # so that `high` isn't beyond `most`
        high = low + unit
    return low, high


class _Axis(NamedTuple):
    """How x, or y, of a frame and of the original image belong together."""

    # in pixels of the frame
    side: float  # of the frame
    start: float  # where the image begins
    image_side: float
    # in pixels of the image
    original: int  # its side


@lru_cache(maxsize=256)  # all boxes of a reply lie in one picture, and many pictures have one size
def _axes(canvas: Canvas, original: Size) -> tuple[_Axis, _Axis]:
    return (
        _Axis(canvas.width, canvas.left, canvas.image_width, original[0]),
        _Axis(canvas.height, canvas.top, canvas.image_height, original[1]),
    )


@lru_cache(maxsize=256)  # for the same reason
def _canvas(frame: str, maps: tuple[FrameMap, ...], sent: Size) -> Canvas:
    if not maps:
        return frame_of(frame, sent)
    for measured in maps:
        if measured.size == sent:
            return measured.canvas
    width, height = sent
    sizes = ", ".join(size_text(measured.size) for measured in maps)
    raise SpecError(
        f"how boxes are written was measured in pictures of {sizes} px, not of {width:g}x{height:g}"
    )
