"""Colour terms in CIE LCh, and the regions of a colour that several strictnesses agree on."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataflow_grounding.embedded import words
from dataflow_grounding.embedded.picture import Array, Box, Candidate, Picture, box_of
from dataflow_grounding.geometry import around, iou

# Hand-set: the colour and the contrast were checked, the noun was not.
REGION_SCORE = 0.6
_AGREEMENT = 0.75
_MIN_CONTRAST = 24.0
_MIN_CLEAR_SIDES = 0.8  # of the band around a region
_MAX_SPREAD = 10.5  # standard deviation of L*, a* or b*: what is plainly of one colour has less
# Strictnesses from loose to strict: degrees taken off each end of the hue, factor on the least chroma.
_STRICTNESSES = ((-3.0, 0.85), (0.0, 1.0), (1.5, 1.15))


def color_mask(
    term: str, lightness: Array, chroma: Array, hue: Array, *, inset: float = 0.0, factor: float = 1.0
) -> Array:
    """Where the colour term holds, bool, shaped as the three arrays (lightness 0 to 100, chroma, hue in degrees)."""
    (least_hue, most_hue), least_chroma, (darkest, lightest) = words.COLOR_BOUNDS[term]
    if term in ("red", "orange"):
        # The lighter of two colours between red and orange is the one called orange.
        hue = hue + np.float32(0.3) * (lightness - 50)
    low, high = least_hue + inset, most_hue - inset
    holds = (chroma >= least_chroma * factor) & (lightness >= darkest) & (lightness <= lightest)
    holds &= ((hue >= low) & (hue <= high)) | (hue <= high - 360)
    if term in ("blue", "purple"):
        # In Lab, deep blues and light purples share a hue; they differ in chroma for their lightness.
        is_blue = (hue < 297) | (chroma >= 2.2 * lightness) & (hue < 312)
        holds &= is_blue if term == "blue" else ~is_blue
    return np.asarray(holds)


def dull_masks(lightness: Array, chroma: Array, hue: Array) -> dict[str, Array]:
    """Where black, white, gray and brown hold, bool, shaped as the three arrays (lightness 0 to 100, chroma, hue)."""
    brown = (lightness > 15) & (lightness < 55) & (chroma > 15) & (chroma < 60) & (hue > 30) & (hue < 85)
    gray = (lightness > 25) & (lightness < 88) & (chroma < 10)
    masks = {"black": (lightness < 20) & (chroma < 12), "white": (lightness > 88) & (chroma < 10)}
    return {**masks, "gray": gray, "brown": brown}


def color_matches(term: str, lab: Array) -> bool:
    """Whether one L*a*b* colour may be called by the term; for flat fills, so black, white, gray and brown too."""
    lightness, a, b = (float(v) for v in lab)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)) % 360)
    dull = dull_masks(np.float64(lightness), np.float64(chroma), np.float64(hue))
    if term in dull:
        return bool(dull[term])
    return bool(color_mask(term, np.float32(lightness), np.float32(chroma), np.float32(hue), inset=-2.0, factor=0.9))


@dataclass(frozen=True, slots=True)
class ColorRegion(Candidate):
    """A region of one colour; steady when a looser and a stricter reading give its box too and it stands out."""

    labels: tuple[int, ...]
    is_steady: bool = False


@dataclass(frozen=True, slots=True)
class ColorRegions:
    """The regions of a colour, largest first; ``total``: with all specks; ``whole``: the largest, pieces joined."""

    found: list[ColorRegion]
    whole: ColorRegion | None
    total: float


def find_regions(picture: Picture, term: str) -> ColorRegions:
    """The regions of a chromatic colour term that have at least 3% of the largest one's size.

    A region is steady when a looser and a stricter reading of the term give the same box (IoU of at least 0.75) and it
    stands out from its surroundings by at least 24 ΔE (CIE 1976), on nearly all sides. Sizes are reduced pixels.
    """
    read = (color_mask(term, *picture.lch, inset=inset, factor=factor) for inset, factor in _STRICTNESSES)
    masks = [_tidied(mask, picture) for mask in read]
    (_, loose), (labels, medium), (_, strict) = (_components(mask, picture.area) for mask in masks)

    def checked(region: ColorRegion, others: list[list[ColorRegion]]) -> ColorRegion:
        agreed = all(any(iou(region.bbox, one.bbox) >= _AGREEMENT for one in other) for other in others)
        return replace(region, is_steady=agreed and _stands_out(picture, np.isin(labels, region.labels), region.bbox))

    found = [checked(r, [loose, strict]) for r in medium if r.size >= 0.03 * medium[0].size]
    wholes = [[_grown(level, picture)] if level else [] for level in (loose, strict)]
    whole = checked(_grown(medium, picture), wholes) if found else None
    return ColorRegions(found, whole, float(masks[1].sum()))


def _grown(regions: list[ColorRegion], picture: Picture) -> ColorRegion:
    """The largest region with all that lie within 3% of the picture's long side of it, one after the other."""
    reach = 0.03 * max(picture.width, picture.height)
    grown = regions[0]
    left = [region for region in regions[1:] if region.size >= 0.01 * grown.size]
    while near := [region for region in left if _gap(region.bbox, grown.bbox) <= reach]:
        parts = [grown, *near]
        box, size = around([part.bbox for part in parts]), sum(part.size for part in parts)
        grown = replace(grown, bbox=box, size=size, labels=tuple(label for part in parts for label in part.labels))
        left = [region for region in left if region not in near]
    return grown


def _gap(one: Box, other: Box) -> float:
    return max(one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3])


def _tidied(mask: Array, picture: Picture) -> Array:
    side = max(3, round(max(picture.width, picture.height) / 100) | 1)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def _components(mask: Array, area: int) -> tuple[Array, list[ColorRegion]]:
    """The label image, and the regions that are more than specks, largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    regions = [
        ColorRegion(box_of(x, y, w, h), float(size), REGION_SCORE, "region", (label,))
        for label, (x, y, w, h, size) in enumerate(stats[1:count], start=1)
        if size >= max(30, 0.0003 * area)
    ]
    return labels, sorted(regions, key=lambda region: (-region.size, region.bbox))


def _stands_out(picture: Picture, region: Array, box: Box) -> bool:
    """Whether the band around a region differs from its mean in L*a*b*, as a whole and nearly everywhere."""
    band = max(4, round(0.02 * max(picture.width, picture.height)))
    x1, y1 = max(0, int(box[0]) - 2 * band), max(0, int(box[1]) - 2 * band)
    x2, y2 = int(box[2]) + 2 * band, int(box[3]) + 2 * band
    inside = region[y1:y2, x1:x2].astype(np.uint8)
    lab = picture.lab[y1:y2, x1:x2]
    near = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    around = cv2.dilate(inside, np.ones((2 * band + 1, 2 * band + 1), np.uint8)) - near
    if not around.any():
        return False
    mean, band_lab = lab[inside > 0].mean(axis=0), lab[around > 0]
    contrast = float(np.linalg.norm(band_lab.mean(axis=0) - mean))
    if lab[inside > 0].std(axis=0).max() > _MAX_SPREAD or contrast < _MIN_CONTRAST:
        return False
    return float((np.linalg.norm(band_lab - mean, axis=1) >= 0.8 * _MIN_CONTRAST).mean()) >= _MIN_CLEAR_SIDES
