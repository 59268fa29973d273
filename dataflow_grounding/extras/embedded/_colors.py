"""Colour terms in CIE LCh, and the regions of a colour, of sky and of plants.

A colour's regions are those that several strictnesses of its reading agree on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import area, around, intersection, iou
from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._picture import Array, Box, Candidate, Picture, box_of

# Hand-set: the colour and the contrast were checked, the noun was not.
REGION_SCORE = 0.6
_AGREEMENT = 0.75  # IoU
_MIN_CONTRAST = 24.0  # ΔE (CIE 1976)
_MIN_CLEAR_SIDES = 0.8  # of the band around a region
_MAX_SPREAD = 10.5  # standard deviation of L*, a* or b*: what is plainly of one colour has less
# Strictnesses from loose to strict: degrees taken off each end of the hue, factor on the least
# chroma.
_STRICTNESSES = ((-3.0, 0.85), (0.0, 1.0), (1.5, 1.15))
# Hand-set; the region is seen; that it is sky or plants is a guess from how it looks.
SKY_SCORE = 0.75
GREENERY_SCORE = 0.7
# The least parts of the picture's area and of its width that a sky takes.
_SKY_AREA = 0.05
_SKY_WIDTH = 0.75
_CLEAR_SKY_WIDTH = 0.6
_SKY_BLUE = (4.0, 70.0)  # the mean of its -b*: no sky is of paint's blue
_SKY_SPREAD = 15.0  # the standard deviation of its -b*
# ΔL + Δa + Δb between the rows above and below one: more than a sky's own gradient has
_HORIZON = 16.0
# of a face's area: how much of a region must be below its chin at a side to say that it reaches
# there
_BESIDE = 0.05
_GREENERY_AREA = 0.05
_FINE = 40.0  # variance of gray within 5 px that all plants have
# coarseness of the texture, in L*: that of a lawn is at most, that of leaves at least
_LAWN = 1.8
_LEAVES = 2.0


def color_mask(
    term: str, lch: Sequence[Array], *, inset: float = 0.0, factor: float = 1.0
) -> Array:
    """Where the colour term holds: bool, shaped as each of the three arrays.

    Args:
        term: The colour term.
        lch: Lightness, 0 to 100; chroma; hue in degrees.
        inset: Degrees that are taken off each end of the term's hues.
        factor: On the term's least chroma.
    """
    lightness, chroma, hue = lch
    (least_hue, most_hue), (palest, purest), (darkest, lightest) = words.COLOR_BOUNDS[term]
    if term in ("red", "orange"):
        # The lighter of two colours between red and orange is the one called orange.
        hue = hue + np.float32(0.3) * (lightness - 50)
    low = least_hue + inset
    high = most_hue - inset
    holds = (
        (chroma >= palest * factor)
        & (chroma <= purest)
        & (lightness >= darkest)
        & (lightness <= lightest)
    )
    holds &= ((hue >= low) & (hue <= high)) | (hue <= high - 360)
    if term in ("blue", "purple"):
        # In Lab, deep blues and light purples share a hue; they differ in chroma for their
        # lightness.
        is_blue = (hue < 297) | (chroma >= 2.2 * lightness) & (hue < 312)
        holds &= is_blue if term == "blue" else ~is_blue
    return np.asarray(holds)


def color_matches(term: str, lab: Array) -> bool:
    """Whether one L*a*b* colour, that of a flat fill, may be called by the term."""
    lightness, a, b = map(float, lab)
    lch = np.array([lightness, np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360], np.float32)
    if term in words.CHROMATIC:
        return bool(color_mask(term, lch, inset=-2.0, factor=0.9))
    return bool(color_mask(term, lch))


@dataclass(frozen=True, slots=True)
class ColorRegion(Candidate):
    """A region of one colour.

    It is steady when a looser and a stricter reading give its box too and it stands out.
    """

    labels: tuple[int, ...]
    is_steady: bool = False


@dataclass(frozen=True, slots=True)
class ColorRegions:
    """The regions of a colour, largest first.

    ``whole`` is the largest with the pieces near it, ``total`` the size of all with all specks.
    """

    found: list[ColorRegion]
    whole: ColorRegion | None
    total: float


def find_regions(picture: Picture, term: str) -> ColorRegions:
    """The regions of a chromatic colour term with at least 3% of the largest one's size.

    Sizes are in reduced pixels.
    """
    read = []
    for inset, factor in _STRICTNESSES:
        mask = color_mask(term, picture.lch, inset=inset, factor=factor)
        read.append(_components(mask, picture))
    (_, loose), (labels, medium), (_, strict) = read

    def checked(
        region: ColorRegion, looser: list[ColorRegion], stricter: list[ColorRegion]
    ) -> ColorRegion:
        is_steady = (
            _has_alike(region, looser)
            and _has_alike(region, stricter)
            and _stands_out(picture, np.isin(labels, region.labels), region.bbox)
        )
        return replace(region, is_steady=is_steady)

    found = []
    whole: ColorRegion | None = None
    if medium:
        for region in medium:
            if region.size >= 0.03 * medium[0].size:
                found.append(checked(region, loose, strict))
        looser_wholes = [_grown(loose, picture)] if loose else []
        stricter_wholes = [_grown(strict, picture)] if strict else []
        whole = checked(_grown(medium, picture), looser_wholes, stricter_wholes)
    return ColorRegions(found, whole, float(np.count_nonzero(labels)))


def _has_alike(region: ColorRegion, others: list[ColorRegion]) -> bool:
    """Whether one of the others has nearly the region's box."""
    return any(iou(region.bbox, alike.bbox) >= _AGREEMENT for alike in others)


def _grown(regions: list[ColorRegion], picture: Picture) -> ColorRegion:
    """The largest region with all that lie near it, one after the other.

    Near is what lies within 3% of the picture's long side.
    """
    reach = 0.03 * max(picture.width, picture.height)
    grown = regions[0]
    left = [region for region in regions[1:] if region.size >= 0.01 * grown.size]
    while True:
        near = [region for region in left if _gap(region.bbox, grown.bbox) <= reach]
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
        left = [region for region in left if region not in near]


def _gap(first: Box, second: Box) -> float:
    """How far two boxes lie apart along the axis on which they are further apart."""
    across = max(first[0] - second[2], second[0] - first[2])
    down = max(first[1] - second[3], second[1] - first[3])
    return max(across, down)


def _components(mask: Array, picture: Picture) -> tuple[Array, list[ColorRegion]]:
    """The label image of a mask with small holes filled, and its regions, largest first.

    The regions are those that are more than specks.
    """
    side = max(3, round(max(picture.width, picture.height) / 100) | 1)
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)
    )
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    least = max(30, 0.0003 * picture.area)
    regions = []
    for label, (x, y, w, h, size) in enumerate(stats[1:], start=1):
        if size >= least:
            box = box_of(x, y, w, h)
            regions.append(ColorRegion(box, float(size), REGION_SCORE, "region", (label,)))
    return labels, sorted(regions, key=lambda region: (-region.size, region.bbox))


def _stands_out(picture: Picture, region: Array, box: Box) -> bool:
    """Whether the band around a region differs from its mean in L*a*b*.

    It should differ as a whole and nearly everywhere.
    """
    band = max(4, round(0.02 * max(picture.width, picture.height)))
    x1 = max(0, int(box[0]) - 2 * band)
    y1 = max(0, int(box[1]) - 2 * band)
    x2 = int(box[2]) + 2 * band
    y2 = int(box[3]) + 2 * band
    inside = region[y1:y2, x1:x2].astype(np.uint8)
    lab = picture.lab[y1:y2, x1:x2]
    near = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    around = cv2.dilate(inside, np.ones((2 * band + 1, 2 * band + 1), np.uint8)) - near
    mean = lab[inside > 0].mean(axis=0)
    band_lab = lab[around > 0]
    if not around.any() or lab[inside > 0].std(axis=0).max() > _MAX_SPREAD:
        return False
    contrast = np.linalg.norm(band_lab.mean(axis=0) - mean)
    clear = (np.linalg.norm(band_lab - mean, axis=1) >= 0.8 * _MIN_CONTRAST).mean()
    return bool(contrast >= _MIN_CONTRAST and clear >= _MIN_CLEAR_SIDES)


def find_sky(
    picture: Picture, color: str | None, faces: Callable[[], Iterable[Candidate]]
) -> list[Candidate]:
    """The smooth bluish area along the top, down to a horizon, if of the stated colour.

    A gray one may be a wall. So may a blue one be that is behind somebody: `faces` looks for what
    may be a face, and is called when all else speaks for a sky.
    """
    if picture.area < 32 * 32:
        return []
    region = _smooth_from_top(picture)
    size = int(region.sum())
    # A page or a wall reaches down to the lower edge; a sky has something below it.
    if size < _SKY_AREA * picture.area or region[-1].mean() > 0.25:
        return []
    lab = picture.lab[region > 0]
    mean = lab.mean(axis=0)
    # A bright blue one may be hidden in part, by a tree or a tower; a backdrop reaches further down
    # beside a person.
    is_clear = mean[2] < -15 and mean[0] > 40 and not region[round(0.6 * picture.height) :].any()
    least_width = _CLEAR_SKY_WIDTH if is_clear else _SKY_WIDTH
    is_wide = region[0].mean() >= least_width
    is_blue = _SKY_BLUE[0] <= -mean[2] <= _SKY_BLUE[1] and lab[:, 2].std() <= _SKY_SPREAD
    if not (is_wide and is_blue and (color in (None, "blue") or color_matches(color, mean))):
        return []
    if any(_is_wall_behind(face.bbox, region) for face in faces()):
        return []
    return [Candidate(box_of(*cv2.boundingRect(region)), float(size), SKY_SCORE, "region")]


def _is_wall_behind(face: Box, region: Array) -> bool:
    """Whether a region reaches so far down beside a face that it is no sky.

    It reaches below the chin at both sides, or at one down to the picture's lower edge. A sky ends
    above the chin at one side at least. Not behind somebody who is seen from below, over a low
    horizon: but nothing tells that from a wall over a floor, and a wrong box is worse than none.
    """
    x1, y1, x2, y2 = map(round, face)
    least = _BESIDE * (x2 - x1) * (y2 - y1)
    below_chin = (region[y2:, :x1], region[y2:, x2:])
    sides = [side for side in below_chin if side.sum() >= least]
    return len(sides) == 2 or any(side[-1].any() for side in sides)


def _smooth_from_top(picture: Picture) -> Array:
    """Where the picture is smooth, bluish or pale, and hangs together with its upper edge."""
    lightness, chroma, hue = picture.lch
    blurred = cv2.GaussianBlur(lightness, (0, 0), 1.5)
    slope = cv2.magnitude(
        cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    )
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
    """The first row at which the region changes all along, as from sky to sea.

    The picture's height where none does.
    """
    step = 8
    for row in range(step, picture.height - step):
        both = region[row - step] & region[row + step]
        if both.sum() >= 0.15 * picture.width:
            change = np.median(
                picture.lab[row + step][both] - picture.lab[row - step][both], axis=0
            )
            if np.abs(change).sum() > _HORIZON:
                return row
    return picture.height


def find_greenery(picture: Picture, kind: str = "greenery") -> list[Candidate]:
    """The green regions that look like a "lawn", like "leaves", or like either.

    Each has at least 5% of the picture's area.
    """
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
            region = Candidate(box_of(x, y, w, h), float(size), GREENERY_SCORE, "region")
            found = _joined(found, region)
    return found


def _joined(regions: list[Candidate], region: Candidate) -> list[Candidate]:
    """The regions and one more: those whose boxes meet its box are not apart from it."""
    apart, meeting = [], []
    for earlier in regions:
        if area(intersection(earlier.bbox, region.bbox)):
            meeting.append(earlier)
        else:
            apart.append(earlier)
    boxes = [region.bbox, *[earlier.bbox for earlier in meeting]]
    size = region.size + sum(earlier.size for earlier in meeting)
    return [*apart, replace(region, bbox=around(boxes), size=size)]


def _textures(picture: Picture, region: Array) -> tuple[bool, bool]:
    """Whether a green region looks like a lawn, and whether like leaves.

    A cloth is even or shaded, a fur many-hued: these are neither.
    """
    lightness, _, hue = picture.lch
    coarse = np.abs(
        cv2.GaussianBlur(lightness, (0, 0), 1.5) - cv2.GaussianBlur(lightness, (0, 0), 6.0)
    )
    gray = picture.gray.astype(np.float32)
    variance = cv2.blur(gray * gray, (5, 5)) - cv2.blur(gray, (5, 5)) ** 2
    fine = float(np.median(variance[region]))
    coarseness = float(np.median(coarse[region]))
    spread = float(lightness[region].std())
    low, middle, high = np.percentile(hue[region], [10, 50, 90])
    if fine < _FINE or high - low > 30 or middle > 140:
        return False, False
    is_lawn = coarseness <= _LAWN and coarseness >= 0.14 * spread
    is_leafy = coarseness >= _LEAVES and coarseness >= 0.18 * spread and high - low > 5
    return is_lawn, is_leafy
