"""Drawn shapes: circles, squares, rectangles, triangles and stars, among the regions of a colour.

A region is compared with the smallest circle, rectangle and triangle around it: it fills most of
the one that it is.
"""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from dataflow_grounding.embedded._colors import ColorRegion, grown
from dataflow_grounding.embedded._picture import Array, Picture, box_of

_SHAPE_SCORE = 0.9  # set by hand: the outline and the colour were both checked
_LEAST_SOLIDITY = 0.8  # area over that of the convex hull: with less only a star is a shape
_SQUARE_ENOUGH = 0.9  # short over long side, from which a rectangle is a square
_STAR_POINTS = 5
_CORNER = 0.02  # of an outline's length: a smaller bend is no corner
# Up to _NEAR px from a region, its colour is mixed with that of its surroundings. From there to
# _RING_END px, there is only the latter.
_NEAR = 4
_RING_END = 8


class Shape(NamedTuple):
    """The shape that a region is most like."""

    kind: str  # empty where no shape is like the region
    fit: float  # how much of the shape the region fills, from 0 to 1
    region: ColorRegion
    drawn: ColorRegion  # the region with the box of the drawn shape, to its very corners


def read_shape(picture: Picture, region: ColorRegion) -> Shape:
    """Return the shape that a region of a colour is most like, its holes filled."""
    part = picture.around(region.bbox, _RING_END + 2)  # with room for the ring
    pixels = region.pixels[part]
    empty = np.zeros_like(pixels)
    filled = np.asarray(cv2.drawContours(empty, [_outline(pixels)], -1, 1, cv2.FILLED))
    # The tips of a shape have mixed colours, and aren't in the region. They are found by comparing
    # them with the colour of a ring around the shape.
    ring = grown(filled, _RING_END) - grown(filled, _NEAR)
    fills_picture = not ring.any()
    whole_shape = filled if fills_picture else _with_corners(picture.bgr[part], filled, ring)
    x, y, width, height = cv2.boundingRect(whole_shape)
    rows, columns = part
    box = box_of(columns.start + x, rows.start + y, width, height)
    kind, fit = _kind_and_fit(_outline(whole_shape))
    drawn = replace(region, bbox=box, score=_SHAPE_SCORE, evidence="seen")
    return Shape(kind, fit, region, drawn)


def _outline(mask: Array) -> Array:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea)


def _with_corners(bgr: Array, filled: Array, ring: Array) -> Array:
    """Add the pixels at a region's tips, where colours mix: those more like it than like the ring.

    Masks are 1 inside, else 0.
    """
    color_of_region = bgr[filled > 0].mean(axis=0)
    color_of_ring = bgr[ring > 0].mean(axis=0)
    difference = color_of_region - color_of_ring
    # 0 where a pixel has the ring's colour, 1 where it has the region's, 0.5 halfway between.
    square_of_difference = max(float(difference @ difference), 1.0)  # no 0: it is divided by
    share_of_region = (bgr - color_of_ring) @ difference / square_of_difference
    near = grown(filled, _NEAR) & (share_of_region > 0.5).astype(np.uint8)
    _, labels = cv2.connectedComponents(near | filled, connectivity=4)
    label = labels[filled > 0][0]  # `filled` is one piece: the label of any of its pixels
    return np.asarray((labels == label).astype(np.uint8))


def _kind_and_fit(outline: Array) -> tuple[str, float]:
    """Return the smallest shape around an outline, and how much of it the outline fills."""
    size = cv2.contourArea(outline)
    has_notches = size < _LEAST_SOLIDITY * cv2.contourArea(cv2.convexHull(outline))
    if has_notches:  # it fills none, but a star is told by its corners
        return ("star", 1.0) if _is_star(outline) else ("", 0.0)
    _, radius = cv2.minEnclosingCircle(outline)
    _, sides, _ = cv2.minAreaRect(outline)
    triangle, _ = cv2.minEnclosingTriangle(outline)
    is_square = min(sides) >= _SQUARE_ENOUGH * max(sides)
    areas = {
        "circle": np.pi * radius**2,
        "square" if is_square else "rectangle": sides[0] * sides[1],
        "triangle": triangle or np.inf,  # 0 where OpenCV finds none
    }
    best = min(areas, key=lambda name: areas[name])
    return best, size / max(areas[best], 1.0)


def _is_star(outline: Array) -> bool:
    """Return whether every second of ten corners is on the outline's hull."""
    corners = cv2.approxPolyDP(outline, _CORNER * cv2.arcLength(outline, True), True)
    on_hull = np.sort(cv2.convexHull(corners, returnPoints=False), axis=None)
    return len(corners) == 2 * _STAR_POINTS and bool((np.diff(on_hull) == 2).all())
