"""What probe pictures show: a right format is never missed, wrong ones always are, and are named
where one would fit.
"""

from __future__ import annotations

import random

import pytest
from PIL import Image

from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.trust.own_probes import drawn_into
from dataflow_grounding.trust.probes import LAYOUTS, Probe, ProbeBox, ProbedPicture
from dataflow_grounding.trust.showing import (
    Showing,
    showing_of,
)
from tests.support.stand_ins.probe_model import answered, anywhere, seen

SIZES: list[Size] = [
    (640, 480),
    (480, 640),
    (1024, 768),
    (1920, 1080),
    (2048, 512),
    (500, 375),
    (299, 224),
    (800, 800),
]
SEEDS = range(12)
FEW_SEEDS = range(6)
COPIES = 4  # of a picture that is missed: the first, and three to confirm it


def probe_of(size: Size, layout: int) -> Probe:
    return drawn_into(Image.new("RGB", size), layout)


def pictures(
    written: str,
    seed: int,
    noise: float,
    outliers: float,
    size: Size | None = None,
    copies: int = 1,
) -> list[ProbedPicture]:
    """Copies of one picture as a model answers them that writes in this format."""
    draw = random.Random(f"{written}/{seed}")
    size = size or draw.choice(SIZES)
    known = find_box_format(written, "")
    probes = [probe_of(size, draw.randrange(LAYOUTS)) for _ in range(copies)]
    return [
        answered(probe, lambda _: known, seen(probe, draw, noise, outliers)) for probe in probes
    ]


def showing(asked: str, found: list[ProbedPicture]) -> Showing:
    return showing_of(found, find_box_format(asked, ""))


@pytest.mark.parametrize(
    ("name", "noise", "outliers"),
    [
        ("gemini", 0.0, 0.0),
        ("xywh_px", 0.015, 0.1),
        ("xyxy_1000@pad_square", 0.03, 0.2),
        ("cxcywh_1", 0.06, 0.2),
    ],
)
def test_the_right_format_fits(name: str, noise: float, outliers: float) -> None:
    alone = [showing(name, pictures(name, seed, noise, outliers)) for seed in SEEDS]
    assert [found.kind for found in alone].count("fits") >= 0.8 * len(SEEDS)
    # what counts in a run are all copies of one that missed
    copies = [showing(name, pictures(name, n, noise, outliers, copies=COPIES)) for n in SEEDS]
    missed = [found for found in copies if found.kind != "fits"]
    assert len(missed) <= (noise > 0.05), missed
    assert not any(found.fitting for found in copies)


@pytest.mark.parametrize(
    ("asked", "written", "noise", "outliers"),
    [
        ("xyxy_1000", "cxcywh_1000", 0.005, 0.0),
        ("xyxy_1000", "xywh_1000", 0.03, 0.2),
        ("gemini", "xyxy_1000", 0.03, 0.2),
        ("xyxy_px", "xyxy_1000", 0.005, 0.0),
    ],
)
def test_another_format_is_missed_and_named(
    asked: str, written: str, noise: float, outliers: float
) -> None:
    named = 0
    for seed in FEW_SEEDS:
        size = SIZES[seed % len(SIZES)]
        assert showing(asked, pictures(written, seed, noise, outliers, size)).kind == "misses", size
        together = showing(asked, pictures(written, seed, noise, outliers, size, COPIES))
        assert together.kind == "misses", size
        named += together.fitting == written
    assert named >= 0.9 * len(FEW_SEEDS)


@pytest.mark.parametrize(
    ("asked", "written", "size"),
    [
        ("xyxy_px", "xyxy_px@long_edge_1280", (1920, 1080)),
        ("xyxy_px", "xyxy_px@smart_resize_28_3136_1003520", (1920, 1080)),
        ("xyxy_1000", "xyxy_1000@pad_square", (640, 480)),
        ("xyxy_1000", "xyxy_1000@pad_square", (640, 560)),
    ],
)
def test_a_picture_that_was_resized_or_padded_is_missed(
    asked: str, written: str, size: Size
) -> None:
    for seed in FEW_SEEDS:
        found = showing(asked, pictures(written, seed, 0.01, 0.05, size, COPIES))
        assert (found.kind, found.fitting) == ("misses", None)


def moved(probe: Probe, draw: random.Random, by: float, noise: float) -> dict[str, Bbox]:
    """Rectangles as a model sees them, all further to the right by a share of the width."""
    boxes = {}
    for phrase, (x1, y1, x2, y2) in seen(probe, draw, noise, 0.0).items():
        boxes[phrase] = (x1 + by * probe.size[0], y1, x2 + by * probe.size[0], y2)
    return boxes


@pytest.mark.parametrize(("by", "noise"), [(0.04, 0.003), (-0.04, 0.003), (0.02, 0.0)])
def test_boxes_that_are_all_shifted_are_missed_and_how_far_is_said(by: float, noise: float) -> None:
    known = find_box_format("xyxy_1000", "")
    for seed in FEW_SEEDS:
        probe, draw = probe_of((640, 480), seed), random.Random(seed)
        picture = answered(probe, lambda _: known, moved(probe, draw, by, noise))
        found = showing("xyxy_1000", [picture])
        assert (found.kind, found.fitting) == ("misses", None)
        assert "of the width at its beginning" in found.why


def test_what_is_a_hair_off_fits() -> None:
    for seed in FEW_SEEDS:
        found = showing("xyxy_1000", pictures("xyxy_999", seed, 0.01, 0.1, copies=COPIES))
        assert found.kind == "fits"


def test_random_boxes_are_missed_and_no_format_is_named() -> None:
    known = find_box_format("xyxy_1000", "")
    for seed in FEW_SEEDS:
        draw = random.Random(seed)
        found = []
        for layout in range(COPIES):
            probe = probe_of((640, 480), layout)
            boxes = {name: anywhere(probe, draw) for name in probe.boxes}
            found.append(answered(probe, lambda _: known, boxes))
        blind = showing("xyxy_1000", found)
        assert (blind.kind, blind.fitting) == ("misses", None)
        assert "no other format fits" in blind.why


def test_few_answers_say_nothing() -> None:
    probe = probe_of((640, 480), 1)
    for written in ("xyxy_1000", "yxyx_1000"):
        known = find_box_format(written, "")
        whole = answered(probe, lambda _, f=known: f, dict(probe.boxes))  # type: ignore[misc]
        few = ProbedPicture(probe, probe.size, whole.answers[:3], "cut off")
        assert showing("xyxy_1000", [few]) == Showing(
            "silent", "3 of 7 rectangles were answered: cut off"
        )
        assert showing("xyxy_1000", [ProbedPicture(probe, probe.size, [])]).kind == "silent"


def test_special_tokens_are_read_by_their_family_and_named_keys_by_their_names() -> None:
    probe = probe_of((640, 480), 3)
    family, named = known_formats()["paligemma"], find_box_format("xyxy_1000", "")
    tokens, keys = [], []
    for phrase, box in probe.boxes.items():
        numbers = tuple(family.from_pixels(box, original=probe.size))
        tokens.append(ProbeBox(phrase, box, numbers, family="paligemma"))
        numbers = tuple(named.from_pixels(box, original=probe.size))
        keys.append(ProbeBox(phrase, box, numbers, order="xyxy"))
    assert showing("xyxy_1000", [ProbedPicture(probe, probe.size, tokens)]).kind == "fits"
    assert showing("yxyx_1000", [ProbedPicture(probe, probe.size, keys)]).kind == "fits"


def off_of(written: str, seed: int, noise: float, outliers: float) -> list[float]:
    """How far off the worst edges are in a picture."""
    found = showing(written, pictures(written, seed, noise, outliers, (640, 480)))
    return [] if found.rectangles is None else found.rectangles.off
