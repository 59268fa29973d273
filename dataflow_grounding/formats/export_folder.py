"""The folder of an export: written next to its place, then moved there as a whole."""

import copy
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import new_file, within
from dataflow_grounding._util.paths import names_in
from dataflow_grounding.data.records import JsonObject, dump_line, dump_text
from dataflow_grounding.engine.run_lock import only_run

README = "README.md"
# All that is ever in PATH.part, the lock's file and the new folder: a folder of that name with
# anything else in it isn't ours.
_LOCK = ".exporting"
_NEW = "new"
_EARLIER = "earlier"
MARK = "Exported by dataflow-grounding"
"""In the README of an export, which is replaced if its last line names all that is there."""
_LABEL_FILES = (".json", ".txt", ".xml")  # endings of files that people change in place

Put = Callable[[JsonObject], object]
"""Adds an item to a file."""


def is_data_file(path: str, data_file: str) -> bool:
    """Whether a path ends as the format's data file, if that has an ending: it is one file's."""
    ending = os.path.splitext(data_file)[1]
    return bool(ending) and path.endswith(ending)


class ExportFolder:
    """A folder that is made whole or not at all.

    It is written at `path.part`, and moved to `path` where the `with` block ends without an
    exception; with one, `path` stays as it was.

    Args:
        path: Where it goes. An earlier export there is replaced, unless something else is in it, or
            somebody has changed its label files.
        only_file: A file of the folder that is moved to `path` itself; all others are thrown away.
        parts: Names of the parts of a split, each of which gets a folder in it.

    Raises:
        InputError: Something else is at `path`, or on entering at `path.part`; FolderTaken if
            another export writes there now.

    Example:
        >>> import tempfile; path = os.path.join(tempfile.mkdtemp(), "out")
        >>> with ExportFolder(path) as out:
        ...     with out.lines("a.jsonl") as put:
        ...         put({"box": [1.0, 2.0]})
        >>> open(os.path.join(path, "a.jsonl")).read()
        '{"box": [1.0, 2.0]}\\n'
    """

    def __init__(self, path: str, only_file: str | None = None, parts: Sequence[str] = ()) -> None:
        self.path = os.path.realpath(path)
        self.parts = parts
        self._only_file = only_file
        self._working_folder = f"{self.path}.part"
        self._new = os.path.join(self._working_folder, _NEW)  # becomes `path` in the end
        # Where an earlier export is while the new one takes its place. A process that is killed at
        # this moment leaves it there.
        self._earlier = os.path.join(self._working_folder, _EARLIER)
        self._last_folder = ""  # the folder that `place` has made last
        self._lock = ExitStack()  # held inside the `with` block, against another export
        obstacle = _obstacle_to_replacing(self.path)
        if obstacle is not None:
            raise InputError(f"{path} is there and {obstacle}: choose another place")

    def __enter__(self) -> "ExportFolder":
        """Lock `path.part` against other exports, and begin with an empty folder in it.

        Raises InputError; FolderTaken where another export is at work.
        """
        working_folder = self._working_folder
        if os.path.lexists(working_folder) and not _is_working_folder(working_folder):
            raise InputError(
                f"{working_folder}, where it would be made, is there already: move it, or choose"
                " another place"
            )
        self._lock.enter_context(only_run(os.path.join(working_folder, _LOCK)))
        # A process that was killed in between has left the earlier export there.
        is_left_there = os.path.lexists(self._earlier) and not os.path.lexists(self.path)
        if is_left_there:
            os.replace(self._earlier, self.path)
        for left_over in (self._new, self._earlier):
            shutil.rmtree(left_over, ignore_errors=True)
        os.makedirs(self._new)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Put the folder, or its only file, in place unless there was an error; remove the rest."""
        with self._lock:
            if error_type is None:
                self._replace_earlier()
            shutil.rmtree(self._working_folder, ignore_errors=True)

    def _replace_earlier(self) -> None:
        """Move what was written to `path`; if that fails, put the earlier export back."""
        has_earlier = os.path.lexists(self.path)
        if has_earlier:
            os.replace(self.path, self._earlier)
        result = self._new
        if self._only_file is not None:
            result = os.path.join(self._new, self._only_file)
        try:
            os.replace(result, self.path)
        except OSError:
            if has_earlier:  # should this fail, too, the next export puts it back
                os.replace(self._earlier, self.path)
            shutil.rmtree(self._working_folder, ignore_errors=True)
            raise

    def part(self, name: str) -> "ExportFolder":
        """Return the folder of one of the parts, inside this one, to be written to.

        It is not to be entered: it is put in place with the whole.
        """
        part = copy.copy(self)  # which gets another place
        part._new = within(self._new, name)
        part._last_folder = ""
        return part

    def place(self, name: str) -> str:
        """Return the path at which to write a file of the folder, and make the folders above it.

        `name` is its path inside the folder. Raises InputError if that leads out of it.
        """
        path = within(self._new, name)
        folder = os.path.dirname(path)
        if folder != self._last_folder:  # to make a folder takes as long as to write a small file
            os.makedirs(folder, exist_ok=True)
            self._last_folder = folder
        return path

    def named(self) -> str:
        """Return a line for the README that names all that is in the folder, itself included."""
        names = sorted({README, *os.listdir(self._new)})
        return "Its files: " + ", ".join(f"`{name}`" for name in names) + "."

    def file(self, name: str) -> IO[str]:
        """Open a new text file of the folder, to be written; the folders above it are made."""
        return cast("IO[str]", new_file(self.place(name), "w", encoding="utf-8", newline="\n"))

    @contextmanager
    def lines(self, name: str) -> Iterator[Put]:
        """Open a file of JSON lines, and give a function that writes an object as a line."""
        with self.file(name) as file:
            yield lambda value: file.write(dump_line(value))

    @contextmanager
    def lists(self, name: str, *keys: str, **head: Any) -> Iterator[list[Put]]:
        """Open a JSON file of one object: the members of `head`, then a list under each of `keys`.

        Gives for each list a function that adds an item, in any order. A single key "" makes the
        file one list, without `head`. The file is written when the block ends, and not at all after
        an exception.

        `lists("coco.json", "images", "annotations", info={})` gives two functions, and writes
        {"info": {}, "images": […], "annotations": […]}.
        """
        items: dict[str, list[str]] = {key: [] for key in keys}  # as JSON
        yield [partial(_add, of_key) for of_key in items.values()]
        with self.file(name) as file:
            if keys == ("",):
                _write_list(file, items[""])
            else:
                file.write("{")
                for key, value in head.items():
                    file.write(f'"{key}":{dump_text(value)},\n')
                separator = ""
                for key, of_key in items.items():
                    file.write(f'{separator}\n"{key}":')
                    _write_list(file, of_key)
                    separator = ","
                file.write("}")
            file.write("\n")


def _add(items: list[str], item: JsonObject) -> None:
    items.append(dump_text(item))


def _write_list(file: IO[str], items: Iterable[str]) -> None:
    file.write("[")
    separator = "\n"
    for item in items:
        file.write(separator + item)
        separator = ",\n"
    file.write("]")


def _is_working_folder(path: str) -> bool:
    if not os.path.isdir(path) or os.path.islink(path):
        return False
    return {_LOCK, _NEW, _EARLIER}.issuperset(os.listdir(path))


def _obstacle_to_replacing(path: str) -> str | None:
    """Return why what is at a path may not be replaced, in words; None where it may.

    An empty folder may, and an earlier export with nothing else in it and its labels unchanged.
    """
    if not os.path.lexists(path):
        return None
    if not os.path.isdir(path):
        return "is not an export"
    names = sorted(os.listdir(path))
    if not names:
        return None
    readme = ""
    with suppress(OSError, UnicodeDecodeError):
        readme = Path(path, README).read_text(encoding="utf-8")
    if MARK not in readme:
        return "is not an export"
    its_files = readme.splitlines()[-1]  # the line of `named`
    for name in names:
        if f"`{name}`" not in its_files:
            return f"has {name} in it, which isn't of the export"
    return _work_on_labels(path)


def _work_on_labels(path: str) -> str | None:
    """Say that a label file is newer than the README, which the export wrote last; else None."""
    exported_at = os.stat(os.path.join(path, README)).st_mtime_ns
    for name in names_in(path):
        is_label_file = name.endswith(_LABEL_FILES)
        if is_label_file and os.lstat(os.path.join(path, name)).st_mtime_ns > exported_at:
            return f"has {name} in it, which was written after the export"
    return None
