"""Agreement of two annotators, on cases that are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.metrics import agreement
from dataflow_grounding.metrics.agreement import alpha, kappa
from tests.metrics.cases import FAR, HALF, LEFT, MIDDLE, RIGHT, record


def test_boxes() -> None:
    a = [{**record(a=[LEFT], b=[LEFT, RIGHT], c=[], d=[LEFT]), "width": 30, "height": 40}]
    b = [{**record(a=[LEFT], b=[HALF], c=[], e=[FAR, FAR]), "width": 30, "height": 40}]
    said = agreement(a, b)
    # a matches with IoU 1, b with 0.5. Boxes: 4 of the one, 4 of the other. Corners of b: (0, 0) and (0, 5) apart, of a
    # diagonal of 50: 5 %. Of three common phrases c has no box in either.
    assert said["f1_0.5"] == 4 / 8
    assert said["f1_0.75"] == 2 / 8
    assert said["mean_iou"] == 0.75
    assert said["corner_distance"] == 2.5
    assert said["both_none"] == pytest.approx(1 / 3, abs=1e-4)
    assert (said["expressions"], said["expressions_of_one"], said["boxes"], said["images"]) == (3, 2, 8, 1)
    assert said["alpha_box_experimental"] is None  # one image
    swapped = agreement(b, a)
    assert swapped == said


def test_records_of_one_annotator_do_not_count() -> None:
    said = agreement([record(a=[LEFT]), record("y.png", a=[LEFT])], [record(a=[LEFT])])
    assert (said["f1_0.5"], said["expressions_of_one"], said["boxes"]) == (1.0, 0, 2)
    assert said["corner_distance"] is None  # no sizes


def test_nothing_to_compare() -> None:
    said = agreement([record(a=[])], [record(b=[])])
    assert (said["f1_0.5"], said["mean_iou"], said["both_none"], said["expressions"]) == (None, None, None, 0)


def test_alpha_of_boxes() -> None:
    # Two images whose boxes never meet: by chance the disagreement is 1. Observed: 0 for LEFT, 1 - 1/2 for HALF: 1/4.
    a = [record(a=[LEFT]), record("y.png", a=[[100, 0, 110, 10]])]
    b = [record(a=[HALF]), record("y.png", a=[[100, 0, 110, 10]])]
    assert agreement(a, b)["alpha_box_experimental"] == 0.75
    # A third of IoU is no match: two boxes that stand alone, and one pair: (0 + 1 + 1) / 3.
    b[0] = record(a=[MIDDLE])
    assert agreement(a, b)["alpha_box_experimental"] == pytest.approx(1 / 3, abs=1e-4)


def labelled(*labels: Any) -> list[Any]:
    row = record(**{f"p{n}": [] for n in range(len(labels))})
    for expression, label in zip(row["expressions"], labels, strict=True):
        expression["status"] = label
    return [row]


def test_labels() -> None:
    said = agreement(
        labelled("none", "none", "grounded", "none", None), labelled("none", "none", "grounded", "grounded", "none")
    )
    # Equal 3 of 4; by chance 3/4 · 2/4 + 1/4 · 2/4 = 1/2: κ = (3/4 - 1/2) / (1/2).
    # α: 5 times "none", 3 times "grounded"; one pair differs: 1 - 7 · 2 / (2 · 5 · 3).
    assert (said["kappa_status"], said["alpha_status"]) == (0.5, pytest.approx(1 - 14 / 30, abs=6e-5))
    assert (said["kappa_verified"], said["alpha_verified"]) == (None, None)


def test_krippendorffs_own_example_of_nominal_data() -> None:
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", part C: four observers, twelve units: 0.743.
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    assert alpha(list(zip(*observers, strict=True))) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("units", [[], [("a", "a")], [("a", None)]], ids=str)
def test_labels_that_never_differ_say_nothing(units: Any) -> None:
    assert kappa(units) is None
    assert alpha(units) is None
