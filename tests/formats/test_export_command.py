"""`export`, `import` and `convert` as a user runs them: files, pictures, what is told, and what is
refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import dump_line
from dataflow_grounding.data.rows import RowWriter
from dataflow_grounding.formats import FORMATS, WRITTEN, find_format, read, write
from dataflow_grounding.formats.selection import Selection
from tests.formats.data import (
    boxes_of,
    command,
    draw,
    facts_of,
    hostile,
    record,
    records_of,
    review,
    succeeds,
)
from tests.support.forking import Forked
from tests.support.labelled import Box, Labelled, labelled
from tests.support.workplace import ended

SIZE = (64, 48)
ONE = [{"bbox": [1, 2, 30, 40], "score": 0.9}]
BY_ANN = {"verified": True, "reviewed_by": "ann"}
REJECTED = {"verified": False, "reviewed_by": "ann"}
RIGHT, WRONG = {"bbox": [1, 2, 30, 40], **BY_ANN}, {"bbox": [5, 6, 50, 44], **REJECTED}
OPEN = {"bbox": [7, 8, 20, 20]}


def mug(name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return record(name, SIZE, [{"text": "a red mug", "instances": [dict(ONE[0])], **more}])


def results(folder: Path, rows: list[dict[str, Any]], turn: int = 1) -> Path:
    """A folder with annotations and pictures, as an import leaves it."""
    draw(folder, rows, turn)
    (folder / "annotations.jsonl").write_text("".join(map(dump_line, rows)), encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return results(tmp_path / "run", list(hostile()))


def test_counts_and_losses_are_told(run: Path, tmp_path: Path) -> None:
    done = succeeds("export", run, "--format", "odvg", "-o", tmp_path / "out")
    assert done.out.splitlines() == [f"{tmp_path / 'out'}: 3 records, 19 phrases, 20 boxes"]
    for told in (
        "odvg has no place for: ",
        "phrases that aren't in their picture (2)",
        "scores (",
        "texts changed",
    ):
        assert told in done.err
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "phrases that aren't in their picture (2)" in readme
    assert "dataset_mode" in readme


def test_strict_refuses_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    done = command("export", run, "--format", "odvg", "-o", tmp_path / "out", "--strict")
    assert done.code == 2
    assert "nothing is written" in done.err
    assert "spans" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def with_remarks(folder: Path, *odd: str) -> Path:
    """Thirty records of a model that says how many objects it found, the last ones something odd."""
    rows = [mug(f"{number}.jpg") for number in range(30)]
    for number, row in enumerate(rows):
        row["remark"] = f"I found {number} objects."
    for row, remark in zip(reversed(rows), odd, strict=False):
        row["remark"] = remark
    return results(folder, rows)


@pytest.mark.slow
def test_strict_stops_at_rare_remarks_until_a_person_decides(tmp_path: Path) -> None:
    run = with_remarks(tmp_path / "run", "The mug is a <b>guess</b>.", "I can't see much.")
    arguments = ("export", run, "--format", "webdataset", "-o", tmp_path / "out")
    done = command(*arguments, "--strict")
    assert done.code == 2
    [line] = done.err.strip().splitlines()
    assert "nothing is written, because 2 records came with a remark" in line
    assert "dataflowgrounding review" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    said = "28 records: I found N objects; 2 remarks that came once or seldom"
    assert said in succeeds(*arguments).err
    rows = records_of(run)
    for row in rows[-2:]:
        for expression in row["expressions"]:
            expression |= {"verified": True, "reviewed_by": "ann"}
    (run / "annotations.jsonl").write_text("".join(map(dump_line, rows)), encoding="utf-8")
    told = "remarks of the model: 28 records: I found N objects\n"  # a manner never stops it
    assert told in succeeds(*arguments, "--strict").err
    assert f"- {told}" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_parts_of_a_split_are_one_data_set_of_remarks(tmp_path: Path) -> None:
    run = with_remarks(tmp_path / "run", *["The mug is a guess."] * 5, "I can't see much.")
    folder = tmp_path / "parts"
    succeeds("split", run, "-o", folder, "--ratios", "0.8/0.2", "--no-pictures")
    done = succeeds("export", folder, "--format", "webdataset", "-o", tmp_path / "out")
    said = "24 records: I found N objects; 5 records: … is a guess; 1 remark that came once"
    assert said in done.err


def test_a_turned_webp_loses_nothing(tmp_path: Path) -> None:
    run, exif = results(tmp_path / "run", [mug("a.webp")]), PIL.Image.Exif()
    exif[0x0112] = 6
    upright = PIL.Image.effect_noise(SIZE, 90).convert("RGB")
    upright.rotate(90, expand=True).save(run / "a.webp", lossless=True, exif=exif)
    succeeds("export", run, "--format", "coco", "-o", tmp_path / "out")
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
    run = results(tmp_path / "run", [*map(mug, right), rejected, absent])
    why = (
        "as all boxes of a phrase were rejected and nobody said that nothing is there (m in the"
        " review says so: the picture is then a background): 1"
    )
    if without:  # what was rejected is gone, as from the parts of a split
        options = ("--no-pictures", "--ratios", "1/1")
        succeeds("split", run, "-o", tmp_path / "parts", *options)
        run = tmp_path / "parts"
        why = "as something may be there without a box (background: false), as where all boxes"
    done = succeeds("export", run, "--format", format, "-o", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").rglob("*.jpg")}
    assert names == {*right, "absent.jpg"}
    readme = (tmp_path / "out/README.md").read_text("utf-8")
    for text in (done.err, readme):
        assert why in text
        assert "without a phrase" not in text


def written_names(out: Path) -> list[str]:
    return [line["filename"] for line in records_of(out / "odvg.jsonl")]


def test_a_picture_that_is_missing_or_another_is_left_out(tmp_path: Path) -> None:
    run = results(tmp_path / "run", [mug(), mug("b.jpg"), mug("c.jpg")])
    (run / "a.jpg").unlink()
    PIL.Image.new("RGB", (48, 64)).save(run / "b.jpg")
    with open(run / "annotations.jsonl", "a", encoding="utf-8") as file:
        file.write(dump_line({**mug("c.jpg"), "suspect_boxes": True}))
    done = command("export", run, "--format", "odvg", "-o", tmp_path / "out")
    assert (done.code, "left out: 3 records" in done.err) == (1, True), done
    assert "no image 'a.jpg'" in done.err
    assert "(64, 48)" in done.err
    assert "its boxes may be in another format" in done.err
    assert written_names(tmp_path / "out") == ["images/c.jpg"]


def test_a_status_that_there_is_not_and_a_broken_picture_are_left_out(tmp_path: Path) -> None:
    rows = [mug(status="Grounded"), mug("b.jpg", status="pending"), mug("broken.jpg")]
    run = results(tmp_path / "run", [*rows, mug("c.jpg")])
    (run / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    done = command("export", run, "--format", "odvg", "-o", tmp_path / "out")
    assert (done.code, "left out: 2 records" in done.err) == (1, True), done
    assert "record 1: the status 'Grounded' is not one of grounded, none, amb" in done.err
    assert "broken.jpg' is not a readable image (these can be read: JPEG, PNG" in done.err
    assert written_names(tmp_path / "out") == ["images/c.jpg"]


def test_pictures_of_one_name_stay_apart(tmp_path: Path) -> None:
    cup = {"text": "a cup", "instances": ONE}
    elsewhere = record(str(tmp_path / "elsewhere" / "a.jpg"), (32, 32), [cup])
    run = results(tmp_path / "run", [mug(), elsewhere])
    succeeds("export", run, "--format", "odvg", "-o", tmp_path / "out")
    sizes = []
    for line in records_of(tmp_path / "out/odvg.jsonl"):
        with PIL.Image.open(tmp_path / "out" / line["filename"]) as picture:
            sizes.append(picture.size)
            assert picture.size == (line["width"], line["height"])
    assert sizes == [SIZE, (32, 32)]


@pytest.mark.slow
def test_what_is_wanted(tmp_path: Path) -> None:
    rows = [
        mug(),
        mug("low.jpg", instances=[{**ONE[0], "score": 0.2}]),
        mug("unscored.jpg", instances=[{**ONE[0], "score": None}]),
        mug("checked.jpg", verified=True),
        mug("refused.jpg", verified=False),
        {**mug("seen.jpg"), "reviewed_by": "ann"},
        mug("pending.jpg", instances=[], status=""),
        mug("none.jpg", instances=[], status="none"),
    ]
    run = results(tmp_path / "run", rows)

    def names(*options: str) -> set[str]:
        place = tmp_path / "out.jsonl"
        place.unlink(missing_ok=True)
        succeeds("export", run, "--format", "tao-refer", "-o", place, *options)
        return {Path(line["file_name"]).stem for line in records_of(place)}

    every = {Path(row["image_path"]).stem for row in rows} - {"pending"}
    assert names() == every
    assert names("--min-score", "0.5") == every - {"low", "unscored"}
    assert names("--min-score", "0.5", "--min-score", "a red mug=0") == every - {"unscored"}
    assert names("--min-score", "A red  mug=0.5") == every - {"low", "unscored"}
    done = command("export", run, "--format", "odvg", "-o", tmp_path / "x", "--min-score", "a=1")
    assert "--min-score a=…: there is no phrase of this class" in done.err
    assert names("--verified-only") == {"checked"}


@pytest.mark.parametrize("format", ["yolo", "odvg", "label-studio", "datasets"])
def test_what_a_reviewer_rejected_is_left_out(format: str, tmp_path: Path) -> None:
    rows = [
        mug("one_of_two.jpg", instances=[RIGHT, WRONG], **REJECTED),
        mug("all.jpg", instances=[WRONG], **REJECTED),
        mug("phrase.jpg", instances=[OPEN], **REJECTED),
        mug("missed.jpg", instances=[], status="none", **REJECTED),
        mug("by_a_check.jpg", verified=False),
    ]
    run, out = results(tmp_path / "run", rows), tmp_path / "out"

    def written(*options: str) -> dict[str, list[Any]]:
        done = succeeds("export", run, "--format", format, "-o", out, *options)
        assert ("boxes that a reviewer rejected: 3" in done.err) is not bool(options), done.err
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


@pytest.mark.parametrize("format", ["yolo", "label-studio", "datasets"])
def test_a_picture_is_empty_only_by_what_is_asked_for(format: str, tmp_path: Path) -> None:
    """A negative is a claim: neither what nobody confirmed nor a caption without a phrase makes
    one.
    """
    nothing: dict[str, Any] = {"instances": [], "status": "none"}
    rows = [
        mug(**BY_ANN),
        mug("refuted.jpg", **nothing, verified=False),
        mug("seen.jpg", **nothing, **BY_ANN),
        record("not_asked.jpg", SIZE, []),
        record("background.jpg", SIZE, [], background=True),
    ]
    run, out = results(tmp_path / "run", rows), tmp_path / "out"

    def names(*options: str) -> set[str]:
        succeeds("export", run, "--format", format, "-o", out, *options)
        return {Path(row["image_path"]).stem for row in read(str(out), format)}

    whole = {"not_asked"} if format == "datasets" else set()
    assert names() == {"a", "refuted", "seen", "background"} | whole
    assert names("--verified-only") == {"a", "seen"}


def test_verified_only_goes_by_box(tmp_path: Path) -> None:
    """Of a phrase with a right and a wrong box, the right one is training data all the same."""
    rows = [
        mug(instances=[RIGHT, WRONG, OPEN], **REJECTED),
        mug("checked.jpg", instances=[OPEN, WRONG], verified=True),
        mug("open.jpg", instances=[OPEN]),
    ]
    run, out = results(tmp_path / "run", rows), tmp_path / "out"
    succeeds("export", run, "--format", "odvg", "-o", out, "--verified-only")
    boxes = [boxes_of(row)["a red mug"] for row in read(str(out), "odvg")]
    assert boxes == [[RIGHT["bbox"]], [OPEN["bbox"]]]


def test_what_nobody_verified_is_no_background(tmp_path: Path) -> None:
    """A detector learns all that has no box as background."""
    rows = [
        mug("whole.jpg", instances=[RIGHT, WRONG]),
        mug("part.jpg", instances=[RIGHT, OPEN]),
        mug("open.jpg", instances=[OPEN]),
    ]
    run = results(tmp_path / "run", rows)
    export = ("export", run, "--format", "coco", "--verified-only")
    done = succeeds(*export, "-o", tmp_path / "out")
    assert "(--partly-verified keeps them): 2" in done.err
    assert [path.stem for path in (tmp_path / "out/images").iterdir()] == ["whole"]
    succeeds(*export, "-o", tmp_path / "all", "--partly-verified")
    assert {path.stem for path in (tmp_path / "all/images").iterdir()} == {"whole", "part"}


def test_a_record_that_can_not_be_read_hides_no_other(tmp_path: Path) -> None:
    rows = [{**mug("broken.jpg"), "expressions": "a mug"}, mug("open.jpg", instances=[OPEN])]
    run = results(tmp_path / "run", rows)
    options = ("--format", "yolo", "--verified-only")
    done = command("export", run, "-o", tmp_path / "out", *options)
    assert "record 1: " in done.err
    assert "(--partly-verified keeps them): 1" in done.err


CAT = {"text": "a cat", "class": "cat", "status": "grounded", "instances": [{"bbox": [1, 2, 9, 9]}]}
DOG = {**CAT, "text": "a dog", "class": "dog", "instances": [{"bbox": [3, 4, 20, 20]}]}


@pytest.mark.parametrize("status", ["ambiguous", "unsupported"])
def test_a_class_that_is_undecided_is_no_background(status: str, tmp_path: Path) -> None:
    undecided = {**DOG, "text": "dogs", "status": status, "instances": []}
    of_caption = {"text": "a dog", "status": status, "instances": []}
    rows = [
        record("sure.jpg", SIZE, [CAT, {**undecided, "status": "none"}]),
        record("open.jpg", SIZE, [CAT, undecided]),
        # another phrase of the class has found it
        record("told.jpg", SIZE, [CAT, undecided, {**DOG, "class": "Dog"}]),
        # a caption's phrase is looked for in no other picture, either
        record("caption.jpg", SIZE, [CAT, of_caption]),
    ]
    run = results(tmp_path / "run", rows)
    done = succeeds("export", run, "-o", tmp_path / "out", "--format", "yolo")
    assert "undecided whether a class is there" in done.err
    assert "(--partly-verified keeps them): 1" in done.err
    names = {path.stem for path in (tmp_path / "out/images").iterdir()}
    assert names == {"sure", "told", "caption"}
    succeeds("export", run, "-o", tmp_path / "all", "--format", "yolo", "--partly-verified")
    assert len([*(tmp_path / "all/images").iterdir()]) == 4


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
    run = results(tmp_path / "run", rows)
    said = succeeds("export", run, "-o", tmp_path / "out", "--format", "yolo", *options).err
    assert "(--partly-verified keeps them): 1\n" in said
    assert [path.stem for path in (tmp_path / "out/images").rglob("*.jpg")] == ["other"]
    # an iterator can't be read twice, and is no exception
    select = Selection(verified_only="--verified-only" in options)
    done = write(iter(rows), "yolo", str(tmp_path / "api"), folders=[str(run)], select=select)
    assert done.written["records"] == 1


@pytest.mark.parametrize("format", ["cvat", "coco", "yolo"])
def test_a_class_called_object_comes_in_again(format: str, tmp_path: Path) -> None:
    rows = [record("a.jpg", (64, 48), [{**CAT, "text": "object", "class": "object"}, DOG])]
    run = results(tmp_path / "run", rows)
    succeeds("export", run, "-o", tmp_path / "out", "--format", format)
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
    run = results(tmp_path / "run", rows)
    succeeds("export", run, "-o", tmp_path / "out", "--format", "coco", "--verified-only")
    [annotation] = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"]
    assert annotation["bbox"] == [1, 2, 8, 7]


@pytest.mark.slow
def test_a_background_picture_stays_one(tmp_path: Path) -> None:
    pictures = [Labelled("a.jpg", [Box("cup", 1, 2, 30, 40)]), Labelled("b.jpg", [], (32, 32))]
    there = labelled(tmp_path / "yolo", "yolo", pictures)
    others = ("coco", "kitti", "cvat", "label-studio", "datasets", "webdataset", "tao")
    for number, (given, wanted) in enumerate(pairwise(["yolo", *others, "yolo"])):
        succeeds("convert", there, "--from", given, "--to", wanted, "-o", tmp_path / str(number))
        there = tmp_path / str(number)
    labels = [path.read_text() for path in (there / "labels").rglob("*.txt")]
    assert labels.count("") == len(labels) - 1 == 1


def test_a_picture_of_what_was_left_out_is_no_background(tmp_path: Path) -> None:
    crowd = {"iscrowd": 1, "bbox": [1, 1, 9, 9]}
    of_a = {"kitti": Box("DontCare", 1, 1, 9, 9), "coco": crowd}
    for format, entry in of_a.items():
        pictures = [Labelled("a.jpg", [entry]), Labelled("b.jpg")]
        path = labelled(tmp_path / format, format, pictures)
        assert [row["background"] for row in read(str(path), format)] == [False, True]
        succeeds("convert", path, "--from", format, "--to", "yolo", "-o", tmp_path / "out" / format)
        assert [one.name for one in (tmp_path / "out" / format / "images").iterdir()] == ["b.jpg"]


def test_scores_that_are_none_are_left_out(tmp_path: Path) -> None:
    expressions = [
        {"text": text, "instances": [{"bbox": [1, 2, 30, 40], "score": score}]}
        for text, score in (("a cat", "0.5"), ("a dog", 2), ("a cow", -0.1), ("a mug", 1))
    ]
    run, out = results(tmp_path / "run", [record("a.jpg", SIZE, expressions)]), tmp_path / "out"
    export = ("export", run, "--format", "coco", "-o", out)
    assert "scores that aren't numbers from 0 to 1 (3)" in succeeds(*export).err
    (row,) = read(str(out), "coco")
    scores = [one["instances"][0]["score"] for one in row["expressions"]]
    assert scores == [None, None, None, 1]
    assert facts_of(*export, "--min-score", "0.4")["boxes"] == 1


@pytest.mark.parametrize(
    "span", [[100, 105], [5, 0], [-5, 5], [14.0, 19.0], [0], "x", [10, 15]], ids=str
)
def test_spans_that_do_not_hold_their_phrase_are_looked_for(tmp_path: Path, span: Any) -> None:
    phrases = [{"text": text, "instances": [ONE[0]]} for text in ("a cat", "a dog", "a cow")]
    row = record("a.jpg", SIZE, phrases, caption="a red car and a cat")
    for one, stated in zip(row["expressions"], (span, span, None), strict=True):
        one["char_span"] = stated
    run, out = results(tmp_path / "run", [row]), tmp_path / "out"
    done = succeeds("export", run, "--format", "odvg-mmdet", "-o", out)
    assert "hold their phrase, which was looked for in its caption: 2" in done.err
    (as_written,) = find_format("odvg-mmdet").read(str(out), str(out))
    spans = {one["text"]: one.get("char_span") for one in as_written["expressions"]}
    assert spans.pop("a cat") == [14, 19]
    assert not any(spans.values())


def test_a_caption_that_begins_with_blanks_is_written_as_its_trainer_strips_it(
    tmp_path: Path,
) -> None:
    row = mug()
    row["caption"] = row["cleaned_caption"] = f"  {row['caption']}"
    row["expressions"][0]["char_span"] = [2, 11]
    run, out = results(tmp_path / "run", [row]), tmp_path / "out.jsonl"
    succeeds("export", run, "--format", "odvg-mmdet", "-o", out)
    (line,) = records_of(out)
    assert line["grounding"]["caption"] == "a red mug."
    assert line["grounding"]["regions"][0]["tokens_positive"] == [[0, 9]]


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_place_that_is_taken_is_refused_and_an_earlier_export_replaced(
    tmp_path: Path, taken: str
) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "out"
    if taken == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    done = command("export", run, "--format", "odvg", "-o", out)
    assert done.code == 2
    assert "is not an export" in done.err
    assert (out if taken == "file" else out / "mine.txt").read_text() == "mine"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("again", "again", "link", "link"):
        succeeds("export", run, "--format", "odvg", "-o", tmp_path / name)
    assert (tmp_path / "real/odvg.jsonl").exists()


@pytest.mark.parametrize(
    ("format", "name"), [("labelme", "images/new one.json"), ("yolo", "labels/a.txt")]
)
def test_work_on_the_labels_of_an_export_is_not_replaced(
    format: str, name: str, tmp_path: Path
) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "out"
    succeeds("export", run, "--format", format, "-o", out)
    succeeds("export", run, "--format", format, "-o", out)
    later = (out / "README.md").stat().st_mtime_ns + 10**9
    (out / name).write_text("mine")
    os.utime(out / name, ns=(later, later))
    done = command("export", run, "--format", format, "-o", out)
    said = f"Error: {out} is there and has {name} in it, which was written after the export"
    assert (done.code, done.err) == (2, f"{said}: choose another place\n")
    assert (out / name).read_text() == "mine"


def test_a_score_of_a_class_keeps_pictures_without_anything(tmp_path: Path) -> None:
    rows = [mug("a.png"), record("b.png", SIZE, [], background=True)]
    run, out = results(tmp_path / "run", rows), tmp_path / "out"
    succeeds("export", run, "--format", "yolo", "-o", out, "--min-score", "a red mug=0.5")
    empty = [path.name for path in out.glob("labels/*") if path.stat().st_size == 0]
    assert (empty, (out / "labels/a.txt").exists()) == (["b.txt"], True)


@pytest.mark.slow
def test_an_export_says_that_decisions_are_not_in_it(tmp_path: Path) -> None:
    run = results(tmp_path / "run", [mug()])
    review(run)
    reviewed = run / "annotations.reviewed.jsonl"
    export = ("export", run, "--format", "labelme", "-o", tmp_path / "out")
    done = command(*export)
    assert f"run `dataflowgrounding apply {run}`, and name {reviewed}." in done.err + done.out
    succeeds("apply", run)
    done = command(*export)
    assert f"To take what reviewers left, name {reviewed}." in done.err + done.out
    later = reviewed.stat().st_mtime_ns + 10**9
    os.utime(run / "reviews.jsonl", ns=(later, later))  # as by a decision since
    done = command(*export)
    assert f"run `dataflowgrounding apply {run}`, and name {reviewed}." in done.err + done.out


@pytest.mark.slow
@pytest.mark.parametrize(("images", "earlier"), [("link", "copy"), ("reference", "link")])
def test_an_export_does_not_replace_what_it_is_made_of(
    tmp_path: Path, images: str, earlier: str
) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "out"
    succeeds("export", run, "--format", "odvg", "-o", out, "--images", earlier)
    convert = ("convert", out, "--from", "odvg", "--to", "ms-swift", "-o", out)
    done = command(*convert, "--images", images)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "'images/a.jpg' is in the export that would be replaced: copy it" in done.err
    assert (out / "images/a.jpg").read_bytes() == (run / "a.jpg").read_bytes()
    succeeds(*convert)
    assert (out / "images/a.jpg").read_bytes() == (run / "a.jpg").read_bytes()
    succeeds("export", run, "--format", "odvg", "-o", out, "--images", images)


@pytest.mark.parametrize("mine", ["notes.txt", "runs/best.pt"])
def test_an_export_with_something_else_in_it_stays(tmp_path: Path, mine: str) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "out"
    succeeds("export", run, "--format", "yolo", "-o", out)
    (out / mine).parent.mkdir(exist_ok=True)
    (out / mine).write_text("mine")
    done = command("export", run, "--format", "yolo", "-o", out)
    assert (done.code, len(done.err.splitlines()), (out / mine).read_text()) == (2, 1, "mine")
    assert f"has {mine.partition('/')[0]} in it, which isn't of the export" in done.err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--min-score", "0.95"), "phrases left out, by their status or score, or as an option"),
        (("--min-score", "nan"), "nan is not in 0<=x<=1"),
        (("--min-score", "mug=2"), "2.0 is not in the range 0<=x<=1"),
        (("--image-root", "nowhere"), "no image 'a.jpg'"),
    ],
)
def test_an_export_of_nothing_leaves_what_is_there(
    tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "out"
    succeeds("export", run, "--format", "odvg", "-o", out)
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
    run = results(tmp_path / "run", rows)
    done = succeeds("export", run, "--format", format, "-o", tmp_path / "out")
    for told in (
        "outside of their picture (1)",
        "without an area in their picture (4)",
        "left without a box (5)",
    ):
        assert told in done.err
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
    assert written_names(tmp_path / "out") == ["images/a.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "out"]


@pytest.mark.slow
def test_what_stands_where_an_export_is_made_stays_unless_it_is_of_one_that_broke_off(
    tmp_path: Path,
) -> None:
    run, part = results(tmp_path / "run", [mug()]), tmp_path / "out.part"
    code = "import os; from dataflow_grounding.formats import write;"
    code += f"write((os._exit(9) for _ in 'x'), 'odvg', {str(tmp_path / 'out')!r})"
    assert ended(Forked([], first=code)).code == 9
    assert part.is_dir()
    succeeds("export", run, "--format", "odvg", "-o", tmp_path / "out")
    part.mkdir()
    (part / "labels.txt").write_text("mine")
    why = f"{part}, where it would be made, is there already: move it"
    for root in (run, "nowhere"):
        export = ("export", run, "--format", "odvg", "-o", tmp_path / "out")
        done = command(*export, "--image-root", root)
        assert (done.code, why in done.err) == (2, True)
        assert (part / "labels.txt").read_text() == "mine"


def test_single_files_are_not_written_over(tmp_path: Path) -> None:
    run, out = results(tmp_path / "run", [mug()]), tmp_path / "mine.jsonl"
    out.write_text('{"mine": 1}\n')
    done = command("export", run, "--format", "odvg", "-o", out)
    assert (done.code, out.read_text()) == (2, '{"mine": 1}\n')
    assert "mine.jsonl" in done.err


def test_what_is_only_read_is_not_offered_for_writing(tmp_path: Path) -> None:
    for name in set(FORMATS) - set(WRITTEN):
        with pytest.raises(InputError, match=f"{name} can be read, but not written"):
            write([], name, str(tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []
    listed = " ".join(command("export", "--help").out.split())
    assert ("label-studio" in listed, "coco-grounding" in listed) == (True, False)
    assert "coco-grounding" in " ".join(command("import", "--help").out.split())


@pytest.mark.parametrize("side", ["NaN", '"wide"', "Infinity", "640.5", "true"])
def test_a_size_that_is_no_number_of_pixels(tmp_path: Path, side: str) -> None:
    path = tmp_path / "a.json"
    image = f'{{"id": 1, "file_name": "a.png", "width": {side}, "height": 48}}'
    path.write_text(f'{{"images": [{image}], "annotations": []}}')
    with pytest.raises(InputError, match="width and height should be whole numbers of pixels"):
        list(read(str(path), "coco"))


@pytest.mark.slow
def test_wrong_arguments_are_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (("--format", "odgv", "-o", "x"), "is it 'odvg'?"),
        (("--format", "YOLO", "-o", "x"), "is it 'yolo'?"),
        (("--format", "odvg", "-o", "x", "--target", "qwen3-vl"), "has no option 'target'"),
        (("--format", "odvg", "-o", "x.jsonl", "--images", "copy"), "name a folder"),
        (
            ("--format", "odvg", "-o", "x.json"),
            "x.json is no name for odvg's odvg.jsonl: end it so, or name a folder",
        ),
        (("--format", "yolo", "-o", "x.yaml"), "x.yaml is no name for yolo's labels"),
        (("--format", "no.such:Thing", "-o", "x"), "no module 'no'"),
    ):
        done = command("export", run, *arguments)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert said in done.err
    done = command("export", tmp_path / "nowhere", "--format", "odvg", "-o", "x")
    assert (done.code, "name a finished run's results_dir" in done.err) == (2, True)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(dump_line(mug()) + "{\n")
    done = command("export", broken, "--format", "odvg", "-o", tmp_path / "x.jsonl")
    assert done.code == 2
    assert f"{broken}, line 2" in done.err
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.slow
def test_import_makes_a_folder_to_go_on_from(run: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    succeeds("export", run, "--format", "odvg-mmdet", "-o", out)
    whole = (out / "odvg.jsonl").read_bytes()
    # not known
    (out / "odvg.jsonl").write_bytes(whole.replace(f'"width": {SIZE[0]}'.encode(), b'"width": 0'))
    succeeds("import", out, "--format", "odvg-mmdet", "-o", back)
    first = records_of(back)[0]
    assert first["expressions"][0]["char_span"] == [0, 9]
    assert (first["width"], first["height"]) == SIZE
    succeeds("report", back)
    succeeds("export", back, "--format", "odvg-mmdet", "-o", tmp_path / "again")
    assert (tmp_path / "again/odvg.jsonl").read_bytes() == whole
    succeeds("convert", out, "--from", "odvg-mmdet", "--to", "odvg", "-o", tmp_path / "c")
    assert "is there already" in command("import", out, "--format", "odvg-mmdet", "-o", back).err


def test_an_import_names_pictures_that_would_share_a_label_file(tmp_path: Path) -> None:
    pictures = [Labelled("a.jpg", [Box("cup", 1, 1, 20, 20)]), Labelled("a.png"), Labelled("b.png")]
    path = labelled(tmp_path, "coco", pictures)
    done = succeeds("import", path, "--format", "coco", "-o", tmp_path / "out")
    assert "label file" in done.out
    assert "1 (a.jpg and a.png)" in done.out


def test_one_import_at_a_time_is_made_in_a_folder(tmp_path: Path) -> None:
    there = tmp_path / "back/annotations.jsonl"
    with closing(RowWriter(str(there))) as first:
        done = command("import", tmp_path, "--format", "odvg", "-o", tmp_path / "back")
        why = f"Error: can't write {there}: another process is writing it\n"
        assert (done.code, done.err) == (2, why)
        first.commit()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "{}",
        '{"filename": "a.jpg"}',
        '{"filename": 7, "grounding": {"regions": [{}]}}',
        "\x00",
    ],
)
def test_a_file_of_another_kind_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text + "\n")
    done = command("import", path, "--format", "odvg", "-o", tmp_path / "out")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert str(path) in done.err
    assert not (tmp_path / "out/annotations.jsonl").exists()
