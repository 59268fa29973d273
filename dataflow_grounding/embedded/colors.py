"""Colour terms in CIE LCh, and the regions of a colour that several strictnesses agree on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataflow_grounding.embedded.picture import Array, Box, Candidate, Picture
from dataflow_grounding.geometry import iou

# Hand-set: the colour and the contrast were checked, the noun was not.
REGION_SCORE = 0.6
_AGREEMENT = 0.75
_MIN_CONTRAST = 24.0
_MIN_CLEAR_SIDES = 0.8  # of the band around a region


@dataclass(frozen=True, slots=True)
class ColorTerm:
    """Bounds of a colour term: hue in degrees (may pass through 0), least chroma, lightness range."""

    hue: tuple[float, float]
    chroma: float
    lightness: tuple[float, float]


# Hand-set from where sRGB's named colours lie in LCh (D65).
TERMS = {
    "red": ColorTerm((12, 44), 45, (22, 70)),
    "orange": ColorTerm((44, 80), 46, (38, 95)),
    "yellow": ColorTerm((80, 113), 45, (66, 100)),
    "green": ColorTerm((112, 176), 24, (18, 100)),
    "cyan": ColorTerm((176, 226), 18, (35, 100)),
    "blue": ColorTerm((226, 312), 25, (8, 90)),
    "purple": ColorTerm((297, 338), 28, (12, 76)),
    "magenta": ColorTerm((318, 352), 60, (40, 80)),
    "pink": ColorTerm((325, 382), 18, (56, 95)),
}
# Strictnesses from loose to strict: degrees taken off each end of the hue, factor on the least chroma.
_STRICTNESSES = ((-3.0, 0.85), (0.0, 1.0), (1.5, 1.15))


def color_mask(
    term: str, lightness: Array, chroma: Array, hue: Array, *, inset: float = 0.0, factor: float = 1.0
) -> Array:
    """Where the colour term holds, bool, shaped as the three arrays (lightness 0 to 100, chroma, hue in degrees)."""
    bounds = TERMS[term]
    if term in ("red", "orange"):
        # The lighter of two colours between red and orange is the one called orange.
        hue = hue + np.float32(0.3) * (lightness - 50)
    low, high = bounds.hue[0] + inset, bounds.hue[1] - inset
    holds = (chroma >= bounds.chroma * factor) & (lightness >= bounds.lightness[0]) & (lightness <= bounds.lightness[1])
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
class ColorRegion:
    """A region of one colour; steady when a looser and a stricter reading give its box too and it stands out."""

    candidate: Candidate
    is_steady: bool


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
    lightness, chroma, hue = picture.lch
    masks = [
        _tidied(color_mask(term, lightness, chroma, hue, inset=inset, factor=factor), picture)
        for inset, factor in _STRICTNESSES
    ]
    loose, medium, strict = (_components(mask, picture.area) for mask in masks)
    found = []
    for component in medium.parts:
        if component.size < 0.03 * medium.parts[0].size:
            break
        agreed = _has(loose, component.bbox) and _has(strict, component.bbox)
        is_steady = agreed and _stands_out(picture, medium.labels == component.labels[0], component.bbox)
        found.append(ColorRegion(Candidate(component.bbox, component.size, REGION_SCORE, "region"), is_steady))
    whole = _read_whole(picture, loose, medium, strict) if found else None
    return ColorRegions(found, whole, float(masks[1].sum()))


def _has(level: _Level, bbox: Box) -> bool:
    return any(iou(bbox, part.bbox) >= _AGREEMENT for part in level.parts)


def _read_whole(picture: Picture, loose: _Level, medium: _Level, strict: _Level) -> ColorRegion:
    whole = _grown(medium.parts, picture)
    is_steady = all(
        bool(level.parts) and iou(whole.bbox, _grown(level.parts, picture).bbox) >= _AGREEMENT
        for level in (loose, strict)
    )
    is_steady = is_steady and _stands_out(picture, np.isin(medium.labels, whole.labels), whole.bbox)
    return ColorRegion(Candidate(whole.bbox, whole.size, REGION_SCORE, "region"), is_steady)


@dataclass(frozen=True, slots=True)
class _Component:
    bbox: Box
    size: float
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Level:
    """One strictness: the label image and its components, largest first."""

    labels: Array
    parts: list[_Component]


def _grown(parts: list[_Component], picture: Picture) -> _Component:
    """The largest component with all that lie within 3% of the picture's long side of it, one after the other."""
    reach = 0.03 * max(picture.width, picture.height)
    box, labels, size = parts[0].bbox, parts[0].labels, parts[0].size
    left = [part for part in parts[1:] if part.size >= 0.01 * size]
    while near := [part for part in left if _gap(part.bbox, box) <= reach]:
        boxes = [box, *(part.bbox for part in near)]
        box = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        labels += tuple(part.labels[0] for part in near)
        size += sum(part.size for part in near)
        left = [part for part in left if part not in near]
    return _Component(box, size, labels)


def _gap(one: Box, other: Box) -> float:
    return max(one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3])


def _tidied(mask: Array, picture: Picture) -> Array:
    side = max(3, round(max(picture.width, picture.height) / 100) | 1)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def _components(mask: Array, area: int) -> _Level:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    parts = [
        _Component((float(x), float(y), float(x + w), float(y + h)), float(size), (label,))
        for label, (x, y, w, h, size) in enumerate(stats[1:count], start=1)
        if size >= max(30, 0.0003 * area)
    ]
    return _Level(labels, sorted(parts, key=lambda part: (-part.size, part.bbox)))


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
    if float(np.linalg.norm(band_lab.mean(axis=0) - mean)) < _MIN_CONTRAST:
        return False
    return float((np.linalg.norm(band_lab - mean, axis=1) >= 0.8 * _MIN_CONTRAST).mean()) >= _MIN_CLEAR_SIDES
