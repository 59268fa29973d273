"""One image as the detectors see it: a reduced copy and what is computed from it once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dataflow_grounding.boxes.geometry import whole_pixels

Array: TypeAlias = npt.NDArray[Any]
Box = tuple[float, float, float, float]

_MOST_SIDE = 640  # px, of the reduced copy


def box_of(x: float, y: float, width: float, height: float) -> Box:
    """Return a box's corners (x1, y1, x2, y2) from OpenCV's upper left corner and size."""
    return float(x), float(y), float(x + width), float(y + height)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A thing that may be what a phrase names."""

    bbox: Box  # in pixels of the reduced copy
    score: float  # set by hand for this sort of evidence, from 0 to 1
    # "seen" by a detector or as a shape, a "region" of pixels, or "inferred" from these
    evidence: str


class Picture:
    """A BGR uint8 image (H, W, 3), and a reduced copy to work on: `width`, `height`, `area`."""

    def __init__(self, image: Array) -> None:
        self.full_height, self.full_width = image.shape[:2]
        scale = min(1.0, _MOST_SIDE / max(self.full_height, self.full_width))
        self.width: int = max(1, round(self.full_width * scale))
        self.height: int = max(1, round(self.full_height * scale))
        self.area = self.width * self.height
        size = (self.width, self.height)
        self.bgr: Array = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))

    @cached_property
    def gray(self) -> Array:
        """Luma, uint8 (h, w)."""
        return np.asarray(cv2.cvtColor(self.bgr, cv2.COLOR_BGR2GRAY))

    @cached_property
    def smooth(self) -> Array:
        """The copy without grain and JPEG ringing, by a median of 5 px: uint8 BGR (h, w, 3)."""
        return np.asarray(cv2.medianBlur(self.bgr, 5))

    @cached_property
    def lab(self) -> Array:
        """CIE L*a*b* (D65) of the smooth copy, float32 (h, w, 3), L in 0 to 100."""
        return np.asarray(
            cv2.cvtColor(self.smooth.astype(np.float32) / np.float32(255), cv2.COLOR_BGR2Lab)
        )

    @cached_property
    def lch(self) -> tuple[Array, Array, Array]:
        """Lightness 0 to 100, chroma, and hue in degrees 0 to 360, float32 (h, w) each."""
        lightness, a, b = cv2.split(self.lab)
        chroma, hue = cv2.cartToPolar(a, b, angleInDegrees=True)
        return np.asarray(lightness), np.asarray(chroma), np.asarray(hue)

    def around(self, bbox: Box, margin: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of the copy in a box with a margin: at least one of each."""
        x1, y1, x2, y2 = map(int, bbox)
        rows = _span(y1 - margin, y2 + margin, self.height)
        return rows, _span(x1 - margin, x2 + margin, self.width)

    def to_full(self, bbox: Box) -> list[int]:
        """Return a box of the reduced copy in whole pixels of the image, at least 1 px each way."""
        x_scale = self.full_width / self.width
        y_scale = self.full_height / self.height
        scaled = (bbox[0] * x_scale, bbox[1] * y_scale, bbox[2] * x_scale, bbox[3] * y_scale)
        return list(whole_pixels(scaled, (self.full_width, self.full_height)))


def _span(first: int, last: int, length: int) -> slice:
    """Return the pixels `first` to `last`, both of them, of a row of `length`: at least one."""
    start = min(max(first, 0), length - 1)
    return slice(start, min(max(last, start) + 1, length))
