"""The folder that an export writes: put in place whole, and what its README states of columns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from dataflow_grounding.formats.export_folder import MARK, README, ExportFolder


def export(path: Path, *lines: dict[str, object]) -> str:
    """Export lines, and return what a README states of them."""
    with ExportFolder(str(path)) as out:
        with out.lines("a.jsonl") as put:
            for line in lines:
                put(line)
        front_matter = out.front_matter("a.jsonl")
        with out.file(README) as file:
            file.write(f"{front_matter}{MARK}\n\n{out.named()}\n")
    return front_matter


def test_columns_and_fractions_that_come_late_are_stated_too(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4]}
    first = {"id": 1, "boxes": [box], "things": [{"x": None}, {"x": 0.5, "y": 2}]}
    stated = export(
        tmp_path / "out",
        first,
        {"id": 2, "boxes": [box, {"bbox": [1.5, 2, 3, 4], "label": "a cup"}]},
        {"id": 3, "boxes": [], "kind": "x", "things": []},
        {"id": 4, "kind": None},
    )
    features = yaml.safe_load(stated.strip("-\n"))["dataset_info"]["features"]
    boxes = [{"name": "bbox", "list": "float64"}, {"name": "label", "dtype": "string"}]
    things = [{"name": "x", "dtype": "float64"}, {"name": "y", "dtype": "int64"}]
    assert features == [
        {"name": "id", "dtype": "int64"},
        {"name": "boxes", "list": boxes},
        {"name": "things", "list": things},
        {"name": "kind", "dtype": "string"},
    ]
    assert first["things"] == [{"x": None}, {"x": 0.5, "y": 2}]


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
