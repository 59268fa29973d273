"""Reading and writing data files: JSONL, JSON, CSV, TSV, Parquet.

Files are read row by row, in order (`read_rows`); a row that can't be read comes with its error,
and the others after it. They are written whole or not at all (`RowWriter`).
"""

import codecs
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from importlib.util import find_spec
from typing import IO, NamedTuple

from dataflow_grounding._util.errors import (
    NO_MEMORY,
    BrokenRow,
    GroundingError,
    InputError,
    MissingExtra,
    errors_as,
)
from dataflow_grounding._util.files import new_file, whole_file, write_bytes
from dataflow_grounding._util.nearest import nearest_file
from dataflow_grounding._util.paths import open_input
from dataflow_grounding.data.json_lists import is_coco, items_of, json_file, read_json
from dataflow_grounding.data.records import BROKEN_ROW, JsonObject, dump_line, dump_text, parse_line

FILE_TYPES = ("jsonl", "json", "csv", "tsv", "parquet")
NO_PICKLE = (
    "pickle is not supported, because reading one runs any code that is in it: use jsonl or parquet"
)
DELIMITERS = {"csv": ",", "tsv": "\t"}  # what is between cells, by the type of file


class Row(NamedTuple):
    """A row as read: its data, or the error that says what is wrong with it.

    `line` counts from 1 (in CSV and TSV the first of the row; in JSON and Parquet the row's
    number), `place` from 0 over all rows of the input.
    """

    line: int
    data: JsonObject | None
    error: BrokenRow | None = None
    place: int = 0


def file_type_of(path: str) -> str:
    """Return the type, one of FILE_TYPES, that a file's ending names; jsonl if it names none."""
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    if ending == "pq":
        return "parquet"
    return ending if ending in FILE_TYPES else "jsonl"


def read_rows(path: str) -> Iterator[Row]:
    """Yield all rows of a data file, broken ones with an error; InputError for the whole file."""
    if path.endswith((".pickle", ".pkl")):
        raise InputError(f"{path}: {NO_PICKLE}")
    try:
        yield from _reader_of(file_type_of(path))(path)
    except MemoryError:
        raise InputError(f"can't read {path}: {NO_MEMORY}") from None
    except OSError as error:
        raise InputError(_why_unread(path, error)) from None


def _reader_of(file_type: str) -> Callable[[str], Iterator[Row]]:
    if file_type == "jsonl":
        return _read_jsonl
    if file_type == "json":
        return _read_json
    from dataflow_grounding.data.dataframes import read_csv, read_parquet  # few runs read tables

    return read_parquet if file_type == "parquet" else read_csv


def _why_unread(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"no input file {path}{nearest_file(path)}"
    if error.errno == errno.EISDIR:
        return f"{path} is a folder, not a data file"
    return f"can't read {path}: {error.strerror or error}"


def read_unbroken_rows(path: str, unit: str = "line") -> Iterator[tuple[int, JsonObject]]:
    """Yield each row's line number and its data; InputError, with the number, at a broken one."""
    for row in read_rows(path):
        if row.data is None:
            raise InputError(f"{path}, {unit} {row.line}: {row.error}")
        yield row.line, row.data


def read_records(path: str) -> list[JsonObject]:
    """Return the data of all rows of a file. Raises InputError, also for a broken row."""
    return [data for _, data in read_unbroken_rows(path)]


def _read_jsonl(path: str) -> Iterator[Row]:
    with open_input(path) as file:
        for number, line in enumerate(file, 1):
            # Without a mark, UTF-16 has a zero in each ASCII character: "{" is "{\0".
            has_mark = line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            if number == 1 and (has_mark or b"\0" in line[:4]):
                raise InputError(f"{path} is in UTF-16: save it as UTF-8")
            if not line.strip():
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError:
                yield _parse_row(number, line.rstrip())  # whose error says at which byte
            else:
                # a byte order mark, and the separator of JSON text sequences
                yield _parse_row(number, text[1:] if text[0] in "\ufeff\x1e" else text)


def as_line(row: Row) -> str:
    """Return a row as a line of JSON that `read_rows` reads as the same row, broken or not."""
    if row.error is not None:
        return dump_line({BROKEN_ROW: str(row.error), "passing": row.error.passing})
    return dump_line(row.data or {})


def _parse_row(number: int, line: str | bytes) -> Row:
    """Return the row of a line, also of one by which `as_line` states that it is broken."""
    try:
        data = parse_line(line)
    except BrokenRow as error:
        return Row(number, None, error)
    if BROKEN_ROW not in data:
        return Row(number, data)
    stated = BrokenRow(str(data[BROKEN_ROW]))
    stated.passing = data.get("passing") is True  # a later run may be able to read it
    return Row(number, None, stated)


def _read_json(path: str) -> Iterator[Row]:
    """Read a list's items, one object as one row, or JSON lines under another name."""
    items_read = 0
    with suppress(ValueError, RecursionError), json_file(path) as file:
        for items_read, item in enumerate(items_of(file), 1):
            yield _parse_row(items_read, item)
        return
    # `items_of` has raised one of these: the file isn't a list all through.
    if is_coco(path):  # told before it takes ten times its size in memory
        first = f"dataflowgrounding import {path} --format coco -o FOLDER"
        raise InputError(f"{path} is COCO's format: make it records first: {first}")
    data = read_json(path)  # raises where it is no JSON
    holds_several_values = data is None  # or null alone, which is one broken line
    if isinstance(data, dict):
        yield _parse_row(1, json.dumps(data))
    elif holds_several_values and items_read == 0:  # not a list with something after it
        yield from _read_jsonl(path)
    else:
        raise InputError(f"{path} should hold a JSON array of objects")


class RowWriter:
    """Writes rows as JSON lines to a temporary file, which `commit` puts at `path`, in its type."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file_type = file_type_of(path)
        self._part = _part_of(path)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = self._open_part()
        self.count = 0

    def _open_part(self) -> IO[str]:
        # One that a killed process has left is removed before.
        return new_file(self._part, "w", encoding="utf-8", newline="\n")

    def write(self, record: Mapping[str, object]) -> None:
        """Add one row."""
        self.write_line(dump_line(record))

    def write_line(self, line: str) -> None:
        """Add one row, as the line that `dump_line` makes of it."""
        self._file.write(line)
        self.count += 1

    def set_in(
        self, numbers: Collection[int], columns_for: Callable[[JsonObject], Mapping[str, object]]
    ) -> None:
        """Set columns in rows that were written already, by their numbers from 0: those that
        `columns_for` returns for a row.

        The temporary file is written again as a whole.
        """
        self._file.flush()
        # It is read on after the new file has taken its place.
        with open(self._part, encoding="utf-8", newline="\n") as lines:
            self._file.close()
            self._file = self._open_part()
            for number, line in enumerate(lines):
                new_line = line
                if number in numbers:
                    row = parse_line(line)
                    new_line = dump_line({**row, **columns_for(row)})
                self._file.write(new_line)

    def commit(self) -> None:
        """Put the file in place, whole and on disk, in the type that its ending names. Raises
        InputError for rows that the type can't hold, OSError where another process has begun to
        write the file since.
        """
        self._file.flush()
        if self.file_type != "jsonl":
            self._convert()
        os.fsync(self._file.fileno())
        if not _is_at(self._file, self._part):
            raise OSError(errno.EBUSY, "another process is writing it", self._part)
        os.replace(self._part, self.path)
        self._file.close()

    def _convert(self) -> None:
        """Write the temporary file's JSON lines again, in the wanted type."""
        # Until here the file holds JSON lines, no matter what its name ends in. They are read
        # whole, because the file is overwritten next. A table is written by its path, and so into
        # the same file, which stays open here.
        rows = read_records(self._part)
        if self.file_type == "json":
            lines = ",\n".join(map(dump_text, rows))
            self._file.seek(0)
            self._file.truncate()
            self._file.write(f"[\n{lines}\n]\n" if lines else "[]\n")
            self._file.flush()
            return
        # few runs write tables
        from dataflow_grounding.data.dataframes import write_csv, write_parquet

        if self.file_type == "parquet":
            write_parquet(self._part, rows, self.path)
        else:
            write_csv(self._part, rows, DELIMITERS[self.file_type])

    def close(self) -> None:
        """Remove the temporary file, unless `commit` put it in place."""
        if self._file.closed:  # after `commit`: by now a file of that name may be somebody else's
            return
        with suppress(OSError):
            if _is_at(self._file, self._part):
                os.remove(self._part)
        with suppress(OSError):  # the disk may be full for what is buffered, which isn't wanted
            self._file.close()


def _part_of(path: str) -> str:
    return f"{path}.part"


def remove_unfinished(path: str) -> None:
    """Remove what a RowWriter of `path` has left, where its process was killed. Raises OSError."""
    os.remove(_part_of(path))


def _is_at(file: IO[str], path: str) -> bool:
    """Whether an open file is still the one at its path; False where that can't be told."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    return False


def write_rows(path: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a whole data file, of the type that its ending names; on an error the old one stays."""
    with closing(RowWriter(path)) as writer:
        for row in rows:
            writer.write(row)
        writer.commit()


def check_file_type(name: str) -> str:
    """Return `name`, a `cache_type`, if files of this type can be written; else GroundingError."""
    if name == "pickle":
        raise GroundingError(f"cache_type {NO_PICKLE}")
    if name not in FILE_TYPES:
        raise GroundingError(f"cache_type {name!r} is not one of {', '.join(FILE_TYPES)}")
    if name == "parquet" and find_spec("pyarrow") is None:
        raise MissingExtra("Parquet", "parquet")
    return name


def write_text(path: str, text: str) -> None:
    """Write a text file whole or not at all, its folder with it. Half of a surrogate pair, which
    UTF-8 can't hold, is written as `\\ud800`: JSON reads back as it was.
    """
    with errors_as(InputError, f"can't write {path}"):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_bytes(path, text.encode(errors="backslashreplace"))


def copy_file(source: str, target: str) -> None:
    """Copy a file, whole or not at all; a target with the same content is left untouched.

    Raises OSError.
    """
    if not (os.path.exists(target) and filecmp.cmp(source, target, shallow=False)):
        with whole_file(target) as file, open(source, "rb") as original:
            shutil.copyfileobj(original, file, 2**20)
