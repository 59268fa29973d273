"""Calibrations of models that count pixels of a picture which their server has resized, without a
server, and how far off is what is read then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.finding import Deciding, Decision
from dataflow_grounding.trust.probes import Probe, ProbeBox, ProbedPicture
from tests.support.stand_ins.probe_model import seen
from tests.support.stand_ins.resize_rules import Placing

MAX_SIDE = 2048
# Standard errors beyond what is right, as a map states them: of thousands of edges some are two off.
STATED_ERRORS = 3.0
SIZES: tuple[Size, ...] = (
    (640, 480),
    (480, 640),
    (640, 427),
    (500, 333),
    (1242, 375),
    (2048, 1536),
    (1920, 1080),
    (1080, 1920),
    (4032, 3024),
    (3024, 4032),
    (300, 200),
    (120, 90),
    (64, 64),
    (1000, 1000),
    (1333, 800),
    (3000, 750),
    (750, 3000),
    (1600, 1200),
    (800, 600),
    (1024, 768),
    (700, 700),
    (512, 512),
    (2000, 500),
    (1180, 890),
    (1365, 1024),
    (384, 512),
    (700, 500),
    (900, 600),
    (600, 900),
    (612, 612),
    (1600, 900),
    (720, 1280),
    (400, 300),
    (375, 1242),
    (1024, 1024),
    (4000, 400),
)
STATED = find_box_format("xyxy_1000", "")
Model = Callable[[Probe], ProbedPicture]


def decided(model: Model, own: Sequence[Size] = ()) -> tuple[Decision, int]:
    """The decision on a model, and how many pictures it took. Raises NoFit."""

    requests = 0

    async def ask(asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        nonlocal requests
        requests += len(asked)
        return [model(probe) for probe in asked]

    deciding = Deciding(ask, MAX_SIDE, own)
    return asyncio.run(deciding.decide(STATED)), requests


def with_rule(rule: Placing, draw: random.Random, noise: float, outliers: float) -> Model:
    """A model that counts whole pixels of the picture that a server's rule leaves it."""

    def model(probe: Probe) -> ProbedPicture:
        (width, height), (across, down, left, top) = probe.size, (*rule(*probe.size), 0, 0)[:4]
        factors, starts = (across / width, down / height) * 2, (left, top) * 2
        answers = [
            ProbeBox(
                phrase,
                probe.boxes[phrase],
                tuple(
                    round(n * f + start) for n, f, start in zip(bbox, factors, starts, strict=True)
                ),
            )
            for phrase, bbox in seen(probe, draw, noise, outliers).items()
        ]
        return ProbedPicture(probe, probe.size, answers)

    return model


def furthest_off(
    rule: Placing, decision: Decision, sizes: Sequence[Size] = SIZES
) -> tuple[float, Size]:
    """How far edges are off at the most, as a share of the side, in pictures of these sizes; and in
    which.
    """
    limits = decision.limits or SizeLimits(MAX_SIDE)
    worst = 0.0, sizes[0]
    for size in sizes:
        padded = limits.padded(size)
        sent = limits.sent(size)
        across, down, left, top = (*rule(*sent), 0, 0)[:4]
        right, bottom = left + across * size[0] / padded[0], top + down * size[1] / padded[1]
        x1, y1, x2, y2 = decision.fit.format.to_pixels(
            (left, top, right, bottom), original=padded, sent=sent
        )
        off = max(
            abs(x1) / size[0], abs(y1) / size[1], abs(x2 / size[0] - 1), abs(y2 / size[1] - 1)
        )
        for one in decision.fit.format.maps:
            if one.size == sent:  # what the map says of itself, of the picture's own side
                off -= STATED_ERRORS * one.error * max(padded[0] / size[0], padded[1] / size[1])
        worst = max(worst, (off, size))
    return worst
