"""Masks: what comes in as polygons or runs is kept, and goes out where the format can say it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
import PIL.Image
import pytest
from faster_coco_eval.core import mask as coco_mask

from dataflow_grounding.formats import read, write
from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.session import Session
from tests.formats.data import command, runs, succeeds

WIDTH, HEIGHT = 64, 48
SIDES = {"width": WIDTH, "height": HEIGHT}
# A mug with a hole for its handle, which no polygon says.
MUG = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
MUG[5:25, 10:40] = 1
MUG[10:15, 20:30] = 0
BLOB = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
BLOB[0:HEIGHT:2, 6:9] = 1
BLOB[40:, 3] = BLOB[:5, 4] = 1  # a run over the end of a column
TRIANGLE = [1.5, 2.25, 11.0, 2.25, 11.0, 13.5]
PARTS = [[20.0, 20.0, 25.0, 20.0, 25.0, 30.0], [30.0, 20.0, 40.0, 20.0, 40.0, 30.0]]
BOX_OF_PARTS = [20.0, 20.0, 20.0, 10.0]


def packed(pixels: Any) -> dict[str, Any]:
    """The same as pycocotools packs it."""
    made = coco_mask.encode(np.asfortranarray(pixels))
    return {"size": [int(side) for side in made["size"]], "counts": made["counts"].decode()}


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
        annotation(2, 2, packed(MUG), bbox=[10.0, 5.0, 30.0, 20.0], area=550.0),
        annotation(3, 2, runs(BLOB)),
        annotation(4, 1, PARTS, bbox=BOX_OF_PARTS, area=75.0),
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "mug"}],
}
BOXES = {
    "dog": [[1.5, 2.25, 11.0, 13.5], [20.0, 20.0, 40.0, 30.0]],
    "mug": [[10.0, 5.0, 40.0, 25.0], [3, 0, 9, 48]],
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


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def records_of(folder: Path, name: str = "annotations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def masks_of(record: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        expression["text"]: [box.get("segmentation") for box in expression["instances"]]
        for expression in record["expressions"]
    }


def boxes_of(record: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        expression["text"]: [box["bbox"] for box in expression["instances"]]
        for expression in record["expressions"]
    }


def decoded(path: Path) -> dict[int, Any]:
    """The masks of a COCO file as its own reader decodes them, by annotation."""
    coco = faster_coco_eval.COCO(str(path))
    with_mask = [each for each in coco.anns.values() if "segmentation" in each]
    return {each["id"]: coco.annToMask(each) for each in with_mask}


# COCO


def test_masks_of_coco_come_in_and_go_out_as_they_were(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    source = saved(tmp_path / "coco.json", COCO)
    assert imported(source, "coco")["left_out"] == {}
    (record,) = records_of(tmp_path / "results")
    assert masks_of(record) == {"dog": [[TRIANGLE], PARTS], "mug": [packed(MUG), runs(BLOB)]}
    assert boxes_of(record) == BOXES
    assert "segmentation" not in "".join(exported("coco")["lost"])
    out = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert out["annotations"] == COCO["annotations"]
    before, after = decoded(source), decoded(tmp_path / "out" / "annotations.json")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[own_id], after[own_id]) for own_id in before)
    assert np.array_equal(after[2], MUG)
    assert np.array_equal(after[3], BLOB)


def test_a_split_keeps_masks(
    tmp_path: Path,
    pictures: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    many: dict[str, Any] = {**COCO, "images": [], "annotations": []}
    for number in range(1, 41):
        shutil.copy(pictures / "a.png", pictures / f"{number}.png")
        many["images"].append({"id": number, "file_name": f"{number}.png", **SIDES})
        box = [10.0, 5.0, 30.0, 20.0]
        many["annotations"].append(
            {**annotation(number, 2, packed(MUG), bbox=box), "image_id": number}
        )
    imported(saved(tmp_path / "coco.json", many), "coco")
    succeeds("split", tmp_path / "results", "-o", tmp_path / "parts", "--no-pictures")
    exported("coco", results="parts")
    masks = {}
    for path in (tmp_path / "out").glob("*/annotations.json"):
        masks |= decoded(path)
    assert sorted(masks) == [*range(1, 41)]
    assert all(np.array_equal(mask, MUG) for mask in masks.values())


def test_a_new_box_with_a_mask_gets_the_masks_area(tmp_path: Path, pictures: Path) -> None:
    rows = [
        record_with(instance([1.5, 2.25, 11.0, 13.5], [TRIANGLE])),
        record_with(instance([10, 5, 40, 25], packed(MUG)), name="b.png"),
    ]
    write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    areas = {str(each["segmentation"]): each["area"] for each in coco["annotations"]}
    assert areas == {str([TRIANGLE]): 53.4375, str(packed(MUG)): int(MUG.sum())}


def instance(box: list[float], mask: Any) -> dict[str, Any]:
    return {"bbox": box, "score": None, "segmentation": mask}


def record_with(*instances: dict[str, Any], name: str = "a.png") -> dict[str, Any]:
    expression = {"text": "mug", "class": "mug", "instances": [*instances]}
    return {"image_path": name, **SIDES, "caption": None, "expressions": [expression]}


# What becomes of masks of boxes that are moved


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


def test_a_box_that_a_reviewer_moves_loses_its_mask_which_is_said(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(saved(tmp_path / "coco.json", COCO), "coco")

    assert reviewed(tmp_path / "results", first_moved)["masks_left_out"] == 1
    said = succeeds("apply", tmp_path / "results").out
    assert "left out, as their boxes were moved: 1 mask\n" in said
    (record,) = records_of(tmp_path / "results", "annotations.reviewed.jsonl")
    assert masks_of(record)["dog"] == [None, PARTS]
    exported("coco", results="results/annotations.reviewed.jsonl")
    moved, *others = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert "segmentation" not in moved
    assert [each["segmentation"] for each in others] == [packed(MUG), runs(BLOB), PARTS]


def test_a_review_that_moves_nothing_keeps_masks(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    imported(saved(tmp_path / "coco.json", COCO), "coco")
    assert reviewed(tmp_path / "results", len)["masks_left_out"] == 0
    (record,) = records_of(tmp_path / "results", "annotations.reviewed.jsonl")
    assert masks_of(record)["dog"] == [[TRIANGLE], PARTS]


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio", "datasets"])
def test_the_mask_of_a_box_that_was_moved_by_hand_is_lost_which_is_counted(
    format: str,
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    one = {**COCO, "annotations": COCO["annotations"][:1]}
    imported(saved(tmp_path / "coco.json", one), "coco")
    (record,) = records_of(tmp_path / "results")
    record["expressions"][0]["instances"][0]["bbox"][0] += 0.5
    saved(tmp_path / "results" / "annotations.jsonl", json.dumps(record) + "\n")
    assert exported(format)["lost"]["masks that don't fit their box"] == 1
    (row,) = read(str(tmp_path / "out"), format)
    assert masks_of(row) == {"dog": [None]}


def test_the_mask_of_a_labelme_box_that_was_moved_is_lost(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    points = [TRIANGLE[at : at + 2] for at in (0, 2, 4)]
    imported(labelme(tmp_path / "a.json", shape("dog", points, "polygon")), "labelme")
    assert "masks that don't fit their box" not in exported("coco")["lost"]
    (record,) = records_of(tmp_path / "results")
    record["expressions"][0]["instances"][0]["bbox"][0] += 0.5
    saved(tmp_path / "results" / "annotations.jsonl", json.dumps(record) + "\n")
    assert exported("coco")["lost"]["masks that don't fit their box"] == 1


def test_a_mask_that_was_made_for_a_moved_box_goes_out(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    one = {**COCO, "annotations": COCO["annotations"][:1]}
    imported(saved(tmp_path / "coco.json", one), "coco")
    (record,) = records_of(tmp_path / "results")
    record["expressions"][0]["instances"][0] |= {
        "bbox": [10, 5, 40, 25],
        "segmentation": packed(MUG),
    }
    saved(tmp_path / "results" / "annotations.jsonl", json.dumps(record) + "\n")
    assert "masks that don't fit their box" not in exported("coco")["lost"]
    (mask,) = decoded(tmp_path / "out" / "annotations.json").values()
    assert np.array_equal(mask, MUG)


def test_a_mask_that_never_fitted_is_measured(tmp_path: Path, pictures: Path) -> None:
    rows = [record_with(instance([40, 30, 60, 47], packed(MUG)))]
    done = write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    assert done.lost["masks that don't fit their box"] == 1


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
def test_masks_come_through_another_format_pixel_by_pixel(
    format: str, tmp_path: Path, pictures: Path
) -> None:
    single = {**COCO, "annotations": COCO["annotations"][:3]}
    after = decoded(there_and_back(tmp_path, pictures, single, format))
    before = decoded(tmp_path / "coco.json")
    assert len(before) == len(after) == 3
    for mask in before.values():
        assert any(np.array_equal(mask, other) for other in after.values())


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio"])
def test_any_mask_comes_through_pixel_by_pixel(format: str, tmp_path: Path) -> None:
    """Of several sizes, from single pixels to runs that take four letters."""
    chance = np.random.default_rng(63)
    wanted = {}
    rows = []
    for number in range(24):
        width, height = (
            int(side) for side in chance.integers(1, 900 if number % 4 == 0 else 40, 2)
        )
        mask = np.zeros((height, width), dtype=np.uint8)
        for _ in range(int(chance.integers(1, 6))):
            x, y = int(chance.integers(width)), int(chance.integers(height))
            mask[y : y + int(chance.integers(1, 400)), x : x + int(chance.integers(1, 400))] ^= 1
        mask[int(chance.integers(height)), int(chance.integers(width))] = 1
        made = coco_mask.encode(np.asfortranarray(mask))
        x, y, w, h = (float(side) for side in coco_mask.toBbox(made))
        rle = {"size": [height, width], "counts": made["counts"].decode()}
        name = f"{number}.png"
        row = record_with(instance([x, y, x + w, y + h], rle), name=name)
        rows.append({**row, "width": width, "height": height})
        wanted[name] = mask
    write(rows, format, str(tmp_path / "out"), images="reference")
    found = {}
    for row in read(str(tmp_path / "out"), format):
        (only,) = row["expressions"][0]["instances"]
        rle = only["segmentation"]
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        found[row["image_path"].rpartition("/")[2]] = coco_mask.decode(rle)
        x, y, w, h = coco_mask.toBbox(rle)
        assert only["bbox"] == pytest.approx([x, y, x + w, y + h])
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_polygons_come_through_yolo(tmp_path: Path, pictures: Path) -> None:
    dogs = {**COCO, "annotations": COCO["annotations"][:1]}
    path = there_and_back(tmp_path, pictures, dogs, "yolo")
    line = (tmp_path / "between" / "labels" / "a.txt").read_text()
    parts = [number / (WIDTH, HEIGHT)[i % 2] for i, number in enumerate(TRIANGLE)]
    assert line == f"0 {' '.join(f'{part:.8f}' for part in parts)}\n"
    (only,) = json.loads(path.read_text())["annotations"]
    assert only["segmentation"] == [pytest.approx(TRIANGLE, abs=1e-5)]


@pytest.mark.parametrize("format", ["kitti", "voc", "llava", "tao", "odvg"])
def test_a_format_without_masks_counts_them_as_lost(
    format: str, tmp_path: Path, pictures: Path
) -> None:
    options = ("--target", "qwen3-vl") if format == "llava" else ()
    source = saved(tmp_path / "coco.json", COCO)
    arguments = ("convert", source, "--from", "coco", "--to", format, "-o", tmp_path / "out")
    done = succeeds(*arguments, "--image-root", pictures, "--json", *options)
    facts = json.loads(done.out)
    assert (facts["boxes"], facts["lost"]["masks"]) == (4, 4)
    strict = command(*arguments, "--image-root", pictures, "--strict", *options)
    assert strict.code == 2
    assert "masks (4)" in strict.err


@pytest.mark.parametrize("format", ["cvat", "label-studio"])
def test_several_polygons_are_a_box_where_a_region_has_one(
    format: str, tmp_path: Path, pictures: Path
) -> None:
    source = saved(tmp_path / "coco.json", COCO)
    arguments = ("convert", source, "--from", "coco", "--to", format, "-o", tmp_path / "out")
    facts = json.loads(succeeds(*arguments, "--image-root", pictures, "--json").out)
    assert facts["lost"]["masks of several polygons"] == 1
    (row,) = read(str(tmp_path / "out"), format)
    assert sorted(row["expressions"][0]["instances"][1]) == sorted(
        {"bbox", "score", "bbox_id", "imported"}
    )


# YOLO

LINES = {
    "a": "0 0.1 0.1 0.5 0.1 0.5 0.400 0.1 0.4\n1 0.25 0.5 0.75 0.5 0.5 0.9\n",
    "b": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.4\n",  # a box, and an outline
    "c": "1 0.1 0.1 0.5 0.1 0.5 0.4\n",
}


BESIDE_BOXES = "masks in pictures with a box that has no outline of its size"


def yolo(folder: Path, **labels: str) -> Path:
    saved(folder / "data.yaml", "path: .\ntrain: images\nnames:\n  0: dog\n  1: mug\n")
    for name, lines in labels.items():
        saved(folder / "labels" / f"{name}.txt", lines)
    return folder


def test_outlines_of_yolo_go_back_where_each_box_has_one(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(yolo(tmp_path / "yolo", **LINES), "yolo")
    first, second, _ = records_of(tmp_path / "results")
    assert masks_of(first)["dog"] == [[[6.4, 4.8, 32.0, 4.8, 32.0, 19.2, 6.4, 19.2]]]
    assert boxes_of(first)["dog"] == [[6.4, 4.8, 32.0, 19.2]]
    assert masks_of(second) == {"dog": [None], "mug": [[[6.4, 4.8, 32.0, 4.8, 32.0, 19.2]]]}
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
    hidden = annotation(1, 1, [TRIANGLE], bbox=[0.0, 0.0, 60.0, 40.0])
    source = saved(tmp_path / "coco.json", {**COCO, "annotations": [hidden]})
    arguments = ("convert", source, "--from", "coco", "--to", "yolo", "-o", tmp_path / "out")
    facts = json.loads(succeeds(*arguments, "--image-root", pictures, "--json").out)
    assert facts["lost"] == {BESIDE_BOXES: 1}
    assert len((tmp_path / "out" / "labels" / "a.txt").read_text().split()) == 5


def test_runs_and_several_polygons_are_no_outlines(tmp_path: Path, pictures: Path) -> None:
    source = saved(tmp_path / "coco.json", COCO)
    arguments = ("convert", source, "--from", "coco", "--to", "yolo", "-o", tmp_path / "out")
    lost = json.loads(succeeds(*arguments, "--image-root", pictures, "--json").out)["lost"]
    assert lost["masks that are no polygon"] == 2
    assert lost["masks of several polygons"] == 1
    assert lost[BESIDE_BOXES] == 1


def test_a_point_of_an_outline_beyond_the_picture_is_put_to_its_edge(
    tmp_path: Path, pictures: Path
) -> None:
    """Trainers leave the whole line out."""
    beyond = [-2.0, 0.0, 30.0, 0.0, 30.0, 30.0]
    one = {**COCO, "annotations": [annotation(1, 1, [beyond], bbox=[0.0, 0.0, 30.0, 30.0])]}
    there_and_back(tmp_path, pictures, one, "yolo")
    numbers = (tmp_path / "between" / "labels" / "a.txt").read_text().split()[1:]
    assert numbers[:2] == ["0.00000000", "0.00000000"]


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
    assert facts["lost"] == {"masks that don't fit their box": 1, BESIDE_BOXES: 1}
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


def test_masks_of_cvat(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    facts = imported(saved(tmp_path / "cvat.xml", CVAT), "cvat")
    assert facts["left_out"] == {"attributes 'dirty'": 1}
    (record,) = records_of(tmp_path / "results")
    assert masks_of(record)["dog"] == [[TRIANGLE], None]
    assert boxes_of(record) == {
        "dog": [[1.5, 2.25, 11.0, 13.5], [5.0, 2.5, 60.0, 48.0]],
        "mug": [[10, 20, 14, 23]],
    }
    mug = coco_mask.decode(coco_mask.frPyObjects(masks_of(record)["mug"][0], HEIGHT, WIDTH))
    assert mug[20:23, 10:14].reshape(-1).tolist() == [0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0]
    assert int(mug.sum()) == 8
    exported("cvat", "--images", "reference")
    assert parts_of((tmp_path / "out" / "annotations.xml").read_text()) == parts_of(CVAT)


def test_a_moved_polygon_of_cvat_is_a_box_with_the_same_attributes(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    imported(saved(tmp_path / "cvat.xml", CVAT), "cvat")

    assert reviewed(tmp_path / "results", first_moved)["masks_left_out"] == 1
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


def png(pixels: Any) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray((pixels * 255).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme(path: Path, *shapes: dict[str, Any]) -> Path:
    picture = {"imagePath": "a.png", "imageWidth": WIDTH, "imageHeight": HEIGHT, "imageData": None}
    return saved(path, {"version": "5.5.0", "flags": {}, "shapes": [*shapes], **picture})


def shape(label: str, points: Any, kind: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def test_masks_of_labelme(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    points = [TRIANGLE[at : at + 2] for at in (0, 2, 4)]
    path = labelme(
        tmp_path / "a.json",
        shape("dog", points, "polygon"),
        shape("mug", [[10, 5], [39, 24]], "mask", mask=png(MUG[5:25, 10:40])),
        shape("post", [[3, 4], [3, 9]], "mask", mask=png(np.ones((6, 1), dtype=bool))),
    )
    assert imported(path, "labelme")["left_out"] == {}
    (record,) = records_of(tmp_path / "results")
    assert masks_of(record)["dog"] == [[TRIANGLE]]
    boxes = {each["text"]: each["instances"][0]["bbox"] for each in record["expressions"]}
    assert (boxes["mug"], boxes["post"]) == ([10, 5, 40, 25], [3, 4, 4, 10])
    exported("coco")
    dog, mug, post = decoded(tmp_path / "out" / "annotations.json").values()
    assert np.array_equal(mug, MUG)
    assert (dog.sum() > 0, post.sum()) == (True, 6)


# Label Studio


def brush(pixels: Any, *, equal: bool) -> list[int]:
    """What the brush's editor writes: values in pieces, equal ones or as they are."""
    values = np.repeat(pixels.reshape(-1) * 255, 4).tolist()
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    at = 0
    while at < len(values):
        if equal:
            end = at
            while end < len(values) and values[end] == values[at] and end - at < 250:
                end += 1
            bits += f"110{end - at - 1:08b}{values[at]:08b}"
        else:
            end = min(at + 7, len(values))  # no multiple of four
            bits += f"000{end - at - 1:03b}" + "".join(f"{each:08b}" for each in values[at:end])
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def brushed(values: list[int]) -> Any:
    """The alpha of a brush's runs, by the description of the format alone."""
    bits = "".join(f"{each:08b}" for each in values)
    at = 0

    def number(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    count, word = number(32), number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < count:
        are_equal = number(1)
        length = number(lengths[number(2)]) + 1
        if are_equal:
            out += [number(word)] * length
        else:
            out += [number(word) for _ in range(length)]
    return (np.array(out[3::4]) > 0).reshape(HEIGHT, WIDTH)


def region(own_id: str, kind: str, value: dict[str, Any], label: str) -> dict[str, Any]:
    return {
        "id": own_id,
        "from_name": kind,
        "to_name": "image",
        "type": f"{kind}labels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
        "origin": "manual",
    }


POINTS = [[10.0, 12.5], [50.0, 12.5], [50.0, 75.0]]


def task(*result: dict[str, Any]) -> list[dict[str, Any]]:
    annotations = [{"id": 5, "completed_by": 1, "result": [*result], "was_cancelled": False}]
    data = {"image": "/data/local-files/?d=a.png"}
    return [{"id": 3, "data": data, "annotations": annotations, "predictions": []}]


@pytest.mark.parametrize("equal", [True, False])
def test_masks_of_label_studio(
    equal: bool,
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    tasks = task(
        region("p", "polygon", {"points": POINTS, "closed": True}, "dog"),
        region("b", "brush", {"format": "rle", "rle": brush(MUG, equal=equal)}, "mug"),
    )
    assert imported(saved(tmp_path / "tasks.json", tasks), "label-studio")["left_out"] == {}
    (record,) = records_of(tmp_path / "results")
    assert masks_of(record)["dog"] == [[[6.4, 6.0, 32.0, 6.0, 32.0, 36.0]]]
    assert boxes_of(record)["mug"] == [[10, 5, 40, 25]]
    exported("label-studio", "--images", "reference")
    assert json.loads((tmp_path / "out" / "tasks.json").read_text()) == tasks
    exported("coco")
    *_, mug = decoded(tmp_path / "out" / "annotations.json").values()
    assert np.array_equal(mug, MUG)


def test_what_label_studio_gets_of_masks(tmp_path: Path, pictures: Path) -> None:
    source = saved(tmp_path / "coco.json", COCO)
    arguments = ("convert", source, "--from", "coco", "--to", "label-studio", "-o")
    succeeds(*arguments, tmp_path / "out", "--image-root", pictures)
    (only,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    result = only["predictions"][0]["result"]
    brushes = [each["value"] for each in result if each["type"] == "brushlabels"]
    assert [each["brushlabels"] for each in brushes] == [["object"], ["object"]]
    assert np.array_equal(brushed(brushes[0]["rle"]), MUG)
    assert np.array_equal(brushed(brushes[1]["rle"]), BLOB)
    (polygon,) = (each for each in result if each["type"] == "polygonlabels")
    assert polygon["value"]["points"][0] == [1.5 / WIDTH * 100, 2.25 / HEIGHT * 100]
    config = (tmp_path / "out" / "labels.xml").read_text()
    assert '<PolygonLabels name="polygon"' in config
    assert '<BrushLabels name="brush"' in config


def test_a_moved_polygon_of_label_studio_is_a_rectangle(
    tmp_path: Path,
    imported: Callable[..., dict[str, Any]],
    exported: Callable[..., dict[str, Any]],
) -> None:
    tasks = task(region("p", "polygon", {"points": POINTS, "closed": True}, "dog"))
    imported(saved(tmp_path / "tasks.json", tasks), "label-studio")

    def move(boxes: list[Any]) -> None:
        boxes[0]["bbox"] = [16.0, 12.0, 32.0, 24.0]

    assert reviewed(tmp_path / "results", move)["masks_left_out"] == 1
    exported("label-studio", results="results/annotations.reviewed.jsonl")
    (only,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    (moved,) = only["annotations"][0]["result"]
    assert (moved["id"], moved["type"], moved["from_name"]) == ("p", "rectanglelabels", "box")
    area = {"x": 25.0, "y": 25.0, "width": 25.0, "height": 25.0, "rotation": 0}
    assert moved["value"] == {**area, "rectanglelabels": ["dog"]}


# Hostile masks

BILLIONS = {"counts": [0, 10**12], "size": [10**6, 10**6]}
FEW = "of no use, of which the first is "


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "a list of numbers"),
        ([[1, 2, 3, 4, 5, 1e999]], "a list of numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "a list of numbers"),
        ("polygon", "polygons, or an object"),
        ([[100, 100, 120, 100, 120, 120]], "outside of its picture"),
        ([[40, 40, 50, 40, 50, 45]], "outside of its box"),
        ({"counts": [0, 4], "size": [2, 2]}, "the mask is of 2 x 2 px"),
        ({"counts": [0, 4]}, "no size"),
        ({"counts": [0, 4], "size": [-48, -64]}, "no size"),
        (BILLIONS, "more than 100,000,000"),
        ({"counts": [10, 20], "size": [HEIGHT, WIDTH]}, "don't fill"),
        ({"counts": [3073, -1], "size": [HEIGHT, WIDTH]}, "don't fill"),
        ({"counts": [HEIGHT * WIDTH], "size": [HEIGHT, WIDTH]}, "no pixel"),
        ({"counts": [1.5, 2], "size": [HEIGHT, WIDTH]}, "whole numbers"),
        ({"counts": "o" * 100, "size": [HEIGHT, WIDTH]}, "no text of COCO's"),
        ({"counts": "é", "size": [HEIGHT, WIDTH]}, "no text of COCO's"),
        ({"counts": None, "size": [HEIGHT, WIDTH]}, "no counts"),
    ],
)
def test_a_mask_of_no_use_is_counted_and_its_box_is_kept(
    mask: Any, why: str, tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    bad = {**COCO, "annotations": [annotation(1, 1, mask, bbox=[1, 2, 10, 10])]}
    facts = imported(saved(tmp_path / "coco.json", bad), "coco")
    ((what, count),) = facts["left_out"].items()
    assert (count, "masks " + FEW in what, why in what) == (1, True, True), what
    assert "coco.json, annotation 1: " in what
    (record,) = records_of(tmp_path / "results")
    assert (boxes_of(record), masks_of(record)) == ({"dog": [[1, 2, 11, 12]]}, {"dog": [None]})


def test_a_mask_of_no_use_without_a_box_is_an_annotation_without_one(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    bad = {**COCO, "annotations": [annotation(1, 1, BILLIONS)]}
    left_out = imported(saved(tmp_path / "coco.json", bad), "coco")["left_out"]
    assert left_out["annotations without a box"] == 1


def test_masks_of_no_use_in_records_are_lost(tmp_path: Path, pictures: Path) -> None:
    box = [10, 5, 40, 25]
    rows = [record_with(instance(box, mask)) for mask in (BILLIONS, "x", [[1, 2]], {})]
    done = write(rows, "coco", str(tmp_path / "out"), folders=[str(pictures)])
    assert done.lost["masks of no use"] == 4


@pytest.mark.parametrize(
    ("element", "why"),
    [
        ('<polygon label="dog" points="1,2;3,4"/>', "a polygon of 4 numbers"),
        ('<polygon label="dog" points="1,2;3,nan;5,6"/>', "a list of numbers"),
        ('<polygon label="dog" points="1;2;3"/>', "not enough values"),
        ('<polygon label="dog"/>', "points"),
        ('<polygon label="dog" points="100,100;120,100;120,120"/>', "outside of its picture"),
        ('<mask label="dog" rle="0, 4" left="63" top="0" width="2" height="2"/>', "reaches out"),
        ('<mask label="dog" rle="0, 5" left="0" top="0" width="2" height="2"/>', "don't fill"),
        (
            '<mask label="dog" rle="0,1000000000000" left="0" top="0" width="1000000"'
            ' height="1000000"/>',
            "reaches out",
        ),
    ],
)
def test_shapes_of_cvat_of_no_use_are_left_out_and_counted(
    element: str, why: str, tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    inside = (element, '<box label="dog" xtl="1" ytl="2" xbr="3" ybr="4"/>')
    images = [
        f'<image id="0" name="a.png" width="64" height="48">{each}</image>' for each in inside
    ]
    text = f"<annotations>{''.join(images)}</annotations>"
    facts = imported(saved(tmp_path / "x.xml", text), "cvat", 1)
    assert (facts["bad"]["count"], why in facts["bad"]["entries"][0]) == (1, True), facts
    (record, _) = records_of(tmp_path / "results")
    assert (record["expressions"], record["background"]) == ([], False)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("polygon", {"points": [[1, 2], [3, 4]]}, "a polygon of 4 numbers"),
        ("polygon", {"points": [[1, 2], [3, None], [3, 4]]}, "NoneType"),
        ("polygon", {"points": [[200, 200], [300, 200], [300, 300]]}, "outside of its picture"),
        ("brush", {"format": "rle", "rle": brush(MUG, equal=True)[:50]}, "ends too early"),
        ("brush", {"format": "rle", "rle": brush(MUG[:24], equal=True)}, "is not of 64 x 48 px"),
        ("brush", {"format": "rle", "rle": [255] * 40}, "is not of 64 x 48 px"),
        ("brush", {"format": "rle", "rle": [999]}, "should be bytes"),
        ("brush", {"format": "rle", "rle": brush(MUG * 0, equal=True)}, "no pixel"),
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
    tasks = task(region("r", kind, value, "dog"), region("s", "rectangle", corners, "mug"))
    facts = imported(saved(tmp_path / "tasks.json", tasks), "label-studio", 1)
    assert (facts["bad"]["count"], why in facts["bad"]["entries"][0]) == (1, True), facts
    (record,) = records_of(tmp_path / "results")
    assert [*masks_of(record)] == ["mug"]
    exported("label-studio", "--images", "reference")
    assert json.loads((tmp_path / "out" / "tasks.json").read_text()) == tasks


def test_a_picture_whose_only_region_is_of_no_use_is_no_background(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    points = [[[1, 2], [3, 4]], POINTS]
    tasks = [task(region("r", "polygon", {"points": each}, "dog"))[0] for each in points]
    imported(saved(tmp_path / "tasks.json", tasks), "label-studio", 1)
    (record, _) = records_of(tmp_path / "results")
    assert (record["expressions"], record["background"]) == ([], False)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (shape("dog", [[1, 1], [9, 9]], "polygon"), "a polygon of 4 numbers"),
        (shape("dog", [[1, 1], [9, 9]], "mask"), "no PNG"),
        (shape("dog", [[1, 1], [9, 9]], "mask", mask="AAAA"), "its PNG"),
        (shape("dog", [[1, 1], [9, 9]], "mask", mask=png(MUG)), "its points tell (9, 9)"),
        (shape("dog", [[0, 0], [99999, 99999]], "mask", mask=png(MUG)), "reaches out"),
        (shape("dog", [[40, 1], [69, 20]], "mask", mask=png(MUG[5:25, 10:40])), "reaches out"),
    ],
)
def test_masks_of_labelme_of_no_use_are_counted(
    shown: dict[str, Any], why: str, tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    facts = imported(labelme(tmp_path / "a.json", shown), "labelme")
    ((what, count),) = facts["left_out"].items()
    assert (count, why in what) == (1, True), what
    (record,) = records_of(tmp_path / "results")
    assert masks_of(record) == {"dog": [None]}


def test_outlines_of_yolo_of_no_use_are_counted(
    tmp_path: Path, imported: Callable[..., dict[str, Any]]
) -> None:
    lines = LINES["c"] + "0 0.1 0.1 nan 0.1 0.5 0.4\n0 0.1 0.1 9 0.1 0.5 0.4\n0 0.1 0.1 0.5\n"
    facts = imported(yolo(tmp_path / "yolo", a=LINES["a"], b=LINES["c"], c=lines), "yolo", 1)
    entries = facts["bad"]["entries"]
    assert (len(entries), "'nan' is not a number" in entries[0]) == (3, True)
