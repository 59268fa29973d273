"""A model that errs as vision-language models do: it boxes what isn't there, always alike, misses
things, and judges boxes with a stated accuracy.

All that it knows is in the request: the picture, marks and all, and the question's text.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeAlias

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, area, around, box_of, intersection, iou
from dataflow_grounding.testing import ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES, unknown_task
from dataflow_grounding.trust.probes import COLORS as PROBE_COLORS
from tests.support.stand_ins.seeing_model import COLORS, pictures_in

Things: TypeAlias = dict[str, list[Bbox]]
"""Colour → boxes of the things of that colour, in pixels of the picture as sent."""

LEAST_SIDE = 8  # px; thinner things are outlines and letters
FILLED = 0.75  # share of its box that a thing fills; outlines and letters fill less
OUTLINE = 8  # px that the outline of a mark may be wide; what lies on both sides of it is one thing
LEAST_PIECE = 3  # px; thinner pieces are edges of outlines


@dataclass(frozen=True)
class Errors:
    """How a model errs; all are shares of the things or questions, from 0 to 1.

    Args:
        absent: Absent things that are boxed, around another thing.
        missing: Things without a box.
        loose: Boxes that are half as large again on each side.
        mislabelled: Boxes around another thing, of things that are there.
        noise: Standard deviation of an edge, as a share of the side of the picture sent.
        accuracy: Of the answers to yes/no questions.
        shared: Whether the same error is made each time a like question comes; else answers err
            independently.
    """

    absent: float = 0.0
    missing: float = 0.0
    loose: float = 0.0
    mislabelled: float = 0.0
    noise: float = 0.0
    accuracy: float = 1.0
    shared: bool = True


@dataclass(frozen=True)
class Scene:
    """What the model sees: `name` is the same for a picture with and without marks."""

    size: Size
    things: Things
    name: str

    def others(self, meant: list[Bbox]) -> list[Bbox]:
        """The things that aren't meant, always in the same order."""
        boxes = []
        for name in sorted(self.things):
            boxes += [box for box in self.things[name] if box not in meant]
        return boxes


SEEN: dict[tuple[str, bool], Scene] = {}
"""What was seen in pictures, by their digest and whether they are probes: of all models in this
process, as a run's probes and a test's pictures come again and again.
"""


class ErringModel:
    """Answers `phrase_grounding`, `missing_boxes` and `box_check` for phrases such as "the red box"
    and for probe pictures.

    Grounding of probe pictures has no errors, so that a run's format checks pass.
    """

    reads = IMAGES

    def __init__(
        self, errors: Errors = Errors(), *, box_format: str = "xyxy_1000", seed: int = 0
    ) -> None:
        self._errors = errors
        self._format = find_box_format(box_format, "")
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        """How many requests came, by task."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        self.requests[request.task] += 1
        scene = self._looked_at(request)
        if request.task in ("phrase_grounding", "missing_boxes"):
            return {"objects": self._objects(request, scene)}
        if request.task == "box_check":
            return {
                "phrases": [self._presence(p, scene) for p in request.input["phrases"]],
                "boxes": [self._verdict(box, scene) for box in request.input["boxes"]],
            }
        raise unknown_task(request)

    def _looked_at(self, request: ReceivedRequest) -> Scene:
        """What is in a request's first picture."""
        picture = (request.image_digests[0], about_probes(request))
        if picture not in SEEN:
            SEEN[picture] = scene_of(pictures_in(request)[0], about_probes(request))
        return SEEN[picture]

    def meant(self, phrase: dict[str, Any], scene: Scene) -> list[Bbox]:
        """The things that a phrase names."""
        return scene.things.get(color_of(phrase), [])

    # Grounding

    def _objects(self, request: ReceivedRequest, scene: Scene) -> list[dict[str, Any]]:
        drawn = self._boxes_told(request.input.get("boxes", []), scene.size)
        objects = []
        for phrase in request.input["phrases"]:
            if about_probes(request):
                boxes = self.meant(phrase, scene)
            else:
                boxes = self._grounded(request.task, phrase, scene)
            for bbox in boxes:
                if any(iou(bbox, other) > 0.5 for other in drawn.get(phrase["text"], [])):
                    continue
                numbers = self._format.from_pixels(bbox, original=scene.size)
                objects.append(
                    {"id": phrase["id"], "label": phrase["text"], self._format.key: numbers}
                )
        return objects

    def _grounded(self, task: str, phrase: dict[str, Any], scene: Scene) -> list[Bbox]:
        """The boxes of a phrase, right ones and wrong ones."""
        meant = self.meant(phrase, scene)
        others = scene.others(meant)
        if not meant:
            # whether it is made up depends on the phrase and the scene, however it is asked for
            chance = self._chance("absent", scene.name, phrase["text"])
            if others and chance.random() < self._errors.absent:
                return [self._noisy(chance.choice(others), scene.size, chance)]
            return []
        boxes = []
        for number, bbox in enumerate(meant):
            chance = self._chance(task, scene.name, phrase["text"], number)
            if chance.random() < self._errors.missing:
                continue
            if others and chance.random() < self._errors.mislabelled:
                bbox = chance.choice(others)
            if chance.random() < self._errors.loose:
                bbox = grown(bbox, 0.5, scene.size)
            boxes.append(self._noisy(bbox, scene.size, chance))
        return boxes

    def _noisy(self, bbox: Bbox, size: Size, chance: random.Random) -> Bbox:
        edges = []
        for place, edge in enumerate(bbox):
            edges.append(edge + chance.gauss(0, self._errors.noise) * size[place % 2])
        left, right = sorted(edges[0::2])
        top, bottom = sorted(edges[1::2])
        return (left, top, right, bottom)

    # Judging

    def _presence(self, phrase: dict[str, Any], scene: Scene) -> dict[str, Any]:
        """Whether a phrase's thing is there, and how many."""
        count = len(self.meant(phrase, scene))
        is_right = self._answers_right("presence", scene.name, phrase["text"])
        if not is_right:
            count = 0 if count else 1
        return {"id": phrase["id"], "there": count > 0, "count": count}

    def _verdict(self, box: dict[str, Any], scene: Scene) -> dict[str, Any]:
        """Right, loose, part, other or nothing, of a numbered box."""
        bbox = self._in_pixels(box, scene.size)
        truth = truth_of(bbox, self.meant(box, scene), scene)
        about = (scene.name, box["text"], [round(edge / 40) for edge in bbox])
        if not self._answers_right("verdict", *about):
            return {"id": box["id"], "verdict": "right" if truth in WRONG else "other"}
        # within the boxes that are the thing's, right and loose are mixed up half as often
        mixed_up = self._chance("fit", *about).random() < (1 - self._errors.accuracy) / 2
        if mixed_up and truth not in WRONG:
            truth = "right" if truth == "loose" else "loose"
        return {"id": box["id"], "verdict": truth}

    def _answers_right(self, *question: Any) -> bool:
        return self._chance(*question).random() < self._errors.accuracy

    # What a question is

    def _chance(self, *question: Any) -> random.Random:
        """The dice for a question: the same for like ones, where errors are shared."""
        text = "/".join(map(str, (self._seed, *question)))
        if not self._errors.shared:
            self._asked[text] += 1
            text = f"{text}/{self._asked[text]}"
        return random.Random(text)

    def _in_pixels(self, box: dict[str, Any], size: Size) -> Bbox:
        return self._format.to_pixels(box[self._format.key], original=size, sent=size)

    def _boxes_told(self, boxes: list[dict[str, Any]], size: Size) -> Things:
        """The boxes that a request draws, by their phrase."""
        told: Things = {}
        for box in boxes:
            told.setdefault(box["text"], []).append(self._in_pixels(box, size))
        return told


WRONG = ("other", "nothing")


def truth_of(bbox: Bbox, meant: list[Bbox], scene: Scene) -> str:
    """What a careful judge says of a box that is said to be of the things that are meant."""
    for thing in meant:
        if iou(bbox, thing) >= 0.5:
            return "right"
        common = area(intersection(bbox, thing))
        if common > 0.8 * area(thing):
            return "loose"
        if common > 0.8 * area(bbox):
            return "part"
    if any(iou(bbox, other) > 0.1 for other in scene.others(meant)):
        return "other"
    return "nothing"


def color_of(phrase: dict[str, Any]) -> str:
    """The colour that a phrase names."""
    return str(phrase["text"].split()[1])


def about_probes(request: ReceivedRequest) -> bool:
    """Whether the question is about a probe picture."""
    asked = request.input["phrases"]
    return all(str(item["text"]).endswith(" rectangle") for item in asked)


def scene_of(picture: Any, is_probe: bool = False) -> Scene:
    """The things in a picture, also in one with marks drawn on it."""
    import cv2
    import numpy

    pixels = numpy.asarray(picture)
    colors, near = (PROBE_COLORS, 16) if is_probe else (COLORS, 40)
    things: Things = {}
    for name, color in colors.items():
        low = numpy.array([max(channel - near, 0) for channel in color])
        high = numpy.array([min(channel + near, 255) for channel in color])
        mask = cv2.inRange(pixels, low, high)
        left, top, columns, rows = cv2.boundingRect(mask)
        if not columns:
            continue
        part = mask[top : top + rows, left : left + columns]  # the rest is empty, and takes time
        count, _, parts, _ = cv2.connectedComponentsWithStats(part, connectivity=4)
        pieces = []
        for number in range(1, count):
            x, y, width, height, filled = (int(value) for value in parts[number])
            if min(width, height) >= LEAST_PIECE and filled >= FILLED * width * height:
                x += left
                y += top
                pieces.append(box_of([x, y, x + width, y + height]))
        boxes = [box for box in joined(pieces) if min(sides_of(box)) >= LEAST_SIDE]
        if boxes:
            things[name] = boxes
    return Scene(picture.size, things, _name_of(picture.size, things))


def sides_of(box: Bbox) -> tuple[float, float]:
    """Width and height."""
    return box[2] - box[0], box[3] - box[1]


def joined(pieces: list[Bbox]) -> list[Bbox]:
    """The pieces of things that outlines cut, put together: near ones are of one thing."""
    boxes: list[Bbox] = []
    for piece in sorted(pieces, key=area, reverse=True):
        around_piece = (
            piece[0] - OUTLINE,
            piece[1] - OUTLINE,
            piece[2] + OUTLINE,
            piece[3] + OUTLINE,
        )
        touched = [box for box in boxes if area(intersection(box, around_piece)) > 0]
        boxes = [box for box in boxes if box not in touched]
        boxes.append(around([piece, *touched]))
    return boxes


def _name_of(size: Size, things: Things) -> str:
    """What tells a scene from others: its colours, and the eighth of the picture each is in."""
    places = []
    for color in sorted(things):
        for x1, y1, x2, y2 in things[color]:
            column, row = int(2 * (x1 + x2) / size[0]), int((y1 + y2) / size[1])
            places.append(f"{color}@{column},{row}")
    return f"{size[0]}x{size[1]}:{' '.join(places)}"


def grown(bbox: Bbox, share: float, size: Size) -> Bbox:
    """The box, larger by a share of its sides at each edge, within the picture."""
    x1, y1, x2, y2 = bbox
    x, y = share * (x2 - x1), share * (y2 - y1)
    return (max(x1 - x, 0), max(y1 - y, 0), min(x2 + x, size[0]), min(y2 + y, size[1]))
