"""A record as the pages' scripts have it: offsets in UTF-16 units; the address of its picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.data.records import Record
from dataflow_grounding.review._index import FLAGS, marks_of
from dataflow_grounding.review._record_view import Picture, Utf16Spans, phrases_of, view_of
from dataflow_grounding.review._versions import changes_of
from tests.support.workplace import command, write_rows


@pytest.mark.parametrize(
    ("text", "span", "units"),
    [
        ("a mug", (2, 5), [2, 5]),
        ("\U0001f600 mug", (2, 5), [3, 6]),
        ("a\U0001f600b\U0001f600", (1, 4), [1, 6]),
        ("e\u0301\u2615 \ud83d x", (3, 6), [3, 6]),
        ("", (0, 0), [0, 0]),
    ],
)
def test_spans_go_to_utf16_units(text: str, span: tuple[int, int], units: list[int]) -> None:
    assert Utf16Spans(text).of(span) == units


@pytest.mark.slow
def test_thousands_of_spans_of_a_long_caption() -> None:
    """To go through the caption for each phrase would take longer than any test may."""
    caption = "\U0001f600" * 1_000_000
    row = {"text": "mug", "char_span": [999_998, 1_000_000], "instances": []}
    view = view_of(Record({"caption": caption, "expressions": [row] * 4_000}))
    assert {tuple(each.span or ()) for each in view.expressions} == {(1_999_996, 2_000_000)}


def test_what_a_record_says_reaches_the_page_as_json() -> None:
    row = {"text": "mug", "expression_id": 7, "verified": False, "reason": "why"}
    box = {"bbox": [1, 2, 3, 4], "bbox_score": 0.5, "bbox_id": 3, "evidence": None}
    row["instances"] = [box]
    record = {"image_path": "a/b.jpg", "width": 9, "height": 8, "model": "m", "caption": "mug"}
    record["suspect_boxes"] = True
    whole = Record({**record, "expressions": [row]})
    data = json.loads(json.dumps(view_of(whole, Picture(full="b.jpg")).to_json()))
    names = ("id", "path", "width", "height", "model")
    assert [data[name] for name in names] == ["a/b.jpg", "a/b.jpg", 9, 8, "m"]
    assert marks_of(whole, phrases_of(whole)) == {"grounded", "suspect", "unverified"}
    assert len(data["notes"]) == 1
    [e] = data["expressions"]
    assert e["instances"] == [{"bbox": [1, 2, 3, 4], "score": 0.5, "evidence": ""}]
    assert (e["id"], e["color"], e["span"]) == ("7", 0, None)
    assert (e["check"], e["reasons"]) == ("not verified", ["why"])
    assert view_of(Record({**record, "expressions": []}), Picture((40, 30))).width == 40


def test_a_span_that_is_none_leaves_the_phrase_in_the_list() -> None:
    for span in (None, [5, 3], [-1, 4], [0, 999], ["0", "3"], [0.0, 3.0], [True, False], "ab", 7):
        row = {"text": "a mug", "char_span": span, "instances": []}
        [seen] = view_of(Record({"caption": "a mug", "expressions": [row]})).expressions
        assert (seen.text, seen.span) == ("a mug", None), span


def run_folder(path: Path, model: str, **instance: Any) -> Path:
    row = {"text": "a mug", "instances": [{"bbox": [1, 2, 30, 40], **instance}]}
    names = ("both", f"only {model}")
    records = [{"image_id": name, "expressions": [row]} for name in names]
    write_rows(path / "annotations.jsonl", *records)
    write_rows(path / "run.json", {"model": model})
    return path


@pytest.mark.parametrize(("size", "told"), [((640, 480), 0), ((320, 240), 1), (None, 0)])
def test_a_picture_of_another_size_than_the_record_says_is_told(
    size: tuple[int, int] | None, told: int
) -> None:
    notes = view_of(Record({"width": 640, "height": 480, "expressions": []}), Picture(size)).notes
    assert len(notes) == told
    assert all("640 x 480 pixels, and this one has 320 x 240" in note for note in notes)


@pytest.mark.slow
def test_the_command_shows_where_two_runs_differ(tmp_path: Path) -> None:
    a, b = run_folder(tmp_path / "a", "m1"), run_folder(tmp_path / "b", "m2", bbox=[1, 2, 30, 80])
    done = command(["report", "--json", str(a), str(b)])
    assert done.summary == {"report": str(a / "report_with_b.html"), "records": 3}
    (data,) = a.glob("report_with_b_files/*/records-1.js")
    both, second, first = json.loads(data.read_text().partition(", ")[2].removesuffix(");\n"))
    assert both["changes"] == [{"version": "b", "text": "a mug", "said": "box moved, IoU 0.49"}]
    assert [version["name"] for version in both["versions"]] == ["a", "b"]
    assert (second["id"], second["only"]) == ("only m2", "b")
    assert (first["id"], first["only"]) == ("only m1", "a")
    (index,) = a.glob("report_with_b_files/*/index.js")
    rows = json.loads(index.read_text().partition(", ")[2].removesuffix(");\n"))
    # what one run alone has is changed, too
    assert all(bits & 1 << FLAGS.index("changed") for _, bits, *_ in rows)
    door = (a / "report_with_b.html").read_text()
    figures = dict(re.findall(r"<dt>(\w+)</dt><dd>(\d+)</dd>", door))
    of_second = [figures[name] for name in ("images", "expressions", "changed")]
    assert of_second == ["2", "2", "3"]
    done = command(["report", "--json", str(a), "--single-file"])
    assert done.summary["report"] == str(a / "report.html")
    assert not (a / "report_files").exists()


OLD: dict[str, Any] = {"text": "a pet", "class": "cat", "status": "grounded"}
OLD["instances"] = [{"bbox": [10, 10, 50, 50], "score": 0.9}]
WITHOUT_CLASS = {name: value for name, value in OLD.items() if name != "class"}
GONE = {**OLD, "instances": [], "status": "none"}
BUS = {**OLD, "text": "a bus", "class": "bus", "instances": [{"bbox": [90, 90, 150, 140]}]}


def of(*expressions: dict[str, Any]) -> dict[str, Any]:
    return {"expressions": [*expressions]}


def with_box(*bbox: float, score: float | None = 0.9) -> dict[str, Any]:
    return of({**OLD, "instances": [{"bbox": [*bbox], "score": score}]})


REGION = {"regions": [{"bbox": [40, 30, 200, 150], "type": "mug"}], "expressions": None}
CAPTION = {"region_id": 1, "text": "A red mug.", "bbox": [40, 30, 200, 150]}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, []),
        ({}, of({**OLD, "class": "dog"}), [("a pet", "class cat → dog")]),
        ({}, of(WITHOUT_CLASS), [("a pet", "class cat → –")]),
        ({}, with_box(10, 10, 50, 50, score=0.1), [("a pet", "score 0.9 → 0.1")]),
        ({}, with_box(10, 10, 50, 50, score=None), [("a pet", "score 0.9 → –")]),
        ({}, with_box(10.5, 10, 50.5, 50), [("a pet", "box moved, IoU 0.98")]),
        ({}, of({**OLD, "text": "a Pet"}), [("a pet", "now “a Pet”")]),
        ({}, of({**OLD, "verified": True}), []),
        (of(OLD, BUS), of(OLD), [("a bus", "left out")]),
        (of(OLD), of(OLD, BUS), [("a bus", "added")]),
        ({}, of(GONE), [("a pet", "grounded → none · 1 → 0 boxes")]),
        (of({"text": "a pet", "class": "cat", "instances": []}), of(OLD), []),  # pending
        (REGION, {**REGION, "region_captions": [CAPTION]}, []),
        ({"caption": "a cat"}, {}, [("caption", "“a cat” → “a pet”")]),
        ({"width": 400}, {}, [("size", "400 x 150 → 200 x 150")]),
        ({"width": None}, {}, []),  # which is not known
    ],
)
def test_whatever_differs_between_two_runs_is_told(
    before: dict[str, Any], after: dict[str, Any], said: list[tuple[str, str]]
) -> None:
    record = {"image_id": "a", "caption": "a pet", "width": 200, "height": 150, **of(OLD)}
    view = view_of(Record({**record, **after}))
    found = changes_of(view, [("A", Record({**record, **before}))], "B")
    assert [(change.text, change.said) for change in found.changes] == said


OPEN = {**OLD, "verified": None, "verification": {"method": "check", "boxes": []}}
TWO = {**OLD, "instances": [*OLD["instances"], {"bbox": [0, 0, 9, 9], "score": 0.9}]}
YES, NO = {**OLD, "verified": True}, {**OLD, "verified": False}
UNDECIDED = ("check", "no check → undecided")


@pytest.mark.parametrize(
    ("grounded", "checked", "last", "said"),
    [
        (OLD, OPEN, YES, []),
        (TWO, {**TWO, **OPEN, "instances": TWO["instances"]}, YES, [("last", "2 → 1 boxes")]),
        (OLD, OPEN, OPEN, [UNDECIDED]),
        (OLD, OPEN, NO, [UNDECIDED, ("last", "undecided → not verified")]),
    ],
    ids=["confirmed", "dropped", "open", "refused"],
)
def test_a_check_of_several_steps_that_says_yes_at_last_is_no_change(
    grounded: dict[str, Any], checked: dict[str, Any], last: dict[str, Any], said: list[Any]
) -> None:
    """As with `check: true`: what the first judge leaves open, the second one confirms."""
    record = {"image_id": "a", "caption": "a pet", "width": 200, "height": 150}
    earlier = [
        ("grounding", Record({**record, **of(grounded)})),
        ("check", Record({**record, **of(checked)})),
    ]
    found = changes_of(view_of(Record({**record, **of(last)})), earlier, "last")
    assert [(change.version, change.said) for change in found.changes] == said
