"""Expressions, boxes and regions: what is read is typed, and what came in goes out as it came."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding import Expression, Instance, Record, Region, read_expressions, read_regions
from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.records import as_json
from tests.support.json_values import any_json

KEYS = [*Expression.FIELDS, "score", "mine", "area"]
# a file with NaN or Infinity is refused when it is read
VALUES = (
    any_json()
    .map(json.dumps)
    .filter(lambda line: not re.search("NaN|Infinity", line))
    .map(json.loads)
)


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8), VALUES)
def test_an_expression_that_nobody_changes_goes_out_as_it_came(
    row: dict[str, Any], of_box: Any
) -> None:
    box = {"mine": of_box, "score": 0.5, "bbox": [1, 2, 3.5, 4], "bbox_id": 7, "class": of_box}
    row = {**row, "instances": [box], "text": "a cup", "expression_id": "7#0"}
    assert text(Expression.from_json(row).to_json()) == text(row)


@given(st.dictionaries(st.sampled_from([*Region.FIELDS, "mine"]), VALUES, max_size=6))
def test_a_region_that_nobody_changes_goes_out_as_it_came(row: dict[str, Any]) -> None:
    row = {**row, "bbox": [0, 0, 5, 5], "type": "Car"}
    assert text(Region.from_json(row).to_json()) == text(row)


def test_a_text_alone_becomes_an_expression_with_an_id() -> None:
    [cup] = read_expressions(Record({"e": ["a cup"]}, image_id="x"), "e")
    assert cup.to_json() == {"text": "a cup", "expression_id": "x#0", "instances": []}


def test_fields_that_are_set_come_after_those_that_came() -> None:
    cup = Expression.from_json({"mine": 1, "text": "a cup", "expression_id": "x", "instances": []})
    cup.status = "none"
    cup.disagreement = False
    assert list(cup.to_json()) == [
        "mine",
        "text",
        "expression_id",
        "instances",
        "status",
        "disagreement",
    ]


def test_new_boxes_take_away_what_was_said_of_the_former_ones() -> None:
    row = {"text": "a cup", "verified": None, "reason": 5, "doubtful": True, "mine": 1}
    cup = Expression.from_json(row, own_id="x").with_new_boxes([Instance((1, 2, 3, 4))])
    assert list(cup.to_json()) == ["text", "mine", "expression_id", "instances"]


def test_a_box_that_moves_loses_its_outline() -> None:
    box = Instance.from_json({"bbox": [1, 2, 3, 4], "outline": [1, 2, 3, 4, 5, 6], "area": 4})
    assert box.moved((1, 2, 3, 4)) == box
    assert box.moved((1, 2, 3, 5)).to_json() == {"bbox": [1, 2, 3, 5]}


@pytest.mark.parametrize("score", [float("nan"), np.float32("inf")])
def test_what_json_cannot_say_is_refused(score: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Expression("a cup", instances=[Instance((1, 2, 3, 4), score=score)]).to_json()


def test_numbers_of_numpy_become_pythons() -> None:
    corners: Any = tuple(np.float32([1, 2, 3.5, 4]))
    row = Instance(corners, score=np.float64(0.5)).to_json()
    assert [type(number) for number in [*row["bbox"], row["score"]]] == [float] * 5


def test_the_engine_writes_typed_values_as_json() -> None:
    update = {"expressions": [Expression("a cup", "x#0", [Instance((1, 2, 3, 4))])]}
    instance = {"bbox": [1, 2, 3, 4], "score": None}
    cup = {"expression_id": "x#0", "text": "a cup", "char_span": None, "instances": [instance]}
    assert as_json(update) == {"expressions": [cup]}


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], [5, 5, 5, 9], [0, 0, float("nan"), 1]], ids=str)
def test_a_region_without_a_box_is_a_broken_row_that_names_it(bbox: Any) -> None:
    with pytest.raises(BrokenRow, match="column 'regions', region 1"):
        read_regions(Record({"regions": [{"bbox": [0, 0, 1, 1]}, {"bbox": bbox}]}), "regions")
