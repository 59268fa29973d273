"""Groups of near regions, and boxes matched one to one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataflow_grounding import (
    BoxRefiner,
    DoubleChecker,
    Merger,
    PhraseGrounder,
    RegionCaptioner,
    RegionExpressionGenerator,
)
from dataflow_grounding._util.errors import BrokenRow, SpecError
from dataflow_grounding.boxes.geometry import Bbox, iou
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.expressions import read_regions
from dataflow_grounding.data.records import Record
from dataflow_grounding.operators._nearness import near_groups
from tests.support.answering import Answering

numbers = st.integers(0, 40)
box = st.tuples(numbers, numbers, st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)


@pytest.mark.slow
@given(st.lists(box, max_size=70), st.integers(1, 16))
def test_each_place_is_in_one_group_and_no_group_is_too_large(boxes: list[Bbox], most: int) -> None:
    groups = near_groups(boxes, most)
    assert sorted(itertools.chain(*groups)) == list(range(len(boxes)))
    assert all(0 < len(group) <= most and group == sorted(group) for group in groups)
    assert near_groups(boxes, most) == groups
    assert len(groups) <= max(1, 2 * -(-len(boxes) // most))


def test_groups_are_of_such_as_lie_near_each_other() -> None:
    left, right = (
        [(n, n, n + 1, n + 1) for n in range(0, 20, 2)],
        [(500 + n, n, 501 + n, n + 1) for n in range(0, 20, 2)],
    )
    mixed = [box for pair in zip(left, right, strict=True) for box in pair]
    assert near_groups(mixed, 10) == [list(range(0, 20, 2)), list(range(1, 20, 2))]


near = st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(6, 9), st.integers(6, 9)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)


@pytest.mark.slow
@given(st.lists(near, max_size=5), st.lists(near, max_size=5), st.sampled_from([0.3, 0.5, 0.7]))
def test_as_many_pairs_are_matched_as_can_be(
    found: list[Bbox], wanted: list[Bbox], threshold: float
) -> None:
    pairs = match_boxes(found, wanted, threshold, most=True)
    assert len({which for which, _ in pairs.values()}) == len(pairs)
    for want, (which, overlap) in pairs.items():
        assert overlap == iou(found[which], wanted[want]) >= threshold
    few, many = sorted((found, wanted), key=len)
    best = max(
        sum(iou(a, b) >= threshold for a, b in zip(few, order, strict=False))
        for order in itertools.permutations(many)
    )
    assert len(pairs) == best


def test_a_box_gives_its_best_partner_up_where_another_has_no_other() -> None:
    found = [(0.0, 0, 9.5, 10), (4.0, 0, 12, 10)]
    pairs = match_boxes(found, [(0.0, 0, 10, 10), (1.0, 0, 8, 10)], most=True)
    assert {want: which for want, (which, _) in pairs.items()} == {0: 1, 1: 0}


def test_without_that_pairs_are_made_by_falling_iou() -> None:
    found = [(0.0, 0, 9.5, 10), (4.0, 0, 12, 10)]
    pairs = match_boxes(found, [(0.0, 0, 10, 10), (1.0, 0, 8, 10)])
    assert {want: which for want, (which, _) in pairs.items()} == {0: 0}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        [1],
        [{"bbox": [1, 2, 3]}],
        [{"bbox": [1, 2, 3, "4"]}],
        [{"bbox": [1, 2, 3, float("nan")]}],
        [{"bbox": [3, 2, 1, 4]}],
        [{"type": "Car"}],
    ],
)
def test_what_is_no_region_is_refused(value: Any) -> None:
    with pytest.raises(BrokenRow, match="column 'regions'"):
        read_regions(Record({"regions": value}), "regions")


@pytest.mark.parametrize(
    "make",
    [
        lambda: DoubleChecker(Answering(), marks="circles"),  # type: ignore[arg-type]
        lambda: PhraseGrounder(Answering(), phrases_per_request=0),
        lambda: Merger(Answering(), marks="circles"),  # type: ignore[arg-type]
        lambda: RegionExpressionGenerator(Answering(), regions_per_request=0),
    ],
)
def test_settings_that_can_not_be_are_refused(make: Any) -> None:
    with pytest.raises(SpecError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        BoxRefiner,
        DoubleChecker,
        Merger,
        PhraseGrounder,
        lambda serving: PhraseGrounder(serving, samples=3),
        RegionCaptioner,
        lambda serving: RegionCaptioner(serving, marks="crop"),
        RegionExpressionGenerator,
    ],
)
def test_without_regions_or_expressions_nothing_is_sent(make: Any) -> None:
    picture = Image.new("RGB", (60, 40), "white")
    serving = Answering("{}")
    make(serving)({"image_path": picture, "image": picture, "regions": [], "expressions": []})
    assert serving.given == 0


# what is said of "the car", which means region 2 of three → text, status, verified
CHECKS: dict[str, tuple[dict[str, Any], tuple[str, str, bool | None]]] = {
    "yes": ({"matches": True, "region_ids": [2]}, ("the car", "grounded", True)),
    "yes, but another region": (
        {"matches": True, "region_ids": [1]},
        ("the car", "grounded", None),
    ),
    "yes, but two others": ({"matches": True, "region_ids": [1, 3]}, ("the car", "grounded", None)),
    "yes, and another": ({"matches": True, "region_ids": [1, 2]}, ("the car", "ambiguous", False)),
    "two others": ({"matches": False, "region_ids": [1, 3]}, ("the car", "ambiguous", False)),
    "a new text": ({"matches": False, "text": "the bus"}, ("the bus", "grounded", True)),
    "no text": ({"matches": False, "text": "N/A"}, ("the car", "grounded", False)),
}


@pytest.mark.parametrize(("said", "expected"), CHECKS.values(), ids=CHECKS)
def test_a_check_verifies_and_mends_only_what_it_is_sure_of(
    said: dict[str, Any], expected: tuple[str, str, bool | None]
) -> None:
    boxes = [[1, 1, 9, 9], [20, 1, 29, 9], [40, 1, 49, 9]]
    instances = [{"bbox": boxes[1]}]
    row = {
        "image_path": Image.new("RGB", (60, 40), "white"),
        "regions": [{"bbox": bbox} for bbox in boxes],
        "expressions": [{"text": "the car", "status": "grounded", "instances": instances}],
    }
    serving = Answering(json.dumps({"checks": [{"id": 1, **said}]}))
    [checked] = DoubleChecker(serving)(row)["expressions"]
    assert (checked["text"], checked["status"], checked["verified"]) == expected
