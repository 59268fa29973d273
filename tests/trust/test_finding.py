"""Naming a format from answers: every order, scale and padding, every way of resizing, and answers
that name none.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.trust.finding import fit_parts
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import Probe, ProbeBox, ProbedPicture
from tests.support.stand_ins.format_runs import FORMATLESS, PROBES, is_refused, one_format
from tests.support.stand_ins.probe_model import answered
from tests.support.stand_ins.resize_rules import OTHERS, RULES, reduced
from tests.support.stand_ins.rule_runs import STATED, decided, one_rule, with_rule


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["xyxy_1", "yxyx_999", "xywh_px@pad_square_corner"],
)
def test_a_noisy_model_is_told_right(name: str) -> None:
    """Whole numbers, and numbers as they come. `benchmarks.calibration` plays all formats."""
    assert [one_format(find_box_format(name, ""), seed) for seed in (0, 1)] == ["right", "right"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 4])
def test_sides_that_pixels_would_explain_too_are_told_right(seed: int) -> None:
    """A long edge of about the same number in every picture: the same boxes at any noise."""
    known = find_box_format("xyxy_1000@pad_square_corner", "")
    assert [one_format(known, seed, noise, 0) for noise in (0.001, 0.004)] == ["right"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("multiples of 28, area 3136 to 12845056", 0),
        ("multiples of 32, area 4096 to 2097152", 1),
        ("OpenAI's", 1),
        ("long edge always 672", 2),
        # the two of 780 models of a long run that were once read wrong
        pytest.param("6 tiles of 336, counted as tiles", 27, id="x and y that differ by an eighth"),
        pytest.param("shrinking with the size", 15, id="sides that look rounded by chance"),
    ],
)
def test_pixels_are_read_right_or_refused_whatever_the_server_does_to_pictures(
    name: str, seed: int
) -> None:
    """Seed 0 has next to no noise. `benchmarks.resize_rules` plays all rules."""
    outcome = one_rule(name, {**RULES, **OTHERS}[name], seed)
    assert outcome.kind != "wrong", outcome.why
    assert outcome.kind == "right" or seed


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["random boxes", "a third of the boxes in pixels", "large pictures with y first"]
)
def test_answers_in_no_one_format_are_refused(what: str) -> None:
    assert is_refused(FORMATLESS[what], 0)


@pytest.mark.parametrize(
    "kept", [pytest.param(0.75, id="enough"), pytest.param(0.25, id="three of twelve")]
)
def test_rectangles_that_are_not_found_count(kept: float) -> None:
    def model(probe: Probe) -> ProbedPicture:
        whole = answered(probe, lambda _: STATED, dict(probe.boxes))
        return ProbedPicture(probe, probe.size, whole.answers[: round(kept * len(whole.answers))])

    assert is_refused(lambda draw: model, 0) is (kept < 1 / 2)


@pytest.mark.slow
def test_a_picture_without_answers_proves_no_parts_of_the_side() -> None:
    pictures = [answered(probe, lambda _: STATED, dict(probe.boxes)) for probe in PROBES]
    assert fit_parts(pictures, STATED) is not None
    for place, probe in enumerate(PROBES):
        silent = ProbedPicture(probe, probe.size, [], "no box")
        assert fit_parts([*pictures[:place], silent, *pictures[place + 1 :]], STATED) is None


@pytest.mark.slow
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


def test_a_second_format_of_a_few_rectangles_is_named() -> None:
    other = find_box_format("yxyx_1000", "")
    pictures = []
    for number, probe in enumerate(PROBES):
        in_other = list(probe.boxes)[:6] if number == 1 else []
        pictures.append(
            answered(
                probe,
                lambda phrase, these=in_other: other if phrase in these else STATED,  # type: ignore[misc]
                dict(probe.boxes),
            )
        )
    with pytest.raises(NoFit, match=r"two formats: xyxy_1000 for 3. rectangles, yxyx_1000 for ."):
        fit_parts(pictures, STATED)
