"""BBoxVisualizer: pictures of the right size, drawn again only when need be, under names that stay
in their folder.
"""

from __future__ import annotations

import inspect
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import BBoxVisualizer, draw_boxes
from dataflow_grounding._util.errors import StorageFailed
from tests.support.steps import storage_in

MUG = {"text": "a mug", "instances": [{"bbox": [5, 5, 30, 20]}]}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (64, 48), "gray").save(path)
    return path


def drawn(photo: Path, expressions: list[Any], **more: Any) -> Path:
    row = {"image_path": str(photo), "expressions": expressions, "image_id": "p", **more}
    return Path(BBoxVisualizer(photo.parent / "out")(row)["image_with_bbox"])


def test_a_copy_of_its_file_needs_names_of_the_door_alone() -> None:
    source = inspect.getsource(inspect.getmodule(BBoxVisualizer))  # type: ignore[arg-type]
    assert set(re.findall(r"from (dataflow_grounding\S*) import", source)) == {"dataflow_grounding"}


@pytest.mark.slow
def test_pictures_that_were_deleted_are_drawn_again_by_the_next_run(photo: Path) -> None:
    row = {"image_path": str(photo), "expressions": [MUG]}
    rows = [{**row, "image_id": name} for name in ("p", "q/r")]
    out = photo.parent / "out"

    def run() -> list[Path]:
        BBoxVisualizer(out).run(storage_in(photo.parent, *rows).step())
        return sorted(path.relative_to(out) for path in out.rglob("*.jpg"))

    assert run() == [Path("p.jpg"), Path("q/r.jpg")]
    before = (out / "p.jpg").stat().st_mtime_ns
    assert run() == [Path("p.jpg"), Path("q/r.jpg")]
    (out / "q/r.jpg").unlink()
    assert run() == [Path("p.jpg"), Path("q/r.jpg")]
    assert (out / "p.jpg").stat().st_mtime_ns == before
    shutil.rmtree(out)
    assert run() == [Path("p.jpg"), Path("q/r.jpg")]


def test_a_finished_run_draws_again_where_the_style_has_changed(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"image_path": str(photo), "expressions": [MUG], "image_id": "p"}
    picture = photo.parent / "out" / "p.jpg"

    def run() -> bytes:
        BBoxVisualizer(photo.parent / "out").run(storage_in(photo.parent, row).step())
        return picture.read_bytes()

    before = run()
    assert run() == before
    drawing: Any = inspect.getmodule(draw_boxes)
    edited = photo.parent / "edited.py"
    edited.write_text(inspect.getsource(drawing).replace("\nSTYLE = 1\n", "\nSTYLE = 2\n"))
    code = draw_boxes.__code__.replace(co_filename=str(edited))
    monkeypatch.setattr(draw_boxes, "__code__", code)
    monkeypatch.setattr(drawing, "STYLE", 2)
    assert run() != before, "a picture's comment has a digest of its style"


@pytest.mark.parametrize("turn", [1, 6])
def test_the_picture_is_upright_and_of_the_images_size(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    with Image.open(drawn(path, [MUG])) as picture:
        assert picture.size == ((48, 64) if turn >= 5 else (64, 48))
        assert picture.getexif().get(0x0112, 1) == 1


@pytest.mark.slow
def test_it_is_drawn_again_only_when_boxes_or_image_change(photo: Path) -> None:
    path = drawn(photo, [MUG])
    first = path.read_bytes()
    os.utime(path, ns=(1, 1))
    assert drawn(photo, [MUG]) == path
    assert path.stat().st_mtime_ns == 1, "nothing changed, nothing drawn"
    drawn(photo, [{"text": "a mug", "instances": [{"bbox": [5, 5, 31, 20]}]}])
    assert path.stat().st_mtime_ns != 1
    assert path.read_bytes() != first
    drawn(photo, [MUG])
    assert path.read_bytes() == first
    drawn(photo, [{**MUG, "text": "a cup"}])
    assert path.read_bytes() != first
    drawn(photo, [MUG])
    Image.new("RGB", (64, 48), "white").save(photo)
    drawn(photo, [MUG])
    with Image.open(path) as picture:
        pixel: Any = picture.getpixel((60, 44))
        assert pixel[0] > 240


@pytest.mark.parametrize("wreck", [b"", b"\xff\xd8\xff", b"text"], ids=["empty", "cut off", "text"])
def test_a_wrecked_picture_is_drawn_again(photo: Path, wreck: bytes) -> None:
    path = drawn(photo, [MUG])
    path.write_bytes(wreck)
    drawn(photo, [MUG])
    with Image.open(path) as picture:
        picture.load()


HOSTILE = [
    *("../../etc/passwd", "/etc/passwd", "..", ".", "/", "a/../../b", "a\0b", "C:\\Windows\\x"),
    *("x" * 5000, "图" * 100, "/".join(["deep"] * 400), "\ud800", "a\nb", "con?<>|*", "a//b", " "),
    *(7, 0),
]


@pytest.mark.parametrize("image_id", HOSTILE, ids=lambda value: ascii(str(value)[:20]))
def test_a_hostile_image_id_stays_in_the_folder(photo: Path, image_id: Any) -> None:
    path = drawn(photo, [MUG], image_id=image_id)
    folder = (photo.parent / "out").resolve()
    assert folder in path.resolve().parents
    assert path.suffix == ".jpg"
    with Image.open(path) as picture:
        assert picture.size == (64, 48)


@pytest.mark.slow
def test_ids_that_look_alike_have_pictures_of_their_own(photo: Path) -> None:
    ids = [
        *("street/süß 1", "a:b", "a?b", "a_b", "a//b", "a/b", "a/./b", "/a/b"),
        *("x" * 300 + "1", "x" * 300 + "2", "图" * 100, "图" * 101),
    ]
    row = {"image_path": str(photo), "expressions": [MUG]}
    rows = [{**row, "image_id": image_id} for image_id in [*ids, *ids]]
    done = BBoxVisualizer(photo.parent / "out")(rows)
    assert not done.failures
    paths = [record["image_with_bbox"] for record in done]
    assert len({os.path.realpath(path) for path in paths}) == len(rows)
    assert Path(paths[0]) == photo.parent / "out" / "street" / "süß 1.jpg"
    again = BBoxVisualizer(photo.parent / "out")(rows)
    assert [record["image_with_bbox"] for record in again] == paths


@pytest.mark.parametrize(
    "bboxes",
    [
        pytest.param([], id="no box"),
        pytest.param([[30, 20, 5, 5]], id="corners swapped"),
        pytest.param([[5, 5, 5, 5]], id="no area"),
        pytest.param([[100, 100, 200, 200]], id="wholly outside"),
        pytest.param([[1e300, 0, 1e301, 1]], id="beyond all measure"),
    ],
)
def test_any_box_or_none_gives_a_picture(photo: Path, bboxes: list[list[float]]) -> None:
    instances = [{"bbox": bbox} for bbox in bboxes]
    with Image.open(drawn(photo, [{"text": "a mug", "instances": instances}])) as picture:
        assert picture.size == (64, 48)


def test_a_full_disk_stops_the_run_and_fails_no_record(photo: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StorageFailed, match=r"File too large.*run the same command again"):
            drawn(photo, [MUG])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
