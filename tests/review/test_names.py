"""A decision is of a picture's content, a phrase and a box, and holds wherever these are."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.reviewing import asked_for, left
from tests.support.workplace import command, rows_of, write_rows

A, B, C = [1, 1, 50, 50], [70, 70, 90, 90], [100, 100, 120, 120]


def row(name: str = "a.png", *boxes: list[int], text: str = "cat", **more: Any) -> dict[str, Any]:
    """A row of a picture; with one expression, which has box A unless others are named."""
    instances = [{"bbox": box} for box in boxes or (A,)]
    expression = {"text": text, "status": "grounded", "instances": instances}
    return {"image_path": name, "expressions": [expression], **more}


def write(folder: Path, *rows: dict[str, Any]) -> None:
    write_rows(folder / "annotations.jsonl", *rows)


def drawn(folder: Path, name: str, color: str) -> None:
    Image.new("RGB", (200, 150), color).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn(tmp_path, "a.png", "red")
    return tmp_path


def decide(
    session: Session, place: int = 0, verified: Any = True, id: str = "", **after: Any
) -> None:
    """Judge an expression of a record, the first unless named; as the page does."""
    view = session.view(place)
    rows = view["expressions"]
    seen = next((row for row in rows if row["id"] == id), rows[0])
    boxes = []
    for n, box in enumerate(seen["instances"]):
        boxes.append({"from": n, "bbox": box["bbox"], "verified": verified})
    after = {"status": seen["status"], "instances": boxes, "verified": verified, **after}
    uid = f"{session.who} {len(session.decisions.lines)}"
    decision = {"uid": uid, "record": view["key"], **asked_for(view, seen["id"], after)}
    [answer] = session.decide([decision])["answers"]
    assert not answer["error"]


def page(folder: Path, who: str = "ann") -> Session:
    return Session(Reviewable(str(folder)), who)


def applied(folder: Path) -> list[dict[str, Any]]:
    done = command(["apply", str(folder)])
    assert done.code == 0, done
    return rows_of(folder / "annotations.reviewed.jsonl")


def verdicts(folder: Path) -> list[Any]:
    """What stands of each box of the file, as `apply` says."""
    said = []
    for record in applied(folder):
        said.append([box.get("verified") for e in record["expressions"] for box in e["instances"]])
    return said


@pytest.mark.slow
def test_the_same_content_under_another_name_is_decided(folder: Path) -> None:
    write(folder, row(image_id="a", caption="A cat."))
    decide(page(folder))
    (folder / "a.png").rename(folder / "z.png")
    write(folder, row("z.png", image_id="z", caption="A cat there."), row("z.png", B))
    session = page(folder)
    assert len(left(session)) == 1  # both rows are of one picture
    shown = session.view(0)["expressions"]
    assert [box["verified"] for e in shown for box in e["instances"]] == [True, None]
    assert verdicts(folder) == [[True], [None]]


def test_all_rows_of_a_picture_are_one_to_judge(folder: Path) -> None:
    captions = ["A cat.", "It is a cat.", "One cat, one dog."]
    rows = [row(image_id="a", caption=caption) for caption in captions]
    rows[2]["expressions"] += row("a.png", B, text="dog")["expressions"]
    write(folder, *rows)
    session = page(folder)
    assert [(item.text, item.box) for item in left(session)] == [("cat", 0), ("dog", 0)]
    assert session.view(0)["captions"] == captions[1:]
    decide(session, verified=False)
    assert len(left(session)) == 1
    assert verdicts(folder) == [[False], [False], [False, None]]


@pytest.mark.parametrize("place", [0, 1])
def test_a_row_that_can_not_be_read_keeps_no_other_of_its_picture_away(
    folder: Path, place: int
) -> None:
    rows = [row("a.png"), row("a.png", text="dog")]
    rows.insert(place, {**row("a.png"), "expressions": [{"text": "bird", "instances": [{}]}]})
    write_rows(folder / "annotations.jsonl", *rows)
    reviewable = Reviewable(str(folder))
    session = Session(reviewable, "ann")
    said = {}
    for index in range(len(reviewable.keys)):
        view = session.view(index)
        said[view["problem"].partition(":")[0]] = [row["text"] for row in view["expressions"]]
    assert said == {"": ["cat", "dog"], "column 'expressions', expression 0": []}


@pytest.mark.slow
def test_a_rerun_asks_for_what_it_changed_and_another_order_for_nothing(tmp_path: Path) -> None:
    rows = []
    for n in range(100):
        name = f"{n:02}.png"
        Image.new("RGB", (200, 150), (n, n, n)).save(tmp_path / name)
        rows.append(row(name, A, B, image_id=f"r{n}"))
    write(tmp_path, *rows)
    sample = Session(Reviewable(str(tmp_path)), "ann", sample=(60, 3))
    session = page(tmp_path)
    assert len(left(session)) == 200
    for place in range(100):
        decide(session, place)
    assert len(left(session)) == len(left(sample)) == 0

    for n in (3, 30, 31, 77, 99):
        rows[n]["expressions"][0]["instances"][1]["bbox"] = [70, 70, 90, 91]
    write(tmp_path, *rows)
    session = page(tmp_path)
    assert [(item.record, item.box) for item in left(session)] == [
        (n, 1) for n in (3, 30, 31, 77, 99)
    ]
    again = Session(Reviewable(str(tmp_path)), "ann", sample=(60, 3))
    assert len({*(sample.sample or ())} - {*(again.sample or ())}) <= 5
    for n in (3, 30, 31, 77, 99):
        decide(session, n)
    random.Random(0).shuffle(rows)
    write(tmp_path, *rows)
    assert len(left(page(tmp_path))) == 0
    assert set(map(str, verdicts(tmp_path))) == {"[True, True]"}
    turned = Session(Reviewable(str(tmp_path)), "ann", sample=(60, 3))
    drawn = [
        {(*session.reviewable.named(place),) for place in session.sample or ()}
        for session in (again, turned)
    ]
    assert drawn[0] == drawn[1]


CHANGED = {
    "picture": row(),
    "box": row("a.png", [1, 1, 50, 51]),
    "phrase": row(text="cats"),
    "case": row(text="Cat"),
    "id": row(image_id="another"),
    "rest": row(caption="A cat.", width=200, height=150),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_has_changed_asks_again_and_nothing_else(folder: Path, name: str) -> None:
    write(folder, row(image_id="a"))
    decide(page(folder))
    if name == "picture":
        drawn(folder, "a.png", "blue")
    write(folder, {"image_id": "a", "more": 1, **CHANGED[name]}, row("gone.png", C))
    decide(page(folder), 1)
    kept = name in ("id", "rest")
    assert verdicts(folder)[0] == [True if kept else None]
    assert len(left(page(folder))) == (0 if kept else 1)


def test_a_picture_that_is_not_here_is_told_by_its_path(folder: Path) -> None:
    (folder / "a.png").unlink()
    write(folder, row("a.png", A), row("a.png", C), row("q/a.png", A, image_id="a"))
    session = page(folder)
    boxes = [{"from": n, "bbox": box, "verified": n == 0} for n, box in enumerate((A, C))]
    decide(session, 0, instances=boxes)
    write(folder, row("q/a.png", A, image_id="a"), row("a.png", C), row("a.png", B), row())
    assert verdicts(folder) == [[None], [False], [None], [True]]


def test_a_box_keeps_its_verdict_where_other_boxes_come_or_go(folder: Path) -> None:
    write(folder, row("a.png", A, C))
    decide(page(folder), verified=False)
    write(folder, row("a.png", B, A))
    [record] = applied(folder)
    [cat] = record["expressions"]
    assert [box.get("verified") for box in cat["instances"]] == [None, False]
    assert cat["verified"] is False


def test_new_words_and_the_verdict_under_them_hold_for_the_old_ones_and_the_new(
    folder: Path,
) -> None:
    write(folder, row())
    decide(page(folder), text="kitty")
    write(folder, row("a.png", A, C))
    assert verdicts(folder) == [[True, None]]
    assert rows_of(folder / "annotations.reviewed.jsonl")[0]["expressions"][0]["text"] == "kitty"
    write(folder, row("a.png", A, C, text="kitty"))
    assert verdicts(folder) == [[True, None]]


def test_what_was_drawn_is_there_wherever_the_phrase_is(folder: Path) -> None:
    write(folder, row("a.png", A))
    boxes = [{"from": 0, "bbox": A, "verified": False}, {"from": None, "bbox": B, "verified": True}]
    decide(page(folder), instances=boxes)
    write(folder, row("a.png", C, text="dog"), row("a.png", A, image_id="other"))
    _, record = applied(folder)
    [cat] = record["expressions"]
    boxes = [(box["bbox"], box["verified"]) for box in cat["instances"]]
    assert boxes == [(A, False), (B, True)]


def test_equal_pictures_and_phrases_are_decided_at_once(folder: Path) -> None:
    drawn(folder, "b.png", "red")
    record = row(image_id="a")
    record["expressions"] *= 2
    write(folder, record, row("b.png", image_id="b"))
    decide(page(folder), verified=False, id="a#1")
    assert verdicts(folder) == [[False, False], [False]]


def test_a_copys_decisions_are_appended_and_a_line_counts_once(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, row(image_id="a"))
    copy = tmp_path / "copy"
    decide(page(folder))
    shutil.copytree(folder, copy)
    decide(page(copy, "bob"), verified=False)
    decide(page(folder))
    of_copy = (copy / "reviews.jsonl").read_text()
    decisions = [of_copy, (folder / "reviews.jsonl").read_text()]
    (folder / "reviews.jsonl").write_text("".join(decisions))
    assert verdicts(folder) == [[True]]
    (folder / "reviews.jsonl").write_text("".join(reversed(decisions)))
    assert verdicts(folder) == [[False]]
