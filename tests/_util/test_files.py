"""Names that were read somewhere stay in their folder; what is written goes through no link, whole
or not at all.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import new_file, open_log, portable, within, write_bytes
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.rows import RowWriter, copy_file, write_rows, write_text
from tests.support.workplace import command

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "dataflow_grounding").rglob("*.py"))
names = st.text(st.sampled_from("a./\\~:\n\0 C")) | st.text()

OUTSIDE = ["", "..", "a/../../x", "/etc/x", "~/x", "C:x", "a\\b", "a\nb", "a\0b", "a\u2028b"]


@pytest.mark.parametrize("name", [*OUTSIDE, 7, None, ["a"]])
def test_a_name_that_leads_out_is_refused_in_one_line(name: object) -> None:
    with pytest.raises(InputError) as refused:
        within("results", name, "run.json")
    assert str(refused.value).startswith("run.json: ")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@given(names)
def test_what_is_within_is_there_on_every_system(name: str) -> None:
    try:
        path = within("/results", name)
    except InputError:
        return
    import ntpath

    assert os.path.normpath(path).startswith("/results")
    assert ntpath.normpath(ntpath.join("C:\\results", name)).startswith("C:\\results")


@pytest.mark.slow
@given(names)
def test_a_portable_name_is_within_and_stays_as_it_is(name: str) -> None:
    made = portable(name)
    assert portable(made) == made
    if made.strip("/"):
        within("results", made)


def _victim(tmp_path: Path) -> Path:
    victim = tmp_path / "precious.txt"
    victim.write_text("mine\n")
    return victim


LINKS = {"link": os.symlink, "hard link": os.link}
WRITERS = {
    "rows": lambda path: write_rows(path, [{"a": 1}]),
    "bytes": lambda path: write_bytes(path, b"x"),
    "text": lambda path: write_text(path, "x"),
    "copy": lambda path: copy_file(__file__, path),
    "new": lambda path: new_file(f"{path}.part").close(),
}


@pytest.mark.parametrize("how", LINKS)
@pytest.mark.parametrize(
    ("writer", "ending"),
    [*((writer, "jsonl") for writer in WRITERS), ("rows", "json"), ("rows", "csv")],
)
def test_nothing_is_written_through_a_link(
    tmp_path: Path, how: str, writer: str, ending: str
) -> None:
    victim, path = _victim(tmp_path), tmp_path / f"x.{ending}"
    LINKS[how](victim, f"{path}.part")
    WRITERS[writer](str(path))
    assert victim.read_text() == "mine\n"


def test_a_pipe_in_the_place_of_a_part_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl.part")
    write_rows(str(tmp_path / "x.jsonl"), [{"a": 1}])
    assert (tmp_path / "x.jsonl").read_text() == '{"a": 1}\n'


def test_a_log_that_is_a_link_is_refused_and_said_so(tmp_path: Path) -> None:
    victim = _victim(tmp_path)
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="it is a link"):
        open_log(str(tmp_path / "log"))
    assert victim.read_text() == "mine\n"


@pytest.mark.parametrize("writer", ["bytes", "copy"])
def test_an_error_leaves_no_part(
    tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[writer](str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_another_process_took_is_not_put_in_place(tmp_path: Path) -> None:
    """As on file systems without locks: the second writer started over, and the first one's file is
    no more.
    """
    path = tmp_path / "x.jsonl"
    first = RowWriter(str(path))
    os.unlink(f"{path}.part")  # which the second one's opener does
    second = new_file(f"{path}.part")
    with pytest.raises(OSError, match="another process is writing it"):
        first.commit()
    first.close()
    second.close()
    assert os.path.exists(f"{path}.part")
    assert not path.exists()


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_what_is_put_in_place_is_on_disk_in_its_last_form(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        synced.append(Path(f"/proc/self/fd/{file}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / f"x.{ending}"
    write_rows(str(path), [{"a": "b"}])
    assert synced[-1:] == [path.read_bytes()]


# A gate: the next file that is opened.


WORDS = re.compile(r"open\(|shutil|link\(|write_(text|bytes)|to_csv|to_parquet|touch")
"""What code has that opens files."""


def parsed(source: str) -> ast.Module:
    """The source's tree; an empty one where the gate could find nothing, for the sake of time."""
    return ast.parse(source if WORDS.search(source) else "")


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    return ((_dotted(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def _dotted(part: ast.expr) -> str:
    """A name with its dots, and with `()` for a call; `ast.unparse` takes far longer."""
    if isinstance(part, ast.Name):
        return part.id
    if isinstance(part, ast.Attribute):
        return f"{_dotted(part.value)}.{part.attr}"
    return f"{_dotted(part.func)}()" if isinstance(part, ast.Call) else ""


OPENERS = {"shutil.copyfile", "shutil.copy", "shutil.copy2", "os.symlink", "os.link"}
METHODS = {"write_text", "write_bytes", "to_csv", "to_parquet", "touch"}


def openers(tree: ast.Module) -> set[str]:
    """Where a file is opened for writing past `files.py`."""
    found = set()
    for name, call in _calls(tree):
        is_open = name in ("open", "os.open")
        if not is_open and name not in OPENERS and name.rpartition(".")[2] not in METHODS:
            continue
        mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "''"
        if name == "open" and {*"wax+"}.isdisjoint(mode):
            continue
        if name == "os.open" and "O_RDONLY" in mode:
            continue
        code = ast.unparse(call)
        is_ours = name in ("write_text", "write_bytes") or "open_log(" in code
        if not is_ours and "out.place(" not in mode and not code.startswith("open(out.place("):
            found.add(code)
    return found


OPENED = {
    "cli/main.py": "the null device",
    "compat/dataflow_serving.py": "in a folder of this process",
    "data/dataframes.py": "over the lines of a RowWriter, which are in a file of its own",
    "_util/files.py": "here",
    "formats/export_pictures.py": "a link, into a folder that was just made",
    "formats/picture_files.py": "a new file in the export's own folder",
    "scale/merging.py": "a further name of a picture, which has to be new",
    "images/in_memory.py": "in a folder of this process",
    "serving/recorded.py": "the file that the user's code names",
}
"""Modules that may open files for writing otherwise, and which."""


@pytest.mark.slow
def test_files_are_opened_for_writing_in_one_place() -> None:
    elsewhere = {}
    for module in MODULES:
        name = module.relative_to(ROOT / "dataflow_grounding").as_posix()
        if name not in OPENED:
            elsewhere[name] = openers(parsed(module.read_text(encoding="utf-8")))
    assert {name: calls for name, calls in elsewhere.items() if calls} == {}


def test_the_gate_finds_files_that_are_opened() -> None:
    for code in (
        "open(f'{path}.part', 'ab', 0)",
        "os.open(path, os.O_CREAT | os.O_WRONLY)",
        "Path(path).write_text('x')",
        "shutil.copyfile(a, b)",
    ):
        assert openers(parsed(code)), code


def test_a_folder_from_a_stranger_stands_for_no_bucket(tmp_path: Path) -> None:
    """Else what is in it, and with `part` what is next to it, would be sent to whom the stranger
    names.
    """
    (tmp_path / "secret.txt").write_text("mine")
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / ".elsewhere.json").write_text('{"address": "memory://evil", "part": "..", "id": "x"}')
    bucket.send(str(folder / "annotations.jsonl"))
    assert not MemoryFileSystem().find("memory://evil")


def test_results_in_any_store_are_read_from_a_copy() -> None:
    address = "memory://any-store/run"
    MemoryFileSystem().pipe_file(f"{address}/run.json", b"{}")
    with bucket.copied(address, "run.json") as folder:
        assert Path(folder, "run.json").read_text() == "{}"
    MemoryFileSystem().rm("/any-store", recursive=True)


@pytest.mark.slow
def test_a_download_that_fails_leaves_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(self: object, there: str, here: str, **_: object) -> None:
        Path(here).write_bytes(b"half")
        raise OSError(errno.EIO, "cut off")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", torn)
    folder = Path(bucket.local("memory://bucket/run"))
    before = list(folder.iterdir())
    with pytest.raises(InputError, match="cut off"):
        bucket.bring(str(folder / "annotations.jsonl"))
    assert list(folder.iterdir()) == before


@pytest.mark.slow
def test_pictures_with_any_names_stay_apart_in_an_export_and_have_names_for_every_system(
    tmp_path: Path,
) -> None:
    named = {"a.jpg": "a.jpg", "A.jpg": "A~2.jpg", "aux.jpg": "_aux.jpg", "b\\c\n.jpg": "b_c_.jpg"}
    one_somewhere = ["\u00e9.png", "e\u0301.png", "E\u0301.png"]
    on_windows = ["b:.png", "c|?.png", "d*.png", '"e".png', "<f>.png", "g.", "h ", "i. /j.png"]
    records = []
    for number, name in enumerate([*named, *one_somewhere, *on_windows]):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (9, 9), (number, 0, 0)).save(path, "PNG")
        box = {"text": "a dog", "instances": [{"bbox": [1, 1, 5, 5]}]}
        records.append({"image_path": name, "image_id": str(number), "expressions": [box]})
    write_rows(str(tmp_path / "run" / "annotations.jsonl"), records)
    out = tmp_path / "out"
    done = command(["export", str(tmp_path / "run"), "--format", "yolo", "-o", str(out)])
    assert done.code == 0, done
    images = [path for path in (out / "images").rglob("*") if path.is_file()]
    made = [path.relative_to(out / "images").as_posix() for path in images]
    assert set(named.values()) <= set(made)
    folded = {unicodedata.normalize("NFC", path).casefold() for path in made}
    assert len(folded) == len(made) == len(records)
    for path in made:
        assert set('<>:"|?*').isdisjoint(path), path
        assert not any(part.endswith((".", " ")) for part in path.split("/")), path
    labels = {path.stem for path in (out / "labels").rglob("*.txt")}
    assert labels == {path.stem for path in images}
