"""Drawing labelled boxes on a picture (`draw_marks`): outlines around things, labels beside them.

An outline is a ring outside its box, with a thin edge of contrasting colour, the halo, on either
side, so that it shows on any background. Each label is put at the one of twelve spots around its
box where it hides least. The colours can be told apart by the colour-blind. All lengths are pixels
of the picture, and grow with its size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from dataflow_grounding.boxes.geometry import area, intersection
from dataflow_grounding.images._lettering import font_of, shortened, writable
from dataflow_grounding.images.files import on_white

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]  # whole pixels, [x1, x2) by [y1, y2)

# Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, without black,
# of which photos are full; ordered so that neighbours differ in lightness as well as in hue.
# blue, orange, bluish green, reddish purple, sky blue, vermillion, yellow
# Boxes are drawn with these into pictures that are sent, too: a change would change the keys of
# stored replies, and have users pay for them again.
PALETTE: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
# Of pages, which tell more classes apart. Behind the others are those of Tol's "muted" (2021),
# https://sronpersonalpages.nl/~pault/, that are like none of them: wine, olive, indigo, sand,
# green, purple, teal.
PAGE_PALETTE: tuple[Color, ...] = (
    *PALETTE,
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
    """A box to draw.

    Attributes:
        bbox: x1, y1, x2, y2 in pixels of the picture.
        label: The text beside it; "" for none.
        color: The colour of outline and label; None for that of the mark's position among the
            others.
        dashed: Whether the outline is dashed, as for a box that was found without checking what is
            in it (evidence "region").
        outlined: Whether there is an outline at all.
    """

    bbox: tuple[float, float, float, float]
    label: str = ""
    color: Color | None = None
    dashed: bool = False
    outlined: bool = True


class _Sizes:
    """Lengths in pixels that depend on a picture's size, and on how many labels it has to hold.

    Attributes:
        width: The picture's width.
        height: The picture's height.
        line: The width of a line.
        halo: The width of the contrasting edge on either side of a line.
        ring: The width of an outline: a line with its halos.
        font: The height of letters.
        padding: The space between a label's text and its edge.
        share: How wide a label may be, if all labels are to cover no more than a third of the
            picture.
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
        font = max(10, 7.5 + extent * 0.0125)
        # Letters are smaller in a crowd: labels of three letters should cover no more than 15%.
        crowd = labels * 3.5 * font**2 / (width * height)  # the share that they would cover
        font = max(9, font * min(1, math.sqrt(0.15 / max(crowd, 0.001))))
        self.font = round(font)
        self.padding = round(0.4 * self.font) + self.halo
        self.share = width * height / (3 * 1.36 * font * max(1, labels))  # 1.36 fonts high


def palette_color(index: int) -> Color:
    """Return the palette's colour for a thing, by its number from 0; it begins again at the end."""
    return PALETTE[index % len(PALETTE)]


def text_color(color: Color) -> Color:
    """Return near-black or white, whichever has the higher contrast on `color`.

    Contrast and luminance are those of WCAG 2.2.
    """
    red, green, blue = (_linear(value / 255) for value in color)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # At this luminance, black and white have the same contrast.
    return (17, 17, 17) if luminance > 0.19163 else (255, 255, 255)


def _linear(value: float) -> float:
    """Return an sRGB channel, 0 to 1, as an amount of light, 0 to 1 (WCAG, relative luminance)."""
    if value <= 0.04045:
        return value / 12.92
    return float(((value + 0.055) / 1.055) ** 2.4)


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """Return a new RGB picture of the same size with the marks drawn on it; `image` stays as it is.

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
    boxes = [_pixels(number, mark, sizes) for number, mark in enumerate(marks, start=1)]
    colors = [mark.color or palette_color(index) for index, mark in enumerate(marks)]
    draw = ImageDraw.Draw(canvas)
    # Large boxes are drawn first, so that a small one inside stays in sight.
    inside = [index for index, box in enumerate(boxes) if area(box)]
    largest_first = sorted(inside, key=lambda index: -area(boxes[index]))
    for index in largest_first:
        if marks[index].outlined:
            ring = _ring(boxes[index], sizes)
            is_dashed = marks[index].dashed
            pieces = list(_dashes(ring, sizes) if is_dashed else _sides(ring, sizes.ring))
            _fill(draw, pieces, colors[index], sizes.halo)
    placed: list[Box] = []
    for index in reversed(largest_first):  # small boxes have the fewest spots to choose from
        if not marks[index].label.strip():
            continue
        label = _place_label(index, marks[index].label, boxes, placed, sizes)
        spot = label.spot
        if spot is not None:
            placed.append(spot)
            _fill(draw, [spot], colors[index], sizes.halo)
            # Capitals stand in the middle of the label's height, whatever its letters are, so that
            # all labels of a picture look alike.
            cap_height = -label.font.getbbox("H", anchor="ls")[1]
            baseline = round((spot[1] + spot[3] + cap_height) / 2)
            draw.text(
                (spot[0] + sizes.padding, baseline),
                label.text,
                fill=text_color(colors[index]),
                font=label.font,
                anchor="ls",
            )
    return canvas


def _pixels(number: int, mark: Mark, sizes: _Sizes) -> Box:
    """Return a mark's box in whole pixels inside the picture; empty (all 0) if it lies outside.

    Raises ValueError, with the mark's number, for a box that can't be drawn.
    """
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
    """Return the outer edge of a box's outline.

    It is a ring's width outside of the box, or as far as the picture goes.
    """
    x1, x2 = _ring_span(box[0], box[2], sizes.ring, sizes.width)
    y1, y2 = _ring_span(box[1], box[3], sizes.ring, sizes.height)
    return x1, y1, x2, y2


def _ring_span(low: int, high: int, ring: int, side: int) -> tuple[int, int]:
    """Return where an outline begins and ends along one axis, from a box's two edges.

    It stays from 0 to `side`, and is at least two rings and a pixel long, so that a tiny box in a
    corner still has an outline with a hole.
    """
    least = 2 * ring + 1
    begin = max(0, low - ring)
    end = min(side, max(high + ring, begin + least))
    # At the far edge, where the end can't move, the beginning moves back instead.
    begin = max(0, min(begin, end - least))
    return begin, end


def _fill(draw: ImageDraw.ImageDraw, pieces: Sequence[Box], color: Color, halo: int) -> None:
    """Draw rectangles of a colour with a contrasting edge, the halo, to show on any background.

    All pieces are drawn whole in the halo's colour first, then smaller in their own.
    """
    for inset, ink in ((0, text_color(color)), (halo, color)):
        for x1, y1, x2, y2 in pieces:
            if min(x2 - x1, y2 - y1) > 2 * inset:
                # Pillow draws a rectangle's last column and row, too.
                inner = (x1 + inset, y1 + inset, x2 - inset - 1, y2 - inset - 1)
                draw.rectangle(inner, fill=ink)


def _sides(ring: Box, thick: int) -> Iterator[Box]:
    """Yield the upper, lower, left and right side of an outline that is so many pixels thick."""
    x1, y1, x2, y2 = ring
    yield x1, y1, x2, min(y2, y1 + thick)
    yield x1, max(y1, y2 - thick), x2, y2
    yield x1, y1, min(x2, x1 + thick), y2
    yield max(x1, x2 - thick), y1, x2, y2


def _dashes(ring: Box, sizes: _Sizes) -> Iterator[Box]:
    """Yield the dashes of an outline; there is one at each end of a side.

    A side that is too short for two is whole.
    """
    dash = 5 * sizes.line + 2 * sizes.halo
    gap = 3 * sizes.line
    for x1, y1, x2, y2 in _sides(ring, sizes.ring):
        length = max(x2 - x1, y2 - y1)
        count = round((length + gap) / (dash + gap))
        if count < 2:
            yield x1, y1, x2, y2
            continue
        for number in range(count):
            # Spread evenly: the first begins where the side does, the last ends where it does.
            start = round(number * (length - dash) / (count - 1))
            if x2 - x1 >= y2 - y1:
                yield x1 + start, y1, x1 + start + dash, y2
            else:
                yield x1, y1 + start, x2, y1 + start + dash


class _PlacedLabel(NamedTuple):
    """A label as it is written: text and font, and where; None where there is no room for it."""

    text: str
    font: ImageFont.FreeTypeFont
    spot: Box | None


def _place_label(
    index: int, label: str, boxes: Sequence[Box], placed: Sequence[Box], sizes: _Sizes
) -> _PlacedLabel:
    """Choose a text for a mark's label, and the spot for it.

    The label is tried as long as there is room, then short, then as the mark's number alone. The
    first of these with a good spot, which hides little, ends the search; else the best spot of all
    is taken.

    Args:
        index: The mark's index among `boxes`.
        label: The label as it was given.
        boxes: The boxes of all marks.
        placed: The labels that have their spots already.
        sizes: The lengths that go with the picture.
    """
    number = str(index + 1)
    text, name = writable(label, number)
    font = font_of(name, sizes.font)
    assert font is not None  # it has all letters of the text
    box = boxes[index]
    room = sizes.width - 2 * sizes.padding
    room = min(room, max(box[2] - box[0], round(0.4 * sizes.width), 12 * sizes.font))
    room = min(room, max(4 * sizes.font, round(sizes.share)))
    best: tuple[float, str, Box] | None = None  # what it hides, the text, and the spot
    versions = (
        shortened(text, font, room),
        shortened(text, font, min(room, 5 * sizes.font)),
        number,
    )
    for version in dict.fromkeys(versions):
        spots = list(_spots(box, round(font.getlength(version)) + 2 * sizes.padding, sizes))
        others = [boxes[other] for other in range(len(boxes)) if other != index]
        near = [mark for mark in others if any(_overlap(spot, mark) for spot in spots)]
        for rank, spot in enumerate(spots):
            # The rank decides between spots that hide as much.
            harm = _harm(spot, box, near, placed) + 0.003 * rank
            candidate = (harm, version, spot)
            if best is None or candidate < best:
                best = candidate
        if best is not None and best[0] < 0.2:
            break
    if best is None:
        return _PlacedLabel(text, font, None)
    return _PlacedLabel(best[1], font, best[2])


def _spots(box: Box, width: int, sizes: _Sizes) -> Iterator[Box]:
    """Yield the spots in the picture for a label of this width, the preferred first.

    They are four each above and below, beside, and within the box, at its corners.
    """
    x1, y1, x2, y2 = _ring(box, sizes)
    height = round(1.36 * sizes.font) + 2 * sizes.halo
    if width > sizes.width or height > sizes.height:
        return
    overlap = sizes.halo  # a label lies on the outline's halo, so that both edges are one line
    # The spots' top left corners. Above and below, labels are flush with the left or right side.
    lefts = (x1, x2 - width)
    tops = (y1, y2 - height)
    above_or_below = [(x, y) for y in (y1 - height + overlap, y2 - overlap) for x in lefts]
    beside = [(x, y) for x in (x2 - overlap, x1 - width + overlap) for y in tops]
    inset = sizes.ring - overlap
    inner_lefts = (x1 + inset, x2 - inset - width)
    inner_tops = (y1 + inset, y2 - inset - height)
    within = [(x, y) for y in inner_tops for x in inner_lefts]
    for corners in (above_or_below, beside, within):
        for x, y in corners:
            fit_x = min(max(0, x), sizes.width - width)
            fit_y = min(max(0, y), sizes.height - height)
            # A label that had to be pushed along its box still belongs to it. Pushed across, it
            # would lie on what it names.
            if corners is above_or_below and fit_y != y:
                continue
            if corners is beside and fit_x != x:
                continue
            yield fit_x, fit_y, fit_x + width, fit_y + height


def _harm(spot: Box, own: Box, others: Sequence[Box], labels: Sequence[Box]) -> float:
    """Return how much a label at a spot would hide, as a number to compare.

    Other labels count the most, then other marks' boxes, its own box the least.

    Args:
        spot: Where the label would be.
        own: The box of its mark.
        others: The boxes of other marks.
        labels: The labels that have their spots already.
    """
    covered = sum(_overlap(spot, label) for label in labels) / area(spot)
    hidden = sum(_overlap(spot, box) / area(box) for box in others)
    return 4 * covered + hidden + 0.3 * _overlap(spot, own) / area(own)


def _overlap(box_a: Box, box_b: Box) -> float:
    """Return how many square pixels two boxes share."""
    return area(intersection(box_a, box_b))
