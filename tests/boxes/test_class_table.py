"""The table of classes: a picture counts once, in any number of rows and parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import Expression
from dataflow_grounding.boxes.class_table import ClassTable, in_order
from dataflow_grounding.data.records import dump_line
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, command


def expression(name: str | None, *boxes: list[int]) -> dict[str, Any]:
    status = "grounded" if boxes else "none"
    stated = {} if name is None else {"class": name}
    instances = [{"bbox": box} for box in boxes]
    return {"text": name or "a pet", "status": status, "instances": instances, **stated}


def classes_of(folder: Path, rows: list[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    path = folder / "r.jsonl"
    size = {"width": 100, "height": 100}
    path.write_text(
        "".join(dump_line({"image_path": name, **size, "expressions": row}) for name, row in rows)
    )
    done = command(["stats", str(path), "--no-pictures", "--json"])
    assert done.code == 0, done
    found = done.summary["classes"]
    assert isinstance(found, list)
    return found


def test_a_picture_of_several_rows_counts_once(tmp_path: Path) -> None:
    cup = expression("cup", [0, 0, 10, 10])
    rows = [("a.png", [cup]), ("b.png", [cup]), ("a.png", [cup]), ("a.png", [expression("Cup")])]
    assert classes_of(tmp_path, rows) == [
        {"class": "cup", "pictures": 2, "boxes": 2, "none": 0, "undecided": 0, "mean_side": 10.0}
    ]


def test_every_picture_that_was_asked_about_counts_in_one_column(tmp_path: Path) -> None:
    open_cup = {"text": "cup", "class": "cup", "status": "ambiguous", "instances": []}
    rows = [
        ("boxed.png", [open_cup, expression("cup", [0, 0, 10, 10])]),
        ("open.png", [expression("cup"), open_cup]),
        ("none.png", [expression("cup")]),
        ("unsupported.png", [{**open_cup, "status": "unsupported"}]),
    ]
    [row] = classes_of(tmp_path, rows)
    assert (row["pictures"], row["none"], row["undecided"]) == (1, 1, 2)


@pytest.mark.slow
def test_a_thing_that_two_phrases_of_a_class_find_is_one_everywhere(tmp_path: Path) -> None:
    """`a person` and `a human` gave a detector two boxes for each person, and the table 19 for 10."""
    row = [
        {**expression("person", [0, 0, 40, 90], [50, 0, 90, 90]), "text": "a person"},
        {**expression("person", [2, 1, 40, 90], [50, 0, 88, 90]), "text": "a human"},
        {**expression("person", [100, 0, 140, 90], [99, 0, 140, 90]), "text": "a pedestrian"},
    ]
    gold = [{**expression("person", *[[x, 0, x + 40, 90] for x in (0, 50, 100)]), "text": "person"}]
    [counts] = classes_of(tmp_path, [("a.png", row)])
    assert counts["boxes"] == 4, "two for what one phrase says are two"
    row[2]["instances"].pop()
    [counts] = classes_of(tmp_path, [("a.png", row)])
    assert counts["boxes"] == 3

    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    gold_path = tmp_path / "gold.jsonl"
    gold_path.write_text(dump_line({"image_path": "a.png", "expressions": gold}))
    path = tmp_path / "in.jsonl"
    path.write_text(dump_line({"image_path": "a.png", "expressions": row}))
    done = command(["eval", str(path), "--gold", str(gold_path), "--json"])
    assert done.code == 0, done
    figures = done.summary["classes"]["person"]
    assert (figures["boxes"], figures["precision"], figures["recall"]) == (3, 1, 1)
    told = command(["eval", str(path), "--gold", str(gold_path)])
    assert "2 boxes of " in told.out + told.err
    figures = command(["stats", str(path), "--json"]).summary
    assert sum(figures["sizes"].values()) == figures["classes"][0]["boxes"] == 3
    out = tmp_path / "out"
    done = command(["export", str(path), "--format", "coco", "-o", str(out)])
    assert done.code == 0, done
    assert "boxes on a thing that another phrase of the same class has boxed" in done.err
    [file] = out.rglob("*.json")
    assert len(json.loads(file.read_text())["annotations"]) == 3


def test_a_box_of_several_phrases_of_a_class_counts_once(tmp_path: Path) -> None:
    box, other = [0, 0, 10, 10], [20, 0, 40, 20]
    row = [expression("cup", box), {**expression("cup", box, other), "text": "a mug"}]
    [counts] = classes_of(tmp_path, [("a.png", row), ("b.png", [expression("cup", box)])])
    assert (counts["boxes"], counts["pictures"]) == (3, 2)
    # two classes may have one box
    both = [expression("cup", box), expression("dish", box)]
    assert [row["boxes"] for row in classes_of(tmp_path, [("a.png", both)])] == [1, 1]


@pytest.mark.parametrize(("without", "is_shown"), [(0, True), (4, True), (5, False)])
def test_the_table_is_there_where_most_state_their_class(
    tmp_path: Path, without: int, is_shown: bool
) -> None:
    rows = [(f"{n}.png", [expression("cup" if n >= without else None)]) for n in range(9)]
    assert bool(classes_of(tmp_path, rows)) is is_shown


def test_parts_that_share_pictures_and_number_classes_otherwise_add_up() -> None:
    names = [f"class {n}" for n in range(70)]
    whole = ClassTable()
    parts = [ClassTable(), ClassTable()]
    for n in range(500):
        picture = f"{n % 200}.png"
        boxes = [[0, 0, 9, 9]] if n % 3 == 0 else []
        rows = [expression(names[n % 70], *boxes), expression(names[n * 7 % 70])]
        row = [*map(Expression.from_json, rows)]
        if n % 2:
            row.reverse()
        whole.add(picture, row)
        parts[n % 2].add(picture, row)
    together = ClassTable()
    for part in parts:
        together.add_table(part)
    assert together.rows() == whole.rows()
    assert sum(row["boxes"] for row in whole.rows()) == 167


@pytest.mark.slow
def test_classes_that_the_user_lists_are_in_the_users_order(tmp_path: Path) -> None:
    cup = expression("cup", [0, 0, 10, 10], [20, 0, 30, 10])
    rows = [("a.png", [cup, expression("cat", [0, 0, 9, 9]), expression("Tie"), expression("ant")])]
    assert [row["class"] for row in classes_of(tmp_path, rows)] == ["cup", "cat", "Tie", "ant"]
    (tmp_path / "classes.txt").write_text("tie\ncat\ncup\n")
    listed = ["Tie", "cat", "cup", "ant"]  # what isn't listed follows
    assert [row["class"] for row in classes_of(tmp_path, rows)] == listed
    path = str(tmp_path / "r.jsonl")
    done = command(["eval", path, "--gold", path])
    assert done.code == 0, done
    table = done.out[done.out.index("| class ") :]
    shown = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert [name for name in shown if name in ("Tie", "cat", "cup")] == ["Tie", "cat", "cup"]


def test_listed_classes_come_first_also_where_one_is_listed_twice() -> None:
    assert in_order(["dog", "tie"], ["Cat", "cat", "tie"]) == ["tie", "dog"]


@pytest.mark.slow
def test_a_run_counts_things_of_a_class_as_stats_does(
    server: LoopbackServer, tmp_path: Path
) -> None:
    """Also where rows of one picture have ids of their own."""
    place = Workplace(tmp_path, server.base_url, **{"data.classes": ["cup", "dish"]})
    place.picture("a.jpg")
    place.picture("b.jpg", color="red")
    rows = [("1", "a.jpg"), ("2", "b.jpg"), ("3", "a.jpg")]
    place.rows({"image_id": own, "image_path": name} for own, name in rows)
    done = place.run()
    assert done.code == 0, done
    figures = command(["stats", str(place.results), "--json"]).summary
    table = done.summary["classes"]
    assert [row["pictures"] for row in table] == [2, 2]
    assert place.run_json()["summary"]["classes"] == table == figures["classes"]
