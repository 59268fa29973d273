"""Files made to fill memory: sizes are looked at before reading; where memory doesn't do, a line
says which file.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding.cli import data_sets
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import REPOSITORY, Done, Workplace, command, ended, process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only there a process keeps to RLIMIT_AS"),
]
ROW = json.dumps({"caption": "a cup", "image_path": "a.png", "expressions": []}).encode()


def at_most(gigabytes: float) -> dict[str, Any]:
    """What gives a process so much memory."""
    most = int(gigabytes * 2**30)
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))}


def bounded(arguments: list[str], gigabytes: float = 3) -> Done:
    """A command in a process that may have so much memory."""
    done = ended(process(arguments, **at_most(gigabytes)))
    assert "Traceback" not in done.err, done
    return done


ONE_AFTER_ANOTHER = """
import json, sys
from tests.support.workplace import command
for line in json.load(sys.stdin):
    done = command(line)
    print(json.dumps([done.code, done.out, done.err]), flush=True)
"""


def bounded_imports(format: str, paths: list[Path]) -> list[Done]:
    """Imports of these files, one after another, in one process that may have 3 GB."""
    lines = [
        ["import", str(path), "--format", format, "-o", str(path.with_suffix(f".{number}"))]
        for number, path in enumerate(paths)
    ]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER],
        input=json.dumps(lines),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        **at_most(3),
    )
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr, done
    return [Done(*json.loads(line)) for line in done.stdout.splitlines()]


def refused(done: Done, *names: object) -> None:
    """Such a command ends with 2, and its one line has these names."""
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert all(str(name) in line for name in names), line


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The head of a member of a tar file that is said to be of this size."""
    head = tarfile.TarInfo(name)
    head.size, head.type = size, kind
    return head.tobuf(tarfile.GNU_FORMAT)


def sparse(name: str, size: int) -> bytes:
    """The head of a member without content that unpacks to that many zeros."""
    head = bytearray(member(name, 0, tarfile.GNUTYPE_SPARSE))
    head[386:410] = b"00000000000\0" * 2
    head[483:495] = b"%011o\0" % size
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_a_sample_of_a_shard_that_is_too_large_is_a_failure_of_its_own(tmp_path: Path) -> None:
    good = b"".join(member(f"{name}.json", len(ROW)) + ROW.ljust(512, b"\0") for name in "xy")
    (tmp_path / "sparse.tar").write_bytes(
        good[:1024] + sparse("bomb.png", 2**33 - 1) + good[1024:] + bytes(1024)
    )
    spec = Workplace(tmp_path / "work").spec(**{"data.input_jsonl": str(tmp_path / "sparse.tar")})
    found = bounded(["check", "-e", str(spec)])
    assert "bomb.png" in found.out + found.err, found
    assert "512 MiB" in found.out + found.err
    [imported] = bounded_imports("webdataset", [tmp_path / "sparse.tar"])
    assert imported.code == 1, imported
    assert "left out as bad: 1 entry" in imported.out, imported
    assert "bomb.png" in imported.out


def test_what_a_shard_says_of_sizes_is_not_read_on_trust(tmp_path: Path) -> None:
    zeros = gzip.compress(bytes(2**24), compresslevel=1)
    paths = []
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.REGTYPE):
        packed, lying = (tmp_path / f"{how}_{kind.decode()}.tar" for how in ("packed", "lying"))
        # files in gzip's format that follow each other are one, of all that they hold
        packed.write_bytes(gzip.compress(member("a.json", 4 * 2**30, kind)) + zeros * 64)
        lying.write_bytes(member("a.json", 2**40, kind) + ROW)
        paths += [packed, lying]
    for path, done in zip(paths, bounded_imports("webdataset", paths), strict=True):
        refused(done, path)


def test_an_endless_attribute_of_xml_is_refused_at_once(tmp_path: Path) -> None:
    attribute, text = tmp_path / "attribute.xml", tmp_path / "text.xml"
    endless = b"x" * 2**24
    attribute.write_bytes(b'<annotations><image name="' + endless + b'"/></annotations>')
    text.write_bytes(b"<annotations>" + endless + b"</annotations>")
    for path, done in zip(
        (attribute, text), bounded_imports("cvat", [attribute, text]), strict=True
    ):
        refused(done, path, "8 MiB")


def test_a_parquet_file_is_read_by_bytes_not_by_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 3000, pyarrow.int32()), ["x" * 10**6]
    )
    parquet.write_table(pyarrow.table({"caption": column, "text": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    code = "import sys; from dataflow_grounding.data.rows import read_rows; print(sum(1 for _ in read_rows(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.parquet")],
        capture_output=True,
        text=True,
        **at_most(2),
    )
    assert done.stdout.strip() == "3000", done


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
            pyarrow = pytest.importorskip("pyarrow")
            table = pyarrow.table({"caption": ["x" * size]})
            # what makes reading quick would take seconds for this one text
            plainly = {"use_dictionary": False, "write_statistics": False}
            pytest.importorskip("pyarrow.parquet").write_table(table, path, **plainly)
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
    done = bounded([line[0], str(path), *line[1:]], 0.5)
    assert done.code == 2, done
    assert (
        done.err.strip().splitlines()[-1]
        == f"Error: can't read {path}: it takes more memory than there is"
    )
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


def test_a_run_within_little_memory_loses_nothing(workplace: Workplace) -> None:
    """Where memory runs out within Python's own C code, the process may die as if it were killed."""
    workplace.many(12)
    with LoopbackServer() as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        for megabytes in (160, 300, 500, 1000):
            done = ended(process(workplace.arguments(), **at_most(megabytes / 1024)))
            died = done.code in (-signal.SIGSEGV, -signal.SIGABRT)
            assert died or done.code in (0, 1, 2, 3, 4, 130), (megabytes, done)
            if done.code == 0:
                break  # with more memory it would only say that it is complete
        assert workplace.run().code == 0
        assert len(workplace.annotations()) == 12
        assert server.count() <= 24 + 4 * 8, "what is under way may be paid for again, nothing else"


def test_rows_of_tar_files_are_as_ever(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a/" + "x" * 300 + ".json", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = len(ROW)
            tar.addfile(info, io.BytesIO(ROW))
    done = command(
        ["import", str(tmp_path / "a.tar"), "--format", "webdataset", "-o", str(tmp_path / "o")]
    )
    assert done.code == 0, done
    assert len([*read_rows(str(tmp_path / "o" / "annotations.jsonl"))]) == 2


def nested_aliases(levels: int, key: str) -> str:
    """A few hundred bytes of YAML that stand for nine to the power of the levels."""
    lists = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for below, name in zip("abcdefghijklmn", "bcdefghijklmno"[:levels], strict=False):
        lists.append(f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]")
    return "\n".join([*lists, f"{key}: *{'bcdefghijklmno'[levels - 1]}", ""])


def test_aliases_within_aliases_are_refused_in_a_line(tmp_path: Path) -> None:
    """386 bytes of a data.yaml took a minute and 4 GB."""
    data = tmp_path / "yolo" / "data.yaml"
    data.parent.mkdir()
    data.write_text(nested_aliases(10, "names"))
    done = bounded(["import", str(data.parent), "--format", "yolo", "-o", str(tmp_path / "out")])
    assert done.code == 2, done
    assert "its aliases stand for more than 1,000,000 values" in done.err
    classes = f"image_grounding.data.classes={data}"
    done = bounded(["check", "-e", str(Workplace(tmp_path / "run").spec()), classes])
    assert done.code == 2, done
    assert "its aliases stand for more than 1,000,000 values" in done.err


def test_an_alias_of_a_usual_data_yaml_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(
        "path: &here .\ntrain: *here\nnames: &all [cup]\nval: *all\n"
    )
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n")
    out = tmp_path / "out"
    done = command(["import", str(tmp_path), "--format", "yolo", "-o", str(out)])
    assert done.code == 0, done
    assert '"cup"' in (out / "annotations.jsonl").read_text("utf-8")
