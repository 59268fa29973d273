"""Parquet and tar shards, through the libraries that people read them with."""

from __future__ import annotations

import io
import json
import math
import sys
import tarfile
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import read, whole_records
from tests.formats.data import (
    command,
    exported,
    facts_of,
    record,
    records_of,
    refused,
    run_of,
    succeeds,
)
from tests.support.workplace import tar_of

SIZE = (64, 48)


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    """Records that have scores late, as a loader that guesses types by the first of them stumbles
    over.
    """
    box = {"bbox": [1, 2, 30, 40.5]}
    rows = []
    for number in range(count):
        mug = {"text": "a mug", "instances": [{**box, "score": 0.5 if number > 6 else None}]}
        rows.append(record(f"p{number}.jpg", SIZE, [mug], **more))
    return rows


@pytest.mark.slow
def test_load_dataset_reads_columns_whose_type_shows_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(whole_records, "SHARD", 2**15)  # two or three records
    rows = numbered(9)
    out = exported(tmp_path, "datasets", rows, turn=6)
    files, cache = str(out / "data/*.parquet"), str(tmp_path / "cache")
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert isinstance(data.features["image"], datasets.Image)
    found = list(data)
    assert [one["image"].size for one in found] == [SIZE] * 9
    boxes = [one["expressions"][0]["instances"][0] for one in found]
    assert [box["score"] for box in boxes] == [None] * 7 + [0.5] * 2
    assert boxes[0]["bbox"] == [1, 2, 30, 40.5]
    assert [one["image_id"] for one in found] == [row["image_id"] for row in rows]


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_files_are_of_about_a_size(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_records, "SHARD", 2**15)  # two or three records
    out = exported(tmp_path, format, numbered(9))
    shards = sorted(path.name for path in out.glob("*/*"))
    assert len(shards) > 2
    parquet = f"train-00000-of-{len(shards):05}.parquet"
    assert shards[0] == (parquet if format == "datasets" else "000000.tar")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", Path(*out.glob("*/")).name]
    assert len(list(read(str(out), format))) == 9


@pytest.mark.parametrize("damage", ["one bit", "zeros"])
def test_a_shard_with_a_damaged_head_of_a_member_is_refused(tmp_path: Path, damage: str) -> None:
    """Python's tarfile takes such a head for the end of the file."""
    members = []
    for number in range(3):
        row = json.dumps({"image_path": f"{number}.png", "expressions": []}).encode()
        members += [(f"{number}.json", row), (f"{number}.png", bytes(20_000))]
    shard = tar_of(tmp_path / "a.tar", members)
    with tarfile.open(shard) as tar:
        third = tar.getmembers()[2].offset
    content = bytearray(shard.read_bytes())
    content[third + 150] ^= 1  # within its checksum
    content[third + 600 :: 5000] = b"x" * len(content[third + 600 :: 5000])
    if damage == "zeros":
        content[third : third + 512] = bytes(512)
    shard.write_bytes(content)
    line = refused("import", shard, "--format", "webdataset", "-o", tmp_path / "back")
    why = f"{shard} is not a tar file that can be read: it is damaged after 1 samples"
    assert line == f"Error: {why}"
    assert not (tmp_path / "back").exists()


def test_pictures_without_a_record_are_counted(tmp_path: Path) -> None:
    shard = exported(tmp_path, "webdataset", numbered(2)) / "shards" / "000000.tar"
    with tarfile.open(shard) as tar, tarfile.open(tmp_path / "less.tar", "w") as less:
        for member in tar.getmembers()[:-1]:
            less.addfile(member, tar.extractfile(member))
    arguments = ("import", tmp_path / "less.tar", "--format", "webdataset")
    said = facts_of(*arguments, "-o", tmp_path / "back")
    first = f"{tmp_path}/less.tar, sample 'p1' (names up to the first dot)"
    assert (said["records"], said["left_out"]) == (1, {"pictures without a record": 1})
    assert said["left_out_first"] == {"pictures without a record": first}


def packed(folder: Path, *names: str) -> Path:
    """A shard of members of these names: records that name no picture of theirs, and pictures."""
    members = []
    for number, name in enumerate(names):
        content = json.dumps({"image_path": name, "expressions": []}).encode()
        if not name.lower().endswith(".json"):
            buffer = io.BytesIO()
            PIL.Image.new("RGB", (8 + number, 9)).save(buffer, "png")
            content = buffer.getvalue()
        members.append((name, content))
    return tar_of(folder / "a.tar", members)


def unpacked(shard: Path) -> tuple[list[tuple[str, int | None]], dict[str, Any]]:
    """Of each record the member that it was in, and the width of its picture; what is said."""
    back = shard.parent / "back"
    said = facts_of("import", shard, "--format", "webdataset", "-o", back)
    found = []
    for row in records_of(back):
        picture = back / row["image_path"]
        found.append((row["image_id"], PIL.Image.open(picture).width if picture.exists() else None))
    return found, said


def test_a_sample_whose_key_has_a_dot_is_named(tmp_path: Path) -> None:
    shard = packed(tmp_path, "22.05.png", "22.05.json", "b/22.png", "b/22.json")
    found, said = unpacked(shard)
    assert found == [("b/22", 10)]
    first = f"{shard}, sample '22' (names up to the first dot)"
    assert said["left_out_first"] == {"samples without a record": first}


def test_the_first_dot_ends_a_key_where_that_makes_a_sample(tmp_path: Path) -> None:
    found, said = unpacked(packed(tmp_path, "a.png", "a.json", "a.seg.png", "b.seg.png", "b.json"))
    assert [name for name, _ in found] == ["a", "b"]
    assert (found[0][1], said["left_out"]) == (8, {})
    what = "samples without a picture, whose records name one"
    where = f"{tmp_path}/a.tar, sample 'b' (names up to the first dot)"
    assert f"{what}: 1, the first is {where}" in said["remarks"]


def test_capitals_of_endings_make_no_difference(tmp_path: Path) -> None:
    found, said = unpacked(packed(tmp_path, "a.PNG", "a.JSON"))
    assert ([width for _, width in found], said["left_out"]) == ([8], {})


def test_an_error_names_the_sample(tmp_path: Path) -> None:
    shard = tar_of(tmp_path / "a.tar", [("x.json", b""), ("x.png", b"")])
    done = command("import", shard, "--format", "webdataset", "-o", tmp_path / "back")
    where = f"{shard}, sample 'x' (names up to the first dot): is not of this format"
    assert (done.code, where in done.err) == (2, True)


def test_shards_need_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    shard = packed(tmp_path, "a.png", "a.json")
    line = refused("import", shard, "--format", "webdataset", "-o", tmp_path / "back")
    assert "pip install 'dataflow-grounding[webdataset]'" in line


def test_nothing_in_a_shard_is_unpickled(tmp_path: Path) -> None:
    """What `webdataset`'s own decoders would do with these endings."""
    bad = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    row = json.dumps({"image_path": "a.png", "expressions": []}).encode()
    members = [("a.json", row), *((f"a.{ending}", bad) for ending in ("pyd", "pickle", "pth"))]
    shard = tar_of(tmp_path / "a.tar", members)
    succeeds("import", shard, "--format", "webdataset", "-o", tmp_path / "back")
    assert not (tmp_path / "ran").exists()


def test_equal_data_makes_equal_shards_of_the_pictures_as_they_are(tmp_path: Path) -> None:
    shards = []
    for name in ("a", "b"):
        out = exported(tmp_path / name, "webdataset", numbered(3))
        shards.append(out / "shards" / "000000.tar")
    assert shards[0].read_bytes() == shards[1].read_bytes()
    with tarfile.open(shards[0]) as tar:
        packed = tar.extractfile("p2.jpg")
        assert packed is not None
        assert packed.read() == (tmp_path / "a" / "pictures" / "p2.jpg").read_bytes()


def test_no_two_samples_of_a_shard_have_one_name(tmp_path: Path) -> None:
    """Of one picture with two captions, and where dots make way."""
    rows = [record(name, SIZE, []) for name in ("a.b.png", "a_b.png", "a_b.png")]
    out = exported(tmp_path, "webdataset", rows)
    with tarfile.open(out / "shards" / "000000.tar") as tar:
        names = tar.getnames()
    assert len(set(names)) == len(names) == 6
    assert len(list(read(str(out), "webdataset"))) == 3


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_everything_in_a_record_comes_back(format: str, tmp_path: Path) -> None:
    mine = {"my column": {"a": [1, None]}, "more": "mine too"}
    [row] = numbered(1, **mine, source="image_grounding", pipeline_steps=["x"])
    verified = {"verification": {"iou": 0.9}, "reviewed_by": "me"}
    row["expressions"][0] |= {**verified, "noun_chunk": "mug"}
    mine_of_box = {"bbox_id": "p0#0.7", "evidence": "seen", "more": [1]}
    row["expressions"][0]["instances"][0] |= mine_of_box
    [found] = read(str(exported(tmp_path, format, [row])), format)
    assert found == row


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_import_takes_the_pictures_out(format: str, tmp_path: Path) -> None:
    rows = [{**row, "image_path": f"../{row['image_path']}"} for row in numbered(2)]
    out, back = exported(tmp_path, format, rows), tmp_path / "back"
    for path in out.rglob("*"):
        assert "p0" not in path.name
    (tmp_path / "p0.jpg").unlink()
    done = succeeds("import", out, "--format", format, "-o", back)
    assert done.out == f"{back}/annotations.jsonl: 2 records\n"
    for row in records_of(back):
        assert (back / row["image_path"]).resolve().is_relative_to(back)
        assert PIL.Image.open(back / row["image_path"]).size == SIZE
    succeeds("export", back, "--format", "odvg", "-o", tmp_path / "again")
    (out / ("broken.parquet" if format == "datasets" else "broken.tar")).write_bytes(b"no")
    done = command("import", out, "--format", format, "-o", tmp_path / "none")
    assert (done.code, (tmp_path / "none").exists()) == (2, False)


def test_nan_of_another_writer_of_parquet_is_nothing(tmp_path: Path) -> None:
    picture = io.BytesIO()
    PIL.Image.new("RGB", SIZE).save(picture, "PNG")
    box = {"bbox": [1.0, 2.0, 30.0, 40.0], "score": math.nan, "area": math.nan}
    row = {
        "image": {"bytes": picture.getvalue(), "path": "a.png"},
        "image_path": "a.png",
        "weight": math.nan,
        "expressions": [{"text": "a mug", "instances": [box]}],
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "train.parquet")
    results = tmp_path / "results"
    succeeds("import", tmp_path, "--format", "datasets", "-o", results)
    [read_row] = records_of(results)
    (instance,) = read_row["expressions"][0]["instances"]
    assert (instance["bbox"], instance["score"]) == (box["bbox"], None)
    assert not {"area", "weight"} & {*instance, *read_row}


def test_a_file_that_holds_pictures_is_no_records(tmp_path: Path) -> None:
    path = next(exported(tmp_path, "datasets", numbered(1)).rglob("*.parquet"))
    why = f"{path} holds its pictures: make it records first: dataflowgrounding import"
    for arguments in (("split", "-o", tmp_path / "x"), ("stats",), ("eval", "--gold", path)):
        assert why in refused(arguments[0], path, *arguments[1:])


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_pictures_can_not_be_left_where_they_are(format: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, numbered(1))
    export = ("export", run, "--format", format, "-o", tmp_path / "out")
    assert "copy or link them" in refused(*export, "--images", "reference")
    assert not (tmp_path / "out").exists()
    succeeds(*export, "--images", "link")


def test_a_record_that_names_no_picture_is_refused(tmp_path: Path) -> None:
    shard = tar_of(tmp_path / "a.tar", [("x.json", b"{}")])
    with pytest.raises(InputError, match=r"a\.tar.*no 'image_path' in it"):
        list(read(str(shard), "webdataset"))
