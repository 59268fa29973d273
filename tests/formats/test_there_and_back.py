"""What other tools wrote comes back from `import` and `export` as it was, but for what was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.formats.data import succeeds

Records = list[dict[str, Any]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        PIL.Image.new("RGB", (64, 48), "#886644").save(folder / name)
    return folder


@pytest.fixture
def back(tmp_path: Path, pictures: Path) -> Callable[..., Path]:
    """What comes of a file that is imported, changed by a function, and exported again."""

    def there_and_back(
        source: Path, format: str, out: str, change: Callable[[Records], object] = len
    ) -> Path:
        results = tmp_path / "results"
        root = ("--image-root", pictures)
        succeeds("import", source, "--format", format, "-o", results, *root)
        file = results / "annotations.jsonl"
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        change(records)
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        export = ("export", results, "--format", format, "-o", tmp_path / out)
        images = () if "." not in out else ("--images", "reference")
        succeeds(*export, *root, *images)
        return tmp_path / out

    return there_and_back


def boxes_of(records: Records) -> dict[str, dict[str, Any]]:
    """The boxes, by their phrases and their numbers among those: `cup 0`."""
    return {
        f"{expression['text']} {number}": box
        for record in records
        for expression in record["expressions"]
        for number, box in enumerate(expression["instances"])
    }


def phrase(text: str, *boxes: list[float]) -> dict[str, Any]:
    """An expression that a person or a model added."""
    return {
        "text": text,
        "expression_id": f"new {text}",
        "class": text,
        "status": "grounded",
        "instances": [{"bbox": box, "score": None} for box in boxes],
    }


# COCO

COCO: dict[str, Any] = {
    "info": {"description": "ours", "year": 2024},
    "licenses": [{"id": 4, "name": "CC BY"}],
    "categories": [
        {"id": 18, "name": "dog", "supercategory": "animal"},
        {"id": 3, "name": "cup", "supercategory": "kitchen", "synonyms": ["mug"]},
        {"id": 90, "name": "unused", "supercategory": "x"},
    ],
    "images": [
        {"id": 700, "width": 64, "height": 48, "file_name": "b.png", "license": 4, "own": [1]},
        {"file_name": "a.png", "id": 12, "height": 48, "width": 64, "date_captured": "2013"},
        {"file_name": "c.png", "id": 13, "height": 48, "width": 64},
    ],
    "annotations": [
        {"id": 31, "image_id": 700, "category_id": 3, "bbox": [1, 2, 10, 11.5], "area": 70.25}
        | {"iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 13.5]], "attributes": {"dirty": True}},
        {"id": 9, "image_id": 700, "category_id": 18, "bbox": [5, 6, 10, 10], "area": 100}
        | {"iscrowd": 0},
        {"id": 10, "image_id": 700, "category_id": 3, "bbox": [20, 6, 10, 10], "score": 87},
        {"id": 11, "image_id": 700, "category_id": 18, "bbox": [0, 0, 64, 48], "iscrowd": 1}
        | {"segmentation": {"counts": [0, 3072], "size": [48, 64]}},
        {"id": 5000, "image_id": 12, "category_id": 18, "bbox": [0, 0, 64, 48.5], "iscrowd": 0},
        {"id": 5001, "image_id": 13, "category_id": 18, "bbox": [0, 0, 64, 48], "iscrowd": 1},
    ],
}


def coco_file(folder: Path) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(COCO))
    return path


def test_coco(tmp_path: Path, back: Callable[..., Path]) -> None:
    out = back(coco_file(tmp_path), "coco", "annotations.json")
    assert json.loads(out.read_text()) == COCO


def test_coco_in_a_folder_names_the_pictures_there(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    out = json.loads((back(coco_file(tmp_path), "coco", "out") / "annotations.json").read_text())
    for image in out["images"]:
        image["file_name"] = image["file_name"].removeprefix("images/")
    assert out == COCO


def test_what_is_changed_of_coco(tmp_path: Path, back: Callable[..., Path]) -> None:
    """A box is moved, one deleted, one called otherwise, two are added, one of a new class."""

    def change(records: Records) -> None:
        cup, _ = records[0]["expressions"][0]["instances"]
        cup["bbox"] = [2, 3, 12, 13]
        records[0]["expressions"][0]["instances"] = [cup]
        records[0]["expressions"][1] |= {"text": "cup", "class": "cup"}
        records[1]["expressions"] += [phrase("plate", [1, 1, 9, 9]), phrase("cup", [2, 2, 9, 9])]

    out = json.loads(back(coco_file(tmp_path), "coco", "annotations.json", change).read_text())
    wanted = json.loads(json.dumps(COCO))
    moved, renamed, _, *others = wanted["annotations"]
    moved |= {"bbox": [2, 3, 10, 10], "area": 100}
    del moved["segmentation"]
    renamed |= {"category_id": 3, "phrase": "cup", "class": "cup"}
    wanted["annotations"] = [moved, renamed, *others]
    added = [box for box in out["annotations"] if box["id"] > 5001]
    assert [box for box in out["annotations"] if box["id"] <= 5001] == wanted["annotations"]
    assert [(box["id"], box["image_id"], box["category_id"]) for box in added] == [
        (5002, 12, 91),
        (5003, 12, 3),
    ]
    assert out["categories"][:3] == COCO["categories"]
    assert [(one["id"], one["name"]) for one in out["categories"][3:]] == [(91, "plate")]
    assert out["images"] == COCO["images"]


def test_coco_of_records_that_are_elsewhere_keeps_what_its_boxes_say(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    """As after a run on what was imported: there is no run.json of the import."""
    back(coco_file(tmp_path), "coco", "annotations.json")
    records = tmp_path / "elsewhere.jsonl"
    (tmp_path / "results" / "annotations.jsonl").rename(records)
    more = ("--images", "reference", "--image-root", tmp_path / "pictures")
    succeeds(
        "export", records, "--format", "coco", "-o", tmp_path / "x" / "annotations.json", *more
    )
    out = json.loads((tmp_path / "x" / "annotations.json").read_text())
    assert out["annotations"] == COCO["annotations"]
    assert out["images"] == COCO["images"]
    assert sorted(one["id"] for one in out["categories"]) == [3, 18]
