"""Naming a format from answers: every order, scale and frame, and answers that name none."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from calibration import FORMATLESS, PROBES, STATED, apart, is_refused, one_run
from probe_model import answered, seen

from dataflow_grounding.calibration.fitting import Answer, NoFit, Picture, candidates, fit
from dataflow_grounding.coordinates import ORDERS, SCALES, find_box_format, known_formats


def test_every_order_scale_and_frame_is_a_candidate() -> None:
    names = {candidate.name for candidate in candidates()}
    assert {f"{order}_{scale}" for order in ORDERS for scale in SCALES} <= names
    used = {(known.order, known.frame) for known in known_formats().values() if known.scale == "px"}
    assert {f"{order}_px@{frame}" for order, frame in used if frame != "sent"} <= names


@pytest.mark.parametrize("name", [candidate.name for candidate in candidates()])
def test_a_noisy_model_is_told_right(name: str) -> None:
    """Two of the 200 runs of benchmarks/calibration.py: whole numbers, and numbers as they come."""
    assert [one_run(find_box_format(name, ""), seed) for seed in (0, 1)] == ["right", "right"]


@pytest.mark.parametrize("what", list(FORMATLESS))
def test_answers_in_no_one_format_are_refused(what: str) -> None:
    assert all(is_refused(FORMATLESS[what], seed) for seed in range(10))


@pytest.mark.parametrize("kept", [pytest.param(0.75, id="enough"), pytest.param(0.6, id="under two thirds")])
def test_rectangles_that_are_not_found_count(kept: float) -> None:
    pictures = []
    for probe in PROBES:
        whole = answered(probe, lambda _: STATED, dict(probe.boxes))
        pictures.append(Picture(probe, probe.size, whole.answers[: round(kept * len(whole.answers))]))
    assert is_refused(lambda draw: pictures, 0) is (kept < 2 / 3)


def test_a_picture_without_answers_is_refused_though_the_others_are_two_thirds() -> None:
    pictures = [answered(probe, lambda _: STATED, dict(probe.boxes)) for probe in PROBES]
    for place, probe in enumerate(PROBES):
        without = [*pictures[:place], Picture(probe, probe.size, [], "no box"), *pictures[place + 1 :]]
        with pytest.raises(NoFit, match="the pictures disagree"):
            fit(without, STATED)


def test_one_picture_in_a_format_close_by_is_refused() -> None:
    formats = [find_box_format(name, "") for name in ("xyxy_1000", "xyxy_1000", "xyxy_1024")]
    for seed in range(10):
        draw = random.Random(seed)
        pictures = [answered(p, lambda _, f=f: f, seen(p, draw, 0.005)) for p, f in zip(PROBES, formats, strict=True)]
        with pytest.raises(NoFit, match="the pictures disagree: xyxy_10"):
            fit(pictures, STATED)


def test_where_two_formats_fit_about_as_well_neither_is_named() -> None:
    """Few rectangles and much noise: frames that differ by 4% of a side can't always be told apart, and are never mistaken."""
    resized = find_box_format("xyxy_px@smart_resize_28", "")
    said = Counter[str]()
    for seed in range(80):
        draw = random.Random(seed)
        whole = [answered(p, lambda _: resized, seen(p, draw, 0.03, 0)) for p in PROBES]
        try:
            found = fit([Picture(p.probe, p.sent, p.answers[:9]) for p in whole], STATED)
            said["right" if apart(found.format, resized) < 0.002 else "wrong"] += 1
        except NoFit as why:
            said["close" if "fit about as well" in str(why) else "other"] += 1
    assert said["close"] > 5
    assert said["right"] > 10
    assert said["wrong"] == 0


@pytest.mark.parametrize(("noise", "refused"), [(0.01, False), (0.06, True)])
def test_more_than_five_per_cent_is_refused(noise: float, refused: bool) -> None:
    for seed in range(5):
        draw = random.Random(seed)
        pictures = [answered(p, lambda _: STATED, seen(p, draw, noise, 0)) for p in PROBES]
        assert is_refused(lambda draw, pictures=pictures: pictures, seed) is refused  # type: ignore[misc]


def test_the_error_is_in_pixels_of_the_pictures() -> None:
    pictures = []
    for probe in PROBES:
        off = {phrase: (x1 + 6, y1 + 6, x2 + 6, y2 + 6) for phrase, (x1, y1, x2, y2) in probe.boxes.items()}
        pictures.append(answered(probe, lambda _: find_box_format("xyxy_px", ""), off, rounded=False))
    found = fit(pictures, STATED)
    assert found.format.name == "xyxy_px"
    assert found.error_px == pytest.approx(6.0, abs=0.2)
    assert (found.found, found.asked) == (36, 36)


def test_named_corners_leave_the_order_open_and_are_taken_as_stated() -> None:
    pictures = []
    for probe in PROBES:
        answers = [
            Answer(phrase, bbox, tuple(STATED.from_pixels(bbox, original=probe.size)), order="xyxy")
            for phrase, bbox in probe.boxes.items()
        ]
        pictures.append(Picture(probe, probe.size, answers))
    assert fit(pictures, STATED).format.name == "xyxy_1000"


def test_tokens_of_one_family_name_the_family() -> None:
    family = known_formats()["paligemma"]
    pictures = []
    for probe in PROBES:
        answers = [
            Answer(phrase, bbox, tuple(family.from_pixels(bbox, original=probe.size)), family="paligemma")
            for phrase, bbox in probe.boxes.items()
        ]
        pictures.append(Picture(probe, probe.size, answers))
    assert fit(pictures, STATED).format.name == "paligemma"


@pytest.mark.parametrize("scale", [999, 1000])
def test_999_and_1000_are_told_by_the_far_edge(scale: int) -> None:
    exact = find_box_format(f"yxyx_{scale}", "")
    pictures = [answered(probe, lambda _: exact, dict(probe.boxes)) for probe in PROBES]
    assert fit(pictures, STATED).format.name == exact.name


def test_formats_that_are_told_apart_are_apart() -> None:
    one, other = find_box_format("xyxy_1000", ""), find_box_format("xyxy_1024", "")
    assert apart(one, other) == pytest.approx(0.024, abs=0.001)
