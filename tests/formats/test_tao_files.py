"""TAO's annotations.jsonl: written with the names of its code, and read with its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import find_format, read
from tests.formats.data import draw, exported, hostile, record, records_of
from tests.support.labelled import saved

RECORD = {
    *("image_id", "image_path", "width", "height", "caption", "cleaned_caption", "regions"),
    *("expressions", "source", "pipeline_steps"),
}
EXPRESSION = {"expression_id", "text", "char_span", "noun_chunk", "instances", "verified"}


def tao(folder: Path, span: Any = (0, 17), **more: Any) -> str:
    """A record as TAO's code writes it."""
    box = {"bbox_id": "box_00000", "bbox": [10, 5, 30, 40], "bbox_score": 0.9}
    one = {"expression_id": "expr_0", "text": "a red mug", "char_span": span, "instances": [box]}
    said = "Beside a red mug."
    row = {"image_id": "a", "image_path": "a.png", "caption": said, "cleaned_caption": said}
    row |= {"width": 1920, "height": 1080, "expressions": [one], **more}
    return str(saved(folder / "annotations.jsonl", [row]))


def test_the_names_are_those_of_its_code(tmp_path: Path) -> None:
    rows = records_of(exported(tmp_path, "tao", list(hostile())))
    assert len(rows) == 5
    for row in rows:
        assert row.keys() - {"background"} == RECORD
        # whose boxes are pixels: the other's are parts of 1000
        assert row["source"] == "image_grounding"
        for one in row["expressions"]:
            assert one.keys() == EXPRESSION
            assert all(box.keys() == {"bbox_id", "bbox", "bbox_score"} for box in one["instances"])
    assert [box["bbox_score"] for box in rows[0]["expressions"][0]["instances"]] == [0.5, None]


@pytest.mark.parametrize("span", [[0, 17], ["a", 3], [3, 1], [0], {"start": 0}])
def test_spans_that_its_model_made_up_are_looked_up(span: Any, tmp_path: Path) -> None:
    source = find_format("tao")
    [row] = read(tao(tmp_path, span, source="image_grounding"), source)
    [one] = row["expressions"]
    assert one["char_span"] == [7, 16]
    off = "offsets of places in captions that were off, taken from their words"
    assert +source.passed_over == {off: 1}
    assert one["instances"][0]["score"] == 0.9
    assert "bbox_score" not in one["instances"][0]


def test_boxes_of_referring_expressions_become_pixels(tmp_path: Path) -> None:
    """They are parts of 1000; the label that a region is gives the exact numbers."""
    draw(tmp_path, [record("a.png", (640, 427), [])])
    box = {"bbox": [100, 200, 500, 700], "bbox_score": 0.9}
    mug = {"text": "a red mug", "instances": [box]}
    more = {"source": "image_referring_expression", "expressions": [mug]}
    regions = [{"bbox": [100, 200, 500, 700], "type": "Car"}]
    exact = [64.1, 85.5, 320.2, 298.9]
    [row] = read(tao(tmp_path, **more, regions=regions, kitti_bboxes=[[*exact, "Car"]]), "tao")
    assert row["expressions"][0]["instances"][0]["bbox"] == exact
    why = r"line 1: .*without 'kitti_bboxes', boxes .* may be pixels or parts of 1000"
    with pytest.raises(InputError, match=why):
        list(read(tao(tmp_path, **more), "tao"))


@pytest.mark.parametrize(
    ("more", "why"),
    [({"expressions": None}, "is not of this format"), ({"kitti_bboxes": []}, "a.png")],
)
def test_what_is_wrong_is_named(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"annotations\.jsonl, line 1: .*{why}"):
        list(read(tao(tmp_path, **more), "tao"))
