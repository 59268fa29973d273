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

# Long side of the copy that is worked on, in pixels; small pictures are enlarged, up to twice.
WORKING_SIDE = 640


def box_of(x: float, y: float, width: float, height: float) -> Box:
    """Corners from OpenCV's corner and size."""
    return float(x), float(y), float(x + width), float(y + height)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A thing seen.

    ``bbox`` is x1, y1, x2, y2 in pixels of the reduced copy, ``size`` its own area in them.
    """

    bbox: Box
    size: float
    score: float
    evidence: str


class Picture:
    """A BGR uint8 image (H, W, 3) and a copy of at most 640 px to work on.

    What is derived is computed at first use.
    """

    def __init__(self, image: Array) -> None:
        self.full_height, self.full_width = image.shape[:2]
        scale = min(2.0, WORKING_SIDE / max(self.full_height, self.full_width))
        if 1.0 < scale < 1.5:
            scale = 1.0  # not worth the blur
        self.width: int = max(1, round(self.full_width * scale))
        self.height: int = max(1, round(self.full_height * scale))
        self.area = self.width * self.height
        how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
        size = (self.width, self.height)
        self.bgr: Array = image if scale == 1.0 else cv2.resize(image, size, interpolation=how)

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

    def to_full(self, bbox: Box) -> list[int]:
        """A box of the reduced copy in whole pixels of the image, at least 1 px each way."""
        sx = self.full_width / self.width
        sy = self.full_height / self.height
        scaled = (bbox[0] * sx, bbox[1] * sy, bbox[2] * sx, bbox[3] * sy)
        return list(whole_pixels(scaled, (self.full_width, self.full_height)))
