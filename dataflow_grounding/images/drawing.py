"""Drawing labelled boxes on a picture (`draw_marks`): outlines around things, labels next to them.

An outline is a ring outside its box, with a thin edge of contrasting colour, the halo, on either
side, so that it shows on any background. Each label is put at the one of twelve spots around its
box where it hides least. The colours can be told apart by the colour-blind. All lengths are pixels
of the picture, and grow with its size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dataflow_grounding.boxes.geometry import area, intersection
from dataflow_grounding.images._lettering import font_of, shortened, writable
from dataflow_grounding.images.files import on_white

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

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
# Of pages, which tell more classes apart. After the others are those of Tol's "muted" (2021),
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
_LABEL_HEIGHT = 1.36  # of a label without its halos, in heights of its letters
_SHORT_LABEL = 5  # width of a label's short version, in heights of its letters
# A label that hides less than this, as `_harm` counts, is not tried shorter.
_LITTLE_HARM = 0.2
# Of two spots that hide the same, the preferred one is taken: each further one has this much harm.
_RANK_HARM = 0.003


@dataclass(frozen=True)
class Mark:
    """A box to draw, in pixels of the picture."""

    bbox: tuple[float, float, float, float]
    label: str = ""
    color: Color | None = None  # None: that of its position among the marks
    dashed: bool = False  # found without checking what is in it (evidence "region")
    outlined: bool = True


class _Sizes:
    """Lengths in pixels that depend on a picture's size, and on how many labels it has to hold."""

    def __init__(self, width: int, height: int, label_count: int) -> None:
        self.width = width
        self.height = height
        # The longer side, but of a strip no more than 2.5 times the shorter one.
        extent = min(max(width, height), 2.5 * min(width, height))
        # Lengths grow slower than the picture: small ones are seen pixel by pixel, large ones
        # fitted to a screen.
        self.line = max(1, round(0.8 + extent * 0.0019))
        self.halo = max(1, round(self.line / 3))  # the contrasting edge on either side of a line
        self.ring = self.line + 2 * self.halo  # an outline with its halos
        font = _font_size(extent, width * height, label_count)
        self.font = round(font)
        self.padding = round(0.4 * self.font) + self.halo
        # All labels are to cover no more than a third of the picture. The share of each, divided by
        # the height of a label, `_LABEL_HEIGHT * font`, is how wide it may be.
        self.fair_width = width * height / (3 * _LABEL_HEIGHT * font * max(1, label_count))


def _font_size(extent: float, picture_area: int, label_count: int) -> float:
    font = max(10, 7.5 + extent * 0.0125)
    # Letters are smaller where there are many labels: all together, labels of three letters should
    # cover at most 15% of the picture. Each is about 3.5 font sizes wide and one high.
    share_covered = label_count * 3.5 * font**2 / picture_area
    if share_covered > 0.15:
        font *= math.sqrt(0.15 / share_covered)  # the root: half the size covers a quarter
    return max(9, font)


def palette_color(index: int) -> Color:
    """Return a colour of the palette by its index; beyond the last it begins again."""
    return PALETTE[index % len(PALETTE)]


def text_color(color: Color) -> Color:
    """Return near-black or white, whichever has the higher contrast on `color` by WCAG 2.2."""
    red, green, blue = (_linear(value / 255) for value in color)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # At this luminance, black and white have the same contrast.
    return (17, 17, 17) if luminance > 0.19163 else (255, 255, 255)


def _linear(value: float) -> float:
    if value <= 0.04045:
        return value / 12.92
    return float(((value + 0.055) / 1.055) ** 2.4)


def draw_marks(image: "Image", marks: Sequence[Mark]) -> "Image":
    """Return a new RGB picture with the marks drawn on it, outlines outside their boxes.

    A label that has no room is shortened. If even that has none, or no font can write it, the
    mark's number, from 1, is drawn. Raises ValueError for a bbox that is not finite or ordered.
    """
    from PIL.ImageDraw import Draw  # late: scripts that name operators don't all draw

    canvas = on_white(image.copy())
    labelled = [mark for mark in marks if mark.label.strip()]
    sizes = _Sizes(*canvas.size, label_count=len(labelled))
    drawn: list[_DrawnMark] = []
    for index, mark in enumerate(marks):
        box = _box_inside(index + 1, mark, sizes)
        if box is not None:
            drawn.append(_DrawnMark(index + 1, mark, box, mark.color or palette_color(index)))
    # Large boxes are drawn first, so that a small one inside stays in sight.
    largest_first = sorted(drawn, key=lambda mark: -area(mark.box))
    draw = Draw(canvas)
    for drawn_mark in largest_first:
        if drawn_mark.given.outlined:
            ring = _ring(drawn_mark.box, sizes)
            is_dashed = drawn_mark.given.dashed
            pieces = _dashes(ring, sizes) if is_dashed else _sides(ring, sizes.ring)
            _fill(draw, list(pieces), drawn_mark.color, sizes.halo)
    spots_taken: list[Box] = []
    for drawn_mark in reversed(largest_first):  # small boxes have the fewest spots to choose from
        other_boxes = [other.box for other in drawn if other is not drawn_mark]
        spot = _draw_label(draw, drawn_mark, other_boxes, spots_taken, sizes)
        if spot is not None:
            spots_taken.append(spot)
    return canvas


class _DrawnMark(NamedTuple):
    """A mark, its number from 1 among all that were given, and its box inside the picture."""

    number: int
    given: Mark
    box: Box
    color: Color


def _draw_label(
    draw: "ImageDraw",
    mark: _DrawnMark,
    other_boxes: Sequence[Box],
    spots_taken: Sequence[Box],
    sizes: _Sizes,
) -> Box | None:
    """Draw a mark's label, if it has one and the picture room; return the spot that it takes."""
    if not mark.given.label.strip():
        return None
    label = _place_label(mark, other_boxes, spots_taken, sizes)
    if label is None:
        return None
    _fill(draw, [label.spot], mark.color, sizes.halo)
    _draw_text(draw, label, text_color(mark.color), sizes.padding)
    return label.spot


def _draw_text(draw: "ImageDraw", label: "_PlacedLabel", color: Color, padding: int) -> None:
    """Draw a label's text so that a capital letter is halfway up, in all labels alike."""
    x1, y1, _, y2 = label.spot
    cap_height = -label.font.getbbox("H", anchor="ls")[1]
    baseline = round((y1 + y2 + cap_height) / 2)
    position = (x1 + padding, baseline)
    draw.text(position, label.text, fill=color, font=label.font, anchor="ls")


def _box_inside(number: int, mark: Mark, sizes: _Sizes) -> Box | None:
    """Return the part of a box inside the picture; None for a box wholly outside."""
    x1, y1, x2, y2 = mark.bbox
    is_finite = all(map(math.isfinite, mark.bbox))
    is_ordered = x1 <= x2 and y1 <= y2
    if not (is_finite and is_ordered):
        raise ValueError(
            f"mark {number}: bbox {list(mark.bbox)} is not [x1, y1, x2, y2] with x1 <= x2 and y1"
            " <= y2"
        )
    if x2 < 0 or y2 < 0 or x1 >= sizes.width or y1 >= sizes.height:
        return None
    # At least a pixel is left: a box that ends at the picture's left edge has the first column.
    left = min(max(0, round(x1)), sizes.width - 1)
    top = min(max(0, round(y1)), sizes.height - 1)
    right = min(max(left + 1, round(x2)), sizes.width)
    bottom = min(max(top + 1, round(y2)), sizes.height)
    return left, top, right, bottom


def _ring(box: Box, sizes: _Sizes) -> Box:
    x1, x2 = _ring_span(box[0], box[2], sizes.ring, sizes.width)
    y1, y2 = _ring_span(box[1], box[3], sizes.ring, sizes.height)
    return x1, y1, x2, y2


def _ring_span(low: int, high: int, ring: int, side: int) -> tuple[int, int]:
    """Return from where to where the outline of a box goes along one side of the picture.

    The box lies from `low` to `high` there. If the picture has room, the outline is at least two
    ring widths and a pixel long: a tiny box in a corner still has an outline with a hole.
    """
    least_length = 2 * ring + 1
    begin = max(0, low - ring)
    end = min(side, max(high + ring, begin + least_length))
    # At the far edge, where the end can't move, the beginning moves back instead.
    begin = max(0, min(begin, end - least_length))
    return begin, end


def _fill(draw: "ImageDraw", pieces: Sequence[Box], color: Color, halo: int) -> None:
    """Draw all pieces in the halo's colour, then all of them, smaller, in their own.

    So pieces that touch, as the sides of a box, have one halo around them together. A piece that is
    too thin for a halo on both edges has only the halo's colour.
    """
    color_of_halo = text_color(color)  # near-black or white
    for inset, ink in ((0, color_of_halo), (halo, color)):
        for x1, y1, x2, y2 in pieces:
            if min(x2 - x1, y2 - y1) > 2 * inset:
                # Pillow draws a rectangle's last column and row, too.
                inner = (x1 + inset, y1 + inset, x2 - inset - 1, y2 - inset - 1)
                draw.rectangle(inner, fill=ink)


def _sides(ring: Box, thick: int) -> Iterator[Box]:
    """Yield the sides, which share the corners and are no thicker than the ring."""
    x1, y1, x2, y2 = ring
    yield x1, y1, x2, min(y2, y1 + thick)
    yield x1, max(y1, y2 - thick), x2, y2
    yield x1, y1, min(x2, x1 + thick), y2
    yield max(x1, x2 - thick), y1, x2, y2


def _dashes(ring: Box, sizes: _Sizes) -> Iterator[Box]:
    """Yield the dashes of all sides. A side that is too short for two dashes is drawn whole."""
    dash_length = 5 * sizes.line + 2 * sizes.halo
    gap = 3 * sizes.line  # about: dashes are spread evenly from end to end of a side
    for x1, y1, x2, y2 in _sides(ring, sizes.ring):
        is_horizontal = x2 - x1 >= y2 - y1
        length = max(x2 - x1, y2 - y1)
        count = round((length + gap) / (dash_length + gap))  # no gap follows the last
        if count < 2:
            yield x1, y1, x2, y2
            continue
        for index in range(count):
            # The first begins where the side does, the last ends where it does.
            start = round(index * (length - dash_length) / (count - 1))
            if is_horizontal:
                yield x1 + start, y1, x1 + start + dash_length, y2
            else:
                yield x1, y1 + start, x2, y1 + start + dash_length


class _PlacedLabel(NamedTuple):
    text: str
    font: "FreeTypeFont"
    spot: Box


def _place_label(
    mark: _DrawnMark, other_boxes: Sequence[Box], spots_taken: Sequence[Box], sizes: _Sizes
) -> _PlacedLabel | None:
    """Return the first version of the label with a spot that hides little, else the best one."""
    font, versions = _versions(mark, sizes)
    placings: list[tuple[float, str, Box]] = []  # the best of each version, after its harm
    for version in versions:
        width = round(font.getlength(version)) + 2 * sizes.padding
        spots = list(_spots(mark.box, width, sizes))
        if not spots:
            continue
        harm, spot = _least_harmful(spots, mark.box, other_boxes, spots_taken)
        placings.append((harm, version, spot))
        if harm < _LITTLE_HARM:
            break
    if not placings:
        return None
    _, text, spot = min(placings)
    return _PlacedLabel(text, font, spot)


def _versions(mark: _DrawnMark, sizes: _Sizes) -> tuple["FreeTypeFont", list[str]]:
    """Return a label's font, and its text, a short version, and the mark's number, each once."""
    number = str(mark.number)
    text, font_name = writable(mark.given.label, number)
    font = font_of(font_name, sizes.font)
    assert font is not None  # it has all letters of the text
    room = _label_room(mark.box, sizes)
    short_room = min(room, _SHORT_LABEL * sizes.font)
    texts = (shortened(text, font, room), shortened(text, font, short_room), number)
    return font, list(dict.fromkeys(texts))


def _least_harmful(
    spots: Sequence[Box], own_box: Box, other_boxes: Sequence[Box], spots_taken: Sequence[Box]
) -> tuple[float, Box]:
    """Return the harm of the best spot, and the spot. `spots` begin with the preferred one."""
    # boxes that no spot lies on don't change any spot's harm
    near = [box for box in other_boxes if any(_overlap(spot, box) for spot in spots)]
    candidates = []
    for rank, spot in enumerate(spots):
        harm = _harm(spot, own_box, near, spots_taken) + _RANK_HARM * rank
        candidates.append((harm, spot))
    return min(candidates)


def _label_room(box: Box, sizes: _Sizes) -> int:
    """Return how wide a label may be: as its box, or wider at a small one, but fair to others."""
    whole_picture = sizes.width - 2 * sizes.padding
    next_to_box = max(box[2] - box[0], round(0.4 * sizes.width), 12 * sizes.font)
    in_crowd = max(4 * sizes.font, round(sizes.fair_width))
    return min(whole_picture, next_to_box, in_crowd)


def _spots(box: Box, width: int, sizes: _Sizes) -> Iterator[Box]:
    """Yield the spots in the picture for a label of this width, the preferred first."""
    height = round(_LABEL_HEIGHT * sizes.font) + 2 * sizes.halo
    if width > sizes.width or height > sizes.height:
        return
    x1, y1, x2, y2 = _ring(box, sizes)
    # A label lies on the halo of its box's outline, so that the two edges are one line. It may be
    # pushed along the side of its box to be in the picture. It is left out where it would have to
    # be pushed onto the box.
    for top in (y1 - height + sizes.halo, y2 - sizes.halo):  # above or below
        for left in (x1, x2 - width):
            spot = _pushed_inside(left, top, width, height, sizes)
            if spot[1] == top:
                yield spot
    for left in (x2 - sizes.halo, x1 - width + sizes.halo):  # right or left
        for top in (y1, y2 - height):
            spot = _pushed_inside(left, top, width, height, sizes)
            if spot[0] == left:
                yield spot
    inset = sizes.ring - sizes.halo
    for top in (y1 + inset, y2 - inset - height):  # in the corners
        for left in (x1 + inset, x2 - inset - width):
            yield _pushed_inside(left, top, width, height, sizes)


def _pushed_inside(left: int, top: int, width: int, height: int, sizes: _Sizes) -> Box:
    x = min(max(0, left), sizes.width - width)
    y = min(max(0, top), sizes.height - height)
    return x, y, x + width, y + height


def _harm(spot: Box, own_box: Box, other_boxes: Sequence[Box], spots_taken: Sequence[Box]) -> float:
    """Return how much a label hides: parts of other labels and boxes, and of its own box."""
    on_labels = sum(_overlap(spot, taken) for taken in spots_taken) / area(spot)
    others_hidden = sum(_overlap(spot, box) / area(box) for box in other_boxes)
    own_hidden = _overlap(spot, own_box) / area(own_box)
    return 4 * on_labels + others_hidden + 0.3 * own_hidden


def _overlap(box_a: Box, box_b: Box) -> float:
    return area(intersection(box_a, box_b))
