"""Naming a format from answers: every order, scale and padding, every way of resizing, and answers
that name none.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.finding import fit_parts
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import SIZES as PROBE_SIZES
from dataflow_grounding.trust.probes import Probe, ProbeBox, ProbedPicture, probe_of
from tests.support.stand_ins.probe_model import answered, anywhere, seen
from tests.support.stand_ins.resize_rules import reduced
from tests.support.stand_ins.resized_model import (
    MAX_SIDE,
    STATED,
    Model,
    decided,
    with_rule,
)

PROBES = [probe_of(size) for size in PROBE_SIZES]


@pytest.mark.parametrize(
    ("name", "rounded"), [("xyxy_1", False), ("yxyx_999", True), ("xywh_px", True)]
)
def test_a_noisy_model_is_told_right(name: str, rounded: bool) -> None:
    """`benchmarks.calibration` plays all formats."""
    draw, known = random.Random(f"{name}/0"), find_box_format(name, "")
    decision, _ = decided(
        lambda probe: answered(probe, lambda _: known, seen(probe, draw), rounded)
    )
    found, limits = decision.fit.format, decision.limits or SizeLimits(MAX_SIDE)
    allowed = 0.01 + 3 * max(one.error for one in found.maps) if found.maps else 0.002
    for size in PROBE_SIZES:
        probe = probe_of(limits.sent(size))
        for bbox in probe.boxes.values():
            numbers = known.from_pixels(bbox, original=probe.size, rounded=False)
            read = found.to_pixels(numbers, original=probe.size)
            assert read == pytest.approx(bbox, abs=allowed * max(probe.size))


def is_refused(model: Model) -> bool:
    """Whether no format is named."""
    try:
        decided(model)
    except NoFit:
        return True
    return False


def in_two_formats(what: str, draw: random.Random) -> Model:
    """A model that writes some boxes in another format."""
    pixels, y_first = find_box_format("xyxy_px", ""), find_box_format("yxyx_1000", "")

    def model(probe: Probe) -> ProbedPicture:
        boxes, other = seen(probe, draw), STATED
        if what == "boxes anywhere":
            boxes = {phrase: anywhere(probe, draw) for phrase in probe.boxes}
        elif what == "large pictures with y first" and max(probe.size) > 1000:
            return answered(probe, lambda _: y_first, boxes)
        elif what == "a third of the boxes in pixels":
            other = pixels
        return answered(probe, lambda _: other if draw.random() < 1 / 3 else STATED, boxes)

    return model


@pytest.mark.parametrize(
    "what", ["boxes anywhere", "a third of the boxes in pixels", "large pictures with y first"]
)
def test_answers_in_no_one_format_are_refused(what: str) -> None:
    assert is_refused(in_two_formats(what, random.Random(0)))


@pytest.mark.parametrize(
    "kept", [pytest.param(0.75, id="enough"), pytest.param(0.25, id="three of twelve")]
)
def test_rectangles_that_are_not_found_count(kept: float) -> None:
    def model(probe: Probe) -> ProbedPicture:
        whole = answered(probe, lambda _: STATED, dict(probe.boxes))
        return ProbedPicture(probe, probe.size, whole.answers[: round(kept * len(whole.answers))])

    assert is_refused(model) is (kept < 1 / 2)


def test_a_picture_without_answers_proves_no_parts_of_the_side() -> None:
    pictures = [answered(probe, lambda _: STATED, dict(probe.boxes)) for probe in PROBES]
    assert fit_parts(pictures, STATED) is not None
    for place, probe in enumerate(PROBES):
        silent = ProbedPicture(probe, probe.size, [], "no box")
        assert fit_parts([*pictures[:place], silent, *pictures[place + 1 :]], STATED) is None


def test_noise_makes_a_map_less_precise_and_says_so() -> None:
    errors = []
    for noise in (0.005, 0.03, 0.06):
        draw = random.Random(1)
        decision, _ = decided(with_rule(reduced(edge=800), draw, noise, 0), [(1600, 1200)])
        errors.append(decision.fit.format.maps[0].error)
    assert errors == sorted(errors)
    assert errors[0] < 0.0033 < errors[2]


def test_the_error_is_in_pixels_of_the_pictures() -> None:
    pictures = []
    for probe in PROBES:
        off = {
            phrase: (x1 + 2, y1 + 2, x2 + 2, y2 + 2)
            for phrase, (x1, y1, x2, y2) in probe.boxes.items()
        }
        pictures.append(
            answered(probe, lambda _: find_box_format("xyxy_1", ""), off, rounded=False)
        )
    found = fit_parts(pictures, STATED)
    assert found is not None
    assert found.format.name == "xyxy_1"
    assert found.error_px == pytest.approx(2.0, abs=0.2)
    assert (found.found, found.asked) == (36, 36)


@pytest.mark.parametrize(
    ("written", "said", "name"),
    [
        pytest.param(STATED, {"order": "xyxy"}, "xyxy_1000", id="corners are taken as stated"),
        # a later reply that names none is read as those before
        pytest.param(
            find_box_format("yxyx_1000", ""), {"order": "yxyx"}, "yxyx_1000", id="y first"
        ),
        pytest.param(
            known_formats()["paligemma"], {"family": "paligemma"}, "paligemma", id="tokens"
        ),
    ],
)
def test_what_answers_say_of_their_format_counts(
    written: BoxFormat, said: dict[str, Any], name: str
) -> None:
    pictures = []
    for probe in PROBES:
        answers = [
            ProbeBox(phrase, bbox, tuple(written.from_pixels(bbox, original=probe.size)), **said)
            for phrase, bbox in probe.boxes.items()
        ]
        pictures.append(ProbedPicture(probe, probe.size, answers))
    found = fit_parts(pictures, STATED)
    assert found is not None
    assert found.format.name == name
