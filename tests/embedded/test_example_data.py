"""The example data: whole, and grounded as well as the project says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.embedded._grounder import ground_phrases
from dataflow_grounding.embedded.captions import extract_expressions

EXAMPLES = Path(__file__).resolve().parents[2] / "example_data"
DRAWN = {"shapes", "landscape", "toys"}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


def test_gold_has_every_expression_of_every_caption() -> None:
    captions, gold = lines("captions.jsonl"), lines("gold.jsonl")
    assert [(row["image_path"], row["caption"]) for row in captions] == [
        (row["image_path"], row["caption"]) for row in gold
    ]
    for row in gold:
        read = [
            expression["text"] for expression in extract_expressions(row["caption"])["expressions"]
        ]
        assert [expression["text"] for expression in row["expressions"]] == read


def test_gold_boxes_lie_in_their_pictures() -> None:
    for row in lines("gold.jsonl"):
        with Image.open(EXAMPLES / row["image_path"]) as image:
            width, height = image.size
        for expression in row["expressions"]:
            for x1, y1, x2, y2 in (instance["bbox"] for instance in expression["instances"]):
                assert 0 <= x1 < x2 <= width, expression
                assert 0 <= y1 < y2 <= height, expression


def test_every_picture_has_its_source_and_its_caption() -> None:
    sources = (EXAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    captioned = {row["image_path"] for row in lines("captions.jsonl")}
    pictures = sorted((EXAMPLES / "images").iterdir())
    assert {f"images/{picture.name}" for picture in pictures} == captioned
    assert all(f"`images/{picture.name}`" in sources for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 1_000_000
    assert 6 <= len({picture.stem for picture in pictures} - DRAWN) <= 10


@pytest.mark.slow
def test_the_boxes_of_the_first_command_are_right_and_all_there() -> None:
    boxes = right = 0
    for row in lines("gold.jsonl"):
        with Image.open(EXAMPLES / row["image_path"]) as image:
            pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        phrases = [{"id": i, "text": e["text"]} for i, e in enumerate(row["expressions"])]
        objects = ground_phrases(pixels, phrases)["objects"]
        for thing in objects:
            gold = [instance["bbox"] for instance in row["expressions"][thing["id"]]["instances"]]
            boxes += 1
            right += max(iou(thing["bbox"], box) for box in gold) >= 0.5
    assert right == boxes == 18


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "folder", "count"),
    [("draw_scenes.py", EXAMPLES / "images", 3), ("draw_crowds.py", EXAMPLES, 6)],
)
def test_drawn_scenes_and_labels_are_what_their_script_draws(
    script: str, folder: Path, count: int, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / script), str(tmp_path)], check=True)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == count
    for path in made:
        there = folder / path.relative_to(tmp_path)
        if path.suffix == ".txt":
            assert path.read_text() == there.read_text()
            continue
        with Image.open(path) as drawn, Image.open(there) as shipped:
            assert drawn.size == shipped.size
            difference = np.abs(np.asarray(drawn).astype(int) - np.asarray(shipped).astype(int))
        assert difference.mean() < 1.0  # another version of the JPEG library may round otherwise
