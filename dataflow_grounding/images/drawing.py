"""Draw labelled boxes on a picture: outlines around what they mark, labels beside.

The colours can be told apart by the colour-blind.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from dataflow_grounding.boxes.geometry import area, intersection
from dataflow_grounding.images._lettering import font_of, shortened, writable
from dataflow_grounding.images.files import on_white

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]  # whole pixels, [x1, x2) by [y1, y2)

# Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, without black,
# of which photos are full; ordered so that neighbours differ in lightness as well as in hue.
# blue, orange, bluish green, reddish purple, sky blue, vermillion, yellow
# Behind them are those of Tol's "muted" (2021), https://sronpersonalpages.nl/~pault/, that are
# like none of these: wine, olive, indigo, sand, green, purple, teal
PALETTE: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (136, 34, 85),
    (153, 153, 51),
    (51, 34, 136),
    (221, 204, 119),
    (17, 119, 51),
    (170, 68, 153),
    (68, 170, 153),
)


@dataclass(frozen=True)
class Mark:
    """A box to draw: `bbox` is `(x1, y1, x2, y2)` in pixels of the picture.

    Where `color` is None, it follows from the mark's position among the others.
    """

    bbox: tuple[float, float, float, float]
    label: str = ""
    color: Color | None = None
    dashed: bool = False  # for what was found without checking what it is (evidence "region")
    outlined: bool = True


class _Sizes:
    """Lengths in pixels that go with a picture's size.

    And with how many labels are to have room in it.
    """

    def __init__(self, width: int, height: int, labels: int) -> None:
        self.width = width
        self.height = height
        # Grows slower than the picture: small ones are seen pixel by pixel, large ones fitted to a
        # screen.
        extent = min(max(width, height), 2.5 * min(width, height))
        self.line = max(1, round(0.8 + extent * 0.0019))
        self.halo = max(1, round(self.line / 3))
        self.ring = self.line + 2 * self.halo
        """An outline's width, with a halo on either side."""
        font = max(10, 7.5 + extent * 0.0125)
        # share that labels of three letters would cover
        crowd = labels * 3.5 * font**2 / (width * height)
        font = max(9, font * min(1, math.sqrt(0.15 / max(crowd, 0.001))))
        self.font = round(font)
        self.padding = round(0.4 * self.font) + self.halo
        self.share = width * height / (3 * 1.36 * font * max(1, labels))
        """The width of a label if all are to cover no more than a third of the picture."""


def palette_color(index: int) -> Color:
    """The palette's colour for the `index`-th thing, from 0; after the last it begins again."""
    return PALETTE[index % len(PALETTE)]


def text_color(color: Color) -> Color:
    """Near-black or white, whichever has the higher contrast on `color`.

    Contrast and luminance are those of WCAG 2.2.
    """
    red, green, blue = (_linear(value / 255) for value in color)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # there both have the same contrast
    return (17, 17, 17) if luminance > 0.19163 else (255, 255, 255)


def _linear(value: float) -> float:
    """A channel of sRGB, 0 to 1, as an amount of light (WCAG 2.2, relative luminance)."""
    if value <= 0.04045:
        return value / 12.92
    return float(((value + 0.055) / 1.055) ** 2.4)


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A new RGB picture of the same size with the marks drawn on it; `image` itself stays as it is.

    Outlines lie outside their boxes, except where the picture ends, so that nothing marked is
    covered. Labels lie beside their boxes where there is room, clear of other labels, and never
    leave the picture. A label without room is shortened, down to the mark's number, from 1, which
    also replaces a label that no font on the system can write. What lies outside the picture is cut
    off; a mark wholly outside is not drawn.

    Raises ValueError for a bbox with a number that is not finite or with its corners in the wrong
    order.
    """
    canvas = on_white(image.copy())
    sizes = _Sizes(*canvas.size, labels=sum(bool(mark.label.strip()) for mark in marks))
    pixels = [_pixels(number, mark, sizes) for number, mark in enumerate(marks, start=1)]
    colors = [mark.color or palette_color(i) for i, mark in enumerate(marks)]
    draw = ImageDraw.Draw(canvas)
    # Large ones first, so that a small one inside stays in sight.
    shown = sorted((i for i, box in enumerate(pixels) if area(box)), key=lambda i: -area(pixels[i]))
    for i in shown:
        if marks[i].outlined:
            ring = _ring(pixels[i], sizes)
            pieces = list(_dashes(ring, sizes) if marks[i].dashed else _sides(ring, sizes.ring))
            _fill(draw, pieces, colors[i], sizes.halo)
    placed: list[Box] = []
    for i in reversed(shown):  # the small ones have the fewest places to choose from
        if not marks[i].label.strip():
            continue
        text, font, spot = _place_label(i, marks[i].label, pixels, placed, sizes)
        if spot is not None:
            placed.append(spot)
            _fill(draw, [spot], colors[i], sizes.halo)
            # On the line on which capitals stand in the middle, so that all labels of a picture sit
            # alike.
            cap_height = -font.getbbox("H", anchor="ls")[1]
            baseline = round((spot[1] + spot[3] + cap_height) / 2)
            draw.text(
                (spot[0] + sizes.padding, baseline),
                text,
                fill=text_color(colors[i]),
                font=font,
                anchor="ls",
            )
    return canvas


def _pixels(number: int, mark: Mark, sizes: _Sizes) -> Box:
    """The mark's box in whole pixels inside the picture; empty (all 0) if it lies outside."""
    x1, y1, x2, y2 = mark.bbox
    if not all(map(math.isfinite, mark.bbox)) or x2 < x1 or y2 < y1:
        raise ValueError(
            f"mark {number}: bbox {list(mark.bbox)} is not [x1, y1, x2, y2] with x1 <= x2 and y1"
            " <= y2"
        )
    if x2 < 0 or y2 < 0 or x1 >= sizes.width or y1 >= sizes.height:
        return (0, 0, 0, 0)
    left = min(max(0, round(x1)), sizes.width - 1)
    top = min(max(0, round(y1)), sizes.height - 1)
    right = min(max(left + 1, round(x2)), sizes.width)
    bottom = min(max(top + 1, round(y2)), sizes.height)
    return left, top, right, bottom


def _ring(box: Box, sizes: _Sizes) -> Box:
    """The outer edge of the outline of `box`.

    It is a ring's width outside, or as far as the picture goes.
    """

    def span(low: int, high: int, limit: int) -> tuple[int, int]:
        least = 2 * sizes.ring + 1  # a tiny box in a corner still gets a ring with a hole
        low = max(0, low - sizes.ring)
        high = min(limit, max(high + sizes.ring, low + least))
        return max(0, min(low, high - least)), high

    x1, x2 = span(box[0], box[2], sizes.width)
    y1, y2 = span(box[1], box[3], sizes.height)
    return x1, y1, x2, y2


def _fill(draw: ImageDraw.ImageDraw, pieces: Sequence[Box], color: Color, halo: int) -> None:
    """Pieces of `color` with a thin contrasting edge, so that they show on any background."""
    for edge, ink in ((0, text_color(color)), (halo, color)):
        for x1, y1, x2, y2 in pieces:
            if min(x2 - x1, y2 - y1) > 2 * edge:
                draw.rectangle((x1 + edge, y1 + edge, x2 - edge - 1, y2 - edge - 1), fill=ink)


def _sides(ring: Box, thick: int) -> Iterator[Box]:
    """The upper, lower, left and right side of an outline."""
    x1, y1, x2, y2 = ring
    yield x1, y1, x2, min(y2, y1 + thick)
    yield x1, max(y1, y2 - thick), x2, y2
    yield x1, y1, min(x2, x1 + thick), y2
    yield max(x1, x2 - thick), y1, x2, y2


def _dashes(ring: Box, sizes: _Sizes) -> Iterator[Box]:
    """The sides of an outline in dashes, one at each corner; a side too short for two is whole."""
    dash = 5 * sizes.line + 2 * sizes.halo
    gap = 3 * sizes.line
    for x1, y1, x2, y2 in _sides(ring, sizes.ring):
        length = max(x2 - x1, y2 - y1)
        count = round((length + gap) / (dash + gap))
        if count < 2:
            yield x1, y1, x2, y2
            continue
        for k in range(count):
            start = round(k * (length - dash) / (count - 1))
            if x2 - x1 >= y2 - y1:
                yield x1 + start, y1, x1 + start + dash, y2
            else:
                yield x1, y1 + start, x2, y1 + start + dash


def _place_label(
    i: int, label: str, pixels: Sequence[Box], placed: Sequence[Box], sizes: _Sizes
) -> tuple[str, ImageFont.FreeTypeFont, Box | None]:
    """The text to write for mark `i`, its font, and where.

    That is the best spot of the longest text that finds a good one.
    """
    text, name = writable(label, str(i + 1))
    font = font_of(name, sizes.font)
    assert font is not None  # it has all letters of the text
    box = pixels[i]
    room = sizes.width - 2 * sizes.padding
    room = min(room, max(box[2] - box[0], round(0.4 * sizes.width), 12 * sizes.font))
    room = min(room, max(4 * sizes.font, round(sizes.share)))
    best: tuple[float, str, Box] | None = None
    versions = (
        shortened(text, font, room),
        shortened(text, font, min(room, 5 * sizes.font)),
        str(i + 1),
    )
    for shown in dict.fromkeys(versions):
        spots = list(_spots(box, round(font.getlength(shown)) + 2 * sizes.padding, sizes))
        others = [pixels[j] for j in range(len(pixels)) if j != i]
        near = [mark for mark in others if any(_overlap(spot, mark) for spot in spots)]
        for rank, spot in enumerate(spots):
            # of two that hide as much, the one that is preferred
            harm = _harm(spot, box, near, placed) + 0.003 * rank
            candidate = (harm, shown, spot)
            if best is None or candidate < best:
                best = candidate
        if best is not None and best[0] < 0.2:
            break
    if best is None:
        return text, font, None
    return best[1], font, best[2]


def _spots(box: Box, width: int, sizes: _Sizes) -> Iterator[Box]:
    """Spots in the picture for a label of that width, the preferred first.

    These are above, below, beside, and within the box.
    """
    x1, y1, x2, y2 = _ring(box, sizes)
    height = round(1.36 * sizes.font) + 2 * sizes.halo
    if width > sizes.width or height > sizes.height:
        return
    joint = sizes.halo  # the label's edge and the outline's are one line
    columns = (x1, x2 - width)
    rows = (y1, y2 - height)
    outside = [(x, y) for y in (y1 - height + joint, y2 - joint) for x in columns]
    beside = [(x, y) for x in (x2 - joint, x1 - width + joint) for y in rows]
    step = sizes.ring - joint
    within = [
        (x, y) for y in (y1 + step, y2 - step - height) for x in (x1 + step, x2 - step - width)
    ]
    for corners in (outside, beside, within):
        for x, y in corners:
            fit_x = min(max(0, x), sizes.width - width)
            fit_y = min(max(0, y), sizes.height - height)
            # Pushed along its box a label still belongs to it; pushed across, it would lie on what
            # it names.
            if corners is outside and fit_y != y:
                continue
            if corners is beside and fit_x != x:
                continue
            yield fit_x, fit_y, fit_x + width, fit_y + height


def _harm(spot: Box, own: Box, others: Sequence[Box], labels: Sequence[Box]) -> float:
    """What a label there would hide, as a number to compare.

    Other labels count the most, then marked boxes, its own the least.
    """
    covered = sum(_overlap(spot, label) for label in labels) / area(spot)
    hidden = sum(_overlap(spot, box) / area(box) for box in others)
    return 4 * covered + hidden + 0.3 * _overlap(spot, own) / area(own)


def _overlap(box_a: Box, box_b: Box) -> float:
    return area(intersection(box_a, box_b))
