"""A model whose boxes are like those of photos, in formats of your choice, which may change in the
middle of a run.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in
from tests.support.stand_ins.probe_model import seen
from tests.support.workplace import Workplace


@dataclass(frozen=True)
class Thing:
    """A phrase, and the shape of what it means: mean and deviation of the log of width to height,
    in pixels.
    """

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
    """What a run's pictures show. `area` is the mean log of a thing's share of the picture; `level`
    says that things stand about a little below the middle, as in photos, not anywhere; `corner`
    that all are in the top left ninth; `logo` that the first of the things is at one place, small,
    in every picture.
    """

    things: Sequence[Thing] = MIXED
    sizes: Sequence[Size] = PHOTOS
    area: float = -3.2
    level: bool = True
    corner: bool = False
    logo: bool = False
    most_phrases: int = 4
    empty: float = 0.05

    def box(self, draw: random.Random, size: Size, thing: Thing) -> Bbox:
        """A box in pixels, inside the picture."""
        if self.logo and thing == self.things[0]:
            return size[0] * 0.82, size[1] * 0.04, size[0] * 0.97, size[1] * 0.12
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


AXIS_BY_AXIS = "x1, x2, y1, y2 of 1000"
"""A way to write boxes that is no format of ours: one that models fall into."""

FormatOf = Callable[[int, Size], str]
"""The format of a reply, by its number and the size of its picture."""


@dataclass(frozen=True)
class GivenReply:
    """A reply about a picture of the run.

    Attributes:
        written: Its format.
        image: The sha256 of the picture's file.
        size: That of the picture, as sent.
        numbers: What it gave for each phrase.
        is_repeat: Whether the same question was asked before, to compare the replies.
    """

    written: str
    image: str
    size: Size
    numbers: tuple[tuple[str, tuple[float, ...]], ...]
    is_repeat: bool


class WatchedModel:
    """Answers `phrase_grounding`, each picture by a scene of its own.

    `format_of` names the format of the n-th reply about a picture of the run, also of one that is
    asked for again. Edges are off by `noise` of the side, a share `outliers` of the boxes is
    anywhere at all, `swapped` of them end before they begin, and `missing` of them are left out; so
    it is on probe pictures, but for the last two.
    """

    reads = "images"

    def __init__(
        self,
        format_of: FormatOf,
        scene: Scene,
        *,
        seed: int = 0,
        noise: float = 0.0,
        outliers: float = 0.0,
        swapped: float = 0.0,
        missing: float = 0.0,
    ) -> None:
        self._format_of, self._scene, self._seed = format_of, scene, seed
        self._noise, self._outliers, self._swapped, self._missing = (
            noise,
            outliers,
            swapped,
            missing,
        )
        self._things = {thing.phrase: thing for thing in scene.things}
        # by the picture and what was asked for in it
        self.replies: dict[str, list[GivenReply]] = {}
        self.given = self.again = 0
        self.probes = 0

    @property
    def answered(self) -> int:
        """How many requests about pictures of the run it answered, those that were asked again
        once.
        """
        return self.given - self.again

    def wrong(self, asked: str) -> int:
        """How many questions' last replies came in another format."""
        return sum(reply.written != asked for reply in self.last_replies())

    def last_replies(self) -> list[GivenReply]:
        """Those that count, one for each question."""
        return [
            [reply for reply in replies if not reply.is_repeat][-1]
            for replies in self.replies.values()
        ]

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The answer."""
        probe = probe_in(request)
        if probe is not None:
            self.probes += 1
            boxes = seen(
                probe, random.Random(f"{self._seed}/{self.probes}"), self._noise, self._outliers
            )
            written = self._format_of(self.given, probe.size)
            texts = [phrase["text"] for phrase in request.input["phrases"]]
            return _objects(
                request,
                written,
                probe.size,
                [(text, boxes[text]) for text in texts if text in boxes],
                0.0,
                None,
            )
        if asks_for_rectangles(request):
            return {"objects": []}
        image, [digest] = request.input["image"], request.image_digests
        question = f"{digest} {json.dumps(request.input['phrases'])}"
        size = (image["width"], image["height"])
        scene, chance = (
            random.Random(f"{self._seed}/{question}"),
            random.Random(f"{self._seed}/reply {self.given}"),
        )
        written = self._format_of(self.given, size)
        self.given += 1
        is_again = "An earlier reply could not be read" in request.text
        self.again += is_again
        boxes_of = []
        empty = scene.random() < self._scene.empty
        for phrase in request.input["phrases"]:
            box = self._scene.box(scene, size, self._things[phrase["text"]])
            if not empty and chance.random() >= self._missing:
                boxes_of.append((phrase["text"], self._seen(chance, size, box)))
        answer = _objects(request, written, size, boxes_of, self._swapped, chance)
        key = _format_named(written).key
        numbers = tuple((found["label"], tuple(found[key])) for found in answer["objects"])
        is_repeat = question in self.replies and not is_again
        self.replies.setdefault(question, []).append(
            GivenReply(written, digest, size, numbers, is_repeat)
        )
        return answer

    def _seen(self, chance: random.Random, size: Size, box: Bbox) -> Bbox:
        if chance.random() < self._outliers:
            box = tuple(chance.uniform(0, side) for side in size * 2)  # type: ignore[assignment]
        edges = [
            min(max(edge + chance.gauss(0, self._noise) * side, 0), side)
            for edge, side in zip(box, size * 2, strict=True)
        ]
        x1, x2, y1, y2 = *sorted(edges[0::2]), *sorted(edges[1::2])
        return x1, y1, x2, y2


def _format_named(name: str) -> BoxFormat:
    """The format of a name; that of AXIS_BY_AXIS but for its order."""
    return find_box_format("xyxy_1000" if name == AXIS_BY_AXIS else name, "")


def _objects(
    request: ReceivedRequest,
    name: str,
    size: Size,
    boxes: Sequence[tuple[str, Bbox]],
    swapped: float,
    chance: random.Random | None,
) -> dict[str, Any]:
    written, objects = _format_named(name), []
    ids = {phrase["text"]: phrase["id"] for phrase in request.input["phrases"]}
    for text, bbox in boxes:
        numbers = list(written.from_pixels(bbox, original=size))
        if name == AXIS_BY_AXIS:
            numbers = [numbers[0], numbers[2], numbers[1], numbers[3]]
        if chance is not None and written.order in ("xyxy", "yxyx") and chance.random() < swapped:
            numbers = numbers[2:] + numbers[:2]
        objects.append({"id": ids[text], "label": text, written.key: numbers})
    return {"objects": objects}


def grounding_input(place: Workplace, scene: Scene, records: int, seed: int = 0) -> None:
    """What step 0 would have written: records, each with another picture."""
    draw = random.Random(seed)
    pictures = {}
    for width, height in set(scene.sizes):
        pictures[width, height] = (
            place.folder / place.picture(f"{width}x{height}.jpg", (width, height))
        ).read_bytes()
    rows = []
    for number in range(records):
        path = place.folder / f"{number}.jpg"
        path.write_bytes(pictures[draw.choice(scene.sizes)] + b"%d" % number)
        phrases = [
            draw.choice(scene.things).phrase for _ in range(draw.randint(1, scene.most_phrases))
        ]
        expressions = [{"text": text} for text in dict.fromkeys(phrases)]
        rows.append({"image_path": str(path), "caption": "", "expressions": expressions})
    place.after_step_0(rows)


def watched(
    place: Workplace,
    server: LoopbackServer,
    format_of: FormatOf,
    scene: Scene = Scene(),
    records: int = 40,
    *,
    seed: int = 0,
    kind: type[WatchedModel] = WatchedModel,
    **errors: float,
) -> Any:
    """Have a model answer a server's requests about a scene, which runs of the place ask for."""
    grounding_input(place, scene, records, seed)
    server.answers = kind(format_of, scene, seed=seed, **errors)
    return server.answers
