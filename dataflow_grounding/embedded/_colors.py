"""Colour terms in CIE LCh, and the regions of a colour.

Arrays are of the picture's reduced copy. A mask is 1 (or true) where something holds, else 0.

A colour term is a range of hue, chroma and lightness (`color_bounds` in words.yaml). A region is
believed where looser and stricter ranges give the same box: its border then doesn't depend on where
the range ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._picture import Array, Candidate, Picture, box_of

# Hand-set: the colour and the contrast were checked, the noun was not.
_REGION_SCORE = 0.6
_LEAST_OF_LARGEST = 0.03  # of the largest region's size; smaller ones are left out
_STEADY_IOU = 0.75  # of a region's boxes by a looser and a stricter reading of its colour
# How much a region's mean colour differs at least from what is around it, in ΔE (CIE 1976): from
# the mean there, and from most of the single pixels, which vary.
_MIN_CONTRAST = 24.0
_MIN_PIXEL_CONTRAST = 0.8 * _MIN_CONTRAST
_MIN_CLEAR_BAND = 0.8  # of the pixels in the band around a region: this part has that contrast
_MAX_SPREAD = 10.5  # standard deviation of L*, a* or b*: what is plainly of one colour has less
# Widest gap in parts of the picture's long side: between pixels of one region, and between regions
# that are pieces of one thing.
_HOLE = 0.01
_REACH = 0.04
# How a colour term is read, loosely to strictly: degrees that are taken off each end of its hues,
# and a factor on its least chroma.
_READINGS = ((-3.0, 0.85), (0.0, 1.0), (1.5, 1.15))


def color_mask(
    term: str, lch: Sequence[Array], *, inset: float = 0.0, factor: float = 1.0
) -> Array:
    """Return for each pixel whether a colour term holds, `lch` being as in Picture.

    `inset` degrees are taken off each end of its hues; its least chroma is multiplied by `factor`.
    """
    lightness, chroma, hue = lch
    hue_bounds, chroma_bounds, lightness_bounds = words.COLOR_BOUNDS[term]  # [least, most] each
    has_chroma = (chroma >= chroma_bounds[0] * factor) & (chroma <= chroma_bounds[1])
    has_lightness = (lightness >= lightness_bounds[0]) & (lightness <= lightness_bounds[1])
    if term in ("red", "orange"):
        # Of two colours of one hue, people call the darker one red and the lighter one orange. So
        # the hue of lighter pixels is moved on towards orange.
        hue = hue + np.float32(0.3) * (lightness - 50)
    # A range that goes through 0 ends above 360: pink, from 325 to 382, holds from 0 to 22, too.
    first_hue = hue_bounds[0] + inset
    last_hue = hue_bounds[1] - inset
    has_hue = ((hue >= first_hue) & (hue <= last_hue)) | (hue <= last_hue - 360)
    holds = has_hue & has_chroma & has_lightness
    # The ranges of blue and purple overlap: `_is_blue` decides between them.
    if term == "blue":
        holds &= _is_blue(lightness, chroma, hue)
    elif term == "purple":
        holds &= ~_is_blue(lightness, chroma, hue)
    return np.asarray(holds)


def _is_blue(lightness: Array, chroma: Array, hue: Array) -> Array:
    """Tell deep blues from light purples, which have less chroma for their lightness."""
    is_deep = chroma >= 2.2 * lightness
    return np.asarray((hue < 297) | ((hue < 312) & is_deep))


@dataclass(frozen=True, slots=True)
class ColorRegion(Candidate):
    pixels: Array  # 1 where it is, else 0: uint8, of the reduced copy's size
    size: int  # in pixels
    # a looser and a stricter reading give nearly the same box, and it stands out
    is_steady: bool = False


def find_regions(picture: Picture, term: str, *, joined: bool = False) -> list[ColorRegion]:
    """Return the regions of a colour, the largest first; `joined` unites pieces with small gaps."""
    # A region with a clear border has the same box by each reading, and is steady.
    readings = []
    for inset, factor in _READINGS:
        mask = color_mask(term, picture.lch, inset=inset, factor=factor)
        readings.append(_regions_of(mask, picture, joined))
    loose, medium, strict = readings
    regions = []
    for region in medium:
        if region.size < _LEAST_OF_LARGEST * medium[0].size:
            break  # all others are smaller still
        is_in_both = _is_like_any(region, loose) and _is_like_any(region, strict)
        is_steady = is_in_both and _stands_out(picture, region)
        regions.append(replace(region, is_steady=is_steady))
    return regions


def _is_like_any(region: ColorRegion, others: Sequence[ColorRegion]) -> bool:
    return any(iou(region.bbox, other.bbox) >= _STEADY_IOU for other in others)


def _regions_of(mask: Array, picture: Picture, joined: bool) -> list[ColorRegion]:
    """Return a mask's regions, the largest first, without small holes and thin parts."""
    closed = _with_gaps_filled(mask.astype(np.uint8), _HOLE, picture)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    grouped = _with_gaps_filled(opened, _REACH, picture) if joined else opened
    _, labels, stats, _ = cv2.connectedComponentsWithStats(grouped)
    most_of_speck = max(30, 0.0003 * picture.area)  # in pixels
    regions = []
    for label in range(1, len(stats)):  # 0 is the background
        if stats[label, cv2.CC_STAT_AREA] >= most_of_speck:
            pixels = opened & (labels == label).astype(np.uint8)  # without the larger gaps
            box = box_of(*cv2.boundingRect(pixels))
            size = cv2.countNonZero(pixels)
            regions.append(ColorRegion(box, _REGION_SCORE, "region", pixels, size))
    return sorted(regions, key=lambda region: (-region.size, region.bbox))


def _with_gaps_filled(mask: Array, gap: float, picture: Picture) -> Array:
    side = max(3, round(gap * max(picture.width, picture.height)) | 1)  # an odd number of pixels
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)))


def _stands_out(picture: Picture, region: ColorRegion) -> bool:
    """Return whether a region is of one colour, which differs from that of a band around it."""
    band_width = max(4, round(0.02 * max(picture.width, picture.height)))
    part = picture.around(region.bbox, 2 * band_width)  # the region with more than the band
    inside = region.pixels[part]
    lab = picture.lab[part]
    # the 2 px next to the region are left out: at its edge, colours mix
    is_band = grown(inside, band_width) - grown(inside, 2)
    region_lab = lab[inside > 0]
    region_mean = region_lab.mean(axis=0)
    is_of_many_colors = region_lab.std(axis=0).max() > _MAX_SPREAD
    if is_of_many_colors or not is_band.any():  # without a band, it fills the picture
        return False
    band_lab = lab[is_band > 0]
    contrast = np.linalg.norm(band_lab.mean(axis=0) - region_mean)
    # for each pixel of the band, whether its own colour differs enough
    differs = np.linalg.norm(band_lab - region_mean, axis=1) >= _MIN_PIXEL_CONTRAST
    return bool(contrast >= _MIN_CONTRAST and differs.mean() >= _MIN_CLEAR_BAND)


def grown(mask: Array, pixels: int) -> Array:
    """Return the mask with all that is up to this many pixels away from it."""
    side = 2 * pixels + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)))
