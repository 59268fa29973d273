"""Agreement of two annotators, on cases that are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.evaluation.metrics import agreement
from dataflow_grounding.evaluation.metrics.agreeing import kappa_and_alpha
from tests.evaluation.metrics.cases import FAR, HALF, LEFT, RIGHT, record


def test_boxes() -> None:
    a = [record(a=[LEFT], b=[LEFT, RIGHT], c=[], d=[LEFT])]
    b = [record(a=[LEFT], b=[HALF], c=[], e=[FAR, FAR])]
    said = agreement(a, b)
    # a matches with IoU 1, b with 0.5. Boxes: 4 of the one, 4 of the other.
    assert said["f1_0.5"] == 4 / 8
    assert said["f1_0.75"] == 2 / 8
    assert said["mean_iou"] == 0.75
    assert (said["expressions"], said["expressions_of_one"]) == (3, 2)
    assert (said["boxes"], said["images"]) == (8, 1)
    assert agreement(b, a) == said


def test_records_of_one_annotator_do_not_count() -> None:
    said = agreement([record(a=[LEFT]), record("y.png", a=[LEFT])], [record(a=[LEFT])])
    assert (said["f1_0.5"], said["expressions_of_one"], said["boxes"]) == (1.0, 0, 2)


def test_nothing_to_compare() -> None:
    said = agreement([record(a=[])], [record(b=[])])
    assert (said["f1_0.5"], said["mean_iou"], said["expressions"]) == (None, None, 0)


def labelled(*labels: Any) -> list[Any]:
    row = record(**{f"p{n}": [] for n in range(len(labels))})
    for expression, label in zip(row["expressions"], labels, strict=True):
        expression["status"] = label
    return [row]


def test_labels() -> None:
    second = labelled("none", "none", "grounded", "grounded", "none")
    said = agreement(labelled("none", "none", "grounded", "none", None), second)
    # Equal 3 of 4; by chance 3/4 · 2/4 + 1/4 · 2/4 = 1/2: κ = (3/4 - 1/2) / (1/2).
    # α: 5 times "none", 3 times "grounded"; one pair differs: 1 - 7 · 2 / (2 · 5 · 3). What one
    # alone has is left out.
    assert said["kappa_status"] == 0.5
    assert said["alpha_status"] == pytest.approx(1 - 14 / 30, abs=6e-5)
    assert (said["kappa_verified"], said["alpha_verified"]) == (None, None)


def test_krippendorffs_own_example_of_two_observers() -> None:
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", part A: two labels of ten
    # articles: 0.095.
    _, alpha = kappa_and_alpha(list(zip("0100000010", "1110010000", strict=True)))
    assert alpha == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize("labels", [[], [("a", "a")]], ids=str)
def test_labels_that_never_differ_say_nothing(labels: Any) -> None:
    assert kappa_and_alpha(labels) == (None, None)
