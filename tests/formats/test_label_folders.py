"""Which pictures and label files of YOLO's, KITTI's and DOTA's folders an import takes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest

from tests.formats.data import command, records_of
from tests.support.labelled import Box, Labelled, labelled, saved

CUP = Box("cup", 1, 2, 30, 40)
YOLO_LINE = "0 .5 .5 .5 .5\n"


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size).save(path)
    return path


def imported(path: Path, format: str, out: Path, *more: object) -> tuple[int, dict[str, Any]]:
    """The exit code, and what --json says; a message of an error is under `error`."""
    done = command("import", path, "--format", format, "-o", out, "--json", *more)
    return done.code, json.loads(done.out) if done.out else {"error": done.err}


def rows_in(out: Path) -> dict[str, bool]:
    """By the picture's path, whether it is a background."""
    return {row["image_path"]: row.get("background", False) for row in records_of(out)}


@pytest.mark.parametrize("format", ["yolo", "yolo-obb", "kitti", "dota"])
def test_pictures_without_a_label_file_are_told(format: str, tmp_path: Path) -> None:
    """Ultralytics takes a picture without a label file for a background
    (docs.ultralytics.com/datasets/detect); in a half labelled folder it is none.
    """
    data = tmp_path / "data"
    labelled(data, format, [Labelled("a.png", [CUP]), Labelled("empty.png")])
    for number in range(4):
        picture(data / f"images/p{number}.jpg")
    code, said = imported(data, format, tmp_path / "out")
    told = (
        "pictures without a label file, read as backgrounds: 4 (images/p0.jpg; images/p1.jpg;"
        " images/p2.jpg; ...)"
    )
    assert (code, said["records"], said["remarks"]) == (0, 6, [told])
    code, said = imported(data, format, tmp_path / "strict", "--strict")
    assert (code, told in said["error"]) == (2, True)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("label", "real"),
    [
        ("img_1.txt", "IMG_1.png"),
        (unicodedata.normalize("NFD", "é.txt"), unicodedata.normalize("NFC", "é.png")),
    ],
)
def test_a_labels_name_may_differ_in_case_and_form(label: str, real: str, tmp_path: Path) -> None:
    data = labelled(tmp_path / "data", "yolo", [Labelled(real, [CUP])])
    [written] = (data / "labels").iterdir()
    written.rename(data / "labels" / label)
    code, said = imported(data, "yolo", tmp_path / "out", "--strict")
    assert (code, said.get("remarks")) == (0, []), said
    assert rows_in(tmp_path / "out") == {f"images/{real}": False}
    # another picture has it
    picture(data / "images" / label.replace("txt", "png"))
    code, said = imported(data, "yolo", tmp_path / "two")
    assert rows_in(tmp_path / "two")[f"images/{real}"] is True


class DataSet(NamedTuple):
    """A data set in `src`: its data.yaml, pictures with the label files that follow them, pictures
    without one, and other files; what an import of it reads and says.
    """

    data: str
    labelled: dict[str, str]
    read: list[str]
    remarks: list[str] = []
    bare: list[str] = []
    files: dict[str, str] = {}
    left_out: dict[str, int] = {}


TRAIN = {"src/images/train/a.png": "src/labels/train/a.txt"}
OUTSIDE = {"ds/images/b.png": "ds/labels/b.txt"}
TRAIN_A, OUTSIDE_B = ["images/train/a.png"], ["../ds/images/b.png"]
NOT_THERE = "named by the data set, but not there: 1"
BARE = "pictures without a label file, read as backgrounds: 1"
DATA_SETS = {
    "path": DataSet("path: ../ds\ntrain: images\nval: images\n", OUTSIDE, OUTSIDE_B),
    "path of another machine": DataSet("path: /content/gone\ntrain: images/train", TRAIN, TRAIN_A),
    "Roboflow's path": DataSet(
        "train: ../train/images\nval: null",
        {"src/train/images/a.png": "src/train/labels/a.txt"},
        ["train/images/a.png"],
    ),
    "a folder outside": DataSet(
        "train: [images/train, ../ds/images]\nval: images/train",
        TRAIN | OUTSIDE,
        TRAIN_A + OUTSIDE_B,
    ),
    "only what is named outside": DataSet(
        "train: ../ds/images/old",
        OUTSIDE | {"ds/images/old/c.png": "ds/labels/old/c.txt"},
        ["../ds/images/old/c.png"],
    ),
    "labels next to pictures": DataSet("train: ../ds", {"ds/b.png": "ds/b.txt"}, ["../ds/b.png"]),
    "a list of CVAT": DataSet(
        "path: ./\ntrain: train.txt",
        TRAIN | {"src/images/train/x.png": "src/labels/train/x.txt"},
        TRAIN_A,
        bare=["src/images/new/y.png"],
        files={"src/train.txt": "images/train/a.png\r\n\n"},
        left_out={"pictures that the data set's lists leave out": 2},
    ),
    "a list in another folder": DataSet(
        "train: lists/train.txt",
        TRAIN,
        TRAIN_A,
        files={"src/lists/train.txt": "./../images/train/a.png"},
    ),
    "labels next to pictures in images/": DataSet(
        "train: ../ds/images", {"ds/images/b.png": "ds/images/b.txt"}, OUTSIDE_B
    ),
    "a list of pictures outside": DataSet(
        "train: train.txt", OUTSIDE, OUTSIDE_B, files={"src/train.txt": "./../ds/images/b.png"}
    ),
    "a list next to labels": DataSet(
        "train: train.txt",
        {"src/b.png": "src/b.txt"},
        ["b.png"],
        [f"{NOT_THERE} (./gone.png of train.txt)"],
        files={"src/train.txt": "./b.png\n./gone.png\n"},
    ),
    "a list with data/ of Darknet": DataSet(
        "",
        {"src/obj_train_data/a.png": "src/obj_train_data/a.txt"},
        ["obj_train_data/a.png"],
        files={
            "src/obj.names": "cup\n",
            "src/obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n",
            "src/train.txt": "data/obj_train_data/a.png\n",
        },
    ),
    "a part that isn't there": DataSet(
        "train: images/train\ntest: images/test",
        TRAIN,
        TRAIN_A,
        [f"{NOT_THERE} (test: images/test)"],
    ),
    "a part without labels": DataSet(
        "train: images/train\ntest: images/test",
        TRAIN,
        ["images/test/t.png", *TRAIN_A],
        [f"{BARE} (images/test/t.png)"],
        bare=["src/images/test/t.png"],
    ),
    "pictures of other folders next to the parts": DataSet(
        "train: train",
        {"src/train/images/a.png": "src/train/labels/a.txt"},
        ["train/images/a.png", "train/cover.png"],
        [f"{BARE} (train/cover.png)"],
        bare=["src/train/cover.png"],
        files={"src/train/notes.txt": "of 2024"},
    ),
    "a class called train": DataSet("names: [train]", TRAIN, TRAIN_A),
}


def made(folder: Path, data_set: DataSet) -> Path:
    for name, label in data_set.labelled.items():
        picture(folder / name)
        saved(folder / label, YOLO_LINE)
    for name in data_set.bare:
        picture(folder / name)
    files = dict(data_set.files)
    if data_set.data:
        names = "" if "names" in data_set.data else "\nnames: [cup]\n"
        files["src/data.yaml"] = data_set.data + names
    for name, text in files.items():
        saved(folder / name, text)
    return folder / "src"


@pytest.mark.parametrize("name", DATA_SETS)
def test_what_a_yolo_data_set_names_is_read(name: str, tmp_path: Path) -> None:
    """As ultralytics' check_det_dataset and img2label_paths find it."""
    data_set = DATA_SETS[name]
    src = made(tmp_path, data_set)
    paths = [src, *src.glob("*.yaml")]
    for number, path in enumerate(paths):
        out = tmp_path / f"out{number}"
        code, said = imported(path, "yolo", out)
        assert code == 0, said
        assert (said["remarks"], said["left_out"]) == (data_set.remarks, data_set.left_out)
        assert list(rows_in(out)) == data_set.read
    strict = imported(src, "yolo", tmp_path / "strict", "--strict")
    assert strict[0] == (2 if data_set.remarks else 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("path: ../gone\ntrain: images/train\n", "(train: images/train)"),
        ("train: train.txt\n", "no picture in"),
    ],
)
def test_a_data_set_without_its_pictures_is_refused(data: str, why: str, tmp_path: Path) -> None:
    saved(tmp_path / "src/data.yaml", f"{data}names: [cup]\n")
    saved(tmp_path / "src/train.txt", "/old/a.png\n")
    code, said = imported(tmp_path / "src/data.yaml", "yolo", tmp_path / "out")
    assert (code, why in said["error"], len(said["error"].splitlines())) == (2, True, 1)


@pytest.mark.parametrize("format", ["yolo", "kitti", "dota", "voc", "labelme"])
def test_a_folder_without_a_picture_is_refused(format: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert imported(tmp_path / "src", format, tmp_path / "out")[0] == 2


@pytest.mark.parametrize("format", ["odvg", "odvg-mmdet"])
def test_a_file_without_a_line_is_refused(format: str, tmp_path: Path) -> None:
    code, said = imported(saved(tmp_path / "none.jsonl", "\n"), format, tmp_path / "out")
    assert (code, "holds nothing to read" in said["error"]) == (2, True)


@pytest.mark.parametrize("inside", ["", "README.txt", "z.png", "a.png"])
def test_the_named_image_root_goes_before_images(inside: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    labelled(data, "yolo", [Labelled("a.png", [CUP])], drawn=False)
    (data / "images").mkdir()
    if inside.endswith(".png"):
        picture(data / "images" / inside, (640, 480))
    elif inside:
        saved(data / "images" / inside, "")
    pictures = picture(tmp_path / "pictures/a.png").parent
    code, said = imported(data, "yolo", tmp_path / "out", "--image-root", pictures)
    assert (code, said["records"], said["remarks"]) == (0, 1, []), said
    assert rows_in(tmp_path / "out") == {"a.png": False}


def test_an_image_root_around_the_pictures_says_only_where_paths_start(tmp_path: Path) -> None:
    labelled(tmp_path / "data", "kitti", [Labelled("a.png", [CUP])])
    picture(tmp_path / "a.png")
    imported(tmp_path / "data", "kitti", tmp_path / "out", "--image-root", tmp_path)
    assert rows_in(tmp_path / "out") == {"data/images/a.png": False}


@pytest.mark.parametrize("place", ["", "train/", "train/images/"])
def test_parts_find_their_pictures_in_the_image_root(place: str, tmp_path: Path) -> None:
    saved(tmp_path / "data/classes.txt", "cup\n")
    for part in ("train", "val"):
        saved(tmp_path / f"data/{part}/labels/{part}.txt", YOLO_LINE)
        picture(tmp_path / "pictures" / place.replace("train", part) / f"{part}.png")
    root = ("--image-root", tmp_path / "pictures", "--strict")
    code, said = imported(tmp_path / "data", "yolo", tmp_path / "out", *root)
    assert code == 0, said
    assert list(rows_in(tmp_path / "out").values()) == [False, False]


def test_a_root_of_more_pictures_adds_none_to_those_of_the_data_set(tmp_path: Path) -> None:
    labelled(tmp_path / "data", "kitti", [Labelled("a.png", [CUP])])
    pictures = picture(tmp_path / "pictures/a.png").parent
    picture(pictures / "other.png")
    imported(tmp_path / "data", "kitti", tmp_path / "out", "--image-root", pictures)
    assert rows_in(tmp_path / "out") == {"a.png": False}


def test_labels_of_cvat_without_pictures_find_them_in_the_image_root(tmp_path: Path) -> None:
    """CVAT's export without images lists them all the same."""
    saved(tmp_path / "src/data.yaml", "path: ./\ntrain: train.txt\nnames: [cup]\n")
    saved(tmp_path / "src/train.txt", "images/train/a.png\n")
    saved(tmp_path / "src/labels/train/a.txt", YOLO_LINE)
    pictures = picture(tmp_path / "pictures/train/a.png").parents[1]
    root = ("--image-root", pictures, "--strict")
    code, said = imported(tmp_path / "src", "yolo", tmp_path / "out", *root)
    assert (code, said.get("remarks")) == (0, []), said
    assert rows_in(tmp_path / "out") == {"train/a.png": False}


def test_what_the_named_image_root_does_not_have_is_told(tmp_path: Path) -> None:
    labelled(tmp_path / "data", "kitti", [Labelled("a.png", [CUP])], drawn=False)
    pictures = picture(tmp_path / "pictures/b.png").parent
    code, said = imported(tmp_path / "data", "kitti", tmp_path / "out", "--image-root", pictures)
    assert (code, f"a.txt: no such picture in {pictures}" in said["error"]) == (2, True)
