"""What detectors' labelling tools write: LabelMe, X-AnyLabeling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import find_format, read
from tests.support.workplace import command

SIDES = {"imageWidth": 64, "imageHeight": 48, "imageData": None, "version": "5.5.0", "flags": {}}


def shape(label: Any, points: Any, kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(path: Path, *shapes: dict[str, Any], picture: str = "a.png") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {**SIDES, "imagePath": picture, "shapes": list(shapes)}
    path.write_text(json.dumps(data), encoding="utf-8")


def boxes_of(record: dict[str, Any]) -> dict[str, list[list[float]]]:
    boxes = {}
    for expression in record["expressions"]:
        boxes[expression["text"]] = [instance["bbox"] for instance in expression["instances"]]
    return boxes


@pytest.mark.parametrize("stated", [None, ""])
def test_labelmes_file_without_a_pictures_name_is_of_the_one_next_to_it(
    tmp_path: Path, stated: str | None
) -> None:
    """The picture was called "None"."""
    data = {**SIDES, "imagePath": stated, "shapes": [shape("cup", [[1, 2], [3, 4]], "Rectangle")]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="it names no picture"):
        list(read(str(path), find_format("labelme")))
    (tmp_path / "a.png").touch()
    (row,) = read(str(path), find_format("labelme"))
    assert (row["image_path"], boxes_of(row)) == ("a.png", {"cup": [[1, 2, 3, 4]]})


def test_labelmes_corners_may_be_two_or_four_in_any_order(tmp_path: Path) -> None:
    four = [[30.5, 1], [40, 1], [40, 9.25], [30.5, 9.25]]
    labelme(
        tmp_path / "b.json",
        shape("cup", [[20, 30], [4.5, 6]]),
        shape("cup", four, score=0.5, difficult=False, attributes={}),
        shape("dog", [[1, 1], [9, 3], [5, 8]], "polygon", score=None),
        shape("dog", [[1, 1]], "point"),
    )
    labelme(tmp_path / "deep" / "a.json", picture="..\\b.png")
    source = find_format("labelme")
    first, second = read(str(tmp_path), source)
    assert boxes_of(first) == {
        "cup": [[4.5, 6, 20, 30], [30.5, 1, 40, 9.25]],
        "dog": [[1, 1, 9, 8]],
    }
    cup = first["expressions"][0]
    assert [instance.get("score") for instance in cup["instances"]] == [None, 0.5]
    assert (cup["class"], first["width"], first["height"]) == ("cup", 64, 48)
    assert source.passed_over["shapes 'point'"] == 1
    assert sum(source.passed_over.values()) == 1
    assert second["image_path"] == "deep/../b.png"
    assert second["expressions"] == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "is not of this format"),
        ('{"shapes": []}', "no 'imagePath' in it"),
        (
            json.dumps({**SIDES, "imagePath": "a.png", "shapes": [shape("", [[1, 2], [3, 4]])]}),
            "label",
        ),
        (json.dumps({**SIDES, "imagePath": "a.png", "shapes": [shape("cup", [])]}), "x.json"),
        (
            json.dumps({**SIDES, "imagePath": "a.png", "shapes": [shape("cup", [["x", 1]])]}),
            "x.json",
        ),
    ],
)
def test_what_is_no_labelme_file_is_told_with_its_name(
    tmp_path: Path, content: str, complaint: str
) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.json") as caught:
        list(read(str(tmp_path), find_format("labelme")))
    assert complaint in str(caught.value)


def test_a_folder_without_files_of_labelmes_is_told(tmp_path: Path) -> None:
    done = command(["import", str(tmp_path), "--format", "labelme", "-o", str(tmp_path / "out")])
    assert done.code != 0
    assert "has no .json files" in done.err
