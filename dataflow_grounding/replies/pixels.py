"""What a box's numbers are in pixels: the order of its corners, its range, the picture's edges."""

from collections.abc import Sequence
from dataclasses import replace

from dataflow_grounding._util.errors import OTHER_SCALE, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, to_xyxy
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp, ordered
from dataflow_grounding.replies.json_boxes import NoBox
from dataflow_grounding.replies.reading import RawBox, Reading, in_brackets, note, note_once

# How far outside its range a number may lie, as a share of the range, for its box to be moved
# inside rather than dropped. Published replies reach a tenth beyond (roboflow/inference's tests).
TOLERANCE = 1 / 8
_ROUNDING = 1e-6  # of the image's longer side: a side moved by no more wasn't outside
_LARGE_RANGE = 10  # a range that ends beyond is not one of parts of 1
_TINY_SHARE = 1 / 100  # the first hundredth of an axis, in which no box lies whole
_SHARED_TOKENS = frozenset(["florence-2", "doctags"])  # families that write <loc_12>
_CELLS = 32 * 32  # of the grid of the scale "grid_32"
_THOUSANDTHS = (999, 1000)  # scales, at whose end models write a row of nines


class NothingThere(Exception):
    """A box that says that nothing is there."""


class Pixels:
    """Turns a reply's boxes into pixels, and notes in its reading what it changes."""

    def __init__(self, box_format: BoxFormat, original: Size, sent: Size, reading: Reading) -> None:
        self.format = box_format
        self.original = original
        self.sent = sent
        self.reading = reading
        self.out_of_scale: list[tuple[float, ...]] = []  # numbers of boxes dropped for their scale

    def to_pixels(self, raw: RawBox) -> Bbox:
        """Return the box in pixels of the original, inside it."""
        box_format = self.format_of(raw)
        numbers = self.usable_numbers(raw, box_format)
        as_written = box_format.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(as_written)
        if upright != as_written:
            note(
                self.reading,
                "swapped",
                f"{in_brackets(raw.numbers)}: the corners were the wrong way round",
            )
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise NoBox(f"{in_brackets(raw.numbers)} has no area in the image")
        if inside != upright:
            moves = [abs(before - after) for before, after in zip(upright, inside, strict=True)]
            if max(moves) > _ROUNDING * max(self.original):
                note(
                    self.reading, "clamped", f"{in_brackets(raw.numbers)} reached outside the image"
                )
        return inside

    def format_of(self, raw: RawBox) -> BoxFormat:
        """Return the format that was asked for, unless a box's tokens or names tell of another."""
        asked = self.format
        if raw.family is None and raw.order is None and not raw.corners:
            return asked
        if raw.family is not None and raw.family != asked.name:
            of_family = known_formats()[raw.family]
            if _reads_tokens_as_asked(asked, of_family):
                return asked
            note_once(
                self.reading, "native_tokens", f"read as {raw.family}, whose tokens these are"
            )
            return of_family
        order = raw.order or asked.order
        if raw.corners and order in ("xywh", "cxcywh"):
            order = "xyxy"  # [[10, 20], [30, 40]] has two corners, where a size was asked for
        return asked if order == asked.order else replace(asked, order=order)

    def usable_numbers(self, raw: RawBox, box_format: BoxFormat) -> tuple[float, ...]:
        """Return a box's numbers, with rows of nines mended."""
        numbers = raw.numbers
        if box_format.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < _CELLS:
                raise NoBox(f"grid cells {in_brackets(numbers)}")
            return numbers
        # [0, 0, 0, 0] in a family's tokens is a box without an area.
        if set(numbers) in ({0}, {-1}) and raw.family is None:
            raise NothingThere(f"{in_brackets(numbers)}, which says that nothing is there")
        if box_format.scale in _THOUSANDTHS and box_format.order in ("xyxy", "yxyx"):
            numbers = _with_far_edges(numbers)
            if numbers != raw.numbers:
                shown = in_brackets(raw.numbers)
                note(self.reading, "clamped", f"{shown}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(numbers, box_format.order), box_format.limits(self.sent)):
            self.out_of_scale.append(numbers)
            shown = in_brackets(raw.numbers)
            raise NoBox(f"{shown} does not fit the box format {self.format.name}")
        return numbers

    def other_scale(self) -> UnreadableReply:
        numbers = [number for box in self.out_of_scale for number in box]
        x, y = self.format.limits(self.sent)
        scale = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        return UnreadableReply(
            f"the coordinates go from {min(numbers):g} to {max(numbers):g},"
            f" where {scale} was asked for",
            OTHER_SCALE,
        )


def _reads_tokens_as_asked(asked: BoxFormat, of_family: BoxFormat) -> bool:
    """Whether `<loc_12>` is in the format that was asked for, not in the family's own."""
    # Several families write `<loc_12>`, each in its own scale, so the format that was asked for
    # tells more, unless it is the same but for the family's bins. `<loc0012>` is always one of
    # 1,024 bins. No location token counts pixels, or cells of a grid.
    if of_family.name not in _SHARED_TOKENS or not isinstance(asked.scale, int):
        return False
    if asked.name in known_formats():
        return asked.name in _SHARED_TOKENS
    return (asked.scale, asked.order) != (of_family.scale, of_family.order)


def _with_far_edges(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if max(numbers[2:]) <= 1000:
        return numbers
    # DeepSeek-VL2 writes 9999 or 99999 for the far edge at 999 (deepseek-ai/DeepSeek-VL2 issue
    # 123). No other family is known to write numbers that far out.
    repaired = list(numbers)
    for i in range(2, len(repaired)):
        if repaired[i] > 1000 and set(f"{repaired[i]:.0f}") == {"9"}:
            repaired[i] = 999.0
    return tuple(repaired)


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    """Whether corners can't be in ranges from 0 to `limits`."""
    x1, y1, x2, y2 = corners
    width, height = limits
    # The short way, for nearly every box: it lies inside, and is too large for rules 2 and 3.
    are_large = x2 > max(1, _TINY_SHARE * width) and y2 > max(1, _TINY_SHARE * height)
    if are_large and 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height:
        return False
    for limit, first, second in ((width, x1, x2), (height, y1, y2)):
        least, most = min(first, second), max(first, second)
        # 1. Too far outside: 1200 of 1000, or NaN, which no comparison holds for.
        is_within = -TOLERANCE * limit <= least and most <= (1 + TOLERANCE) * limit
        if not is_within:
            return True
        # 2. Decimals in the first hundredth: no box is so small. Some models write 1.100 for 1100.
        has_decimals = least % 1 or most % 1
        if least >= 0 and most <= _TINY_SHARE * limit and has_decimals:
            return True
    # 3. All from 0 to 1 in a long range: they are parts of 1, as in [0.1, 0.2, 0.5, 0.9], and in
    # [0, 0, 1, 1] for the whole picture.
    return min(corners) >= 0 and max(corners) <= 1 and min(limits) > _LARGE_RANGE
