"""`ground` and `eval`: boxes of one image as JSON on stdout, and figures against gold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from benchmarks.stand_ins.probe_model import ProbeModel
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import command as in_process
from tests.support.workplace import ended, process

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [sys.executable, "-m", "dataflow_grounding", *map(os.fspath, arguments)],  # type: ignore[call-overload]
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    image = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(image).ellipse((40, 60, 120, 140), fill="red")
    path = tmp_path / "ein Bild 图.png"
    image.save(path)
    return path


@pytest.mark.slow
def test_boxes_go_to_stdout_and_all_else_to_stderr(drawing: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.png"
    done = command(
        "ground", drawing.name, "the red circle", "the zebra", "--draw", out, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["width"], record["height"], record["model"]) == (320, 240, "embedded-opencv")
    circle, zebra = record["expressions"]
    assert (circle["text"], circle["status"]) == ("the red circle", "grounded")
    assert all(
        abs(a - b) <= 3
        for a, b in zip(circle["instances"][0]["bbox"], (40, 60, 121, 141), strict=True)
    )
    assert (zebra["status"], zebra["instances"]) == ("unsupported", [])
    assert "not a VLM" in done.stderr
    with Image.open(out) as picture:
        assert picture.size == (320, 240)


def test_a_question_is_paid_for_once_and_a_box_stands_on_one_line(
    drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DF_MODEL", "qwen3-vl")
    with LoopbackServer(ProbeModel("qwen3-vl", outliers=0)) as server:
        monkeypatch.setenv("DF_BASE_URL", server.base_url)
        first = in_process(["ground", str(drawing), "the red circle"])
        asked = server.count()
        again = in_process(["ground", str(drawing), "the red circle"])
        assert (first.code, again.code, again.out) == (0, 0, first.out), again
        assert server.count() == asked
        assert re.search(r'"bbox": \[\d+, \d+, \d+, \d+\]', first.out)
        assert in_process(["ground", str(drawing), "the red circle", "--no-cache"]).code == 0
        assert server.count() > asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "phrases", "says"),
    [
        ("gone.png", ["x"], "gone.png"),
        ("empty.png", ["x"], "empty"),
        (".", ["x"], "folder"),
        ("ein Bild 图.png", [""], "text"),
        ("ein Bild 图.png", [], "PHRASE"),
        ("ein Bild 图.png", ["x", "--draw", "no/such/folder/x.png"], "can't write"),
        ("ein Bild 图.png", ["x", "--draw", "x.unknown"], "can't write"),
        ("ein Bild 图.png", ["x", "-e", "gone.yaml"], "gone.yaml"),
    ],
    ids=[
        "no image",
        "empty image",
        "a folder",
        "empty phrase",
        "no phrase",
        "no folder to draw in",
        "odd ending",
        "no spec",
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    drawing: Path, image: str, phrases: list[str], says: str
) -> None:
    (drawing.parent / "empty.png").touch()
    done = command("ground", image, *phrases, cwd=drawing.parent)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_name_that_is_no_utf8_can_be_printed(drawing: Path) -> None:
    name = os.fsdecode(b"a\xff.png")
    os.rename(drawing, drawing.parent / name)
    done = command("ground", name, "the red circle", cwd=drawing.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["expressions"][0]["status"] == "grounded"


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.slow
def test_eval_prints_figures(tmp_path: Path) -> None:
    row = {"image_path": "x.png", "caption": "c"}
    gold = write(
        tmp_path / "gold.jsonl",
        [{**row, "expressions": [{"text": "a", "instances": [{"bbox": [0, 0, 10, 10]}]}]}],
    )
    results = tmp_path / "results"
    results.mkdir()
    found = [{"text": "A", "instances": [{"bbox": [0, 0, 10, 8]}]}, "b"]
    write(results / "annotations.jsonl", [{**row, "expressions": found}])
    done = command("eval", results, "--gold", gold, "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    expected = {
        "expressions": 1,
        "expressions_not_in_gold": 1,
        "grounded": 1,
        "grounded_share": 1.0,
        "boxes": 1,
        "gold_boxes": 1,
        "precision_at_iou_0.5": 1.0,
        "recall_at_iou_0.5": 1.0,
        "mean_iou_of_right_boxes": 0.8,
    }
    assert {name: said[name] for name in expected} == expected
    table = command(
        "eval", results / "annotations.jsonl", "--gold", gold, "--iou", "0.9", "--all", cwd=tmp_path
    )
    assert table.returncode == 0
    assert "| precision_at_iou_0.9         | 0.0000 " in table.stdout
    assert re.search("Nothing to measure: .*mean_iou_of_right_boxes", table.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"expressions": 5}', "expressions"),
        ('{"expressions": [{"text": 1}]}', "text"),
        ("nope", "line 1"),
    ],
)
def test_eval_of_what_is_no_data_is_an_error_in_one_line(
    tmp_path: Path, line: str, says: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    good = write(tmp_path / "good.jsonl", [{"image_path": "x", "expressions": []}])
    for results, gold in (
        ("bad.jsonl", good),
        (good, "bad.jsonl"),
        ("gone.jsonl", good),
        (tmp_path, good),
    ):
        done = ended(process(["eval", str(results), "--gold", str(gold)], cwd=tmp_path))
        assert done.code == 2
        assert done.err.count("\n") == 1
        if results == "bad.jsonl":
            assert says in done.err
