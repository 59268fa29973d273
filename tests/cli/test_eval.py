"""`eval` in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.metrics.cases import FAR, HALF, LEFT, RIGHT, record
from tests.support.workplace import REPOSITORY, Done, command, rows_of

MEASURES = (
    "precision_at_iou_0.5 recall_at_iou_0.5 f1_at_iou_0.5 acc_0.5 miou t_acc n_acc il_mcc "
    "span_exact_f1 ap"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with gold and two runs: `a` finds one box of three, `b` two."""
    monkeypatch.chdir(tmp_path)
    write("gold.jsonl", record(cup=[LEFT], saucer=[RIGHT], spoon=[LEFT], fork=[]))
    write("a.jsonl", record(cup=[(LEFT, 0.9)], saucer=[(FAR, 0.4)], fork=[(FAR, 0.2)]))
    write(
        "b/annotations.jsonl",
        record(cup=[(LEFT, 0.9)], saucer=[(RIGHT, 0.8)], spoon=[(HALF, 0.3)], fork=[]),
    )
    return tmp_path


def write(path: str, *rows: dict[str, Any]) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def done(*arguments: str) -> Done:
    ended = command(arguments)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended


def figures(*arguments: str) -> dict[str, Any]:
    said = json.loads(done("eval", *arguments, "--gold", "gold.jsonl", "--json").out)
    assert isinstance(said, dict)
    return said


def test_json_has_every_key_and_its_interval(folder: Path) -> None:
    said = figures("a.jsonl")
    measures = [name for name, value in said.items() if isinstance(value, float | None)]
    assert measures == MEASURES.split()
    assert (said["acc_0.5"], said["n_acc"]) == (0.333333, 0.0)
    assert (said["images"], said["expressions"]) == (1, 4)
    # one image: each draw is the same
    assert said["intervals"]["acc_0.5"] == [0.333333, 0.333333]
    assert said["span_exact_f1"] is None
    assert "span_exact_f1" not in said["intervals"]
    assert (said["precision_at_iou_0.5"], said["recall_at_iou_0.5"]) == (0.333333, 0.333333)


def test_variants_change_what_they_name(folder: Path) -> None:
    assert figures("b")["acc_0.5"] == 1.0
    assert figures("b", "--score-cut", "0.5")["recall_at_iou_0.5"] == 0.666667
    assert figures("b", "--iou", "0.75")["recall_at_iou_0.75"] == 0.666667


def test_two_runs_next_to_each_other(folder: Path) -> None:
    said = figures("a.jsonl", "b")
    assert said["acc_0.5"] == 0.333333
    assert said["compared"]["figures"]["acc_0.5"] == 1.0
    assert said["compared"]["difference"]["acc_0.5"] == pytest.approx(0.666667)
    assert said["compared"]["intervals"]["acc_0.5"] == pytest.approx([0.666667, 0.666667])
    page = done("eval", "a.jsonl", "b", "--gold", "gold.jsonl").out
    assert re.search(r"\| acc_0.5 +\| 0.3333 +\| .* \| 1.0000 +\| .* \| 0.6667 +\|", page)


def test_the_table_is_what_the_json_says_and_fits_on_a_screen(folder: Path) -> None:
    page = done("eval", "a.jsonl", "--gold", "gold.jsonl").out
    assert len(page.splitlines()) <= 24
    for name, value in figures("a.jsonl").items():
        if isinstance(value, float):
            assert re.search(rf"^\| {re.escape(name)} +\| {value:.4f} ", page, re.MULTILINE), name
    assert "Nothing to measure: span_exact_f1.\n" in page


def test_a_folder_of_figures_and_worst_cases(folder: Path) -> None:
    shutil.copy(REPOSITORY / "example_data" / "images" / "coffee.jpg", "x.png")
    write("gold.jsonl", record(knife=[], cup=[LEFT], saucer=[RIGHT], spoon=[LEFT], fork=[]))
    write("a.jsonl", record(knife=[], cup=[(LEFT, 0.9)], saucer=[(FAR, 0.4)], fork=[(FAR, 0.2)]))
    said = figures("a.jsonl", "b", "-o", "figures")
    assert sorted(os.listdir("figures")) == [
        "figures.json",
        "figures.md",
        "worst.html",
        "worst.jsonl",
        "worst_files",
    ]
    assert json.loads(Path("figures/figures.json").read_text("utf-8")) == said
    assert "| acc_0.5 " in Path("figures/figures.md").read_text("utf-8")
    [worst] = rows_of(Path("figures/worst.jsonl"))
    texts = [e["text"] for e in worst["expressions"]]
    assert texts[:2] == ["saucer (gold)", "saucer (found, IoU 0.00)"]
    assert {"spoon (gold)", "fork (gold)", "fork (found, IoU 0.00)"} <= set(texts)
    assert not any("cup" in text or "knife" in text for text in texts)
    scripts = [path.read_text("utf-8") for path in Path("figures/worst_files").rglob("*.js")]
    for shown in ("saucer (found, IoU 0.00)", '"thumbnail":"../x.png"'):
        assert any(shown in script for script in scripts)


def test_another_tools_record(folder: Path) -> None:
    boxes = [{"text": "CUP", "instances": [{"bbox": [0, 0, 10, 10.0]}]}]
    write("a.jsonl", {"image": "x.png", "expressions": boxes})
    said = figures("a.jsonl")
    assert (said["acc_0.5"], said["expressions_missing"]) == (0.333333, 3)
    assert said["span_exact_f1"] is None
    assert said["notes"] == ["no scores: AP ranks boxes by their order"]


GOLD = ["--gold", "gold.jsonl"]
WRONG = {
    "no such predictions": (["nowhere.jsonl", *GOLD], "no nowhere.jsonl"),
    "no such gold": (["a.jsonl", "--gold", "nowhere"], "no nowhere: name a finished run"),
    "a folder without results": (["empty", *GOLD], "no empty/annotations.jsonl"),
    "a wrong box": (["box.jsonl", *GOLD], "box.jsonl, line 1: column 'expressions', expression 0"),
    "three runs": (["a.jsonl", "b", "b", *GOLD], "eval takes one or two PRED, not 3"),
    "no gold": (["a.jsonl"], "Missing option '--gold'"),
    "an IoU above 1": (["a.jsonl", *GOLD, "--iou", "2"], "Invalid value for '--iou'"),
    "a file where the folder should be": (["a.jsonl", *GOLD, "-o", "a.jsonl"], "can't write a"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_bad_input_is_told_in_one_line(arguments: list[str], said: str, folder: Path) -> None:
    Path("empty").mkdir()
    write("box.jsonl", record(cup=[[0, 0, 10]]))
    ended = command(["eval", *arguments])
    assert (ended.code, ended.out) == (2, ""), ended
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1 or "Usage" in ended.err
