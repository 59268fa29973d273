"""An import goes on after what can't be read, says what it left out, and refuses a wrong format.

The broken entries are of kinds that public reports show: ultralytics/yolov5#5210 (numbers of pixels,
an unknown class), NVIDIA/DIGITS#992 (KITTI's fields), cvat-ai/cvat#4811 (one bad annotation fails a
whole import), datumaro#142, open-edge-platform/geti#7207, label-studio#3140 (other shapes),
BaseXdb/basex#61 (some of many XML files are broken), rooneysh/Labelme2YOLO#13.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import InputError
from dataflow_grounding.formats import read
from tests.formats.data import draw, record
from tests.support.workplace import Done, command

SIZE = (64, 48)
SIDES = {"width": 64, "height": 48}
# Each set has a.png with MOST boxes, b.png with one box that can be read and one that can't, and
# perhaps more; a maker returns the path, and what stands in the reasons of all bad entries.
Maker = Callable[[Path], tuple[Path, list[str]]]
MOST = 5


def pictures(folder: Path, *names: str) -> None:
    draw(folder, [record(name, SIZE, []) for name in names])


def yolo(folder: Path) -> tuple[Path, list[str]]:
    pictures(folder / "images", "a.png", "b.png", "c.png")
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [cup, mug]\n")
    (folder / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n" * MOST)
    (folder / "labels/b.txt").write_text("0 0.5 0.5 0.25 0.25\n7 0.5 0.5 0.25 0.25\n")
    (folder / "labels/c.txt").write_bytes(b"0 320 240 64 96\n\xff\xfe\n")
    return folder, [
        "b.txt, line 2: class '7' is not one of the 2 names",
        "c.txt, line 1: 320 240 64 96 should be parts",
        "c.txt, line 2: is not UTF-8",
    ]


def kitti(folder: Path) -> tuple[Path, list[str]]:
    pictures(folder / "images", "a.png", "b.png", "c.png")
    (folder / "images/d.png").write_bytes(b"no picture")
    (folder / "labels").mkdir()
    good = "cup 0 0 0 10 20 30 40\n"
    (folder / "labels/a.txt").write_text(good * MOST)
    (folder / "labels/b.txt").write_text(f"{good}cup 0 0 0 30 20 10 40\n")
    (folder / "labels/c.txt").write_text("cup 10 20 30\n")
    (folder / "labels/d.txt").write_text(good)
    return folder, [
        "b.txt, line 2: the box 30 20 10 40 ends before it begins",
        "c.txt, line 1: has 4 fields",
        "d.txt: ",
    ]


def coco(folder: Path) -> tuple[Path, list[str]]:
    good = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    boxes: list[Any] = [
        *({"id": number, **good} for number in range(10, 9 + MOST)),
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [9, 9, -3, 4]},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": ["1", 2, 3, 4]},
        {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    images: list[Any] = [
        {"id": number, "file_name": f"{name}.png", **SIDES} for number, name in enumerate("abc", 1)
    ]
    data = {"images": [*images, {"id": 9}], "categories": [{"id": 1, "name": "cup"}]}
    path = folder / "c.json"
    path.write_text(json.dumps({**data, "annotations": boxes}))
    return path, [
        "c.json, entry 4 of images: an image without 'id' and 'file_name'",
        "c.json, annotation 3: is not of this format (the box has a side",
        "two annotations have the id 1",
        "c.json, annotation 4: is not of this format ('bbox' should be",
    ]


def region(own_id: str, label: str = "cup", **more: Any) -> dict[str, Any]:
    area = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    facts = {"id": own_id, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    sides = {"original_width": 64, "original_height": 48}
    return {**facts, **sides, "value": {**area, "rectanglelabels": [label]}, **more}


def label_studio(folder: Path) -> tuple[Path, list[str]]:
    outline = {"points": [[1, 2], [3, 4], [5, 6]], "ellipselabels": ["cup"]}
    ellipse = region("r2", type="ellipselabels", value=outline)
    text = {**region("r2"), "type": "textarea", "from_name": "phrase", "value": {"text": ["cup"]}}
    relation = {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "right"}
    turned = region("r3")
    turned["image_rotation"] = 90
    many = [region(f"x{number}") for number in range(MOST)]
    results = [many, [region("r1"), ellipse, text, relation, turned], [{"id": "r1"}]]
    tasks: list[Any] = [
        {"data": {"image": f"{name}.png"}, "annotations": [{"result": result}]}
        for name, result in zip("abc", results, strict=True)
    ]
    path = folder / "tasks.json"
    path.write_text(json.dumps([*tasks, 7, {"annotations": [{"result": []}]}]))
    return path, [
        "tasks.json, entry 2, region r2: is not of this format (region r2 is a ellipselabels",
        "tasks.json, entry 2, region r3: is not of this format (region r3 is of a rotated",
        "tasks.json, entry 3, region r1: no 'type' in it",
        "tasks.json, entry 4: ",
        "tasks.json, entry 5: is not of this format (no 'data' in it",
    ]


def labelme(folder: Path) -> tuple[Path, list[str]]:
    pictures(folder, "a.png", "b.png", "c.png")
    good = {"label": "cup", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}
    shapes: dict[str, list[Any]] = {
        "a": [good] * MOST,
        "b": [good, {**good, "points": [[1, 2], [3]]}],
    }
    shapes["c"] = [{**good, "label": None}]
    sides = {"imageWidth": 64, "imageHeight": 48}
    for name, of_picture in shapes.items():
        data = {"shapes": of_picture, "imagePath": f"{name}.png", **sides}
        (folder / f"{name}.json").write_text(json.dumps(data))
    (folder / "d.json").write_text('{"shapes": [')
    return folder, [
        "b.json, shape 2: is not of this format",
        "c.json, shape 1: is not of this format (a box without a label)",
        "d.json is not JSON",
    ]


def cvat(folder: Path) -> tuple[Path, list[str]]:
    good = '<box label="cup" xtl="1" ytl="2" xbr="3" ybr="4"/>'
    bad = '<box label="cup" xtl="9" ytl="2" xbr="3" ybr="4"/>'
    worse = '<box label="cup" xtl="1.5" ytl="2" xbr="3" ybr="4" rotation="nan"/>'
    inside = {"a": good * MOST, "b": good + bad, "c": worse}
    images = "".join(
        f'<image id="{number}" name="{name}.png" width="64" height="48">{boxes}</image>'
        for number, (name, boxes) in enumerate(inside.items())
    )
    path = folder / "annotations.xml"
    path.write_text(f'<annotations>{images}<image name="d.png">{good}</image></annotations>')
    return path, [
        "annotations.xml, image 'b.png', box 2: is not of this format (the box [9.0,",
        "annotations.xml, image 'c.png', box 1: is not of this format (the rotation nan should",
        "annotations.xml, image 'd.png': no 'width' in it",
    ]


def voc(folder: Path) -> tuple[Path, list[str]]:
    pictures(folder, "a.png", "b.png", "c.png")

    def thing(*corners: object, name: str = "cup") -> str:
        texts = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in texts)
        return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"

    good = thing(1, 2, 30, 40)
    inside = {"a": good * MOST, "b": good + thing(30, 2, 1, 40), "c": thing("", 2, 30, 40)}
    inside["b"] += thing(1, 2, 30, 40, name=" ")
    inside["c"] += thing(30, 2, 1, 40, name="mug")
    for name, objects in inside.items():
        size = "<size><width>64</width><height>48</height></size>"
        head = f"<filename>{name}.png</filename>{size}"
        (folder / f"{name}.xml").write_text(f"<annotation>{head}{objects}</annotation>")
    (folder / "d.xml").write_text("<annotation><object>")
    return folder, [
        "b.xml, object 3: is not of this format (an object without a name)",
        "b.xml, phrase 1, box 2: is not of this format (the box [30.0,",
        "c.xml, object 1: is not of this format (a corner of 'cup' is no number",
        "c.xml, phrase 1, box 1: is not of this format (the box [30.0,",
        "d.xml is not XML",
    ]


def odvg(folder: Path) -> tuple[Path, list[str]]:
    good = {"phrase": "cup", "bbox": [1, 2, 3, 4]}
    regions: dict[str, Any] = {
        "a": [good] * MOST,
        "b": [good, {"phrase": "cup"}, {**good, "bbox": [4]}],
    }
    rows = [
        {"filename": f"{name}.png", **SIDES, "grounding": {"caption": "a cup", "regions": items}}
        for name, items in regions.items()
    ]
    path = folder / "x.jsonl"
    no_grounding = {"filename": "c.png", **SIDES}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, no_grounding]))
    return path, [
        "x.jsonl, line 2, region 2: no 'bbox' in it",
        "x.jsonl, line 2, region 3: is not of this format",
        "x.jsonl, line 3: no 'grounding' in it",
    ]


MAKERS = [yolo, kitti, coco, label_studio, labelme, cvat, voc, odvg]


def run(verb: str, maker: Maker, path: Path, out: Path, *more: str) -> Done:
    name = maker.__name__.replace("_", "-")
    form = ["--format", name] if verb == "import" else ["--from", name]
    return command([verb, str(path), *form, "-o", str(out), *more])


def records_of(results: Path) -> dict[str, dict[str, Any]]:
    lines = (results / "annotations.jsonl").read_text().splitlines()
    return {Path(row["image_path"]).stem: row for row in map(json.loads, lines)}


def boxes(row: dict[str, Any]) -> int:
    return sum(len(expression["instances"]) for expression in row["expressions"])


@pytest.mark.parametrize("maker", MAKERS)
def test_what_can_be_read_is_imported_and_the_rest_is_named(maker: Maker, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path, reasons = maker(data)
    done = run("import", maker, path, tmp_path / "out", "--json")
    assert done.code == 1, done
    bad = json.loads(done.out)["bad"]
    assert bad["count"] == len(bad["entries"]) == len(reasons), bad
    for reason in reasons:
        assert sum(reason in entry for entry in bad["entries"]) == 1, (reason, bad["entries"])
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    assert kept["imported"]["bad"] == bad
    rows = records_of(tmp_path / "out")
    assert (boxes(rows["a"]), boxes(rows["b"])) == (MOST, 1)
    assert "skipped_entries" not in rows["a"]
    of_b = 2 if maker in (label_studio, voc, odvg) else 1
    assert rows["b"]["skipped_entries"] == of_b
    if "c" in rows:  # its only object can't be read
        assert rows["c"]["expressions"] == []  # nobody says that it isn't there
        assert (rows["c"]["background"], rows["c"]["skipped_entries"] > 0) == (False, True)
    assert "d" not in rows
    for name, row in rows.items():
        assert Path(row["image_id"]).name == name
        for expression in row["expressions"]:
            assert expression["expression_id"].startswith(f"{row['image_id']}#")


@pytest.mark.parametrize("maker", MAKERS)
def test_strict_stops_at_the_first_in_one_line_and_leaves_nothing(
    maker: Maker, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path, reasons = maker(data)
    for verb, more in (("import", []), ("convert", ["--to", "coco", "--images", "reference"])):
        out = tmp_path / verb
        done = run(verb, maker, path, out, "--strict", *more)
        assert done.code == 2, done
        [line] = done.err.splitlines()
        assert sum(reason in line for reason in reasons) == 1, line
        assert not out.exists()
    with pytest.raises(InputError) as raised:  # in Python, where nothing would tell of them
        list(read(str(path), maker.__name__.replace("_", "-")))
    assert sum(reason in str(raised.value) for reason in reasons) == 1


def incomplete(maker: Maker, folder: Path) -> tuple[Path, int]:
    """An import that went on after bad entries, and how many of its pictures have lost some."""
    data = folder / "data"
    data.mkdir()
    path, _ = maker(data)
    results = folder / "results"
    assert run("import", maker, path, results).code == 1
    return results, sum("skipped_entries" in row for row in records_of(results).values())


@pytest.mark.parametrize("maker", MAKERS)
def test_a_detector_gets_no_picture_of_which_an_object_was_left_out(
    maker: Maker, tmp_path: Path
) -> None:
    results, marked = incomplete(maker, tmp_path)
    for form in ("coco", "yolo", "kitti", "voc"):
        out = tmp_path / form
        arguments = ["export", str(results), "--format", form, "-o", str(out), "--json"]
        said = json.loads(command([*arguments, "--images", "reference"]).out)
        assert said["records"] == 1, said
        assert any(
            "objects of theirs" in each and each.endswith(f": {marked}") for each in said["remarks"]
        )
        said = json.loads(command([*arguments, "--images", "reference", "--partly-verified"]).out)
        assert said["records"] == 2, said  # a picture without a box is no background either way


def useless_line(folder: Path) -> Path:
    path, _ = yolo(folder)
    (folder / "labels/c.txt").unlink()
    (folder / "images/c.png").unlink()
    return path


def useless_outline(folder: Path) -> Path:
    path, _ = cvat(folder)
    good = '<box label="cup" xtl="1" ytl="2" xbr="3" ybr="4"/>'
    parts = {"a": good, "b": f'{good}<polygon label="mug" points="6,1;9,5"/>'}
    path.write_text(
        "<annotations>"
        + "".join(
            f'<image id="0" name="{name}.png" width="64" height="48">{inside}</image>'
            for name, inside in parts.items()
        )
        + "</annotations>"
    )
    return path


def useless_brush(folder: Path) -> Path:
    brush = region("r2", type="brushlabels", value={"brushlabels": ["mug"], "format": "rle"})
    results = {"a": [region("r1")], "b": [region("r1"), brush]}
    path = folder / "tasks.json"
    path.write_text(
        json.dumps(
            [
                {"data": {"image": f"{name}.png"}, "annotations": [{"result": result}]}
                for name, result in results.items()
            ]
        )
    )
    return path


@pytest.mark.parametrize(
    ("form", "useless"),
    [("yolo", useless_line), ("cvat", useless_outline), ("label-studio", useless_brush)],
)
def test_what_is_of_no_use_keeps_its_picture_from_detectors_too(
    form: str, useless: Callable[[Path], Path], tmp_path: Path
) -> None:
    """As Ultralytics leaves out a picture with a label line that it can't read."""
    (tmp_path / "data").mkdir()
    path, out = useless(tmp_path / "data"), tmp_path / "out"
    done = command(["import", str(path), "--format", form, "-o", str(out), "--json"])
    assert done.code == 1, done
    said = json.loads(done.out)
    assert (said["left_out"], said["bad"]["count"]) == ({}, 1)
    assert records_of(out)["b"]["skipped_entries"] == 1
    arguments = ["export", str(out), "--format", "coco", "-o", str(tmp_path / "coco"), "--json"]
    assert json.loads(command([*arguments, "--images", "reference"]).out)["records"] == 1


def test_regions_that_are_no_list_are_one_entry(tmp_path: Path) -> None:
    row = {"filename": "a.png", "height": 48, "width": 64, "grounding": {"caption": "A cup."}}
    row["grounding"]["regions"] = "junk"
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    done = run("import", odvg, tmp_path / "x.jsonl", tmp_path / "out")
    assert (done.code, "1 of 1 entries can't be read" in done.err) == (2, True)
    assert "'regions' should be a list" in done.err


def test_a_source_gets_back_what_was_read_without_what_was_left_out(tmp_path: Path) -> None:
    for maker in (coco, cvat, voc, label_studio):
        data = tmp_path / maker.__name__
        data.mkdir()
        path, _ = maker(data)
        out = tmp_path / f"{maker.__name__}_out"
        name = maker.__name__.replace("_", "-")
        more = ["--to", name, "--images", "reference", "--partly-verified"]
        assert run("convert", maker, path, out, *more, "--json").code == 1
        again = run("import", maker, out, tmp_path / f"{maker.__name__}_again", "--image-root", ".")
        assert again.code == 0, again  # nothing bad is in it
        if maker is label_studio:
            assert '"r2"' not in (out / "tasks.json").read_text()
        rows = records_of(tmp_path / f"{maker.__name__}_again")
        assert (boxes(rows["a"]), boxes(rows["b"])) == (MOST, 1)


def test_the_summary_lists_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    yolo(folder)
    (folder / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n" * 30)
    (folder / "labels/c.txt").write_text("0 1 2\n" * 22)
    done = run("import", yolo, folder, tmp_path / "out")
    assert done.code == 1, done
    lines = done.out.splitlines()
    start = lines.index("left out as bad: 23 entries")
    named = [".txt, line " in line for line in lines[start + 1 : start + 22]]
    assert named == [True] * 20 + [False]
    assert lines[start + 21] == "and 3 more"
    told = run("convert", yolo, folder, tmp_path / "c.json", "--to", "coco")
    assert (told.code, "left out as bad: 23 entries" in told.err.splitlines()) == (1, True)


@pytest.mark.parametrize(("readable", "code"), [(2, 2), (3, 1)])
def test_fewer_than_half_are_refused_and_half_are_not(
    readable: int, code: int, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    yolo(folder)  # b.png has one of those that can be read, and three can't
    (folder / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n" * (readable - 1))
    for verb, more in (("import", []), ("convert", ["--to", "coco", "--images", "reference"])):
        done = run(verb, yolo, folder, tmp_path / verb, *more)
        assert done.code == code, done
        assert ("3 of 5 entries can't be read: " in done.err) == (code == 2)
        assert (tmp_path / verb).exists() == (code == 1)


@pytest.mark.parametrize(("bad", "code"), [(50, 2), (49, 1)])
def test_none_of_the_first_fifty_is_refused(bad: int, code: int, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    boxes = [{"phrase": "cup", "bbox": [n, 2, n + 3, 4]} for n in range(60)]
    good = {"filename": "a.png", **SIDES, "grounding": {"caption": "a cup", "regions": boxes}}
    path.write_text("{}\n" * bad + json.dumps(good) + "\n")
    done = run("import", odvg, path, tmp_path / "out")
    assert done.code == code, done
    assert ("none of the first 50 entries can be read: " in done.err) == (code == 2)
    assert (tmp_path / "out").exists() == (code == 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"images": [', "is not JSON"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}],'
            ' "annotations": []}',
            "two images",
        ),
    ],
)
def test_one_file_that_is_broken_as_a_whole_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    done = run("import", coco, path, tmp_path / "out")
    assert (done.code, why in done.err) == (2, True), done


def test_yolo_without_the_names_of_classes_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    yolo(folder)
    (folder / "data.yaml").unlink()
    done = run("import", yolo, folder, tmp_path / "out")
    assert (done.code, "with the names of classes" in done.err) == (2, True), done
    assert "name the file that has them in place of the folder" in done.err
    (folder / "cups.yaml").write_text("names: [cup, mug]\n")
    done = command(
        ["import", str(folder / "cups.yaml"), "--format", "yolo", "-o", str(tmp_path / "out")]
    )
    assert "names of classes" not in done.err


PIXELS = {"image_path": "b.png", "width": 64, "height": 48}
MUG = {"text": "a mug", "instances": [{"bbox": [1, 2, 3, 4]}]}
ANSWER = {"role": "assistant", "content": "<ref-object><bbox>"}
QUESTION = {"role": "user", "content": "<image>Locate a mug."}
A_LINE = {"messages": [QUESTION, ANSWER], "images": ["b.png"]}
REFERS = {"file_name": "b.png", "width": 64, "height": 48}
A_MUG = {"expression": "a mug", "regions": [{"bbox": [1, 2, 3, 4]}]}


@pytest.mark.parametrize(
    ("form", "rows", "reason"),
    [
        (
            "tao",
            [
                {**PIXELS, "expressions": [MUG, {**MUG, "instances": [{"bbox": [1, 2]}]}]},
                {**PIXELS, "expressions": 7},
                {**PIXELS, "image_path": "a.png", "expressions": [MUG]},
            ],
            "line 1, phrase 2, box 1: is not of this format",
        ),
        (
            "tao-refer",
            [
                {**REFERS, "grounding": A_MUG},
                {**REFERS, "grounding": {"expression": "a cup"}},
                {**REFERS, "file_name": "a.png", "grounding": A_MUG},
                {"grounding": A_MUG},
            ],
            "line 2: no 'regions' in it",
        ),
        (
            "tao-refer",
            [
                {**REFERS, "grounding": A_MUG},
                {**REFERS, "grounding": {**A_MUG, "regions": [{"bbox": [3, 4, 1, 2]}]}},
                {**REFERS, "file_name": "a.png", "grounding": A_MUG},
                {"grounding": A_MUG},
            ],
            "x.jsonl, record 1 (b.png), phrase 2, box 1: is not of this format",
        ),
        (
            "ms-swift",
            [
                {**A_LINE, "objects": {"ref": ["a mug"], "bbox": [[1, 2, 3, 4]]}},
                {**A_LINE, "objects": {"ref": ["a mug"], "bbox": [[1, 2]]}},
                {
                    **A_LINE,
                    "images": ["a.png"],
                    "objects": {"ref": ["a mug"], "bbox": [[1, 2, 3, 4]]},
                },
                {**A_LINE, "images": ["gone.png"]},
            ],
            "line 2: is not of this format",
        ),
    ],
)
def test_lines_of_other_formats_are_left_out_too(
    form: str, rows: list[dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    pictures(tmp_path, "a.png", "b.png")
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    done = command(["import", str(path), "--format", form, "-o", str(out), "--json"])
    assert done.code == 1, done
    bad = json.loads(done.out)["bad"]
    assert (bad["count"], any(reason in entry for entry in bad["entries"])) == (2, True), bad
    lines = [json.loads(line) for line in (out / "annotations.jsonl").read_text().splitlines()]
    of_b = [row for row in lines if row["image_path"] == "b.png"]
    assert sum(map(boxes, of_b)) == 1
    assert sum(row.get("skipped_entries", 0) for row in of_b) == 1
    assert not any(row.get("background") for row in of_b)


def test_a_mark_that_a_format_has_no_place_for_is_counted_as_lost(tmp_path: Path) -> None:
    """Through such a format the picture would come back as a complete one."""
    results, marked = incomplete(MAKERS[0], tmp_path)
    arguments = ["export", str(results), "--format", "cvat", "--images", "reference"]
    done = command([*arguments, "-o", str(tmp_path / "cvat")])
    assert f"marks of pictures of which an import left something out ({marked})" in done.err
    assert command([*arguments, "-o", str(tmp_path / "strict"), "--strict"]).code != 0
