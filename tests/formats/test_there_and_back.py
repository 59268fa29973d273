"""What other tools wrote comes back from `import` and `export` as it was, but for what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.formats import read, write
from dataflow_grounding.testing import LoopbackServer
from tests.formats.data import (
    boxes_of,
    command,
    draw,
    facts_of,
    hostile,
    parts_of,
    record,
    succeeds,
)
from tests.formats.place import Change, Place, Records
from tests.support.labelled import Box, Labelled, labelled, region, saved
from tests.support.workplace import Workplace

IN_PLACE = ("--images", "reference")
FILES = {"coco": "annotations.json", "cvat": "annotations.xml", "label-studio": "tasks.json"}


def back(place: Place, source: Any, format: str, change: Change = len) -> Any:
    """What the file says that comes of a data set which is imported, changed, and exported."""
    if not isinstance(source, Path):
        source = saved(place.folder / "source" / FILES[format], source)
    place.out = place.folder / FILES[format]
    text = place.back(source, format, change, *IN_PLACE).read_text()
    return json.loads(text) if place.out.suffix == ".json" else text


def phrase(text: str, *boxes: list[float]) -> dict[str, Any]:
    found = [{"bbox": box, "score": None} for box in boxes]
    new = {"text": text, "class": text, "expression_id": f"new {text}"}
    return {**new, "status": "grounded", "instances": found}


def reject(records: Records) -> None:
    """A person says of every box that it is wrong."""
    for row in records:
        for expression in row["expressions"]:
            expression |= {"verified": False, "reviewed_by": "ann"}


def written_by_ours(folder: Path, format: str) -> Path:
    draw(folder / "pictures", hostile())
    first = folder / "first" / FILES[format]
    write(list(hostile()), format, str(first), folders=[str(folder / "pictures")])
    return first


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
def test_what_ours_wrote(format: str, place: Place) -> None:
    first = written_by_ours(place.folder, format)
    there = first.read_text()
    assert back(place, first, format) == (there if format == "cvat" else json.loads(there))


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


TWINS = json.loads(json.dumps(COCO))
TWINS["images"][1]["file_name"] = "b.png"
CUPS = [{**one, "name": one["name"].replace("unused", "cup")} for one in COCO["categories"]]
EQUAL = {"image_id": 12, "bbox": [1, 2, 10, 11], "area": 110, "iscrowd": 0}
SETS: dict[str, dict[str, Any]] = {
    "two images of one file name": TWINS,
    "ids that are decimals, as tables of columns with gaps write them": {
        **COCO,
        "images": [{**COCO["images"][1], "id": 1.0}],
        "annotations": [{**COCO["annotations"][4], "image_id": 1.0}],
    },
    "ids from 0, as data sets have them that were made of YOLO's": {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": 64, "height": 48}
            for number, name in enumerate("abc")
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": number, "bbox": [1, 2, 10, 11]}
            for number in range(3)
        ],
        "categories": [{"id": number, "name": f"thing {number}"} for number in range(3)],
    },
}
for second in (3, 90):
    both = [{**EQUAL, "id": 1, "category_id": 3}, {**EQUAL, "id": 2, "category_id": second}]
    annotations = [*both, *COCO["annotations"]]
    SETS[f"equal boxes of the categories 3 and {second}, both called cup"] = {
        **COCO,
        "categories": CUPS,
        "annotations": annotations,
    }


def text_of(data: dict[str, Any]) -> str:
    """What COCO says, in which 1 and 1.0 differ."""
    annotations = sorted(data["annotations"], key=lambda one: int(one["id"]))
    return json.dumps({**data, "annotations": annotations}, sort_keys=True)


@pytest.mark.parametrize("name", SETS)
def test_data_sets_of_coco_come_back_as_they_were(name: str, place: Place) -> None:
    data = SETS[name]
    out = back(place, data, "coco")
    assert text_of({part: out[part] for part in data}) == text_of(data)


def test_images_of_coco_with_one_file_name_are_told(place: Place) -> None:
    remarks = place.imported(saved(place.folder / "x.json", TWINS), "coco")["remarks"]
    said = "file names of several images, which stay records of their own: 1 (b.png, of the ids"
    assert f"{said} 700 and 12)" in remarks


def test_coco_in_a_folder_names_the_pictures_there(place: Place) -> None:
    place.back(saved(place.folder / "x.json", COCO), "coco")
    out = json.loads((place.out / "annotations.json").read_text())
    for image in out["images"]:
        image["file_name"] = image["file_name"].removeprefix("images/")
    assert out == COCO


def test_what_is_changed_of_coco(place: Place) -> None:
    """A box is moved, one deleted, one called otherwise, two are added, one of a new class."""

    def change(records: Records) -> None:
        cup, _ = records[0]["expressions"][0]["instances"]
        cup["bbox"] = [2, 3, 12, 13]
        records[0]["expressions"][0]["instances"] = [cup]
        records[0]["expressions"][1] |= {"text": "cup", "class": "cup"}
        records[1]["expressions"] += [phrase("plate", [1, 1, 9, 9]), phrase("cup", [2, 2, 9, 9])]

    out = back(place, COCO, "coco", change)
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


def test_a_second_import_of_coco_has_each_id_once(place: Place) -> None:
    """A box that was added to a phrase is one of that phrase's then."""

    def change(records: Records) -> None:
        records[0]["expressions"][0]["instances"].append({"bbox": [2, 2, 9, 9], "score": None})

    back(place, COCO, "coco", change)
    (row, *_) = place.rows("coco")
    found = {one["expression_id"]: len(one["instances"]) for one in row["expressions"]}
    assert found == {"b#0": 3, "b#1": 1}


def test_coco_of_records_that_are_elsewhere_keeps_what_its_boxes_say(place: Place) -> None:
    """As after a run on what was imported: there is no run.json of the import."""
    place.imported(saved(place.folder / "x.json", COCO), "coco")
    records = place.folder / "elsewhere.jsonl"
    (place.results / "annotations.jsonl").rename(records)
    (place.results / "classes.txt").rename(place.folder / "elsewhere.classes.txt")
    place.results = records
    remarks = " ".join(place.exported("coco", *IN_PLACE)["remarks"])
    assert "aren't in the list" not in remarks
    assert "export the results folder of the import" in remarks
    out = json.loads((place.out / "annotations.json").read_text())
    assert (out["annotations"], out["images"]) == (COCO["annotations"], COCO["images"])
    assert sorted(one["id"] for one in out["categories"]) == [3, 18]


def test_a_crowd_of_coco_goes_back_without_the_boxes_that_were_rejected(place: Place) -> None:
    """Pictures of which nothing is left at all, as a.png, stay out, as they may show something."""
    out = back(place, COCO, "coco", reject)
    assert out["annotations"] == [box for box in COCO["annotations"] if box.get("iscrowd")]
    assert out["images"] == [image for image in COCO["images"] if image["id"] in (700, 13)]


def test_an_equal_box_that_somebody_added_is_written_once(place: Place) -> None:
    def change(records: Records) -> None:
        records[1]["expressions"].append(phrase("dog", [0, 0, 64, 48.5]))

    assert back(place, COCO, "coco", change) == COCO


def test_keys_that_are_not_cocos_and_shared_names_are_told(place: Place) -> None:
    data = {**COCO, "type": "instances", "videos": [{"id": 1}]}
    data["categories"] = [*COCO["categories"], {"id": 4, "name": "Cup"}]
    remarks = " ".join(place.imported(saved(place.folder / "x.json", data), "coco")["remarks"])
    assert "keys of the file that aren't COCO's, which are left out: 2 (type; videos)" in remarks
    assert "only coco tells apart: 1 ('cup' of 3 and 4)" in remarks


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


def test_what_is_changed_of_cvat(place: Place) -> None:
    """A box is moved, one deleted, one called otherwise; three are added: of a class of the task,
    of a phrase with a box, and of something else, which gets a label of ours.
    """

    def change(records: Records) -> None:
        cup, dog = records[0]["expressions"]
        cup["instances"][0]["bbox"] = [2, 3, 12, 13]
        cup["instances"][1:] = [{"bbox": [7, 7, 9, 9], "score": None}]
        dog |= {"text": "cat", "class": "cat"}
        records[2] |= {
            "expressions": [phrase("dog", [1, 1, 9, 9]), phrase("red mug", [2, 2, 9, 9])]
        }

    out = back(place, CVAT, "cvat", change)
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


def test_shapes_of_cvat_go_back_without_the_boxes_that_were_rejected(place: Place) -> None:
    out = back(place, CVAT, "cvat", reject)
    before, _, behind = CVAT.partition("    <box")
    assert parts_of(out) == parts_of(before + behind.rpartition("</box>")[2])


def test_the_version_of_cvat_comes_back_and_other_elements_are_counted(place: Place) -> None:
    other = CVAT.replace("<version>1.1<", "<version>1.0<")
    other = other.replace("</annotations>", "<links/></annotations>")
    left_out = place.imported(saved(place.folder / "x.xml", other), "cvat")["left_out"]
    assert left_out["elements <links>"] == 1
    place.exported("cvat")
    assert "<version>1.0</version>" in (place.out / "annotations.xml").read_text()


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


def test_what_is_changed_of_label_studio(place: Place) -> None:
    """A box is moved, one deleted, one called otherwise, and one is added as the others are."""

    def change(records: Records) -> None:
        cup, _ = records[0]["expressions"][0]["instances"]
        cup["bbox"] = [16, 12, 32, 24]
        records[0]["expressions"][0]["instances"] = [cup]
        records[0]["expressions"][1] |= {"text": "cat", "class": "cat"}
        records[1]["expressions"].append(phrase("plate", [0, 0, 32, 24]))

    out = back(place, TASKS, "label-studio", change)
    wanted = json.loads(json.dumps(TASKS))
    moved, choice, renamed, _ = wanted[0]["annotations"][1]["result"]
    moved["value"] |= {"x": 25, "y": 25, "width": 25, "height": 25}
    renamed["value"]["rectanglelabels"] = ["cat"]
    wanted[0]["annotations"][1]["result"] = [moved, choice, renamed]
    added = region_at("p0b0", "plate", 0)
    added["value"] |= {"y": 0, "width": 50, "height": 50}
    wanted[1]["predictions"][0]["result"].append(added)
    assert out == wanted


def test_a_moved_box_of_label_studio_has_its_labels_last(place: Place) -> None:
    """Also after a key that this package doesn't know."""

    def change(records: Records) -> None:
        records[0]["expressions"][0]["instances"][0]["bbox"] = [16, 12, 32, 24]

    box = region_at("r", "cup", 5)
    box["value"]["note"] = "wet"
    task = {**TASKS[0], "annotations": [{"id": 71, "result": [box]}]}
    (moved,) = back(place, [task], "label-studio", change)[0]["annotations"][0]["result"]
    assert list(moved["value"])[-2:] == ["note", "rectanglelabels"]


@pytest.mark.slow
def test_a_phrase_of_label_studio_goes_with_all_that_ours_wrote_of_it(place: Place) -> None:
    """Its texts, places in the caption and relations."""

    def change(records: Records) -> None:
        del records[0]["expressions"][0]
        records[0]["expressions"].append(phrase("a cow", [1, 1, 9, 9]))

    first = written_by_ours(place.folder, "label-studio")
    (task, *_) = back(place, first, "label-studio", change)
    result = task["predictions"][0]["result"]
    assert [part["value"].get("text") for part in result] == [["a dog"], None, ["a cow"]]
    assert result[1]["value"]["rectanglelabels"] == ["object"]


@pytest.mark.slow
def test_what_a_run_has_verified_goes_back(tmp_path: Path) -> None:
    """The run reads the COCO file itself, and its results are exported as COCO."""
    file, out = saved(tmp_path / "x.json", COCO), tmp_path / "out" / "annotations.json"
    with LoopbackServer() as server:
        given = {"data.proposals": "coco", "data.input_jsonl": str(file)}
        workplace = Workplace(tmp_path, server.base_url, **given)
        for image in COCO["images"]:
            workplace.picture(image["file_name"])
        done = workplace.run()
    assert done.code == 0, done
    export = ("export", workplace.results, "--format", "coco", "-o", out, *IN_PLACE)
    succeeds(*export, "--image-root", tmp_path)
    found = json.loads(out.read_text())
    assert found["images"] == COCO["images"]
    there = {box["id"]: box for box in COCO["annotations"]}
    verified = [box.pop("verified", None) for box in found["annotations"]]
    assert found["annotations"] == [there[box["id"]] for box in found["annotations"]]
    assert True in verified


# What can't be right


@pytest.mark.parametrize(
    ("format", "column"),
    [
        ("label-studio", {"place": []}),
        ("cvat", {"image": 7}),
        ("coco", {"categories": ["cup"]}),
        ("coco", {"items": [7]}),
    ],
)
def test_a_column_that_is_changed_is_told(
    format: str, column: dict[str, Any], place: Place
) -> None:
    cup = {"text": "cup", "instances": [{"bbox": [1, 2, 30, 40]}]}
    place.written(record("a.png", (64, 48), [cup]), format=format)
    source = place.out.rename(place.folder / "source")
    succeeds("import", source, "--format", format, "-o", place.results)
    [changed] = place.records()
    changed["imported"] |= column
    place.change(changed)
    done = command("export", place.results, "--format", format, "-o", place.out)
    why = f"its column 'imported' isn't as the import of {format} wrote it"
    said = f"Error: images/a.png: {why}: leave the column out, or import again\n"
    assert (done.code, done.err) == (2, said)
    assert not place.out.exists()


@pytest.mark.parametrize(("offset", "edge"), [(0, -5), (1, -6)])
def test_edges_of_voc_before_the_picture_are_told(offset: int, edge: int, place: Place) -> None:
    """They were put to 0, so that a box outside "ends before it begins"; 0 itself stays 0 in a file
    that counts from 1.
    """
    found = [Box("cup", -5, 0, 20, 20), Box("cup", -50, 2, -20, 9)]
    source = labelled(place.folder / "source", "voc", [Labelled("a.png", found)])
    arguments = ("import", source, "--format", "voc", "--set", f"offset={offset}")
    remarks = facts_of(*arguments, "-o", place.results)["remarks"]
    counts = [line.partition(",")[0] for line in remarks]
    assert counts == ["boxes that reach beyond their picture", "boxes outside of their picture"]
    [row] = place.records()
    assert boxes_of(row) == {"cup": [[edge, 0, 20, 20], [-50 - offset, 2 - offset, -20, 9]]}


def test_shares_of_sides_are_not_taken_for_pixels(place: Place) -> None:
    """They were a box of 0.3 px, and a record's boxes have 1 px each way at least."""
    found = [Box("cup", 0.125, 0.25, 0.5, 0.75), Box("cup", 1, 2, 30, 40)]
    pictures = [Labelled("a.png", found), Labelled("b.png", [found[1]])]
    source = labelled(place.folder / "source", "cvat", pictures)
    [entry] = place.imported(source, "cvat", 1)["bad"]["entries"]
    why = "box [0.125, 0.25, 0.5, 0.75] is less than a pixel: are its numbers shares of the sides?"
    assert why in entry
    [row] = place.records()
    assert row["image_path"] == "b.png"


@pytest.mark.parametrize(
    "corners", [(0, 0, 1, 1), (0, 0, 64, 0.5), (5, 5, 5.25, 5.25), (0.5, 0.5, 30, 40)]
)
def test_a_small_box_that_is_no_share_is_kept(corners: tuple[float, ...], tmp_path: Path) -> None:
    path = labelled(tmp_path, "voc", [Labelled("a.png", [Box("cup", *corners)])])
    (row,) = read(str(path), "voc")
    assert boxes_of(row) == {"cup": [[*corners]]}


def test_boxes_outside_and_other_sizes_of_coco_are_told(place: Place) -> None:
    of_a = [{"image_id": 2, "bbox": box} for box in ([-9, 1, 9, 5], [9, 40, 9, 9])]
    labels = [
        Labelled("gone.png", [{"bbox": [64, 1, 5, 5]}, {"bbox": [60, 1, 4.5, 5]}]),
        {"id": 2, "file_name": "a.png"},  # of no stated size
        Labelled("b.png", [{"bbox": [600, 400, 9, 9]}, *of_a], (640, 480)),
    ]
    source = labelled(place.folder, "coco", labels, drawn=False)
    assert place.imported(source, "coco")["remarks"] == [
        "boxes outside of their picture, which an export leaves out: 2, the first is 'cup' [64, 1,"
        " 69, 6] in gone.png (64 x 48 px)",
        "boxes that reach beyond their picture, which an export cuts: 1, the first is 'cup' [9, 40,"
        " 18, 49] in a.png (64 x 48 px)",
        "pictures of another size than is stated, which no export takes: 1, the first is b.png"
        " (640 x 480 px stated, 64 x 48 px found)",
        f"no picture in {place.pictures} for 1 of 3, the first is gone.png: name the right folder"
        " as --image-root",
    ]


# YOLO


def yolo_set(place: Place, names: str, **labels: str) -> Path:
    pictures = [Labelled(f"{name}.png", text.splitlines()) for name, text in labels.items()]
    labelled(place.folder / "set", "yolo", pictures, drawn=False)
    return saved(place.folder / "set" / "data.yaml", names).parent


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
    names: str, back_names: str, shared: str, place: Place
) -> None:
    label = "1 0.2 0.2 0.1 0.1\n0 0.5 0.5 0.2 0.4\n"
    remarks = " ".join(place.imported(yolo_set(place, names, a=label), "yolo")["remarks"])
    place.exported("yolo")
    assert (place.out / "data.yaml").read_text().partition("names:\n")[2] == back_names
    assert len((place.out / "labels/a.txt").read_text().splitlines()) == 2
    assert ("only yolo tells apart: 1 (" in remarks, shared in remarks) == (bool(shared), True)


def test_a_new_box_of_a_shared_name_is_of_its_first_class(place: Place) -> None:
    def change(records: Records) -> None:
        records[0]["expressions"] += [phrase("cat", [1, 1, 9, 9]), phrase("owl", [2, 2, 9, 9])]

    source = yolo_set(place, "names: {0: dog, 1: cat, 2: cat}", a="2 0.5 0.5 0.2 0.4\n")
    out = place.back(source, "yolo", change)
    lines = (out / "labels/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "1", "3"]
    assert '3: "owl"' in (out / "data.yaml").read_text()


@pytest.mark.slow
def test_classes_of_one_name_stay_two_in_the_parts_of_a_split(place: Place) -> None:
    label = "1 0.2 0.2 0.1 0.1\n"
    source = yolo_set(place, "names: {0: cat, 1: cat}", **dict.fromkeys("abcdef", label))
    for name in "abcdef":  # equal ones would stay together
        picture = PIL.Image.effect_noise((64, 48), 90).convert("RGB")
        picture.save(place.pictures / f"{name}.png")
    place.imported(source, "yolo")
    parts, options = place.folder / "parts", ("--ratios", "0.5/0.5", "--no-pictures")
    succeeds("split", place.results, "-o", parts, *options)
    place.results = parts
    place.exported("yolo", *IN_PLACE)
    written = {path.read_text()[:10] for path in place.out.rglob("*.txt")}
    assert written == {"0 0.200000"}
    assert '  1: "cat"' in (place.out / "data.yaml").read_text()


def test_keypoints_of_yolo_are_counted(place: Place) -> None:
    source = yolo_set(place, "kpt_shape: [1, 3]\nnames: [cat]", a="0 0.5 0.5 0.2 0.1 0.5 0.5 2\n")
    assert place.imported(source, "yolo")["left_out"] == {"keypoints of boxes": 1}
