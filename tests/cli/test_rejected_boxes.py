"""What a person rejected is left out of all that is made of results, and counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.data.records import Record, dump_line
from dataflow_grounding.data.rejected import WithoutRejected
from tests.support.workplace import Done, command

RIGHT, WRONG = [1, 2, 30, 40], [50, 50, 90, 90]


def box(bbox: list[int], verified: bool | None) -> dict[str, Any]:
    return {"bbox": bbox, "verified": verified, "reviewed_by": "ann"}


def reviewed(name: str) -> dict[str, Any]:
    """A cat with a right and a rejected box, and a dog of which nothing is left."""
    cat = {"text": "cat", "status": "grounded", "verified": False, "reviewed_by": "ann"}
    cat["instances"] = [box(RIGHT, True), box(WRONG, False)]
    dog = {"text": "dog", "status": "grounded", "verified": False, "reviewed_by": "ann"}
    dog["instances"] = [box(WRONG, False)]
    size = {"width": 100, "height": 100}
    return {"image_path": f"{name}.png", "caption": "", **size, "expressions": [cat, dog]}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(dump_line(reviewed(name)) for name in "ab"))
    return path


def pictures(folder: Path, names: str) -> None:
    for name in names:
        noise = Image.effect_noise((100, 100), 90 + ord(name)).convert("RGB")
        noise.save(folder / f"{name}.png")


def done(*arguments: object) -> Done:
    result = command([str(argument) for argument in arguments])
    assert result.code == 0, result.err
    return result


def test_stats(records: Path) -> None:
    figures = done("stats", records, "--no-pictures", "--json").summary
    assert (figures["rejected"], figures["phrases"], figures["sizes"]) == (4, 2, {"medium": 2})
    figures = done("stats", records, "--no-pictures", "--json", "--keep-rejected").summary
    assert (figures["rejected"], figures["phrases"]) == (0, 4)


@pytest.mark.slow
def test_eval(records: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    cat = {"text": "cat", "instances": [{"bbox": RIGHT}]}
    gold.write_text("".join(dump_line({**reviewed(name), "expressions": [cat]}) for name in "ab"))
    figures = done("eval", records, "--gold", gold, "--json").summary
    assert (figures["boxes"], figures["precision_at_iou_0.5"]) == (2, 1.0)
    assert "4 boxes" in " ".join(figures["notes"])
    figures = done("eval", records, "--gold", gold, "--json", "--keep-rejected").summary
    assert figures["boxes"] == 6


@pytest.mark.slow
def test_split(records: Path, tmp_path: Path) -> None:
    for options, boxes in (((), 1), (("--keep-rejected",), 3)):
        parts = tmp_path / f"parts{boxes}"
        how = ("--ratios", "0.5/0.5", "--no-pictures", *options)
        counts = done("split", records, "-o", parts, "--json", *how).summary
        assert counts["rejected"] == 6 - 2 * boxes
        [line] = (parts / "train.jsonl").read_text().splitlines()
        expressions = json.loads(line)["expressions"]
        assert sum(len(expression["instances"]) for expression in expressions) == boxes


@pytest.mark.slow
@pytest.mark.parametrize("way", ["apply", "split"])
def test_a_picture_whose_boxes_were_all_rejected_becomes_no_background(
    tmp_path: Path, way: str
) -> None:
    """What a reviewer found wrong isn't known to be absent."""
    pictures(tmp_path, "abcd")
    absent = {"text": "bird", "status": "none", "instances": []}
    rows = [reviewed(name) for name in "abcd"]
    rows[1]["expressions"] = [rows[1]["expressions"][1], absent]  # of which nothing is left
    (tmp_path / "r.jsonl").write_text("".join(map(dump_line, rows)))
    if way == "split":
        done("split", tmp_path / "r.jsonl", "-o", tmp_path / "parts", "--ratios", "0.5/0.5")
        source = tmp_path / "parts"
    else:
        source = tmp_path / "left.jsonl"
        left = WithoutRejected()(Record(row) for row in rows)
        source.write_text("".join(map(dump_line, left)))
    done("export", source, "--format", "yolo", "-o", tmp_path / "yolo", "--image-root", tmp_path)
    labels = [file.stem for file in (tmp_path / "yolo").rglob("labels/**/*.txt")]
    assert sorted(labels) == ["a", "c", "d"]


def test_the_report_counts_as_stats_does(records: Path) -> None:
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    for row in rows:
        for expression in row["expressions"]:
            expression["class"] = expression["text"]
    folder = records.parent / "results"
    folder.mkdir()
    (folder / "annotations.jsonl").write_text("".join(map(dump_line, rows)))
    done("report", folder)
    page = (folder / "report.html").read_text()
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "left out 4" in text
    assert re.search(r"class pictures boxes none mean side cat 2 2 0 ", text)


MISSED: dict[str, Any] = {"text": "dog", "status": "none", "instances": []}
MISSED |= {"verified": False, "reviewed_by": "ann"}


@pytest.mark.slow
def test_a_thing_that_a_reviewer_says_is_there_becomes_no_background(tmp_path: Path) -> None:
    pictures(tmp_path, "abcd")
    cat = {"text": "cat", "status": "grounded", "instances": [{"bbox": RIGHT}]}
    rows = [{**reviewed(name), "expressions": [cat]} for name in "abcd"]
    rows[1]["expressions"] = [cat, MISSED]
    (tmp_path / "r.jsonl").write_text("".join(map(dump_line, rows)))
    source = tmp_path / "parts"
    done("split", tmp_path / "r.jsonl", "-o", source, "--ratios", "0.5/0.5")
    how = ("--format", "yolo", "--image-root", tmp_path)
    told = done("export", source, *how, "-o", tmp_path / "yolo")
    labels = [file.stem for file in (tmp_path / "yolo").rglob("labels/**/*.txt")]
    assert sorted(labels) == ["a", "c", "d"]
    assert "a reviewer says that something is there" in told.out + told.err
    done("export", source, *how, "-o", tmp_path / "all", "--partly-verified")
    assert len([*(tmp_path / "all").rglob("labels/**/*.txt")]) == 4
    # others than detectors don't learn what isn't said
    done("export", source, "--format", "ms-swift", "-o", tmp_path / "vl", *how[2:])
    assert len([*(tmp_path / "vl").rglob("*.png")]) == 4


@pytest.mark.parametrize("rejected_comes_first", [True, False])
def test_what_is_rejected_in_one_row_is_so_in_the_pictures_others(
    tmp_path: Path, rejected_comes_first: bool
) -> None:
    pictures(tmp_path, "a")
    rejected = {"text": "a cat", "status": "grounded", "instances": [box(WRONG, False)]}
    rejected |= {"verified": False, "reviewed_by": "ann"}
    again = {"text": "A cat", "status": "grounded", "instances": [{"bbox": WRONG}, {"bbox": RIGHT}]}
    in_order = [rejected, again] if rejected_comes_first else [again, rejected]
    rows = [{**reviewed("a"), "expressions": [expression]} for expression in in_order]
    source = tmp_path / "r.jsonl"
    source.write_text("".join(map(dump_line, rows)))
    how = ("--format", "coco", "--image-root", tmp_path)
    done("export", source, *how, "-o", tmp_path / "out")
    done("import", tmp_path / "out", "--format", "coco", "-o", tmp_path / "back")
    [row] = [json.loads(line) for line in (tmp_path / "back/annotations.jsonl").open()]
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
    rejected = {"text": "a cat", "status": "grounded", "instances": [box(WRONG, False)]}
    rejected |= {"verified": False, "reviewed_by": "ann"}
    copy = {"text": "a cat", "status": "grounded", "instances": [{"bbox": WRONG}], **twin}
    bird = {"text": "bird", "status": "grounded", "instances": [{"bbox": RIGHT}]}
    source = tmp_path / "r.jsonl"
    source.write_text(dump_line({**reviewed("a"), "expressions": [copy, rejected, bird]}))
    done("export", source, "--format", "yolo", "-o", tmp_path / "yolo", "--image-root", tmp_path)
    [labels] = (tmp_path / "yolo").rglob("labels/**/*.txt")
    assert len(labels.read_text().splitlines()) == 1 + is_left
    figures = done("stats", source, "--no-pictures", "--json").summary
    assert figures["rejected"] == 2 - is_left


def test_a_box_is_rejected_by_whoever_judged_its_phrase(tmp_path: Path) -> None:
    """Another tool may name the reviewer next to the phrase alone."""
    cat = reviewed("a")["expressions"][0]
    for one in cat["instances"]:
        del one["reviewed_by"]
    path = tmp_path / "records.jsonl"
    path.write_text(dump_line({**reviewed("a"), "expressions": [cat]}))
    figures = done("stats", path, "--no-pictures", "--json").summary
    assert (figures["rejected"], figures["sizes"]) == (1, {"medium": 1})
    del cat["reviewed_by"]  # then nobody did: a check of the pipeline may have
    path.write_text(dump_line({**reviewed("a"), "expressions": [cat]}))
    assert done("stats", path, "--no-pictures", "--json").summary["rejected"] == 0
