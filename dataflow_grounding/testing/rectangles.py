"""Rectangles of plain colors, found in a picture as it was received.

A run's probe pictures are copies of its own pictures with rectangles drawn into them. A stand-in
for a model finds them as a model does: it looks at the pixels.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.images.files import open_picture
from dataflow_grounding.trust.probes import COLORS, color_of

LEAST = 4  # pixels of a rectangle: fewer may be anything
LIKE = 40  # that a channel may be off, of 255: JPEG changes colors, most at edges
FILLED = 0.85  # share of its box that an area of the color fills, if it is a rectangle
FULL = 0.5  # share of a row or column of pixels that is of the color, up to a rectangle's edge


def rectangles_in(encoded: str, phrases: Sequence[str]) -> dict[str, Bbox]:
    """Return the rectangles in a picture by the phrases that ask for them, in its pixels.

    Args:
        encoded: The picture's file in base64.
        phrases: Such as "the red rectangle". What isn't seen is left out.
    """
    with open_picture(io.BytesIO(base64.b64decode(encoded))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    boxes: dict[str, Bbox] = {}
    for phrase in phrases:
        color = COLORS.get(color_of(phrase))
        if color is not None:
            box = _largest(pixels, np.array(color))
            if box is not None:
                boxes[phrase] = box
    return boxes


def _largest(pixels: Any, color: Any) -> Bbox | None:
    is_like = cv2.inRange(pixels, color - LIKE, color + LIKE)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_like, connectivity=4)
    sizes = stats[:, cv2.CC_STAT_AREA]
    box_areas = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    is_rectangle = (sizes >= LEAST) & (sizes >= FILLED * box_areas)
    is_rectangle[0] = False  # what isn't of the color
    if not is_rectangle.any():
        return None
    label = np.where(is_rectangle, sizes, 0).argmax()
    left, top, width, height, _ = stats[label].tolist()
    is_area = labels[top : top + height, left : left + width] == label
    columns = left + np.flatnonzero(is_area.mean(axis=0) >= FULL)
    rows = top + np.flatnonzero(is_area.mean(axis=1) >= FULL)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
