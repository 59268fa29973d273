"""The folder of an export: written beside its place, and put there as a whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any, cast

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import new_file, within
from dataflow_grounding.data.records import dump_line, dump_text
from dataflow_grounding.engine.run_lock import only_run

README = "README.md"
_DTYPES = {bytes: "image", bool: "bool", int: "int64", float: "float64", str: "string"}
_LOCK, _NEW = ".exporting", "new"  # all that is in PATH.part, which is ours by that
MARK = "Exported by dataflow-grounding"
"""Stands in the README of an export.

What has it may be replaced by another export, if it names all that is in its folder.
"""

Put = Callable[[Mapping[str, Any]], object]


def is_alone(path: str, data_file: str) -> bool:
    """Whether an export's path names its data file, by the ending, and no folder."""
    ending = os.path.splitext(data_file)[1]
    return bool(ending) and path.endswith(ending)


class ExportFolder:
    """A folder that is made whole or not at all.

    Args:
        path: Where it goes. An export that stands there is replaced, unless something else is in
            it.
        only: The file that is put there alone, instead of the folder.

    Raises:
        InputError: Something else stands there, or at `path.part`, where it is made; FolderTaken,
            if another export is.

    Example:
        >>> import tempfile; path = os.path.join(tempfile.mkdtemp(), "out")
        >>> with ExportFolder(path) as out:
        ...     with out.lines("a.jsonl") as put:
        ...         put({"box": [1.0, 2.0]})
        >>> open(os.path.join(path, "a.jsonl")).read()
        '{"box": [1.0, 2.0]}\\n'
    """

    def __init__(self, path: str, only: str | None = None) -> None:
        self.path = os.path.realpath(path)
        self.line: Any = None
        """Of a file of JSON lines: an example with all that any of them has."""
        self._only = only
        self._part = f"{self.path}.part"
        self._new = os.path.join(self._part, _NEW)
        self._last_folder = ""
        self._lock = ExitStack()
        if os.path.lexists(self.path):
            obstacle = _not_ours(self.path)
            if obstacle is not None:
                raise InputError(f"{path} is there and {obstacle}: choose another place")

    def __enter__(self) -> "ExportFolder":
        part = self._part
        is_ours = os.path.isdir(part) and not os.path.islink(part)
        if os.path.lexists(part) and not (is_ours and {_LOCK, _NEW}.issuperset(os.listdir(part))):
            raise InputError(
                f"{part}, where it would be made, is there already: move it, or choose another"
                " place"
            )
        self._lock.enter_context(only_run(os.path.join(part, _LOCK)))
        shutil.rmtree(self._new, ignore_errors=True)
        os.makedirs(self._new)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            if error_type is None:
                shutil.rmtree(self.path, ignore_errors=True)
                os.replace(os.path.join(self._new, self._only or ""), self.path)
            shutil.rmtree(self._part, ignore_errors=True)

    def place(self, name: str) -> str:
        """Where a file of the folder is to be written; the folders above it are made.

        `name` is its path inside the folder.
        """
        path = within(self._new, name)
        folder = os.path.dirname(path)
        if folder != self._last_folder:  # asking anew takes as long as writing a small file
            os.makedirs(folder, exist_ok=True)
            self._last_folder = folder
        return path

    def named(self) -> str:
        """The names of all that is in the folder, in a line for its README."""
        names = sorted({README, *os.listdir(self._new)})
        return "Its files: " + ", ".join(f"`{name}`" for name in names) + "."

    def front_matter(self, data_file: str) -> str:
        """What its README begins with, for `datasets`; empty without a file of JSON lines.

        Without it `datasets` fixes types by the first 10 MB, and ends at others.
        """
        if self.line is None:
            return ""
        import yaml

        data: dict[str, Any] = {}
        if b"" not in self.line.values():  # it finds pictures, and what they are in, by itself
            split = {"split": "train", "path": data_file}
            data["configs"] = [{"config_name": "default", "data_files": [split]}]
        features = [{"name": key, **_feature(value)} for key, value in self.line.items()]
        data["dataset_info"] = {"features": features}
        return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n"

    def file(self, name: str) -> IO[str]:
        """A text file."""
        return cast("IO[str]", new_file(self.place(name), "w", encoding="utf-8", newline="\n"))

    @contextmanager
    def lines(self, name: str) -> Iterator[Put]:
        """A file of JSON lines: gives what adds one."""
        with self.file(name) as file:
            is_whole = False

            def put(value: Mapping[str, Any]) -> None:
                nonlocal is_whole
                if not is_whole:  # merging examples takes longer than writing lines
                    self.line = _merged_example(self.line, value)
                    is_whole = _is_whole_example(self.line)
                file.write(dump_line(value))

            yield put

    @contextmanager
    def lists(self, name: str, *keys: str, **head: Any) -> Iterator[list[Put]]:
        """A JSON object with `head`, then a list under each of `keys`: gives what adds to each.

        A single key "" makes the file one list. Items are kept on disk until the end.
        """
        with ExitStack() as files:
            spools: list[IO[str]] = []
            for _ in keys:
                spools.append(files.enter_context(_temporary_text()))
            yield [_adder(spool) for spool in spools]
            with self.file(name) as file:
                if keys == ("",):
                    _write_list(file, spools[0])
                    file.write("\n")
                    return
                file.write("{")
                for key, value in head.items():
                    file.write(f'"{key}":{dump_text(value)},\n')
                for number, (key, spool) in enumerate(zip(keys, spools, strict=True)):
                    if number:
                        file.write(",")
                    file.write(f'\n"{key}":')
                    _write_list(file, spool)
                file.write("}\n")


def _temporary_text() -> IO[str]:
    return cast("IO[str]", tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n"))


def _write_list(file: IO[str], spool: IO[str]) -> None:
    """Write the items that were put into a temporary file, as a list."""
    file.write("[")
    spool.seek(0)
    shutil.copyfileobj(spool, file, 2**20)
    file.write("]")


def _not_ours(path: str) -> str | None:
    """What stands in the way of replacing what is there.

    None if it is an empty folder, or an export and nothing else.
    """
    if not os.path.isdir(path):
        return "is not an export"
    names = sorted(os.listdir(path))
    readme = ""
    with suppress(OSError, UnicodeDecodeError):
        readme = Path(path, README).read_text(encoding="utf-8")
    if names and MARK not in readme:
        return "is not an export"
    for name in names:
        its_files = readme.splitlines()[-1]  # the line of `named`
        if f"`{name}`" not in its_files:
            return f"has {name} in it, which isn't of the export"
    return None


def _adder(file: IO[str]) -> Put:
    """What writes an item to a temporary file, with what stands between items."""
    separators = chain(["\n"], repeat(",\n"))
    return lambda value: file.write(next(separators) + dump_text(value))


def _merged_example(example: Any, value: Any) -> Any:
    """An example of what both are, with something in each list that isn't always empty."""
    if isinstance(example, Mapping) and isinstance(value, Mapping):
        keys = {**example, **value}
        return {key: _merged_example(example.get(key), value.get(key)) for key in keys}
    if isinstance(example, (list, tuple)) and isinstance(value, (list, tuple)):
        items = [*example[:1], *value]
        return [reduce(_merged_example, items)] if items else []
    return value if example is None else example


def _is_whole_example(example: Any) -> bool:
    """Whether no further value can add to it: nothing in it is missing or empty."""
    if isinstance(example, Mapping):
        return all(map(_is_whole_example, example.values()))
    if isinstance(example, (list, tuple)):
        return bool(example) and _is_whole_example(example[0])
    return example is not None


def _feature(value: Any) -> dict[str, Any]:
    """The type of a value as `datasets` states it in a card; `null` where nothing tells it."""
    if isinstance(value, Mapping):
        return {"struct": [{"name": key, **_feature(item)} for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        inner = _feature(value[0] if value else None)
        if inner.keys() == {"dtype"}:
            return {"list": inner["dtype"]}
        return {"list": inner.get("struct", inner)}
    return {"dtype": _DTYPES.get(type(value), "null")}
