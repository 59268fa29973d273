"""Evenly coloured geometric shapes: circles, squares, triangles, stars and the like.

A picture is cut into regions that are even in colour. Each is compared with ideal shapes that are
fitted to it (an ellipse with its moments, the smallest rectangle and triangle around it), by
intersection over union. Regions that no ideal shape covers well are no shapes.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataflow_grounding.extras.embedded._colors import color_matches
from dataflow_grounding.extras.embedded._picture import Array, Candidate, Picture, box_of

# Hand-set: outline and colour were both checked.
SHAPE_SCORE = 0.9
LOOSE_SHAPE_SCORE = 0.7
# The step in B, G or R that ends an even region: the least (clean picture) and the most (grainy).
_EDGE_IN_CLEAN = 12.0
_EDGE_IN_GRAINY = 30.0
_MIN_CONTRAST = 12.0  # ΔE (CIE 1976) to what is around a shape
# The least IoU with the ideal shape.
_FIT = 0.93
_SMALL_FIT = 0.88
_MOST_SHAPES = 400
_POLYGONS = {4: "diamond", 5: "pentagon", 6: "hexagon"}
# The least IoU with the ideal shape for a phrase with a colour word, and for one without.
COLORED_FIT = 0.91
CLEAR_FIT = 0.95


@dataclass(frozen=True, slots=True)
class Shape(Candidate):
    """An even region: the shape names that fit it, how well (IoU), and its mean L*a*b* colour."""

    kinds: frozenset[str]
    fit: float
    lab: Array


def find_shapes(picture: Picture) -> list[Shape]:
    """All even regions of the picture that are circles, squares, triangles and the like."""
    gradient = cv2.morphologyEx(picture.smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    steps = np.max(cv2.split(gradient), axis=0)
    edge = 8.0 + 2.0 * float(np.median(steps))
    edge = min(max(edge, _EDGE_IN_CLEAN), _EDGE_IN_GRAINY)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (steps < edge).astype(np.uint8), connectivity=4
    )
    least = max(60.0, 0.0003 * picture.area)
    thinnest = max(6.0, 0.015 * max(picture.width, picture.height))
    shapes = []
    largest_first = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")
    for label in largest_first[:_MOST_SHAPES]:
        x, y, w, h, size = map(int, stats[label])
        if size < least:
            break
        is_whole = x > 1 and y > 1 and x + w < picture.width - 1 and y + h < picture.height - 1
        if min(w, h) < thinnest or not is_whole:
            continue  # too thin to tell, or cut off by the picture's edge
        shape = _read_shape(picture, labels, int(label), (x, y, w, h))
        if shape is not None:
            shapes.append(shape)
    return shapes


def select_shapes(shapes: list[Shape], kind: str, color: str | None) -> list[Shape]:
    """The shapes of one name and of one colour, if a colour is given."""
    of_kind = [shape for shape in shapes if kind in shape.kinds]
    if color is None:
        return of_kind
    return [shape for shape in of_kind if color_matches(color, shape.lab)]


def _read_shape(
    picture: Picture, labels: Array, label: int, box: tuple[int, int, int, int]
) -> Shape | None:
    """Return the shape that an evenly coloured region is; None where it is none.

    Args:
        picture: The picture.
        labels: For each of its pixels the label of its region.
        label: The region's label.
        box: x, y, width and height of the box around the region, in pixels.
    """
    x, y, w, h = box
    margin = 10
    x1 = max(0, x - margin)
    y1 = max(0, y - margin)
    x2 = min(picture.width, x + w + margin)
    y2 = min(picture.height, y + h + margin)
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
    least_fit = _FIT if min(width, height) >= 30 else _SMALL_FIT
    kinds, fit = _kinds(contour, filled, least_fit)
    if not kinds:
        return None
    bbox = box_of(x1 + left, y1 + top, width, height)
    return Shape(bbox, float(filled.sum()), SHAPE_SCORE, "seen", kinds, fit, color)


def _outline(mask: Array) -> Array:
    """Return the contour of the largest part of a mask: (N, 1, 2), x and y in pixels."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea)


def _with_corners(bgr: Array, filled: Array, ring: Array) -> Array:
    """Return a region with its sharp corners, which the median filter has rounded off.

    A pixel near the region belongs to it if its colour is nearer to the region's than to that of
    the ``ring`` around it. ``filled`` and ``ring`` are 1 where the region and the ring are.
    """
    inside = bgr[filled > 0].mean(axis=0)
    outside = bgr[ring > 0].mean(axis=0)
    difference = inside - outside
    # 0 where a pixel has the ring's colour, 1 where it has the region's.
    share = (bgr - outside) @ difference / max(float(difference @ difference), 1.0)
    surroundings = cv2.dilate(filled, np.ones((9, 9), np.uint8))
    near = surroundings & (share > 0.5).astype(np.uint8)
    _, labels = cv2.connectedComponents(near | filled, connectivity=4)
    return np.asarray((labels == labels[filled > 0][0]).astype(np.uint8))


def _kinds(contour: Array, filled: Array, least_fit: float) -> tuple[frozenset[str], float]:
    """Return the names of the ideal shape that covers the region best, and its IoU.

    No name where none covers it well, that is by less than ``least_fit``. ``filled`` is 1 where the
    region is, ``contour`` its outline.
    """
    area = float(filled.sum())
    hull = cv2.convexHull(contour)
    solidity = area / max(cv2.contourArea(hull), 1.0)
    if solidity < 0.8:
        if _is_star(contour, hull):
            return frozenset({"star"}), 1.0
        return frozenset(), 0.0
    rotated = cv2.minAreaRect(contour)
    _, sides, _ = rotated
    corners = _corners(hull)
    _, triangle = cv2.minEnclosingTriangle(contour.reshape(-1, 1, 2))
    axes_ratio, ellipse = _equal_ellipse(filled)
    fits = {
        "ellipse": _cover(filled, ellipse),
        "rectangle": _cover(filled, cv2.boxPoints(rotated)),
        "triangle": 0.0 if triangle is None else _cover(filled, triangle),
    }
    if len(corners) in (5, 6) or _stands_on_corner(corners):
        # A polygon read off the region fits anything a little better than an ideal shape does.
        fits[_POLYGONS[len(corners)]] = _cover(filled, corners) - 0.015
    best = max(fits, key=lambda name: fits[name])
    # Blunt corners make a triangle fit worse, but nothing else comes near it.
    allowance = 0.04 if best == "triangle" else 0.0
    if fits[best] < least_fit - allowance:
        return frozenset(), fits[best]
    names = {best}
    if best == "ellipse" and axes_ratio >= 0.88:
        names = {"circle"}
    elif best == "rectangle":
        if min(sides) / max(max(sides), 1.0) >= 0.9:
            names = {"square"}
        if _stands_on_corner(corners):
            names.add("diamond")
    return frozenset(names), fits[best]


def _equal_ellipse(filled: Array) -> tuple[float, Array]:
    """Return the ellipse with a region's second moments: short over long axis, and its outline.

    The outline is 72 points (x, y) in pixels. A region that is an ellipse has just this one.
    """
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
    """Intersection over union of the region and a polygon."""
    points = np.round(outline).astype(np.int32).reshape(-1, 1, 2)
    ideal = cv2.fillPoly(np.zeros_like(filled), [points], 1)
    both = int(cv2.countNonZero(ideal & filled))
    return both / max(int(cv2.countNonZero(ideal | filled)), 1)


def _stands_on_corner(corners: Array) -> bool:
    """Return whether four corners lie near the middles of their upright box's sides."""
    x, y, w, h = cv2.boundingRect(corners)
    middles = np.array([(x + w / 2, y), (x + w, y + h / 2), (x + w / 2, y + h), (x, y + h / 2)])
    # A row for each corner, a column for each middle, in parts of the box's width and height.
    gaps = (np.abs(corners - middles) / (w, h)).sum(axis=2)
    nearest_gaps = gaps.min(axis=0)
    return len(corners) == 4 and bool((nearest_gaps < 0.15).all())


def _is_star(contour: Array, hull: Array) -> bool:
    """Whether a region has five points: a hull of five corners and five bays of like depths."""
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
    """Return the corners of a hull, small bends left out: (N, 1, 2), x and y in pixels."""
    return np.asarray(cv2.approxPolyDP(hull, 0.035 * cv2.arcLength(hull, True), True))
