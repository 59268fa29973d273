"""Parts that another package brings: a command, a serving, a format, a store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.workplace import command

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


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DF_")}
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run(
        [sys.executable, "-m", "dataflow_grounding", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_command(folder: Path) -> None:
    assert run(folder, "greet").stdout == "good day\n"
    broken = run(folder, "broken")
    assert broken.returncode == 2
    assert "'broken': brought:NUMBER of another package is no click command" in broken.stderr
    (folder / "brought-1.dist-info" / "entry_points.txt").write_text(
        "[dataflow_grounding.commands]\ngreet = brought:greet\n"
    )
    shown = run(folder, "--help").stdout
    assert "Commands of other packages:" in shown
    assert "Say good day." in shown


def test_a_serving_and_a_format(folder: Path) -> None:
    assert command(["init", str(folder / "mine")]).code == 0
    asked = run(
        folder,
        "check",
        "-e",
        "mine/image_grounding.yaml",
        "image_grounding.vlm.backend=always_none",
    )
    assert "A run asks none" in asked.stdout, asked
    wrong = run(
        folder, "generate", "-e", "mine/image_grounding.yaml", "image_grounding.vlm.backend=x"
    )
    assert wrong.returncode == 2
    assert "module:Class" in wrong.stderr
    done = run(folder, "generate", "-e", "mine/image_grounding.yaml", "--no-progress", "--json")
    assert done.returncode == 0, done.stderr
    results = Path(json.loads(done.stdout)["annotations"]).parent
    done = run(folder, "export", str(results), "--format", "ours", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder / "out")


def test_a_store(folder: Path) -> None:
    assert command(["init", str(folder / "mine")]).code == 0
    done = run(
        folder,
        "check",
        "-e",
        "mine/image_grounding.yaml",
        "image_grounding.data.input_jsonl=shelf://captions.jsonl",
    )
    assert "1 record checked" in done.stdout, done
