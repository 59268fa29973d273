"""Pictures of a phone, which EXIF turns: labels are of the upright picture, in and out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps
import pytest

from dataflow_grounding.formats import read
from tests.formats.data import boxes_of, command, record, records_of, succeeds
from tests.support.labelled import Box, Labelled, labelled, saved
from tests.support.opened import opened

STORED, UPRIGHT = (64, 48), (48, 64)
BOX = [10, 6, 34, 20]  # of the upright picture
MUG = {"text": "mug", "class": "mug", "instances": [{"bbox": BOX, "score": None}]}


def photo(path: Path, orientation: int = 6) -> None:
    """A JPEG as a phone stores it: upright it has a red rectangle at BOX."""
    upright = PIL.Image.new("RGB", UPRIGHT, "black")
    x1, y1, x2, y2 = BOX
    PIL.ImageDraw.Draw(upright).rectangle((x1, y1, x2 - 1, y2 - 1), "#ff0000")
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    upright.rotate(90, expand=True).save(path, exif=exif, quality=100, subsampling=0)


def red_box(path: Path, *, as_shown: bool) -> list[int]:
    """Where a picture is red, as a viewer shows it or for one that ignores its orientation."""
    with PIL.Image.open(path) as picture:
        seen = PIL.ImageOps.exif_transpose(picture) if as_shown else picture
        box = seen.getchannel("R").point(lambda value: 255 * (value > 127)).getbbox()
    assert box is not None
    return list(box)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    photo(folder / "a.jpg")
    assert red_box(folder / "a.jpg", as_shown=True) == BOX
    saved(folder / "annotations.jsonl", [record("a.jpg", UPRIGHT, [MUG])])
    return folder


def boxes_in(results: Path) -> list[list[float]]:
    found = []
    for row in records_of(results):
        for boxes in boxes_of(row).values():
            found += [[round(edge, 6) for edge in box] for box in boxes]
    return found


@pytest.mark.parametrize("format", ["cvat", "label-studio", "labelme"])
@pytest.mark.parametrize("images", ["reference", "copy"])
def test_a_labelling_tool_gets_it_and_gives_it_back(
    format: str, images: str, run: Path, tmp_path: Path
) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    succeeds("export", run, "--format", format, "-o", out, "--images", images)
    if images == "copy":
        assert red_box(out / "images/a.jpg", as_shown=True) == BOX
    root = out if images == "copy" else run
    succeeds("import", out, "--format", format, "-o", back, "--image-root", root)
    assert boxes_in(back) == [BOX]


@pytest.mark.parametrize("images", ["copy", "link", "reference"])
def test_a_trainer_gets_an_upright_copy_or_nothing(images: str, run: Path, tmp_path: Path) -> None:
    photo(run / "b.jpg", orientation=1)
    rows = [record("a.jpg", UPRIGHT, [MUG]), record("b.jpg", STORED, [MUG])]
    saved(run / "annotations.jsonl", rows)
    out = tmp_path / "out"
    done = command("export", run, "--format", "coco", "-o", out, "--images", images)
    if images == "reference":
        assert (done.code, "'a.jpg' is turned by its EXIF" in done.err) == (1, True), done
        assert [row["image_path"] for row in read(str(out), "coco")] == ["b.jpg"]
        return
    assert done.code == 0, done
    assert red_box(out / "images/a.jpg", as_shown=False) == BOX
    assert (out / "images/b.jpg").is_symlink() == (images == "link")
    assert (out / "images/b.jpg").read_bytes() == (run / "b.jpg").read_bytes()
    succeeds("import", out, "--format", "coco", "-o", tmp_path / "back")
    assert boxes_in(tmp_path / "back") == [BOX, BOX]


EXIFTOOL = """
import sys
import PIL.Image
_, option, path = sys.argv
assert option == "-Orientation="
with PIL.Image.open(path) as picture:
    picture.save(path, exif=b"", quality=100, subsampling=0)
"""


@pytest.mark.parametrize("name", ["a.jpg", f"{'long ' * 40}/Anna's  {'photo' * 30}.jpg"])
def test_labels_of_the_picture_as_stored_are_left_out_with_the_line_that_helps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    photo(data / name)
    photo(data / "b.jpg", orientation=1)  # whose labels are right
    seen = red_box(data / name, as_shown=False)
    pictures = [Labelled(each, [Box("mug", *seen)], STORED) for each in (name, "b.jpg")]
    path = labelled(data, "coco", pictures, classes=["mug"], drawn=False).relative_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = command("import", path, "--format", "coco", "-o", out)
    assert done.code == 1, done
    [line] = [each for each in (done.out + done.err).splitlines() if "exiftool" in each]
    assert "remove that tag, and don't turn the picture: exiftool -Orientation= " in line
    assert boxes_in(out) == [seen]  # of b.jpg
    tool = saved(tmp_path / "bin/exiftool", f"#!{sys.executable}\n{EXIFTOOL}")
    tool.chmod(0o755)
    pasted = line[line.index("exiftool ") :]
    subprocess.run(["/bin/sh", "-c", pasted], env={"PATH": str(tool.parent)}, cwd="/", check=True)
    succeeds("import", path, "--format", "coco", "-o", tmp_path / "mended")
    assert boxes_in(tmp_path / "mended") == [seen, seen]
    assert red_box(data / name, as_shown=True) == seen


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_import_opens_each_picture_once(name: str, tmp_path: Path) -> None:
    """Both for its orientation and for its size."""
    PIL.Image.new("RGB", UPRIGHT).save(tmp_path / name)
    path = labelled(tmp_path, "coco", [Labelled(name, [Box("cup", *BOX)], UPRIGHT)], drawn=False)
    with opened() as times:
        succeeds("import", path, "--format", "coco", "-o", tmp_path / "back")
    assert times[name] == 1
