"""Exports of one class run, through the readers that people open them with: each finds the run's
own boxes.

Its pictures are in subfolders, of two file types; one has a name with an umlaut and is turned by
its EXIF.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.formats.data import draw, record, succeeds
from tests.support.labelled import saved

pytestmark = pytest.mark.slow

CLASSES = ["dog", "cup", "traffic light", "kite"]
WIDE, TALL = (64, 48), (48, 64)
TURNED = "garten/grün.jpg"
RUN: dict[str, list[tuple[str, list[float]]]] = {
    "top.png": [("cup", [1, 2, 30, 40])],
    "second.jpg": [("cup", [1, 2, 30, 40]), ("cup", [5, 6, 20, 21.5])],
    "kitchen/a.jpg": [("cup", [1, 2, 30, 40]), ("traffic light", [3, 4, 10, 12])],
    "kitchen/shelf/b.png": [("dog", [0, 0, 64, 48])],
    "garten/a.jpg": [("dog", [7, 8, 9, 10])],
    TURNED: [("cup", [1, 2, 30, 60])],
}
SIZES = {name: TALL if name == TURNED else WIDE for name in RUN}

EXPORTS = {
    "coco": ["coco"],
    "cvat": ["cvat"],
    "datasets": ["datasets"],
    "messages": ["messages", "--target", "qwen3-vl"],
    "voc": ["voc"],
    "voc flat": ["voc", "--flat"],
    "webdataset": ["webdataset"],
    "yolo": ["yolo"],
    "yolo flat": ["yolo", "--flat"],
}
Found = dict[str, list[tuple[str, list[float]]]]
"""The classes and boxes of each picture, by its name in the run."""


def record_of(name: str) -> dict[str, Any]:
    expressions = []
    for class_name in CLASSES:
        boxes = [{"bbox": box, "score": 0.5} for found, box in RUN[name] if found == class_name]
        expressions.append({"text": class_name, "class": class_name, "instances": boxes})
    return record(name, SIZES[name], expressions, caption="")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    run = folder / "run"
    rows = [record_of(name) for name in RUN]
    draw(run, [row for row in rows if row["image_path"] != TURNED])
    draw(run, [row for row in rows if row["image_path"] == TURNED], turn=6)
    saved(run / "annotations.jsonl", rows)
    saved(run / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
    for name, (format, *options) in EXPORTS.items():
        succeeds("export", run, "--format", format, *options, "-o", folder / name)
    return folder


def ordered(found: Found) -> Found:
    """The boxes of each picture in an order of their own, in hundredths of a pixel."""
    rounded = {}
    for name, boxes in found.items():
        rounded[name] = sorted((label, [round(float(x), 2) for x in box]) for label, box in boxes)
    return rounded


def in_one_folder(by_name: dict[str, Any]) -> dict[str, Any]:
    """The same by the names of `--flat`."""
    return {name.replace("/", "_"): value for name, value in by_name.items()}


# faster-coco-eval, which has the classes of pycocotools


def test_coco_has_the_runs_boxes_and_upright_pictures(exports: Path) -> None:
    from faster_coco_eval import COCO

    coco = COCO(str(exports / "coco" / "annotations.json"))
    found: Found = {}
    sizes = {}
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"].removeprefix("images/")
        found[name] = []
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            x, y, width, height = one["bbox"]
            label = coco.cats[one["category_id"]]["name"]
            found[name].append((label, [x, y, x + width, y + height]))
        sizes[name] = (image["width"], image["height"])
        assert PIL.Image.open(exports / "coco" / image["file_name"]).size == sizes[name]
    assert (ordered(found), sizes) == (ordered(RUN), SIZES)


# supervision


def read_with_supervision(exports: Path, name: str) -> Any:
    import supervision

    folder = exports / name
    images = str(folder / "images")
    if name.startswith("coco"):
        return supervision.DetectionDataset.from_coco(str(folder), str(folder / "annotations.json"))
    if name.startswith("voc"):
        return supervision.DetectionDataset.from_pascal_voc(images, str(folder / "Annotations"))
    return supervision.DetectionDataset.from_yolo(
        images, str(folder / "labels"), str(folder / "data.yaml")
    )


def boxes_in(dataset: Any, folder: Path) -> Found:
    found: Found = {}
    for path, _, detections in dataset:
        labels = [dataset.classes[number] for number in detections.class_id]
        boxes = detections.xyxy.tolist()
        found[Path(path).relative_to(folder).as_posix()] = list(zip(labels, boxes, strict=True))
    return found


def test_supervision_reads_coco_in_subfolders(exports: Path) -> None:
    dataset = read_with_supervision(exports, "coco")
    assert ordered(boxes_in(dataset, exports / "coco" / "images")) == ordered(RUN)


@pytest.mark.parametrize("name", ["voc flat", "yolo flat"])
def test_supervision_reads_all_pictures_of_one_folder_upright(exports: Path, name: str) -> None:
    dataset = read_with_supervision(exports, name)
    found = boxes_in(dataset, exports / name / "images")
    assert ordered(found) == ordered(in_one_folder(RUN))
    sizes = {Path(path).name: image.shape[1::-1] for path, image, _ in dataset}
    assert sizes == in_one_folder(SIZES)


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_supervision_leaves_out_what_the_readme_says(exports: Path, name: str) -> None:
    dataset = read_with_supervision(exports, name)
    readme = (exports / name / "README.md").read_text(encoding="utf-8")
    left_out = f"{len(RUN) - len(dataset)} of {len(RUN)} (--flat puts all pictures into one folder)"
    assert left_out in readme


# datasets


def data_of_readme(folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Any:
    """What the lines of an export's README load, run in its folder."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.chdir(folder)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    [lines] = [block for block in blocks if "load_dataset" in block]
    names: dict[str, Any] = {}
    exec(lines, names)
    return names["data"]


def boxes_of(row: dict[str, Any]) -> list[tuple[str, list[float]]]:
    boxes = []
    for expression in row["expressions"]:
        boxes += [(expression["text"], box["bbox"]) for box in expression["instances"]]
    return boxes


def test_datasets_reads_records_and_upright_pictures_as_the_readme_says(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Found = {}
    sizes = {}
    for row in data_of_readme(exports / "datasets", monkeypatch, tmp_path):
        found[row["image_path"]] = boxes_of(row)
        sizes[row["image_path"]] = row["image"].size
    assert (ordered(found), sizes) == (ordered(RUN), SIZES)


@pytest.mark.parametrize("name", ["datasets", "webdataset", "messages"])
def test_datasets_reads_each_export_though_one_cache_has_others(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loaded rows of another export, in a folder of the same name."""
    exports = (("a", 1, 4), ("b", 11, 4), ("a", 1, 10))  # the last is the first, grown
    for folder, first, count in exports:
        rows = []
        for number in range(first, first + count):
            mug = {"text": f"mug {number}", "instances": [{"bbox": [1, 2, 30, 40]}]}
            rows.append(record(f"{number}.png", (64, 48), [mug], image_id=f"{number}"))
        run, out = tmp_path / folder / "run", tmp_path / folder / "out"
        draw(run, rows)
        saved(run / "annotations.jsonl", rows)
        succeeds("export", run, "--format", *EXPORTS[name], "-o", out)
        data = data_of_readme(out, monkeypatch, tmp_path / "cache")
        texts = [re.findall(r"mug (\d+)", str(row))[0] for row in data]
        assert texts == [str(number) for number in range(first, first + count)]


def test_datasets_reads_conversations_as_the_readme_says(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of_readme(exports / "messages", monkeypatch, tmp_path)
    for name, row in zip(RUN, data, strict=True):
        [picture] = row["images"]
        found = []
        for label, box in answered_boxes(row["messages"]):
            sides = picture.size * 2
            found.append((label, [n * side / 1000 for n, side in zip(box, sides, strict=True)]))
        wanted = sorted(RUN[name])
        assert [label for label, _ in sorted(found)] == [label for label, _ in wanted]
        for (_, box), (_, of_run) in zip(sorted(found), wanted, strict=True):
            assert box == pytest.approx(of_run, abs=0.05)  # they are thousandths of a side


def answered_boxes(messages: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """What the answers of a conversation for Qwen3-VL say."""
    found = []
    for message in messages:
        if message["role"] == "assistant":
            for part in message["content"]:
                found += [(box["label"], box["bbox_2d"]) for box in json.loads(part["text"])]
    return found


# webdataset


def test_webdataset_reads_shards_as_the_readme_says(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exports / "webdataset")
    readme = Path("README.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"```python\n(import webdataset\n.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(lines, names)
    found = {}
    for sample in names["data"]:
        row = sample["json"]
        picture = sample.get("png") or sample.get("jpg")
        assert picture.size == SIZES[row["image_path"]]
        found[row["image_path"]] = boxes_of(row)
    assert ordered(found) == ordered(RUN)


# datumaro


def read_with_datumaro(folder: Path, format: str) -> Any:
    why = "datumaro isn't installed: the dev extra's pandas and pillow are too new for it"
    datumaro = pytest.importorskip("datumaro", reason=why)
    return datumaro.Dataset.import_from(str(folder), format)


def boxes_of_item(item: Any) -> list[tuple[Any, list[float]]]:
    found = []
    for one in item.annotations:
        if one.type.name == "bbox":
            x, y, width, height = one.get_bbox()
            found.append((one, [x, y, x + width, y + height]))
    return found


def test_datumaro_reads_cvats_boxes_and_phrases_and_opens_its_pictures(exports: Path) -> None:
    """It couldn't find the pictures."""
    found: Found = {}
    sizes = {}
    for item in read_with_datumaro(exports / "cvat", "cvat"):
        name = Path(item.media.path).relative_to(exports / "cvat" / "images").as_posix()
        found[name] = [(one.attributes["phrase"], box) for one, box in boxes_of_item(item)]
        height, width, _ = item.media.data.shape
        sizes[name] = (width, height)
    assert (ordered(found), sizes) == (ordered(RUN), SIZES)


def test_datumaro_reads_yolo_of_one_folder(exports: Path) -> None:
    dataset = read_with_datumaro(exports / "yolo flat", "yolo")
    labels = dataset.get_label_cat_names()
    found: Found = {}
    for item in dataset:
        boxes = [(labels[one.label], box) for one, box in boxes_of_item(item)]
        found[Path(item.media.path).name] = boxes
    assert ordered(found) == ordered(in_one_folder(RUN))
