"""Colour terms in CIE LCh, and the regions of a colour, of sky and of plants.

A colour term is a range of hue, chroma and lightness (`color_bounds` in words.yaml). A region is
believed where looser and stricter ranges give the same box: its border then doesn't depend on where
the range ends.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import area, around, intersection, iou
from dataflow_grounding.extras.embedded import _words as words
from dataflow_grounding.extras.embedded._picture import Array, Box, Candidate, Picture, box_of

# Hand-set: the colour and the contrast were checked, the noun was not.
REGION_SCORE = 0.6
_LEAST_OF_LARGEST = 0.03  # of the largest region's size; smaller ones are left out
_STEADY_IOU = 0.75  # of a region's boxes by a looser and a stricter reading of its colour
_MIN_CONTRAST = 24.0  # ΔE (CIE 1976)
_MIN_CLEAR_BAND = 0.8  # of the pixels in the band around a region
_MAX_SPREAD = 10.5  # standard deviation of L*, a* or b*: what is plainly of one colour has less


class _Strictness(NamedTuple):
    """How a colour term is read: degrees off each end of its hues, factor on its least chroma."""

    inset: float
    factor: float


_LOOSE = _Strictness(-3.0, 0.85)
_MEDIUM = _Strictness(0.0, 1.0)
_STRICT = _Strictness(1.5, 1.15)

# Hand-set; the region is seen; that it is sky or plants is a guess from how it looks.
SKY_SCORE = 0.75
GREENERY_SCORE = 0.7
# The least parts of the picture's area and of its width that a sky takes. That of its width is less
# for a bright blue one that ends high up in the picture.
_SKY_AREA = 0.05
_SKY_WIDTH = 0.75
_CLEAR_SKY_WIDTH = 0.6
_SKY_END = 0.6  # of the picture's height: a sky that ends above is high up
_MOST_OF_LAST_ROW = 0.25  # of the picture's width, that a sky takes at the lower edge
_LEAST_SKY_PICTURE = 32 * 32  # pixels of a picture in which a sky is looked for
# A pixel may be of a sky if it is bluish or pale, and the lightness around it is even.
_SKY_HUES = (215, 312)  # of a bluish one, in degrees
_LEAST_SKY_CHROMA = 6  # of a bluish one
_LEAST_PALE_LIGHTNESS = 65
_MOST_PALE_CHROMA = 12
_MOST_SKY_SLOPE = 8.0  # of the lightness, by Sobel's operator on a blurred copy
_LEAST_PART_OF_ROW = 0.1  # of the picture's width: parts of a sky take as much of the first row
_LEAST_HORIZON = 0.15  # of the picture's width: the pixels by which a row is judged
_SKY_BLUE = (4.0, 70.0)  # least and most mean of its -b*: no sky is of paint's blue
_SKY_SPREAD = 15.0  # the most that the standard deviation of its -b* may be
# The least change |ΔL*| + |Δa*| + |Δb*| over 16 rows at a horizon: a sky's own gradient has less.
_HORIZON_CHANGE = 16.0
# In parts of a face's area: so much of a region must be below the chin at a side of it.
_LEAST_BELOW_CHIN = 0.05
_GREENERY_AREA = 0.05  # of the picture's area: plants take at least as much
# Green is between these hues, in degrees, with more than this chroma and lightness.
_GREEN_HUES = (98, 172)
_LEAST_GREEN_CHROMA = 12
_LEAST_GREEN_LIGHTNESS = 10
_LEAST_FINE_TEXTURE = 40.0  # variance of gray within 5 px: all plants have more
# Coarseness of the texture, in L*.
_MOST_LAWN_COARSENESS = 1.8
_LEAST_LEAF_COARSENESS = 2.0
# Coarseness over the standard deviation of L*: with less a cloth's folds make the lightness spread.
_LEAST_LAWN_GRAIN = 0.14
_LEAST_LEAF_GRAIN = 0.18
# Hues of plants in degrees: the median, and how far the middle 80% of the pixels spread.
_MOST_PLANT_HUE = 140
_MOST_HUE_SPREAD = 30
_LEAST_LEAF_HUE_SPREAD = 5


def color_mask(
    term: str, lch: Sequence[Array], *, inset: float = 0.0, factor: float = 1.0
) -> Array:
    """Return where the colour term holds: bool, shaped as each of the three arrays.

    A term has least and most hue, chroma and lightness (`words.COLOR_BOUNDS`).

    Args:
        term: The colour term.
        lch: Lightness, 0 to 100; chroma, from 0; hue in degrees, 0 to 360.
        inset: Degrees that are taken off each end of the term's hues; added, if negative.
        factor: The term's least chroma is multiplied by it.
    """
    lightness, chroma, hue = lch
    hue_bounds, chroma_bounds, lightness_bounds = words.COLOR_BOUNDS[term]
    if term in ("red", "orange"):
        # The lighter of two colours between red and orange is the one called orange.
        hue = hue + np.float32(0.3) * (lightness - 50)
    least_hue = hue_bounds[0] + inset
    most_hue = hue_bounds[1] - inset
    holds = (hue >= least_hue) & (hue <= most_hue)
    # A range that goes through 0 ends above 360: pink, from 325 to 382, holds from 0 to 22, too.
    holds |= hue <= most_hue - 360
    holds &= (chroma >= chroma_bounds[0] * factor) & (chroma <= chroma_bounds[1])
    holds &= (lightness >= lightness_bounds[0]) & (lightness <= lightness_bounds[1])
    if term == "blue":
        holds &= _is_blue(lightness, chroma, hue)
    elif term == "purple":
        holds &= ~_is_blue(lightness, chroma, hue)
    return np.asarray(holds)


def _is_blue(lightness: Array, chroma: Array, hue: Array) -> Array:
    """Return where a colour between blue and purple is called blue.

    Deep blues and light purples share the hues from 297 to 312 degrees: blues have more chroma for
    their lightness.
    """
    is_deep = chroma >= 2.2 * lightness
    return np.asarray((hue < 297) | ((hue < 312) & is_deep))


def color_matches(term: str, lab: Array) -> bool:
    """Return whether one L*a*b* colour, that of a flat fill, may be called by the term.

    Chromatic terms are read a little more loosely than for pixels of a photo.
    """
    lightness, a, b = map(float, lab)
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a)) % 360
    lch = np.array([lightness, chroma, hue], np.float32)
    if term in words.CHROMATIC:
        return bool(color_mask(term, lch, inset=-2.0, factor=0.9))
    return bool(color_mask(term, lch))


@dataclass(frozen=True, slots=True)
class ColorRegion(Candidate):
    """A region of one colour.

    Attributes:
        labels: Those of its pixels in the label image of its colour; several for joined pieces.
        is_steady: Whether a looser and a stricter reading of the colour give nearly the same box,
            and it stands out from what is around it.
    """

    labels: tuple[int, ...]
    is_steady: bool = False


@dataclass(frozen=True, slots=True)
class ColorRegions:
    """The regions of a colour.

    Attributes:
        regions: Those of at least _LEAST_OF_LARGEST of the largest one's size, largest first.
        whole: The largest joined with the pieces near it; None without regions.
        total: The number of the reduced copy's pixels of the colour, once small holes are filled
            and thin lines removed. It counts specks that are too small for a region, too.
    """

    regions: list[ColorRegion]
    whole: ColorRegion | None
    total: float


def find_regions(picture: Picture, term: str) -> ColorRegions:
    """Return the regions of a chromatic colour term, each with whether it is steady.

    The colour is read three times, loosely to strictly: what has a clear border then keeps its box.
    Regions are those of the medium reading; where that has none, there are none. Sizes are in
    pixels of the reduced copy.
    """
    _, loose = _regions_of_mask(_mask(term, picture, _LOOSE), picture)
    label_image, medium = _regions_of_mask(_mask(term, picture, _MEDIUM), picture)
    _, strict = _regions_of_mask(_mask(term, picture, _STRICT), picture)
    total = float(np.count_nonzero(label_image))
    if not medium:
        return ColorRegions([], None, total)

    regions = []
    for region in medium:
        if region.size >= _LEAST_OF_LARGEST * medium[0].size:
            regions.append(_with_steadiness(region, picture, label_image, loose, strict))
    whole = _with_steadiness(
        _joined_to_largest(medium, picture),
        picture,
        label_image,
        [_joined_to_largest(loose, picture)] if loose else [],
        [_joined_to_largest(strict, picture)] if strict else [],
    )
    return ColorRegions(regions, whole, total)


def _with_steadiness(
    region: ColorRegion,
    picture: Picture,
    label_image: Array,
    looser: list[ColorRegion],
    stricter: list[ColorRegion],
) -> ColorRegion:
    """Return a copy of a region in which ``is_steady`` is set.

    Args:
        region: A region of the medium reading of its colour.
        picture: Where it is.
        label_image: For each pixel of the picture the label of that reading's region, or 0.
        looser: The regions of the looser reading; without any, nothing is steady.
        stricter: Those of the stricter one, likewise.
    """
    is_steady = (
        _has_same_box(region, looser)
        and _has_same_box(region, stricter)
        and _stands_out(picture, np.isin(label_image, region.labels), region.bbox)
    )
    return replace(region, is_steady=is_steady)


def _mask(term: str, picture: Picture, strictness: _Strictness) -> Array:
    """Return where the picture has a colour, read so strictly: bool (h, w) of the reduced copy."""
    return color_mask(term, picture.lch, inset=strictness.inset, factor=strictness.factor)


def _has_same_box(region: ColorRegion, candidates: list[ColorRegion]) -> bool:
    """Return whether one of the candidates has nearly the region's box."""
    return any(iou(region.bbox, candidate.bbox) >= _STEADY_IOU for candidate in candidates)


def _joined_to_largest(regions: list[ColorRegion], picture: Picture) -> ColorRegion:
    """Return the largest region joined with all that lie near it or near what was joined before.

    Near is what lies within 3% of the picture's long side. Pieces below 1% of the largest region
    aren't joined. Without anything near, the largest itself is returned. ``regions`` has at least
    one, the largest first.
    """
    reach = 0.03 * max(picture.width, picture.height)
    grown = regions[0]
    apart = [region for region in regions[1:] if region.size >= 0.01 * grown.size]
    while True:
        near = [region for region in apart if _gap(region.bbox, grown.bbox) <= reach]
        if not near:
            return grown
        parts = [grown, *near]
        labels: list[int] = []
        for part in parts:
            labels.extend(part.labels)
        grown = replace(
            grown,
            bbox=around([part.bbox for part in parts]),
            size=sum(part.size for part in parts),
            labels=tuple(labels),
        )
        apart = [region for region in apart if region not in near]


def _gap(first: Box, second: Box) -> float:
    """Return how far two boxes lie apart on the axis on which they are further apart.

    The unit is a pixel; where they overlap on both axes, the gap is negative.
    """
    across = max(first[0] - second[2], second[0] - first[2])
    down = max(first[1] - second[3], second[1] - first[3])
    return max(across, down)


def _regions_of_mask(mask: Array, picture: Picture) -> tuple[Array, list[ColorRegion]]:
    """Return the label image of a mask, and its regions, largest first.

    Small holes are filled before, and what is thinner than 3 px is removed. In the label image the
    pixels of each region have the region's label, others 0. Specks have a label but are no regions.
    Whether a region is steady isn't known here: ``is_steady`` is False.
    """
    # Holes are filled with a square of about 1% of the long side, an odd number of pixels.
    side = max(3, round(max(picture.width, picture.height) / 100) | 1)
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)
    )
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, label_image, stats, _ = cv2.connectedComponentsWithStats(opened)
    least = max(30, 0.0003 * picture.area)  # pixels; anything smaller is a speck
    regions = []
    for label, (x, y, w, h, size) in enumerate(stats[1:], start=1):
        if size >= least:
            box = box_of(x, y, w, h)
            regions.append(ColorRegion(box, float(size), REGION_SCORE, "region", (label,)))
    return label_image, sorted(regions, key=lambda region: (-region.size, region.bbox))


def _stands_out(picture: Picture, region: Array, box: Box) -> bool:
    """Return whether the band around a region has another colour, as a whole and nearly everywhere.

    The band leaves out the pixels at the region's very edge, which are of mixed colour. A region
    doesn't stand out if it is itself of many colours, or fills the picture and has no band.

    Args:
        picture: Where the colours are read, in L*a*b*.
        region: True where the region is; shaped as the reduced copy.
        box: The region's box in pixels of the reduced copy.
    """
    band = max(4, round(0.02 * max(picture.width, picture.height)))
    x1 = max(0, int(box[0]) - 2 * band)
    y1 = max(0, int(box[1]) - 2 * band)
    x2 = int(box[2]) + 2 * band
    y2 = int(box[3]) + 2 * band
    inside = region[y1:y2, x1:x2].astype(np.uint8)
    lab = picture.lab[y1:y2, x1:x2]
    with_edge = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    with_band = cv2.dilate(inside, np.ones((2 * band + 1, 2 * band + 1), np.uint8))
    is_band = with_band - with_edge
    region_lab = lab[inside > 0]
    region_mean = region_lab.mean(axis=0)
    if not is_band.any() or region_lab.std(axis=0).max() > _MAX_SPREAD:
        return False
    band_lab = lab[is_band > 0]
    contrast = np.linalg.norm(band_lab.mean(axis=0) - region_mean)
    differs = np.linalg.norm(band_lab - region_mean, axis=1) >= 0.8 * _MIN_CONTRAST
    return bool(contrast >= _MIN_CONTRAST and differs.mean() >= _MIN_CLEAR_BAND)


def find_sky(
    picture: Picture, color: str | None, faces: Callable[[], Iterable[Candidate]]
) -> list[Candidate]:
    """Return the sky: the smooth bluish area along the top, down to a horizon.

    A gray area may be a wall. So may a blue one be that is behind somebody.

    Args:
        picture: Where it is looked for.
        color: The colour term that it has to be called by; None and "blue" take any sky's blue.
        faces: Looks for what may be a face; called only when all else speaks for a sky.

    Returns:
        One candidate, or none where nothing is surely a sky.
    """
    if picture.area < _LEAST_SKY_PICTURE:
        return []
    region = _smooth_from_top(picture)
    size = int(region.sum())
    # A page or a wall reaches down to the lower edge; a sky has something below it.
    if size < _SKY_AREA * picture.area or region[-1].mean() > _MOST_OF_LAST_ROW:
        return []
    lab = picture.lab[region > 0]
    mean = lab.mean(axis=0)
    # A bright blue one may be hidden in part, by a tree or a tower; a backdrop reaches further down
    # beside a person.
    is_bright_blue = mean[2] < -15 and mean[0] > 40
    is_high = not region[round(_SKY_END * picture.height) :].any()
    least_width = _CLEAR_SKY_WIDTH if is_bright_blue and is_high else _SKY_WIDTH
    is_wide = region[0].mean() >= least_width
    is_blue = _SKY_BLUE[0] <= -mean[2] <= _SKY_BLUE[1] and lab[:, 2].std() <= _SKY_SPREAD
    if not is_wide or not is_blue:
        return []
    if color not in (None, "blue") and not color_matches(color, mean):
        return []
    if any(_is_wall_behind(face.bbox, region) for face in faces()):
        return []
    return [Candidate(box_of(*cv2.boundingRect(region)), float(size), SKY_SCORE, "region")]


def _is_wall_behind(face: Box, region: Array) -> bool:
    """Return whether a region reaches so far down beside a face that it is no sky.

    It reaches below the chin at both sides, or at one down to the picture's lower edge. A sky ends
    above the chin at one side at least. A sky behind somebody who is seen from below, over a low
    horizon, doesn't end there: but nothing tells that from a wall over a floor, and a wrong box is
    worse than none.
    """
    x1, y1, x2, y2 = map(round, face)
    least = _LEAST_BELOW_CHIN * (x2 - x1) * (y2 - y1)
    below_chin = (region[y2:, :x1], region[y2:, x2:])
    sides = [side for side in below_chin if side.sum() >= least]
    return len(sides) == 2 or any(side[-1].any() for side in sides)


def _smooth_from_top(picture: Picture) -> Array:
    """Return where the picture is smooth, bluish or pale, and connected to its upper edge.

    That ends at the horizon, if there is one. uint8 (h, w) of the reduced copy: 1 there, 0
    elsewhere.
    """
    lightness, chroma, hue = picture.lch
    blurred = cv2.GaussianBlur(lightness, (0, 0), 1.5)
    slope = cv2.magnitude(
        cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    )
    least_hue, most_hue = _SKY_HUES
    is_blue = (hue > least_hue) & (hue < most_hue) & (chroma > _LEAST_SKY_CHROMA)
    is_pale = (lightness > _LEAST_PALE_LIGHTNESS) & (chroma < _MOST_PALE_CHROMA)
    even = ((slope < _MOST_SKY_SLOPE) & (is_blue | is_pale)).astype(np.uint8)
    # Opening parts from the sky what is connected to it by a narrow gap only: that is no sky.
    smooth = cv2.morphologyEx(even, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    # Closing joins what wires, poles and branches part.
    side = max(5, round(0.03 * picture.width) | 1)
    joined = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((1, side), np.uint8))
    _, labels = cv2.connectedComponents(joined, connectivity=4)
    # Only parts that take enough of the first row are kept.
    parts, widths = np.unique(labels[0][joined[0] > 0], return_counts=True)
    wide_parts = parts[widths >= _LEAST_PART_OF_ROW * picture.width]
    region = np.isin(labels, wide_parts).astype(np.uint8) & smooth
    region[_horizon(picture, region > 0) :] = 0
    return region


def _horizon(picture: Picture, region: Array) -> int:
    """Return the first row at which the region's colour changes all along, as from sky to sea.

    It is the picture's height where there is no such row. A row is judged by the rows 8 above and
    8 below it, where both are in the region.
    """
    step = 8
    for row in range(step, picture.height - step):
        in_both_rows = region[row - step] & region[row + step]
        if in_both_rows.sum() >= _LEAST_HORIZON * picture.width:
            above = picture.lab[row - step][in_both_rows]
            below = picture.lab[row + step][in_both_rows]
            change = np.median(below - above, axis=0)
            if np.abs(change).sum() > _HORIZON_CHANGE:
                return row
    return picture.height


def find_greenery(picture: Picture, kind: str = "greenery") -> list[Candidate]:
    """Return the green regions that look like a "lawn", like "leaves", or ("greenery") like either.

    Each has at least 5% of the picture's area. Those whose boxes overlap are joined into one.
    """
    lightness, chroma, hue = picture.lch
    least_hue, most_hue = _GREEN_HUES
    is_green = (hue > least_hue) & (hue < most_hue)
    is_green &= (chroma > _LEAST_GREEN_CHROMA) & (lightness > _LEAST_GREEN_LIGHTNESS)
    green = is_green.astype(np.uint8)
    mask = cv2.morphologyEx(green, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    regions: list[Candidate] = []
    for label, (x, y, w, h, size) in enumerate(stats[1:count], start=1):
        if size < _GREENERY_AREA * picture.area:
            continue
        texture = _plant_texture(picture, labels == label)
        # A lawn is wide and doesn't reach up to the picture's upper edge.
        is_lawn = texture == "lawn" and y > 0 and w >= picture.width / 2
        is_leafy = texture == "leaves"
        if (is_lawn and kind != "leaves") or (is_leafy and kind != "lawn"):
            region = Candidate(box_of(x, y, w, h), float(size), GREENERY_SCORE, "region")
            regions = _with_joined(regions, region)
    return regions


def _with_joined(regions: list[Candidate], region: Candidate) -> list[Candidate]:
    """Return the regions and one more, which is joined with those whose boxes meet its own."""
    apart = []
    meeting = []
    for earlier in regions:
        if area(intersection(earlier.bbox, region.bbox)):
            meeting.append(earlier)
        else:
            apart.append(earlier)
    boxes = [region.bbox, *[earlier.bbox for earlier in meeting]]
    size = region.size + sum(earlier.size for earlier in meeting)
    return [*apart, replace(region, bbox=around(boxes), size=size)]


def _plant_texture(picture: Picture, region: Array) -> str | None:
    """Return whether a green region looks like a "lawn", like "leaves", or like neither (None).

    A lawn is fine-grained, leaves are coarse. A cloth is even, or shaded: its lightness spreads
    more than its texture explains. A fur is of many hues. ``region`` is True where the region is.
    """
    lightness, _, hue = picture.lch
    blurred_a_little = cv2.GaussianBlur(lightness, (0, 0), 1.5)
    blurred_much = cv2.GaussianBlur(lightness, (0, 0), 6.0)
    coarse_detail = np.abs(blurred_a_little - blurred_much)
    gray = picture.gray.astype(np.float32)
    fine_detail = cv2.blur(gray * gray, (5, 5)) - cv2.blur(gray, (5, 5)) ** 2  # local variance
    fineness = float(np.median(fine_detail[region]))
    coarseness = float(np.median(coarse_detail[region]))
    lightness_spread = float(lightness[region].std())
    low_hue, median_hue, high_hue = np.percentile(hue[region], [10, 50, 90])
    hue_spread = high_hue - low_hue
    if fineness < _LEAST_FINE_TEXTURE:
        return None
    if hue_spread > _MOST_HUE_SPREAD or median_hue > _MOST_PLANT_HUE:
        return None
    has_lawn_grain = coarseness >= _LEAST_LAWN_GRAIN * lightness_spread
    if coarseness <= _MOST_LAWN_COARSENESS and has_lawn_grain:
        return "lawn"
    has_leaf_grain = coarseness >= _LEAST_LEAF_GRAIN * lightness_spread
    is_of_hues = hue_spread > _LEAST_LEAF_HUE_SPREAD
    if coarseness >= _LEAST_LEAF_COARSENESS and has_leaf_grain and is_of_hues:
        return "leaves"
    return None
