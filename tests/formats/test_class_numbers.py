"""The numbers of a detector's classes, and a split that is exported in one go."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest
import yaml

from dataflow_grounding.data.classes import classes_of
from dataflow_grounding.english.heads import head_of
from tests.formats import data
from tests.formats.data import command, facts_of, record, refused, review, succeeds, told
from tests.support.labelled import saved
from tests.support.workplace import rows_of

SIZE = (64, 48)


def with_classes(name: str, *found: str) -> dict[str, Any]:
    """A record of a run that looked for cat, dog and tie, and found some."""
    expressions = []
    for text in ("tie", "dog", "cat"):
        boxes = [{"bbox": [1, 2, 30, 40]}] if text in found else []
        expressions.append({"text": text, "class": text, "unplaced": True, "instances": boxes})
    return record(name, SIZE, expressions, caption="")


FOUND = ("cat", "tie", "dog")


def twelve(folder: str = "") -> list[dict[str, Any]]:
    return [with_classes(f"{folder}{number}.png", FOUND[number % 3]) for number in range(12)]


def split(folder: Path, rows: list[dict[str, Any]], classes: object = None) -> Path:
    run = run_of(folder / "run", rows, classes)
    succeeds("split", run, "-o", folder / "parts", "--ratios", "0.4/0.3/0.3")
    return folder / "parts"


def run_of(folder: Path, rows: list[dict[str, Any]], classes: object = None) -> Path:
    """A run's folder, or an import's where no classes are named."""
    data.run_of(folder, rows)
    for number, row in enumerate(rows):  # pictures that differ
        PIL.Image.effect_noise(SIZE, 90 + number).convert("RGB").save(folder / row["image_path"])
    spec: dict[str, Any] = {"autolabel_type": "image_grounding"}
    if classes is not None:
        spec["image_grounding"] = {"data": {"classes": classes}}
    saved(folder / "run.json", {"spec": spec, "image_folders": [str(folder)]})
    return folder


def numbers_in(labels: Path) -> dict[str, list[int]]:
    return {
        file.stem: [int(line.split()[0]) for line in file.read_text().splitlines()]
        for file in sorted(labels.rglob("*.txt"))
    }


def names_in(data_yaml: Path) -> list[str]:
    names = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))["names"]
    return [names[number] for number in range(len(names))]


class Yolo(NamedTuple):
    """An export as YOLO: the names of its classes, the numbers in its labels, and what it says."""

    names: list[str]
    numbers: dict[str, list[int]]
    said: str


def yolo_of(results: Path, *options: object) -> Yolo:
    out = results.parent / f"{results.stem} as yolo"
    said = told("export", results, "--format", "yolo", "-o", out, *options)
    return Yolo(names_in(out / "data.yaml"), numbers_in(out / "labels"), said)


def test_classes_are_numbered_by_the_runs_list(tmp_path: Path) -> None:
    rows = [with_classes("a.png", "cat"), with_classes("b.png", "tie")]
    run = run_of(tmp_path / "run", rows, ["Tie", "Bird", "cat", "dog"])
    yolo = yolo_of(run)
    assert yolo.names == ["Tie", "Bird", "cat", "dog"]
    assert yolo.numbers == {"a": [2], "b": [0]}
    succeeds("export", run, "--format", "coco", "-o", tmp_path / "coco")
    coco = json.loads((tmp_path / "coco/annotations.json").read_text())
    categories = [(one["id"], one["name"]) for one in coco["categories"]]
    assert categories == [(1, "Tie"), (2, "Bird"), (3, "cat"), (4, "dog")]
    assert [(one["id"], one["category_id"]) for one in coco["annotations"]] == [(1, 3), (2, 1)]


def test_the_class_of_a_phrase_is_written_and_not_the_phrase(tmp_path: Path) -> None:
    lorry = {"text": "a lorry", "class": "vehicle", "instances": [{"bbox": [1, 2, 30, 40]}]}
    classes = {"a car": "vehicle", "a lorry": "vehicle", "a dog": "dog"}
    yolo = yolo_of(run_of(tmp_path / "run", [record("a.png", SIZE, [lorry])], classes))
    assert (yolo.names, yolo.numbers) == (["vehicle", "dog"], {"a": [0]})


def test_a_class_that_is_not_listed_comes_behind_and_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [with_classes("a.png", "cat", "dog")], ["tie", "dog"])
    yolo = yolo_of(run)
    assert yolo.names == ["tie", "dog", "cat"]
    assert "classes that aren't in the list, numbered after it: 1" in yolo.said


LISTED = ["Tie", "Bird", "cat", "dog"]


def test_a_file_that_was_made_of_a_run_keeps_its_numbers(tmp_path: Path) -> None:
    rows = [with_classes("a.png", "cat"), with_classes("b.png", "dog")]
    run, made = run_of(tmp_path / "run", rows, LISTED), tmp_path / "elsewhere.jsonl"
    review(run)
    succeeds("apply", run, "-o", made)
    assert (tmp_path / "elsewhere.classes.txt").read_text().split() == LISTED
    assert yolo_of(made, "--image-root", run).names == LISTED


def test_where_no_list_is_known_that_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [with_classes("a.png", "cat"), with_classes("b.png", "dog")])
    said = told("export", run, "--format", "coco", "-o", tmp_path / "coco")
    assert "classes are numbered as they come" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "classes"), [("in one go", ["tie", "bird", "dog", "cat"]), ("part by part", None)]
)
def test_parts_of_a_split_share_their_numbers(
    way: str, classes: list[str] | None, tmp_path: Path
) -> None:
    rows = twelve()
    if classes is None:
        for row in rows:  # of another tool: phrases, and none that isn't there
            row["expressions"] = [one for one in row["expressions"] if one["instances"]]
            del row["expressions"][0]["class"]
    parts, out = split(tmp_path, rows, classes), tmp_path / "out"
    listed = (parts / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert listed == (classes or [*FOUND])
    if way == "in one go":
        said = facts_of("export", parts, "--format", "yolo", "-o", out)
        records = {part: counts["records"] for part, counts in said["parts"].items()}
        found = {part: len([*(out / part / "labels").rglob("*.txt")]) for part in records}
        assert (records, sum(records.values())) == (found, 12)
        written = sorted(path.name for path in out.iterdir())
        assert written == ["README.md", "data.yaml", "test", "train", "val"]
        data = yaml.safe_load((out / "data.yaml").read_text())
        folders = (data["train"], data["val"], data["test"])
        assert folders == ("train/images", "val/images", "test/images")
        yamls = [out / "data.yaml"]
    else:
        for part in ("train", "val", "test"):
            done = succeeds("export", parts / f"{part}.jsonl", "--format", "yolo", "-o", out / part)
            assert "one part of a split" in done.err
        yamls = sorted(out.glob("*/data.yaml"))
        assert len(yamls) == 3
        assert all("val" not in yaml.safe_load(path.read_text()) for path in yamls)
    assert all(names_in(path) == listed for path in yamls)
    for part in ("train", "val", "test"):
        for stem, numbers in numbers_in(out / part / "labels").items():
            assert numbers == [listed.index(FOUND[int(stem) % 3])]


@pytest.mark.slow
def test_datasets_loads_a_split_by_its_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    parts = split(tmp_path, twelve())
    succeeds("export", parts, "--format", "datasets", "-o", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    [files] = re.findall(r"`data_files=(\{.*?\})`", Path("README.md").read_text())
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=json.loads(files), cache_dir=cache)
    counts = [len(rows_of(parts / f"{part}.jsonl")) for part in ("train", "val")]
    assert [len(loaded[part]) for part in ("train", "validation")] == counts


@pytest.mark.slow
def test_a_parquet_file_alone_says_that_it_holds_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    run = run_of(tmp_path / "run", [with_classes("a.png", "cat")])
    succeeds("export", run, "--format", "datasets", "-o", tmp_path / "out")
    [file] = (tmp_path / "out/data").glob("*.parquet")
    loaded = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded[0]["image"].size == SIZE


@pytest.mark.slow
def test_what_is_said_twice_of_one_box_goes_out_once(tmp_path: Path) -> None:
    box, other = [1, 2, 30, 40], [5, 5, 60, 44]
    expressions = [
        {"text": "the red mug", "instances": [{"bbox": box}]},
        {"text": "The Red  Mug", "instances": [{"bbox": box}, {"bbox": other}]},
        {"text": "the red mug", "instances": [{"bbox": box}], "unplaced": True},
    ]
    run = run_of(tmp_path / "run", [record("a.png", SIZE, expressions)])
    why = "boxes that are there already under the same words, written once: 2"
    for name in ("yolo", "ms-swift"):
        said = facts_of("export", run, "--format", name, "-o", tmp_path / name)
        assert (said["boxes"], why in said["remarks"]) == (2, True), name
    said = facts_of("export", run, "--format", "cvat", "-o", tmp_path / "cvat")
    assert said["boxes"] == 4  # for people, who see both
    assert command("lint", run).out.count("DG207") == 2


IN_SUBFOLDERS = "pictures in subfolders, which supervision and other readers of a single folder"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["yolo", "kitti", "voc"])
def test_pictures_in_subfolders_are_told_with_flat(tmp_path: Path, format: str) -> None:
    names = ("a/x.png", "b/c/x.png", "top.png")
    run = run_of(tmp_path / "run", [with_classes(name, "cat") for name in names])
    export = ("export", run, "--format", format, "-o", tmp_path / "out")
    line = f"{IN_SUBFOLDERS} leave out without a word: 2 of 3"
    line += " (--flat puts all pictures into one folder)"
    assert line in told(*export)
    assert line in (tmp_path / "out/README.md").read_text()
    assert IN_SUBFOLDERS not in told(*export, "--flat")
    pictures = sorted(path.name for path in (tmp_path / "out/images").iterdir())
    assert pictures == ["a_x.png", "b_c_x.png", "top.png"]


@pytest.mark.slow
def test_pictures_in_subfolders_of_all_parts_are_told_once(tmp_path: Path) -> None:
    parts = split(tmp_path, twelve("sub/"))
    said = told("export", parts, "--format", "voc", "-o", tmp_path / "out")
    assert said.count(f"{IN_SUBFOLDERS} leave out without a word: 12 of 12") == 1
    assert said.count(IN_SUBFOLDERS) == 1


def named(name: str, *classes: str) -> dict[str, Any]:
    expressions = [
        {"text": text, "class": text, "instances": [{"bbox": [1 + n, 2, 30, 40]}]}
        for n, text in enumerate(classes)
    ]
    return record(name, SIZE, expressions, caption="")


@pytest.mark.parametrize("order", [("a b", "a_b"), ("a_b", "a b")])
def test_classes_that_would_be_one_are_refused(tmp_path: Path, order: tuple[str, ...]) -> None:
    run = run_of(tmp_path / "run", [named("a.png", *order), named("b.png", "A  B")])
    line = refused("export", run, "--format", "kitti", "-o", tmp_path / "kitti")
    assert "two classes would be 'a b'" in line
    yolo_of(run)


@pytest.mark.parametrize(("format", "images"), [("yolo", "copy"), ("coco", "reference")])
def test_a_picture_of_several_names_is_one(tmp_path: Path, format: str, images: str) -> None:
    run = run_of(tmp_path / "run", [named("a.png", "cat")])
    absolute = str((run / "a.png").resolve())
    rows = [
        {**named("a.png", name), "image_path": path}
        for name, path in (("cat", "a.png"), ("dog", "./a.png"), ("cup", absolute))
    ]
    saved(run / "annotations.jsonl", rows)
    out = tmp_path / "out"
    succeeds("export", run, "--format", format, "-o", out, "--images", images)
    if format == "coco":
        pictures = json.loads((out / "annotations.json").read_text())
        assert len(pictures["images"]) == 1
        assert len({box["category_id"] for box in pictures["annotations"]}) == 3
    else:
        assert [len(numbers) for numbers in numbers_in(out / "labels").values()] == [3]


@pytest.mark.parametrize("format", ["yolo", "coco", "kitti", "ms-swift"])
def test_without_any_record_an_empty_export_is_written(tmp_path: Path, format: str) -> None:
    none = saved(tmp_path / "none.jsonl", "")
    assert "nothing to write" in told("export", none, "--format", format, "-o", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["coco", "yolo", "kitti", "datasets", "webdataset"])
def test_classes_and_their_numbers_come_back(tmp_path: Path, format: str) -> None:
    """The list has classes that no picture shows, and the data has them in another order."""
    rows = [named("a.png", "dog"), named("b.png", "cat")]
    rows[0]["expressions"][0]["text"] = "a small dog"
    listed = ["zebra", "cat", "dog", "apple"]
    run = run_of(tmp_path / "run", rows, listed)
    there, back = tmp_path / "there", tmp_path / "back"
    said = told("export", run, "--format", format, "-o", there)
    assert ("classes of phrases" in said, "texts changed" in said) == (False, False)
    succeeds("import", there, "--format", format, "-o", back)
    assert (back / "classes.txt").read_text().split() == listed
    yolo = yolo_of(back)
    assert sorted(yolo.numbers.values()) == [[1], [2]]


@pytest.mark.parametrize("format", ["odvg", "tao", "ms-swift"])
def test_classes_that_a_format_can_not_say_are_told(tmp_path: Path, format: str) -> None:
    rows = [named("a.png", "dog"), named("b.png", "cat")]
    rows[0]["expressions"][0]["text"] = "a small dog"
    for row in rows:
        row["caption"] = "a small dog and a cat"
    run = run_of(tmp_path / "run", rows, ["cat", "dog"])
    said = told("export", run, "--format", format, "-o", tmp_path / "out")
    assert "classes of phrases (1)" in said


NOUNS = """
    horses:horse houses:house leaves:leaf knives:knife bookshelves:bookshelf shelves:shelf
    tomatoes:tomato cherries:cherry cookies:cookie children:child men:man snowmen:snowman
    women:woman mice:mouse geese:goose people:person glasses:glasses scissors:scissors
    trousers:trousers buses:bus dresses:dress boxes:box watches:watch brushes:brush moustaches:moustache
    shoes:shoe canoes:canoe vases:vase nurses:nurse blouses:blouse viruses:virus lenses:lens
    irises:iris gas:gas cactus:cactus series:series sheep:sheep deer:deer taxis:taxi menus:menu
    sofas:sofa photos:photo potatoes:potato gloves:glove olives:olive sleeves:sleeve scarves:scarf
    humans:human dobermans:doberman mongooses:mongoose roofs:roof handkerchiefs:handkerchief
    wolves:wolf puppies:puppy monkeys:monkey prizes:prize teeth:tooth octopuses:octopus
"""


def test_several_things_and_one_are_of_one_class() -> None:
    """With `--classes head`, and in the figures of `stats`."""
    for pair in NOUNS.split():
        several, one = pair.split(":")
        found = head_of(f"the {several} on the left"), head_of(f"a red {one}")
        assert found == (one, one)


def test_each_phrase_of_a_caption_as_a_class_is_told(tmp_path: Path) -> None:
    box = {"instances": [{"bbox": [1, 2, 30, 40]}]}
    expressions = [{"text": text, **box} for text in ("a red mug", "a blue mug", "the dog")]
    run = run_of(tmp_path / "run", [record("a.png", SIZE, expressions, caption="")])
    assert "3 classes, each phrase is one: --classes head for nouns" in yolo_of(run).said
    assert "each phrase is one" not in yolo_of(run, "--classes", "head").said


def test_the_file_of_classes_that_is_used_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [with_classes("a.png", "cat", "dog")])
    saved(run / "classes.txt", "person\nsky\n")
    assert f"the list is {run / 'classes.txt'}" in yolo_of(run).said
    listed = run_of(tmp_path / "listed", [with_classes("a.png", "cat")], ["cat", "dog", "tie"])
    said = yolo_of(listed).said
    assert ("the list is" in said, "each phrase is one" in said) == (False, False)


def test_classes_that_are_undecided_in_all_pictures_are_named(tmp_path: Path) -> None:
    rows = [with_classes("a.png", "cat"), with_classes("b.png", "cat")]
    for row in rows:
        car = {"text": "car", "class": "Car", "instances": [], "status": "unsupported"}
        row["expressions"].append(car)
    rows[0]["expressions"][0] |= {"status": "ambiguous"}  # a tie, in one of the two
    run = run_of(tmp_path / "run", rows)
    done = command("export", run, "--format", "yolo", "-o", tmp_path / "out")
    assert done.code == 2
    for what in (
        "nothing is written",
        "car: undecided in 2 of 2 pictures",
        "take such a class out of data.classes",
    ):
        assert what in done.err
    assert "tie: undecided" not in done.err


def test_a_list_beside_a_folder_is_of_a_file_that_is_called_like_it(tmp_path: Path) -> None:
    for name, classes in (("v1.2/", "cat\ndog\n"), ("v1.", "dog\ncat\n")):
        saved(tmp_path / f"{name}classes.txt", classes)
    saved(tmp_path / "v1.2/annotations.jsonl", "")
    path = saved(tmp_path / "v1.jsonl", "")
    assert classes_of(str(tmp_path / "v1.2")) == ["cat", "dog"]
    assert classes_of(str(path)) == ["dog", "cat"]


def test_a_web_address_is_exported_as_it_is(tmp_path: Path) -> None:
    address = "https://cdn.example/a/./b.jpg?d=1"
    row = with_classes("a.jpg", "cat") | {"image_path": address}
    rows = saved(tmp_path / "rows.jsonl", [row])
    succeeds("export", rows, "--format", "coco", "-o", tmp_path / "x.json")
    [image] = json.loads((tmp_path / "x.json").read_text())["images"]
    assert image["file_name"] == address
