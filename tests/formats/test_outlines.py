"""Outlines: a polygon next to a box comes in, goes where its box goes, and out where it can be said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.formats import read, write
from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.session import Session
from tests.formats.data import command, succeeds
from tests.support.labelled import Labelled, labelled, region, saved

WIDTH, HEIGHT = 64, 48
SIDES = {"width": WIDTH, "height": HEIGHT}
TRIANGLE = [1.5, 2.25, 11.0, 2.25, 11.0, 13.5]
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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        PIL.Image.new("RGB", (WIDTH, HEIGHT), "#886644").save(folder / name)
    return folder


@pytest.fixture
def imported(tmp_path: Path, pictures: Path) -> Callable[..., dict[str, Any]]:
    """What `import` says, of a file that is read into `results`."""

    def read_into_results(path: Path, format: str, code: int = 0) -> dict[str, Any]:
        results = tmp_path / "results"
        shutil.rmtree(results, ignore_errors=True)
        options = ("--image-root", pictures, "--json")
        said = command("import", path, "--format", format, "-o", results, *options)
        assert said.code == code, said
        facts: dict[str, Any] = json.loads(said.out)
        return facts

    return read_into_results


@pytest.fixture
def exported(tmp_path: Path, pictures: Path) -> Callable[..., dict[str, Any]]:
    """What `export` says, of a format that is written to `out`."""

    def write_out(format: str, *options: object, results: str = "results") -> dict[str, Any]:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("export", tmp_path / results, "--format", format, "-o", out)
        said = succeeds(*arguments, "--image-root", pictures, "--json", *options)
        facts: dict[str, Any] = json.loads(said.out)
        return facts

    return write_out


def records_of(folder: Path, name: str = "annotations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def outlines_of(record: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        expression["text"]: [box.get("outline") for box in expression["instances"]]
        for expression in record["expressions"]
    }


def boxes_of(record: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        expression["text"]: [box["bbox"] for box in expression["instances"]]
        for expression in record["expressions"]
    }


# COCO


def test_segmentations_of_coco_go_out_as_they_came(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    left_out = imported(saved(tmp_path / "coco.json", COCO), "coco")["left_out"]
    assert left_out == {"segmentations that are no single polygon of their box": 2}
    (record,) = records_of(tmp_path / "results")
    assert outlines_of(record) == {"dog": [TRIANGLE, None], "mug": [None, TRIANGLE]}
    assert boxes_of(record) == BOXES
    exported("coco")
    out = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert [each["segmentation"] for each in out] == [[TRIANGLE], RUNS, PARTS, [TRIANGLE]]
    assert [each["area"] for each in out] == [53.4375, 550.0, 75.0, 53.4375]


def test_a_split_keeps_outlines(
    tmp_path: Path,
    pictures: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    many: dict[str, Any] = {**COCO, "images": [], "annotations": []}
    for number in range(1, 41):
        shutil.copy(pictures / "a.png", pictures / f"{number}.png")
        many["images"].append({"id": number, "file_name": f"{number}.png", **SIDES})
        many["annotations"].append({**annotation(number, 2, [TRIANGLE]), "image_id": number})
    imported(saved(tmp_path / "coco.json", many), "coco")
    succeeds("split", tmp_path / "results", "-o", tmp_path / "parts", "--no-pictures")
    exported("coco", results="parts")
    found = []
    for path in (tmp_path / "out").glob("*/annotations.json"):
        found += [each["segmentation"] for each in json.loads(path.read_text())["annotations"]]
    assert found == [[TRIANGLE]] * 40


def test_a_new_box_with_an_outline_gets_its_area(tmp_path: Path, pictures: Path) -> None:
    rows = [record_with(instance([1.5, 2.25, 11.0, 13.5], TRIANGLE))]
    write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    [only] = coco["annotations"]
    assert (only["segmentation"], only["area"]) == ([TRIANGLE], 53.4375)


def instance(box: list[float], outline: Any) -> dict[str, Any]:
    return {"bbox": box, "score": None, "outline": outline}


def record_with(*instances: dict[str, Any], name: str = "a.png") -> dict[str, Any]:
    expression = {"text": "mug", "class": "mug", "instances": [*instances]}
    return {"image_path": name, **SIDES, "caption": None, "expressions": [expression]}


# What becomes of outlines of boxes that are moved


def reviewed(results: Path, change: Callable[[list[Any]], None]) -> dict[str, Any]:
    """What `apply` says, once a reviewer has changed the boxes of the first phrase."""
    session = Session(Reviewable(str(results)), "ann")
    (shown, *_) = session.view(0)["expressions"]
    boxes = [
        {"bbox": box["bbox"], "from": number, "verified": True}
        for number, box in enumerate(shown["instances"])
    ]
    change(boxes)
    after = {"instances": boxes, "status": "grounded"}
    wanted = {"id": shown["id"], "version": shown["version"], "after": after}
    decision = {"uid": "1", "action": "accept", "changes": [wanted]}
    [answer] = session.decide([{**decision, "record": records_of(results)[0]["image_id"]}])
    assert not answer["error"]
    facts: dict[str, Any] = json.loads(succeeds("apply", results, "--json").out)
    return facts


def first_moved(boxes: list[Any]) -> None:
    boxes[0]["bbox"] = [3.0, 4.0, 12.0, 14.0]


def shifted(boxes: list[Any]) -> None:
    boxes[0]["bbox"] = [edge + 2 for edge in boxes[0]["bbox"]]


MOVED = [number + 2 for number in TRIANGLE]


def test_a_box_that_a_reviewer_resizes_loses_its_outline_which_is_said(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(saved(tmp_path / "coco.json", COCO), "coco")
    assert reviewed(tmp_path / "results", first_moved)["outlines_left_out"] == 1
    said = succeeds("apply", tmp_path / "results").out
    assert "left out, as their boxes were resized: 1 outline\n" in said
    (record,) = records_of(tmp_path / "results", "annotations.reviewed.jsonl")
    assert outlines_of(record)["dog"] == [None, None]
    exported("coco", results="results/annotations.reviewed.jsonl")
    moved, *others = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert "segmentation" not in moved
    assert [each["segmentation"] for each in others] == [RUNS, PARTS, [TRIANGLE]]


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio", "labelme", "yolo", "datasets"])
def test_an_outline_is_shifted_with_its_box(
    format: str,
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    one = {**COCO, "annotations": COCO["annotations"][:1]}
    imported(saved(tmp_path / "coco.json", one), "coco")
    assert reviewed(tmp_path / "results", shifted)["outlines_left_out"] == 0
    exported(format, results="results/annotations.reviewed.jsonl")
    (row,) = read(str(tmp_path / "out"), format)
    [outline] = outlines_of(row)["dog"]
    assert outline == pytest.approx(MOVED, abs=1e-5)


def test_a_review_that_moves_nothing_keeps_outlines(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    imported(saved(tmp_path / "coco.json", COCO), "coco")
    assert reviewed(tmp_path / "results", len)["outlines_left_out"] == 0
    (record,) = records_of(tmp_path / "results", "annotations.reviewed.jsonl")
    assert outlines_of(record)["dog"] == [TRIANGLE, None]


STALE = "outlines that don't fit their box"


def moved_by_hand(results: Path, further: int = 0) -> None:
    """The first box has other numbers now, its outline none or all of them."""
    record = records_of(results)[0]
    box = record["expressions"][0]["instances"][0]
    box["bbox"] = [edge + 1 for edge in box["bbox"]]
    box["outline"] = [number + further for number in box["outline"]]
    saved(results / "annotations.jsonl", json.dumps(record) + "\n")


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio", "yolo", "datasets"])
@pytest.mark.parametrize("source", ["coco", "labelme"])
@pytest.mark.parametrize("is_with_it", [False, True])
def test_an_outline_that_was_not_moved_with_its_box_is_lost_which_is_counted(
    format: str,
    source: str,
    is_with_it: bool,
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    points = [TRIANGLE[at : at + 2] for at in (0, 2, 4)]
    one = {**COCO, "annotations": COCO["annotations"][:1]}
    if source == "coco":
        imported(saved(tmp_path / "coco.json", one), "coco")
    else:
        imported(labelme(tmp_path / "source", shape("dog", points, "polygon")), "labelme")
    assert STALE not in exported(format)["lost"]
    moved_by_hand(tmp_path / "results", int(is_with_it))
    assert (exported(format)["lost"].get(STALE) is None) == is_with_it
    (row,) = read(str(tmp_path / "out"), format)
    [outline] = outlines_of(row)["dog"]
    assert (outline is not None) == is_with_it


def test_an_outline_of_a_box_that_nothing_imported_is_measured(
    tmp_path: Path, pictures: Path
) -> None:
    rows = [
        record_with(instance([40, 30, 60, 47], TRIANGLE)),
        record_with(instance([1, 2, 12, 14], TRIANGLE), name="b.png"),
    ]
    done = write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    assert done.lost[STALE] == 1


# From one format to another


def there_and_back(tmp_path: Path, pictures: Path, coco: Any, over: str, *options: str) -> Path:
    """COCO's file, once its data went over another format."""
    source = saved(tmp_path / "coco.json", coco)
    root = ("--image-root", pictures)
    between, out = tmp_path / "between", tmp_path / "out"
    succeeds("convert", source, "--from", "coco", "--to", over, "-o", between, *root, *options)
    succeeds("convert", between, "--from", over, "--to", "coco", "-o", out)
    return out / "annotations.json"


@pytest.mark.parametrize("format", ["cvat", "label-studio", "datasets", "webdataset"])
def test_outlines_come_through_another_format(format: str, tmp_path: Path, pictures: Path) -> None:
    path = there_and_back(tmp_path, pictures, COCO, format)
    found = [each.get("segmentation") for each in json.loads(path.read_text())["annotations"]]
    assert len(found) == 4
    assert [each == [pytest.approx(TRIANGLE)] for each in found].count(True) == 2


def test_polygons_come_through_yolo(tmp_path: Path, pictures: Path) -> None:
    dogs = {**COCO, "annotations": COCO["annotations"][:1]}
    path = there_and_back(tmp_path, pictures, dogs, "yolo")
    line = (tmp_path / "between" / "labels" / "a.txt").read_text()
    parts = [number / (WIDTH, HEIGHT)[i % 2] for i, number in enumerate(TRIANGLE)]
    assert line == f"0 {' '.join(f'{part:.8f}' for part in parts)}\n"
    (only,) = json.loads(path.read_text())["annotations"]
    assert only["segmentation"] == [pytest.approx(TRIANGLE, abs=1e-5)]


@pytest.mark.parametrize("format", ["kitti", "voc", "llava", "tao", "odvg"])
def test_a_format_without_outlines_counts_them_as_lost(
    format: str, tmp_path: Path, pictures: Path
) -> None:
    options = ("--target", "qwen3-vl") if format == "llava" else ()
    source = saved(tmp_path / "coco.json", COCO)
    arguments = ("convert", source, "--from", "coco", "--to", format, "-o", tmp_path / "out")
    done = succeeds(*arguments, "--image-root", pictures, "--json", *options)
    facts = json.loads(done.out)
    assert (facts["boxes"], facts["lost"]["outlines"]) == (4, 2)
    strict = command(*arguments, "--image-root", pictures, "--strict", *options)
    assert strict.code == 2
    assert "outlines (2)" in strict.err


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


def test_outlines_of_yolo_go_back_where_each_box_has_one(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(yolo(tmp_path / "yolo", **LINES), "yolo")
    first, second, _ = records_of(tmp_path / "results")
    assert outlines_of(first)["dog"] == [[6.4, 4.8, 32.0, 4.8, 32.0, 19.2, 6.4, 19.2]]
    assert boxes_of(first)["dog"] == [[6.4, 4.8, 32.0, 19.2]]
    assert outlines_of(second) == {"dog": [None], "mug": [[6.4, 4.8, 32.0, 4.8, 32.0, 19.2]]}
    facts = exported("yolo")
    labels = {path.stem: path.read_text() for path in (tmp_path / "out" / "labels").iterdir()}
    boxes = "0 0.5 0.5 0.2 0.2\n1 0.30000000 0.25000000 0.40000000 0.30000000\n"
    assert labels == {"a": LINES["a"], "b": boxes, "c": LINES["c"]}
    assert facts["lost"] == {BESIDE_BOXES: 1}


def test_further_records_of_a_picture_make_boxes_of_its_outlines(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(yolo(tmp_path / "yolo", c=LINES["c"]), "yolo")
    [_, _, record] = records_of(tmp_path / "results")
    dog = {"text": "dog", "instances": [{"bbox": [32, 24, 64, 48]}]}
    rows = [record, {"image_path": record["image_path"], "expressions": [dog]}]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    saved(tmp_path / "results" / "annotations.jsonl", text)
    exported("yolo")
    assert (tmp_path / "out" / "labels" / "c.txt").read_text() == (
        "1 0.30000000 0.25000000 0.40000000 0.30000000\n"
        "0 0.75000000 0.75000000 0.50000000 0.50000000\n"
    )


def test_an_outline_of_another_size_than_its_box_is_no_outline_of_yolo(
    tmp_path: Path, pictures: Path
) -> None:
    """A trainer would take the box around it for the object's."""
    hidden = annotation(1, 1, [TRIANGLE], bbox=[0.0, 0.0, 12.0, 15.0])
    source = saved(tmp_path / "coco.json", {**COCO, "annotations": [hidden]})
    arguments = ("convert", source, "--from", "coco", "--to", "yolo", "-o", tmp_path / "out")
    facts = json.loads(succeeds(*arguments, "--image-root", pictures, "--json").out)
    assert facts["lost"] == {BESIDE_BOXES: 1}
    assert len((tmp_path / "out" / "labels" / "a.txt").read_text().split()) == 5


def test_a_point_of_an_outline_beyond_the_picture_is_put_to_its_edge(
    tmp_path: Path, pictures: Path
) -> None:
    """Trainers leave the whole line out."""
    beyond = [-2.0, 0.0, 30.0, 0.0, 30.0, 30.0]
    one = {**COCO, "annotations": [annotation(1, 1, [beyond], bbox=[0.0, 0.0, 30.0, 30.0])]}
    there_and_back(tmp_path, pictures, one, "yolo")
    numbers = (tmp_path / "between" / "labels" / "a.txt").read_text().split()[1:]
    assert numbers[:2] == ["0.00000000", "0.00000000"]


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio"])
def test_an_outline_is_cut_to_the_picture_as_its_box_is(
    format: str, tmp_path: Path, pictures: Path
) -> None:
    rows = [record_with(instance([-2.0, 0.0, 30.0, 30.0], [-2.0, 0.0, 30.0, 0.0, 30.0, 30.0]))]
    write(rows, format, str(tmp_path / "out"), folders=[str(pictures)])
    [back] = read(str(tmp_path / "out"), format)
    [box] = back["expressions"][0]["instances"]
    assert [*map(float, box["bbox"])] == [0.0, 0.0, 30.0, 30.0]
    assert [*map(float, box["outline"])] == [0.0, 0.0, 30.0, 0.0, 30.0, 30.0]


def test_a_moved_outline_of_yolo_has_no_outline(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(yolo(tmp_path / "yolo", a=LINES["a"], c=LINES["c"]), "yolo")
    records = records_of(tmp_path / "results")
    records[0]["expressions"][0]["instances"][0]["bbox"] = [1, 1, 20, 20]
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    saved(tmp_path / "results" / "annotations.jsonl", text)
    facts = exported("yolo")
    assert facts["lost"] == {STALE: 1, BESIDE_BOXES: 1}
    labels = {path.stem: path.read_text() for path in (tmp_path / "out" / "labels").iterdir()}
    assert labels["b"] == ""  # nothing is there
    assert labels["c"] == LINES["c"]
    assert [len(line.split()) for line in labels["a"].splitlines()] == [5, 5]


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


def parts_of(xml: str) -> list[str]:
    return [part.strip() for part in xml.replace(">", ">\n").splitlines() if part.strip()]


def test_outlines_of_cvat(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    facts = imported(saved(tmp_path / "cvat.xml", CVAT), "cvat")
    read_around = "pixels of masks, of which the box around is read"
    assert facts["left_out"] == {"attributes 'dirty', kept for CVAT": 1, read_around: 1}
    (record,) = records_of(tmp_path / "results")
    assert outlines_of(record)["dog"] == [TRIANGLE, None]
    assert boxes_of(record) == {
        "dog": [[1.5, 2.25, 11.0, 13.5], [5.0, 2.5, 60.0, 48.0]],
        "mug": [[10, 20, 14, 23]],
    }
    exported("cvat", "--images", "reference")
    assert parts_of((tmp_path / "out" / "annotations.xml").read_text()) == parts_of(CVAT)


def test_a_moved_polygon_of_cvat_is_a_box_with_the_same_attributes(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(saved(tmp_path / "cvat.xml", CVAT), "cvat")

    assert reviewed(tmp_path / "results", first_moved)["outlines_left_out"] == 1
    exported("cvat", results="results/annotations.reviewed.jsonl")
    xml = (tmp_path / "out" / "annotations.xml").read_text()
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


def test_outlines_of_labelme(tmp_path: Path, imported: Callable[..., dict[str, Any]]) -> None:
    points = [TRIANGLE[at : at + 2] for at in (0, 2, 4)]
    path = labelme(
        tmp_path / "source",
        shape("dog", points, "polygon"),
        shape("mug", [[10, 5], [39, 24]], "mask", mask="AAAA"),
    )
    told = "outlines of shapes 'mask', of which the box around is read"
    assert imported(path, "labelme")["left_out"] == {told: 1}
    (record,) = records_of(tmp_path / "results")
    assert outlines_of(record) == {"dog": [TRIANGLE], "mug": [None]}
    assert boxes_of(record)["mug"] == [[10, 5, 40, 25]]  # its points are its outermost pixels


# Label Studio


POINTS = [[10.0, 12.5], [50.0, 12.5], [50.0, 75.0]]


def tasks_of(folder: Path, *regions: dict[str, Any]) -> Path:
    return labelled(folder, "label-studio", [Labelled("a.png", regions)], drawn=False)


POLYGON = region("dog", {"points": POINTS, "closed": True}, kind="polygon", id="p")
BRUSH = {"format": "rle", "rle": [0, 1, 2]}


def test_outlines_of_label_studio(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    path = tasks_of(tmp_path, POLYGON, region("mug", BRUSH, kind="brush", id="b"))
    facts = imported(path, "label-studio", 1)
    assert (
        "region b: the outline is of no use (a brush is no polygon)" in facts["bad"]["entries"][0]
    )
    (record,) = records_of(tmp_path / "results")
    assert outlines_of(record) == {"dog": [[6.4, 6.0, 32.0, 6.0, 32.0, 36.0]]}
    assert record["skipped_entries"] == 1
    exported("label-studio", "--images", "reference")
    there = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert there == json.loads(path.read_text())


def test_what_label_studio_gets_of_outlines(tmp_path: Path, pictures: Path) -> None:
    source = saved(tmp_path / "coco.json", {**COCO, "annotations": COCO["annotations"][:3]})
    arguments = ("convert", source, "--from", "coco", "--to", "label-studio", "-o")
    succeeds(*arguments, tmp_path / "out", "--image-root", pictures)
    (only,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    result = only["predictions"][0]["result"]
    (polygon,) = (each for each in result if each["type"] == "polygonlabels")
    assert polygon["value"]["points"][0] == [1.5 / WIDTH * 100, 2.25 / HEIGHT * 100]
    assert '<PolygonLabels name="polygon"' in (tmp_path / "out" / "labels.xml").read_text()


@pytest.mark.parametrize("format", ["cvat", "label-studio", "coco", "yolo"])
def test_an_outline_that_is_new_goes_back_with_the_box_that_came(
    format: str,
    tmp_path: Path,
    pictures: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    """As an operator adds it."""
    rows = [record_with({"bbox": [1.5, 2.25, 11.0, 13.5], "score": None})]
    write(rows, format, str(tmp_path / "plain"), folders=[str(pictures)])
    imported(tmp_path / "plain", format)
    (record,) = records_of(tmp_path / "results")
    record["expressions"][0]["instances"][0]["outline"] = TRIANGLE
    saved(tmp_path / "results" / "annotations.jsonl", json.dumps(record) + "\n")
    shutil.copytree(tmp_path / "plain" / "images", tmp_path / "pictures" / "images")
    exported(format)
    (row,) = read(str(tmp_path / "out"), format)
    [[outline]] = outlines_of(row).values()
    assert outline == pytest.approx(TRIANGLE, abs=1e-5)


def test_a_moved_polygon_of_label_studio_is_a_rectangle(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(tasks_of(tmp_path, POLYGON), "label-studio")

    def move(boxes: list[Any]) -> None:
        boxes[0]["bbox"] = [16.0, 12.0, 32.0, 24.0]

    assert reviewed(tmp_path / "results", move)["outlines_left_out"] == 1
    exported("label-studio", results="results/annotations.reviewed.jsonl")
    (only,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
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
        [[1, 2, 3, 4, 5, 1e999]],
        [[[1, 2], [3, 4], [5, 6]]],
        "polygon",
        [[100, 100, 120, 100, 120, 120]],
        [[40, 40, 50, 40, 50, 45]],
        BILLIONS,
        {"counts": None},
        7,
    ],
)
def test_a_segmentation_of_no_use_is_counted_and_its_box_is_kept(
    segmentation: Any, tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    bad = {**COCO, "annotations": [annotation(1, 1, segmentation, bbox=[1, 2, 10, 10])]}
    facts = imported(saved(tmp_path / "coco.json", bad), "coco")
    assert facts["left_out"]["segmentations that are no single polygon of their box"] == 1
    (record,) = records_of(tmp_path / "results")
    assert (boxes_of(record), outlines_of(record)) == ({"dog": [[1, 2, 11, 12]]}, {"dog": [None]})


def test_a_segmentation_of_runs_without_a_box_is_an_annotation_without_one(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    bad = {**COCO, "annotations": [annotation(1, 1, BILLIONS)]}
    left_out = imported(saved(tmp_path / "coco.json", bad), "coco")["left_out"]
    assert left_out["annotations without a box"] == 1


def test_outlines_of_no_use_in_records_are_lost(tmp_path: Path, pictures: Path) -> None:
    box = [10, 5, 40, 25]
    rows = [record_with(instance(box, each)) for each in (BILLIONS, "x", [1, 2], {}, [[1, 2]])]
    done = write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    assert done.lost[STALE] == 5


@pytest.mark.parametrize(
    ("element", "why"),
    [
        ('<polygon label="dog" points="1,2;3,4"/>', "a polygon of 4 numbers"),
        ('<polygon label="dog" points="1,2;3,nan;5,6"/>', "a list of numbers"),
        ('<polygon label="dog" points="1;2;3"/>', "not enough values"),
        ('<polygon label="dog"/>', "points"),
        ('<polygon label="dog" points="100,100;120,100;120,120"/>', "outside of its picture"),
        ('<mask label="dog" rle="0, 4" left="3" top="0" width="2"/>', "no 'height'"),
        ('<mask label="dog" left="3" top="0" width="nan" height="2"/>', "bbox"),
    ],
)
def test_shapes_of_cvat_of_no_use_are_left_out_and_counted(
    element: str, why: str, tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    inside = (element, '<box label="dog" xtl="1" ytl="2" xbr="3" ybr="4"/>')
    pictures = [Labelled("a.png", [each]) for each in inside]
    facts = imported(labelled(tmp_path, "cvat", pictures, drawn=False), "cvat", 1)
    assert (facts["bad"]["count"], why in facts["bad"]["entries"][0]) == (1, True), facts
    (record, _) = records_of(tmp_path / "results")
    assert (record["expressions"], record["background"]) == ([], False)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("polygon", {"points": [[1, 2], [3, 4]]}, "a polygon of 4 numbers"),
        ("polygon", {"points": [[1, 2], [3, None], [3, 4]]}, "should be numbers"),
        ("polygon", {"points": [[200, 200], [300, 200], [300, 300]]}, "outside of its picture"),
        ("brush", BRUSH, "a brush is no polygon"),
    ],
)
def test_regions_of_label_studio_of_no_use_are_left_out_and_counted(
    kind: str,
    value: dict[str, Any],
    why: str,
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    corners = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0}
    dog = region("dog", value, kind=kind, id="r")
    path = tasks_of(tmp_path, dog, region("mug", corners, id="s"))
    facts = imported(path, "label-studio", 1)
    assert (facts["bad"]["count"], why in facts["bad"]["entries"][0]) == (1, True), facts
    (record,) = records_of(tmp_path / "results")
    assert [*outlines_of(record)] == ["mug"]
    exported("label-studio", "--images", "reference")
    there = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert there == json.loads(path.read_text())


def test_a_picture_whose_only_region_is_of_no_use_is_no_background(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    pictures = []
    for points in ([[1, 2], [3, 4]], POINTS):
        pictures.append(Labelled("a.png", [region("dog", {"points": points}, kind="polygon")]))
    imported(labelled(tmp_path, "label-studio", pictures, drawn=False), "label-studio", 1)
    (record, _) = records_of(tmp_path / "results")
    assert (record["expressions"], record["background"]) == ([], False)


def test_polygons_of_labelme_of_no_use_are_counted(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    path = labelme(tmp_path / "source", shape("dog", [[1, 1], [9, 9]], "polygon"))
    ((what, count),) = imported(path, "labelme")["left_out"].items()
    assert (count, "a polygon of 4 numbers" in what) == (1, True), what
    (record,) = records_of(tmp_path / "results")
    assert outlines_of(record) == {"dog": [None]}


def test_outlines_of_yolo_of_no_use_are_counted(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    lines = LINES["c"] + "0 0.1 0.1 nan 0.1 0.5 0.4\n0 0.1 0.1 9 0.1 0.5 0.4\n0 0.1 0.1 0.5\n"
    facts = imported(yolo(tmp_path / "yolo", a=LINES["a"], b=LINES["c"], c=lines), "yolo", 1)
    entries = facts["bad"]["entries"]
    assert (len(entries), "'nan' is not a number" in entries[0]) == (3, True)
