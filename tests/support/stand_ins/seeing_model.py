"""A model that really looks: it finds coloured boxes in the picture that it is sent, and errs as
real ones do.
"""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.testing import ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES
from dataflow_grounding.trust.probes import COLORS as PROBE_COLORS

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (230, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 230),
    "yellow": (230, 230, 20),
    "pink": (240, 20, 240),
    "cyan": (20, 230, 230),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
GROUND = (128, 128, 128)
MODEL = "qwen2.5-vl-7b-instruct"  # counts pixels: its frames are measured before a run


Resize = Callable[[int, int], tuple[float, float]]
SEEN: dict[tuple[str, bool], tuple[Size, dict[str, list[Bbox]]]] = {}
"""What was seen in pictures, by their digest and whether they are probes: of all models in this
process, as each calibration sends the same probes.
"""


def draw(path: str, size: Size, boxes: dict[str, list[Bbox]]) -> None:
    """Write a PNG with the boxes of each colour, in whole pixels."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(picture)
    for color, found in boxes.items():
        for x1, y1, x2, y2 in found:
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLORS[color])
    picture.save(path, compress_level=1)  # encoding takes most of a test's time


class SeeingModel:
    """Answers `phrase_grounding` for phrases such as "the red box".

    `noise` is the standard deviation of an edge, as a share of the side of the picture sent;
    `missing` and `mislabelled` are shares of boxes left out, or another colour's. Two answers to
    the same question differ; the same run gives the same answers, for any order of requests. With
    `resized`, a server's rule from sizes as sent to those that the model sees, numbers are pixels
    of that picture. It sees a calibration's probes, too.
    """

    reads = IMAGES

    def __init__(
        self,
        box_format: str = "xyxy_1000",
        *,
        resized: Resize | None = None,
        noise: float = 0.0,
        missing: float = 0.0,
        mislabelled: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._format = find_box_format(box_format, "")
        self._resized = resized
        self._noise, self._missing, self._mislabelled, self._seed = (
            noise,
            missing,
            mislabelled,
            seed,
        )
        self._asked: Counter[str] = Counter()

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The objects that it sees."""
        question = f"{request.text}/{request.image_digests}"
        self._asked[question] += 1
        chance = random.Random(f"{self._seed}/{self._asked[question]}/{question}")
        [image] = request.images
        is_probe = request.input["phrases"][0]["text"].endswith(" rectangle")
        if (image.digest, is_probe) not in SEEN:
            SEEN[image.digest, is_probe] = look(
                picture_in(request), PROBE_COLORS if is_probe else COLORS
            )
        size, seen = SEEN[image.digest, is_probe]
        objects = []
        for phrase in request.input["phrases"]:
            color = phrase["text"].split()[1]
            for bbox in seen.get(color, []):
                if chance.random() < self._missing:
                    continue
                others = [
                    other
                    for name, found in sorted(seen.items())
                    if name != color
                    for other in found
                ]
                if others and chance.random() < self._mislabelled:
                    bbox = chance.choice(others)
                edges = [
                    edge + chance.gauss(0, self._noise) * size[i % 2] for i, edge in enumerate(bbox)
                ]
                x1, x2, y1, y2 = *sorted(edges[0::2]), *sorted(edges[1::2])
                numbers = self._numbers((x1, y1, x2, y2), size)
                objects.append(
                    {"id": phrase["id"], "label": phrase["text"], self._format.key: numbers}
                )
        return {"objects": objects}

    def _numbers(self, bbox: Bbox, size: Size) -> list[float | int]:
        if self._resized is None:
            return self._format.from_pixels(bbox, original=size)
        width, height = self._resized(*size)
        return [round(edge * (width, height)[i % 2] / size[i % 2]) for i, edge in enumerate(bbox)]


def picture_in(request: ReceivedRequest) -> Any:
    """The request's only picture, decoded."""
    [picture] = pictures_in(request)
    return picture


def pictures_in(request: ReceivedRequest) -> list[Any]:
    """The request's pictures, decoded."""
    from PIL import Image

    encoded = [io.BytesIO(base64.b64decode(data)) for data in request.encoded_images]
    return [Image.open(file).convert("RGB") for file in encoded]


def look(
    picture: Any, colors: dict[str, tuple[int, int, int]] = COLORS
) -> tuple[Size, dict[str, list[Bbox]]]:
    """The picture's size, and the box around all pixels of each colour that is in it."""
    import cv2
    import numpy

    pixels = numpy.asarray(picture)
    # half of what two colours, or a colour and the ground, differ by
    near = 16 if colors is PROBE_COLORS else 50
    seen: dict[str, list[Bbox]] = {}
    for name, color in colors.items():
        low, high = ([min(max(n + off, 0), 255) for n in color] for off in (-near, near))
        x, y, width, height = cv2.boundingRect(
            cv2.inRange(pixels, numpy.array(low), numpy.array(high))
        )
        if width:
            seen[name] = [(float(x), float(y), float(x + width), float(y + height))]
    return picture.size, seen
