"""Inputs of the benchmarks: pictures of a chosen size in bytes, and files of rows. All of it is
drawn, nothing fetched.

    python -m benchmarks.inputs FOLDER --count 1500 --width 1280 --height 960 --kilobytes 120

Writes equal pictures that differ in a comment segment, so that no two files have the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PHOTOS = Path(__file__).parent.parent / "example_data" / "images"
SIZE = (1280, 960)  # of photographs
THINGS = (
    "mug",
    "wooden table",
    "white cat",
    "street lamp",
    "red door",
    "bicycle",
    "open book",
    "window",
)


def pictures(
    folder: Path, count: int, width: int = 1280, height: int = 960, kilobytes: int = 120
) -> list[Path]:
    """JPEG files, equal in pixels and different in bytes. Made in a process of its own: Pillow
    would stay in this one's memory, and a process started from here counts the memory of its
    starter as its own peak.
    """
    sizes = ["--width", str(width), "--height", str(height), "--kilobytes", str(kilobytes)]
    subprocess.run(
        [sys.executable, __file__, str(folder), "--count", str(count), *sizes], check=True
    )
    return [folder / f"{number:06}.jpg" for number in range(count)]


def links(folder: Path, pictures: Sequence[Path], count: int) -> list[Path]:
    """As many paths as wanted for few files: hard links, so that a hundred thousand images take no
    disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        os.link(pictures[number % len(pictures)], path)
    return paths


def write_rows(path: Path, rows: Iterable[dict[str, object]]) -> Path:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def caption(number: int) -> str:
    """A caption that no other number has."""
    return (
        f"A {THINGS[number % 8]} next to a {THINGS[number // 8 % 8]}, as seen in picture number"
        f" {number}."
    )


def drawn(width: int, height: int, kilobytes: int) -> bytes:
    """A JPEG of about this many kilobytes: a gradient, with as much grain as that takes."""
    import PIL.Image

    source = random.Random(1)
    patches = PIL.Image.frombytes("RGB", (16, 12), source.randbytes(16 * 12 * 3))
    picture = patches.resize((width, height), PIL.Image.Resampling.BICUBIC)
    grain = (
        PIL.Image.frombytes("L", (256, 192), source.randbytes(256 * 192))
        .resize((width, height))
        .convert("RGB")
    )
    low, high = 0.0, 1.0
    data = b""
    for _ in range(12):
        share = (low + high) / 2
        file = io.BytesIO()
        PIL.Image.blend(picture, grain, share).save(file, "JPEG", quality=85)
        data = file.getvalue()
        low, high = (share, high) if len(data) < kilobytes * 1000 else (low, share)
    return data


def photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Paths of the example data's photos, enlarged to this size: hard links, which take no disk."""
    from PIL import Image

    folder.mkdir()
    files = []
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        files.append(folder / f"photo-{number}.jpg")
        Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS).save(
            files[-1], quality=88
        )
    return links(folder / "linked", files, count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for name in ("count", "width", "height", "kilobytes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    data = drawn(arguments.width, arguments.height, arguments.kilobytes)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        # a comment segment after the start marker makes each file different
        comment = b"\xff\xfe\x00\x0a%08d" % number
        (arguments.folder / f"{number:06}.jpg").write_bytes(data[:2] + comment + data[2:])


if __name__ == "__main__":
    main()
