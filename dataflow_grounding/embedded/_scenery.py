"""Sky and plants: regions that are told by colour and texture."""

from collections.abc import Sequence

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import area, around, intersection
from dataflow_grounding.embedded._picture import Array, Box, Candidate, Picture, box_of

# Hand-set; the region is seen; that it is sky or plants is a guess from how it looks.
_SKY_SCORE = 0.75
_GREENERY_SCORE = 0.7
# The least parts of the picture's area and of its width that a sky takes.
_SKY_AREA = 0.05
_SKY_WIDTH = 0.75
_MOST_OF_LAST_ROW = 0.25  # of the picture's width: a page or a wall reaches the lower edge
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
_GREENERY_AREA = 0.05  # of the picture's area: plants take at least as much
_GREEN_HUES = (98, 172)  # degrees
_LEAST_GREEN_CHROMA = 12
_LEAST_GREEN_LIGHTNESS = 10
_LEAST_TEXTURE = 40.0  # variance of gray within 5 px: all plants have more, a cloth has less
_MOST_PLANT_HUE = 140  # median, in degrees


def find_sky(picture: Picture) -> list[Candidate]:
    """Return the smooth bluish area along the top, down to a horizon; a grey one may be a wall."""
    if picture.area < _LEAST_SKY_PICTURE:
        return []
    region = _smooth_from_top(picture)
    is_large = int(region.sum()) >= _SKY_AREA * picture.area
    is_wide = region[0].mean() >= _SKY_WIDTH
    ends_above = region[-1].mean() <= _MOST_OF_LAST_ROW
    if not (is_large and is_wide and ends_above):
        return []
    blueness = -picture.lab[region > 0][:, 2]  # -b*: above 0 for blue, below for yellow
    least_blue, most_blue = _SKY_BLUE
    is_sky_blue = least_blue <= blueness.mean() <= most_blue
    if not is_sky_blue or blueness.std() > _SKY_SPREAD:
        return []
    return [Candidate(box_of(*cv2.boundingRect(region)), _SKY_SCORE, "region")]


def _smooth_from_top(picture: Picture) -> Array:
    """Return where it is smooth, bluish or pale from its upper edge on, down to the horizon."""
    may_be_sky = _may_be_sky(picture)
    # Opening takes away narrow bridges, by which other bright things are connected to the sky.
    smooth = cv2.morphologyEx(may_be_sky, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    # Closing connects the pieces of a sky that wires, poles and branches cut apart.
    side = max(5, round(0.03 * picture.width) | 1)  # an odd number of pixels
    connected = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((1, side), np.uint8))
    region = _parts_at_top(connected, picture) & smooth  # without the wires
    horizon_row = _horizon(picture, region > 0)
    region[horizon_row:] = 0
    return region


def _may_be_sky(picture: Picture) -> Array:
    """Return which pixels are bluish or pale, with even lightness around them."""
    lightness, chroma, hue = picture.lch
    blurred = cv2.GaussianBlur(lightness, (0, 0), 1.5)
    slope_across = cv2.Sobel(blurred, cv2.CV_32F, 1, 0)
    slope_down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    is_even = cv2.magnitude(slope_across, slope_down) < _MOST_SKY_SLOPE
    least_hue, most_hue = _SKY_HUES
    is_blue = (hue > least_hue) & (hue < most_hue) & (chroma > _LEAST_SKY_CHROMA)
    is_pale = (lightness > _LEAST_PALE_LIGHTNESS) & (chroma < _MOST_PALE_CHROMA)
    return (is_even & (is_blue | is_pale)).astype(np.uint8)


def _parts_at_top(mask: Array, picture: Picture) -> Array:
    """Return the connected parts of a mask that take much of the picture's first row."""
    _, labels = cv2.connectedComponents(mask, connectivity=4)  # of each pixel its part's number
    labels_of_first_row = labels[0][mask[0] > 0]
    parts, widths = np.unique(labels_of_first_row, return_counts=True)
    wide_parts = parts[widths >= _LEAST_PART_OF_ROW * picture.width]
    return np.isin(labels, wide_parts).astype(np.uint8)


def _horizon(picture: Picture, region: Array) -> int:
    """Return the first row at which the region's colour changes all along, else the height."""
    step = 8  # rows above and below, whose colours are compared
    for row in range(step, picture.height - step):
        in_both_rows = region[row - step] & region[row + step]
        if in_both_rows.sum() < _LEAST_HORIZON * picture.width:
            continue  # too few pixels to tell
        above = picture.lab[row - step][in_both_rows]
        below = picture.lab[row + step][in_both_rows]
        if np.abs(np.median(below - above, axis=0)).sum() > _HORIZON_CHANGE:
            return row
    return picture.height


def find_greenery(picture: Picture) -> list[Candidate]:
    """Return the large green regions of a plant's texture, as one where their boxes overlap."""
    gray = picture.gray.astype(np.float32)
    # of 5 x 5 pixels, the mean of their squares minus the square of their mean
    variance = cv2.blur(gray * gray, (5, 5)) - cv2.blur(gray, (5, 5)) ** 2
    _, _, hue = picture.lch
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_green_areas(picture))
    boxes: list[Box] = []
    for label, (x, y, width, height, size) in enumerate(stats[1:], start=1):  # 0: all else
        if size < _GREENERY_AREA * picture.area:
            continue
        region = labels == label
        is_textured = np.median(variance[region]) >= _LEAST_TEXTURE
        has_hue_of_plants = np.median(hue[region]) <= _MOST_PLANT_HUE
        if is_textured and has_hue_of_plants:
            boxes = _with_box_joined(boxes, box_of(x, y, width, height))
    return [Candidate(box, _GREENERY_SCORE, "region") for box in boxes]


def _green_areas(picture: Picture) -> Array:
    """Return which pixels are green, without specks and small gaps."""
    lightness, chroma, hue = picture.lch
    least_hue, most_hue = _GREEN_HUES
    is_green = (hue > least_hue) & (hue < most_hue)
    is_green &= (chroma > _LEAST_GREEN_CHROMA) & (lightness > _LEAST_GREEN_LIGHTNESS)
    green = is_green.astype(np.uint8)
    without_specks = cv2.morphologyEx(green, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return cv2.morphologyEx(without_specks, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))


def _with_box_joined(boxes: Sequence[Box], box: Box) -> list[Box]:
    """Return the boxes and one more, which takes in those that it overlaps, and so grows."""
    grown = box
    apart = []
    for other in boxes:
        if area(intersection(other, grown)):
            grown = around([other, grown])
        else:
            apart.append(other)
    return [*apart, grown]
