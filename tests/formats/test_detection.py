"""COCO, KITTI and YOLO: as their readers take them, and as other tools write them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.formats import find_format, read
from tests.formats.data import (
    boxes_of,
    draw,
    exported,
    facts_of,
    hostile,
    record,
    records_of,
    refused,
    succeeds,
)
from tests.support.labelled import Labelled, labelled, saved

SIZE = (64, 48)
BOX = [1.5, 2.25, 40.0, 30.0]


def said(*phrases: str, name: str = "a.png") -> dict[str, Any]:
    boxes = [{"bbox": BOX, "score": 0.5}]
    return record(name, SIZE, [{"text": one, "instances": boxes} for one in phrases])


def texts(rows: Iterable[dict[str, Any]]) -> list[list[tuple[str, list[list[float]]]]]:
    """The boxes of each phrase in order, of each record."""
    return [[*boxes_of(row).items()] for row in rows]


def coco(folder: Path, **data: Any) -> str:
    return str(saved(folder / "instances.json", data))


FILES = {"coco": "annotations.json", "cvat": "annotations.xml"}


@pytest.mark.parametrize("format", ["coco", "cvat", "yolo", "kitti"])
def test_another_reader_finds_no_fault(format: str, tmp_path: Path) -> None:
    # it takes a name's first dot for its end
    rows = [row for row in hostile() if row["image_path"] != "v1.2.png"]
    if format == "cvat":  # of which it knows boxes, and no tags
        mug = {"text": "a <red> mug & co", "instances": [{"bbox": BOX, "score": 0.5}]}
        rows = [record("a.png", SIZE, [mug], caption="") | {"image_id": None}]
    out = exported(tmp_path, format, rows)
    if format == "kitti":  # the names that it knows
        (out / "labels").rename(out / "label_2")
        (out / "images").rename(out / "image_2")
    place = out / FILES.get(format, "")
    tool = Path(sys.executable).with_name("panlabel")
    done = subprocess.run(
        [tool, "validate", "--format", format, place], capture_output=True, text=True
    )
    assert "Validation passed" in done.stdout + done.stderr


@pytest.mark.parametrize("format", ["coco", "datasets"])
def test_phrases_of_two_captions_without_ids_stay_apart(format: str, tmp_path: Path) -> None:
    rows = [said("a cat"), said("a dog")]
    for row in rows:
        del row["image_id"], row["expressions"][0]["expression_id"]
    found = []
    for row in read(str(exported(tmp_path, format, rows)), format):
        found += [(one["text"], one["expression_id"]) for one in row["expressions"]]
    # a detector's picture is one record, of all of its captions
    second = "a#1" if format == "coco" else "a@2#0"
    assert found == [("a cat", "a#0"), ("a dog", second)]


@pytest.mark.parametrize(
    ("content", "names", "numbers"),
    [
        ("the dog: animal\nA red  mug: cup\n'*': rest\n", ["animal", "cup", "rest"], "12"),
        ("a red mug: cup\nA plate: dish\na plate: dish", ["cup", "dish"], "01"),
    ],
)
def test_classes_of_a_file_have_its_order(
    content: str, names: list[str], numbers: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "map.yaml", content)
    out = exported(tmp_path, "yolo", [said("a red mug", "a plate")], classes=str(path))
    found = yaml.safe_load((out / "data.yaml").read_text())["names"]
    assert found == dict(enumerate(names))
    assert [line[0] for line in (out / "labels/a.txt").read_text().splitlines()] == [*numbers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a red mug: cup", r"has no class for 'a plate': add it, or '\*' for all others"),
        (
            "a red mug: cup\na plate: b\nA red  mug: mug",
            "has two lines of 'a red mug' that differ: leave one",
        ),
        ("- a red mug", "should have lines of a phrase and its class"),
        ("a: [", "is not YAML"),
        ("[" * 5000, "is not YAML|inside each other"),
        (None, "no file"),
    ],
)
def test_a_map_that_does_not_do_is_named(content: str | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml" if content is None else saved(tmp_path / "map.yaml", content)
    with pytest.raises((SpecError, InputError), match=why) as caught:
        exported(tmp_path, "coco", [said("a red mug", "a plate")], classes=str(path))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "coco").exists()


def test_coco_of_other_tools(tmp_path: Path) -> None:
    rle = {"counts": [0, 9], "size": [48, 64]}
    cat = {"image_id": 1, "category_id": 7}
    path = coco(
        tmp_path,
        annotations=[
            {**cat, "bbox": [1, 2, 3, 4], "id": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {**cat, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": rle},
            {**cat, "bbox": [5, 5, 2.5, 0]},
            {**cat, "bbox": [0.1, 0.2, 0.2, 9], "category_id": 99, "id": "x"},
            {**cat, "bbox": [0, 0, 9, 9], "image_id": 404},
            {**cat, "bbox": [2, 2, 3, 4], "score": 0.5},
        ],
        categories=[{"supercategory": "animal", "name": "cat", "id": 7, "keypoints": []}],
        images=[
            {"id": 1, "license": 3, "file_name": "sub/a.jpg", "width": 64.0, "height": "48"},
            {"id": 2, "file_name": "b", "width": 0},
        ],
    )
    rows = list(read(path, "coco"))
    assert [row["image_path"] for row in rows] == ["sub/a.jpg", "b"]
    assert texts(rows)[0] == [
        ("cat", [[1, 2, 4, 6], [2, 2, 5, 6]]),
        ("object", [[0.1, 0.2, 0.3, 9.2]]),
    ]
    assert rows[0]["expressions"][0]["instances"][1]["score"] == 0.5
    assert (repr(rows[0]["width"]), rows[0]["height"]) == ("64", 48)
    assert (rows[0]["image_id"], rows[1]["expressions"]) == ("sub/a", [])


@pytest.mark.parametrize(
    ("what", "value", "place"),
    [
        ("annotations", "NaN", "in entry 2 of 'annotations'"),
        ("images", "-Infinity", "in entry 1 of 'images'"),
        ("info", "NaN", "in 'info'"),
        ("annotations", "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_its_place(
    what: str, value: str, place: str, tmp_path: Path
) -> None:
    """As pandas and NumPy write NaN."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    data: dict[str, Any] = {
        "info": {},
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [box, {**box, "id": 2}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    entry = data[what][-1] if isinstance(data[what], list) else data[what]
    entry["odd"] = "HERE"
    text = json.dumps(data).replace('"HERE"', value)
    why = refused("import", saved(tmp_path / "a.json", text), "--format", "coco", "-o", "x")
    assert place in why
    assert "a.json" in why


def test_coco_by_way_of_tables(tmp_path: Path) -> None:
    """Of a column with a gap, whole numbers are floats; of one of texts, numbers are texts; names
    may be missing.
    """
    box = {"bbox": [1, 2, 3, 4], "category_id": 1}
    path = coco(
        tmp_path,
        images=[{"id": 1.0, "file_name": "a.jpg"}],
        annotations=[
            {**box, "image_id": 1},
            {**box, "image_id": 1.0, "iscrowd": "1"},
            {**box, "image_id": "1"},
        ],
        categories=[{"id": 1.0, "name": None}],
    )
    made = find_format("coco")
    assert texts(list(read(path, made))) == [[("object", [[1, 2, 4, 6]] * 2)]]
    unlisted = "annotations whose category isn't listed, which are read as 'object'"
    assert +made.passed_over == {"crowd annotations": 1, unlisted: 2}


def test_grounding_of_other_tools(tmp_path: Path) -> None:
    """Spans of one phrase in two parts, of a phrase of two boxes, and gRefCOCO's nothing there."""
    caption = "A red mug, not a fork"
    image = {"id": 3, "file_name": "a.jpg", "caption": caption, "original_img_id": 33}
    box = {"image_id": 3, "category_id": 1, "iscrowd": 0, "area": 1}
    nothing = {"image_id": 4, "category_id": -1, "bbox": [0, 0, 0, 0], "tokens_positive": []}
    path = coco(
        tmp_path,
        images=[image, {"id": 4, "file_name": "b.jpg", "caption": "a fork"}],
        annotations=[
            {**box, "id": 1, "bbox": [1, 2, 3, 4], "tokens_positive": [[2, 9]]},
            {**box, "id": 2, "bbox": [5, 6, 3, 4], "tokens_positive": [[2, 9]]},
            {**box, "id": 3, "bbox": [5, 6, 3, 4], "tokens_positive": [[0, 1], [6, 9]]},
            {**box, "id": 4, **nothing},
        ],
    )
    made = find_format("coco-grounding")
    first, second = read(path, made)
    assert +made.passed_over == {}
    assert texts([first]) == [
        [("red mug", [[1, 2, 4, 6], [5, 6, 8, 10]]), ("A mug", [[5, 6, 8, 10]])]
    ]
    assert [one["char_span"] for one in first["expressions"]] == [[2, 9], None]
    assert (first["image_id"], first["caption"]) == (33, caption)
    assert [(one["text"], one["status"]) for one in second["expressions"]] == [("a fork", "none")]


def test_odvg_of_mmdetections_converter(tmp_path: Path) -> None:
    """It writes a phrase in several parts as a list, and a span for each of its words, also where
    they are adjacent.
    """
    box = {"bbox": [1, 2, 3, 4]}
    regions = [
        {**box, "phrase": "red mug", "tokens_positive": [[2, 5], [6, 9]]},
        {**box, "phrase": ["A", "mug"], "tokens_positive": [[0, 1], [6, 9]]},
        {**box, "phrase": ["a fork"], "tokens_positive": [[15, 21]]},
    ]
    grounding = {"caption": "A red mug, not a fork", "regions": regions}
    line = {"filename": "a.jpg", "height": 48, "width": 64, "grounding": grounding}
    path = str(saved(tmp_path / "x.jsonl", line))
    (row,) = read(path, "odvg-mmdet")
    found = [(one["text"], one["char_span"]) for one in row["expressions"]]
    assert found == [("red mug", [2, 9]), ("A mug", None), ("a fork", [15, 21])]
    (row,) = read(path, "odvg")
    assert [*boxes_of(row)] == ["red mug", "A mug", "a fork"]


@pytest.mark.parametrize("format", ["coco", "coco-grounding"])
def test_ids_of_annotations_that_begin_again_with_each_image(format: str, tmp_path: Path) -> None:
    """`image_id` says whose a box is: pycocotools gives each image its own, too."""
    cats = [{"id": 0, "bbox": [1, 2, 3, 4]}, {"id": 1, "bbox": [10, 2, 3, 4]}]
    dog = {"id": 0, "category_id": 2, "bbox": [1, 2, 3, 4]}
    pictures = [Labelled("a.png", cats), Labelled("b.png", [dog]), Labelled("c.png")]
    path = labelled(tmp_path, "coco", pictures, classes=["cat", "dog"])
    succeeds("import", path, "--format", format, "-o", tmp_path / "back")
    assert texts(records_of(tmp_path / "back")) == [
        [("cat", [[1, 2, 4, 6], [10, 2, 13, 6]])],
        [("dog", [[1, 2, 4, 6]])],
        [],
    ]
    export = ("export", tmp_path / "back", "--format", "coco", "-o", tmp_path / "new")
    told = facts_of(*export)["remarks"]
    line = "annotations with the id of an earlier one, which get new ones: 1, the first is 0"
    assert (line in told) is (format == "coco")  # coco-grounding keeps no annotations
    back = json.loads((tmp_path / "new" / "annotations.json").read_text("utf-8"))
    places = [(item["image_id"], item["bbox"][0]) for item in back["annotations"]]
    assert places == [(1, 1), (1, 10), (2, 1)]
    assert len({item["id"] for item in back["annotations"]}) == len(places)


def test_ids_of_phrases_that_come_twice_differ(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4]}
    ids = {"a cup": "7", "a mug": "7", "a dog": "7~2"}
    entries = [{**box, "phrase": text, "expression_id": ids[text]} for text in ids]
    (row,) = read(str(labelled(tmp_path, "coco", [Labelled("a.png", entries)])), "coco")
    assert [one["expression_id"] for one in row["expressions"]] == ["7", "7~3", "7~2"]


CATEGORY, IMAGE = {"id": 7, "name": "a cat"}, {"id": "x", "file_name": "süß.jpg"}
ANNOTATION = {"id": 1, "image_id": "x", "category_id": 7, "bbox": [1, 2, 3, 4], "rle": "x" * 70_000}
DATA = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": [CATEGORY]}
BLANKS = " " * 70_000
TEXTS = {
    "annotations first": json.dumps({"annotations": [ANNOTATION], "info": {"a": [1]}, **DATA}),
    "indented": json.dumps({"n": 1, **DATA, "none": None}, indent=9),
    "much space": json.dumps(DATA, separators=(f"{BLANKS},\n", f"\t:{BLANKS}")),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_coco_is_read_whatever_the_order_and_the_space_in_it(
    text: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(text, encoding=encoding)
    (row,) = read(str(tmp_path / "x.json"), "coco")
    assert row["image_path"] == "süß.jpg"
    assert texts([row]) == [[("a cat", [[1, 2, 4, 6]])]]


def yolo(folder: Path, *lines: str, data: str = "") -> Path:
    """A folder with one picture, its label file, and a data.yaml of the class cat, or this."""
    labelled(folder, "yolo", [Labelled("a.png", lines)], classes=["cat"])
    return saved(folder / "data.yaml", data).parent if data else folder


@pytest.mark.parametrize("cut", range(6))
def test_a_number_that_goes_on_where_a_part_of_the_file_ends(cut: int, tmp_path: Path) -> None:
    """Files are read in parts of 64 KiB: `1` is a number too."""
    head = '{"version": '
    text = " " * (2**16 - len(head) - cut) + head + '-1.5e-2, "images": [], "annotations": []}'
    (tmp_path / "x.json").write_text(text)
    assert list(read(str(tmp_path / "x.json"), "coco")) == []


@pytest.mark.slow
def test_a_large_coco_file_is_read_in_little_memory(tmp_path: Path) -> None:
    """As a process, by its peak: SQLite's memory isn't Python's."""
    images = [
        {"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48, "url": "x" * 7500}
        for n in range(2_000)
    ]
    boxes = [
        {"id": n, "image_id": n % 2_000, "category_id": 1, "bbox": [1, 2, 3, 4]}
        for n in range(4_000)
    ]
    path = coco(tmp_path, images=images, annotations=boxes, categories=[{"id": 1, "name": "a cat"}])
    code = "import sys; from dataflow_grounding.formats import read; print(sum(1 for _ in read(sys.argv[1], 'coco')));"
    code += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    count, kilobytes = map(int, done.stdout.split())
    assert count == 2_000
    assert kilobytes < 80_000


@pytest.mark.parametrize("format", ["kitti", "yolo"])
def test_two_pictures_of_one_label_file_are_refused(format: str, tmp_path: Path) -> None:
    why = (
        r"images/a\.png and images/a\.jpg would share labels/a\.txt: rename one, in the run's input"
        " too, and run generate again, which asks for nothing that is stored"
    )
    with pytest.raises(InputError, match=why):
        exported(tmp_path, format, [said("a mug"), said("a mug", name="a.jpg")])


@pytest.mark.parametrize(
    ("format", "label"), [("kitti", "cat 0 0 0 16 12 48 36"), ("yolo", "0 .5 .5 .5 .5")]
)
def test_two_pictures_of_a_label_file_both_come_in(format: str, label: str, tmp_path: Path) -> None:
    pictures = [Labelled(name, [label]) for name in ("a.jpg", "a.png")]
    labelled(tmp_path, format, pictures, classes=["cat"])
    rows = list(read(str(tmp_path), format))
    assert [(row["image_path"], row["image_id"]) for row in rows] == [
        ("images/a.jpg", "images/a"),
        ("images/a.png", "images/a.png"),
    ]
    assert texts(rows) == [[("cat", [[16, 12, 48, 36]])]] * 2


def test_kitti_of_the_benchmark(tmp_path: Path) -> None:
    for split in ("testing", "training"):
        draw(tmp_path / split / "image_2", [said("x", name="000001.png")])
    rest = "1.0 1.0 1.0 0 0 0 0"
    lines = [
        f"Person_sitting 0.00 0 -1.5 1.50 2 40 30.25 {rest}",
        f"DontCare -1 -1 -10 5 5 9 9 {rest}",
        "",
        f"Person_sitting 0 0 0 5 5 9 9 {rest} 0.75",
    ]
    saved(tmp_path / "training/label_2/000001.txt", "\r\n".join(lines))
    made = find_format("kitti")
    [row] = read(str(tmp_path), made)
    assert +made.passed_over == {"DontCare lines": 1}
    assert row["image_path"] == "training/image_2/000001.png"
    assert texts([row]) == [[("Person_sitting", [[1.5, 2, 40, 30.25], [5, 5, 9, 9]])]]
    assert [one["score"] for one in row["expressions"][0]["instances"]] == [None, 0.75]


@pytest.mark.parametrize(
    "names",
    ["[no, off, 007, 1e3]", "{0: no, 1: off, 2: 007, 3: 1e3}", "{3: 1e3, 2: 007, 1: off, 0: no}"],
)
def test_names_of_classes_are_as_they_are_written(names: str, tmp_path: Path) -> None:
    lines = [f"{number} .5 .5 .5 .5" for number in range(4)]
    yolo(tmp_path, *lines, data=f"names: {names}\nkpt_shape: null\n")
    box = [[16, 12, 48, 36]]
    expected = [[("no", box), ("off", box), ("007", box), ("1e3", box)]]
    assert texts(list(read(str(tmp_path), "yolo"))) == expected


@pytest.mark.parametrize("names", ["", "abc", "[[a]]", "{1: a}"])
def test_names_that_are_no_list_are_refused(names: str, tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5", data=f"names: {names}\n")
    with pytest.raises(InputError, match="has no 'names' of classes 0, 1, 2"):
        list(read(str(tmp_path), "yolo"))


@pytest.mark.parametrize("shape", ["[4, 2]", "[2, 3]"])
def test_of_poses_the_box_is_read(shape: str, tmp_path: Path) -> None:
    data = f"names: [cat]\nkpt_shape: {shape}"
    points = "0 0 0 0 1 1 1 1" if shape == "[4, 2]" else "0 0 2 1 1 2"
    yolo(tmp_path, f"0 .5 .5 .5 .5 {points}", data=data)
    assert texts(list(read(str(tmp_path), "yolo"))) == [[("cat", [[16, 12, 48, 36]])]]
    yolo(tmp_path, "0 .5 .5 .5 .5 .1 .1", data=data)
    why = r"a\.txt, line 1: has 7 fields, a YOLO label of this kpt_shape has 1"
    with pytest.raises(InputError, match=why):
        list(read(str(tmp_path), "yolo"))


def test_yolo_of_roboflow(tmp_path: Path) -> None:
    lines = ["1 0.5 0.5 1 0.5 0.25", "1.000000e+00 .5 .5 0 .5", "0 .25 .5 .5 .25 1 1 .5 .75"]
    for split in ("train", "valid"):
        yolo(tmp_path / split, *lines)
        draw(tmp_path / split / "images", [said("x", name="none.png")])
        (tmp_path / split / "data.yaml").unlink()
        (tmp_path / split / "labels" / "stray.txt").write_text("1 0.5 0.5 1 0.5\n")
    data = "nc: 2\nnames: ['cat', 'red mug']\ntrain: ../train/images\n"
    saved(tmp_path / "data.yaml", data)
    for path in (tmp_path, tmp_path / "data.yaml"):
        rows = list(read(str(path), "yolo"))
        assert [row["image_path"] for row in rows] == [
            f"{split}/images/{name}.png" for split in ("train", "valid") for name in ("a", "none")
        ]
        assert texts(rows[:2]) == [
            [("red mug", [[0, 12, 64, 36]]), ("cat", [[16, 12, 64, 48]])],
            [],
        ]
        assert rows[0]["expressions"][0]["instances"][0]["score"] == 0.25


@pytest.mark.parametrize("format", ["coco", "coco-grounding"])
@pytest.mark.parametrize(
    ("what", "key", "value"),
    [
        ("annotations", "phrase", ["a", {"b": 1}]),
        ("annotations", "phrase", {"a": [1]}),
        ("annotations", "expression_id", [1]),
        ("annotations", "tokens_positive", [5]),
        ("annotations", "bbox", [1, 2, 3]),
    ],
)
def test_a_value_of_another_kind_is_told_in_one_line(
    tmp_path: Path, format: str, what: str, key: str, value: Any
) -> None:
    entry = {"phrase": "a", "bbox": [1, 1, 5, 5], "tokens_positive": [[0, 1]]}
    path = labelled(tmp_path, "coco", [Labelled("a.png", [entry])], classes=["a"])
    data = json.loads(path.read_text())
    data["images"][0]["caption"] = "a cup"
    data[what][0][key] = value
    saved(path, data)
    import_ = ("import", path, "--format", format, "-o", tmp_path / "out")
    assert "annotations.json" in refused(*import_)
