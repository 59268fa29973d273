"""What an export and its import cost: CPU and memory, by format.

    python -m benchmarks.export_cost [--records 100000]

Records with two boxes each, whose pictures are left where they are; these are names of a few small
files. The second figures of a format are those of the import of what was exported.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks import inputs
from tests.support.measuring import COMMAND, Row, show, under, workplace
from tests.support.measuring import run as run_command

RECORDS, FILES = 100_000, 64
MEMORY_GOAL = 200.0  # MB, for any number of records
EXPORTED = (
    "odvg",
    "odvg-mmdet",
    "odvg-tao",
    "label-studio",
    "cvat",
    "coco",
    "ms-swift",
    "llava",
)
"""Formats in one file or few: for the others, the file system takes most of the time."""
WITH_TARGET = ("llava",)  # those that write a model's own numbers
NOUNS = ("man", "dog", "car", "tree", "cup", "sign", "house", "bird", "chair", "lamp")


def write_records(path: Path, pictures: list[Path]) -> None:
    """Write a record with two phrases of one box each for every picture."""
    draw = random.Random(0)
    with path.open("w") as file:
        for picture in pictures:
            first, second = draw.sample(NOUNS, 2)
            caption = f"a {first} next to a {second}"
            expressions = []
            for noun in (first, second):
                text = f"a {noun}"
                start = caption.index(text)
                x, y, side = draw.uniform(0, 800), draw.uniform(0, 600), draw.uniform(10, 300)
                box = [x, y, x + side, y + side]
                expressions.append(
                    {
                        "text": text,
                        "status": "grounded",
                        "char_span": [start, start + len(text)],
                        "instances": [{"bbox": box}],
                    }
                )
            line = {"image_path": picture.name, "caption": caption, "expressions": expressions}
            file.write(json.dumps(line) + "\n")


def measure(records: int) -> list[Row]:
    """CPU seconds and peak memory of each format's export, and of the import of it."""
    rows = []
    with workplace() as folder:
        files = inputs.pictures(folder / "files", FILES)
        pictures = folder / "pictures"
        source = folder / "records.jsonl"
        write_records(source, inputs.links(pictures, files, records))
        for name in EXPORTED:
            target, back = folder / name, folder / f"{name}-back"
            export = ["export", str(source), "--format", name, "-o", str(target)]
            read_back = ["import", str(target), "--format", name, "-o", str(back)]
            if name in WITH_TARGET:
                export += ["--target", "qwen3-vl"]
                read_back += ["--set", "target=qwen3-vl"]
            where = ["--image-root", str(pictures)]
            written = run_command([*COMMAND, *export, "--images", "reference", *where])
            read = run_command([*COMMAND, *read_back, *where])
            figures = f"{written.cpu_s:.1f} CPU s, {written.peak_mb:.0f} MB"
            figures += f"; back {read.cpu_s:.1f} CPU s, {read.peak_mb:.0f} MB"
            peak = max(written.peak_mb, read.peak_mb)
            _, goal, reached = under(peak, MEMORY_GOAL, "{:.0f} MB")
            rows.append(Row(f"{name}: {records:,} records", figures, goal, reached))
    return rows


if __name__ == "__main__":
    show(measure, RECORDS)
