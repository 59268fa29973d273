"""Pictures that a tool's file names differently from how they are called, or that are gone."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.formats import data
from tests.formats.data import facts_of, records_of, refused, succeeds, told
from tests.support.labelled import Box, Labelled, labelled, saved

CUP = Box("cup", 1, 2, 30, 40)
BY_NAME = ["coco", "cvat", "label-studio", "labelme", "voc"]
"""Formats whose files name their pictures."""


def draw(folder: Path, *names: str) -> None:
    data.draw(folder, [{"image_path": name, "width": 64, "height": 48} for name in names])


def paths(out: Path) -> list[str]:
    return [row["image_path"] for row in records_of(out)]


@pytest.mark.parametrize("format", BY_NAME)
def test_pictures_that_are_gone_are_counted(format: str, tmp_path: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    path = labelled(tmp_path, format, [Labelled(name, [CUP]) for name in names])
    for gone in ("b.png", "c.png"):
        (found,) = tmp_path.rglob(gone)
        found.unlink()
    arguments = ("import", path, "--format", format)
    (line,) = facts_of(*arguments, "-o", tmp_path / "back")["remarks"]
    assert line.startswith("no picture in ")
    assert "for 2 of 3, the first is" in line
    assert "b.png: name the right folder as --image-root" in line
    assert "b.png in " in refused(*arguments, "-o", tmp_path / "strict", "--strict")
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio", "labelme"])
def test_a_path_of_windows_leads_to_its_picture(format: str, tmp_path: Path) -> None:
    path = labelled(tmp_path, format, [Labelled("s1\\ä b.png", [CUP])], drawn=False)
    draw(tmp_path, "s1/ä b.png")
    done = succeeds("import", path, "--format", format, "-o", tmp_path / "back", "--strict")
    assert paths(tmp_path / "back") == ["s1/ä b.png"], done


def test_a_name_with_a_backslash_is_taken_before_a_folder(tmp_path: Path) -> None:
    path = labelled(tmp_path, "coco", [Labelled("s1\\a.png", [CUP])])
    draw(tmp_path, "s1/a.png")
    succeeds("import", path, "--format", "coco", "-o", tmp_path / "back")
    assert paths(tmp_path / "back") == ["s1\\a.png"]


@pytest.mark.parametrize(
    ("stated", "real"),
    [
        ("img_1.jpg", "IMG_1.JPG"),
        ("b.png", "JPEGImages/b.PNG"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
    ],
)
def test_a_name_may_differ_in_case_and_form(stated: str, real: str, tmp_path: Path) -> None:
    path = labelled(tmp_path, "coco", [Labelled(stated, [CUP])], drawn=False)
    draw(tmp_path, real, "other.png")
    said = facts_of("import", path, "--format", "coco", "-o", tmp_path / "back")
    assert paths(tmp_path / "back") == [real]
    assert said["remarks"] == [
        "pictures whose names differ in the case of letters or Unicode's form: 1, the first is"
        f" {stated}, which is {real}"
    ]


def test_of_two_names_that_differ_so_none_is_taken(tmp_path: Path) -> None:
    path = labelled(tmp_path, "coco", [Labelled("a.png", [CUP])], drawn=False)
    draw(tmp_path, "A.png", "a.PNG")
    said = told("import", path, "--format", "coco", "-o", tmp_path / "back")
    assert paths(tmp_path / "back") == ["a.png"]
    assert "1 of 1, the first is a.png" in said


@pytest.mark.parametrize(
    ("file", "picture", "path", "found"),
    [
        ("annotations.json", "images/a.png", ".", "images/a.png"),  # supervision
        ("labels.json", "data/a.png", ".", "data/a.png"),  # FiftyOne's COCODetectionDataset
        ("labels.json", "data/a.png", "labels.json", "data/a.png"),
        ("_annotations.coco.json", "a.png", ".", "a.png"),  # Roboflow
        ("annotations/x.json", "images/default/a.png", ".", "images/default/a.png"),  # CVAT
        ("annotations/x.json", "images/a.png", "annotations/x.json", "../images/a.png"),
        ("annotations/x.json", "images/a.png", "annotations", "../images/a.png"),
    ],
)
def test_coco_of_others_folders(
    file: str, picture: str, path: str, found: str, tmp_path: Path
) -> None:
    source = tmp_path / "data set"
    written = labelled(source, "coco", [Labelled("a.png", [CUP])], drawn=False)
    (source / file).parent.mkdir(exist_ok=True)
    written.rename(source / file)
    draw(source, picture)
    done = succeeds(
        "import", source / path, "--format", "coco", "-o", tmp_path / "back", "--strict"
    )
    assert paths(tmp_path / "back") == [found], done
    succeeds("export", tmp_path / "back", "--format", "yolo", "-o", tmp_path / "yolo")


def test_pictures_next_to_a_folder_of_another_name_are_not_taken(tmp_path: Path) -> None:
    """They may be of another data set."""
    path = labelled(tmp_path / "mine", "coco", [Labelled("a.png", [CUP])], drawn=False)
    draw(tmp_path, "images/a.png")
    succeeds("import", path, "--format", "coco", "-o", tmp_path / "back")
    assert paths(tmp_path / "back") == ["a.png"]


def test_of_several_files_the_user_names_one(tmp_path: Path) -> None:
    for part in ("test", "train"):
        labelled(tmp_path / part, "coco", [Labelled("a.png", [CUP])])
    line = refused("import", tmp_path, "--format", "coco", "-o", tmp_path / "back")
    assert "its .json files: 2 (test/annotations.json; train/annotations.json)" in line


def test_a_picture_under_another_name_goes_back_to_cvat_under_its_own(tmp_path: Path) -> None:
    path = labelled(tmp_path, "cvat", [Labelled("s1\\a.png", [CUP])], drawn=False)
    draw(tmp_path, "images/s1/a.png")
    succeeds("import", path, "--format", "cvat", "-o", tmp_path / "back")
    succeeds("export", tmp_path / "back", "--format", "cvat", "-o", tmp_path / "new.xml")
    assert 'name="s1\\a.png"' in (tmp_path / "new.xml").read_text("utf-8")


@pytest.mark.parametrize("name", ["annotations.jsonl", "classes.txt", "run.json"])
def test_an_import_writes_over_no_file_of_the_user(name: str, tmp_path: Path) -> None:
    path = labelled(tmp_path, "coco", [Labelled("a.png", [CUP])])
    saved(tmp_path / name, "mine")
    line = refused("import", path, "--format", "coco", "-o", tmp_path)
    assert f"{name} is there already" in line
    names = {found.name for found in tmp_path.iterdir()}
    assert names == {"annotations.json", "a.png", name}
    assert (tmp_path / name).read_text("utf-8") == "mine"
