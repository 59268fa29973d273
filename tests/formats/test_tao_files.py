"""TAO's annotations.jsonl: written with the names of its code, and read with its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import read
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


@pytest.mark.slow
def test_load_dataset_reads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its types stand in the README: boxes, spans that were looked up, a score of 1 before one of
    0.5, ids as texts.
    """
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    rows = []
    for number, own, score in ((1, 7, 1), (2, "x7", 0.5)):
        box = {"bbox": [1, 2, 30, 40], "score": score, "bbox_id": own}
        mug = {"text": "a mug", "instances": [box], "expression_id": own}
        one = record(f"{number}.png", (64, 48), [mug], image_id=own)
        del one["expressions"][0]["char_span"]
        rows.append(one)
    rows.append(record("3.png", (64, 48), [], background=True))
    out, cache = str(exported(tmp_path, "tao", rows)), str(tmp_path / "cache")
    data = datasets.load_dataset(out, split="train", cache_dir=cache)
    found = [(row["image_id"], row["background"], row["expressions"]) for row in data]
    assert [row[:2] for row in found] == [("7", None), ("x7", None), ("3", True)]
    boxes = [one["instances"][0] for _, _, expressions in found for one in expressions]
    assert [(box["bbox"], box["bbox_score"], box["bbox_id"]) for box in boxes] == [
        ([1, 2, 30, 40], 1, "7"),
        ([1, 2, 30, 40], 0.5, "x7"),
    ]
    assert found[0][2][0]["char_span"] == [0, 5]


@pytest.mark.parametrize("span", [[0, 17], ["a", 3], [3, 1], [0], {"start": 0}])
def test_spans_that_its_model_made_up_are_looked_up(span: Any, tmp_path: Path) -> None:
    [row] = read(tao(tmp_path, span, source="image_grounding"), "tao")
    [one] = row["expressions"]
    assert one["char_span"] == [7, 16]
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
