"""Parquet and tar shards, through the libraries that people read them with."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import read, reading, whole_records, write
from tests.formats.data import draw, hostile, record
from tests.support.workplace import command

SIZE = (64, 48)


def exported(
    folder: Path, format: str, rows: list[dict[str, Any]], turn: int = 1, **more: Any
) -> Path:
    draw(folder / "pictures", rows, turn)
    write(rows, format, str(folder / format), folders=[str(folder / "pictures")], **more)
    return folder / format


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    """Records that have scores late, as a loader that guesses types by the first of them stumbles
    over.
    """
    box = {"bbox": [1, 2, 30, 40.5]}
    return [
        record(
            f"p{number}.jpg",
            SIZE,
            [{"text": "a mug", "instances": [{**box, "score": 0.5 if number > 6 else None}]}],
            **more,
        )
        for number in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "picture", "streaming"), [("datasets", "image", False), ("webdataset", "jpg", True)]
)
def test_load_dataset_reads_the_folder(
    format: str, picture: str, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(whole_records, "SHARD", 2**15)  # two or three records
    rows = numbered(9)
    out = exported(tmp_path, format, rows, turn=6)
    data = datasets.load_dataset(
        str(out), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(data.features[picture], datasets.Image)
    found = list(data)
    assert [one[picture].size for one in found] == [SIZE] * 9
    bodies = [one if format == "datasets" else one["json"] for one in found]
    assert [body["expressions"][0]["instances"][0]["score"] for body in bodies] == [None] * 7 + [
        0.5
    ] * 2
    assert bodies[0]["expressions"][0]["instances"][0]["bbox"] == [1, 2, 30, 40.5]
    assert [body["image_id"] for body in bodies] == [row["image_id"] for row in rows]
    shards = sorted(path.name for path in out.glob("*/*"))
    assert len(shards) > 2
    assert (
        shards[0]
        == {"datasets": f"train-00000-of-{len(shards):05}.parquet", "webdataset": "000000.tar"}[
            format
        ]
    )
    assert sorted(path.name for path in out.iterdir()) == ["README.md", Path(*out.glob("*/")).name]


@pytest.mark.slow
def test_webdataset_reads_pictures_and_records_side_by_side(tmp_path: Path) -> None:
    import webdataset

    rows = list(hostile())
    out = exported(tmp_path, "webdataset", rows)
    shards = [str(path) for path in (out / "shards").iterdir()]
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [one["__key__"] for one in found] == ["a b/ü x", "v1_2", "empty", "none", "twice"]
    for one, row in zip(found, rows, strict=True):
        assert one["png"].size == SIZE
        assert [e["text"] for e in one["json"]["expressions"]] == [
            e["text"] for e in row["expressions"]
        ]
        assert one["json"]["image_path"] == row["image_path"]


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_an_import_finds_the_pictures_that_it_unpacks(tmp_path: Path, format: str) -> None:
    out = exported(tmp_path, format, numbered(2))
    done = command(["import", str(out), "--format", format, "-o", str(tmp_path / "back")])
    assert (done.code, done.out) == (0, f"{tmp_path}/back/annotations.jsonl: 2 records\n")


@pytest.mark.parametrize("damage", ["one bit", "zeros"])
def test_a_shard_with_a_damaged_head_of_a_member_is_refused(tmp_path: Path, damage: str) -> None:
    """Python's tarfile takes such a head for the end of the file."""
    shard = exported(tmp_path, "webdataset", numbered(3)) / "shards" / "000000.tar"
    with tarfile.open(shard) as tar:
        third, name = tar.getmembers()[2].offset, tar.getnames()[1]
    content = bytearray(shard.read_bytes())
    content[third + 150] ^= 1  # within its checksum
    if damage == "zeros":
        content[third : third + 512] = bytes(512)
    shard.write_bytes(content)
    done = command(["import", str(shard), "--format", "webdataset", "-o", str(tmp_path / "back")])
    why = f"Error: {shard} is not a tar file that can be read: it is damaged after {name!r}\n"
    assert (done.code, done.err) == (2, why)
    assert not (tmp_path / "back").exists()


def test_pictures_without_a_record_are_counted(tmp_path: Path) -> None:
    shard = exported(tmp_path, "webdataset", numbered(2)) / "shards" / "000000.tar"
    with tarfile.open(shard) as tar, tarfile.open(tmp_path / "less.tar", "w") as less:
        for member in tar.getmembers()[:-1]:
            less.addfile(member, tar.extractfile(member))
    more = ["--format", "webdataset", "-o", str(tmp_path / "back"), "--json"]
    said = json.loads(command(["import", str(tmp_path / "less.tar"), *more]).out)
    first = f"{tmp_path}/less.tar, sample 'p1' (names up to the first dot)"
    left_out = {f"pictures without a record, of which the first is {first}": 1}
    assert (said["records"], said["left_out"]) == (1, left_out)


def packed(folder: Path, *names: str) -> Path:
    """A shard of members of these names: records that name no picture of theirs, and pictures."""
    shard = folder / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for number, name in enumerate(names):
            content = json.dumps({"image_path": name, "expressions": []}).encode()
            if not name.lower().endswith(".json"):
                buffer = io.BytesIO()
                PIL.Image.new("RGB", (8 + number, 9)).save(buffer, "png")
                content = buffer.getvalue()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return shard


def unpacked(shard: Path) -> tuple[list[tuple[str, int | None]], dict[str, Any]]:
    """Of each record the member that it was in, and the width of its picture; what is said."""
    back = shard.parent / "back"
    done = command(["import", str(shard), "--format", "webdataset", "-o", str(back), "--json"])
    assert done.code == 0, done
    found = []
    for line in (back / "annotations.jsonl").read_text().splitlines():
        row = json.loads(line)
        picture = back / row["image_path"]
        found.append((row["image_id"], PIL.Image.open(picture).width if picture.exists() else None))
    return found, json.loads(done.out)


DOTTED = ("22.05.png", "22.05.json", "22.06.json", "22.06.png", "b/22.png", "b/22.json")


@pytest.mark.parametrize("held", [2**26, 100])  # a key's members may be too large to be held
def test_names_with_dots_are_told_apart_by_their_stems(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were one sample "22" without a record, in silence."""
    monkeypatch.setattr(reading, "_HELD_BYTES", held)
    found, said = unpacked(packed(tmp_path, *DOTTED))
    assert found == [("22.05", 8), ("22.06", 11), ("b/22", 12)]
    (remark,) = said["remarks"]
    assert remark == (
        "samples by their names up to the last dot, as those up to the first dot had no picture or"
        f" no .json: 2, the first is {tmp_path}/a.tar, sample '22.05' (names up to the last dot)"
    )


def test_the_first_dot_ends_a_key_where_that_makes_a_sample(tmp_path: Path) -> None:
    found, said = unpacked(packed(tmp_path, "a.png", "a.json", "a.seg.png", "b.seg.png", "b.json"))
    assert [name for name, _ in found] == ["a", "b"]
    assert (found[0][1], said["left_out"]) == (8, {})
    what = "samples without a picture, whose records name one"
    where = f"{tmp_path}/a.tar, sample 'b' (names up to the first dot)"
    assert f"{what}: 1, the first is {where}" in said["remarks"]


def test_capitals_of_endings_make_no_difference(tmp_path: Path) -> None:
    found, said = unpacked(packed(tmp_path, "a.PNG", "a.JSON", "c.05.Png", "c.05.Json"))
    assert [width for _, width in found] == [8, 10]
    assert said["left_out"] == {}


def test_an_error_names_the_sample_and_the_rule(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x.y.json"))
        tar.addfile(tarfile.TarInfo("x.y.png"))
    arguments = ["import", str(tmp_path / "a.tar"), "--format", "webdataset"]
    done = command([*arguments, "-o", str(tmp_path / "back")])
    where = f"{tmp_path}/a.tar, sample 'x.y' (names up to the last dot): is not of this format"
    assert (done.code, where in done.err) == (2, True)


def test_equal_data_makes_equal_shards(tmp_path: Path) -> None:
    first, second = (exported(tmp_path / name, "webdataset", numbered(3)) for name in ("a", "b"))
    assert (first / "shards" / "000000.tar").read_bytes() == (
        second / "shards" / "000000.tar"
    ).read_bytes()


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
    mine = {
        "my column": {"a": [1, None]},
        "more": "mine too",
        "source": "image_grounding",
        "pipeline_steps": ["x"],
    }
    [row] = numbered(1, **mine)
    row["expressions"][0] |= {
        "verification": {"iou": 0.9},
        "reviewed_by": "me",
        "noun_chunk": "mug",
    }
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
    assert command(["import", str(out), "--format", format, "-o", str(back)]).code == 0
    found = [json.loads(line) for line in (back / "annotations.jsonl").read_text().splitlines()]
    for row in found:
        assert (back / row["image_path"]).resolve().is_relative_to(back)
        assert PIL.Image.open(back / row["image_path"]).size == SIZE
    assert (
        command(["export", str(back), "--format", "odvg", "-o", str(tmp_path / "again")]).code == 0
    )
    (out / "README.md").with_name(
        "broken.parquet" if format == "datasets" else "broken.tar"
    ).write_bytes(b"no")
    done = command(["import", str(out), "--format", format, "-o", str(tmp_path / "none")])
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
    done = command(["import", str(tmp_path), "--format", "datasets", "-o", str(results)])
    assert done.code == 0, done.err
    read_row = json.loads((results / "annotations.jsonl").read_text())
    (instance,) = read_row["expressions"][0]["instances"]
    assert (instance["bbox"], instance["score"]) == (box["bbox"], None)
    assert not {"area", "weight"} & {*instance, *read_row}


def test_a_file_that_holds_pictures_is_no_records(tmp_path: Path) -> None:
    path = str(next(exported(tmp_path, "datasets", numbered(1)).rglob("*.parquet")))
    for arguments in (
        ["split", path, "-o", str(tmp_path / "x")],
        ["lint", path],
        ["stats", path],
        ["eval", path, "--gold", path],
    ):
        done = command(arguments)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert (
            f"{path} holds its pictures: make it records first: dataflowgrounding import"
            in done.err
        )


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_convert_takes_the_pictures_out_whatever_the_folder_is_called(
    format: str, tmp_path: Path
) -> None:
    out, to = exported(tmp_path, format, numbered(1)), str(tmp_path / "train.v1")
    convert = ["convert", str(out), "--from", format, "--to", "odvg", "-o", to]
    assert command(convert).code == 0
    assert len(list(Path(to, "images").rglob("*.*"))) == 1
    done = command([*convert, "--images", "link"])
    assert (
        done.code,
        f"the pictures are in {out} itself: leave --images link out" in done.err,
    ) == (2, True)
    assert (
        command([*convert, "--images", "link", "--image-root", str(tmp_path / "pictures")]).code
        == 0
    )


@pytest.mark.parametrize("format", ["datasets", "webdataset"])
def test_pictures_can_not_be_left_where_they_are(format: str, tmp_path: Path) -> None:
    draw(tmp_path, numbered(1))
    (tmp_path / "annotations.jsonl").write_text(json.dumps(numbered(1)[0]))
    options = ["--format", format, "-o", str(tmp_path / "out"), "--image-root", str(tmp_path)]
    done = command(
        ["export", str(tmp_path / "annotations.jsonl"), *options, "--images", "reference"]
    )
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "copy or link them" in done.err
    assert not (tmp_path / "out").exists()
    assert (
        command(["export", str(tmp_path / "annotations.jsonl"), *options, "--images", "link"]).code
        == 0
    )


@pytest.mark.parametrize(
    ("format", "name", "content", "why"),
    [
        ("datasets", "a.parquet", b"PAR1", "is not a Parquet file"),
        ("webdataset", "a.tar", b"no tar", "is not a tar file"),
        ("webdataset", "a.tar", None, "a.tar.*no 'image_path' in it"),
        ("datasets", "a.txt", b"", "has no files that end in .parquet"),
    ],
)
def test_files_of_other_kinds_are_named(
    format: str, name: str, content: bytes | None, why: str, tmp_path: Path
) -> None:
    if content is None:
        (tmp_path / "x.json").write_text("{}")
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / "x.json", "x.json")
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        list(read(str(tmp_path), format))
    assert str(tmp_path) in str(caught.value)
