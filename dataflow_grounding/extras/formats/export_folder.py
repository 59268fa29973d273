"""The folder of an export: written beside its place, and put there as a whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from itertools import chain, repeat
from typing import IO, Any, cast

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import new_file, within
from dataflow_grounding.data.records import dump_line, dump_text
from dataflow_grounding.engine.run_lock import only_run

README = "README.md"
_DTYPES = {bytes: "image", bool: "bool", int: "int64", float: "float64", str: "string"}
_LOCK, _NEW = ".exporting", "new"  # all that is in PATH.part, which is ours by that
MARK = "Exported by dataflow-grounding"
"""Stands in the README of an export: what has it may be replaced by another, if it names all that
is in its folder.
"""

Put = Callable[[Mapping[str, Any]], object]


def is_alone(path: str, data_file: str) -> bool:
    """Whether an export's path names its data file, by the ending, and no folder."""
    return bool(ending := os.path.splitext(data_file)[1]) and path.endswith(ending)


class ExportFolder:
    """A folder that is made whole or not at all.

    Args:
        path: Its place. An export that stands there is replaced, unless something else is in it.
        only: The file that is put there alone, instead of the folder.

    Raises:
        InputError: Something else stands there, or at `path.part`, where it is made; FolderTaken,
            if another export is.

    Example:
        >>> import tempfile; place = os.path.join(tempfile.mkdtemp(), "out")
        >>> with ExportFolder(place) as out:
        ...     with out.lines("a.jsonl") as put:
        ...         put({"box": [1.0, 2.0]})
        >>> open(os.path.join(place, "a.jsonl")).read()
        '{"box": [1.0, 2.0]}\\n'
    """

    def __init__(self, path: str, only: str | None = None) -> None:
        self.line: Any = None  # of a file of JSON lines: one with all that any of them has
        self.path = os.path.realpath(path)
        self._part, self._only, self._made, self._lock = f"{self.path}.part", only, "", ExitStack()
        self._new = os.path.join(self._part, _NEW)
        if os.path.lexists(self.path) and (other := _not_ours(self.path)) is not None:
            raise InputError(f"{path} is there and {other}: choose another place")

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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            if kind is None:
                shutil.rmtree(self.path, ignore_errors=True)
                os.replace(os.path.join(self._new, self._only or ""), self.path)
            shutil.rmtree(self._part, ignore_errors=True)

    def place(self, name: str) -> str:
        """Where a file of the folder is to be written, by its name in there; the folders above it
        are made.
        """
        path = within(self._new, name)
        if (folder := os.path.dirname(path)) != self._made:
            # the last one; asking anew takes as long as a small file
            os.makedirs(folder, exist_ok=True)
            self._made = folder
        return path

    def named(self) -> str:
        """The names of all that is in the folder, in a line for its README."""
        return (
            "Its files:"
            f" {', '.join(f'`{name}`' for name in sorted({README, *os.listdir(self._new)}))}."
        )

    def front_matter(self, data_file: str) -> str:
        """What its README begins with: without it `datasets` fixes types by the first 10 MB, and
        ends at others.
        """
        if self.line is None:
            return ""
        import yaml

        files = {
            "configs": [
                {"config_name": "default", "data_files": [{"split": "train", "path": data_file}]}
            ]
        }
        data = {
            # it finds pictures, and what they are in, by itself
            **({} if b"" in self.line.values() else files),
            "dataset_info": {
                "features": [{"name": key, **_feature(value)} for key, value in self.line.items()]
            },
        }
        return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n"

    def file(self, name: str) -> IO[str]:
        """A text file."""
        return cast("IO[str]", new_file(self.place(name), "w", encoding="utf-8", newline="\n"))

    @contextmanager
    def lines(self, name: str) -> Iterator[Put]:
        """A file of JSON lines: gives what adds one."""
        with self.file(name) as file:
            whole = False

            def put(value: Mapping[str, Any]) -> None:
                nonlocal whole
                if not whole:
                    self.line = _fuller(self.line, value)
                    whole = _whole(self.line)
                file.write(dump_line(value))

            yield put

    @contextmanager
    def lists(self, name: str, *keys: str, **head: Any) -> Iterator[list[Put]]:
        """A JSON object that holds `head`, then under each of `keys` a list: gives what adds an
        item to each list.

        A single key "" makes the file one list. Items are kept on disk until the end.
        """
        with ExitStack() as files:
            spools = [
                files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n"))
                for _ in keys
            ]
            yield [_adder(spool) for spool in spools]
            with self.file(name) as file:
                file.write(
                    ""
                    if keys == ("",)
                    else "{" + "".join(f'"{k}":{dump_text(v)},\n' for k, v in head.items())
                )
                for number, (key, spool) in enumerate(zip(keys, spools, strict=True)):
                    file.write(("," * bool(number) + f'\n"{key}":' if key else "") + "[")
                    spool.seek(0)
                    shutil.copyfileobj(spool, file, 2**20)
                    file.write("]")
                file.write("\n" if keys == ("",) else "}\n")


def _not_ours(path: str) -> str | None:
    """What stands in the way of replacing what is there; None if it is empty, or an export and
    nothing else.
    """
    if not os.path.isdir(path):
        return "is not an export"
    text, found = "", sorted(os.listdir(path))
    with (
        suppress(OSError, UnicodeDecodeError),
        open(os.path.join(path, README), encoding="utf-8") as file,
    ):
        text = file.read()
    if found and MARK not in text:
        return "is not an export"
    named = text.splitlines()[-1:]  # the line of `named`
    return next(
        (
            f"has {name} in it, which isn't of the export"
            for name in found
            if f"`{name}`" not in named[0]
        ),
        None,
    )


def _adder(file: IO[str]) -> Put:
    between = chain(["\n"], repeat(",\n"))
    return lambda value: file.write(next(between) + dump_text(value))


def _fuller(one: Any, other: Any) -> Any:
    """An example of what both are, with something in each list that isn't always empty."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {key: _fuller(one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        items = [*one[:1], *other]
        return [reduce(_fuller, items)] if items else []
    return other if one is None else one


def _whole(example: Any) -> bool:
    if isinstance(example, Mapping):
        return all(map(_whole, example.values()))
    return (
        bool(example) and _whole(example[0])
        if isinstance(example, (list, tuple))
        else example is not None
    )


def _feature(value: Any) -> dict[str, Any]:
    """The type of a value as `datasets` states it in a card; `null` where nothing tells it."""
    if isinstance(value, Mapping):
        return {"struct": [{"name": key, **_feature(item)} for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        inner = _feature(value[0] if value else None)
        return {"list": inner["dtype"] if inner.keys() == {"dtype"} else inner.get("struct", inner)}
    return {"dtype": _DTYPES.get(type(value), "null")}
