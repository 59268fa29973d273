"""What reading leaves out is told, by name and count."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.formats.data import draw, facts_of, record, records_of, refused, told
from tests.support.labelled import Labelled, labelled, saved

ATTRIBUTE = '<attribute name="phrase">a mug</attribute><attribute name="colour">red</attribute>'
CVAT_BOX = f'<box label="car" xtl="1" ytl="2" xbr="{{}}" ybr="4">{ATTRIBUTE}</box>'
POLYLINE = '<polyline label="car" points="1,2;3,4;5,6"/>'
TASK: dict[str, Any] = {"data": {"image": "a.png"}}
DONE: dict[str, Any] = {"result": []}
FLAT = "boxes without an area"


class PassedOver(NamedTuple):
    """Entries of a.png, or what is written in its place, and what an import says of them."""

    entries: list[Any]
    left_out: dict[str, int]
    records: int = 1
    pictures: list[Any] = []
    files: dict[str, str] = {}


PASSED_OVER = {
    "coco": PassedOver(
        [
            {"bbox": [1, 2, 3, 4], "score": 7},
            {"bbox": [1, 2, 3, 4], "category_id": 8},
            {"bbox": []},
            {"bbox": None, "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {"bbox": [1, 2, 0, 4], "iscrowd": 0},
            {"bbox": [1, 2, 0, 4], "iscrowd": 1},
            {"bbox": [1, 2, 3, 4], "image_id": 9},
        ],
        {
            "crowd annotations": 1,
            "annotations of no image": 1,
            "annotations without a box": 1,
            FLAT: 1,
            "annotations whose category isn't listed, which are read as 'object'": 1,
            "scores outside of 0 to 1": 1,
        },
    ),
    "label-studio": PassedOver(
        [],
        {
            "tasks without an annotation": 2,
            "cancelled annotations": 1,
            "annotations before a task's last one": 1,
        },
        2,
        [
            {**TASK, "annotations": done}
            for done in ([], [{**DONE, "was_cancelled": True}], [DONE, DONE], [DONE])
        ],
    ),
    "cvat": PassedOver(
        [CVAT_BOX.format(3), CVAT_BOX.format(1), '<tag label="night"/>', POLYLINE],
        {
            "attributes 'colour', kept for CVAT": 2,
            "tags 'night', kept for CVAT": 1,
            "shapes 'polyline', kept for CVAT": 1,  # one of them among 72 boxes refused the file
            FLAT: 1,
        },
    ),
    "kitti": PassedOver(
        ["Car 0 0 0 1 2 3 4", "Car 0 0 0 1 2 1 4"],
        {FLAT: 1, "label files without a picture": 1},
        files={"labels/b.txt": "Car 0 0 0 1 2 3 4\n"},
    ),
    "yolo": PassedOver(
        ["0 .5 .5 .5 .5", "0 .5 .5 0 .5"],
        {FLAT: 1},
        files={"classes.txt": "car\n", "labels/classes.txt": "car\n"},  # no label file
    ),
}


@pytest.mark.parametrize("format", PASSED_OVER)
def test_what_is_left_out_is_told(format: str, tmp_path: Path) -> None:
    case = PASSED_OVER[format]
    pictures = case.pictures or [Labelled("a.png", case.entries)]
    path = labelled(tmp_path / "data", format, pictures)
    for name, text in case.files.items():
        (tmp_path / "data" / name).write_text(text)
    if format == "yolo":
        (tmp_path / "data/data.yaml").unlink()
    said = facts_of("import", path, "--format", format, "-o", tmp_path / "one")
    assert (said["records"], said["left_out"]) == (case.records, case.left_out)
    said = told("import", path, "--format", format, "-o", tmp_path / "two").splitlines()
    [line] = [line for line in said if line.startswith("not read as they are: ")]
    assert all(f"{what} ({count}" in line for what, count in case.left_out.items())
    # Such as shapes and boxes; a COCO file is one, and its crowds are counted as a whole.
    assert f", the first in {tmp_path / 'data'}" in line


def test_label_studios_other_json_is_refused(tmp_path: Path) -> None:
    path = labelled(tmp_path, "label-studio", [{"image": "a.png", "id": 1, "label": []}])
    line = refused("import", path, "--format", "label-studio", "-o", tmp_path / "out")
    assert "as JSON, not as JSON-MIN" in line


@pytest.mark.parametrize("format", ["yolo", "kitti"])
def test_pictures_without_any_label_file_are_told(tmp_path: Path, format: str) -> None:
    """Each is a background, which is seldom what was meant."""
    saved(tmp_path / "classes.txt", "cat\n")
    draw(tmp_path / "images", [record(name, (64, 48), []) for name in ("a.png", "b.png")])
    said = told("import", tmp_path / "images", "--format", format, "-o", tmp_path / "out")
    why = f"no label file in {tmp_path}/images: 2 pictures read as backgrounds, without a box"
    assert f"{why}. Name the folder that holds the labels" in said


@pytest.mark.parametrize("format", ["yolo", "kitti"])
def test_a_label_file_without_a_word_is_of_a_background(tmp_path: Path, format: str) -> None:
    saved(tmp_path / "classes.txt", "cat\n")
    names = ("empty.png", "blank.png")
    draw(tmp_path, [record(name, (64, 48), []) for name in names])
    for name, text in zip(names, ("", " \r\n\n"), strict=True):
        (tmp_path / name).with_suffix(".txt").write_text(text, newline="")
    facts_of("import", tmp_path, "--format", format, "-o", tmp_path / "out")
    background = {row["image_path"]: row["background"] for row in records_of(tmp_path / "out")}
    assert background == {"empty.png": True, "blank.png": True}


@pytest.mark.parametrize(("format", "name"), [("yolo", "tv/monitor"), ("dota", "large-vehicle")])
def test_a_class_that_is_written_otherwise_is_told(format: str, name: str, tmp_path: Path) -> None:
    box = {"text": name, "class": name, "instances": [{"bbox": [1, 2, 30, 40]}]}
    draw(tmp_path, [record("a.png", (64, 48), [box])])
    saved(tmp_path / "annotations.jsonl", [record("a.png", (64, 48), [box])])
    export = ("export", tmp_path / "annotations.jsonl", "--format", format, "-o", tmp_path / "out")
    told_of = [each for each in facts_of(*export)["remarks"] if "written otherwise" in each]
    assert len(told_of) == 1
    assert name in told_of[0]


def test_an_import_without_any_record_does_not_end_well(tmp_path: Path) -> None:
    task = {"data": {"image": "a.png"}, "annotations": []}
    path = saved(tmp_path / "tasks.json", [task])
    import_ = ("import", path, "--format", "label-studio", "-o", tmp_path / "out")
    assert facts_of(*import_, code=1)["records"] == 0
    saved(path, [{"data": {"image": "a.png"}, "completions": [{"result": []}]}])
    line = refused("import", path, "--format", "label-studio", "-o", tmp_path / "old")
    assert "'completions' are of before Label Studio 1.0" in line
