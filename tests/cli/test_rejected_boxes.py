"""What a person rejected is left out of all that is made of results, and counted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.data.records import Record, dump_line
from dataflow_grounding.data.rejected import WithoutRejected
from tests.support.workplace import Done, command, rows_of

RIGHT, WRONG = [1, 2, 30, 40], [50, 50, 90, 90]


ANN = {"reviewed_by": "ann"}


def box(bbox: list[int], verified: bool | None) -> dict[str, Any]:
    return {"bbox": bbox, "verified": verified, **ANN}


def phrase(text: str, *boxes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"text": text, "status": "grounded", "instances": [*boxes], **more}


def rejected(text: str, *boxes: dict[str, Any]) -> dict[str, Any]:
    """A phrase that a person judged to be wrong."""
    return phrase(text, *boxes, verified=False, **ANN)


def reviewed(name: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    """A record of these; else of a cat with a right and a rejected box, and of a dog of which nothing
    is left.
    """
    cat = rejected("cat", box(RIGHT, True), box(WRONG, False))
    row = {"image_path": f"{name}.png", "caption": "", "width": 100, "height": 100}
    return {**row, "expressions": [*expressions] or [cat, rejected("dog", box(WRONG, False))]}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(map(dump_line, rows)))
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return written(tmp_path / "records.jsonl", reviewed("a"), reviewed("b"))


def pictures(folder: Path, names: str) -> None:
    for name in names:
        noise = Image.effect_noise((100, 100), 90 + ord(name)).convert("RGB")
        noise.save(folder / f"{name}.png")


def with_labels(folder: Path) -> list[str]:
    """The pictures that have a label file."""
    return sorted(file.stem for file in folder.rglob("labels/**/*.txt"))


def done(*arguments: object) -> Done:
    result = command([str(argument) for argument in arguments])
    assert result.code == 0, result.err
    return result


def test_stats(records: Path) -> None:
    figures = done("stats", records, "--no-pictures", "--json").summary
    assert (figures["rejected"], figures["phrases"], figures["sizes"]) == (4, 2, {"medium": 2})


def test_eval(records: Path, tmp_path: Path) -> None:
    rows = [reviewed(name, {"text": "cat", "instances": [{"bbox": RIGHT}]}) for name in "ab"]
    line = ("eval", records, "--gold", written(tmp_path / "gold.jsonl", *rows), "--json")
    figures = done(*line).summary
    assert (figures["boxes"], figures["precision_at_iou_0.5"]) == (2, 1.0)
    assert "4 boxes" in " ".join(figures["notes"])


def test_split(records: Path, tmp_path: Path) -> None:
    how = ("--ratios", "0.5/0.5", "--no-pictures", "--json")
    counts = done("split", records, "-o", tmp_path / "parts", *how).summary
    assert counts["rejected"] == 4
    [row] = rows_of(tmp_path / "parts" / "train.jsonl")
    assert [len(expression["instances"]) for expression in row["expressions"]] == [1]


@pytest.mark.parametrize("way", ["apply", "split"])
def test_a_picture_whose_boxes_were_all_rejected_becomes_no_background(
    tmp_path: Path, way: str
) -> None:
    """What a reviewer found wrong isn't known to be absent."""
    pictures(tmp_path, "abcd")
    absent = {"text": "bird", "status": "none", "instances": []}
    rows = [reviewed(name) for name in "abcd"]
    rows[1]["expressions"] = [rows[1]["expressions"][1], absent]  # of which nothing is left
    if way == "split":
        source = tmp_path / "parts"
        given = written(tmp_path / "r.jsonl", *rows)
        done("split", given, "-o", source, "--ratios", "0.5/0.5")
    else:
        left = WithoutRejected()(Record(row) for row in rows)
        source = written(tmp_path / "left.jsonl", *left)
    done("export", source, "--format", "yolo", "-o", tmp_path / "yolo", "--image-root", tmp_path)
    assert with_labels(tmp_path / "yolo") == ["a", "c", "d"]


def test_the_report_counts_as_stats_does(records: Path) -> None:
    rows = rows_of(records)
    for row in rows:
        for expression in row["expressions"]:
            expression["class"] = expression["text"]
    folder = records.parent / "results"
    folder.mkdir()
    written(folder / "annotations.jsonl", *rows)
    done("report", folder)
    text = " ".join(re.sub("<[^>]*>", " ", (folder / "report.html").read_text()).split())
    assert "left out 4" in text
    assert re.search(r"class pictures boxes none mean side cat 2 2 0 ", text)


def test_a_thing_that_a_reviewer_says_is_there_becomes_no_background(tmp_path: Path) -> None:
    pictures(tmp_path, "abcd")
    cat = phrase("cat", {"bbox": RIGHT})
    missed = {"text": "dog", "status": "none", "instances": [], "verified": False, **ANN}
    rows = [reviewed(name, cat, *([missed] if name == "b" else [])) for name in "abcd"]
    source = tmp_path / "parts"
    given = written(tmp_path / "r.jsonl", *rows)
    done("split", given, "-o", source, "--ratios", "0.5/0.5")
    how = ("--format", "yolo", "--image-root", tmp_path)
    told = done("export", source, *how, "-o", tmp_path / "yolo")
    assert with_labels(tmp_path / "yolo") == ["a", "c", "d"]
    assert "a reviewer says that something is there" in told.out + told.err
    done("export", source, *how, "-o", tmp_path / "all", "--partly-verified")
    assert len(with_labels(tmp_path / "all")) == 4
    # others than detectors don't learn what isn't said
    done("export", source, "--format", "ms-swift", "-o", tmp_path / "vl", *how[2:])
    assert len([*(tmp_path / "vl").rglob("*.png")]) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_rejected_in_one_row_is_so_in_the_pictures_others(
    tmp_path: Path, order: int
) -> None:
    pictures(tmp_path, "a")
    wrong = rejected("a cat", box(WRONG, False))
    again = phrase("A cat", {"bbox": WRONG}, {"bbox": RIGHT})
    rows = [reviewed("a", wrong), reviewed("a", again)]
    source = written(tmp_path / "r.jsonl", *rows[::order])
    how = ("--format", "coco", "--image-root", tmp_path)
    done("export", source, *how, "-o", tmp_path / "out")
    done("import", tmp_path / "out", "--format", "coco", "-o", tmp_path / "back")
    [row] = rows_of(tmp_path / "back/annotations.jsonl")
    [left] = [b["bbox"] for e in row["expressions"] for b in e["instances"]]
    assert left == pytest.approx(RIGHT, abs=0.01)


@pytest.mark.parametrize(
    ("twin", "is_left"),
    [
        ({}, False),
        ({"text": "A  Cat"}, False),
        ({"text": "kitten"}, True),
        ({"verified": True}, False),  # by a check, which a person overrules
        ({"verified": True, "reviewed_by": "ben"}, True),
    ],
)
def test_the_twin_of_a_rejected_box_goes_with_it(
    tmp_path: Path, twin: dict[str, Any], is_left: bool
) -> None:
    pictures(tmp_path, "a")
    copy = {**phrase("a cat", {"bbox": WRONG}), **twin}
    bird = phrase("bird", {"bbox": RIGHT})
    row = reviewed("a", copy, rejected("a cat", box(WRONG, False)), bird)
    source = written(tmp_path / "r.jsonl", row)
    done("export", source, "--format", "yolo", "-o", tmp_path / "yolo", "--image-root", tmp_path)
    [labels] = (tmp_path / "yolo").rglob("labels/**/*.txt")
    assert len(labels.read_text().splitlines()) == 1 + is_left
    figures = done("stats", source, "--no-pictures", "--json").summary
    assert figures["rejected"] == 2 - is_left


def test_a_box_is_rejected_by_whoever_judged_its_phrase(tmp_path: Path) -> None:
    """Another tool may name the reviewer next to the phrase alone."""
    boxes = [{"bbox": RIGHT, "verified": True}, {"bbox": WRONG, "verified": False}]
    path = written(tmp_path / "records.jsonl", reviewed("a", rejected("cat", *boxes)))
    figures = done("stats", path, "--no-pictures", "--json").summary
    assert (figures["rejected"], figures["sizes"]) == (1, {"medium": 1})
    # where nobody is named, a check of the pipeline may have done it
    written(path, reviewed("a", phrase("cat", *boxes, verified=False)))
    assert done("stats", path, "--no-pictures", "--json").summary["rejected"] == 0
