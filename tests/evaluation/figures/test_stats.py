"""`stats`: figures counted by hand, and what is said about them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.evaluation.figures.counting import FIGURES
from tests.formats.data import record
from tests.support.workplace import Done, command, write_rows

W, H = 400, 200


def stats(*arguments: object) -> Done:
    return command(["stats", *map(str, arguments)])


def figures_of(*files: Path) -> dict[str, Any]:
    summary: dict[str, Any] = stats(*files, "--no-pictures", "--json").summary
    return summary


def boxes(*given: list[float]) -> list[dict[str, Any]]:
    return [{"bbox": box, "score": None} for box in given]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures, three records: by hand."""
    small, wide = [0, 0, 20, 20], [10, 10, 210, 40]
    whole, middle = [0, 0, 400, 199], [180, 80, 220, 120]
    first = [
        {"text": "the red mug on the left", "instances": boxes(small, wide), "verified": True},
        {"text": "a cup", "instances": boxes([0, 0, 20.5, 20])},
        {"text": "a dog", "status": "none"},
    ]
    second = [
        {"text": "the wooden table", "instances": boxes(whole)},
        {"text": "a dog", "instances": boxes(middle)},
    ]
    third = [
        {"text": "A dog", "instances": boxes(small)},
        {"text": "a  dog", "instances": boxes(wide)},
    ]
    rows = [
        record("a.jpg", (W, H), first),
        {**record("b.jpg", (W, H), second), "reviewed_by": "ann"},
        record("b.jpg", (W, H), third, image_id="again"),
    ]
    odd = {"image_path": "b.jpg", "expressions": 7}
    return write_rows(tmp_path / "run/annotations.jsonl", *rows, "{", odd)


def test_figures_by_hand(data: Path) -> None:
    said = figures_of(data)
    expected = {
        "records": 3,
        "rejected": 0,
        "broken": 2,
        "remarks": {},
        "remarks_rare": 0,
        "images": 2,
        "phrases": 5,  # b.jpg has three for a dog
        "pairs": 4,
        "statuses": {"grounded": 4, "none": 1},
        "negatives_share": round(1 / 5, 4),
        "made_up_share": 0.0,
        "negative_kinds": {},
        "verified_share": round(1 / 5, 4),
        "reviewed_share": round(2 / 5, 4),
        "small_share": round(3 / 7, 4),
        "phrases_per_image": {"mean": 2.5, "median": 2, "p5": 2, "p95": 3},
        "words_per_phrase": {"mean": round(15 / 5, 2), "median": 2, "p5": 2, "p95": 6},
        "boxes_per_phrase": {"mean": round(7 / 4, 2), "median": 1, "p5": 1, "p95": 3},
        "sizes": {"small": 3, "medium": 3, "large": 1},
        "edge_share": round(4 / 7, 4),
        "unread": None,
        "same_pictures": None,
        "classes": [],
        "same_phrase_twice": 1,
        "same_boxes": 0,
        "leaks": 0,
    }
    said.pop("advice")
    assert said.pop("alike") == {"same_pictures": [], "leaks": []}
    assert said == expected
    assert set(FIGURES) == {*expected}


def test_remarks_are_counted_by_wording_and_rare_ones_have_advice(tmp_path: Path) -> None:
    rows = [record(f"{n}.jpg", (W, H), [{"text": "a dog"}]) for n in range(9)]
    for number, row in enumerate(rows[:8]):
        row["remark"] = f"I found {number} objects."
    rows[3]["remark"] = "The photo is dark."
    data = write_rows(tmp_path / "run/annotations.jsonl", *rows)
    figures = figures_of(data)
    assert figures["remarks"] == {"I found N objects": 7, "The photo is dark": 1}
    assert figures["remarks_rare"] == 1
    assert "review" in figures["advice"]["remarks_rare"]
    printed = stats(data, "--no-pictures").out
    assert (
        "next to their answers, by records: I found N objects 7, The photo is dark 1\n" in printed
    )
    assert "a remark that came once or seldom: 1\n  → look at them" in printed
    half = write_rows(tmp_path / "half.jsonl", *rows[:4])
    other = write_rows(tmp_path / "other.jsonl", *rows[4:])
    both = figures_of(half, other)
    assert (both["remarks"], both["remarks_rare"]) == (figures["remarks"], 1)


def of_class(name: str, *bboxes: list[float], text: str = "") -> dict[str, Any]:
    status = "grounded" if bboxes else "none"
    instances = boxes(*bboxes)
    return {"text": text or name, "class": name, "status": status, "instances": instances}


def test_classes_have_a_table_and_no_advice_on_words(tmp_path: Path) -> None:
    """Of a list of classes, phrases are as long and as varied as the list."""
    small, large = [0, 0, 20, 20], [0, 0, 60, 60]
    first = [of_class("Cat", small, large), of_class("dog"), of_class("cat", text="a kitten")]
    second = [of_class("cat"), of_class("dog"), of_class("tie")]
    rows = [record("a.jpg", (W, H), first), record("b.jpg", (W, H), second)]
    data = write_rows(tmp_path / "run/annotations.jsonl", *rows)
    figures = figures_of(data)
    assert figures["classes"] == [
        {"class": "Cat", "pictures": 1, "boxes": 2, "none": 1, "undecided": 0, "mean_side": 40.0},
        {"class": "dog", "pictures": 0, "boxes": 0, "none": 2, "undecided": 0, "mean_side": None},
        {"class": "tie", "pictures": 0, "boxes": 0, "none": 1, "undecided": 0, "mean_side": None},
    ]
    assert "words_per_phrase" not in figures["advice"]
    assert figures["words_per_phrase"] is None
    printed = stats(data, "--no-pictures").out
    assert "words per phrase" not in printed
    assert "classes: 3\n" in printed
    assert re.search(r"Cat +1 +2 +1 +0 +40\n", printed)
    mugs = [{"text": f"mug {number}", "status": "none"} for number in range(6)]
    write_rows(data, *rows, record("c.jpg", (W, H), mugs))
    figures = figures_of(data)
    assert figures["classes"] == [], "most of it is not of classes"
    assert "words_per_phrase" in figures["advice"]


def test_what_is_printed_and_what_there_is_nothing_of(data: Path, tmp_path: Path) -> None:
    done = stats(data.parent, "--no-pictures")
    assert (done.code, done.err) == (0, "")
    for line in (
        "pairs of a phrase and its boxes: 4\n  → fewer than the 100 that a first training needs\n",
        "phrases per picture: mean 2.5, median 2, p5 2, p95 3\n",
        "phrases that aren't in their picture: 20.0%\n",
    ):
        assert line in done.out
    whole = stats(data.parent, "--no-pictures", "--all").out
    for line in (
        "pictures that aren't there, or can't be read: -\n",
        "phrases made up to be absent: 0.0%\n",
    ):
        assert line in whole
        assert line not in done.out
    assert "nothing of: " not in whole
    lines = done.out.splitlines()
    [folded] = [line for line in lines if line.startswith("nothing of: ")]
    assert "phrases made up to be absent" in folded
    assert "rows that can't be read" not in folded, "there is one"
    bare = [n for n, line in enumerate(lines) if re.search(r": (0|0\.0%|none|-)$", line)]
    assert all(lines[n + 1].startswith("  →") for n in bare), "such a line has advice below it"
    # what was asked for is told, though there is nothing of it
    other = write_rows(tmp_path / "other.jsonl", record("z.jpg", (W, H), [{"text": "a cat"}]))
    asked = stats(data.parent, other, "--no-pictures").out
    assert "pictures that several of these data sets have: 0\n" in asked


@pytest.mark.parametrize("options", [[], ["--no-pictures"]])
def test_a_picture_that_several_data_sets_have_is_one(tmp_path: Path, options: list[str]) -> None:
    noise = PIL.Image.effect_mandelbrot((90, 80), (-2.0, -1.0, 0.5, 1.0), 40)
    for name in ("9.png", "x.png"):
        noise.save(tmp_path / name)
    rows = [record(name, (90, 80), [{"text": "a dog"}]) for name in ("9.png", "x.png", "gone.png")]
    # the last without x.png
    files = [write_rows(tmp_path / f"{n}.jsonl", *rows[:: n or -1]) for n in (0, 1, 2)]
    said = stats(*files, "--json", *options).summary
    assert (said["records"], said["images"]) == (8, 3)
    assert said["phrases_per_image"]["mean"] == round(8 / 3, 2)
    counts = (said["leaks"], said["same_pictures"], said["unread"])
    assert counts == ((3, None, None) if options else (2, 1, 1))


def test_the_same_file_again_is_told_and_named_without_being_asked_for(tmp_path: Path) -> None:
    noise = PIL.Image.effect_mandelbrot((90, 80), (-2.0, -1.0, 0.5, 1.0), 40)
    names = [f"{n}.png" for n in range(5)]
    for name in names:
        noise.save(tmp_path / name)
    noise.save(tmp_path / "nearly.jpg")
    other = bytearray((tmp_path / "0.png").read_bytes())
    other[-20] ^= 1
    (tmp_path / "as large.png").write_bytes(other)
    (tmp_path / "empty.png").touch()
    names += ["nearly.jpg", "as large.png", "empty.png", "gone.png"]
    one = write_rows(tmp_path / "one.jsonl", *(record(name, (90, 80), []) for name in names))
    again = [record(name, (90, 80), []) for name in ("4.png", "nearly.jpg")]
    two = write_rows(tmp_path / "two.jsonl", *again)
    said = stats(one, two, "--json").summary
    assert (said["images"], said["unread"], said["same_pictures"], said["leaks"]) == (9, 2, 4, 2)
    same = [[place["picture"] for place in places] for places in said["alike"]["same_pictures"]]
    assert same == [["0.png", f"{n}.png"] for n in range(1, 5)]
    told = stats(one, two).out
    three = "".join(f"  0.png = {n}.png\n" for n in (1, 2, 3))
    assert f"again: 4\n{three}  … (4, all with --json)\n" in told
    assert f"  0.png ({one}) = 4.png ({two})\n" in told
    assert f"  nearly.jpg ({one}) = nearly.jpg ({two})\n" in told


@pytest.mark.slow
def test_many_pictures_that_are_the_same_file_are_all_in_json(tmp_path: Path) -> None:
    """It is printed in pieces of a thousand: none is lost, none comes twice."""
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "0000.png")
    names = [f"{n:04}.png" for n in range(1501)]
    for name in names[1:]:
        os.link(tmp_path / "0000.png", tmp_path / name)
    run = write_rows(tmp_path / "run.jsonl", *(record(name, (8, 8), []) for name in names))
    alike = stats(run, "--json").summary["alike"]
    expected = []
    for name in names[1:]:
        expected.append([{"picture": one, "data_set": str(run)} for one in ("0000.png", name)])
    assert alike == {"same_pictures": expected, "leaks": []}


def test_phrases_with_the_same_boxes_are_counted_once_each(tmp_path: Path) -> None:
    dogs = [f"the {word} dog" for word in ("red", "old", "wet", "wet")]
    said = [{"text": text, "instances": boxes([1, 1, 50, 50])} for text in dogs]
    said += [{"text": "a cat", "instances": boxes([1, 1, 50, 50], [60, 60, 90, 90])}]
    rows = [record(f"{n}.jpg", (W, H), said[: n + 1]) for n in range(5)]
    data = write_rows(tmp_path / "a.jsonl", *rows)
    assert figures_of(data)["same_boxes"] == 0 + 2 + 3 + 4 + 4


def test_boxes_beyond_all_pictures(tmp_path: Path) -> None:
    far = boxes([-1e308, -1e308, -9e307, 0], [0, 0, 1e308, 1e308], [2, 1, 1, 0])
    row = record("a.jpg", (W, H), [{"text": "a dog", "instances": far}])
    said = figures_of(write_rows(tmp_path / "a.jsonl", row))
    assert said["edge_share"] == 1


def test_nothing_at_all(tmp_path: Path) -> None:
    done = stats(write_rows(tmp_path / "a.jsonl"))
    assert done.code == 0, done.err
    assert "records: 0\n" in done.out
    assert stats(tmp_path / "none").code == 2
    assert stats().code == 2


def test_regions_without_expressions_are_counted_too(tmp_path: Path) -> None:
    region = {"region_id": 1, "bbox": [0, 0, 30, 30], "text": "a mug"}
    bare = {"image_path": "c.jpg", "expressions": ["a cat"]}
    rows = [{"image_path": "a.jpg", "regions": [region]}, record("b.jpg", (W, H), []), bare]
    figures = figures_of(write_rows(tmp_path / "a.jsonl", *rows))
    assert (figures["records"], figures["classes"]) == (3, [])


def test_a_thing_of_a_class_counts_once_in_all_figures_of_boxes(tmp_path: Path) -> None:
    first = [of_class("person", [0, 0, 40, 90], [50, 0, 90, 90], text="a person")]
    second = [of_class("person", [1, 0, 40, 90], [50, 0, 90, 90], text="a human")]
    rows = [record("a.jpg", (W, H), part) for part in (first, second, first)]
    figures = figures_of(write_rows(tmp_path / "a.jsonl", *rows))
    assert (figures["records"], figures["images"], figures["phrases"]) == (3, 1, 2)
    assert figures["classes"][0]["boxes"] == sum(figures["sizes"].values()) == 2
