"""Files made to fill memory: sizes are looked at before reading; where memory doesn't do, a line
says which file.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding.cli import data_sets
from dataflow_grounding.formats import read
from tests.support.labelled import Labelled, labelled, saved
from tests.support.workplace import (
    Done,
    Workplace,
    command,
    ended,
    interpreter,
    one_after_another,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only there a process keeps to RLIMIT_AS"),
]


def at_most(gigabytes: float) -> dict[str, Any]:
    most = int(gigabytes * 2**30)
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """How commands ended that were given bombs, each by its name, in a process that may have 3 GB."""
    folder = tmp_path_factory.mktemp("bombs")
    lines = {}
    for path, format in files_of_bombs(folder):
        lines[path.name] = ["import", str(path), "--format", format, "-o", f"{path}.out"]
    place = Workplace(folder / "work")
    spec = str(place.spec())
    classes = f"image_grounding.data.classes={folder}/yolo/data.yaml"
    lines["check of classes"] = ["check", "-e", spec, classes]
    return dict(zip(lines, one_after_another(lines.values(), **at_most(3)), strict=True))


def files_of_bombs(folder: Path) -> Iterator[tuple[Path, str]]:
    endless = b"x" * 2**24
    attribute, text = folder / "attribute.xml", folder / "text.xml"
    attribute.write_bytes(b'<annotations><image name="' + endless + b'"/></annotations>')
    yield attribute, "cvat"
    text.write_bytes(b"<annotations>" + endless + b"</annotations>")
    yield text, "cvat"
    yield saved(folder / "yolo" / "data.yaml", nested_aliases(10, "names")).parent, "yolo"


def refused(done: Done, *names: object) -> None:
    """Such a command ends with 2, and its one line has these names."""
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert all(str(name) in line for name in names), line


@pytest.mark.parametrize("name", ["attribute.xml", "text.xml"])
def test_an_endless_attribute_of_xml_is_refused_at_once(name: str, bombs: dict[str, Done]) -> None:
    refused(bombs[name], name, "8 MiB")


@pytest.mark.parametrize("name", ["yolo", "check of classes"])
def test_aliases_within_aliases_are_refused_in_a_line(name: str, bombs: dict[str, Done]) -> None:
    """386 bytes of a data.yaml took a minute and 4 GB."""
    done = bombs[name]
    assert done.code == 2, done
    assert "its aliases stand for more than 1,000,000 values" in done.err


def test_a_parquet_file_is_read_by_bytes_not_by_rows(tmp_path: Path) -> None:
    column = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 700, pyarrow.int32()), ["x" * 10**6]
    )
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"caption": column, "text": column}), path)
    assert path.stat().st_size < 200_000
    code = "import sys; from dataflow_grounding.data.rows import read_rows; "
    code += "print(sum(1 for _ in read_rows(sys.argv[1])))"
    line = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(line, capture_output=True, text=True, **at_most(1))
    assert done.stdout.strip() == "700", done


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of a quarter of a gigabyte with one caption, by its name; each is written once."""
    folder, size = tmp_path_factory.mktemp("large"), 2**28
    starts = {"a.csv": b'image_path\n"', "a.json": b'[{"caption": "'}
    ends = {"a.csv": b'"\n', "a.json": b'"}]'}

    def written(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        if name.endswith("parquet"):
            table = pyarrow.table({"caption": ["x" * size]})
            # what makes reading quick would take seconds for this one text
            plainly = {"use_dictionary": False, "write_statistics": False}
            pyarrow.parquet.write_table(table, path, **plainly)
            return path
        with path.open("wb") as file:
            file.write(starts.get(name, b'{"caption": "'))
            for _ in range(size >> 20):
                file.write(b"x" * 2**20)
            file.write(ends.get(name, b'"}\n'))
        return path

    return written


STATS, LINT, EXPORT = ["stats"], ["lint"], ["export", "--format", "coco", "-o", "out"]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (STATS, "a.jsonl"),
        (LINT, "a.jsonl"),
        (EXPORT, "a.jsonl"),
        (STATS, "a.json"),
        (LINT, "a.csv"),
        (EXPORT, "a.parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_that_memory_does_not_do_for_is_named(
    large: Callable[[str], Path], name: str, line: list[str]
) -> None:
    path = large(name)
    done = ended(interpreter([line[0], str(path), *line[1:]], **at_most(0.5)))
    why = f"Error: can't read {path}: it takes more memory than there is"
    assert (done.code, done.err.strip().splitlines()[-1]) == (2, why), done
    assert not Path("out").exists()


def test_want_of_memory_anywhere_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(data_sets, "figures_of", fails)
    done = command(["stats", str(tmp_path)])
    assert done.code == 2
    assert done.err.startswith("Error: this takes more memory than there is")
    with (
        pytest.raises(InputError, match="can't write x: it takes more memory than there is"),
        errors_as(InputError, "can't write x"),
    ):
        fails()


def nested_aliases(levels: int, key: str) -> str:
    """A few hundred bytes of YAML that stand for nine to the power of the levels."""
    lists = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for below, name in zip("abcdefghijklmn", "bcdefghijklmno"[:levels], strict=False):
        lists.append(f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]")
    return "\n".join([*lists, f"{key}: *{'bcdefghijklmno'[levels - 1]}", ""])


def test_an_alias_of_a_usual_data_yaml_is_read(tmp_path: Path) -> None:
    labelled(tmp_path, "yolo", [Labelled("a.png", ["0 .5 .5 .2 .2"])])
    saved(tmp_path / "data.yaml", "path: &here .\ntrain: *here\nnames: &all [cup]\nval: *all\n")
    (row,) = read(str(tmp_path), "yolo")
    assert [one["text"] for one in row["expressions"]] == ["cup"]
