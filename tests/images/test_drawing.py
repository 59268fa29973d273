"""Drawn boxes: visible, out of the way of what they mark, labelled inside the picture, whatever the
input.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from dataflow_grounding.images.drawing import PALETTE, Mark, draw_marks

GREY = (128, 128, 128)
RED = (250, 0, 10)
GREEN = (0, 250, 10)


def canvas(width: int = 300, height: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def changed(one: Image.Image, other: Image.Image) -> tuple[int, int, int, int] | None:
    """The smallest box around all pixels that differ."""
    return ImageChops.difference(one, other).getbbox()


def where(image: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The smallest box around all pixels of exactly that colour."""
    flat = Image.new("RGB", image.size, color)
    differences = ImageChops.difference(image, flat).split()
    bands = [band.point(lambda v: 0 if v else 255) for band in differences]
    return ImageChops.darker(ImageChops.darker(bands[0], bands[1]), bands[2]).getbbox()


def label_area(
    marks: list[Mark], image: Image.Image, color: tuple[int, int, int]
) -> tuple[int, int, int, int] | None:
    """Where labels of `color` stand: what is of that colour only when the labels are drawn."""
    bare = draw_marks(image, [Mark(m.bbox, "", m.color, m.dashed) for m in marks])
    drawn = draw_marks(image, marks)
    mask = ImageChops.difference(drawn, bare).convert("L").point(lambda v: 255 if v else 0)
    return where(Image.composite(drawn, canvas(*image.size), mask), color)


def test_the_picture_given_stays_as_it_is() -> None:
    image = canvas()
    drawn = draw_marks(image, [Mark((20, 30, 120, 90), "mug")])
    assert drawn.mode == "RGB"
    assert drawn.size == image.size
    assert changed(image, canvas()) is None
    assert changed(drawn, canvas()) is not None


KINDS = {
    "grey": ("L", 90, (90, 90, 90)),
    "black and white": ("1", 1, (255, 255, 255)),
    "transparent is white, not the colour beneath": ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    "opaque with alpha": ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
    "for print": ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
    "16 bit grey keeps its shades": ("I;16", 25700, (100, 100, 100)),
}


@pytest.mark.parametrize(("mode", "color", "expected"), KINDS.values(), ids=KINDS)
def test_any_kind_of_picture_becomes_rgb(
    mode: str, color: object, expected: tuple[int, int, int]
) -> None:
    drawn = draw_marks(Image.new(mode, (60, 40), color), [Mark((20, 10, 30, 20))])
    assert drawn.mode == "RGB"
    assert drawn.getpixel((58, 38)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("dashed", [False, True])
@given(
    corner=st.tuples(st.integers(12, 150), st.integers(12, 100)),
    size=st.tuples(st.integers(1, 130), st.integers(1, 80)),
)
@settings(max_examples=40, deadline=None)
def test_an_outline_covers_nothing_of_what_it_marks(
    dashed: bool, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    bbox = (*corner, corner[0] + size[0], corner[1] + size[1])
    drawn = draw_marks(canvas(), [Mark(bbox, color=RED, dashed=dashed)])
    assert changed(drawn.crop(bbox), canvas(*size)) is None
    left, top, right, bottom = where(drawn, RED) or (0, 0, 0, 0)
    assert bbox[0] - 4 <= left < bbox[0] < bbox[2] < right <= bbox[2] + 4
    assert bbox[1] - 4 <= top < bbox[1] < bbox[3] < bottom <= bbox[3] + 4


@pytest.mark.parametrize("x", [0, 299], ids=["left", "right"])
@pytest.mark.parametrize("y", [0, 199], ids=["top", "bottom"])
def test_a_box_of_one_pixel_in_a_corner_is_seen(x: int, y: int) -> None:
    drawn = draw_marks(canvas(), [Mark((x, y, x + 1, y + 1), color=RED)])
    left, top, right, bottom = where(drawn, RED) or (0, 0, 0, 0)
    assert right - left >= 3
    assert bottom - top >= 3


def test_a_box_as_large_as_the_picture_has_all_four_sides() -> None:
    assert where(draw_marks(canvas(), [Mark((0, 0, 300, 200), color=RED)]), RED) == (1, 1, 299, 199)


def test_dashes_leave_gaps_and_meet_in_the_corners() -> None:
    drawn, whole = (
        draw_marks(canvas(), [Mark((50, 50, 250, 150), color=RED, dashed=dashed)])
        for dashed in (True, False)
    )
    row = {drawn.getpixel((x, 48)) for x in range(50, 250)}
    assert {RED, GREY} <= row
    assert where(drawn, RED) == where(whole, RED)


def test_dashes_are_alike_on_all_sides() -> None:
    drawn = draw_marks(canvas(200, 200), [Mark((50, 50, 150, 150), color=RED, dashed=True)])
    assert changed(drawn, drawn.transpose(Image.Transpose.TRANSPOSE)) is None


def test_labels_that_want_the_same_place_stand_apart() -> None:
    marks = [Mark((60, 80, 120, 140), "the thing", color) for color in (RED, GREEN)]
    one, other = (label_area(marks, canvas(), color) for color in (RED, GREEN))
    assert one is not None
    assert other is not None
    # none covers the other
    assert (one[2] - one[0], one[3] - one[1]) == (other[2] - other[0], other[3] - other[1])
    assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.slow
def test_labels_are_shortened_before_they_bury_the_boxes() -> None:
    boxes = [(x, y, x + 20, y + 14) for x in range(15, 280, 40) for y in range(15, 180, 30)]
    bare, drawn = (
        draw_marks(canvas(), [Mark(b, label) for b in boxes])
        for label in ("", "a long label for this")
    )
    middles = [(x + 10, y + 7) for x, y, _, _ in boxes]
    buried = [middle for middle in middles if drawn.getpixel(middle) != bare.getpixel(middle)]
    assert len(buried) <= len(boxes) // 20


BOXES = {
    "in the middle": (100, 80, 200, 140),
    "in the upper left corner": (0, 0, 60, 60),
    "in the lower right corner": (240, 140, 300, 200),
    "along the top": (0, 0, 300, 60),
    "along the left side": (0, 0, 120, 200),
}


@pytest.mark.parametrize("bbox", BOXES.values(), ids=BOXES)
def test_a_label_stands_outside_of_its_box_where_there_is_room(
    bbox: tuple[int, int, int, int],
) -> None:
    without, drawn = (draw_marks(canvas(), [Mark(bbox, label, RED)]) for label in ("", "mug"))
    inside = tuple(v + d for v, d in zip(bbox, (4, 4, -4, -4), strict=True))
    assert changed(drawn, without) is not None
    assert changed(drawn.crop(inside), without.crop(inside)) is None


WOMAN = "a long-haired woman in an orange space suit in front of a flag"


@pytest.mark.parametrize(
    ("size", "label"),
    [((200, 150), WOMAN), ((60, 400), "a tall and narrow picture"), ((400, 40), "word " * 500)],
    ids=["small picture", "narrow picture", "flat picture and an endless label"],
)
def test_a_long_label_is_cut_and_stays_in_the_picture(size: tuple[int, int], label: str) -> None:
    image = canvas(*size)
    area = label_area([Mark((20, 20, 40, 30), label, RED)], image, RED)
    assert area
    # The label's own edge, drawn in another colour, lies around it: seen on both sides only if
    # nothing is cut off.
    assert area[0] >= 1
    assert area[2] <= size[0] - 1


@pytest.mark.slow
@pytest.mark.parametrize("width", [200, 640, 2000])
def test_labels_grow_with_the_picture(width: int) -> None:
    image = canvas(width, width * 2 // 5)
    bbox = (width * 0.4, width * 0.2, width * 0.5, width * 0.3)
    _, top, _, bottom = label_area([Mark(bbox, "mug", RED)], image, RED) or (0, 0, 0, 0)
    # At least 10 pixels on a small picture, and 12 of them when a large one is fitted to a screen
    # of 1,000 pixels.
    assert bottom - top >= (10 if width < 1000 else 12 * width / 1000)
    assert bottom - top <= width / 12


LABELS = {
    "line breaks become spaces": ("a mug\non\r\n\ta  table", "a mug on a table"),
    "invisible characters are left out": ("a\u202emug\u200b\x07", "amug"),
    "what no font can write becomes the mark's number": ("\ue000\ue001", "1"),
    "emoji are left out": ("mug \U0001faf7\U0001f9ff", "mug"),
    "nothing to say, no label": (" \n ", ""),
    "half a surrogate pair": ("\ud800", "1"),
}


@pytest.mark.parametrize(("label", "same_as"), LABELS.values(), ids=LABELS)
def test_labels_are_made_writable(label: str, same_as: str) -> None:
    drawn, expected = (
        draw_marks(canvas(), [Mark((40, 60, 200, 140), text)]) for text in (label, same_as)
    )
    assert changed(drawn, expected) is None


@pytest.mark.parametrize("x2", [5, float("nan"), float("inf")], ids=["swapped", "NaN", "infinite"])
def test_a_bbox_that_is_none_is_refused_by_number(x2: float) -> None:
    with pytest.raises(ValueError, match=rf"mark 2: bbox \[10, 10, {x2}, 20\]"):
        draw_marks(canvas(), [Mark((0, 0, 10, 10)), Mark((10, 10, x2, 20))])


@pytest.mark.parametrize("bbox", [(-90, -90, -10, -10), (300, 20, 340, 40), (20, 200, 40, 900)])
def test_what_lies_outside_of_the_picture_is_not_drawn(bbox: tuple[int, int, int, int]) -> None:
    assert changed(draw_marks(canvas(), [Mark(bbox, "out there")]), canvas()) is None


numbers = st.floats(-50, 350, allow_nan=False)
some_marks = st.builds(
    lambda x, y, label, dashed: Mark((min(x), min(y), max(x), max(y)), label, dashed=dashed),
    st.tuples(numbers, numbers),
    st.tuples(numbers, numbers),
    st.text(max_size=30),
    st.booleans(),
)


@pytest.mark.slow
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.lists(some_marks, max_size=8))
@settings(max_examples=20, deadline=None)
def test_any_marks_on_any_picture_are_drawn(size: tuple[int, int], marks: list[Mark]) -> None:
    assert draw_marks(canvas(*size), marks).size == size


def test_the_colours_of_pictures_that_are_sent_stay() -> None:
    """Another one changes the keys of stored replies, and has users pay for them again."""
    colours = "0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442"
    assert [f"{r:02x}{g:02x}{b:02x}" for r, g, b in PALETTE] == colours.split()
