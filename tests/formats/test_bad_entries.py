"""An import goes on after what can't be read, says what it left out, and refuses a wrong format.

The broken entries are of kinds that public reports show: ultralytics/yolov5#5210 (numbers of pixels,
an unknown class), NVIDIA/DIGITS#992 (KITTI's fields), cvat-ai/cvat#4811 (one bad annotation fails a
whole import), datumaro#142, open-edge-platform/geti#7207, label-studio#3140 (other shapes),
BaseXdb/basex#61 (some of many XML files are broken), rooneysh/Labelme2YOLO#13.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding import InputError
from dataflow_grounding.formats import read
from tests.formats.data import draw, facts_of, records_of, refused
from tests.support.labelled import Box, Labelled, labelled, region, saved
from tests.support.workplace import Done, command, tar_of

SIDES = {"width": 64, "height": 48}
MOST = 5
GOOD = Box("cup", 10, 20, 30, 40)


class Bad(NamedTuple):
    """What is bad in a data set: a.png and its like can be read, b.png has one good box."""

    reasons: list[str]
    """What the reasons of all pictures that are left out say."""
    of_b: list[Any]
    of_c: list[Any] | None = None
    more: list[Any] = []
    """Images, tasks or rows without what they need."""
    files: dict[str, bytes] = {}


AREA = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
SHAPE = {"label": "cup", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}
NO_REGIONS = [("c.png", {}), ("e.png", {"grounding": {"caption": "A cup.", "regions": "junk"}})]
BAD = {
    "yolo": Bad(
        [
            "b.txt, line 2: class '7' is not one of the 2 names",
            "c.txt, line 1: 320 240 64 96 should be parts",
            "d.txt, line 1: is not UTF-8",
        ],
        ["7 0.5 0.5 0.25 0.25"],
        [],
        [Labelled("d.png", [])],
        files={"labels/c.txt": b"0 320 240 64 96\n\xff\xfe\n", "labels/d.txt": b"\xff\xfe\n"},
    ),
    "yolo-obb": Bad(
        ["b.txt, line 2: has 5 fields", "c.txt, line 1: its four corners"],
        ["0 .1 .1 .3 .3"],
        ["0 .1 .1 .2 .2 .3 .3 .4 .4"],
    ),
    "dota": Bad(
        ["b.txt, line 4: has 6 fields", "c.txt, line 3: ends with 'cup hard'"],
        ["10 20 60 70 cup 0"],
        ["10 20 60 20 60 40 10 40 cup hard"],
    ),
    "kitti": Bad(
        [
            "b.txt, line 2: the box 30 20 10 40 ends before it begins",
            "c.txt, line 1: has 4 fields",
            "d.txt: ",
        ],
        ["cup 0 0 0 30 20 10 40"],
        ["cup 10 20 30"],
        files={"images/d.png": b"no picture", "labels/d.txt": b"cup 0 0 0 10 20 30 40\n"},
    ),
    "coco": Bad(
        [
            "annotations.json, entry 8 of images: an image without 'id' and 'file_name'",
            "annotations.json, annotation 27: is not of this format (the box has a side",
            "annotations.json, annotation 28: is not of this format ('bbox' should be",
        ],
        [{"bbox": [9, 9, -3, 4]}],
        [{"bbox": ["1", 2, 3, 4]}],
        [{"id": 9}],
    ),
    "label-studio": Bad(
        [
            "region r3 is of a rotated picture",
            "no 'type' in it",
            "tasks.json, entry 8: ",
            "tasks.json, entry 9: is not of this format (no 'data' in it",
        ],
        [region("cup", AREA, id="r3", image_rotation=90)],
        [{"id": "r1"}],
        [7, {"annotations": [{"result": []}]}],
    ),
    "labelme": Bad(
        [
            "b.json, shape 2: is not of this format",
            "c.json, shape 1: is not of this format (a box without a label)",
            "d.json is not JSON",
        ],
        [{**SHAPE, "points": [[1, 2], [3]]}],
        [{**SHAPE, "label": None}],
        files={"d.json": b'{"shapes": ['},
    ),
    "cvat": Bad(
        [
            "annotations.xml, image 'b.png', box 2: is not of this format (the box [9.0,",
            "annotations.xml, image 'c.png', box 1: is not of this format (the rotation nan should",
            "annotations.xml, image 'd.png': no 'width' in it",
        ],
        ['<box label="cup" xtl="9" ytl="2" xbr="3" ybr="4"/>'],
        ['<box label="cup" xtl="1.5" ytl="2" xbr="3" ybr="4" rotation="nan"/>'],
        ['<image name="d.png"><box label="cup" xtl="1" ytl="2" xbr="3" ybr="4"/></image>'],
    ),
    "voc": Bad(
        [
            "b.xml, object 2: is not of this format (the box [30.0,",
            "c.xml, object 1: is not of this format (a corner of 'cup' is no number",
            "d.xml is not XML",
        ],
        [Box("cup", 30, 2, 1, 40)],
        [Box("cup", "", 2, 30, 40), Box("mug", 30, 2, 1, 40)],  # type: ignore[arg-type]
        files={"d.xml": b"<annotation><object>"},
    ),
    "odvg": Bad(
        [
            "odvg.jsonl, line 6, region 2: no 'bbox' in it",
            "odvg.jsonl, line 7: no 'grounding' in it",
            "odvg.jsonl, line 8: is not of this format ('regions' should be a list",
        ],
        [{"phrase": "cup"}, {"phrase": "cup", "bbox": [4]}],
        more=[{"filename": name, **SIDES, **grounding} for name, grounding in NO_REGIONS],
    ),
}


def data_set(folder: Path, format: str) -> Path:
    bad = BAD[format]
    pictures: list[Any] = [Labelled(f"a{n}.png", [GOOD] * MOST) for n in range(MOST)]
    pictures.append(Labelled("b.png", [GOOD, *bad.of_b]))
    if bad.of_c is not None:
        pictures.append(Labelled("c.png", bad.of_c))
    path = labelled(folder, format, [*pictures, *bad.more], classes=["cup", "mug"])
    for name, content in bad.files.items():
        (folder / name).write_bytes(content)
    return path


def run(verb: str, format: str, path: Path, out: Path, *more: str) -> Done:
    return command([verb, str(path), "--format", format, "-o", str(out), *more])


def records_in(results: Path) -> dict[str, dict[str, Any]]:
    """The records, by the names of their pictures."""
    return {Path(row["image_path"]).stem: row for row in records_of(results)}


def boxes(row: dict[str, Any]) -> int:
    return sum(len(expression["instances"]) for expression in row["expressions"])


class Imported(NamedTuple):
    """An import that went on after bad entries."""

    results: Path
    done: Done
    rows: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Imported]:

    @cache
    def of_format(format: str) -> Imported:
        folder = tmp_path_factory.mktemp(format)
        results = folder / "results"
        done = run("import", format, data_set(folder / "data", format), results, "--json")
        return Imported(results, done, records_in(results))

    return of_format


@pytest.mark.parametrize("format", BAD)
def test_what_can_be_read_is_imported_the_rest_is_named(
    format: str, imported: Callable[[str], Imported]
) -> None:
    results, done, rows = imported(format)
    reasons = BAD[format].reasons
    assert done.code == 1, done
    bad = json.loads(done.out)["bad"]
    assert bad["count"] == len(bad["entries"]) == len(reasons), bad
    for reason in reasons:
        assert sum(reason in entry for entry in bad["entries"]) == 1, (reason, bad["entries"])
    kept = json.loads((results / "run.json").read_text())
    assert kept["imported"]["bad"] == bad
    assert sorted(rows) == [f"a{n}" for n in range(MOST)]
    assert [boxes(row) for row in rows.values()] == [MOST] * MOST
    for name, row in rows.items():
        assert Path(row["image_id"]).name == name
        for expression in row["expressions"]:
            assert expression["expression_id"].startswith(f"{row['image_id']}#")


@pytest.mark.parametrize("format", BAD)
def test_strict_stops_at_the_first_and_leaves_nothing(format: str, tmp_path: Path) -> None:
    path, reasons = data_set(tmp_path / "data", format), BAD[format].reasons
    done = run("import", format, path, tmp_path / "out", "--strict")
    assert done.code == 2, done
    [line] = done.err.splitlines()
    assert sum(reason in line for reason in reasons) == 1, line
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError) as raised:  # in Python, where nothing would tell of them
        list(read(str(path), format))
    assert sum(reason in str(raised.value) for reason in reasons) == 1


@pytest.mark.parametrize("format", ["coco", "cvat", "voc", "label-studio"])
def test_a_source_gets_back_what_was_read(format: str, tmp_path: Path) -> None:
    path, out = data_set(tmp_path / "data", format), tmp_path / "out"
    results = tmp_path / "results"
    assert run("import", format, path, results).code == 1
    more = ["--images", "reference", "--image-root", str(path)]
    assert run("export", format, results, out, *more).code == 0
    again = run("import", format, out, tmp_path / "again", "--image-root", ".")
    assert again.code == 0, again  # nothing bad is in it
    assert len(records_in(tmp_path / "again")) == MOST


def test_the_summary_lists_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    pictures = [Labelled(f"{n}.png", [GOOD if n < 30 else "7 1 2"]) for n in range(53)]
    folder = labelled(tmp_path / "data", "yolo", pictures)
    done = run("import", "yolo", folder, tmp_path / "out")
    assert done.code == 1, done
    lines = done.out.splitlines()
    start = lines.index("left out as bad: 23 pictures")
    named = [".txt, line " in line for line in lines[start + 1 : start + 22]]
    assert named == [True] * 20 + [False]
    assert lines[start + 21] == "and 3 more"


@pytest.mark.parametrize(("readable", "code"), [(2, 2), (3, 1)])
def test_less_than_half_is_refused_and_half_is_not(
    readable: int, code: int, tmp_path: Path
) -> None:
    bad = [Labelled(f"bad{n}.png", ["7 1 2"]) for n in range(3)]
    good = [Labelled(f"{n}.png", [GOOD]) for n in range(readable)]
    folder = labelled(tmp_path / "data", "yolo", [*bad, *good])
    done = run("import", "yolo", folder, tmp_path / "out")
    assert done.code == code, done
    assert ("3 of 5 entries can't be read: " in done.err) == (code == 2)
    assert (tmp_path / "out").exists() == (code == 1)


@pytest.mark.parametrize("earlier", [[], ["pictures/mine.png", "notes.txt"]])
@pytest.mark.parametrize(("bad", "code"), [(2, 2), (1, 1)])
def test_a_refused_shard_leaves_nothing_in_a_folder_that_is_there(
    bad: int, code: int, earlier: list[str], tmp_path: Path
) -> None:
    record = {"image_path": "a.png", **SIDES, "expressions": []}
    draw(tmp_path, [record])
    rows = [json.dumps(record).encode(), *([b"{}"] * bad)]
    members = []
    for number, content in enumerate(rows):
        members.append((f"{number}.png", (tmp_path / "a.png").read_bytes()))
        members.append((f"{number}.json", content))
    out = tmp_path / "out"
    out.mkdir()
    for name in earlier:
        saved(out / name, "mine")
    done = run("import", "webdataset", tar_of(tmp_path / "a.tar", members), out)
    assert done.code == code, done
    expected = {out / name for name in earlier}
    if code == 1:
        [record] = records_of(out)
        expected |= {out / name for name in ("annotations.jsonl", "run.json", record["image_path"])}
    folders = {path.parent for path in expected} - {out}
    assert {*out.rglob("*")} == expected | folders


@pytest.mark.parametrize(("bad", "code"), [(50, 2), (49, 1)])
def test_none_of_the_first_fifty_is_refused(bad: int, code: int, tmp_path: Path) -> None:
    grounding = {"caption": "a cup", "regions": [{"phrase": "cup", "bbox": [1, 2, 3, 4]}]}
    good = {"filename": "a.png", **SIDES, "grounding": grounding}
    path = saved(tmp_path / "x.jsonl", [*[{}] * bad, *[good] * 60])
    done = run("import", "odvg", path, tmp_path / "out")
    assert done.code == code, done
    assert ("none of the first 50 entries can be read: " in done.err) == (code == 2)
    assert (tmp_path / "out").exists() == (code == 1)


def test_yolo_without_the_names_of_classes_is_refused_at_once(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", "yolo")
    (folder / "data.yaml").unlink()
    line = refused("import", folder, "--format", "yolo", "-o", tmp_path / "out")
    assert "no data.yaml or dataset.yaml or classes.txt or obj.names with the names of" in line
    assert "name the file that has them in place of the folder" in line
    names = saved(folder / "cups.yaml", "names: [cup, mug]\n")
    done = run("import", "yolo", names, tmp_path / "out")
    assert "names of classes" not in done.err


PIXELS = {"image_path": "b.png", "width": 64, "height": 48}
MUG = {"text": "a mug", "instances": [{"bbox": [1, 2, 3, 4]}]}
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
                {**PIXELS, "image_path": "a.png", "expressions": [MUG]},
            ],
            "line 1: is not of this format",
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
    ],
)
def test_lines_of_other_formats_are_left_out_too(
    form: str, rows: list[dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    draw(tmp_path, [{"image_path": name, **SIDES} for name in ("a.png", "b.png")])
    path, out = saved(tmp_path / "x.jsonl", rows), tmp_path / "out"
    bad = facts_of("import", path, "--format", form, "-o", out, code=1)["bad"]
    assert (bad["count"], any(reason in entry for entry in bad["entries"])) == (2, True), bad
    assert sum(map(boxes, records_of(out))) == 2
