from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding.boxes.geometry import (
    Bbox,
    Size,
    clamp,
    iou,
    ordered,
    whole_pixels,
)
from dataflow_grounding.boxes.regions import boxes_reach_out, types_of

numbers = st.floats(-1e5, 1e5)
boxes = st.tuples(numbers, numbers, numbers, numbers)
sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param((0, 0, 10, 10), (0, 0, 10, 10), 1.0, id="equal boxes"),
        pytest.param((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3, id="half of each shared"),
        pytest.param((0, 0, 10, 10), (2, 2, 4, 4), 0.04, id="one inside the other"),
        pytest.param((0, 0, 10, 10), (10, 0, 20, 10), 0.0, id="boxes that share an edge"),
        pytest.param((0, 0, 10, 10), (20, 20, 30, 30), 0.0, id="boxes apart"),
        pytest.param((5, 5, 5, 5), (5, 5, 5, 5), 0.0, id="boxes without an area"),
    ],
)
def test_iou_is_the_shared_part_of_what_both_cover(a: Bbox, b: Bbox, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)
    assert iou(b, a) == pytest.approx(expected)


WHOLE = {
    "rounded, halves up": ((10.4, 20.5, 30.49, 40.51), (100, 100), (10, 21, 30, 41)),
    "moved inside": ((-5, -5, 200, 300), (100, 80), (0, 0, 100, 80)),
    "at least one pixel": ((10.1, 10.1, 10.2, 10.3), (100, 100), (10, 10, 11, 11)),
    "one pixel at the far corner": ((99.9, 99.9, 100, 100), (100, 100), (99, 99, 100, 100)),
    "outside": ((300, 300, 400, 400), (100, 100), (99, 99, 100, 100)),
    "an image of one pixel": ((0, 0, 1, 1), (1, 1), (0, 0, 1, 1)),
}


@pytest.mark.parametrize(("bbox", "size", "expected"), WHOLE.values(), ids=WHOLE)
def test_whole_pixels_are_inside_the_image(
    bbox: Bbox, size: Size, expected: tuple[int, int, int, int]
) -> None:
    assert whole_pixels(bbox, size) == expected


@pytest.mark.parametrize("bbox", [(math.nan, 0, 1, 1), (0, 0, math.inf, 1)])
def test_coordinates_that_are_not_finite_have_no_whole_pixels(bbox: Bbox) -> None:
    with pytest.raises(ValueError, match="no whole pixels"):
        whole_pixels(bbox, (10, 10))


@pytest.mark.slow
@given(boxes, sizes)
def test_every_box_has_whole_pixels_inside_the_image(bbox: Bbox, size: Size) -> None:
    x1, y1, x2, y2 = whole_pixels(bbox, size)

    assert 0 <= x1 < x2 <= size[0]
    assert 0 <= y1 < y2 <= size[1]
    assert whole_pixels((x1, y1, x2, y2), size) == (x1, y1, x2, y2)


@pytest.mark.slow
@given(boxes, sizes)
def test_a_clamped_box_is_inside_and_stays_where_it_was_inside(bbox: Bbox, size: Size) -> None:
    inside = clamp(ordered(bbox), size)

    assert 0 <= inside[0] <= inside[2] <= size[0]
    assert 0 <= inside[1] <= inside[3] <= size[1]
    assert clamp(inside, size) == inside


def test_boxes_reach_out_of_an_image_by_more_than_a_loose_measure() -> None:
    assert boxes_reach_out([(10, 10, 50, 90)], (100, 60)) == 30
    assert boxes_reach_out([(-2, 10, 50, 60)], (100, 60)) == 0


def test_types_of_regions_are_texts() -> None:
    regions = [{"type": "car"}, {"type": None}, {"type": " "}, 7, {"type": "car"}]
    assert types_of({"regions": regions}) == ["car", "car"]
