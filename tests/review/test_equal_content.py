"""A decision is of a picture's content, a phrase and its boxes: equal content gets it, nothing else
does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.workplace import command

A, B, C = [1, 1, 50, 50], [70, 70, 90, 90], [100, 100, 120, 120]


def row(name: str = "a.png", *boxes: list[int], text: str = "cat", **more: Any) -> dict[str, Any]:
    """A row of a picture; with one expression, which has box A unless others are named."""
    instances = [{"bbox": box} for box in boxes or (A,)]
    expression = {"text": text, "status": "grounded", "instances": instances}
    return {"image_path": name, "expressions": [expression], **more}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "annotations.jsonl").write_text(text, encoding="utf-8")
    return folder


def drawn(folder: Path, name: str, color: str) -> None:
    Image.new("RGB", (200, 150), color).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn(tmp_path, "a.png", "red")
    return tmp_path


def decide(
    session: Session, place: int = 0, verified: Any = True, id: str = "", **after: Any
) -> dict[str, Any]:
    """Judge an expression of a record, the first unless named; as the page does."""
    view = session.view(place)
    rows = view["expressions"]
    seen = next((row for row in rows if row["id"] == id), rows[0])
    boxes = [
        {"from": n, "bbox": box["bbox"], "verified": verified}
        for n, box in enumerate(seen["instances"])
    ]
    change = {
        "id": seen["id"],
        "version": seen["version"],
        "after": {"status": seen["status"], "instances": boxes, "verified": verified, **after},
    }
    return sent(session, view["key"], change)


def sent(session: Session, key: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    uid = f"{session.decisions.count} {more}"
    decision = {"uid": uid, "record": key, "action": "accept", "changes": [*changes], **more}
    [answer] = session.decide([decision])
    assert not answer["error"]
    return answer


def page(folder: Path, who: str = "ann", **more: Any) -> Session:
    return Session(Reviewable(str(folder)), who, **more)


def applied(folder: Path) -> list[dict[str, Any]]:
    done = command(["apply", str(folder)])
    assert done.code == 0, done
    lines = (folder / "annotations.reviewed.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


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


def test_the_same_content_under_another_name_gets_the_decision(folder: Path) -> None:
    write(folder, row(image_id="a", caption="A cat."))
    decide(page(folder))
    (folder / "a.png").rename(folder / "z.png")
    write(folder, row("z.png", image_id="z", caption="A cat there."))
    assert verdicts(folder) == [[True]]
    assert command(["apply", str(folder)]).err == ""


CHANGED = {
    "picture": row(),
    "box": row("a.png", [1, 1, 50, 51]),
    "phrase": row(text="cats"),
    "case": row(text="Cat"),
    "id": row(image_id="another"),
    "rest": row(caption="A cat.", width=200, height=150),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_has_changed_gets_no_decision(folder: Path, name: str) -> None:
    write(folder, row(image_id="a"))
    decide(page(folder))
    if name == "picture":
        drawn(folder, "a.png", "blue")
    write(folder, {"image_id": "a", **CHANGED[name]})
    kept = name in ("id", "rest")
    assert verdicts(folder) == [[True if kept else None]]
    said = (
        "" if kept else "Note: 1 phrase not as decided on, as the picture, the words or the boxes"
    )
    assert command(["apply", str(folder)]).err.startswith(said)


def test_a_picture_that_is_as_it_was_gets_its_decision_back(folder: Path) -> None:
    write(folder, row())
    decide(page(folder), verified=False)
    before = (folder / "a.png").read_bytes()
    drawn(folder, "a.png", "blue")
    assert verdicts(folder) == [[None]]
    (folder / "a.png").write_bytes(before)
    assert verdicts(folder) == [[False]]
    (folder / "a.png").unlink()  # then its path tells
    assert verdicts(folder) == [[False]]


@pytest.mark.parametrize("is_here", [True, False])
def test_rows_of_one_picture_that_change_places_keep_their_own(folder: Path, is_here: bool) -> None:
    if not is_here:
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
    write(folder, row("a.png", C))
    [record] = applied(folder)
    assert record["expressions"][0]["verified"] is False
    session = page(folder)
    assert session.next({})["left"] == 0
    decide(session, verified=True)
    assert verdicts(folder) == [[True]]


def test_a_decision_is_of_all_records_alike_at_once(folder: Path) -> None:
    """Each may be decided otherwise after that, and what was decided is taken back on its own."""
    rows = [row(image_id="a", caption=f"{n}: a cat.") for n in range(3)]
    write(folder, *rows)
    session = page(folder)
    view = session.view(2)
    decide(session, 0, True)
    assert [session.view(n)["expressions"][0]["verified"] for n in range(3)] == [True] * 3
    assert session.next({})["left"] == 0
    # the page still shows it as it was; the same decision isn't refused
    seen = view["expressions"][0]
    box = {"from": 0, "bbox": A, "verified": True}
    after = {"status": "grounded", "instances": [box]}
    sent(session, view["key"], {"id": seen["id"], "version": seen["version"], "after": after})
    change = {"id": seen["id"], "version": seen["version"], "after": {**after, "instances": []}}
    [answer] = session.decide(
        [{"uid": "x", "record": view["key"], "action": "accept", "changes": [change]}]
    )
    assert "ann changed it meanwhile" in answer["error"]
    decide(session, 1, False)
    assert verdicts(folder)[1:] == [[False], [True]]


def test_a_copy_of_the_picture_is_decided_on_in_a_session_under_way(folder: Path) -> None:
    drawn(folder, "b.png", "red")
    drawn(folder, "c.png", "blue")
    write(folder, row(image_id="a"), row("b.png", image_id="b"), row("c.png", image_id="c"))
    session = page(folder)
    decide(session, 0, False)
    assert session.view(2)["expressions"][0]["verified"] is None
    assert session.view(1)["expressions"][0]["verified"] is False
    decide(session, 0, True)
    assert session.view(1)["expressions"][0]["verified"] is True
    decide(session, 1, False)
    assert verdicts(folder) == [[True], [False], [None]]


def test_what_was_added_is_of_its_caption_and_has_an_id_of_its_own(folder: Path) -> None:
    drawing = {"status": "grounded", "instances": [{"bbox": B, "from": None}]}
    morning = row(image_id="a", caption="A cat and a dog.")
    write(folder, morning, row(image_id="a", caption="A cat."))
    session = page(folder)
    after = {"text": "a dog", "char_span": [10, 15], **drawing}
    sent(session, "a", {"fresh": True, "version": "", "after": after}, comment="odd")
    second = {"text": "a bus", "status": "none", "instances": [], "expression_id": "a@2#1"}
    morning["expressions"].append(second)
    write(folder, row(image_id="a", caption="A cat."), morning)
    cat, whole = applied(folder)
    assert [e["text"] for e in cat["expressions"]] == ["cat"]
    assert "review_comment" not in cat
    assert whole["review_comment"] == "odd"
    assert [e["text"] for e in whole["expressions"]] == ["cat", "a bus", "a dog"]
    ids = [e["expression_id"] for e in whole["expressions"]]
    assert len(set(ids)) == 3
    # a later run that has it itself
    found = {"text": "a dog", "status": "grounded", "instances": [{"bbox": B}]}
    write(folder, {**morning, "expressions": [*morning["expressions"], found]})
    assert [e["text"] for e in applied(folder)[0]["expressions"]] == ["cat", "a bus", "a dog"]


def test_an_added_phrase_whose_id_is_taken_can_be_decided_on(folder: Path) -> None:
    write(folder, row(image_id="a"))
    drawing = {"text": "a dog", "status": "grounded", "instances": [{"bbox": B, "from": None}]}
    sent(page(folder), "a", {"fresh": True, "version": "", "after": drawing})
    bus = {"text": "a bus", "status": "none", "instances": []}
    both = row(image_id="a")
    both["expressions"].append(bus)
    write(folder, both)
    session = page(folder)
    assert [e["id"] for e in session.view(0)["expressions"]] == ["a#0", "a#1", "a#1~2"]
    decide(session, verified=False, id="a#1~2")
    rows = applied(folder)[0]["expressions"]
    assert [(e["text"], e.get("verified")) for e in rows][1:] == [("a bus", None), ("a dog", False)]


def test_what_is_taken_back_is_of_no_record_any_more(folder: Path) -> None:
    write(folder, row(image_id="a"))
    session = page(folder)
    answer = decide(session)
    sent(session, "a", undoes=answer["uid"])
    write(folder, row(image_id="b"))
    assert verdicts(folder) == [[None]]
    decide(page(folder), verified=False)
    assert verdicts(folder) == [[False]]


def earlier(folder: Path, *without: str) -> None:
    """Write the decisions as earlier versions did."""
    lines = []
    path = folder / "reviews.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        line.pop("place")
        line["picture"].pop("path")
        for name in without:
            line["picture"].pop(name, None)
            line.pop(name, None)
        for change in line["changes"]:
            change.pop("original", None)
        lines.append(json.dumps({**line, "row": "0" * 16, "rows": 1, "alike": 1}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("without", [(), ("digest", "size"), ("picture",)], ids=str)
def test_decisions_of_earlier_versions_are_read(folder: Path, without: tuple[str, ...]) -> None:
    """Verdicts, a box that was drawn, then judged, what was added, a comment, and what was undone."""
    cats = row("a.png", A, image_id="a")
    dog = {"text": "dog", "status": "none", "instances": []}
    cats["expressions"] += [dog, {**dog, "text": "cow"}]
    write(folder, cats, row(image_id="a", caption="no more"))
    session = page(folder)
    moved = {"from": 0, "bbox": B, "unjudged": True}
    decide(session, instances=[moved])
    decide(session, verified=True)
    drawing = {"text": "bus", "status": "grounded", "instances": [{"bbox": C, "from": None}]}
    sent(session, "a", {"fresh": True, "version": "", "after": drawing}, comment="odd")
    decide(session, id="a#1")
    undone = decide(session, id="a#2")
    sent(session, "a", undoes=undone["uid"])
    before = applied(folder)
    assert [e.get("verified") for e in before[0]["expressions"]] == [True, True, None, True]
    assert before[0]["expressions"][0]["instances"][0]["bbox"] == B
    earlier(folder, *without)
    assert applied(folder)[0] == before[0]
    session = page(folder)
    decide(session, verified=False, id="a#1")
    after = applied(folder)[0]
    assert [e.get("verified") for e in after["expressions"]] == [True, False, None, True]
    if not without:  # then the content is known
        (folder / "a.png").rename(folder / "b.png")
        cats["image_path"] = "b.png"
        write(folder, {**cats, "image_id": "b"})
        verdicts = [e.get("verified") for e in applied(folder)[0]["expressions"]]
        assert verdicts == [True, False, None]


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
    of_copy = (copy / "reviews.jsonl").read_text().replace('"1 {}"', '"his own"')  # the uid
    decisions = [of_copy, (folder / "reviews.jsonl").read_text()]
    (folder / "reviews.jsonl").write_text("".join(decisions))
    assert verdicts(folder) == [[True]]
    (folder / "reviews.jsonl").write_text("".join(reversed(decisions)))
    assert verdicts(folder) == [[False]]


def test_blind_reviews_of_earlier_versions_count_for_nothing(folder: Path) -> None:
    write(folder, row(image_id="a"))
    decide(page(folder))
    decide(page(folder, "bob"), verified=False)
    first, second = map(json.loads, (folder / "reviews.jsonl").read_text().splitlines())
    lines = [first, {**second, "blind": True}]
    (folder / "reviews.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert verdicts(folder) == [[True]]
