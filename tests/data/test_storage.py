"""FileStorage: DataFlow's habits, each type of file as input and as cache."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from dataflow_grounding import FileStorage, GroundingError
from dataflow_grounding._util.errors import InputError, MissingExtra
from dataflow_grounding.data.rows import write_rows

ROWS = [
    {"image_path": "x.jpg", "n": 1, "list": [1, 2]},
    {"image_path": "y.jpg", "n": 2, "list": []},
]
TYPES = ["jsonl", "json", "csv", "tsv", "parquet"]


def storage_of(tmp_path: Path, rows: list[dict[str, Any]] = ROWS, **more: Any) -> FileStorage:
    path = str(tmp_path / "in.jsonl")
    write_rows(path, rows)
    return FileStorage(path, str(tmp_path / "cache"), "demo", **more)


def test_steps_read_what_the_step_before_wrote(tmp_path: Path) -> None:
    storage = storage_of(tmp_path)
    first = storage.step()
    assert first.read("dict") == ROWS
    written = first.write([{"a": 1}])
    second = storage.step()
    assert written == str(tmp_path / "cache" / "demo_step1.jsonl")
    assert second.read("dict") == [{"a": 1}]
    assert second.write(pandas.DataFrame([{"b": 2}])) == str(
        tmp_path / "cache" / "demo_step2.jsonl"
    )
    assert first.read("dict") == ROWS, "a pinned storage stays where it is"
    assert storage.reset().step().read("dict") == ROWS
    assert storage.step().read("dict") == [{"a": 1}]


def test_reading_before_the_first_step_says_what_to_do(tmp_path: Path) -> None:
    storage = storage_of(tmp_path)
    for call in (storage.read, lambda: storage.write([]), storage.get_keys_from_dataframe):
        with pytest.raises(GroundingError, match=r"storage\.step\(\)"):
            call()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_and_written(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / f"in.{kind}")
    write_rows(path, ROWS)
    storage = FileStorage(path, str(tmp_path / "cache"), "demo", kind)
    rows = storage.step().read("dict")
    assert [row["image_path"] for row in rows] == ["x.jpg", "y.jpg"]
    assert [row["list"] for row in rows] == [[1, 2], []]
    second = storage.step()
    second.write(rows)
    assert os.listdir(tmp_path / "cache") == [f"demo_step2.{kind}"]
    step = storage.step()
    frame = step.read()
    pandas.testing.assert_frame_equal(frame, step.read("dataframe"))
    assert list(frame.columns) == ["image_path", "n", "list"]
    assert frame["list"].tolist() == [[1, 2], []]
    assert storage.reset().step().get_keys_from_dataframe() == ["image_path", "n", "list"]


def test_an_unknown_type_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(GroundingError, match="jsonl, json, csv, tsv, parquet"):
        FileStorage("x", str(tmp_path), cache_type="xlsx")


def test_a_pickle_is_refused_because_it_is_code(tmp_path: Path) -> None:
    why = r"pickle is not supported, because reading one runs any code that is in it: use jsonl or parquet$"
    with pytest.raises(GroundingError, match=f"^cache_type {why}"):
        FileStorage("x", str(tmp_path), cache_type="pickle")
    path = tmp_path / "in.pickle"
    pandas.DataFrame(ROWS).to_pickle(path)
    with pytest.raises(GroundingError, match=rf"in\.pickle: {why}"):
        FileStorage(str(path), str(tmp_path)).step().read()


def test_what_is_read_as_neither_a_dataframe_nor_dicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"read\(\) gives a 'dataframe' or a 'dict', not 'list'"):
        storage_of(tmp_path).step().read("list")  # type: ignore[arg-type]


def test_parquet_without_its_part_names_the_extra_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "in.parquet")
    write_rows(path, ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (
        lambda: FileStorage(path).step().read(),
        lambda: FileStorage(path, cache_type="parquet"),
    ):
        with pytest.raises(MissingExtra, match=r"pip install 'dataflow-grounding\[parquet\]'$"):
            call()


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_is_strict_json_whoever_gave_it(tmp_path: Path, kind: str) -> None:
    """NaN and NumPy's numbers, in a DataFrame or in dicts, become null and plain numbers."""
    rows = [{"f": float("nan"), "n": numpy.int64(3), "box": numpy.array([1.5, 2.0])}]
    for number, data in enumerate((rows, pandas.DataFrame(rows))):
        storage = storage_of(tmp_path / str(number), cache_type=kind)
        path = storage.step().write(data)
        [row] = storage.step().read("dict")
        assert row["f"] in (None, "")
        assert row["n"] in (3, "3")
        assert row["box"] == [1.5, 2.0]
        if kind.startswith("json"):
            assert "NaN" not in Path(path).read_text()


def test_rows_that_are_no_rows_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    storage = storage_of(tmp_path)
    first = storage.step()
    path = first.write(ROWS)
    before = Path(path).read_bytes()
    for data in (["text"], [ROWS], {"a": 1}):
        with pytest.raises(InputError):
            first.write(data)
    assert Path(path).read_bytes() == before
    assert os.listdir(tmp_path / "cache") == ["demo_step1.jsonl"]


def test_paths_may_be_path_objects_with_blanks_and_other_scripts(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen" / "图片"
    folder.mkdir(parents=True)
    write_rows(str(folder / "in.jsonl"), ROWS)
    storage = FileStorage(folder / "in.jsonl", folder / "cache", image_root=folder)  # type: ignore[arg-type]
    storage.step().write(storage.reset().step().read())
    assert (
        json.loads(
            (folder / "cache" / "dataflow_cache_step_step1.jsonl").read_text().splitlines()[0]
        )
        == ROWS[0]
    )
    assert storage.image_folders == (str(folder),)
    # without a root, pictures are next to the user's file, then here
    assert storage_of(tmp_path).image_folders == (str(tmp_path), ".")
    assert FileStorage("in.jsonl").image_folders == (".", ".")
