"""Figures of boxes against gold, on cases that can be reckoned by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.metrics import score_boxes

LEFT, RIGHT, MIDDLE = [0, 0, 10, 10], [20, 0, 30, 10], [5, 0, 15, 10]


def record(path: str = "x.png", caption: str | None = "c", **phrases: list[list[float]]) -> dict[str, Any]:
    """A record whose expressions are `phrases`, with underscores for blanks."""
    expressions = [
        {"text": text.replace("_", " "), "instances": [{"bbox": bbox} for bbox in boxes]}
        for text, boxes in phrases.items()
    ]
    return {"image_path": path, "caption": caption, "expressions": expressions}


# found, gold, threshold → boxes, right, gold boxes, sum of IoU, grounded, expressions
CASES: list[tuple[str, list[Any], list[Any], float, tuple[float, ...]]] = [
    ("exact", [record(dog=[LEFT])], [record(dog=[LEFT])], 0.5, (1, 1, 1, 1.0, 1, 1)),
    ("case and spacing", [record(The__Dog=[LEFT])], [record(the_dog=[LEFT])], 0.5, (1, 1, 1, 1.0, 1, 1)),
    ("a third of both", [record(dog=[LEFT])], [record(dog=[MIDDLE])], 0.5, (1, 0, 1, 0, 1, 1)),
    ("just at the threshold", [record(dog=[LEFT])], [record(dog=[[0, 0, 10, 5]])], 0.5, (1, 1, 1, 0.5, 1, 1)),
    ("the right box of another phrase", [record(cat=[LEFT], dog=[])], [record(dog=[LEFT])], 0.5, (1, 0, 1, 0, 1, 2)),
    ("of another image", [record("y.png", dog=[LEFT])], [record(dog=[LEFT])], 0.5, (1, 0, 1, 0, 1, 1)),
    ("of another caption", [record(caption="d", dog=[LEFT])], [record(dog=[LEFT])], 0.5, (1, 0, 1, 0, 1, 1)),
    ("the same box twice", [record(dog=[LEFT, LEFT])], [record(dog=[LEFT])], 0.5, (2, 1, 1, 1.0, 1, 1)),
    ("one box for two", [record(dogs=[LEFT])], [record(dogs=[LEFT, RIGHT])], 0.5, (1, 1, 2, 1.0, 1, 1)),
    ("best pairs first", [record(d=[[0, 0, 10, 9], LEFT])], [record(d=[LEFT])], 0.5, (2, 1, 1, 1.0, 1, 1)),
    ("two of two, crossed", [record(d=[RIGHT, LEFT])], [record(d=[LEFT, RIGHT])], 0.5, (2, 2, 2, 2.0, 1, 1)),
    ("gold that is not in the results", [], [record(dog=[LEFT])], 0.5, (0, 0, 1, 0, 0, 0)),
    ("nothing", [], [], 0.5, (0, 0, 0, 0, 0, 0)),
    ("a phrase without box", [record(dog=[])], [record(dog=[])], 0.5, (0, 0, 0, 0, 0, 1)),
    ("no expressions", [{"image_path": "x.png"}], [{"image_path": "x.png", "expressions": None}], 0.5, (0,) * 6),
]


@pytest.mark.parametrize(("found", "gold", "threshold", "counts"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_counts(found: list[Any], gold: list[Any], threshold: float, counts: tuple[float, ...]) -> None:
    scores = score_boxes(found, gold, threshold)
    assert (scores.boxes, scores.right, scores.gold_boxes) == counts[:3]
    assert scores.iou_sum == pytest.approx(counts[3])
    assert (scores.grounded, scores.expressions) == counts[4:]


def test_shares_and_nothing_to_divide_by() -> None:
    figures = score_boxes([record(a=[LEFT, RIGHT], b=[])], [record(a=[LEFT], b=[RIGHT], c=[RIGHT])], 0.75).to_json()
    assert figures["grounded_share"] == 0.5
    assert figures["precision_at_iou_0.75"] == 0.5
    assert figures["recall_at_iou_0.75"] == 0.3333
    nothing = score_boxes([], []).to_json()
    assert [nothing[name] for name in ("precision_at_iou_0.5", "recall_at_iou_0.5", "mean_iou_of_right_boxes")] == [
        None
    ] * 3


def test_texts_for_expressions_and_bbox_score_are_read() -> None:
    found = [
        {"image_path": "x", "expressions": ["dog", {"text": "cat", "instances": [{"bbox": LEFT, "bbox_score": 1}]}]}
    ]
    assert score_boxes(found, found).right == 1


@pytest.mark.parametrize("expressions", ["dog", [{}], [{"text": "a", "instances": [{"bbox": [1]}]}]], ids=repr)
def test_what_is_no_record_is_refused(expressions: Any) -> None:
    with pytest.raises(BrokenRow):
        score_boxes([{"image_path": "x", "expressions": expressions}], [])
