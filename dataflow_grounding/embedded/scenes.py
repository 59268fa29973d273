"""Sky and greenery: wide regions told by place, smoothness and colour."""

from __future__ import annotations

import cv2
import numpy as np

from dataflow_grounding.embedded.colors import color_matches
from dataflow_grounding.embedded.picture import Array, Candidate, Picture

# Hand-set; the region is seen; that it is sky or plants is a guess from how it looks.
SKY_SCORE = 0.75
GREENERY_SCORE = 0.7
_SKY_AREA, _SKY_WIDTH = 0.10, 0.60
_GREENERY_AREA = 0.08


def find_sky(picture: Picture, color: str | None) -> Candidate | None:
    """The smooth region along the top row, at least 10% of the area and 60% of the width, of the stated colour."""
    if picture.area < 32 * 32:
        return None
    region = _smooth_from_top(picture)
    size = int(region.sum())
    # A page or a wall reaches down to the lower edge; a sky has something below it.
    if size < _SKY_AREA * picture.area or region[-1].mean() > 0.15:
        return None
    if color is not None and not _is_called(color, picture.lab[region > 0].mean(axis=0)):
        return None
    x, y, w, h = cv2.boundingRect(region)
    if w < _SKY_WIDTH * picture.width:
        return None
    return Candidate((x, y, x + w, y + h), float(size), SKY_SCORE, "region")


def _smooth_from_top(picture: Picture) -> Array:
    lightness, chroma, hue = picture.lch
    blurred = cv2.GaussianBlur(lightness, (0, 0), 1.5)
    slope = cv2.magnitude(cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1))
    is_blue = (hue > 215) & (hue < 312) & (chroma > 6)
    colored = is_blue | (lightness > 65) & (chroma < 12)
    even = ((slope < 8.0) & colored).astype(np.uint8)
    # What hangs on to the sky through a narrow gap is not sky.
    smooth = cv2.morphologyEx(even, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    # Wires, poles and branches don't part a sky.
    side = max(5, round(0.03 * picture.width) | 1)
    joined = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((1, side), np.uint8))
    _, labels = cv2.connectedComponents(joined, connectivity=4)
    top = labels[0][joined[0] > 0]
    if top.size < _SKY_WIDTH * 0.5 * picture.width:
        return np.zeros_like(even)
    return np.asarray((labels == np.bincount(top).argmax()).astype(np.uint8) & smooth)


def _is_called(color: str, mean: Array) -> bool:
    """Whether a sky of this mean colour may be called by the term: a pale or dark blue is blue too."""
    chroma = float(np.hypot(mean[1], mean[2]))
    if color == "blue":
        return float(mean[2]) < -4 and chroma > 6
    if color in ("gray", "white"):
        return chroma < 12
    return color_matches(color, mean)


def find_greenery(picture: Picture) -> Candidate | None:
    """The textured green regions together, at least 8% of the area: one box around those that are not stray."""
    lightness, chroma, hue = picture.lch
    green = ((hue > 98) & (hue < 172) & (chroma > 12) & (lightness > 10)).astype(np.uint8)
    gray = picture.gray.astype(np.float32)
    mean = cv2.blur(gray, (9, 9))
    spread = cv2.blur(gray * gray, (9, 9)) - mean * mean
    textured = cv2.blur((spread > 12.0).astype(np.float32), (15, 15)) > 0.4
    mask = cv2.morphologyEx(green & textured.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = stats[1:][areas >= max(0.15 * areas.max(), 0.01 * picture.area)]
    total = float(kept[:, cv2.CC_STAT_AREA].sum()) if len(kept) else 0.0
    if total < _GREENERY_AREA * picture.area:
        return None
    x1, y1 = kept[:, 0].min(), kept[:, 1].min()
    x2, y2 = (kept[:, 0] + kept[:, 2]).max(), (kept[:, 1] + kept[:, 3]).max()
    return Candidate((float(x1), float(y1), float(x2), float(y2)), total, GREENERY_SCORE, "region")
