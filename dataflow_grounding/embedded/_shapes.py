"""Evenly coloured geometric shapes: circles, squares, triangles, stars and the like.

A picture is cut into regions that are even in colour. Each is compared with ideal shapes that are
fitted to it (an ellipse with its moments, the smallest rectangle and triangle around it), by
intersection over union. Regions that no ideal shape covers well are no shapes.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataflow_grounding.embedded._colors import color_matches
from dataflow_grounding.embedded._picture import Array, Candidate, Picture, box_of

SHAPE_SCORE = 0.9  # set by hand: the outline and the colour were both checked
# The step in B, G or R that ends an even region: the least (clean picture) and the most (grainy).
_EDGE_IN_CLEAN = 12.0
_EDGE_IN_GRAINY = 30.0
_MIN_CONTRAST = 12.0  # ΔE (CIE 1976) to what is around a shape
# A smaller or thinner region is no shape. Sizes are in pixels, or in parts of the picture's area or
# of its long side, whichever gives more.
_LEAST_SIZE = 60.0
_LEAST_SIZE_SHARE = 0.0003
_LEAST_WIDTH = 6.0
_LEAST_WIDTH_SHARE = 0.015
_MARGIN = 10  # px around a region's box that are looked at with it
_MOST_REGIONS = 400  # that are compared with shapes, the largest ones
# The least IoU with the ideal shape at which a region is one, and that of small regions, whose
# shorter side is below _SMALL_SIDE pixels.
_FIT = 0.93
_SMALL_FIT = 0.88
_SMALL_SIDE = 30
_LEAST_SOLIDITY = 0.8  # area over that of the convex hull: with less only a star is a shape
_TRIANGLE_ALLOWANCE = 0.04  # blunt corners make a triangle fit worse
_ROUND_ENOUGH = 0.88  # short over long axis, from which an ellipse is a circle
_SQUARE_ENOUGH = 0.9  # short over long side, from which a rectangle is a square


@dataclass(frozen=True, slots=True)
class Shape(Candidate):
    """An even region: the shape that fits it, how well (IoU), and its mean L*a*b* colour."""

    kind: str
    fit: float
    lab: Array


def find_shapes(picture: Picture) -> list[Shape]:
    """Return the even regions that are circles, squares, triangles and the like, largest first.

    Regions that reach an edge of the picture, where they may be cut off, are left out.
    """
    gradient = cv2.morphologyEx(picture.smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    steps = np.max(cv2.split(gradient), axis=0)
    edge = 8.0 + 2.0 * float(np.median(steps))
    edge = min(max(edge, _EDGE_IN_CLEAN), _EDGE_IN_GRAINY)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (steps < edge).astype(np.uint8), connectivity=4
    )
    least_size = max(_LEAST_SIZE, _LEAST_SIZE_SHARE * picture.area)
    least_width = max(_LEAST_WIDTH, _LEAST_WIDTH_SHARE * max(picture.width, picture.height))
    shapes = []
    # Label 0 is what is in no region.
    largest_first = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")
    for label in largest_first[:_MOST_REGIONS]:
        x, y, w, h, size = map(int, stats[label])
        if size < least_size:
            break
        is_whole = x > 1 and y > 1 and x + w < picture.width - 1 and y + h < picture.height - 1
        if min(w, h) < least_width or not is_whole:
            continue
        shape = _read_shape(picture, labels, int(label), (x, y, w, h))
        if shape is not None:
            shapes.append(shape)
    return shapes


def select_shapes(shapes: list[Shape], kind: str, color: str | None) -> list[Shape]:
    """Return those of the shapes that a name fits ("circle"), and a colour term unless it is None.

    They keep their order.
    """
    of_kind = [shape for shape in shapes if shape.kind == kind]
    if color is None:
        return of_kind
    return [shape for shape in of_kind if color_matches(color, shape.lab)]


def _read_shape(
    picture: Picture, labels: Array, label: int, box: tuple[int, int, int, int]
) -> Shape | None:
    # Return the shape that an evenly coloured region is, with its holes filled. None where it
    # hardly differs in colour from what is around it, or no ideal shape covers it.
    x, y, w, h = box
    x1 = max(0, x - _MARGIN)
    y1 = max(0, y - _MARGIN)
    x2 = min(picture.width, x + w + _MARGIN)
    y2 = min(picture.height, y + h + _MARGIN)
    part = (labels[y1:y2, x1:x2] == label).astype(np.uint8)
    lab = picture.lab[y1:y2, x1:x2]
    color = lab[part > 0].mean(axis=0)
    # The step at the edge took one pixel off all around.
    contour = _outline(cv2.dilate(part, np.ones((3, 3), np.uint8)))
    filled = cv2.drawContours(np.zeros_like(part), [contour], -1, 1, cv2.FILLED)
    inner = cv2.dilate(filled, np.ones((9, 9), np.uint8))
    outer = cv2.dilate(filled, np.ones((17, 17), np.uint8))
    ring = outer - inner  # begins 4 px off the region, where no colours mix
    if not ring.any():
        return None
    contrast = float(np.linalg.norm(lab[ring > 0].mean(axis=0) - color))
    if contrast < _MIN_CONTRAST:
        return None
    filled = _with_corners(picture.bgr[y1:y2, x1:x2], filled, ring)
    contour = _outline(filled)
    left, top, width, height = cv2.boundingRect(contour)
    least_fit = _FIT if min(width, height) >= _SMALL_SIDE else _SMALL_FIT
    kind, fit = _kind(contour, filled, least_fit)
    if not kind:
        return None
    bbox = box_of(x1 + left, y1 + top, width, height)
    return Shape(bbox, float(filled.sum()), SHAPE_SCORE, "seen", kind, fit, color)


def _outline(mask: Array) -> Array:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea)


def _with_corners(bgr: Array, filled: Array, ring: Array) -> Array:
    # A pixel near the region belongs to it if its colour is nearer to the region's than to that of
    # the ``ring`` around it, and pixels that belong to it connect the two. ``filled`` and ``ring``
    # are 1 where the region and the ring are; so is what is returned.
    inside = bgr[filled > 0].mean(axis=0)
    outside = bgr[ring > 0].mean(axis=0)
    difference = inside - outside
    # 0 where a pixel has the ring's colour, 1 where it has the region's.
    share = (bgr - outside) @ difference / max(float(difference @ difference), 1.0)
    surroundings = cv2.dilate(filled, np.ones((9, 9), np.uint8))
    near = surroundings & (share > 0.5).astype(np.uint8)
    _, labels = cv2.connectedComponents(near | filled, connectivity=4)
    return np.asarray((labels == labels[filled > 0][0]).astype(np.uint8))


def _kind(contour: Array, filled: Array, least_fit: float) -> tuple[str, float]:
    # The name is "" where the best shape covers the region by less than ``least_fit``, or a
    # triangle by less than that without _TRIANGLE_ALLOWANCE. A region with deep notches is a star,
    # or none.
    hull = cv2.convexHull(contour)
    solidity = float(filled.sum()) / max(cv2.contourArea(hull), 1.0)
    if solidity < _LEAST_SOLIDITY:
        return ("star", 1.0) if _is_star(contour, hull) else ("", 0.0)
    rotated = cv2.minAreaRect(contour)
    _, triangle = cv2.minEnclosingTriangle(contour.reshape(-1, 1, 2))
    axes_ratio, ellipse = _equal_ellipse(filled)
    fits = {
        "ellipse": _cover(filled, ellipse),
        "rectangle": _cover(filled, cv2.boxPoints(rotated)),
        "triangle": 0.0 if triangle is None else _cover(filled, triangle),
    }
    best = max(fits, key=lambda name: fits[name])
    # Nothing else comes near a triangle with blunt corners.
    allowance = _TRIANGLE_ALLOWANCE if best == "triangle" else 0.0
    if fits[best] < least_fit - allowance:
        return "", fits[best]
    _, sides, _ = rotated
    if best == "ellipse" and axes_ratio >= _ROUND_ENOUGH:
        return "circle", fits[best]
    if best == "rectangle" and min(sides) / max(max(sides), 1.0) >= _SQUARE_ENOUGH:
        return "square", fits[best]
    return best, fits[best]


def _equal_ellipse(filled: Array) -> tuple[float, Array]:
    # The outline is 72 points (x, y) in pixels. A region that is an ellipse has just this one.
    moments = cv2.moments(filled, binaryImage=True)
    total = max(moments["m00"], 1.0)
    center = (moments["m10"] / total, moments["m01"] / total)
    mixed = moments["mu11"]
    covariance = np.array([[moments["mu20"], mixed], [mixed, moments["mu02"]]]) / total
    variances, directions = np.linalg.eigh(covariance)  # the smaller first
    semi_axes = 2.0 * np.sqrt(np.maximum(variances, 0.25))
    angles = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
    unit_circle = np.stack([np.cos(angles), np.sin(angles)])
    outline = directions @ (semi_axes[:, None] * unit_circle)
    return float(semi_axes[0] / semi_axes[1]), (outline.T + center).astype(np.float32)


def _cover(filled: Array, outline: Array) -> float:
    # ``outline`` has the polygon's corners (x, y), which are rounded to whole pixels.
    points = np.round(outline).astype(np.int32).reshape(-1, 1, 2)
    ideal = cv2.fillPoly(np.zeros_like(filled), [points], 1)
    both = int(cv2.countNonZero(ideal & filled))
    return both / max(int(cv2.countNonZero(ideal | filled)), 1)


def _is_star(contour: Array, hull: Array) -> bool:
    # Shallow bays don't count; of the five the least deep has to be over half as deep as the
    # deepest.
    outline = cv2.approxPolyDP(contour, 0.01 * cv2.arcLength(contour, True), True)
    if len(outline) < 8 or len(_corners(hull)) != 5:
        return False
    # OpenCV wants the hull's points in one direction along the outline.
    indices = np.sort(cv2.convexHull(outline, returnPoints=False), axis=0)[::-1]
    bays = cv2.convexityDefects(outline, indices)
    if bays is None:
        return False
    depths = bays[:, 0, 3] / 256.0  # in pixels; OpenCV counts in 1/256 px
    deep = depths[depths > 0.1 * np.sqrt(max(cv2.contourArea(hull), 1.0))]
    return len(deep) == 5 and bool(deep.min() > 0.5 * deep.max())


def _corners(hull: Array) -> Array:
    return np.asarray(cv2.approxPolyDP(hull, 0.035 * cv2.arcLength(hull, True), True))
