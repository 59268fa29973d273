"""A decision is of one file: on another one `apply --take-equal` takes what is equal by picture, text
and box.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.session import Session
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
    change = {"id": seen["id"], "version": seen["version"], "after": after}
    uid = f"{session.decisions.count} {session.decisions.file[:9]}"
    decision = {"uid": uid, "record": view["key"], "action": "accept", "changes": [change]}
    [answer] = session.decide([decision])
    assert not answer["error"]


def page(folder: Path, who: str = "ann") -> Session:
    return Session(Reviewable(str(folder)), who)


def applied(folder: Path) -> list[dict[str, Any]]:
    done = command(["apply", str(folder), "--take-equal"])
    assert done.code == 0, done
    return rows_of(folder / "annotations.reviewed.jsonl")


def verdicts(folder: Path) -> list[Any]:
    """What stands of each box of the file, said by `apply` and shown by a page alike."""
    said = []
    for number, record in enumerate(applied(folder)):
        boxes = [box for e in record["expressions"] for box in e["instances"]]
        said.append([box.get("verified") for box in boxes])
        view = page(folder).view(number)
        shown = [box["verified"] for e in view["expressions"] for box in e["instances"]]
        assert shown == said[-1]
    return said


@pytest.mark.slow
def test_the_same_content_under_another_name_is_taken_if_asked_for(folder: Path) -> None:
    write(folder, row(image_id="a", caption="A cat."))
    decide(page(folder))
    (folder / "a.png").rename(folder / "z.png")
    write(folder, row("z.png", image_id="z", caption="A cat there."), row("z.png", B))
    done = command(["apply", str(folder)])
    told = "1 of 2 boxes (50%) equal what was reviewed in another file"
    assert (done.code, told in done.err, "--take-equal takes" in done.err) == (2, True, True)
    assert page(folder).next({})["left"] == 2
    assert verdicts(folder) == [[True], [None]]
    session = page(folder)
    assert session.next({})["left"] == 1
    assert session.view(0)["expressions"][0]["reviewed_by"] == "ann"
    decide(session, verified=False)  # it is a decision on this file as any other
    assert verdicts(folder) == [[False], [None]]
    assert "equal" not in command(["apply", str(folder), "--take-equal"]).err


def test_that_no_box_is_equal_is_said_where_another_file_has_decisions(folder: Path) -> None:
    write(folder, row(image_id="a"))
    decide(page(folder))
    assert command(["apply", str(folder)]).err == ""  # this file alone was reviewed
    write(folder, row("a.png", B, image_id="a"))
    decide(page(folder))
    done = command(["apply", str(folder)])
    told = "0 of 1 boxes (0%) equal what was reviewed in another file, by picture, text and box:"
    assert (done.code, told in done.err, "nothing to take over" in done.err) == (0, True, True)


def test_a_phrase_of_equal_boxes_is_of_who_decided_last(folder: Path) -> None:
    """Whose box comes last doesn't matter, as in a review of that phrase itself."""
    mugs = [{"text": "mug", "status": "grounded", "instances": [{"bbox": box}]} for box in (A, B)]
    write(folder, {"image_path": "a.png", "image_id": "a", "expressions": mugs})
    decide(page(folder, "bob"), id="a#1")
    decide(page(folder, "ann"), id="a#0")
    write(folder, row("a.png", A, B, text="mug", image_id="a"))
    [record] = applied(folder)
    [mug] = record["expressions"]
    assert [box["reviewed_by"] for box in mug["instances"]] == ["ann", "bob"]
    assert (mug["verified"], mug["reviewed_by"]) == (True, "ann")


CHANGED = {
    "picture": row(),
    "box": row("a.png", [1, 1, 50, 51]),
    "phrase": row(text="cats"),
    "case": row(text="Cat"),
    "id": row(image_id="another"),
    "rest": row(caption="A cat.", width=200, height=150),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_has_changed_is_not_taken(folder: Path, name: str) -> None:
    write(folder, row(image_id="a"))
    decide(page(folder))
    if name == "picture":
        drawn(folder, "a.png", "blue")
    write(folder, {"image_id": "a", "more": 1, **CHANGED[name]}, row("gone.png", C))
    decide(page(folder), 1)
    kept = name in ("id", "rest")
    assert verdicts(folder)[0] == [True if kept else None]


def test_a_picture_that_is_not_here_is_told_by_its_path(folder: Path) -> None:
    (folder / "a.png").unlink()
    write(folder, row("a.png", A), row("a.png", C), row("q/a.png", A, image_id="a"))
    session = page(folder)
    decide(session, 0, True)
    decide(session, 1, False)
    write(folder, row("q/a.png", A, image_id="a"), row("a.png", C), row("a.png", B), row())
    assert verdicts(folder) == [[None], [False], [None], [True]]


def test_a_box_keeps_its_verdict_where_other_boxes_come_or_go(folder: Path) -> None:
    write(folder, row("a.png", A, C))
    decide(page(folder), verified=False)
    write(folder, row("a.png", B, A))
    [record] = applied(folder)
    [cat] = record["expressions"]
    assert [box.get("verified") for box in cat["instances"]] == [None, False]
    assert "verified" not in cat


def test_a_verdict_counts_for_the_words_that_were_judged(folder: Path) -> None:
    """Where a reviewer has put other words, nobody has judged the box under the old ones."""
    write(folder, row())
    decide(page(folder), text="kitty")
    write(folder, row("a.png", A, C), row("a.png", A, C, text="kitty"))
    assert verdicts(folder) == [[None, None], [True, None]]


def test_what_was_drawn_is_taken_where_the_phrase_has_the_same_boxes(folder: Path) -> None:
    write(folder, row("a.png", A))
    boxes = [{"from": 0, "bbox": A, "verified": False}, {"from": None, "bbox": B, "verified": True}]
    decide(page(folder), instances=boxes)
    write(folder, row("a.png", C, text="dog"), row("a.png", A, image_id="other"))
    _, record = applied(folder)
    [cat] = record["expressions"]
    boxes = [(box["bbox"], box["verified"]) for box in cat["instances"]]
    assert boxes == [(A, False), (B, True)]


def test_a_decision_is_of_one_row_alone(folder: Path) -> None:
    drawn(folder, "b.png", "red")
    rows = [row(image_id="a", caption=f"{n}: a cat.") for n in range(2)]
    write(folder, *rows, row("b.png", image_id="b"))
    decide(page(folder), 0, False)
    assert verdicts(folder) == [[False], [None], [None]]


def test_decisions_of_earlier_versions_are_taken_if_asked_for(folder: Path) -> None:
    """Their lines name no file."""
    write(folder, row(image_id="a"))
    decide(page(folder))
    decide(page(folder), verified=False)
    log = folder / "reviews.jsonl"
    lines = rows_of(log)
    for line in lines:
        del line["file"]
    write_rows(log, *lines)
    assert command(["apply", str(folder)]).code == 2
    assert verdicts(folder) == [[False]]


def test_of_phrases_alike_in_one_record_each_has_its_own(folder: Path) -> None:
    record = row(image_id="a")
    record["expressions"] *= 2
    write(folder, record)
    decide(page(folder), verified=False, id="a#1")
    assert verdicts(folder) == [[None, False]]


def test_a_copys_decisions_are_appended_and_a_line_counts_once(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, row(image_id="a"))
    copy = tmp_path / "copy"
    decide(page(folder))
    shutil.copytree(folder, copy)
    decide(page(copy, "bob"), verified=False)
    decide(page(folder))
    of_copy = (copy / "reviews.jsonl").read_text().replace('"uid": "1 ', '"uid": "his own ')
    decisions = [of_copy, (folder / "reviews.jsonl").read_text()]
    (folder / "reviews.jsonl").write_text("".join(decisions))
    assert verdicts(folder) == [[True]]
    (folder / "reviews.jsonl").write_text("".join(reversed(decisions)))
    assert verdicts(folder) == [[False]]
