"""`export` and `import` as a user runs them: files, pictures, what is told, and what is
refused.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import FORMATS, WRITTEN, read, write
from dataflow_grounding.formats.selection import Selection
from tests.formats.data import (
    boxes_of,
    command,
    draw,
    facts_of,
    hostile,
    record,
    records_of,
    refused,
    review,
    run_of,
    succeeds,
    told,
)
from tests.support.forking import Forked
from tests.support.labelled import Box, Labelled, labelled, saved
from tests.support.workplace import ended

SIZE = (64, 48)
ONE = [{"bbox": [1, 2, 30, 40], "score": 0.9}]
BY_ANN = {"verified": True, "reviewed_by": "ann"}
REJECTED = {"verified": False, "reviewed_by": "ann"}
RIGHT, WRONG = {"bbox": [1, 2, 30, 40], **BY_ANN}, {"bbox": [5, 6, 50, 44], **REJECTED}
OPEN = {"bbox": [7, 8, 20, 20]}


def mug(name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return record(name, SIZE, [{"text": "a red mug", "instances": [dict(ONE[0])], **more}])


def exported(run: Path, format: str, out: Path, *options: object) -> str:
    return told("export", run, "--format", format, "-o", out, *options)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_of(tmp_path / "run", list(hostile()))


def pictures_in(out: Path) -> set[str]:
    """The pictures of an export, without their endings."""
    return {path.stem for path in (out / "images").rglob("*.*")}


def test_counts_and_losses_are_told(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = succeeds("export", run, "--format", "odvg", "-o", out)
    assert done.out.splitlines() == [f"{out}: 3 records, 19 phrases, 20 boxes"]
    absent = "phrases that aren't in their picture (2)"
    for what in ("odvg has no place for: ", absent, "scores (", "texts changed"):
        assert what in done.err
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert (absent in readme, "dataset_mode" in readme) == (True, True)


def test_strict_refuses_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    done = command("export", run, "--format", "odvg", "-o", tmp_path / "out", "--strict")
    assert (done.code, "nothing is written" in done.err, "spans" in done.err) == (2, True, True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def with_remarks(folder: Path, *odd: str) -> Path:
    """Thirty records of a model that says how many objects it found, the last ones something odd."""
    rows = [mug(f"{number}.jpg") for number in range(30)]
    for number, row in enumerate(rows):
        row["remark"] = f"I found {number} objects."
    for row, remark in zip(reversed(rows), odd, strict=False):
        row["remark"] = remark
    return run_of(folder, rows)


@pytest.mark.slow
def test_strict_stops_at_rare_remarks_until_a_person_decides(tmp_path: Path) -> None:
    run = with_remarks(tmp_path / "run", "The mug is a <b>guess</b>.", "I can't see much.")
    out = tmp_path / "out"
    line = refused("export", run, "--format", "webdataset", "-o", out, "--strict")
    assert "nothing is written, because 2 records came with a remark" in line
    assert "dataflowgrounding review" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    said = "28 records: I found N objects; 1 record: I can't see much;"
    assert said in exported(run, "webdataset", out)
    rows = records_of(run)
    for row in rows[-2:]:
        for expression in row["expressions"]:
            expression |= BY_ANN
    saved(run / "annotations.jsonl", rows)
    said = "remarks of the model: 28 records: I found N objects; 1 record: I can't see much;"
    assert said in exported(run, "webdataset", out, "--strict")  # what is usual never stops it
    assert f"- {said}" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_parts_of_a_split_are_one_data_set_of_remarks(tmp_path: Path) -> None:
    run = with_remarks(tmp_path / "run", *["The mug is a guess."] * 5, "I can't see much.")
    folder = tmp_path / "parts"
    succeeds("split", run, "-o", folder, "--ratios", "0.8/0.2", "--no-pictures")
    said = "24 records: I found N objects; 5 records: The mug is a guess; 1 record: I can't see"
    assert said in exported(folder, "webdataset", tmp_path / "out")


@pytest.mark.slow
def test_what_is_left_out_of_all_parts_of_a_split_is_one_sum(tmp_path: Path) -> None:
    rows = [mug(f"{n}.jpg", instances=[RIGHT, RIGHT]) for n in range(9)]
    run = run_of(tmp_path / "run", rows)
    succeeds("split", run, "-o", tmp_path / "parts", "--ratios", "0.5/0.5", "--no-pictures")
    said = exported(tmp_path / "parts", "odvg", tmp_path / "out")
    [line] = [line for line in said.splitlines() if "written once" in line]
    assert line == "boxes that are there already under the same words, written once: 9"


def test_a_turned_webp_loses_nothing(tmp_path: Path) -> None:
    run, exif = run_of(tmp_path / "run", [mug("a.webp")]), PIL.Image.Exif()
    exif[0x0112] = 6
    upright = PIL.Image.effect_noise(SIZE, 90).convert("RGB")
    upright.rotate(90, expand=True).save(run / "a.webp", lossless=True, exif=exif)
    exported(run, "coco", tmp_path / "out")
    with PIL.Image.open(tmp_path / "out/images/a.webp") as picture:
        assert picture.convert("RGB").tobytes() == upright.tobytes()


@pytest.mark.parametrize(("format", "without"), [("coco", False), ("yolo", True)])
def test_why_a_picture_whose_boxes_were_all_rejected_is_left_out(
    format: str, without: bool, tmp_path: Path
) -> None:
    """A detector's format has pictures without a thing: what is missing is a word on this one."""
    right = [f"{n}.jpg" for n in range(9)]  # so that each part of a split has some
    rejected = mug("rejected.jpg", instances=[WRONG], **REJECTED)
    absent = mug("absent.jpg", instances=[], status="none", **BY_ANN)
    run = run_of(tmp_path / "run", [*map(mug, right), rejected, absent])
    if without:  # what was rejected is gone, as from the parts of a split
        options = ("--no-pictures", "--ratios", "1/1")
        succeeds("split", run, "-o", tmp_path / "parts", *options)
        run = tmp_path / "parts"
    why = "as something may be there without a box (background: false), as where all boxes"
    said = exported(run, format, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").rglob("*.jpg")}
    assert names == {*right, "absent.jpg"}
    for text in (said, (tmp_path / "out/README.md").read_text("utf-8")):
        assert (why in text, "without a phrase" in text) == (True, False)


def test_records_that_do_not_do_are_left_out_each_with_its_reason(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [mug(name) for name in ("other.jpg", "a.jpg", "ok.jpg")])
    PIL.Image.new("RGB", (48, 64)).save(run / "other.jpg")
    (run / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    for row, why in (
        (mug("gone.jpg"), "no image 'gone.jpg'"),
        (mug("other.jpg"), "(64, 48)"),
        (mug("broken.jpg"), "broken.jpg' is not a readable image (these can be read: JPEG, PNG"),
        (mug(status="Grounded"), "record 1: the status 'Grounded' is not one of grounded, none, "),
        ({**mug(), "suspect_boxes": True}, "its boxes may be in another format"),
    ):
        saved(run / "annotations.jsonl", [row, mug("a.jpg", status="pending"), mug("ok.jpg")])
        done = command("export", run, "--format", "odvg", "-o", tmp_path / "out")
        assert (done.code, "left out: 1 record" in done.err, why in done.err) == (1, True, True)
        assert pictures_in(tmp_path / "out") == {"ok"}


def test_pictures_of_one_name_stay_apart(tmp_path: Path) -> None:
    cup = {"text": "a cup", "instances": ONE}
    elsewhere = record(str(tmp_path / "elsewhere" / "a.jpg"), (32, 32), [cup])
    exported(run_of(tmp_path / "run", [mug(), elsewhere]), "odvg", tmp_path / "out")
    sizes = []
    for line in records_of(tmp_path / "out/odvg.jsonl"):
        with PIL.Image.open(tmp_path / "out" / line["filename"]) as picture:
            sizes.append(picture.size)
            assert picture.size == (line["width"], line["height"])
    assert sizes == [SIZE, (32, 32)]


@pytest.mark.parametrize("format", ["yolo", "odvg", "label-studio", "datasets"])
def test_what_a_reviewer_rejected_is_left_out(format: str, tmp_path: Path) -> None:
    rows = [
        mug("one_of_two.jpg", instances=[RIGHT, WRONG], **REJECTED),
        mug("all.jpg", instances=[WRONG], **REJECTED),
        mug("phrase.jpg", instances=[OPEN], **REJECTED),
        mug("missed.jpg", instances=[], status="none", **REJECTED),
        mug("by_a_check.jpg", verified=False),
    ]
    run, out = run_of(tmp_path / "run", rows), tmp_path / "out"

    def written(*options: str) -> dict[str, list[Any]]:
        said = exported(run, format, out, *options)
        assert ("boxes that a reviewer rejected: 3" in said) is not bool(options), said
        found = {}
        for row in read(str(out), format):
            for boxes in boxes_of(row).values():
                found[Path(row["image_path"]).stem] = boxes
        return found

    kept = written()
    assert sorted(kept) == ["by_a_check", "one_of_two"]
    [box] = kept["one_of_two"]
    assert box == pytest.approx(RIGHT["bbox"], abs=0.01)
    assert sum(map(len, written("--keep-rejected").values())) == 5


def test_verified_only_goes_by_box(tmp_path: Path) -> None:
    """Of a phrase with a right and a wrong box, the right one is training data all the same."""
    rows = [
        mug(instances=[RIGHT, WRONG, OPEN], **REJECTED),
        mug("checked.jpg", instances=[OPEN, WRONG], verified=True),
        mug("open.jpg", instances=[OPEN]),
    ]
    run, out = run_of(tmp_path / "run", rows), tmp_path / "out"
    exported(run, "odvg", out, "--verified-only")
    boxes = [boxes_of(row)["a red mug"] for row in read(str(out), "odvg")]
    assert boxes == [[RIGHT["bbox"]], [OPEN["bbox"]]]


def test_a_record_that_can_not_be_read_hides_no_other(tmp_path: Path) -> None:
    rows = [{**mug("broken.jpg"), "expressions": "a mug"}, mug("open.jpg", instances=[OPEN])]
    run = run_of(tmp_path / "run", rows)
    export = ("export", run, "--format", "yolo", "-o", tmp_path / "out")
    err = command(*export, "--verified-only").err
    assert ("record 1: " in err, "(--partly-verified keeps them): 1" in err) == (True, True)


CAT = {"text": "a cat", "class": "cat", "status": "grounded", "instances": [{"bbox": [1, 2, 9, 9]}]}
DOG = {**CAT, "text": "a dog", "class": "dog", "instances": [{"bbox": [3, 4, 20, 20]}]}


class Chosen(NamedTuple):
    """Of these records each export, by its options, has these pictures, and says this."""

    formats: str
    rows: list[dict[str, Any]]
    exports: dict[str, tuple[str, str]]


NOTHING: dict[str, Any] = {"instances": [], "status": "none"}
UNDECIDED = {**DOG, "text": "dogs", "status": "ambiguous", "instances": []}
CHOSEN = {
    "by scores and decisions": Chosen(
        "tao-refer",
        [
            mug(),
            mug("low.jpg", instances=[{**ONE[0], "score": 0.2}]),
            mug("unscored.jpg", instances=[{**ONE[0], "score": None}]),
            mug("checked.jpg", verified=True),
            mug("refused.jpg", verified=False),
            {**mug("seen.jpg"), "reviewed_by": "ann"},
            mug("pending.jpg", instances=[], status=""),
            mug("none.jpg", **NOTHING),
        ],
        {
            "": ("a low unscored checked refused seen none", ""),
            "--min-score 0.5": ("a checked refused seen none", ""),
            "--min-score 0.5 --min-score 'a red mug=0'": ("a low checked refused seen none", ""),
            "--min-score 'A red  mug=0.5'": ("a checked refused seen none", ""),
            "--min-score a=1": (
                "a low unscored checked refused seen none",
                "--min-score a=…: there is no phrase of this class",
            ),
            "--verified-only": ("checked", ""),
        },
    ),
    # a negative is a claim: neither what nobody confirmed nor a caption without a phrase makes one
    "empty only by what is asked for": Chosen(
        "yolo label-studio",
        [
            mug(**BY_ANN),
            mug("refuted.jpg", **NOTHING, verified=False),
            mug("seen.jpg", **NOTHING, **BY_ANN),
            record("not_asked.jpg", SIZE, []),
            record("background.jpg", SIZE, [], background=True),
        ],
        {"": ("a refuted seen background", ""), "--verified-only": ("a seen", "")},
    ),
    "empty only by what is asked for, in whole": Chosen(
        "datasets",
        [mug(**BY_ANN), mug("seen.jpg", **NOTHING, **BY_ANN), record("not_asked.jpg", SIZE, [])],
        {"": ("a seen not_asked", ""), "--verified-only": ("a seen", "")},
    ),
    # a detector learns all that has no box as background
    "not what nobody verified": Chosen(
        "coco",
        [
            mug("whole.jpg", instances=[RIGHT, WRONG]),
            mug("part.jpg", instances=[RIGHT, OPEN]),
            mug("open.jpg", instances=[OPEN]),
        ],
        {
            "--verified-only": ("whole", "(--partly-verified keeps them): 2"),
            "--verified-only --partly-verified": ("whole part", ""),
        },
    ),
    "not what is undecided": Chosen(
        "yolo",
        [
            record("sure.jpg", SIZE, [CAT, {**UNDECIDED, "status": "none"}]),
            record("open.jpg", SIZE, [CAT, UNDECIDED]),
            record("unsure.jpg", SIZE, [CAT, {**UNDECIDED, "status": "unsupported"}]),
            # another phrase of the class has found it
            record("told.jpg", SIZE, [CAT, UNDECIDED, {**DOG, "class": "Dog"}]),
            # a caption's phrase is looked for in no other picture, either
            record("caption.jpg", SIZE, [CAT, {"text": "a dog", "status": "ambiguous"}]),
            record("rest.jpg", SIZE, [CAT, {"text": "a dog", "status": "unsupported"}]),
        ],
        {
            "": ("sure told caption rest", "undecided whether a class is there"),
            "--partly-verified": ("sure open unsure told caption rest", ""),
        },
    ),
    "without anything, where a class has a score": Chosen(
        "yolo",
        [mug("a.png"), record("b.png", SIZE, [], background=True)],
        {"--min-score 'a red mug=0.5'": ("a b", "")},
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_pictures_are_chosen(name: str, tmp_path: Path) -> None:
    formats, rows, exports = CHOSEN[name]
    run, out = run_of(tmp_path / "run", rows), tmp_path / "out"
    for format in formats.split():
        for options, (names, why) in exports.items():
            assert why in exported(run, format, out, *shlex.split(options))
            found = {Path(row["image_path"]).stem for row in read(str(out), format)}
            assert found == {*names.split()}, (format, options)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("cat", "dog", "options"),
    [
        (CAT, {**DOG, "status": "ambiguous", "instances": []}, ()),
        (CAT, {**DOG, "status": "none", "instances": [], **REJECTED}, ()),
        ({**CAT, **BY_ANN}, DOG, ("--verified-only",)),
    ],
)
def test_what_one_row_of_a_picture_leaves_open_holds_for_the_picture(
    first: int, cat: Any, dog: Any, options: tuple[str, ...], tmp_path: Path
) -> None:
    rows = [record("two.jpg", (64, 48), [cat]), record("./two.jpg", (64, 48), [dog])]
    if first:
        rows.reverse()
    rows.insert(1, record("other.jpg", (64, 48), [{**CAT, **BY_ANN}]))
    run = run_of(tmp_path / "run", rows)
    said = exported(run, "yolo", tmp_path / "out", *options)
    assert "(--partly-verified keeps them): 1\n" in said
    assert pictures_in(tmp_path / "out") == {"other"}
    # an iterator can't be read twice, and is no exception
    select = Selection(verified_only="--verified-only" in options)
    done = write(iter(rows), "yolo", str(tmp_path / "api"), folders=[str(run)], select=select)
    assert done.written["records"] == 1


@pytest.mark.parametrize("format", ["cvat", "coco", "yolo"])
def test_a_class_called_object_comes_in_again(format: str, tmp_path: Path) -> None:
    rows = [record("a.jpg", (64, 48), [{**CAT, "text": "object", "class": "object"}, DOG])]
    run = run_of(tmp_path / "run", rows)
    exported(run, format, tmp_path / "out")
    succeeds("import", tmp_path / "out", "--format", format, "-o", tmp_path / "back")
    [row] = records_of(tmp_path / "back")
    assert boxes_of(row) == {
        "object": [pytest.approx([1, 2, 9, 9], abs=0.01)],
        ("dog" if format == "yolo" else "a dog"): [pytest.approx([3, 4, 20, 20], abs=0.01)],
    }


@pytest.mark.parametrize(("name", "expected"), [("cat", "cat"), ("object", None)])
def test_the_only_category_is_a_class(name: str, expected: str | None, tmp_path: Path) -> None:
    gold = labelled(tmp_path, "coco", [Labelled("a.jpg", [Box(name, 1, 2, 9, 11)])], classes=[name])
    succeeds("import", gold, "--format", "coco", "-o", tmp_path / "back")
    [row] = records_of(tmp_path / "back")
    assert [e.get("class") for e in row["expressions"]] == [expected]
    assert (tmp_path / "back/classes.txt").exists() is (expected is not None)


def test_the_twin_of_a_verified_box_leaves_no_picture_out(tmp_path: Path) -> None:
    rows = [record("a.jpg", (64, 48), [{**CAT, **BY_ANN}, {**CAT, "text": "A  cat"}])]
    run = run_of(tmp_path / "run", rows)
    exported(run, "coco", tmp_path / "out", "--verified-only")
    [annotation] = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"]
    assert annotation["bbox"] == [1, 2, 8, 7]


@pytest.mark.slow
def test_a_background_picture_stays_one(tmp_path: Path) -> None:
    pictures = [Labelled("a.jpg", [Box("cup", 1, 2, 30, 40)]), Labelled("b.jpg", [], (32, 32))]
    there = labelled(tmp_path / "yolo", "yolo", pictures)
    others = ("coco", "kitti", "cvat", "label-studio", "datasets", "webdataset", "tao")
    for number, (given, wanted) in enumerate(pairwise(["yolo", *others, "yolo"])):
        results = tmp_path / f"results{number}"
        succeeds("import", there, "--format", given, "-o", results)
        there = tmp_path / str(number)
        succeeds("export", results, "--format", wanted, "-o", there)
    labels = [path.read_text() for path in (there / "labels").rglob("*.txt")]
    assert labels.count("") == len(labels) - 1 == 1


def test_a_picture_of_what_was_left_out_is_no_background(tmp_path: Path) -> None:
    crowd = {"iscrowd": 1, "bbox": [1, 1, 9, 9]}
    of_a = {"kitti": Box("DontCare", 1, 1, 9, 9), "coco": crowd}
    for format, entry in of_a.items():
        pictures = [Labelled("a.jpg", [entry]), Labelled("b.jpg")]
        path = labelled(tmp_path / format, format, pictures)
        assert [row["background"] for row in read(str(path), format)] == [False, True]
        results, out = tmp_path / "results" / format, tmp_path / "out" / format
        succeeds("import", path, "--format", format, "-o", results)
        succeeds("export", results, "--format", "yolo", "-o", out)
        assert pictures_in(out) == {"b"}


def test_scores_that_are_none_are_left_out(tmp_path: Path) -> None:
    expressions = [
        {"text": text, "instances": [{"bbox": [1, 2, 30, 40], "score": score}]}
        for text, score in (("a cat", "0.5"), ("a dog", 2), ("a cow", -0.1), ("a mug", 1))
    ]
    run, out = run_of(tmp_path / "run", [record("a.jpg", SIZE, expressions)]), tmp_path / "out"
    assert "scores that aren't numbers from 0 to 1 (3)" in exported(run, "coco", out)
    (row,) = read(str(out), "coco")
    scores = [one["instances"][0]["score"] for one in row["expressions"]]
    assert scores == [None, None, None, 1]
    export = ("export", run, "--format", "coco", "-o", out)
    assert facts_of(*export, "--min-score", "0.4")["boxes"] == 1


def test_spans_are_set_where_none_is_stated_and_else_trusted(tmp_path: Path) -> None:
    unstated, stated = (
        record(name, SIZE, [{"text": "a cat", "instances": [ONE[0]]}], caption="a red car, a cat")
        for name in ("a.jpg", "b.jpg")
    )
    del unstated["expressions"][0]["char_span"]
    stated["expressions"][0]["char_span"] = [0, 5]  # `lint` tells that it says "a red"
    run, out = run_of(tmp_path / "run", [unstated, stated]), tmp_path / "out"
    exported(run, "odvg-mmdet", out)
    spans = [
        line["grounding"]["regions"][0]["tokens_positive"]
        for line in records_of(out / "odvg.jsonl")
    ]
    assert spans == [[[11, 16]], [[0, 5]]]


@pytest.mark.parametrize("span", [[5, 0], [-5, 5], [14.0, 19.0], [0], "x"], ids=str)
def test_a_span_that_is_no_place_leaves_its_record_out(span: Any, tmp_path: Path) -> None:
    row = mug()
    row["expressions"][0]["char_span"] = span
    run = run_of(tmp_path / "run", [row, mug("ok.jpg")])
    export = ("export", run, "--format", "odvg-mmdet", "-o", tmp_path / "out")
    facts = facts_of(*export, code=1)
    assert facts["records"] == 1
    assert "'char_span' of 'a red mug' should be [start, end]" in str(facts)


def test_a_caption_is_written_as_its_trainer_strips_it(tmp_path: Path) -> None:
    row = mug()
    row["caption"] = row["cleaned_caption"] = f"  {row['caption']}"
    row["expressions"][0]["char_span"] = [2, 11]
    run, out = run_of(tmp_path / "run", [row]), tmp_path / "out.jsonl"
    exported(run, "odvg-mmdet", out)
    (line,) = records_of(out)
    assert line["grounding"]["caption"] == "a red mug."
    assert line["grounding"]["regions"][0]["tokens_positive"] == [[0, 9]]


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_place_that_is_taken_is_refused(tmp_path: Path, taken: str) -> None:
    run, out = run_of(tmp_path / "run", [mug()]), tmp_path / "out"
    mine = saved(out if taken == "file" else out / "mine.txt", "mine")
    assert "is not an export" in refused("export", run, "--format", "odvg", "-o", out)
    assert mine.read_text() == "mine"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("again", "again", "link", "link"):
        exported(run, "odvg", tmp_path / name)
    assert (tmp_path / "real/odvg.jsonl").exists()


@pytest.mark.parametrize(
    ("format", "name"), [("labelme", "images/new one.json"), ("yolo", "labels/a.txt")]
)
def test_work_on_labels_of_an_export_is_not_replaced(
    format: str, name: str, tmp_path: Path
) -> None:
    run, out = run_of(tmp_path / "run", [mug()]), tmp_path / "out"
    exported(run, format, out)
    exported(run, format, out)
    later = (out / "README.md").stat().st_mtime_ns + 10**9
    os.utime(saved(out / name, "mine"), ns=(later, later))
    said = f"Error: {out} is there and has {name} in it, which was written after the export"
    line = refused("export", run, "--format", format, "-o", out)
    assert line == f"{said}: choose another place"
    assert (out / name).read_text() == "mine"


@pytest.mark.slow
def test_an_export_says_that_decisions_are_not_in_it(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [mug()])
    review(run)
    reviewed = run / "annotations.reviewed.jsonl"
    undecided = f"run `dataflowgrounding apply {run}`, and name {reviewed}."
    assert undecided in exported(run, "labelme", tmp_path / "out")
    succeeds("apply", run)
    left = f"To take what reviewers left, name {reviewed}."
    assert left in exported(run, "labelme", tmp_path / "out")
    later = reviewed.stat().st_mtime_ns + 10**9
    os.utime(run / "reviews.jsonl", ns=(later, later))  # as by a decision since
    assert undecided in exported(run, "labelme", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("images", "earlier"), [("link", "copy"), ("reference", "link")])
def test_no_export_replaces_what_it_is_made_of(tmp_path: Path, images: str, earlier: str) -> None:
    run, out = run_of(tmp_path / "run", [mug()]), tmp_path / "out"
    exported(run, "odvg", out, "--images", earlier)
    back = tmp_path / "back"
    succeeds("import", out, "--format", "odvg", "-o", back)
    export = ("export", back, "--format", "ms-swift", "-o", out)
    line = refused(*export, "--images", images)
    assert "'images/a.jpg' is in the export that would be replaced: copy it" in line
    assert (out / "images/a.jpg").read_bytes() == (run / "a.jpg").read_bytes()
    succeeds(*export)
    assert (out / "images/a.jpg").read_bytes() == (run / "a.jpg").read_bytes()
    exported(run, "odvg", out, "--images", images)


@pytest.mark.parametrize("mine", ["notes.txt", "runs/best.pt"])
def test_an_export_with_something_else_in_it_stays(tmp_path: Path, mine: str) -> None:
    run, out = run_of(tmp_path / "run", [mug()]), tmp_path / "out"
    exported(run, "yolo", out)
    saved(out / mine, "mine")
    line = refused("export", run, "--format", "yolo", "-o", out)
    assert f"has {mine.partition('/')[0]} in it, which isn't of the export" in line
    assert (out / mine).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--min-score", "0.95"), "phrases left out, by their status or score, or as an option"),
        (("--min-score", "nan"), "nan is not in 0<=x<=1"),
        (("--min-score", "mug=2"), "2.0 is not in the range 0<=x<=1"),
        (("--image-root", "nowhere"), "no image 'a.jpg'"),
    ],
)
def test_an_export_of_nothing_leaves_all_as_is(
    tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    run, out = run_of(tmp_path / "run", [mug()]), tmp_path / "out"
    exported(run, "odvg", out)
    done = command("export", run, "--format", "odvg", "-o", out, *options)
    assert (done.code, why in done.err) == (2, True), done.err
    assert len(records_of(out / "odvg.jsonl")) == 1


@pytest.mark.parametrize("format", ["yolo", "tao-refer"])
def test_boxes_are_cut_to_their_picture(tmp_path: Path, format: str) -> None:
    inside = [{"bbox": box} for box in ([-5, 5, 70, 9.5], [1, 2, 64.004, 40])]
    out_of_it = [
        {"text": "a dog", "instances": [{"bbox": box}]} for box in ([70, 1, 80, 9], [5, 5, 5, 9])
    ]
    rows = [
        record("a.jpg", SIZE, [{"text": "a mug", "instances": inside}, *out_of_it]),
        record("b.jpg", SIZE, [*out_of_it, {"text": "a cat"}]),
    ]
    rows[0]["expressions"].append({"text": "a cup", "status": "grounded", "instances": []})
    run = run_of(tmp_path / "run", rows)
    said = exported(run, format, tmp_path / "out")
    for what in (
        "outside of their picture (1)",
        "without an area in their picture (4)",
        "left without a box (5)",
    ):
        assert what in said
    row, *more = read(str(tmp_path / "out"), format)
    assert boxes_of(row) == {"a mug": [[0, 5, 64, 9.5], [1, 2, 64, 40]]}
    absent = [{"a cat": []}] if format == "tao-refer" else []
    assert [boxes_of(other) for other in more] == absent


def test_one_export_at_a_time_is_made_at_a_place(tmp_path: Path) -> None:
    draw(tmp_path, [mug(), mug("b.jpg")])
    out = str(tmp_path / "out")

    def meanwhile() -> Iterator[dict[str, Any]]:
        yield mug()
        why = r"another run is working in .*out\.part: wait for it to end"
        with pytest.raises(InputError, match=why):
            write([mug("b.jpg")], "odvg", out, folders=[str(tmp_path)])

    write(meanwhile(), "odvg", out, folders=[str(tmp_path)])
    assert pictures_in(tmp_path / "out") == {"a"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "out"]


@pytest.mark.slow
def test_what_is_where_an_export_is_made_stays(tmp_path: Path) -> None:
    run, part = run_of(tmp_path / "run", [mug()]), tmp_path / "out.part"
    code = "import os; from dataflow_grounding.formats import write;"
    code += f"write((os._exit(9) for _ in 'x'), 'odvg', {str(tmp_path / 'out')!r})"
    assert ended(Forked([], first=code)).code == 9
    assert part.is_dir()
    exported(run, "odvg", tmp_path / "out")
    mine = saved(part / "labels.txt", "mine")
    why = f"{part}, where it would be made, is there already: move it"
    export = ("export", run, "--format", "odvg", "-o", tmp_path / "out")
    for root in (run, "nowhere"):
        assert why in refused(*export, "--image-root", root)
        assert mine.read_text() == "mine"


def test_single_files_are_not_written_over(tmp_path: Path) -> None:
    out = saved(tmp_path / "mine.jsonl", "mine")
    run = run_of(tmp_path / "run", [mug()])
    assert "mine.jsonl" in refused("export", run, "--format", "odvg", "-o", out)
    assert out.read_text() == "mine"


def test_what_is_only_read_is_not_offered_for_writing(tmp_path: Path) -> None:
    for name in set(FORMATS) - set(WRITTEN):
        with pytest.raises(InputError, match=f"{name} can be read, but not written"):
            write([], name, str(tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []
    listed = " ".join(command("export", "--help").out.split())
    assert ("label-studio" in listed, "coco-grounding" in listed) == (True, False)
    assert "coco-grounding" in " ".join(command("import", "--help").out.split())


@pytest.mark.slow
def test_wrong_arguments_are_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (("odgv", "-o", "x"), "is it 'odvg'?"),
        (("YOLO", "-o", "x"), "is it 'yolo'?"),
        (("odvg", "-o", "x", "--target", "qwen3-vl"), "has no option 'target'"),
        (("odvg", "-o", "x.jsonl", "--images", "copy"), "name a folder"),
        (("odvg", "-o", "x.json"), "x.json is no name for odvg's odvg.jsonl: end it so, or name"),
        (("yolo", "-o", "x.yaml"), "x.yaml is no name for yolo's labels"),
        (("no.such:Thing", "-o", "x"), "no module 'no'"),
    ):
        assert said in refused("export", run, "--format", *arguments)
    export = ("--format", "odvg", "-o", tmp_path / "x.jsonl")
    assert "name a finished run's results_dir" in refused("export", tmp_path / "nowhere", *export)
    broken = saved(tmp_path / "broken.jsonl", f"{json.dumps(mug())}\n{{\n")
    done = command("export", broken, *export)
    assert (done.code, f"{broken}, line 2" in done.err) == (2, True)
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.slow
def test_import_makes_a_folder_to_go_on_from(run: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    exported(run, "odvg-mmdet", out)
    whole = (out / "odvg.jsonl").read_bytes()
    # not known
    (out / "odvg.jsonl").write_bytes(whole.replace(f'"width": {SIZE[0]}'.encode(), b'"width": 0'))
    succeeds("import", out, "--format", "odvg-mmdet", "-o", back)
    first = records_of(back)[0]
    assert first["expressions"][0]["char_span"] == [0, 9]
    assert (first["width"], first["height"]) == SIZE
    succeeds("report", back)
    exported(back, "odvg-mmdet", tmp_path / "again")
    assert (tmp_path / "again/odvg.jsonl").read_bytes() == whole
    assert "is there already" in refused("import", out, "--format", "odvg-mmdet", "-o", back)


def test_an_import_names_pictures_that_would_share_a_label_file(tmp_path: Path) -> None:
    pictures = [Labelled("a.jpg", [Box("cup", 1, 1, 20, 20)]), Labelled("a.png"), Labelled("b.png")]
    path = labelled(tmp_path, "coco", pictures)
    said = told("import", path, "--format", "coco", "-o", tmp_path / "out")
    assert ("label file" in said, "1 (a.jpg and a.png)" in said) == (True, True)
