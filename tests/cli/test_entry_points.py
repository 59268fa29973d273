"""Parts that another package brings: a command, a serving, a format, a store."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow_grounding._util.entry_points import targets_of
from tests.support.workplace import Done, command

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that is installed there, and an example."""
    folder = tmp_path_factory.mktemp("brought")
    example = Path(shutil.copy(ROOT / "extensions" / "export_format_of_your_own.py", folder))
    name = example.read_text().partition("(Format)")[0].rpartition("class ")[2]
    (folder / "brought.py").write_text(MODULE)
    about = folder / "brought-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS.format(format=name))
    assert command(["init", str(folder / "mine")]).code == 0
    captions = folder / "mine" / "example_data" / "captions.jsonl"
    captions.write_text(captions.read_text("utf-8").partition("\n")[0] + "\n", encoding="utf-8")
    return folder


SPEC = "-e mine/image_grounding.yaml"
LINES = {
    "help": "--help",
    "command": "greet",
    "no command": "broken",
    "serving": f"check {SPEC} image_grounding.vlm.backend=always_none",
    "no serving": f"generate {SPEC} image_grounding.vlm.backend=x",
    "run": f"generate {SPEC} --no-progress --json --no-report",
    "format": "export mine/results/image_grounding --format ours -o out",
    "store": f"check {SPEC} image_grounding.data.input_jsonl=shelf://captions.jsonl",
}


@pytest.fixture(scope="module")
def done(folder: Path) -> Iterator[dict[str, Done]]:
    """How command lines end where the package is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        targets_of.cache_clear()
        yield {name: command(line.split()) for name, line in LINES.items()}
    targets_of.cache_clear()
    for name in ("brought", "export_format_of_your_own"):
        sys.modules.pop(name, None)


def test_a_command_is_in_the_help_and_a_broken_one_hides_none(done: dict[str, Done]) -> None:
    shown = done["help"].out
    assert "Commands of other packages:" in shown
    assert "Say good day." in shown
    assert "can't be loaded: 'broken': brought:NUMBER" in shown


def test_a_command_runs_and_one_that_is_none_is_told(done: dict[str, Done]) -> None:
    assert done["command"].out == "good day\n"
    broken = done["no command"]
    assert broken.code == 2
    assert "'broken': brought:NUMBER of another package is no click command" in broken.err


def test_a_serving_is_named_as_a_backend(done: dict[str, Done]) -> None:
    assert "A run asks none" in done["serving"].out
    assert done["no serving"].code == 2
    assert "module:Class" in done["no serving"].err


def test_a_format_exports(done: dict[str, Done], folder: Path) -> None:
    assert (done["run"].code, done["format"].code) == (0, 0), (done["run"], done["format"])
    assert os.listdir(folder / "out")


def test_a_store_gives_the_input(done: dict[str, Done]) -> None:
    assert "1 record checked" in done["store"].out
