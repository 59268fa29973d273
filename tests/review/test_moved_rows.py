"""Decisions are of a row, wherever it stands in its file by now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.review.test_review import RECORD, applied, decisions, phrase, results, run, serve, write

pytestmark = pytest.mark.slow

assert all((results, serve))  # fixtures
MORNING = {**RECORD, "caption": "In the morning.", "cleaned_caption": "In the morning."}
EVENING = {**RECORD, "caption": "In the evening.", "cleaned_caption": "In the evening."}
DOGS = {"expressions": [phrase("a dog", 0, [10, 10, 60, 60], caption="")]}


def judge(server: Any, place: int, verified: bool) -> None:
    view = server.ask(f"record/{place}")
    row = view["expressions"][0]
    box = {"from": 0, "bbox": row["instances"][0]["bbox"], "verified": verified}
    after = {"status": "grounded", "instances": [box]}
    change = {"id": row["id"], "version": row["version"], "after": after}
    assert not server.decide(change, record=view["key"])["error"]


def words(records: list[dict[str, Any]]) -> dict[str, bool | None]:
    return {record["caption"]: record["expressions"][0].get("verified") for record in records}


@pytest.mark.parametrize("stated", [False, True])
def test_decisions_stay_with_their_row_when_rows_of_one_image_change_places(
    results: Path, serve: Any, stated: bool
) -> None:
    morning = {**MORNING, **DOGS}
    evening = {**EVENING, **DOGS, **({"row_of_image": 2} if stated else {})}
    write(results, morning, evening)
    server = serve(results)
    judge(server, 0, True)
    judge(server, 1, False)
    expected = {"In the morning.": True, "In the evening.": False}
    assert words(applied(results)) == expected
    write(results, evening, morning)
    assert words(applied(results)) == expected
    server = serve(results)
    seen = {}
    for place in (0, 1):
        view = server.ask(f"record/{place}")
        seen[view["caption"]] = view["expressions"][0]["verified"]
    assert seen == expected


def test_what_nobody_judged_gets_no_verdict_when_rows_change_places(
    results: Path, serve: Any
) -> None:
    third = {**MORNING, **DOGS, "caption": "At noon.", "cleaned_caption": "At noon."}
    write(results, {**MORNING, **DOGS}, {**EVENING, **DOGS}, third)
    judge(serve(results), 1, False)
    write(results, third, {**MORNING, **DOGS}, {**EVENING, **DOGS})
    expected = {"At noon.": None, "In the morning.": None, "In the evening.": False}
    assert words(applied(results)) == expected


def test_rows_that_are_alike_keep_their_places(results: Path, serve: Any) -> None:
    row = {**MORNING, **DOGS}
    write(results, row, row)
    judge(serve(results), 1, False)
    assert [r["expressions"][0].get("verified") for r in applied(results)] == [None, False]


def test_decisions_of_before_that_name_no_row_stay_with_their_id(results: Path, serve: Any) -> None:
    write(results, {**MORNING, **DOGS}, {**EVENING, **DOGS})
    judge(serve(results), 1, False)
    lines = decisions(results)
    for line in lines:
        line.pop("row", None)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (results / "reviews.jsonl").write_text(text)
    assert words(applied(results)) == {"In the morning.": None, "In the evening.": False}
    assert "1 rejected" in run("apply", results)


A, B, C = [1, 1, 50, 50], [70, 70, 90, 90], [100, 100, 120, 120]


def line_of(box: list[int], text: str = "cat", **columns: Any) -> dict[str, Any]:
    """A row of a picture with a line for each box, as detectors' gold often has them."""
    expression = {"text": text, "status": "grounded", "instances": [{"bbox": box}]}
    return {"image_path": "p.png", "width": 200, "height": 150, **columns} | {
        "expressions": [expression]
    }


Q = {"image_path": "q/p.png"}
FIRST, SECOND = {"row_of_image": 1}, {"row_of_image": 2}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("verdict", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([line_of(A), line_of(C)], [line_of(C), line_of(A)], id="swapped"),
        pytest.param(
            [line_of(A), line_of(C)], [line_of(B), line_of(A), line_of(C)], id="one put before"
        ),
        pytest.param([line_of(A), line_of(C)], [line_of(C)], id="taken out"),
        pytest.param(
            [line_of(A, caption="x"), line_of(C, "dog", caption="x")],
            [line_of(C, "dog", caption="x"), line_of(A, caption="x")],
            id="one caption",
        ),
        pytest.param(
            [line_of(A, caption="x"), line_of(C, caption="y")],
            [line_of(C, caption="y")],
            id="taken out, with captions",
        ),
        pytest.param(
            [line_of(A, image_id="p"), line_of(A, image_id="p", **Q)],
            [line_of(A, image_id="p", **Q), line_of(A, image_id="p")],
            id="pictures of one id",
        ),
        pytest.param(
            [line_of(A, **FIRST), line_of(C, **SECOND)],
            [line_of(C, **SECOND), line_of(A, **FIRST)],
            id="numbered",
        ),
    ],
)
def test_a_verdict_is_of_what_was_judged_and_of_nothing_else(
    tmp_path: Path,
    serve: Any,
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    verdict: bool,
) -> None:
    """Each row goes out with the box that it had; the first of `before` is judged."""
    folder = write(tmp_path / "out", *before)
    server = serve(folder)
    judge(server, 0, verdict)
    server.process.terminate()
    server.process.communicate(timeout=120)
    write(folder, *after)
    seen = []
    for row in applied(folder):
        [expression] = row["expressions"]
        [box] = expression["instances"]
        seen.append((row["image_path"], box["bbox"], box.get("verified")))
    expected = []
    judged = (before[0]["image_path"], before[0]["expressions"][0]["instances"][0]["bbox"])
    for row in after:
        box = row["expressions"][0]["instances"][0]["bbox"]
        is_judged = (row["image_path"], box) == judged
        expected.append((row["image_path"], box, verdict if is_judged else None))
    assert seen == expected


def test_decisions_on_a_picture_of_another_ending_outlive_its_new_id(
    tmp_path: Path, serve: Any
) -> None:
    """Earlier versions took `p.jpg` for the second row of `p.png`; now it is called `p.jpg`."""
    jpg = line_of(C, "dog", image_path="p.jpg", caption="A dog.")
    folder = write(
        tmp_path / "out", line_of(A, image_id="p"), {**jpg, "image_id": "p", "row_of_image": 2}
    )
    judge(serve(folder), 1, False)
    write(folder, line_of(A, image_id="p"), {**jpg, "image_id": "p.jpg"})
    verdicts = [row["expressions"][0].get("verified") for row in applied(folder)]
    assert verdicts == [None, False]


def test_boxes_of_a_later_run_get_what_was_decided_on_their_place(
    tmp_path: Path, serve: Any
) -> None:
    """With as many rows as before, what a person found right stands over what was found anew."""
    folder = write(tmp_path / "out", line_of(A), line_of(C, "dog"))
    judge(serve(folder), 0, True)
    write(folder, line_of(B), line_of(C, "dog"))
    boxes = [row["expressions"][0]["instances"][0]["bbox"] for row in applied(folder)]
    assert boxes == [A, C]


def boxes_of(text: str, *boxes: list[int], **columns: Any) -> dict[str, Any]:
    row = line_of(boxes[0], text)
    row["expressions"][0] |= {"instances": [{"bbox": box} for box in boxes], **columns}
    return row


def judge_first_of_two(server: Any, verdict: bool) -> None:
    view = server.ask("record/0")
    row = view["expressions"][0]
    boxes = [{"from": n, "bbox": box["bbox"]} for n, box in enumerate(row["instances"])]
    boxes[0]["verified"] = verdict
    after = {"status": "grounded", "instances": boxes}
    change = {"id": row["id"], "version": row["version"], "after": after}
    assert not server.decide(change, record=view["key"])["error"]


@pytest.mark.parametrize(
    "again", [[C, A], [A, C, B], [A], [A, B]], ids=["order", "a third", "one gone", "another moved"]
)
def test_a_rejected_box_stays_rejected_where_a_later_run_has_others_beside_it(
    tmp_path: Path, serve: Any, again: list[list[int]]
) -> None:
    folder = write(tmp_path / "out", boxes_of("cat", A, C))
    judge_first_of_two(serve(folder), False)
    write(folder, boxes_of("cat", *again))
    [row] = applied(folder)
    instances = row["expressions"][0]["instances"]
    assert {str(box["bbox"]): box.get("verified") for box in instances} == {
        str(box): False if box == A else None for box in again
    }


def test_a_phrase_in_another_case_is_the_same_and_a_renamed_class_is_taken_over(
    tmp_path: Path, serve: Any
) -> None:
    folder = write(tmp_path / "out", boxes_of("cat", A, **{"class": "cat"}))
    judge(serve(folder), 0, True)
    write(folder, boxes_of("Cat", A, **{"class": "kitty"}))
    [row] = applied(folder)
    [expression] = row["expressions"]
    assert (expression["class"], expression["verified"]) == ("kitty", True)


# A verdict is of a picture, whatever its id is by now


def drawn(folder: Path, name: str, color: str) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (200, 150), color).save(folder / name)


def row_of(name: str, **columns: Any) -> dict[str, Any]:
    return {**line_of(A), "image_path": name, "image_id": name.partition(".")[0], **columns}


def judged_rows(folder: Path, serve: Any, row: dict[str, Any]) -> None:
    write(folder, row)
    server = serve(folder)
    judge(server, 0, True)
    server.process.terminate()
    server.process.communicate(timeout=120)


def verdicts_of(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    return {row["image_path"]: row["expressions"][0].get("verified") for row in rows}


@pytest.mark.parametrize("caption", [{}, {"caption": "A cat."}], ids=["classes", "one caption"])
def test_a_verdict_stays_with_its_picture_where_another_one_takes_its_id(
    tmp_path: Path, serve: Any, caption: dict[str, str]
) -> None:
    folder = tmp_path / "out"
    drawn(folder, "b.png", "red")
    judged_rows(folder, serve, row_of("b.png", **caption))
    drawn(folder, "b.jpg", "blue")
    other_box = {"expressions": line_of(C)["expressions"]}  # of a later run
    b_png = row_of("b.png", **caption, **other_box, image_id="b.png")
    write(folder, row_of("b.jpg", **caption), b_png)
    assert verdicts_of(applied(folder)) == {"b.jpg": None, "b.png": True}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_renamed_pictures_verdict_goes_to_no_other_one(
    tmp_path: Path, serve: Any, is_there: bool
) -> None:
    """`shape.jpg` was judged and is called otherwise now; `shape.png` has its id since."""
    folder = tmp_path / "out"
    drawn(folder, "shape.jpg", "red")
    judged_rows(folder, serve, row_of("shape.jpg"))
    (folder / "shape.jpg").unlink()
    if is_there:
        drawn(folder, "shape.png", "green")
    write(folder, row_of("shape.png"))
    assert verdicts_of(applied(folder)) == {"shape.png": None}


def test_a_verdict_is_not_of_a_picture_that_was_replaced(tmp_path: Path, serve: Any) -> None:
    folder = tmp_path / "out"
    drawn(folder, "b.png", "red")
    judged_rows(folder, serve, row_of("b.png"))
    before = (folder / "b.png").read_bytes()
    drawn(folder, "b.png", "blue")
    assert verdicts_of(applied(folder)) == {"b.png": None}
    assert "1 record" in run("apply", folder)
    (folder / "b.png").write_bytes(before)  # written anew, and the same
    assert verdicts_of(applied(folder)) == {"b.png": True}
    (folder / "b.png").unlink()
    assert verdicts_of(applied(folder)) == {"b.png": True}


def test_a_verdict_stays_where_another_picture_of_its_stem_is_renamed(
    tmp_path: Path, serve: Any
) -> None:
    folder = tmp_path / "out"
    drawn(folder, "shape.jpg", "red")
    drawn(folder, "shape.png", "green")
    caption = {"caption": "A cat."}
    both = [row_of("shape.jpg", **caption), row_of("shape.png", **caption, image_id="shape.png")]
    write(folder, *both)
    server = serve(folder)
    judge(server, 0, True)
    server.process.terminate()
    server.process.communicate(timeout=120)
    (folder / "shape.png").rename(folder / "z.png")
    other_box = {"expressions": line_of(C)["expressions"]}
    write(folder, row_of("shape.jpg", **caption, **other_box), row_of("z.png", **caption))
    assert verdicts_of(applied(folder)) == {"shape.jpg": True, "z.png": None}
