"""One record may have any number of expressions: what looks at them takes time in proportion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.evaluation.figures import _phrases
from dataflow_grounding.evaluation.figures._phrases import (
    MOST_COMPARED,
    sharing_boxes,
)
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.bytecode import steps_of
from tests.support.reviewing import look_at_all
from tests.support.workplace import command, write_rows


def expressions(same: str, count: int) -> list[dict[str, Any]]:
    """All of one box and one id, or all of one text, or with nothing in common."""
    made = []
    for n in range(count):
        x, y = n % 600, n // 600
        one: dict[str, Any] = {"text": f"the thing {n}"}
        one["instances"] = [{"bbox": [x, y, x + 9, y + 9], "score": 0.5}]
        if same == "box":
            one |= {"expression_id": "e", "instances": [{"bbox": [1, 2, 30, 40], "score": 0.5}]}
        if same == "text":
            one["text"] = "a cup"
        made.append(one)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "same"),
    [
        *((name, same) for name in ("stats", "lint", "report") for same in ("box", "text")),
        *(("review", "box"), ("certify", "box")),  # which compare neither texts nor boxes
    ],
)
def test_a_record_of_hundreds_of_expressions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, same: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_phrases, "MOST_COMPARED", 250)  # as many of 50 boxes as of 400
    Image.new("RGB", (640, 480), "navy").save("a.jpg")
    row = {"image_path": "a.jpg", "width": 640, "height": 480, "cleaned_caption": "a cup and a cup"}

    def steps(count: int) -> int:
        record = {**row, "expressions": expressions(same, count)}
        write_rows(Path("annotations.jsonl"), record)
        return steps_of(lambda: looked_at(count))

    def looked_at(count: int) -> None:
        if name == "review":
            look_at_all(".")
            return
        if name == "certify":  # all that there is, which nobody judged
            Path("reviews.jsonl").unlink(missing_ok=True)
            Session(Reviewable("."), "ann", sample=(count, 0))
        done = command([name, "."])
        assert done.code in (0, 1), done
        assert "Internal" not in done.err

    steps(1)
    assert steps(400) < 10 * steps(50)


@pytest.mark.slow
def test_lint_of_a_caption_that_has_all_phrases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To go through the caption for each phrase would take longer than any test may."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_phrases, "MOST_COMPARED", 250)
    rows = []
    for same, count in (("none", 8000), ("text", 500)):
        for has_span in (False, True):
            many = expressions(same, count)
            caption = " and ".join(each["text"] for each in many)
            for each in many:
                each["char_span"] = [0, len(caption)] if has_span else None
            rows.append({"image_path": "a.jpg", "cleaned_caption": caption, "expressions": many})
    write_rows(Path("rows.jsonl"), *rows)
    done = command(["lint", "rows.jsonl", "--no-pictures", "--select", "DG2", "--json"])
    assert done.code == 1, done.err
    assert [done.summary["counts"][rule] for rule in ("DG201", "DG202")] == [8500, 8500]


@pytest.mark.slow
def test_boxes_are_compared_up_to_a_bound_and_below_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_phrases, "MOST_COMPARED", 800)
    for count in (2, 30, 40):
        box = Instance((0, 0, 9, 9))
        some = [Expression(f"thing {n}", instances=[box]) for n in range(count)]
        assert len([*sharing_boxes(some)]) == count * (count - 1) // 2 <= 800
    assert 0 < len([*sharing_boxes([*map(Expression.from_json, expressions("box", 100))])]) <= 800
    assert MOST_COMPARED >= 400 * 399 // 2


def test_a_box_without_end_and_height_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    endless = {"text": "a cup", "instances": [{"bbox": [-1e308, 5, 1e308, 5]}]}
    row = {"image_path": "a.jpg", "width": 64, "height": 48, "expressions": [endless]}
    write_rows(Path("rows.jsonl"), row)
    done = command(["stats", "rows.jsonl", "--no-pictures"])
    assert done.code == 0, done
