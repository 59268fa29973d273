"""Colour terms in CIE LCh, and the regions of a colour.

A colour term is a range of hue, chroma and lightness (`color_bounds` in words.yaml). A region is
believed where looser and stricter ranges give the same box: its border then doesn't depend on where
the range ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import around, iou
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._picture import Array, Box, Candidate, Picture, box_of

# Hand-set: the colour and the contrast were checked, the noun was not.
REGION_SCORE = 0.6
_LEAST_OF_LARGEST = 0.03  # of the largest region's size; smaller ones are left out
_STEADY_IOU = 0.75  # of a region's boxes by a looser and a stricter reading of its colour
_MIN_CONTRAST = 24.0  # ΔE (CIE 1976)
_MIN_CLEAR_BAND = 0.8  # of the pixels in the band around a region
_MAX_SPREAD = 10.5  # standard deviation of L*, a* or b*: what is plainly of one colour has less


# How a colour term is read, loosely to strictly: degrees that are taken off each end of its hues,
# and a factor on its least chroma.
_READINGS = ((-3.0, 0.85), (0.0, 1.0), (1.5, 1.15))


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
    # Deep blues and light purples share the hues from 297 to 312 degrees: blues have more chroma
    # for their lightness.
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
    """

    regions: list[ColorRegion]
    whole: ColorRegion | None


def find_regions(picture: Picture, term: str) -> ColorRegions:
    """Return the regions of a chromatic colour term, each with whether it is steady.

    The colour is read three times, loosely to strictly: what has a clear border then keeps its box.
    Regions are those of the medium reading.
    """
    masks = [color_mask(term, picture.lch, inset=inset, factor=by) for inset, by in _READINGS]
    (_, loose), (labels, medium), (_, strict) = [_regions_of(mask, picture) for mask in masks]

    def judged(region: ColorRegion, others: Sequence[list[ColorRegion]]) -> ColorRegion:
        is_steady = all(
            any(iou(region.bbox, other.bbox) >= _STEADY_IOU for other in regions)
            for regions in others
        )
        is_of_region = np.isin(labels, region.labels)
        is_steady = is_steady and _stands_out(picture, is_of_region, region.bbox)
        return replace(region, is_steady=is_steady)

    if not medium:
        return ColorRegions([], None)
    least = _LEAST_OF_LARGEST * medium[0].size
    regions = [judged(region, (loose, strict)) for region in medium if region.size >= least]
    joined = [[_joined_to_largest(each, picture)] if each else [] for each in (loose, strict)]
    return ColorRegions(regions, judged(_joined_to_largest(medium, picture), joined))


def _joined_to_largest(regions: list[ColorRegion], picture: Picture) -> ColorRegion:
    # Near is what lies within 3% of the picture's long side. Pieces below 1% of the largest region
    # aren't joined. Without anything near, the largest itself is returned. ``regions`` has at least
    # one, the largest first.
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
    # The unit is a pixel; where they overlap on both axes, the gap is negative.
    across = max(first[0] - second[2], second[0] - first[2])
    down = max(first[1] - second[3], second[1] - first[3])
    return max(across, down)


def _regions_of(mask: Array, picture: Picture) -> tuple[Array, list[ColorRegion]]:
    # Small holes are filled before, and what is thinner than 3 px is removed. In the label image
    # the pixels of each region have the region's label, others 0. Specks have a label but are no
    # regions. Whether a region is steady isn't known here: ``is_steady`` is False.
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
    # The band leaves out the pixels at the region's very edge, which are of mixed colour. A region
    # doesn't stand out if it is itself of many colours, or fills the picture and has no band.
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
