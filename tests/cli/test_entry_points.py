"""Parts that another package brings: a command, a serving, a format, a store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dataflow_grounding.jobs.diagnosis import NAMES
from tests.support.workplace import Done, command, one_after_another

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINTS = """\
[dataflow_grounding.commands]
greet = brought:greet
broken = brought:NUMBER
[dataflow_grounding.servings]
always_none = brought:AlwaysNone
[dataflow_grounding.formats]
ours = export_format_of_your_own:{format}
[dataflow_grounding.stores]
shelf = brought:Shelf
"""
MODULE = """\
import click
from fsspec.implementations.memory import MemoryFileSystem

from dataflow_grounding import Serving

NUMBER = 1


@click.command("greet")
def greet():
    "Say good day."
    click.echo("good day")


class AlwaysNone(Serving):
    model = "none"

    async def answer(self, request):
        return "none"


class Shelf(MemoryFileSystem):
    protocol = "shelf"
    root_marker = ""

    def _open(self, path, mode="rb", **more):
        import io

        return io.BytesIO(b'{"image_path": "a.jpg", "caption": "A cup."}\\n')

    def info(self, path, **more):
        return {"name": path, "size": 45, "type": "file"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a package that is installed there, and an example."""
    shutil.copy(ROOT / "extensions" / "export_format_of_your_own.py", tmp_path)
    text = (ROOT / "extensions" / "export_format_of_your_own.py").read_text()
    name = text.partition("(Format)")[0].rpartition("class ")[2]
    (tmp_path / "brought.py").write_text(MODULE)
    about = tmp_path / "brought-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS.format(format=name))
    return tmp_path


def run(folder: Path, *lines: str) -> list[Done]:
    """How command lines end, one after another in a process that has the package."""
    environment = {**dict.fromkeys(NAMES, ""), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return one_after_another(map(str.split, lines), env=environment, cwd=folder)


def test_a_command_is_in_the_help_and_a_broken_one_hides_none(folder: Path) -> None:
    [shown] = run(folder, "--help")
    assert "Commands of other packages:" in shown.out
    assert "Say good day." in shown.out
    assert "can't be loaded: 'broken': brought:NUMBER" in shown.out


def test_a_command_a_serving_a_format_and_a_store(folder: Path) -> None:
    assert command(["init", str(folder / "mine")]).code == 0
    captions = folder / "mine" / "example_data" / "captions.jsonl"
    captions.write_text(captions.read_text("utf-8").partition("\n")[0] + "\n", encoding="utf-8")
    spec = "-e mine/image_grounding.yaml"
    greeted, broken, asked, wrong, made, exported, stored = run(
        folder,
        "greet",
        "broken",
        f"check {spec} image_grounding.vlm.backend=always_none",
        f"generate {spec} image_grounding.vlm.backend=x",
        f"generate {spec} --no-progress --json",
        "export mine/results/image_grounding --format ours -o out",
        f"check {spec} image_grounding.data.input_jsonl=shelf://captions.jsonl",
    )
    assert greeted.out == "good day\n"
    assert broken.code == 2
    assert "'broken': brought:NUMBER of another package is no click command" in broken.err
    assert "A run asks none" in asked.out, asked
    assert wrong.code == 2
    assert "module:Class" in wrong.err
    assert (made.code, exported.code) == (0, 0), (made, exported)
    assert os.listdir(folder / "out")
    assert "1 record checked" in stored.out, stored
