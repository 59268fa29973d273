"""A model whose boxes are like those of photos, in formats of your choice, which may change in the middle of a run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.probe_model import seen
from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.testing import ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in


@dataclass(frozen=True)
class Thing:
    """A phrase, and the shape of what it means: mean and deviation of the log of width to height, in pixels."""

    phrase: str
    shape: float
    spread: float


MIXED = (
    Thing("a man", -0.95, 0.35),
    Thing("the woman in red", -0.9, 0.4),
    Thing("a child", -0.75, 0.45),
    Thing("a car", 0.55, 0.35),
    Thing("the bus", 0.5, 0.35),
    Thing("a dog", 0.15, 0.45),
    Thing("a mug", -0.05, 0.3),
    Thing("the sign", 0.0, 0.5),
    Thing("a table", 0.7, 0.5),
    Thing("two birds", 0.2, 0.5),
    Thing("a tree", -0.3, 0.5),
    Thing("a chair", -0.25, 0.35),
)
PEOPLE = (Thing("a person", -0.85, 0.45),)
SQUARES = (Thing("a ball", 0.0, 0.1), Thing("the clock", 0.0, 0.1))
PHOTOS: tuple[Size, ...] = ((640, 480), (640, 480), (1024, 768), (480, 640))
WIDE: tuple[Size, ...] = ((2048, 512), (1600, 420))


@dataclass(frozen=True)
class Scene:
    """What a run's pictures show. `area` is the mean log of a thing's share of the picture; `level` says that things
    stand about a little below the middle, as in photos, not anywhere; `corner` that all are in the top left ninth.
    """

    things: Sequence[Thing] = MIXED
    sizes: Sequence[Size] = PHOTOS
    area: float = -3.2
    level: bool = True
    corner: bool = False
    most_phrases: int = 4
    empty: float = 0.05

    def box(self, draw: random.Random, size: Size, thing: Thing) -> Bbox:
        """A box in pixels, inside the picture."""
        share = min(draw.lognormvariate(self.area, 1.2 if self.area > -4 else 0.7), 0.8)
        ratio = math.exp(draw.gauss(thing.shape, thing.spread))
        width = math.sqrt(share * size[0] * size[1] * ratio)
        height = min(width / ratio, 0.98 * size[1])
        width = min(width, 0.98 * size[0])
        left = draw.uniform(0, size[0] - width)
        middle = draw.gauss(0.55, 0.15) if self.level else draw.random()
        top = min(max(middle * size[1] - height / 2, 0), size[1] - height)
        box = (left, top, left + width, top + height)
        return (box[0] / 3, box[1] / 3, box[2] / 3, box[3] / 3) if self.corner else box


class WatchedModel:
    """Answers `phrase_grounding`. `format_of` names the format of the n-th answer about a picture of the run; edges are
    off by `noise` of the side, a share `outliers` of the boxes is anywhere at all, and so it is on probe pictures.
    """

    reads = "input"

    def __init__(
        self, format_of: Callable[[int], str], scene: Scene, *, seed: int = 0, noise: float = 0.0, outliers: float = 0.0
    ) -> None:
        self._format_of, self._scene, self._seed = format_of, scene, seed
        self._noise, self._outliers = noise, outliers
        self._things = {thing.phrase: thing for thing in scene.things}
        self.answered = 0
        self.probes = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The answer."""
        written = find_box_format(self._format_of(self.answered), "")
        probe = probe_in(request)
        if probe is not None:
            self.probes += 1
            boxes = seen(probe, random.Random(f"{self._seed}/{self.probes}"), self._noise, self._outliers)
            return _objects(request, written, probe.size, [boxes[p["text"]] for p in request.input["phrases"]])
        if asks_for_rectangles(request):
            return {"objects": []}
        self.answered += 1
        image, chance = request.input["image"], random.Random(f"{self._seed}/{self.answered}")
        if chance.random() < self._scene.empty:
            return {"objects": []}
        size = (image["width"], image["height"])
        found = [self._seen(chance, size, self._things[p["text"]]) for p in request.input["phrases"]]
        return _objects(request, written, size, found)

    def _seen(self, chance: random.Random, size: Size, thing: Thing) -> Bbox:
        box = self._scene.box(chance, size, thing)
        if chance.random() < self._outliers:
            box = tuple(chance.uniform(0, side) for side in size * 2)  # type: ignore[assignment]
        edges = [
            min(max(edge + chance.gauss(0, self._noise) * side, 0), side)
            for edge, side in zip(box, size * 2, strict=True)
        ]
        x1, x2, y1, y2 = *sorted(edges[0::2]), *sorted(edges[1::2])
        return x1, y1, x2, y2


def _objects(request: ReceivedRequest, written: BoxFormat, size: Size, boxes: Sequence[Bbox]) -> dict[str, Any]:
    objects = [
        {"id": phrase["id"], "label": phrase["text"], written.key: written.from_pixels(bbox, original=size)}
        for phrase, bbox in zip(request.input["phrases"], boxes, strict=True)
    ]
    return {"objects": objects}
