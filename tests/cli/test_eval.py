"""`eval` and `agree` in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.metrics.cases import FAR, HALF, LEFT, RIGHT, record
from tests.support.bytecode import steps_of
from tests.support.workplace import REPOSITORY, Done, command, rows_of

KEYS = (
    "acc_0.5 acc_0.75 acc_0.9 macc miou r1_any r5_any r10_any gprec_f1 n_acc t_acc cgf1 il_mcc "
    "span_exact_f1 span_overlap_f1 joint ap ece images expressions"
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
    assert set(KEYS.split()) <= set(said)
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


def test_two_runs_beside_each_other(folder: Path) -> None:
    said = figures("a.jsonl", "b")
    assert said["acc_0.5"] == 0.333333
    assert said["compared"]["figures"]["acc_0.5"] == 1.0
    assert said["compared"]["difference"]["acc_0.5"] == pytest.approx(0.666667)
    # b is right about saucer, spoon and fork, a isn't: p = 2 · 1 / 2³.
    assert said["compared"]["mcnemar"] == {
        "only_first_right": 0,
        "only_second_right": 3,
        "p": pytest.approx(0.25),
    }
    page = done("eval", "a.jsonl", "b", "--gold", "gold.jsonl").out
    assert "On 0 expressions the first alone is right, on 3 the second" in page
    assert re.search(r"\| acc_0.5 +\| 0.3333 +\| .* \| 1.0000 +\| .* \| 0.6667 +\|", page)
    assert "p = 0.25 (McNemar, exact).\n\nWhat follows is of a.jsonl alone.\n\n| size " in page


def test_main_figures_fit_on_a_screen_and_all_of_them_are_an_option_away(folder: Path) -> None:
    page = done("eval", "a.jsonl", "--gold", "gold.jsonl").out
    assert len(page.splitlines()) <= 24
    for name in ("acc_0.5", "miou", "precision_at_iou_0.5", "recall_at_iou_0.5", "ap"):
        assert f"| {name} " in page
    assert "| acc_0.75 " not in page
    assert "--all prints all measures, and figures by size, words" in page


def test_the_table_is_what_the_json_says(folder: Path) -> None:
    page = done("eval", "a.jsonl", "--gold", "gold.jsonl", "--all").out
    for name, value in figures("a.jsonl").items():
        if isinstance(value, float):
            rank, _, what = name.partition("_")
            row = rf"{re.escape(name)}[ ,]"
            if rank in ("r5", "r10"):  # R@k may share a row
                row = rf"(?:r1|r5|r10)_{what}[ ,][^|]*"
            assert re.search(rf"^\| {row}[^|]*\| {value:.4f} ", page, re.MULTILINE), name
    assert "score ≥ 0.9 keeps 33.3% of the boxes, 100.0% of them right" in page
    [line] = [line for line in page.splitlines() if line.startswith("Nothing to measure: ")]
    assert "joint" in line
    assert "acc" not in line


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
    assert (said["ece"], said["span_exact_f1"]) == (None, None)
    assert said["notes"] == [
        "no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"
    ]


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


def test_agree(folder: Path) -> None:
    said = json.loads(done("agree", "a.jsonl", "b", "--json").out)
    # Of common phrases: cup equal, saucer apart, fork in one alone; spoon is in b alone. Boxes: 3
    # and 3; matched: 1.
    assert (said["f1_0.5"], said["expressions"], said["expressions_of_one"]) == (0.3333, 3, 1)
    lines = done("agree", "b", "a.jsonl").out.splitlines()
    assert "f1 0.5                       0.3333" in lines
    assert "kappa status                 -" in lines
    ended = command(["agree", "a.jsonl", "nowhere"])
    assert (ended.code, ended.err) == (
        2,
        "Error: there is no nowhere: name a finished run's results_dir, or a file of records\n",
    )


SPOTS: dict[str, Callable[[int], list[float]]] = {
    "one": lambda n: [0, 0, 10, 10],
    "near": lambda n: [n / 30_000, 0, 10, 10],
    "apart": lambda n: [n * 20, 0, n * 20 + 10, 10],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spot", "phrases", "most"),
    [
        ("one", "one", 18),
        ("near", "one", 16),
        ("apart", "one", 8),
        ("apart", "each", 5.5),
        ("apart", "class", 6),
    ],
)
def test_thousands_of_boxes_in_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spot: str, phrases: str, most: float
) -> None:
    """Ten times as many take about ten times as long: not each is compared with each other."""
    monkeypatch.chdir(tmp_path)
    for module in ("pairs", "_measures"):  # as many of 12 boxes as of 120
        monkeypatch.setattr(f"dataflow_grounding.evaluation.metrics.{module}.MOST_PAIRS", 111)

    def compared(count: int) -> None:
        write("gold.jsonl", with_boxes(count, SPOTS[spot], phrases))
        said = figures("gold.jsonl")
        assert (said["f1_at_iou_0.5"], said["span_overlap_f1"]) == (1, 1)
        agreed = json.loads(done("agree", "gold.jsonl", "gold.jsonl", "--json").out)
        assert (agreed["boxes"], agreed["f1_0.5"]) == (2 * count, 1)

    compared(12)
    few = steps_of(lambda: compared(12))
    assert steps_of(lambda: compared(120)) < most * few


def with_boxes(count: int, spot: Callable[[int], list[float]], phrases: str) -> dict[str, Any]:
    """A record of so many boxes, of one phrase or each of its own, which may be of one class."""
    boxes = [spot(n) for n in range(count)]
    if phrases == "one":
        row = record(cup=boxes)
    else:
        row = record(**{f"cup {n}": [box] for n, box in enumerate(boxes)})
    for number, expression in enumerate(row["expressions"]):
        expression["char_span"] = [number * 8, number * 8 + 7]
        if phrases == "class":
            expression["class"] = "cup"
    return {**row, "cleaned_caption": "a thing " * count}
