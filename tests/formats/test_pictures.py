"""A picture with several captions, as COCO's, is one picture to a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.data import draw, facts_of, record
from tests.support.labelled import saved

SIZE = (64, 48)
CAT = [1.0, 2.0, 30.0, 40.0]


def said(name: str, text: str, status: str = "grounded", **more: Any) -> dict[str, Any]:
    boxes = [{"bbox": CAT, "score": 0.5}] if status == "grounded" else []
    return record(name, SIZE, [{"text": text, "status": status, "instances": boxes, **more}])


def exported(folder: Path, rows: list[dict[str, Any]], *options: str) -> dict[str, Any]:
    draw(folder, rows)
    saved(folder / "annotations.jsonl", rows)
    export = ("export", folder / "annotations.jsonl", "-o", folder / "out", *options)
    return facts_of(*export, "--image-root", folder)


@pytest.mark.parametrize("format", ["yolo", "coco", "kitti", "voc"])
def test_captions_of_one_picture_are_one_record_and_each_thing_once(
    format: str, tmp_path: Path
) -> None:
    rows = [said("a.png", "a cat"), said("a.png", "the brown cat"), said("a.png", "a cat")]
    facts = exported(tmp_path, rows, "--format", format, "--classes", "head")
    assert (facts["records"], facts["boxes"]) == (1, 1)


def test_what_any_caption_says_of_the_picture_counts(tmp_path: Path) -> None:
    rows = [said("a.png", "a cat"), {**said("a.png", "a dog", "none"), "background": False}]
    rows += [said("b.png", "a cat"), {**said("b.png", "a dog", "none"), "missed": ["a dog"]}]
    facts = exported(tmp_path, rows, "--format", "yolo", "--classes", "head")
    assert facts["records"] == 1  # a person says that a dog is in the other


@pytest.mark.parametrize(
    ("how", "records"),
    [
        ("head", 1),  # "a cat" is a cat, which has a box in the other picture
        ("class", 2),  # "the cat" and "a brown cat" are classes of their own
        ("one", 2),  # the picture has a box of the only class
    ],
)
def test_a_picture_with_an_undecided_class_of_this_export_is_left_out(
    how: str, records: int, tmp_path: Path
) -> None:
    first = said("a.png", "a dog")
    undecided = said("a.png", "the cat", "ambiguous")
    rows = [first, undecided, said("b.png", "a brown cat")]
    facts = exported(tmp_path, rows, "--format", "yolo", "--classes", how)
    assert facts["records"] == records
    told = "undecided whether a class is there" in " ".join(facts["remarks"])
    assert told == (records == 1)
