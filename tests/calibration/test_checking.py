"""Judging one probe picture: a right format is never missed, wrong ones always are, and are named
where one would fit.
"""

from __future__ import annotations

import random

import pytest

from benchmarks.stand_ins.probe_model import answered, anywhere, seen
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration.checking import LAYOUTS, CheckVerdict, judge, legible, probe_of
from dataflow_grounding.calibration.probes import ProbeBox, ProbedPicture

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
SEEDS = range(40)


def pictures(
    written: str, seed: int, noise: float, outliers: float, size: Size | None = None
) -> list[ProbedPicture]:
    """Two probe pictures of one size as a model answers them that writes in this format."""
    draw = random.Random(f"{written}/{seed}")
    size = size or draw.choice(SIZES)
    known = find_box_format(written, "")
    probes = [probe_of(size, draw.randrange(LAYOUTS)) for _ in range(2)]
    return [
        answered(probe, lambda _: known, seen(probe, draw, noise, outliers)) for probe in probes
    ]


def verdict(asked: str, found: list[ProbedPicture]) -> CheckVerdict:
    return judge(found, find_box_format(asked, ""))


RIGHT = [
    "xyxy_1000",
    "yxyx_1000",
    "xyxy_px",
    "xywh_px",
    "cxcywh_1",
    "xyxy_100",
    "gemini",
    "qwen2.5-vl",
    "xyxy_1000@pad_square",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(("noise", "outliers"), [(0.0, 0.0), (0.015, 0.1), (0.03, 0.2)])
def test_the_right_format_fits(name: str, noise: float, outliers: float) -> None:
    for seed in SEEDS:
        assert verdict(name, pictures(name, seed, noise, outliers)).kind == "fits"


WRONG = [
    ("xyxy_1000", "yxyx_1000"),
    ("yxyx_1000", "xyxy_1000"),
    ("xyxy_1000", "xyxy_100"),
    ("xyxy_1000", "xyxy_1"),
    ("xyxy_1000", "xywh_1000"),
    ("xyxy_1000", "cxcywh_1000"),
    ("xyxy_1000", "yxyx_px"),
    ("xyxy_px", "xyxy_1000"),
    ("gemini", "xyxy_1000"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "written"), WRONG)
@pytest.mark.parametrize(("noise", "outliers"), [(0.005, 0.0), (0.03, 0.2)])
def test_another_format_is_missed_and_named(
    asked: str, written: str, noise: float, outliers: float
) -> None:
    named = 0
    for seed in SEEDS:
        size = SIZES[seed % len(SIZES)]
        found = verdict(asked, pictures(written, seed, noise, outliers, size))
        assert found.kind == "misses", size
        named += found.fitting == written
    assert named >= 0.9 * len(SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["long_edge_1280", "smart_resize_28_3136_1003520"])
def test_pixels_of_a_picture_that_was_resized_are_missed(frame: str) -> None:
    for seed in SEEDS:
        found = verdict("xyxy_px", pictures(f"xyxy_px@{frame}", seed, 0.02, 0.1, (1920, 1080)))
        assert (found.kind, found.fitting) == ("misses", None)
        assert "run dataflowgrounding calibrate" in found.remedy


@pytest.mark.slow
def test_a_padded_picture_is_missed() -> None:
    for seed in SEEDS:
        found = verdict("xyxy_1000", pictures("xyxy_1000@pad_square", seed, 0.01, 0.05, (640, 480)))
        assert found.kind == "misses"
        assert "they would fit with x times" in found.why


@pytest.mark.slow
def test_what_is_a_hair_off_fits() -> None:
    for seed in SEEDS:
        assert verdict("xyxy_1000", pictures("xyxy_999", seed, 0.01, 0.1)).kind == "fits"


@pytest.mark.slow
def test_random_boxes_are_missed_and_no_format_is_named() -> None:
    known, probes = (
        find_box_format("xyxy_1000", ""),
        [probe_of((640, 480), layout) for layout in (1, 2)],
    )
    for seed in SEEDS:
        draw = random.Random(seed)
        found = [
            answered(probe, lambda _: known, {name: anywhere(probe, draw) for name in probe.boxes})
            for probe in probes
        ]
        blind = verdict("xyxy_1000", found)
        assert (blind.kind, blind.fitting) == ("misses", None)
        assert "No plain format fits" in blind.remedy


def test_few_answers_say_nothing() -> None:
    probe = probe_of((640, 480), 1)
    for written in ("xyxy_1000", "yxyx_1000"):
        known = find_box_format(written, "")
        whole = answered(probe, lambda _, f=known: f, dict(probe.boxes))  # type: ignore[misc]
        few = ProbedPicture(probe, probe.size, whole.answers[:3], "cut off")
        assert verdict("xyxy_1000", [few]) == CheckVerdict(
            "silent", "3 of 12 rectangles were answered: cut off"
        )
        assert verdict("xyxy_1000", [ProbedPicture(probe, probe.size, [])]).kind == "silent"


def test_one_of_two_pictures_that_fits_is_enough() -> None:
    one, _ = pictures("xyxy_1000", 1, 0.01, 0.0, (640, 480))
    other, _ = pictures("yxyx_1000", 1, 0.01, 0.0, (640, 480))
    assert verdict("xyxy_1000", [other]).kind == "misses"
    assert verdict("xyxy_1000", [other, one]).kind == "fits"


def test_special_tokens_are_read_by_their_family_and_named_keys_by_their_names() -> None:
    probe = probe_of((640, 480), 3)
    family, named = known_formats()["paligemma"], find_box_format("xyxy_1000", "")
    tokens = [
        ProbeBox(p, b, tuple(family.from_pixels(b, original=probe.size)), family="paligemma")
        for p, b in probe.boxes.items()
    ]
    assert verdict("xyxy_1000", [ProbedPicture(probe, probe.size, tokens)]).kind == "fits"
    keys = [
        ProbeBox(p, b, tuple(named.from_pixels(b, original=probe.size)), order="xyxy")
        for p, b in probe.boxes.items()
    ]
    assert verdict("yxyx_1000", [ProbedPicture(probe, probe.size, keys)]).kind == "fits"


@pytest.mark.parametrize(
    ("size", "limit", "asked_for"),
    [
        pytest.param((640, 480), 2048, (640, 480), id="as it is"),
        pytest.param((64, 48), 2048, (299, 224), id="enlarged"),
        pytest.param((2048, 40), 2048, (2048, 96), id="a strip"),
        pytest.param((1, 1), 2048, (224, 224), id="a dot"),
        pytest.param((100, 900), 1024, (114, 1024), id="as far as the limit goes"),
    ],
)
def test_a_probe_picture_is_never_too_small_to_be_seen(
    size: Size, limit: int, asked_for: Size
) -> None:
    assert legible(size, limit) == asked_for
    for layout in range(LAYOUTS):
        for x1, y1, x2, y2 in probe_of(asked_for, layout).boxes.values():
            assert min(x2 - x1, y2 - y1) >= 4
