"""Lines of label files that say more than a box, or something else.

They are of kinds that public reports show: ultralytics/ultralytics#1357, #1358, #1781 and #22256
(tracks), HumanSignal/label-studio#6502 (keypoints), NVIDIA/DIGITS#1549 (what isn't KITTI),
ultralytics/yolov5#405 (labels of turned pictures).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.formats.data import facts_of, records_of, refused
from tests.support.labelled import Labelled, kitti, labelled

BOX = "0 0.5 0.5 0.25 0.25"


def imported(folder: Path, *lines: str, format: str = "yolo") -> tuple[dict[str, Any], list[Any]]:
    """What an import says of a file of lines, and the instances that it read."""
    picture = Labelled("a.png", lines, (640, 480))
    path = labelled(folder / "set", format, [picture], classes=["cup", "fork"])
    facts = facts_of("import", path, "--format", format, "-o", folder / "out")
    [row] = records_of(folder / "out")
    return facts, [box for phrase in row["expressions"] for box in phrase["instances"]]


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        (["1", "2", "3"], [None] * 3),
        (["7"], [None]),
        (["0.9 1"], [0.9]),
        (["0.5 1", "0.25 12"], [0.5, 0.25]),
        (["1", "0.5"], [1, 0.5]),
        (["1"], [1]),  # a score as well as a track
    ],
)
def test_numbers_of_tracks_are_no_scores(
    rows: list[str], scores: list[float | None], tmp_path: Path
) -> None:
    lines = [f"0 0.5 0.{number} 0.25 0.25 {row}" for number, row in enumerate(rows, 3)]
    facts, boxes = imported(tmp_path, *lines)
    assert [box.get("score") for box in boxes] == scores
    assert [box["bbox"][2] - box["bbox"][0] for box in boxes] == [160] * len(rows)
    told = "tracks, of which the boxes are read" in " ".join(facts["remarks"])
    assert told == (rows[0] != "1" or len(rows) == 3) if rows != ["1"] else not told


def test_what_rows_were_read_as_is_counted(tmp_path: Path) -> None:
    facts, boxes = imported(tmp_path, BOX, BOX.replace("0.5", "0.3"), "1 .1 .1 .4 .1 .4 .4")
    assert "rows of labels were read as 2 boxes, 1 outlines" in facts["remarks"]
    assert ["outline" in box for box in boxes] == [False, False, True]


POSE = f"{BOX} 0.45 0.5 2 0.55 0.6 1 0 0 0"


@pytest.mark.parametrize("pose", [POSE, f"{BOX} 0.45 0.5 0.55 0.6"])
def test_what_may_be_a_pose_is_refused_until_somebody_says_so(pose: str, tmp_path: Path) -> None:
    path = labelled(tmp_path / "set", "yolo", [Labelled("a.png", [pose] * 2)])
    line = refused("import", path, "--format", "yolo", "-o", tmp_path / "out")
    assert "a.txt, line 1: may be a pose" in line
    assert "state kpt_shape in data.yaml" in line


def test_an_outline_of_four_corners_is_no_pose(tmp_path: Path) -> None:
    _, [box] = imported(tmp_path, "0 .375 .375 .625 .375 .625 .625 .375 .625")
    assert box["bbox"] == [240, 180, 400, 300]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("140.25 196.5 0.0125 11 1 0 127 151 152 128 191 192 200 199", "begins with '140.25'"),
        ("cup 2 0 0 1 2 30 40", "'2' should be how much is truncated"),
        ("cup 0 7 0 1 2 30 40", "'7' should be how occluded"),
        ("cup 0 0.5 0 1 2 30 40", "'0.5' should be how occluded"),
        ("cup 0 0 90 1 2 30 40", "'90' should be the angle alpha"),
    ],
)
def test_what_is_not_kitti_is_refused(line: str, why: str, tmp_path: Path) -> None:
    path = labelled(tmp_path / "set", "kitti", [Labelled("a.png", [line])])
    said = refused("import", path, "--format", "kitti", "-o", tmp_path / "out")
    assert f"a.txt, line 1: {why}" in said


@pytest.mark.parametrize("line", ["7 0 0 -10 1 2 30 40", "cup -1 -1 3.14 1 2 30 40"])
def test_each_field_of_kitti_may_be_unknown(line: str, tmp_path: Path) -> None:
    _, [box] = imported(tmp_path, line, format="kitti")
    assert box["bbox"] == [1, 2, 30, 40]


def test_what_records_have_no_place_for_is_counted(tmp_path: Path) -> None:
    facts, _ = imported(
        tmp_path, kitti("cup", 1, 2, 30, 40).replace(" 0.00 0 ", " 0.5 2 "), format="kitti"
    )
    assert facts["left_out"] == {"values of 'truncated'": 1, "values of 'occluded'": 1}


@pytest.mark.parametrize("format", ["yolo", "kitti", "dota"])
def test_labels_of_turned_pictures_are_told(format: str, tmp_path: Path) -> None:
    line = {"yolo": BOX, "kitti": "cup 0 0 0 1 2 30 40", "dota": "1 2 30 2 30 40 1 40 cup 0"}[
        format
    ]
    path = labelled(tmp_path, format, [Labelled("a.jpg", [line], (64, 48))], classes=["cup"])
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.jpg", exif=turned)
    facts = facts_of("import", path, "--format", format, "-o", tmp_path / "out")
    assert facts["left_out"]["labels of turned pictures, read as upright"] == 1
