"""Outlines: a polygon next to a box comes in, goes where its box goes, and out where it can be said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.formats import write
from tests.formats.data import boxes_of, parts_of, succeeds
from tests.formats.place import Place
from tests.support.labelled import Labelled, labelled, region, saved

WIDTH, HEIGHT = 64, 48
SIDES = {"width": WIDTH, "height": HEIGHT}
TRIANGLE = [1.5, 2.25, 11.0, 2.25, 11.0, 13.5]
CORNERS = [TRIANGLE[at : at + 2] for at in (0, 2, 4)]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [485, 20, HEIGHT * WIDTH - 505]}
PARTS = [[20.0, 20.0, 25.0, 20.0, 25.0, 30.0], [30.0, 20.0, 40.0, 20.0, 40.0, 30.0]]
BOX_OF_PARTS = [20.0, 20.0, 20.0, 10.0]


def annotation(own_id: int, category: int, mask: Any, **more: Any) -> dict[str, Any]:
    return {"id": own_id, "image_id": 7, "category_id": category, "iscrowd": 0} | {
        "segmentation": mask,
        **more,
    }


COCO: dict[str, Any] = {
    "info": {"year": 2024},
    "licenses": [],
    "images": [{"id": 7, "file_name": "a.png", **SIDES}],
    "annotations": [
        annotation(1, 1, [TRIANGLE], bbox=[1.5, 2.25, 9.5, 11.25], area=53.4375),
        annotation(2, 2, RUNS, bbox=[10.0, 5.0, 30.0, 20.0], area=550.0),
        annotation(4, 1, PARTS, bbox=BOX_OF_PARTS, area=75.0),
        {**annotation(5, 2, [TRIANGLE]), "area": 53.4375},
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "mug"}],
}
BOXES = {
    "dog": [[1.5, 2.25, 11.0, 13.5], [20.0, 20.0, 40.0, 30.0]],
    "mug": [[10.0, 5.0, 40.0, 25.0], [1.5, 2.25, 11.0, 13.5]],
}


def imported_coco(place: Place, *annotations: dict[str, Any]) -> dict[str, Any]:
    data = {**COCO, "annotations": annotations or COCO["annotations"]}
    return place.imported(saved(place.folder / "coco.json", data), "coco")


def annotations_of(place: Place) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads((place.out / "annotations.json").read_text())
    return list(found["annotations"])


def outlines_of(record: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        expression["text"]: [box.get("outline") for box in expression["instances"]]
        for expression in record["expressions"]
    }


# COCO


def test_segmentations_of_coco_go_out_as_they_came(place: Place) -> None:
    left_out = imported_coco(place)["left_out"]
    assert left_out == {"segmentations that are no single polygon of their box": 2}
    (record,) = place.records()
    assert outlines_of(record) == {"dog": [TRIANGLE, None], "mug": [None, TRIANGLE]}
    assert boxes_of(record) == BOXES
    place.exported("coco")
    out = annotations_of(place)
    assert [each["segmentation"] for each in out] == [[TRIANGLE], RUNS, PARTS, [TRIANGLE]]
    assert [each["area"] for each in out] == [53.4375, 550.0, 75.0, 53.4375]


def test_a_new_box_with_an_outline_gets_its_area(place: Place) -> None:
    place.written(record_with(instance([1.5, 2.25, 11.0, 13.5], TRIANGLE)))
    [only] = annotations_of(place)
    assert (only["segmentation"], only["area"]) == ([TRIANGLE], 53.4375)


def instance(box: list[float], outline: Any) -> dict[str, Any]:
    return {"bbox": box, "score": None, "outline": outline}


def record_with(*instances: dict[str, Any], name: str = "a.png") -> dict[str, Any]:
    expression = {"text": "mug", "class": "mug", "instances": [*instances]}
    return {"image_path": name, **SIDES, "caption": None, "expressions": [expression]}


# What becomes of outlines of boxes that are moved


def first_moved(boxes: list[Any]) -> None:
    boxes[0]["bbox"] = [3.0, 4.0, 12.0, 14.0]


def shifted(boxes: list[Any]) -> None:
    boxes[0]["bbox"] = [edge + 2 for edge in boxes[0]["bbox"]]


MOVED = [number + 2 for number in TRIANGLE]


def test_a_box_that_a_reviewer_resizes_loses_its_outline_which_is_said(place: Place) -> None:
    imported_coco(place)
    results = place.results
    assert place.reviewed(first_moved)["outlines_left_out"] == 1
    said = succeeds("apply", results).out
    assert "left out, as their boxes were resized: 1 outline\n" in said
    (record,) = place.records()
    assert outlines_of(record)["dog"] == [None, None]
    place.exported("coco")
    moved, *others = annotations_of(place)
    assert "segmentation" not in moved
    assert [each["segmentation"] for each in others] == [RUNS, PARTS, [TRIANGLE]]


@pytest.mark.parametrize(
    "format",
    ["coco", "cvat", "label-studio", "labelme", "yolo", "datasets", "webdataset"],
)
def test_an_outline_is_shifted_with_its_box(format: str, place: Place) -> None:
    imported_coco(place, COCO["annotations"][0])
    assert place.reviewed(shifted)["outlines_left_out"] == 0
    place.exported(format)
    (row,) = place.rows(format)
    [outline] = outlines_of(row)["dog"]
    assert outline == pytest.approx(MOVED, abs=1e-5)


def test_a_review_that_moves_nothing_keeps_outlines(place: Place) -> None:
    imported_coco(place)
    assert place.reviewed(len)["outlines_left_out"] == 0
    (record,) = place.records()
    assert outlines_of(record)["dog"] == [TRIANGLE, None]


STALE = "outlines that don't fit their box"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["coco", "labelme"])
@pytest.mark.parametrize("is_with_it", [False, True])
def test_an_outline_that_was_not_moved_with_its_box_is_lost_which_is_counted(
    source: str, is_with_it: bool, place: Place
) -> None:
    if source == "coco":
        imported_coco(place, COCO["annotations"][0])
    else:
        source = labelme(place.folder / "source", shape("dog", CORNERS, "polygon"))
        place.imported(source, "labelme")
    assert STALE not in place.exported("datasets")["lost"]
    (record, *_) = place.records()
    box = record["expressions"][0]["instances"][0]
    box["bbox"] = [edge + 1 for edge in box["bbox"]]
    box["outline"] = [number + is_with_it for number in box["outline"]]
    place.change(record)
    assert (STALE in place.exported("datasets")["lost"]) is not is_with_it
    (row,) = place.rows("datasets")
    [outline] = outlines_of(row)["dog"]
    assert (outline is not None) == is_with_it


# From one format to another


@pytest.mark.parametrize("format", ["kitti", "voc", "ms-swift", "tao", "odvg"])
def test_a_format_without_outlines_counts_them_as_lost(format: str, place: Place) -> None:
    imported_coco(place)
    facts = place.exported(format)
    assert (facts["boxes"], facts["lost"]["outlines"]) == (4, 2)


# YOLO

LINES = {
    "a": "0 0.1 0.1 0.5 0.1 0.5 0.400 0.1 0.4\n1 0.25 0.5 0.75 0.5 0.5 0.9\n",
    "b": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.4\n",  # a box, and an outline
    "c": "1 0.1 0.1 0.5 0.1 0.5 0.4\n",
}


BESIDE_BOXES = "outlines in pictures with a box that has no outline of its size"


def yolo(folder: Path, **labels: str) -> Path:
    pictures = [Labelled(f"{name}.png", lines.splitlines()) for name, lines in labels.items()]
    return labelled(folder, "yolo", pictures, classes=["dog", "mug"], drawn=False)


@pytest.mark.slow
def test_outlines_of_yolo_go_back_where_each_box_has_one(place: Place) -> None:
    place.imported(yolo(place.folder / "yolo", **LINES), "yolo")
    first, second, _ = place.records()
    assert outlines_of(first)["dog"] == [[6.4, 4.8, 32.0, 4.8, 32.0, 19.2, 6.4, 19.2]]
    assert boxes_of(first)["dog"] == [[6.4, 4.8, 32.0, 19.2]]
    assert outlines_of(second) == {"dog": [None], "mug": [[6.4, 4.8, 32.0, 4.8, 32.0, 19.2]]}
    facts = place.exported("yolo")
    labels = {path.stem: path.read_text() for path in (place.out / "labels").iterdir()}
    assert [len(line.split()) for line in labels["b"].splitlines()] == [5, 5]
    for name in ("a", "c"):
        [*came], [*went] = map(float, LINES[name].split()), map(float, labels[name].split())
        assert went == came
    assert facts["lost"] == {BESIDE_BOXES: 1}


def test_further_records_of_a_picture_make_boxes_of_its_outlines(place: Place) -> None:
    place.imported(yolo(place.folder / "yolo", c=LINES["c"]), "yolo")
    [_, _, record] = place.records()
    dog = {"text": "dog", "instances": [{"bbox": [32, 24, 64, 48]}]}
    place.change(record, {"image_path": record["image_path"], "expressions": [dog]})
    place.exported("yolo")
    assert (place.out / "labels" / "c.txt").read_text() == (
        "1 0.30000000 0.25000000 0.40000000 0.30000000\n"
        "0 0.75000000 0.75000000 0.50000000 0.50000000\n"
    )


def test_an_outline_of_another_size_than_its_box_is_no_outline_of_yolo(place: Place) -> None:
    """A trainer would take the box around it for the object's."""
    imported_coco(place, annotation(1, 1, [TRIANGLE], bbox=[0.0, 0.0, 12.0, 15.0]))
    assert place.exported("yolo")["lost"] == {BESIDE_BOXES: 1}
    assert len((place.out / "labels" / "a.txt").read_text().split()) == 5


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio", "yolo"])
def test_an_outline_is_cut_to_the_picture_as_its_box_is(format: str, place: Place) -> None:
    beyond = instance([-2.0, 0.0, 30.0, 30.0], [-2.0, 0.0, 30.0, 0.0, 30.0, 30.0])
    place.written(record_with(beyond), format=format)
    [back] = place.rows(format)
    [box] = back["expressions"][0]["instances"]
    assert [*map(float, box["bbox"])] == pytest.approx([0.0, 0.0, 30.0, 30.0], abs=1e-6)
    outline = [0.0, 0.0, 30.0, 0.0, 30.0, 30.0]
    assert [*map(float, box["outline"])] == pytest.approx(outline, abs=1e-6)


# CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><labels><label><name>dog</name></label><label><name>mug</name></label></labels></task>
  </meta>
  <image id="7" name="a.png" width="64" height="48">
    <polygon label="dog" source="manual" occluded="0" points="1.50,2.25;11.00,2.25;11.00,13.50" z_order="0">
      <attribute name="dirty">true</attribute>
    </polygon>
    <mask label="mug" source="semi-auto" occluded="0" rle="1, 2, 1, 4, 1, 2, 1" left="10" top="20" width="4" height="3" z_order="0">
    </mask>
    <box label="dog" source="manual" occluded="0" xtl="5.00" ytl="2.50" xbr="60.00" ybr="48.00" z_order="0">
    </box>
  </image>
</annotations>
"""


def test_outlines_of_cvat(place: Place) -> None:
    facts = place.imported(saved(place.folder / "cvat.xml", CVAT), "cvat")
    read_around = "pixels of masks, of which the box around is read"
    assert facts["left_out"] == {"attributes 'dirty', kept for CVAT": 1, read_around: 1}
    (record,) = place.records()
    assert outlines_of(record)["dog"] == [TRIANGLE, None]
    assert boxes_of(record) == {
        "dog": [[1.5, 2.25, 11.0, 13.5], [5.0, 2.5, 60.0, 48.0]],
        "mug": [[10, 20, 14, 23]],
    }
    place.exported("cvat", "--images", "reference")
    assert parts_of((place.out / "annotations.xml").read_text()) == parts_of(CVAT)


def test_a_moved_polygon_of_cvat_is_a_box_with_the_same_attributes(place: Place) -> None:
    place.imported(saved(place.folder / "cvat.xml", CVAT), "cvat")

    assert place.reviewed(first_moved)["outlines_left_out"] == 1
    place.exported("cvat")
    xml = (place.out / "annotations.xml").read_text()
    assert "points=" not in xml
    assert (
        '<box label="dog" source="manual" occluded="0" z_order="0" xtl="3.0" ytl="4.0" xbr="12.0"'
        ' ybr="14.0">' in xml
    )
    assert '<attribute name="dirty">true</attribute>' in xml
    assert 'rle="1, 2, 1, 4, 1, 2, 1"' in xml


# LabelMe


def labelme(folder: Path, *shapes: dict[str, Any]) -> Path:
    return labelled(folder, "labelme", [Labelled("a.png", shapes)], drawn=False)


def shape(label: str, points: Any, kind: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def test_outlines_of_labelme(place: Place) -> None:
    mask = shape("mug", [[10, 5], [39, 24]], "mask", mask="AAAA")
    path = labelme(place.folder / "source", shape("dog", CORNERS, "polygon"), mask)
    told = "outlines of shapes 'mask', of which the box around is read"
    assert place.imported(path, "labelme")["left_out"] == {told: 1}
    (record,) = place.records()
    assert outlines_of(record) == {"dog": [TRIANGLE], "mug": [None]}
    assert boxes_of(record)["mug"] == [[10, 5, 40, 25]]  # its points are its outermost pixels


# Label Studio


POINTS = [[10.0, 12.5], [50.0, 12.5], [50.0, 75.0]]


def tasks_of(folder: Path, *regions: dict[str, Any]) -> Path:
    return labelled(folder, "label-studio", [Labelled("a.png", regions)], drawn=False)


POLYGON = region("dog", {"points": POINTS, "closed": True}, kind="polygon", id="p")
BRUSH = {"format": "rle", "rle": [0, 1, 2]}


def test_outlines_of_label_studio(place: Place) -> None:
    path = tasks_of(place.folder, POLYGON, region("mug", BRUSH, kind="brush", id="b"))
    facts = place.imported(path, "label-studio")
    assert facts["left_out"]["regions 'brushlabels', kept for Label Studio"] == 1
    (record,) = place.records()
    assert outlines_of(record) == {"dog": [[6.4, 6.0, 32.0, 6.0, 32.0, 36.0]]}
    assert record["skipped_entries"] == 1
    place.exported("label-studio", "--images", "reference")
    there = json.loads((place.out / "tasks.json").read_text())
    assert there == json.loads(path.read_text())


@pytest.mark.parametrize("format", ["cvat", "label-studio", "coco", "yolo"])
def test_an_outline_that_is_new_goes_back_with_the_box_that_came(format: str, place: Place) -> None:
    rows = [record_with({"bbox": [1.5, 2.25, 11.0, 13.5], "score": None})]
    write(rows, format, str(place.folder / "plain"), folders=[str(place.pictures)])
    place.imported(place.folder / "plain", format)
    (record,) = place.records()
    record["expressions"][0]["instances"][0]["outline"] = TRIANGLE
    place.change(record)
    shutil.copytree(place.folder / "plain" / "images", place.folder / "pictures" / "images")
    place.exported(format)
    (row,) = place.rows(format)
    [[outline]] = outlines_of(row).values()
    assert outline == pytest.approx(TRIANGLE, abs=1e-5)


@pytest.mark.slow
def test_a_moved_polygon_of_label_studio_is_a_rectangle(place: Place) -> None:
    place.imported(tasks_of(place.folder, POLYGON), "label-studio")

    def move(boxes: list[Any]) -> None:
        boxes[0]["bbox"] = [16.0, 12.0, 32.0, 24.0]

    assert place.reviewed(move)["outlines_left_out"] == 1
    place.exported("label-studio")
    (only,) = json.loads((place.out / "tasks.json").read_text())
    (moved,) = only["annotations"][0]["result"]
    assert (moved["id"], moved["type"], moved["from_name"]) == ("p", "rectanglelabels", "box")
    area = {"x": 25.0, "y": 25.0, "width": 25.0, "height": 25.0, "rotation": 0}
    assert moved["value"] == {**area, "rectanglelabels": ["dog"]}


# Hostile outlines

BILLIONS = {"counts": [0, 10**12], "size": [10**6, 10**6]}


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "6"]],
        [[[1, 2], [3, 4], [5, 6]]],
        "polygon",
        BILLIONS,
        {"counts": None},
        7,
    ],
)
def test_a_segmentation_of_no_use_is_counted(segmentation: Any, place: Place) -> None:
    facts = imported_coco(place, annotation(1, 1, segmentation, bbox=[1, 2, 10, 10]))
    assert facts["left_out"]["segmentations that are no single polygon of their box"] == 1
    (record,) = place.records()
    assert (boxes_of(record), outlines_of(record)) == ({"dog": [[1, 2, 11, 12]]}, {"dog": [None]})


def test_a_segmentation_of_runs_without_a_box_is_an_annotation_without_one(place: Place) -> None:
    left_out = imported_coco(place, annotation(1, 1, BILLIONS))["left_out"]
    assert left_out["annotations without a box"] == 1


def test_outlines_of_no_use_in_records_are_lost(place: Place) -> None:
    """Also one in another place than its box; near its box it stays, as nothing imported it."""
    useless = [BILLIONS, "x", [1, 2], {}, [[1, 2]], [50, 40, 60, 40, 60, 47]]
    rows = [record_with(instance([10, 5, 40, 25], each)) for each in useless]
    near = record_with(instance([1, 2, 12, 14], TRIANGLE), name="b.png")
    assert place.written(*rows, near).lost[STALE] == 6


def test_polygons_of_labelme_of_no_use_are_counted(place: Place) -> None:
    path = labelme(place.folder / "source", shape("dog", [[1, 1], [9, 9]], "polygon"))
    ((what, first),) = place.imported(path, "labelme")["left_out_first"].items()
    assert (what, "a polygon of 4 numbers" in first) == ("outlines of no use", True)
    (record,) = place.records()
    assert outlines_of(record) == {"dog": [None]}


def test_outlines_of_yolo_of_no_use_are_counted(place: Place) -> None:
    lines = LINES["c"] + "0 0.1 0.1 nan 0.1 0.5 0.4\n0 0.1 0.1 9 0.1 0.5 0.4\n0 0.1 0.1 0.5\n"
    facts = place.imported(
        yolo(place.folder / "yolo", a=LINES["a"], b=LINES["c"], c=lines), "yolo", 1
    )
    [entry] = facts["bad"]["entries"]
    assert "c.txt, line 2: 'nan' is not a number" in entry
