"""Exports and imports of many records, some of whose pictures are broken, turned or missing."""

import json
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import formats
from dataflow_grounding._util.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48 + number)).save(folder / f"{number}.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (48, 64)).save(folder / "turned.jpg", exif=turned)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    return folder


def records(many: int) -> list[dict[str, Any]]:
    made = []
    for number in range(many):
        name, size = f"{number % 4}.jpg", (64, 48 + number % 4)
        name = {300: "broken.jpg", 301: "turned.jpg", 302: "missing.jpg", 303: "1.jpg"}.get(
            number, name
        )
        said = (
            {} if number == 302 else {"width": size[0], "height": 44 if number == 305 else size[1]}
        )
        box = {"text": f"thing {number}", "instances": [{"bbox": [1, 2, 30, 40]}]}
        made.append({"image_path": name, **said, "expressions": [box]})
    return made


def exported(folder: Path, pictures: Path, many: int) -> tuple[str, list[str], int]:
    options: dict[str, Any] = {"images": "reference", "folders": (str(pictures),)}
    done = formats.write(records(many), "odvg", str(folder / "out" / "odvg.jsonl"), **options)
    return (folder / "out" / "odvg.jsonl").read_text(), done.reasons, done.left_out


def test_what_is_wrong_with_a_few_is_told_and_the_others_are_written(
    tmp_path: Path, pictures: Path
) -> None:
    expected = exported(tmp_path, pictures, 600)
    assert len(expected[0].splitlines()) == 600 - expected[2] == 600 - 5
    assert all(
        word in reason
        for word, reason in zip(("broken.jpg", "turned", "missing"), expected[1], strict=True)
    )
    assert "broken.jpg' is not a readable image (these can be read: JPEG, PNG" in expected[1][0]


def test_pictures_are_packed_as_they_are(tmp_path: Path) -> None:
    box = {"text": "a thing", "instances": [{"bbox": [1, 2, 30, 40]}]}
    large = Image.effect_noise((200, 200), 90)
    for number in range(150):
        picture = (
            large
            if number % 4 == 3
            else Image.new("RGB", (64, 48), (number % 256, number // 256, 0))
        )
        picture.save(tmp_path / f"{number}.png")
    rows = [{"image_path": f"{number}.png", "expressions": [box]} for number in range(150)]
    formats.write(rows, "webdataset", str(tmp_path / "out"), folders=(str(tmp_path),))
    with tarfile.open(tmp_path / "out" / "shards" / "000000.tar") as tar:
        packed = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    expected = {f"{number}.png": (tmp_path / f"{number}.png").read_bytes() for number in range(150)}
    assert {name: data for name, data in packed.items() if not name.endswith(".json")} == expected


def test_the_first_wrong_line_is_named_and_all_before_it_are_read(
    tmp_path: Path, pictures: Path
) -> None:
    line = {"messages": [{"role": "user", "content": "<image>What is there?"}], "images": ["0.jpg"]}
    lines = [json.dumps(line)] * 1200
    lines[899], lines[1000] = json.dumps({**line, "images": ["missing.jpg"]}), "{"
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    reading = formats.read(str(tmp_path / "data.jsonl"), "ms-swift", image_root=str(pictures))
    assert {(record["width"], record["height"]) for record in islice(reading, 899)} == {(64, 48)}
    with pytest.raises(InputError, match=r"data\.jsonl, line 900: no image 'missing\.jpg'"):
        next(reading)
