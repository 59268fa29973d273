"""Rooms that are taken away, and what other packages hang in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the package that is in a folder, or of what stands before it there."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DF_")}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    return subprocess.run(
        [sys.executable, "-m", "dataflow_grounding", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def package_without(room: str, folder: Path) -> None:
    """A copy of the package without a room, with what lies beside it.

    What is compiled is copied too, as each process would otherwise compile all of it anew; files
    that another process is just writing there (`.pyc.123`) are not.
    """
    shutil.copytree(
        ROOT / "dataflow_grounding",
        folder / "dataflow_grounding",
        ignore=shutil.ignore_patterns("*.pyc.*"),
    )
    shutil.rmtree(folder / "dataflow_grounding" / "extras" / room)
    for name in ("api_pipelines", "example_data", "init_template"):
        (folder / name).symlink_to(ROOT / name)


@pytest.mark.parametrize(
    ("room", "lost"),
    [
        pytest.param("review", "review", id="review"),
        pytest.param("scale", "merge", id="scale"),
        pytest.param("evaluation", "eval", id="evaluation"),
        pytest.param("compat", "", id="compat"),
        pytest.param("testing", "", id="testing"),
        pytest.param("formats", "export", id="formats"),
    ],
)
def test_a_run_goes_on_without_a_room_and_its_command_says_that_it_is_missing(
    tmp_path: Path, room: str, lost: str
) -> None:
    package_without(room, tmp_path)
    done = run(tmp_path, "init", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    spec = tmp_path / "mine" / "image_grounding.yaml"
    done = run(tmp_path, "generate", "-e", str(spec), "--no-progress")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "results" / "image_grounding" / "annotations.jsonl").exists()
    if lost:
        done = run(tmp_path, lost, "--help")
        assert done.returncode == 2
        assert f"Error: {lost!r} needs a part that isn't installed" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_the_embedded_grounder_a_run_without_an_endpoint_is_refused_in_a_line(
    tmp_path: Path,
) -> None:
    package_without("embedded", tmp_path)
    assert run(tmp_path, "init", str(tmp_path / "mine")).returncode == 0
    spec = tmp_path / "mine" / "image_grounding.yaml"
    done = run(tmp_path, "generate", "-e", str(spec), "--no-progress")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: vlm.backend")
    assert "isn't installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_package_brings_a_command(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(
        "import click\n\n"
        "@click.command('greet')\n"
        "def greet():\n"
        "    'Say good day.'\n"
        "    click.echo('good day')\n"
    )
    about = tmp_path / "greeting-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[dataflow_grounding.commands]\ngreet = greeting:greet\n"
    )
    assert run(tmp_path, "greet").stdout == "good day\n"
    shown = run(tmp_path, "--help").stdout
    assert "Commands of other packages:" in shown
    assert "Say good day." in shown
