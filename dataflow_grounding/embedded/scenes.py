"""Sky and greenery: wide regions told by place, smoothness, texture and colour, where they look it."""

import cv2
import numpy as np

from dataflow_grounding.embedded.colors import color_matches
from dataflow_grounding.embedded.picture import Array, Candidate, Picture, box_of
from dataflow_grounding.geometry import area, around, intersection

# Hand-set; the region is seen; that it is sky or plants is a guess from how it looks.
SKY_SCORE = 0.75
GREENERY_SCORE = 0.7
_SKY_AREA, _SKY_WIDTH, _CLEAR_SKY_WIDTH = 0.05, 0.75, 0.6
_SKY_BLUE, _SKY_SPREAD = (4.0, 70.0), 15.0  # of its -b*: mean (no sky is of paint's blue), standard deviation
_HORIZON = 16.0  # ΔL + Δa + Δb between the rows above and below one: more than a sky's own gradient has
_GREENERY_AREA = 0.05
_FINE = 40.0  # variance of gray within 5 px that all plants have
_LAWN, _LEAVES = 1.8, 2.0  # coarseness of the texture, in L*: that of a lawn is at most, that of leaves at least


def find_sky(picture: Picture, color: str | None) -> list[Candidate]:
    """The smooth bluish area along the top, down to a horizon, if of the stated colour; a gray one may be a wall."""
    if picture.area < 32 * 32:
        return []
    region = _smooth_from_top(picture)
    size = int(region.sum())
    # A page or a wall reaches down to the lower edge; a sky has something below it.
    if size < _SKY_AREA * picture.area or region[-1].mean() > 0.25:
        return []
    lab = picture.lab[region > 0]
    mean = lab.mean(axis=0)
    # A bright blue one may be hidden in part, by a tree or a tower; a backdrop reaches further down beside a person.
    is_clear = mean[2] < -15 and mean[0] > 40 and not region[round(0.6 * picture.height) :].any()
    if region[0].mean() < (_CLEAR_SKY_WIDTH if is_clear else _SKY_WIDTH):
        return []
    is_blue = _SKY_BLUE[0] <= -mean[2] <= _SKY_BLUE[1] and lab[:, 2].std() <= _SKY_SPREAD
    if not is_blue or not (color in (None, "blue") or color_matches(color, mean)):
        return []
    return [Candidate(box_of(*cv2.boundingRect(region)), float(size), SKY_SCORE, "region")]


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
    parts, widths = np.unique(labels[0][joined[0] > 0], return_counts=True)
    region = np.isin(labels, parts[widths >= 0.1 * picture.width]).astype(np.uint8) & smooth
    region[_horizon(picture, region > 0) :] = 0
    return region


def _horizon(picture: Picture, region: Array) -> int:
    """The first row at which the region changes all along, as from sky to sea; the height where none does."""
    step = 8
    for row in range(step, picture.height - step):
        both = region[row - step] & region[row + step]
        if both.sum() >= 0.15 * picture.width:
            change = np.median(picture.lab[row + step][both] - picture.lab[row - step][both], axis=0)
            if np.abs(change).sum() > _HORIZON:
                return row
    return picture.height


def find_greenery(picture: Picture, kind: str = "greenery") -> list[Candidate]:
    """The green regions, of at least 5% of the area each, that look like a "lawn", "leaves", or either."""
    lightness, chroma, hue = picture.lch
    green = ((hue > 98) & (hue < 172) & (chroma > 12) & (lightness > 10)).astype(np.uint8)
    mask = cv2.morphologyEx(green, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    found: list[Candidate] = []
    for label, (x, y, w, h, size) in enumerate(stats[1:count], start=1):
        if size < _GREENERY_AREA * picture.area:
            continue
        is_lawn, is_leafy = _textures(picture, labels == label)
        is_lawn = is_lawn and y > 0 and w >= picture.width / 2
        if (is_lawn and kind != "leaves") or (is_leafy and kind != "lawn"):
            box = box_of(x, y, w, h)
            # Boxes that meet are not apart.
            meeting = [one for one in found if area(intersection(one.bbox, box))]
            box, size = around([box, *(one.bbox for one in meeting)]), size + sum(one.size for one in meeting)
            found = [one for one in found if one not in meeting]
            found.append(Candidate(box, float(size), GREENERY_SCORE, "region"))
    return found


def _textures(picture: Picture, region: Array) -> tuple[bool, bool]:
    """Whether a green region looks like a lawn, and whether like leaves: a cloth is even or shaded, a fur many-hued."""
    lightness, _, hue = picture.lch
    coarse = np.abs(cv2.GaussianBlur(lightness, (0, 0), 1.5) - cv2.GaussianBlur(lightness, (0, 0), 6.0))
    gray = picture.gray.astype(np.float32)
    fine = float(np.median((cv2.blur(gray * gray, (5, 5)) - cv2.blur(gray, (5, 5)) ** 2)[region]))
    coarseness, spread = float(np.median(coarse[region])), float(lightness[region].std())
    low, middle, high = np.percentile(hue[region], [10, 50, 90])
    if fine < _FINE or high - low > 30 or middle > 140:
        return False, False
    is_lawn = coarseness <= _LAWN and coarseness >= 0.14 * spread
    return is_lawn, coarseness >= _LEAVES and coarseness >= 0.18 * spread and high - low > 5
