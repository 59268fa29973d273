"""Seeded calibrations of models that write in one known format, and of such as have none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from benchmarks.rule_runs import RIGHT
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import SIZES as PROBE_SIZES
from dataflow_grounding.trust.probes import probe_of
from tests.support.stand_ins.probe_model import answered, anywhere, seen
from tests.support.stand_ins.resized_model import (
    MAX_SIDE,
    STATED,
    STATED_ERRORS,
    Model,
    decided,
)

RIGHT_FORMAT = 0.002
PADDED = ("pad_square", "pad_square_corner")
PLAIN = [f"{order}_{scale}" for scale in SCALES for order in ORDERS]
NAMES = [*PLAIN, *(f"{name}@{frame}" for frame in PADDED for name in PLAIN)]
PROBES = [probe_of(size) for size in PROBE_SIZES]


def one_format(
    box_format: BoxFormat, seed: int, noise: float = 0.015, outliers: float = 0.1
) -> str:
    """`right`, the wrong name that it gave, or why it refused."""
    draw = random.Random(f"{box_format.name}/{seed}")
    try:
        decision, _ = decided(
            lambda p: answered(
                p, lambda _: box_format, seen(p, draw, noise, outliers), seed % 2 == 0
            )
        )
    except NoFit as why:
        return f"refused: {str(why).partition(' (')[0]}"
    found = decision.fit.format
    limits = decision.limits or SizeLimits(MAX_SIDE)
    sent = [limits.sent(probe.size) for probe in PROBES]
    allowed = RIGHT_FORMAT
    if found.maps:
        allowed = RIGHT + STATED_ERRORS * max(one.error for one in found.maps)
    return "right" if apart(found, box_format, sent) <= allowed else f"said {found.name}"


def apart(one: BoxFormat, other: BoxFormat, sizes: Sequence[Size]) -> float:
    """The furthest that two formats put a rectangle's edge apart in pictures of these sizes, as a
    share of the side.
    """
    worst = 0.0
    for probe in map(probe_of, sizes):
        for bbox in probe.boxes.values():
            numbers = other.from_pixels(bbox, original=probe.size, rounded=False)
            edges = one.to_pixels(numbers, original=probe.size)
            gaps = zip(edges, bbox, probe.size * 2, strict=True)
            worst = max(worst, *(abs(a - b) / side for a, b, side in gaps))
    return worst


def is_refused(model_of: Callable[[random.Random], Model], seed: int) -> bool:
    """Whether no format is named."""
    try:
        decided(model_of(random.Random(seed)))
    except NoFit:
        return True
    return False


def two_formats(draw: random.Random, share: float, *names: str) -> Model:
    """A model that writes each box in one of two formats."""
    one, other = (find_box_format(name, "") for name in names)
    return lambda probe: answered(
        probe, lambda _: other if draw.random() < share else one, seen(probe, draw)
    )


def by_picture(draw: random.Random, *names: str, noise: float = 0.015) -> Model:
    """A model that writes large pictures' boxes in another format."""
    one, other = (find_box_format(name, "") for name in names)
    return lambda probe: answered(
        probe, lambda _: other if max(probe.size) > 1000 else one, seen(probe, draw, noise)
    )


FORMATLESS: dict[str, Callable[[random.Random], Model]] = {
    "random boxes": lambda draw: (
        lambda probe: answered(
            probe, lambda _: STATED, {phrase: anywhere(probe, draw) for phrase in probe.boxes}
        )
    ),
    "half of the boxes with y first": lambda draw: two_formats(draw, 0.5, "xyxy_1000", "yxyx_1000"),
    "a third of the boxes in pixels": lambda draw: two_formats(draw, 1 / 3, "xyxy_1000", "xyxy_px"),
    "a third of the boxes as x, y, width, height": lambda draw: two_formats(
        draw, 1 / 3, "xyxy_1", "xywh_1"
    ),
    "large pictures with y first": lambda draw: by_picture(draw, "xyxy_1000", "yxyx_1000"),
}
IN_TWO_FORMATS = [name for name in FORMATLESS if name.startswith("a third of the boxes")]
