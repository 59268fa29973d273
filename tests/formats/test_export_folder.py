"""The folder that an export writes, which is put in place whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dataflow_grounding.formats.export_folder import MARK, README, ExportFolder


def export(path: Path, *lines: dict[str, object]) -> None:
    with ExportFolder(str(path)) as out:
        with out.lines("a.jsonl") as put:
            for line in lines:
                put(line)
        with out.file(README) as file:
            file.write(f"{MARK}\n\n{out.named()}\n")


def test_an_earlier_export_stays_where_no_new_one_can_be_put(tmp_path: Path) -> None:
    path = tmp_path / "out"
    export(path, {"id": 1})
    with pytest.raises(FileNotFoundError), ExportFolder(str(path)):
        shutil.rmtree(tmp_path / "out.part" / "new")
    assert (path / "a.jsonl").read_text() == '{"id": 1}\n'
    assert not (tmp_path / "out.part").exists()


def test_an_earlier_export_comes_back_after_a_kill_between_the_two(tmp_path: Path) -> None:
    path = tmp_path / "out"
    export(path, {"id": 1})
    (tmp_path / "out.part").mkdir()
    path.rename(tmp_path / "out.part" / "earlier")
    with pytest.raises(ZeroDivisionError), ExportFolder(str(path)):
        raise ZeroDivisionError
    assert (path / "a.jsonl").read_text() == '{"id": 1}\n'
    (tmp_path / "out.part" / "earlier").mkdir(parents=True)
    (tmp_path / "out.part" / "earlier" / "left.txt").touch()  # killed once the new one was there
    export(path, {"id": 2})
    assert (path / "a.jsonl").read_text() == '{"id": 2}\n'
    assert not (tmp_path / "out.part").exists()
