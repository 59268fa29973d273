"""Rectangles of plain colors, found in a picture as it was received.

A run's probe pictures are copies of its own pictures with rectangles drawn into them. A stand-in
for a model finds them as a model does: it looks at the pixels.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.images.files import open_picture
from dataflow_grounding.trust.probes import COLORS

Block: TypeAlias = tuple[int, int]
"""The row and the column of a block of pixels, from 0."""
Pixels: TypeAlias = NDArray[np.int16]

# Only some pixels are looked at first: about FINEST of them along the shorter side, and more in
# large pictures, where they are MOST_APART pixels apart. Each of them says the color of a block.
FINEST = 100
MOST_APART = 4
LEAST_BLOCKS = 4  # that a rectangle has: fewer may be anything
LIKE = 40  # that a channel may be off, of 255: JPEG changes colors, most at edges
FILLED = 0.85  # share of its box that an area of the color fills, if it is a rectangle
FULL = 0.5  # share of a row or column of pixels that is of the color, up to a rectangle's edge


def rectangles_in(encoded: str, phrases: Sequence[str]) -> dict[str, Bbox]:
    """Return the boxes, in pixels, of rectangles that phrases name and that are seen."""
    with open_picture(io.BytesIO(base64.b64decode(encoded))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int16)
    boxes: dict[str, Bbox] = {}
    for phrase in phrases:
        _, color_name, *_ = phrase.split()  # "the", "red", "rectangle"
        color = COLORS.get(color_name)
        if color is None:  # the phrase names no rectangle of a probe picture
            continue
        box = _largest_rectangle(pixels, np.array(color, np.int16))
        if box is not None:
            boxes[phrase] = box
    return boxes


def _is_like(pixels: Pixels, color: Pixels) -> NDArray[np.bool_]:
    """Of each pixel, whether all its channels are near those of the colour."""
    return np.asarray((np.abs(pixels - color) <= LIKE).all(axis=-1))


def _largest_rectangle(pixels: Pixels, color: Pixels) -> Bbox | None:
    """The largest area of blocks of the colour that fills its box; None without one."""
    shorter_side = min(pixels.shape[:2])
    step = min(MOST_APART, max(1, shorter_side // FINEST))
    # One pixel in `step` rows and columns says of which colour a block is.
    is_of_color = _is_like(pixels[::step, ::step], color)
    blocks = {(row, column) for row, column in np.argwhere(is_of_color).tolist()}
    largest: list[Block] = []
    for area in _connected_areas(blocks):
        if len(area) > len(largest) and _is_filled(area):
            largest = area
    if len(largest) < LEAST_BLOCKS:
        return None
    # This box reaches from the first pixel that was looked at to the last. The rectangle may be
    # larger, by less than a step on each side.
    top, left = (step * np.array(largest).min(axis=0)).tolist()
    bottom, right = (step * np.array(largest).max(axis=0) + 1).tolist()
    return _grown_to_edges(pixels, color, (left, top, right, bottom))


def _connected_areas(unseen: set[Block]) -> Iterator[list[Block]]:
    """Areas in which every block has one next to it; `unseen` is emptied."""
    while unseen:
        area = [unseen.pop()]
        for row, column in area:  # the list grows meanwhile, until none has an unseen neighbor
            neighbors = (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)
            for neighbor in neighbors:
                if neighbor in unseen:
                    unseen.remove(neighbor)
                    area.append(neighbor)
        yield area


def _is_filled(area: Sequence[Block]) -> bool:
    rows = [row for row, _ in area]
    columns = [column for _, column in area]
    height = max(rows) - min(rows) + 1
    width = max(columns) - min(columns) + 1
    return len(area) >= FILLED * width * height


def _grown_to_edges(pixels: Pixels, color: Pixels, box: tuple[int, int, int, int]) -> Bbox:
    """Move each edge outwards while the next row or column of pixels is of the colour."""
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    while left > 0 and _is_like(pixels[top:bottom, left - 1], color).mean() >= FULL:
        left -= 1
    while right < width and _is_like(pixels[top:bottom, right], color).mean() >= FULL:
        right += 1
    while top > 0 and _is_like(pixels[top - 1, left:right], color).mean() >= FULL:
        top -= 1
    while bottom < height and _is_like(pixels[bottom, left:right], color).mean() >= FULL:
        bottom += 1
    return left, top, right, bottom
