"""A model that sees the probe pictures of a calibration, noisily, and answers in formats of your
choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.testing import EchoAnswers, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in
from dataflow_grounding.trust.probes import Probe, ProbeBox, ProbedPicture

NOISE = 0.015
OUTLIERS = 0.10


def seen(
    probe: Probe, draw: random.Random, noise: float = NOISE, outliers: float = OUTLIERS
) -> dict[str, Bbox]:
    """The rectangles as a model sees them: edges off by `noise` of the side, a share of them
    anywhere at all.
    """
    boxes: dict[str, Bbox] = {}
    for phrase, bbox in probe.boxes.items():
        if draw.random() < outliers:
            boxes[phrase] = anywhere(probe, draw)
        else:
            sides = probe.size * 2
            x1, y1, x2, y2 = (
                min(max(edge + draw.gauss(0, noise) * side, 0), side)
                for edge, side in zip(bbox, sides, strict=True)
            )
            boxes[phrase] = (x1, y1, x2, y2)
    return boxes


def anywhere(probe: Probe, draw: random.Random) -> Bbox:
    """A random box in the picture."""
    (x1, x2), (y1, y2) = (sorted(draw.uniform(0, side) for _ in range(2)) for side in probe.size)
    return x1, y1, x2, y2


def answered(
    probe: Probe,
    format_of: Callable[[str], BoxFormat],
    boxes: dict[str, Bbox],
    rounded: bool = True,
) -> ProbedPicture:
    """What calibrating gets for one picture when each phrase's box is written in `format_of` the
    phrase.
    """
    answers = []
    for phrase, bbox in boxes.items():
        numbers = format_of(phrase).from_pixels(bbox, original=probe.size, rounded=rounded)
        answers.append(ProbeBox(phrase, probe.boxes[phrase], tuple(numbers)))
    return ProbedPicture(probe, probe.size, answers)


class ProbeModel:
    """Answers for the loopback server: probe pictures in `box_format` (a name, or a function of the
    request and the phrase's text that gives one), everything else as EchoAnswers does in the same
    format.
    """

    def __init__(
        self,
        box_format: str | Callable[[ReceivedRequest, str], str],
        *,
        seed: int = 0,
        noise: float = NOISE,
        outliers: float = OUTLIERS,
        blind: bool = False,
    ) -> None:
        self._name_of = box_format if callable(box_format) else lambda request, phrase: box_format
        self._draw = random.Random(seed)
        self._noise, self._outliers, self._blind = noise, outliers, blind

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The answer; see EchoAnswers for all that shows no probe picture."""
        probe = probe_in(request)
        if probe is None and asks_for_rectangles(request):
            return {"objects": []}
        if probe is None:
            return EchoAnswers(self._name_of(request, ""))(request)
        boxes = seen(probe, self._draw, self._noise, self._outliers)
        if self._blind:
            boxes = {phrase: anywhere(probe, self._draw) for phrase in boxes}
        objects = []
        for phrase in request.input["phrases"]:
            if phrase["text"] not in boxes:
                continue
            written = find_box_format(self._name_of(request, phrase["text"]), "")
            numbers = written.from_pixels(boxes[phrase["text"]], original=probe.size)
            objects.append({"id": phrase["id"], "label": phrase["text"], written.key: numbers})
        return {"objects": objects}
