"""`ground` and `eval`: boxes of one image as JSON on stdout, and figures against gold."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import command, ended, process


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in the current folder."""
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(image).ellipse((40, 60, 120, 140), fill="red")
    path = tmp_path / "ein Bild 图.png"
    image.save(path)
    return path


@pytest.mark.slow
def test_boxes_go_to_stdout_and_all_else_to_stderr(drawing: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.png"
    line = ["ground", drawing.name, "the red circle", "the zebra", "--draw", str(out)]
    done = ended(process(line, cwd=tmp_path))
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert (record["width"], record["height"], record["model"]) == (320, 240, "embedded-opencv")
    circle, zebra = record["expressions"]
    assert (circle["text"], circle["status"]) == ("the red circle", "grounded")
    [bbox] = [instance["bbox"] for instance in circle["instances"]]
    assert all(abs(a - b) <= 3 for a, b in zip(bbox, (40, 60, 121, 141), strict=True))
    assert (zebra["status"], zebra["instances"]) == ("unsupported", [])
    assert "not a VLM" in done.err
    assert f"{out}: 1 box drawn" in done.err
    with Image.open(out) as picture:
        assert picture.size == (320, 240)


def test_a_question_is_paid_for_once_and_a_box_stands_on_one_line(
    drawing: Path, monkeypatch: pytest.MonkeyPatch, server: LoopbackServer
) -> None:
    server.answers = ProbeModel("qwen3-vl", outliers=0)
    monkeypatch.setenv("DF_MODEL", "qwen3-vl")
    monkeypatch.setenv("DF_BASE_URL", server.base_url)
    line = ["ground", str(drawing), "the red circle"]
    first = command(line)
    asked = server.count()
    again = command(line)
    assert (first.code, again.code, again.out) == (0, 0, first.out), again
    assert server.count() == asked
    assert re.search(r'"bbox": \[\d+, \d+, \d+, \d+\]', first.out)
    assert command([*line, "--no-cache"]).code == 0
    assert server.count() > asked


WRONG = (
    (["gone.png", "x"], "gone.png"),
    (["empty.png", "x"], "empty"),
    ([".", "x"], "folder"),
    (["ein Bild 图.png", ""], "text"),
    (["ein Bild 图.png"], "PHRASE"),
    (["ein Bild 图.png", "x", "--draw", "no/such/folder/x.png"], "can't write"),
    (["ein Bild 图.png", "x", "--draw", "x.unknown"], "can't write"),
    (["ein Bild 图.png", "x", "-e", "gone.yaml"], "gone.yaml"),
)


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_what_is_wrong_is_said_in_one_line(drawing: Path, arguments: list[str], says: str) -> None:
    (drawing.parent / "empty.png").touch()
    done = command(["ground", *arguments])
    assert done.code == 2, done
    assert (done.out == "") == ("--draw" not in arguments), "boxes that are paid for are printed"
    assert says in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_name_that_is_no_utf8_can_be_printed(drawing: Path) -> None:
    name = os.fsdecode(b"a\xff.png")
    os.rename(drawing, drawing.parent / name)
    done = ended(process(["ground", name, "the red circle"], cwd=drawing.parent))
    assert done.code == 0, done.err
    assert json.loads(done.out)["expressions"][0]["status"] == "grounded"
