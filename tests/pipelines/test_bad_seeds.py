"""Labels of a run that can't be read: each is a failure, and the rest of its picture goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding import seed_file
from dataflow_grounding.data.bad_entries import BadEntries
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.formats import find_format, read
from dataflow_grounding.testing import LoopbackServer
from tests.support.labelled import Box, Labelled, kitti, labelled, saved
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import command

SIZE = (200, 100)
MOST = 3
BOX = [10.0, 20.0, 50.0, 60.0]


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    made = ReferringPlace(tmp_path, server.base_url)
    for name in ("a.png", "b.png"):
        made.picture(name, SIZE)
    return made


def written(place: ReferringPlace, format: str, bad: list[Any], *more: Any) -> Path:
    """Labels of a.png with MOST boxes that can be read, and of b.png with one and bad ones."""
    good = Box("cup", *BOX)
    pictures = [Labelled("a.png", [good] * MOST, SIZE), Labelled("b.png", [good, *bad], SIZE)]
    return labelled(place.folder, format, [*pictures, *more], drawn=False)


def of_kitti(place: ReferringPlace) -> list[str]:
    written(place, "kitti", ["cup 1 2", Box("cup", 9, 2, 3, 4)])
    return ["b.txt, line 2: has 3 fields"]


def of_yolo(place: ReferringPlace) -> list[str]:
    written(place, "yolo", ["3 0.5 0.5 0.1 0.1", "0 9 9 4 4"])
    (place.labels / "classes.txt").write_text("cup\n")
    place.settings |= {"data.kitti_label_dir": None, "data.yolo_label_dir": str(place.labels)}
    return ["b.txt, line 2: class '3' is not one of the 1 names"]


def of_coco(place: ReferringPlace) -> list[str]:
    path = written(place, "coco", [{"bbox": [1, 2, -3, 4]}])
    place.settings |= {"data.kitti_label_dir": None, "data.coco_json": str(path)}
    less = "is not of this format (the box has a side of less than nothing)"
    return [f"annotations.json, annotation 5: {less}"]


OUTLINE = [10, 20, 50, 20, 50, 60]
LESS = "the box has a side of less than nothing"
ODD_ENTRIES: dict[str, tuple[dict[str, Any], tuple[str, list[float]] | None, str]] = {
    "a box": ({"bbox": [10, 20, 40, 40]}, ("cup", BOX), ""),
    "a flat box": ({"bbox": [10, 20, 40, 0]}, None, ""),
    "a box of a turned side": ({"bbox": [10, 20, -4, 40]}, None, LESS),
    "three numbers": ({"bbox": [10, 20, 40]}, None, "'bbox' should be"),
    "a list of boxes": ({"bbox": [[10, 20, 40, 40]]}, None, "'bbox' should be"),
    "a number": ({"bbox": 7}, None, "'bbox' should be"),
    "texts": ({"bbox": ["10", "20", "40", "40"]}, None, "'bbox' should be"),
    "a polygon alone": ({"segmentation": [OUTLINE]}, ("cup", BOX), ""),
    "a flat polygon": ({"segmentation": OUTLINE}, None, ""),
    "two polygons": (
        {"segmentation": [OUTLINE, [60, 20, 70, 20, 70, 70]]},
        ("cup", [10.0, 20.0, 70.0, 70.0]),
        "",
    ),
    "a polygon outside": (
        {"segmentation": [[900, 900, 950, 900, 950, 950]]},
        None,
        "",
    ),
    "a mask": ({"segmentation": {"counts": "04", "size": [4, 4]}}, None, ""),
    "neither": ({"caption": "a cup"}, None, ""),
    "no category": ({"bbox": [10, 20, 40, 40], "category_id": None}, ("", BOX), ""),
    "an unlisted one": ({"bbox": [10, 20, 40, 40], "category_id": 9}, ("", BOX), ""),
    "a place in the list": ({"bbox": [10, 20, 40, 40], "category_id": 3}, ("", BOX), ""),
    "its id as a text": ({"bbox": [10, 20, 40, 40], "category_id": "1"}, ("cup", BOX), ""),
    "nothing there": ({"bbox": [0, 0, 0, 0], "category_id": -1}, None, ""),
    "a score": ({"bbox": [10, 20, 40, 40], "score": 7}, ("cup", BOX), ""),
    "a crowd": ({"bbox": [10, 20, 40, 40], "iscrowd": 1}, None, ""),
}
"""What is odd about an annotation of a cup → its keys, its class and box, why it isn't read."""


class OddCoco(NamedTuple):
    """A COCO file with a picture for each of ODD_ENTRIES, as a run and as an import read it."""

    seeds: list[dict[str, Any]]
    told: str
    imported: list[dict[str, Any]]
    told_by_import: str


@pytest.fixture(scope="module")
def odd_coco(tmp_path_factory: pytest.TempPathFactory, one_server: LoopbackServer) -> OddCoco:
    place = ReferringPlace(tmp_path_factory.mktemp("odd"), one_server.base_url)
    pictures = []
    for number, (keys, _, _) in enumerate(ODD_ENTRIES.values(), 1):
        pictures.append(Labelled(f"{number:02}.png", [keys], SIZE))
    path = labelled(place.images, "coco", pictures)
    data = json.loads(path.read_text())
    data["categories"] += [{"name": "jug"}, {"id": 2}, {"name": "pot"}]
    saved(path, data)
    seeds = seed_file(str(place.folder / "s"), str(place.images), coco=str(path))
    out = place.folder / "imported"
    imported = command(["import", str(path), "--format", "coco", "-o", str(out)])
    place.settings |= {"data.kitti_label_dir": None, "data.coco_json": str(path)}
    told = place.run("--pilot", "2")
    return OddCoco(
        read_records(seeds),
        told.err,
        read_records(str(out / "annotations.jsonl")),
        imported.out + imported.err,
    )


@pytest.mark.parametrize("odd", ODD_ENTRIES)
def test_coco_is_read_by_one_rule_in_a_run_and_in_an_import(odd: str, odd_coco: OddCoco) -> None:
    _, expected, why = ODD_ENTRIES[odd]
    name = f"{[*ODD_ENTRIES].index(odd) + 1:02}"
    [regions] = [row["regions"] for row in odd_coco.seeds if row.get("image_id") == name]
    records = [row for row in odd_coco.imported if Path(row["image_path"]).stem == name]
    assert len(records) == (not why)
    classes = {"object": ""}  # a phrase needs a text
    by_import = [
        (classes.get(expression["text"], expression["text"]), instance["bbox"])
        for record in records
        for expression in record["expressions"]
        for instance in expression["instances"]
    ]
    by_run = [(region["type"], region["bbox"]) for region in regions]
    assert by_run == by_import == ([expected] if expected else [])
    of_it = [row for row in odd_coco.seeds if row["image_path"] == f"{name}.png"]
    failed = [row["seed_error"] for row in of_it if "seed_error" in row]
    assert len(failed) == bool(why)
    for error in failed:
        assert f"annotation {int(name)}: is not of this format ({why}" in error
        assert error in odd_coco.told_by_import


def test_coco_annotations_that_are_left_out_are_counted(odd_coco: OddCoco) -> None:
    for told in (
        "boxes without an area are left out: 1 (02.png: ",
        "crowd regions that are left out: 1.",
        "annotations without a box that are left out: 4.",
        "of a category that isn't listed, whose type step 0 asks for: 4.",
    ):
        assert told in odd_coco.told
    for told in (
        "boxes without an area (1",
        "crowd annotations (1",
        "annotations without a box (4",
        "category isn't listed, which are read as 'object' (4",
    ):
        assert told in odd_coco.told_by_import


ODD_LINES: dict[str, tuple[str, str, int]] = {
    "kitti: a box": ("kitti", kitti("cup", *BOX), 1),
    "kitti: a score": ("kitti", kitti("cup", *BOX, score="0.5"), 1),
    "kitti: a word of two": ("kitti", kitti("tea_cup", *BOX), 1),
    "kitti: DontCare": ("kitti", kitti("DontCare", *BOX), 0),
    "kitti: a flat box": ("kitti", kitti("cup", 10, 20, 10, 60), 0),
    "kitti: a turned box": ("kitti", kitti("cup", 50, 20, 10, 60), 0),
    "kitti: three fields": ("kitti", "cup 1 2", 0),
    "kitti: eight fields": ("kitti", "cup 0 0 0 10 20 50 60", 1),
    "kitti: seventeen fields": ("kitti", kitti("cup", *BOX, score="0.9 7"), 1),
    "kitti: eighteen fields": ("kitti", kitti("cup", *BOX, score="0.9 7 1"), 0),
    "kitti: no UTF-8": ("kitti", kitti("caf\udce9", *BOX), 0),
    "kitti: NaN": ("kitti", kitti("cup", "nan", 20, 50, 60), 0),
    "kitti: a comma": ("kitti", kitti("cup", "1,5", 20, 50, 60), 0),
    "kitti: a box beyond": ("kitti", kitti("cup", -10, 20, 900, 60), 1),
    "kitti: nothing": ("kitti", "", 0),
    "yolo: a box": ("yolo", "0 0.15 0.4 0.2 0.4", 1),
    "yolo: an outline": ("yolo", "0 0.1 0.1 0.4 0.1 0.4 0.4", 1),
    "yolo: a score": ("yolo", "0 0.15 0.4 0.2 0.4 0.9", 1),
    "yolo: a class as NumPy writes it": ("yolo", "0.0 0.15 0.4 0.2 0.4", 1),
    "yolo: a class without a name": ("yolo", "9 0.15 0.4 0.2 0.4", 0),
    "yolo: a flat box": ("yolo", "0 0.15 0.4 0 0.4", 0),
    "yolo: a turned box": ("yolo", "0 0.15 0.4 -0.2 0.4", 0),
    "yolo: pixels": ("yolo", "0 30 40 20 40", 0),
    "yolo: four fields": ("yolo", "0 0.15 0.4 0.2", 0),
}
"""A line of a label file → its format, the line, and how many boxes there are in it."""


@pytest.mark.parametrize("odd", ODD_LINES)
def test_label_files_are_read_by_one_rule_in_a_run_and_in_an_import(
    odd: str, place: ReferringPlace
) -> None:
    kind, line, count = ODD_LINES[odd]
    place.label("a.txt", [line])
    place.label("b.txt", [ODD_LINES[f"{kind}: a box"][1]] * MOST)
    (place.labels / "classes.txt").write_text("cup\n")
    seeds = seed_file(str(place.folder / "s"), str(place.images), **{kind: str(place.labels)})
    rows = read_records(seeds)
    (place.folder / "data.yaml").write_text("names: [cup]\n")
    source = find_format(kind)
    source.bad = BadEntries()
    imported = list(read(str(place.folder), source))
    by_import = [
        (expression["text"], instance["bbox"])
        for record in imported
        if record["image_path"].endswith("a.png")
        for expression in record["expressions"]
        for instance in expression["instances"]
    ]
    assert [(region["type"], region["bbox"]) for region in rows[0]["regions"]] == by_import
    assert len(by_import) == count
    assert [row["seed_error"] for row in rows if "seed_error" in row] == source.bad.named


Maker = Callable[[ReferringPlace], list[str]]


@pytest.mark.parametrize(
    ("maker", "negatives"),
    # negatives look for the types of all regions first
    [(of_kitti, None), (of_kitti, 1), (of_yolo, None), (of_coco, None)],
)
def test_each_is_a_failure_and_all_else_goes_on(
    maker: Maker, negatives: int | None, place: ReferringPlace
) -> None:
    reasons = maker(place)
    done = place.run(**{"workflow.negatives": negatives})
    assert done.code == 1, done
    rows = {row["image_path"]: row for row in place.annotations()}
    assert {len(row["regions"]) for row in rows.values()} == {MOST}
    failures = place.failures()
    assert len(failures) == len(reasons)
    for reason in reasons:
        assert sum(reason in failure["message"] for failure in failures) == 1, reason


def test_with_fewer_than_half_nothing_is_asked_or_written(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    reasons = of_kitti(place)
    (place.labels / "a.txt").unlink()
    (place.images / "a.png").unlink()
    done = place.run()
    assert done.code == 2
    assert any(reason in done.err.splitlines()[-1] for reason in reasons)
    assert not (place.results / "seed_annotations.jsonl").exists()
    assert not server.requests


def test_a_mended_label_is_read_again(place: ReferringPlace) -> None:
    reasons = of_yolo(place)
    checked = command(["check", "-e", str(place.spec())])
    assert (checked.code, reasons[0] in checked.err) == (2, True), checked
    assert place.run().code == 1
    place.label("b.txt", ["0 0.15 0.4 0.2 0.4"] * 2)
    assert place.run().code == 0
    rows = {row["image_path"]: row for row in place.annotations()}
    assert len(rows["b.png"]["regions"]) == 2
