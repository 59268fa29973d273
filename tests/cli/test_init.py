"""`init`: a new working folder that works at once, from anywhere, as edited by its user, and from a
wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.forking import Forked
from tests.support.workplace import Done, command, ended, rows_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path("api_pipelines") / "image_grounding_api_pipeline.py"


def forked(script: Path, cwd: Path) -> Done:
    """A script in a folder, with no key set and an empty home."""
    run = f"import runpy, sys; runpy.run_path({str(script)!r}, run_name='__main__'); sys.exit(0)"
    done = ended(Forked([], cwd, {"PATH": os.environ["PATH"], "HOME": str(cwd)}, first=run))
    assert done.code == 0, done
    return done


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_a_blank_and_other_scripts_works_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mein Ordner 图"
    done = command(["init", str(folder)])
    assert done.code == 0, done
    written = files_in(folder)
    captions = folder / "example_data" / "captions.jsonl"
    assert {str(SCRIPT), "image_grounding.yaml", "README.md"} <= written
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in written)
    assert f"python '{folder / SCRIPT}'" in done.out, "what is said can be pasted"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")  # as where pipx or uv have installed it
        without = command(["init", str(folder)])
    assert f"\n  {sys.executable} '{folder / SCRIPT}'\n" in without.out
    captions.write_text("".join(captions.read_text("utf-8").splitlines(keepends=True)[:2]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ran = forked(folder / SCRIPT, elsewhere)
    assert "embedded OpenCV grounder, which is not a VLM" in ran.err
    assert ran.err.count("No DF_API_KEY") == 1
    results = folder / "cache" / "image_grounding"
    assert {"annotations.jsonl", "report.html", "image_grounding_step3.jsonl"} <= files_in(results)
    records = rows_of(results / "annotations.jsonl")
    assert [record["model"] for record in records] == ["embedded-opencv"] * 2
    assert all(Path(record["image_with_bbox"]).is_file() for record in records)
    assert files_in(elsewhere) == set()


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    assert command(["init", str(tmp_path)]).code == 0
    all_files = files_in(tmp_path)
    mine = tmp_path / SCRIPT
    mine.write_text("mine")
    (tmp_path / "README.md").unlink()
    again = command(["init", str(tmp_path)])
    assert again.code == 0
    assert mine.read_text() == "mine"
    assert "1 file written" in again.out
    assert files_in(tmp_path) == all_files
    assert command(["init", str(tmp_path), "--force"]).code == 0
    assert mine.read_bytes() == (ROOT / SCRIPT).read_bytes()


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = command(["init", str(tmp_path / "file")])
    assert done.code == 2
    assert done.err.startswith("Error: can't write")
    assert done.err.count("\n") == 1


def test_the_wheel_holds_all_that_is_needed_and_init_works_from_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    names = files_in(ROOT / "dataflow_grounding")
    ours = {name for name in names if not name.endswith(".pyc") and "/." not in name}
    assert {"py.typed", "cli/main.py"} < ours
    assert ours <= files_in(site / "dataflow_grounding")
    new, here = tmp_path / "new", tmp_path / "here"
    line = [sys.executable, "-m", "dataflow_grounding", "init", str(new)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(site)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done
    assert command(["init", str(here)]).code == 0
    assert files_in(new) == files_in(here)
    for name in files_in(here):
        assert (new / name).read_bytes() == (here / name).read_bytes(), name
