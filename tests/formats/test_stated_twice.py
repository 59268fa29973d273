"""What a file states twice and otherwise, or in a frame or by an angle that isn't looked for.

Of public reports: pedropro/TACO#8 and cvat-ai/cvat#10885 (boxes elsewhere than their polygons),
UCSB-VRL/MethaneMapper#23 (corners as sides), HumanSignal/label-studio#6416 (two lists of classes),
HumanSignal/label-studio#6608 (boxes of the upright picture, with the size as it is stored).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding import seed_file
from dataflow_grounding._util.errors import InputError
from tests.formats.data import boxes_of, command, facts_of, records_of, refused
from tests.support.labelled import Box, Labelled, labelled, saved

SIZE = (640, 480)
RIGHT = {"bbox": [10, 20, 100, 50], "area": 5000, "segmentation": [[10, 20, 110, 20, 110, 70]]}
ELSEWHERE = {**RIGHT, "segmentation": [[10, 220, 110, 220, 110, 270]]}
CORNERS = {"bbox": [10, 20, 110, 70], "area": 5000}


def coco(folder: Path, *annotations: dict[str, Any]) -> Path:
    return labelled(folder / "set", "coco", [Labelled("a.png", annotations, SIZE)])


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (ELSEWHERE, "boxes that are elsewhere than their outline"),
        (CORNERS, "boxes whose sides are corners, x2 and y2, by their area"),
    ],
)
def test_where_most_contradict_each_other_the_file_is_refused(
    odd: dict[str, Any], what: str, tmp_path: Path
) -> None:
    import_ = ("import", coco(tmp_path, RIGHT, odd, odd), "--format", "coco", "-o")
    line = refused(*import_, tmp_path / "out")
    assert f"{what}: 2 of 3, the first is annotation 2" in line
    facts = facts_of("import", coco(tmp_path, RIGHT, RIGHT, odd), *import_[2:], tmp_path / "few")
    assert f"{what}: 1 of 3, the first is annotation 3" in facts["remarks"]


def test_the_labels_of_a_run_are_compared_before_any_request(tmp_path: Path) -> None:
    path = coco(tmp_path, RIGHT, ELSEWHERE, ELSEWHERE)
    with pytest.raises(InputError, match="elsewhere than their outline: 2 of 3, the first is"):
        seed_file(str(tmp_path / "results"), str(tmp_path / "set"), coco=str(path))
    path = coco(tmp_path, RIGHT, RIGHT, ELSEWHERE)
    seed_file(str(tmp_path / "results"), str(tmp_path / "set"), coco=str(path))


@pytest.mark.parametrize("area", [1, 3210.5, 0, None])
def test_an_area_of_a_mask_says_nothing_of_the_box(area: float | None, tmp_path: Path) -> None:
    path = coco(tmp_path, {"bbox": [10, 20, 110, 70], "area": area})
    assert facts_of("import", path, "--format", "coco", "-o", tmp_path / "out")["remarks"] == []


def test_a_mask_that_has_the_area_of_corners_by_chance_is_told_and_no_more(tmp_path: Path) -> None:
    masks = [{"bbox": [10, 20, 110 + n, 70], "area": 3210 + n} for n in range(5)]
    path = coco(tmp_path, *masks, CORNERS)
    [remark] = facts_of("import", path, "--format", "coco", "-o", tmp_path / "out")["remarks"]
    assert "by their area: 1 of 6, the first is annotation 6" in remark


def test_a_box_around_hidden_parts_is_right(tmp_path: Path) -> None:
    path = coco(tmp_path, {**RIGHT, "bbox": [10, 20, 100, 300], "area": 2500})
    facts = facts_of("import", path, "--format", "coco", "-o", tmp_path / "out")
    assert not [remark for remark in facts["remarks"] if "elsewhere" in remark]


def test_two_lists_of_classes_that_differ_are_refused(tmp_path: Path) -> None:
    picture = Labelled("a.png", [Box("cup", 1, 2, 30, 40)])
    folder = labelled(tmp_path / "set", "yolo", [picture], classes=["cup", "fork"])
    names = [{"id": 0, "name": "fork"}, {"id": 1, "name": "cup"}]
    saved(folder / "notes.json", {"categories": names})
    line = refused("import", folder, "--format", "yolo", "-o", tmp_path / "out")
    assert "data.yaml and notes.json next to it name other classes" in line
    saved(folder / "notes.json", {"categories": names[::-1]})
    names[0]["id"], names[1]["id"] = 1, 0
    saved(folder / "notes.json", {"categories": names})
    facts_of("import", folder, "--format", "yolo", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "degrees"),
    [
        ({"rotation": 90}, 90),
        ({"attributes": {"rotation": 90}}, 90),
        ({"rotation": 0, "angle": 0}, 0),
        ({"rotation": "left"}, 0),
    ],
)
def test_a_rotation_in_degrees_is_read(
    keys: dict[str, Any], degrees: float, tmp_path: Path
) -> None:
    path = coco(tmp_path, {"bbox": [100, 100, 100, 50], **keys})
    facts_of("import", path, "--format", "coco", "-o", tmp_path / "out")
    [row] = records_of(tmp_path / "out")
    turned = [125, 75, 175, 175] if degrees else [100, 100, 200, 150]
    assert boxes_of(row) == {"cup": [pytest.approx(turned)]}


@pytest.mark.parametrize("name", ["angle", "theta"])
def test_another_angle_is_an_object_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    path = coco(tmp_path, {"bbox": [100, 100, 100, 50], "attributes": {name: 0.5}})
    line = refused("import", path, "--format", "coco", "-o", tmp_path / "out")
    assert f"annotation 1: is not of this format ('{name}' is 0.5" in line


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([300, 500, 100, 100], "with boxes of the upright picture"),
        ([500, 300, 100, 100], "remove that tag"),
        ([10, 20, 30, 40], "they may be of either"),
    ],
)
def test_the_frame_that_alone_holds_the_boxes_is_theirs(
    box: list[float], told: str, tmp_path: Path
) -> None:
    path = labelled(tmp_path / "set", "coco", [Labelled("a.jpg", [{"bbox": box}], SIZE)])
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    PIL.Image.new("RGB", SIZE).save(tmp_path / "set" / "a.jpg", exif=turned)
    done = command("import", path, "--format", "coco", "-o", tmp_path / "out")
    assert told in done.out + done.err
    assert done.code == (0 if "upright picture" in told and "either" not in told else 2)
    if done.code == 0:
        [row] = records_of(tmp_path / "out")
        assert (row["width"], row["height"]) == (480, 640)
        assert boxes_of(row) == {"cup": [[300, 500, 400, 600]]}
