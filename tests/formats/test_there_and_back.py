"""What other tools wrote comes back from `import` and `export` as it was, but for what was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.formats import read, write
from dataflow_grounding.testing import LoopbackServer
from tests.formats.data import command, draw, hostile, record, succeeds
from tests.support.labelled import Box, Labelled, labelled, region, saved
from tests.support.workplace import Workplace

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
    return saved(folder / "instances.json", COCO)


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
    renamed["category_id"] = 3
    wanted["annotations"] = [moved, renamed, *others]
    added = [box for box in out["annotations"] if box["id"] > 5001]
    assert [box for box in out["annotations"] if box["id"] <= 5001] == wanted["annotations"]
    assert [(box["id"], box["image_id"], box["category_id"]) for box in added] == [
        (5002, 12, 91),
        (5003, 12, 3),
    ]
    assert {*added[1]} == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
    assert out["categories"][:3] == COCO["categories"]
    assert [(one["id"], one["name"]) for one in out["categories"][3:]] == [(91, "plate")]
    assert out["images"] == COCO["images"]


def test_a_second_import_of_coco_has_each_id_once(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    """A box that was added to a phrase is one of that phrase's then."""

    def change(records: Records) -> None:
        records[0]["expressions"][0]["instances"].append({"bbox": [2, 2, 9, 9], "score": None})

    out = back(coco_file(tmp_path), "coco", "annotations.json", change)
    (row, *_) = read(str(out), "coco")
    found = [
        (one["text"], one["expression_id"], len(one["instances"])) for one in row["expressions"]
    ]
    assert found == [("cup", "b#0", 3), ("dog", "b#1", 1)]


def test_coco_of_records_that_are_elsewhere_keeps_what_its_boxes_say(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    """As after a run on what was imported: there is no run.json of the import."""
    back(coco_file(tmp_path), "coco", "annotations.json")
    records = tmp_path / "elsewhere.jsonl"
    (tmp_path / "results" / "annotations.jsonl").rename(records)
    (tmp_path / "results" / "classes.txt").rename(tmp_path / "elsewhere.classes.txt")
    more = ("--images", "reference", "--image-root", tmp_path / "pictures")
    path = tmp_path / "x" / "annotations.json"
    done = succeeds("export", records, "--format", "coco", "-o", path, *more)
    assert "aren't in the list" not in done.err
    assert "export the results folder of the import" in done.out + done.err
    out = json.loads(path.read_text())
    assert out["annotations"] == COCO["annotations"]
    assert out["images"] == COCO["images"]
    assert sorted(one["id"] for one in out["categories"]) == [3, 18]


def reject(records: Records) -> None:
    """A person says of every box that it is wrong."""
    for row in records:
        for expression in row["expressions"]:
            expression |= {"verified": False, "reviewed_by": "ann"}


def test_a_crowd_of_coco_goes_back_without_the_boxes_that_were_rejected(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    """Pictures of which nothing is left at all, as a.png, stay out, as they may show something."""
    out = json.loads(back(coco_file(tmp_path), "coco", "annotations.json", reject).read_text())
    assert out["annotations"] == [box for box in COCO["annotations"] if box.get("iscrowd")]
    assert out["images"] == [image for image in COCO["images"] if image["id"] in (700, 13)]


def test_two_images_of_coco_with_one_file_name_stay_two(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    file = coco_file(tmp_path)
    twins = json.loads(file.read_text())
    twins["images"][1]["file_name"] = "b.png"
    file.write_text(json.dumps(twins))
    out = json.loads(back(file, "coco", "annotations.json").read_text())
    assert out == twins
    done = succeeds("import", file, "--format", "coco", "-o", tmp_path / "again")
    told = "file names of several images, which stay records of their own: 1 (b.png, of the ids"
    assert f"{told} 700 and 12)" in done.out


# CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job>
      <id>9</id>
      <labels>
        <label>
          <name>cup</name>
          <color>#ff0000</color>
          <attributes></attributes>
        </label>
        <label>
          <name>dog</name>
        </label>
      </labels>
    </job>
    <dumped>2024-01-01 00:00:00+00:00</dumped>
  </meta>
  <image id="7" name="b.png" subset="Train" task_id="2" width="64" height="48">
    <polyline label="dog" source="manual" occluded="0" points="1.00,2.00;3.00,4.00;5.00,1.00" z_order="0">
    </polyline>
    <box label="cup" source="semi-auto" occluded="1" xtl="1.00" ytl="2.50" xbr="10.00" ybr="12.00" z_order="3">
      <attribute name="dirty">true</attribute>
    </box>
    <box label="dog" source="manual" occluded="0" xtl="5.00" ytl="2.50" xbr="60.00" ybr="48.20" z_order="0" group_id="4">
    </box>
    <box label="cup" source="manual" occluded="0" xtl="20.00" ytl="2.50" xbr="30.00" ybr="12.00" z_order="0">
      <attribute name="dirty">false</attribute>
    </box>
    <tag label="blurred" source="manual">
    </tag>
  </image>
  <image id="3" name="a.png" width="64" height="48">
    <points label="dog" source="manual" occluded="0" points="1.00,2.00" z_order="0">
    </points>
  </image>
  <image id="4" name="c.png" width="64" height="48">
  </image>
</annotations>
"""


def cvat_file(folder: Path) -> Path:
    return saved(folder / "source.xml", CVAT)


def parts_of(xml: str) -> list[str]:
    """What an XML text says, without the space between its parts."""
    return [part.strip() for part in xml.replace(">", ">\n").splitlines() if part.strip()]


def test_cvat(tmp_path: Path, back: Callable[..., Path]) -> None:
    out = back(cvat_file(tmp_path), "cvat", "annotations.xml")
    assert parts_of(out.read_text()) == parts_of(CVAT)


def test_what_is_changed_of_cvat(tmp_path: Path, back: Callable[..., Path]) -> None:
    """A box is moved, one deleted, one called otherwise; three are added: of a class of the task,
    of a phrase with a box, and of something else, which gets a label of ours.
    """

    def change(records: Records) -> None:
        boxes = boxes_of(records)
        boxes["cup 0"]["bbox"] = [2, 3, 12, 13]
        records[0]["expressions"][0]["instances"][1:] = [{"bbox": [7, 7, 9, 9], "score": None}]
        records[0]["expressions"][1] |= {"text": "cat", "class": "cat"}
        records[2] |= {
            "expressions": [phrase("dog", [1, 1, 9, 9]), phrase("red mug", [2, 2, 9, 9])]
        }

    out = back(cvat_file(tmp_path), "cvat", "annotations.xml", change).read_text()
    wanted = CVAT.replace(
        'xtl="1.00" ytl="2.50" xbr="10.00" ybr="12.00"', 'xtl="2.0" ytl="3.0" xbr="12.0" ybr="13.0"'
    )
    wanted = wanted.replace('<box label="dog"', '<box label="cat"')
    before, _, behind = wanted.partition('    <box label="cup" source="manual"')
    wanted = before + behind.partition("</box>\n")[2]
    here = 'source="manual" occluded="0" xtl="{0}" ytl="{0}" xbr="9.0" ybr="9.0" z_order="0"'
    added = f'<box label="cup" {here.format("7.0")}></box>'
    wanted = wanted.replace("</tag>", f"</tag>{added}")
    assert parts_of(out.partition('<image id="4"')[0]) == parts_of(
        wanted.partition('<image id="4"')[0]
    )
    last = out.partition('<image id="4"')[2]
    assert f'<box label="dog" {here.format("1.0")}></box>' in last
    assert f'<box label="object" {here.format("2.0")}><attribute name="phrase">red mug<' in last


def test_what_ours_wrote_for_cvat(tmp_path: Path, back: Callable[..., Path]) -> None:
    rows = list(hostile())
    draw(tmp_path / "pictures", rows)
    write(rows, "cvat", str(tmp_path / "first.xml"), folders=[str(tmp_path / "pictures")])
    out = back(tmp_path / "first.xml", "cvat", "annotations.xml")
    assert parts_of(out.read_text()) == parts_of((tmp_path / "first.xml").read_text())


def test_shapes_of_cvat_go_back_without_the_boxes_that_were_rejected(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    out = back(cvat_file(tmp_path), "cvat", "annotations.xml", reject).read_text()
    before, _, behind = CVAT.partition("    <box")
    wanted = before + behind.rpartition("</box>")[2]
    assert parts_of(out) == parts_of(wanted)


# Label Studio


def region_at(own_id: str, label: str, x: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": 12.3456789, "width": 20, "height": 33.3, "rotation": 0}
    return region(label, value, id=own_id, **more)


CHOICE = {"id": "c1", "type": "choices", "from_name": "q", "to_name": "photo"}
TASKS: list[dict[str, Any]] = [
    {
        "id": 17,
        "inner_id": 3,
        "file_upload": "x.png",
        "data": {"image": "/data/local-files/?d=a.png", "weather": "rain"},
        "meta": {"batch": 4},
        "annotations": [
            {"id": 70, "was_cancelled": True, "result": [region_at("zz", "cup", 1)]},
            {
                "id": 71,
                "completed_by": 5,
                "lead_time": 1.5,
                "updated_at": "2024-01-01T00:00:00Z",
                "result": [
                    region_at("aB3_x", "cup", 10, origin="manual"),
                    {**CHOICE, "value": {"choices": ["good"]}},
                    region_at("dog-1", "dog", 50),
                    region_at("cup-2", "cup", 70),
                ],
            },
        ],
        "predictions": [{"id": 8, "model_version": "v1", "result": []}],
    },
    {
        "id": 4,
        "data": {"image": "/data/local-files/?d=b.png"},
        "predictions": [{"id": 9, "score": 0.3, "result": [region_at("r", "cup", 5, score=0.3)]}],
    },
]


def tasks_file(folder: Path, tasks: list[dict[str, Any]]) -> Path:
    return saved(folder / "source.json", tasks)


def test_label_studio(tmp_path: Path, back: Callable[..., Path]) -> None:
    out = back(tasks_file(tmp_path, TASKS), "label-studio", "tasks.json")
    assert json.loads(out.read_text()) == TASKS


def test_what_is_changed_of_label_studio(tmp_path: Path, back: Callable[..., Path]) -> None:
    """A box is moved, one deleted, one called otherwise, and one is added as the others are."""

    def change(records: Records) -> None:
        cup, _ = records[0]["expressions"][0]["instances"]
        cup["bbox"] = [16, 12, 32, 24]
        records[0]["expressions"][0]["instances"] = [cup]
        records[0]["expressions"][1] |= {"text": "cat", "class": "cat"}
        records[1]["expressions"].append(phrase("plate", [0, 0, 32, 24]))

    out = json.loads(
        back(tasks_file(tmp_path, TASKS), "label-studio", "tasks.json", change).read_text()
    )
    wanted = json.loads(json.dumps(TASKS))
    moved, choice, renamed, _ = wanted[0]["annotations"][1]["result"]
    moved["value"] |= {"x": 25, "y": 25, "width": 25, "height": 25}
    renamed["value"]["rectanglelabels"] = ["cat"]
    wanted[0]["annotations"][1]["result"] = [moved, choice, renamed]
    added = region_at("p0b0", "plate", 0)
    added["value"] |= {"y": 0, "width": 50, "height": 50}
    wanted[1]["predictions"][0]["result"].append(added)
    assert out == wanted


def test_a_moved_box_of_label_studio_has_its_labels_last(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    """Also after a key that this package doesn't know."""

    def change(records: Records) -> None:
        records[0]["expressions"][0]["instances"][0]["bbox"] = [16, 12, 32, 24]

    box = region_at("r", "cup", 5)
    box["value"]["note"] = "wet"
    task = {**TASKS[0], "annotations": [{"id": 71, "result": [box]}]}
    out = back(tasks_file(tmp_path, [task]), "label-studio", "tasks.json", change)
    (moved,) = json.loads(out.read_text())[0]["annotations"][0]["result"]
    assert list(moved["value"])[-2:] == ["note", "rectanglelabels"]


def test_what_ours_wrote_for_label_studio(tmp_path: Path, back: Callable[..., Path]) -> None:
    """With its texts, places in the caption and relations; a phrase goes with all of them."""
    rows = list(hostile())
    draw(tmp_path / "pictures", rows)
    folders = [str(tmp_path / "pictures")]
    write(rows, "label-studio", str(tmp_path / "first"), folders=folders, images="reference")
    first = tmp_path / "first" / "tasks.json"
    there = json.loads(first.read_text())
    out = back(first, "label-studio", "tasks.json")
    assert json.loads(out.read_text()) == there

    def change(records: Records) -> None:
        del records[0]["expressions"][0]
        records[0]["expressions"].append(phrase("a cow", [1, 1, 9, 9]))

    shutil.rmtree(tmp_path / "results")
    out.unlink()
    (task, *_) = json.loads(back(first, "label-studio", "tasks.json", change).read_text())
    result = task["predictions"][0]["result"]
    assert [part["value"].get("text") for part in result] == ["a dog", None, ["a cow"]]
    assert result[1]["value"]["rectanglelabels"] == ["object"]


# KITTI and YOLO

KITTI = """\
Car 0.50 2 -1.58 5.25 10.5 30 40.0625 1.02 1.64 2.94 3.82 1.29 14.64 -1.6
DontCare -1 -1 -10 1 2 30 40 -1 -1 -1 -1000 -1000 -1000 -10
Pedestrian 0 3 0.1 1 2 3.5 40 1 1 1 1 1 1 0.9
Car 0.00 0 0.00 40 10 50 20 0 0 0 0 0 0 0
"""
YOLO = "1 0.5 0.5 0.25 0.125\n0 0.3 0.3 0.1 0.1\n1 0.123456789 0.4 0.1 0.1\n"


def label_files(folder: Path, format: str, text: str) -> Path:
    """Two label files, of the pictures a and b, and the classes cup, dog and unused."""
    lines = text.splitlines()
    pictures = [Labelled("a.png", lines), Labelled("b.png", [lines[1]])]
    classes = ["cup", "dog", "unused"]
    return labelled(folder / "source", format, pictures, classes=classes, drawn=False)


def test_kitti(tmp_path: Path, back: Callable[..., Path]) -> None:
    out = back(label_files(tmp_path, "kitti", KITTI), "kitti", "out")
    assert (out / "labels" / "a.txt").read_text() == KITTI
    assert (out / "labels" / "b.txt").read_text() == KITTI.splitlines()[1] + "\n"


def test_what_is_changed_of_kitti(tmp_path: Path, back: Callable[..., Path]) -> None:
    def change(records: Records) -> None:
        car, _ = records[0]["expressions"][0]["instances"]
        car["bbox"] = [1, 2, 30, 40]
        records[0]["expressions"][0]["instances"] = [car]
        records[0]["expressions"][1] |= {"text": "Cyclist", "class": "Cyclist"}
        records[0]["expressions"].append(phrase("tram", [1, 1, 9, 9]))

    out = back(label_files(tmp_path, "kitti", KITTI), "kitti", "out", change)
    wanted = KITTI.replace("5.25 10.5 30 40.0625", "1.000 2.000 30.000 40.000")
    wanted = wanted.replace("Pedestrian", "Cyclist").rpartition("Car")[0]
    new = "tram 0.00 0 0.00 1.000 1.000 9.000 9.000 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n"
    assert (out / "labels" / "a.txt").read_text() == wanted + new


def test_dont_care_lines_of_kitti_go_back_without_the_boxes_that_were_rejected(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    out = back(label_files(tmp_path, "kitti", KITTI), "kitti", "out", reject)
    assert (out / "labels" / "a.txt").read_text() == KITTI.splitlines()[1] + "\n"


def test_yolo(tmp_path: Path, back: Callable[..., Path]) -> None:
    out = back(label_files(tmp_path, "yolo", YOLO), "yolo", "out")
    assert (out / "labels" / "a.txt").read_text() == YOLO
    assert (out / "data.yaml").read_text().endswith('0: "cup"\n  1: "dog"\n  2: "unused"\n')


@pytest.mark.slow
def test_what_a_run_has_verified_goes_back(tmp_path: Path) -> None:
    """The run reads the COCO file itself, and its results are exported as COCO."""
    workplace = Workplace(tmp_path)
    for image in COCO["images"]:
        workplace.picture(image["file_name"])
    with LoopbackServer() as server:
        done = workplace.run(
            **{
                "vlm.openai.base_url": server.base_url,
                "data.proposals": "coco",
                "data.input_jsonl": str(coco_file(tmp_path)),
            }
        )
    assert done.code == 0, done
    out = tmp_path / "out" / "annotations.json"
    more = ("--images", "reference", "--image-root", tmp_path)
    succeeds("export", workplace.results, "--format", "coco", "-o", out, *more)
    found = json.loads(out.read_text())
    assert found["images"] == COCO["images"]
    there = {box["id"]: box for box in COCO["annotations"]}
    verified = [box.pop("verified", None) for box in found["annotations"]]
    assert found["annotations"] == [there[box["id"]] for box in found["annotations"]]
    assert True in verified


def test_what_ours_wrote_for_coco(tmp_path: Path, back: Callable[..., Path]) -> None:
    rows = list(hostile())
    draw(tmp_path / "pictures", rows)
    first = tmp_path / "first" / "annotations.json"
    write(rows, "coco", str(first), folders=[str(tmp_path / "pictures")])
    out = back(first, "coco", "annotations.json")
    assert json.loads(out.read_text()) == json.loads(first.read_text())


# What can't be right


@pytest.mark.parametrize(
    ("format", "column"),
    [
        ("label-studio", {"place": []}),
        ("cvat", {"image": 7}),
        ("coco", {"categories": ["cup"]}),
        ("coco", {"items": [7]}),
        ("dota", {"items": ["cup"]}),
        ("voc", {"root": {"verified": 1}}),
    ],
)
def test_a_column_that_somebody_has_changed_is_told(
    format: str, column: dict[str, Any], tmp_path: Path
) -> None:
    row = record("a.png", (64, 48), [{"text": "cup", "instances": [{"bbox": [1, 2, 30, 40]}]}])
    draw(tmp_path / "pictures", [row])
    source, results = tmp_path / "source", tmp_path / "results"
    write([row], format, str(source), folders=[str(tmp_path / "pictures")])
    succeeds("import", source, "--format", format, "-o", results)
    file = results / "annotations.jsonl"
    changed = json.loads(file.read_text())
    changed["imported"] |= column
    file.write_text(json.dumps(changed))
    done = command("export", results, "--format", format, "-o", tmp_path / "out")
    why = f"its column 'imported' isn't as the import of {format} wrote it"
    assert (done.code, done.err) == (
        2,
        f"Error: images/a.png: {why}: leave the column out, or import again\n",
    )
    assert not (tmp_path / "out").exists()


def told_on_import(tmp_path: Path, source: Path, format: str) -> list[str]:
    """The lines of an import, each of which accepts all that there is."""
    folder = tmp_path / f"imported {format}"
    root = ("--image-root", tmp_path / "pictures")
    done = succeeds("import", source, "--format", format, "-o", folder, *root)
    assert "left out" not in done.out
    _, *lines = done.out.splitlines()
    return lines


@pytest.mark.parametrize(("offset", "edge"), [(0, -5), (1, -6)])
def test_edges_of_voc_before_the_picture_are_told(offset: int, edge: int, tmp_path: Path) -> None:
    """They were put to 0, so that a box outside "ends before it begins"; 0 itself stays 0 in a file
    that counts from 1.
    """
    found = [Box("cup", -5, 0, 20, 20), Box("cup", -50, 2, -20, 9)]
    source = labelled(tmp_path / "source", "voc", [Labelled("a.png", found)])
    arguments = ("import", source, "--format", "voc", "--set", f"offset={offset}")
    done = succeeds(*arguments, "-o", tmp_path / "back", "--json")
    counts = [line.partition(",")[0] for line in json.loads(done.out)["remarks"]]
    assert counts == ["boxes that reach beyond their picture", "boxes outside of their picture"]
    row = json.loads((tmp_path / "back" / "annotations.jsonl").read_text("utf-8"))
    (first, second) = row["expressions"][0]["instances"]
    assert first["bbox"] == [edge, 0, 20, 20]
    assert second["bbox"] == [-50 - offset, 2 - offset, -20, 9]


@pytest.mark.parametrize("format", ["coco", "cvat", "labelme", "voc"])
def test_shares_of_sides_are_not_taken_for_pixels(format: str, tmp_path: Path) -> None:
    """They were a box of 0.3 px, and a record's boxes have 1 px each way at least."""
    found = [Box("cup", 0.125, 0.25, 0.5, 0.75), Box("cup", 1, 2, 30, 40)]
    source = labelled(tmp_path / "source", format, [Labelled("a.png", found)])
    arguments = ("import", source, "--format", format)
    done = command(*arguments, "-o", tmp_path / "back")
    why = "the box [0.125, 0.25, 0.5, 0.75] is less than a pixel: are its numbers shares of the sides?"
    assert (done.code, why in done.out + done.err) == (1, True)
    row = json.loads((tmp_path / "back" / "annotations.jsonl").read_text("utf-8"))
    assert [box["bbox"] for box in row["expressions"][0]["instances"]] == [[1, 2, 30, 40]]
    assert row["skipped_entries"] == 1


@pytest.mark.parametrize(
    "corners", [(0, 0, 1, 1), (0, 0, 64, 0.5), (5, 5, 5.25, 5.25), (0.5, 0.5, 30, 40)]
)
def test_a_small_box_that_is_not_in_the_first_pixel_is_kept(
    corners: tuple[float, ...], tmp_path: Path
) -> None:
    path = labelled(tmp_path, "voc", [Labelled("a.png", [Box("cup", *corners)])])
    (row,) = read(str(path), "voc")
    assert [box["bbox"] for box in row["expressions"][0]["instances"]] == [[*corners]]


def test_boxes_outside_and_other_sizes_of_coco_are_told(tmp_path: Path, pictures: Path) -> None:
    of_a = [{"image_id": 2, "bbox": box} for box in ([-9, 1, 9, 5], [9, 40, 9, 9])]
    labels = [
        Labelled("gone.png", [{"bbox": [64, 1, 5, 5]}, {"bbox": [60, 1, 4.5, 5]}]),
        {"id": 2, "file_name": "a.png"},  # of no stated size
        Labelled("b.png", [{"bbox": [600, 400, 9, 9]}, *of_a], (640, 480)),
    ]
    file = labelled(tmp_path, "coco", labels, drawn=False)
    assert told_on_import(tmp_path, file, "coco") == [
        "boxes outside of their picture, which an export leaves out: 2, the first is 'cup' [64, 1,"
        " 69, 6] in gone.png (64 x 48 px)",
        "boxes that reach beyond their picture, which an export cuts: 1, the first is 'cup' [9, 40,"
        " 18, 49] in a.png (64 x 48 px)",
        "pictures of another size than is stated, which no export takes: 1, the first is b.png"
        " (640 x 480 px stated, 64 x 48 px found)",
        f"no picture in {pictures} for 1 of 3, the first is gone.png: name the right folder as"
        " --image-root",
    ]


def test_percents_above_100_of_label_studio_are_told(tmp_path: Path, pictures: Path) -> None:
    tasks = json.loads(json.dumps(TASKS))
    result = tasks[1]["predictions"][0]["result"]
    result.append(region_at("far", "cup", 150))
    result[0]["value"]["width"] = 101
    assert told_on_import(tmp_path, tasks_file(tmp_path, tasks[1:]), "label-studio") == [
        "boxes that reach beyond their picture, which an export cuts: 1, the first is 'cup' [3.2,"
        " 5.925926, 67.84, 21.909926] in b.png (64 x 48 px)",
        "boxes outside of their picture, which an export leaves out: 1, the first is 'cup' [96.0,"
        " 5.925926, 108.8, 21.909926] in b.png (64 x 48 px)",
    ]


@pytest.mark.parametrize("format", ["cvat", "voc", "label-studio"])
def test_a_size_that_is_not_the_pictures_is_told(
    tmp_path: Path, pictures: Path, format: str
) -> None:
    box = {"text": "cup", "instances": [{"bbox": [1, 2, 30, 40], "score": None}]}
    rows = [record("a.png", (640, 480), [box])]
    draw(tmp_path / "large", rows)
    folders = [str(tmp_path / "large")]
    write(rows, format, str(tmp_path / "out"), folders=folders, images="reference")
    assert told_on_import(tmp_path, tmp_path / "out", format) == [
        "pictures of another size than is stated, which no export takes: 1, the first is a.png"
        " (640 x 480 px stated, 64 x 48 px found)"
    ]


# What comes back in silence as it was, or is said


def yolo_set(folder: Path, names: str, **labels: str) -> Path:
    """A data set of pictures that aren't alike, with these labels."""
    pictures = [Labelled(f"{name}.png", text.splitlines()) for name, text in labels.items()]
    labelled(folder, "yolo", pictures)
    for name in labels:
        PIL.Image.effect_noise((64, 48), 90).convert("RGB").save(folder / "images" / f"{name}.png")
    return saved(folder / "data.yaml", names).parent


def yolo_back(folder: Path, out: Path) -> tuple[str, str, str]:
    """What the import and the export say, data.yaml from `names` on, and the labels."""
    back = folder.parent / "back"
    done = succeeds("import", folder, "--format", "yolo", "-o", back)
    more = succeeds("export", back, "--format", "yolo", "-o", out, "--images", "reference")
    _, _, names = (out / "data.yaml").read_text().partition("names:\n")
    labels = [path.read_text() for path in sorted(out.rglob("*.txt"))]
    return done.out + done.err + more.out + more.err, names, "".join(labels)


@pytest.mark.parametrize(
    ("names", "back_names", "shared"),
    [
        ("names: {0: cat, 1: cat}", '  0: "cat"\n  1: "cat"\n', "'cat' of 0 and 1"),
        ("names: [Cat, cat]", '  0: "Cat"\n  1: "cat"\n', "'cat' of 0 and 1"),
        ("names: [plane/jet, dog]", '  0: "plane/jet"\n  1: "dog"\n', ""),
        ("names: [dog, cat, '']", '  0: "dog"\n  1: "cat"\n  2: ""\n', ""),
    ],
)
def test_classes_of_yolo_keep_their_numbers_and_names(
    names: str, back_names: str, shared: str, tmp_path: Path
) -> None:
    label = "1 0.2 0.2 0.1 0.1\n0 0.5 0.5 0.2 0.4\n1 0.7 0.7 0.1 0.123456789012\n"
    folder = yolo_set(tmp_path / "ds", names, a=label)
    said, names_there, labels = yolo_back(folder, tmp_path / "out")
    assert (names_there, labels) == (back_names, label)
    assert ("only yolo tells apart: 1 (" in said, shared in said) == (bool(shared), True)


def test_a_new_box_of_a_shared_name_is_of_its_first_class(
    tmp_path: Path, back: Callable[..., Path], pictures: Path
) -> None:
    folder = yolo_set(tmp_path / "ds", "names: {0: dog, 1: cat, 2: cat}", a="2 0.5 0.5 0.2 0.4\n")

    def change(records: Records) -> None:
        records[0]["expressions"].append(phrase("cat", [1, 1, 9, 9]))
        records[0]["expressions"].append(phrase("owl", [2, 2, 9, 9]))

    shutil.rmtree(pictures)
    shutil.copytree(folder / "images", pictures / "images")
    out = back(folder, "yolo", "out", change)
    (file,) = out.rglob("*.txt")
    lines = file.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1", "3"]
    assert "3: owl" in (out / "data.yaml").read_text().replace('"', "")


def test_classes_of_one_name_stay_two_in_the_parts_of_a_split(tmp_path: Path) -> None:
    labels = dict.fromkeys("abcdef", "1 0.2 0.2 0.1 0.1\n")
    folder = yolo_set(tmp_path / "ds", "names: {0: cat, 1: cat}", **labels)
    back, parts, out = (tmp_path / name for name in ("back", "parts", "out"))
    succeeds("import", folder, "--format", "yolo", "-o", back)
    succeeds("split", back, "-o", parts, "--ratios", "0.5/0.5")
    succeeds("export", parts, "--format", "yolo", "-o", out, "--images", "reference")
    assert {path.read_text() for path in out.rglob("*.txt")} == {"1 0.2 0.2 0.1 0.1\n"}


def test_boxes_whose_class_gets_another_number_are_counted(tmp_path: Path) -> None:
    """As where somebody writes another list of classes."""
    folder = yolo_set(tmp_path / "ds", "names: [cat, dog]", a="0 0.2 0.2 0.1 0.1\n")
    succeeds("import", folder, "--format", "yolo", "-o", tmp_path / "back")
    (tmp_path / "back" / "classes.txt").write_text("dog\ncat\n")
    export = ("export", tmp_path / "back", "--format", "yolo", "-o", tmp_path / "out")
    done = succeeds(*export, "--images", "reference")
    told = "boxes whose class has another number than in the data set that they came from: 1"
    assert told in done.out + done.err


def test_keypoints_of_yolo_are_counted(tmp_path: Path) -> None:
    line = "0 0.5 0.123456789012 0.2 0.1"
    names = "kpt_shape: [1, 3]\nnames: [cat]"
    folder = yolo_set(tmp_path / "ds", names, a=f"{line} 0.5 0.5 2\n")
    said, _, labels = yolo_back(folder, tmp_path / "out")
    assert ("not read as they are: keypoints of boxes (1)" in said, labels) == (True, f"{line}\n")


EQUAL = {
    "yolo": "0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n",
    "kitti": "Car 0 0 0 10 20 40 46 0 0 0 0 0 0 0\nCar 0.5 2 0 10 20 40 46 0 0 0 0 0 0 0\n",
}


@pytest.mark.parametrize("format", EQUAL)
def test_equal_boxes_of_a_label_file_stay_two(format: str, tmp_path: Path) -> None:
    folder = yolo_set(tmp_path / "ds", "names: [cat]", a=EQUAL[format])
    if format == "kitti":
        (folder / "data.yaml").unlink()
    succeeds("import", folder, "--format", format, "-o", tmp_path / "back")
    export = ("export", tmp_path / "back", "--format", format, "-o", tmp_path / "out")
    done = succeeds(*export, "--images", "reference")
    (file,) = (tmp_path / "out").rglob("*.txt")
    assert file.read_text() == EQUAL[format]
    assert "written once" not in done.out + done.err


@pytest.mark.parametrize("second", [3, 90])  # the same category, another one of its name
def test_equal_boxes_of_coco_stay_two(
    second: int, tmp_path: Path, back: Callable[..., Path]
) -> None:
    data = json.loads(json.dumps(COCO))
    data["categories"][2]["name"] = "cup"
    box = {"image_id": 12, "bbox": [1, 2, 10, 11], "area": 110, "iscrowd": 0}
    data["annotations"] += [{**box, "id": 1, "category_id": 3}]
    data["annotations"] += [{**box, "id": 2, "category_id": second}]
    (tmp_path / "x.json").write_text(json.dumps(data))
    out = json.loads(back(tmp_path / "x.json", "coco", "annotations.json").read_text())
    assert [one for one in out["annotations"] if one["id"] < 9] == data["annotations"][-2:]
    assert len(out["annotations"]) == len(data["annotations"])


def test_an_equal_box_that_somebody_added_is_written_once(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    def change(records: Records) -> None:
        records[1]["expressions"].append(phrase("dog", [0, 0, 64, 48.5]))

    out = json.loads(back(coco_file(tmp_path), "coco", "annotations.json", change).read_text())
    assert out == COCO


def test_ids_of_coco_that_are_decimals_stay_so(tmp_path: Path, back: Callable[..., Path]) -> None:
    """As tables of columns with gaps write them."""
    data = {**COCO, "images": [{**COCO["images"][1], "id": 1.0}]}
    data["annotations"] = [{**COCO["annotations"][4], "image_id": 1.0}]
    (tmp_path / "x.json").write_text(json.dumps(data))
    out = back(tmp_path / "x.json", "coco", "annotations.json").read_text()
    assert ('"id": 1.0' in out, '"image_id": 1.0' in out) == (True, True)


def test_ids_of_coco_that_begin_with_0_come_back(tmp_path: Path, back: Callable[..., Path]) -> None:
    """As data sets have them that were made of YOLO's."""
    classes = ["dog", "cup", "tree"]
    pictures = [
        Labelled(f"{name}.png", [Box(label, 1, 2, 11, 13)])
        for name, label in zip("abc", classes, strict=True)
    ]
    file = labelled(tmp_path / "source", "coco", pictures, classes=classes, drawn=False)
    data = json.loads(file.read_text())
    for entries in data.values():
        for entry in entries:
            entry |= {
                key: entry[key] - 1 for key in ("id", "image_id", "category_id") if key in entry
            }
    saved(file, data)
    out = json.loads(back(file, "coco", "annotations.json").read_text())
    for part, entries in data.items():
        assert out[part] == entries


def test_keys_that_are_not_cocos_and_shared_names_are_said(tmp_path: Path) -> None:
    data = {**COCO, "type": "instances", "videos": [{"id": 1}]}
    data["categories"] = [*COCO["categories"], {"id": 4, "name": "Cup"}]
    (tmp_path / "x.json").write_text(json.dumps(data))
    done = succeeds("import", tmp_path / "x.json", "--format", "coco", "-o", tmp_path / "back")
    said = done.out + done.err
    assert "keys of the file that aren't COCO's, which are left out: 2 (type; videos)" in said
    assert "only coco tells apart: 1 ('cup' of 3 and 4)" in said


def test_the_version_of_cvat_comes_back_and_other_elements_are_counted(
    tmp_path: Path, back: Callable[..., Path]
) -> None:
    file = tmp_path / "x.xml"
    other = CVAT.replace("<version>1.1<", "<version>1.0<")
    file.write_text(other.replace("</annotations>", "<links/></annotations>"))
    out = back(file, "cvat", "annotations.xml").read_text()
    assert "<version>1.0</version>" in out
    done = succeeds("import", file, "--format", "cvat", "-o", tmp_path / "again")
    assert "elements <links> (1)" in done.out + done.err
