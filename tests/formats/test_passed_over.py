"""What reading leaves out is told, by name and count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.data import draw, record
from tests.support.workplace import command

SIDES = {"width": 64, "height": 48}
ATTRIBUTE = '<attribute name="phrase">a mug</attribute><attribute name="colour">red</attribute>'
BOX = f'<box label="car" xtl="1" ytl="2" xbr="{{}}" ybr="4">{ATTRIBUTE}</box>'


def coco(folder: Path) -> str:
    boxes: list[dict[str, Any]] = [
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 7},
        {"image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "category_id": 7, "bbox": []},
        {"image_id": 1, "category_id": 7, "bbox": None, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 0, 4], "iscrowd": 0},
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 0, 4], "iscrowd": 1},
        {"image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4]},
    ]
    data = {
        "images": [{"id": 1, "file_name": "a.png", **SIDES}],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (folder / "x.json").write_text(json.dumps({**data, "annotations": boxes}))
    return str(folder / "x.json")


def label_studio(folder: Path) -> str:
    task: dict[str, Any] = {"data": {"image": "a.png"}}
    done: dict[str, Any] = {"result": []}
    given = [[], [{**done, "was_cancelled": True}], [done, done], [done]]
    (folder / "x.json").write_text(json.dumps([{**task, "annotations": one} for one in given]))
    return str(folder / "x.json")


def cvat(folder: Path) -> str:
    inside = BOX.format(3) + BOX.format(1) + '<tag label="night"/>'
    (folder / "x.xml").write_text(
        f'<annotations><image name="a.png" width="64" height="48">{inside}</image></annotations>'
    )
    return str(folder / "x.xml")


def kitti(folder: Path) -> str:
    draw(folder / "images", [record("a.png", (64, 48), [])])
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("Car 0 0 0 1 2 3 4\nCar 0 0 0 1 2 1 4\n")
    (folder / "labels/b.txt").write_text("Car 0 0 0 1 2 3 4\n")
    return str(folder)


def yolo(folder: Path) -> str:
    draw(folder / "images", [record("a.png", (64, 48), [])])
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("0 .5 .5 .5 .5\n0 .5 .5 0 .5\n")
    for names in (folder / "classes.txt", folder / "labels/classes.txt"):  # no label file
        names.write_text("car\n")
    return str(folder)


FLAT = "boxes without an area"


@pytest.mark.parametrize(
    ("make", "records", "left_out"),
    [
        (
            coco,
            1,
            {
                "crowd annotations": 1,
                "annotations of no image": 1,
                "annotations without a box": 1,
                FLAT: 1,
                "annotations whose category isn't listed, which are read as 'object'": 1,
                "scores outside of 0 to 1": 1,
            },
        ),
        (
            label_studio,
            2,
            {
                "tasks without an annotation": 2,
                "cancelled annotations": 1,
                "annotations before a task's last one": 1,
            },
        ),
        (
            cvat,
            1,
            {"attributes 'colour', kept for CVAT": 2, "tags 'night', kept for CVAT": 1, FLAT: 1},
        ),
        (kitti, 1, {FLAT: 1, "label files without a picture": 1}),
        (yolo, 1, {FLAT: 1}),
    ],
)
def test_what_is_left_out_is_told(
    make: Callable[[Path], str], records: int, left_out: dict[str, int], tmp_path: Path
) -> None:
    name, path = make.__name__.replace("_", "-"), make(tmp_path)
    done = command(["import", path, "--format", name, "-o", str(tmp_path / "one"), "--json"])
    said = json.loads(done.out)
    assert (said["records"], said["left_out"]) == (records, left_out)
    told = command(["import", path, "--format", name, "-o", str(tmp_path / "two")]).out.splitlines()
    assert [line for line in told if line.startswith("not read as they are: ")] == [told[1]]
    assert all(f"{what} ({count})" in told[1] for what, count in left_out.items())
    to = [
        "--from",
        name,
        "--to",
        "tao-refer",
        "-o",
        str(tmp_path / "x.jsonl"),
        "--images",
        "reference",
        "--json",
    ]
    if name not in ("label-studio",):  # of which nothing is left to write
        assert json.loads(command(["convert", path, *to]).out)["not_read"] == left_out


def test_label_studios_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"image": "a.png", "id": 1, "label": []}]))
    done = command(
        [
            "import",
            str(tmp_path / "x.json"),
            "--format",
            "label-studio",
            "-o",
            str(tmp_path / "out"),
        ]
    )
    assert (done.code, "as JSON, not as JSON-MIN" in done.err) == (2, True), done.err


@pytest.mark.parametrize("format", ["yolo", "kitti"])
def test_pictures_without_any_label_file_are_told(tmp_path: Path, format: str) -> None:
    """Each is a background, which is seldom what was meant."""
    (tmp_path / "classes.txt").write_text("cat\n")
    draw(tmp_path / "images", [record(name, (64, 48), []) for name in ("a.png", "b.png")])
    done = command(
        ["import", str(tmp_path / "images"), "--format", format, "-o", f"{tmp_path}/out"]
    )
    assert done.code == 0, done
    assert (
        f"no label file in {tmp_path}/images: 2 pictures read as backgrounds, without a box. Name the"
        " folder that holds the labels"
    ) in done.out
