"""A model that is shown a picture reduced, and sees nothing in it that is too small then."""

from __future__ import annotations

import math
import random
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.testing import ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES
from dataflow_grounding.trust.probes import COLORS as PROBE_COLORS
from tests.support.stand_ins.seeing_model import COLORS, picture_in


class LimitedModel:
    """Answers `phrase_grounding` for phrases such as "the red box", with each box of that colour,
    in thousandths of the picture.

    It is shown at most `most_side` px a side, and sees nothing there whose area is under that of a
    square of `least_side` px. `noise` is the standard deviation of an edge, as a share of the side.
    It sees the rectangles of probe pictures, too.
    """

    reads = IMAGES

    def __init__(
        self, most_side: int = 1000, least_side: float = 16, noise: float = 0.0, seed: int = 0
    ) -> None:
        self._most_side = most_side
        self._least_side = least_side
        self._noise = noise
        self._seed = seed

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The objects that it sees."""
        from PIL import Image

        picture = picture_in(request)
        width, height = picture.size
        scale = min(1.0, self._most_side / max(width, height))
        if scale < 1:
            size = (round(width * scale), round(height * scale))
            picture = picture.resize(size, Image.Resampling.BOX)
        chance = random.Random(f"{self._seed}/{request.text}/{request.image_digests}")
        objects = []
        for phrase in request.input["phrases"]:
            _, color, kind = phrase["text"].split()
            is_probe = kind == "rectangle"
            rgb = PROBE_COLORS[color] if is_probe else COLORS[color]
            for bbox in boxes_of_color(picture, rgb, 16 if is_probe else 50):
                if math.sqrt((bbox[2] - bbox[0]) * (bbox[3] - bbox[1])) < self._least_side:
                    continue
                numbers = []
                for place, edge in enumerate(bbox):
                    share = edge / picture.size[place % 2] + chance.gauss(0, self._noise)
                    numbers.append(min(1000, max(0, round(1000 * share))))
                objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": numbers})
        return {"objects": objects}


def boxes_of_color(picture: Any, color: tuple[int, int, int], near: int) -> list[Bbox]:
    """Return the box around each connected area of a colour; a channel may differ by `near`."""
    import cv2
    import numpy

    low, high = (numpy.array([min(max(n + off, 0), 255) for n in color]) for off in (-near, near))
    mask = cv2.inRange(numpy.asarray(picture), low, high)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    boxes = []
    for left, top, width, height, _ in stats[1:]:
        boxes.append((float(left), float(top), float(left + width), float(top + height)))
    return boxes
