"""Rows as tables: pandas DataFrames, CSV and TSV files, and Parquet files."""

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import (
    NO_MEMORY,
    BrokenRow,
    InputError,
    MissingExtra,
    errors_as,
    needs_extra,
    needs_package,
)
from dataflow_grounding._util.paths import open_input
from dataflow_grounding.data.records import JsonObject, Update, dump_text, is_number, parse_value
from dataflow_grounding.data.rows import DELIMITERS, Row, file_type_of

# The start of what a spreadsheet would take for a formula: =1+1, @SUM. Apostrophes before it belong
# to it: a text that has one already gets another, so that two different texts never have the same
# cell.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
# A number as a text, which is no formula although it may begin as one: -2.5, +.5e3.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_NOT_UTF8 = "is not UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8), then run this again"
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # a byte that isn't UTF-8, read by `surrogateescape`
PARQUET_ROWS = 64  # rows that are read at a time; with more, each row takes longer
ROWS_BYTES = 2**26  # that they may take together, by their mean size


def plain_row(row: Mapping[Any, Any]) -> Update:
    """Return a row as JSON can hold it; BrokenRow for one that is nested too deeply."""
    if not isinstance(row, Mapping):
        raise InputError(f"a row should be a dict, not {type(row).__name__}")
    plain: Update = {}
    try:
        for name, value in row.items():
            plain[str(name)] = plain_value(value)
    except RecursionError:
        # `name` is the column at which the loop has ended
        raise BrokenRow(
            f"column {str(name)!r} is nested too deeply, or holds itself: leave it out"
        ) from None
    return plain


def plain_value(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN and bytes become None, and other types texts."""
    if isinstance(value, float):
        return value if is_number(value) else None
    if isinstance(value, dict):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, bytes):
        return None
    if str(value) in ("NaT", "<NA>"):  # pandas' marks of a missing value, told without importing it
        return None
    numpy_kind = getattr(getattr(value, "dtype", None), "kind", None)  # None for other types
    if numpy_kind in ("M", "m"):
        return str(value)  # NumPy's dates and durations, which tolist() would make numbers
    tolist = getattr(value, "tolist", None)  # a NumPy array, or one of its numbers
    return plain_value(tolist()) if callable(tolist) else str(value)


def from_dataframe(frame: Any) -> list[Update]:
    return [plain_row(row) for row in frame.to_dict("records")]


def to_dataframe(records: Iterable[Mapping[str, object]]) -> Any:
    """Return the records as a pandas DataFrame, every value as it is."""
    with needs_package("a DataFrame", "pandas"):
        import pandas

    rows = [dict(record) for record in records]
    names = dict.fromkeys(chain.from_iterable(rows))
    columns = {}
    for name in names:
        # With types of pandas' choice, 2**53 + 1 next to null would be the float 2**53.
        columns[name] = pandas.Series([row.get(name) for row in rows], dtype=object)
    return pandas.DataFrame(columns)


def read_csv(path: str) -> Iterator[Row]:
    """Yield the rows of CSV or TSV, by the header's names, each with the line where it begins."""
    # A cell may be as long as a record's annotations: csv's own limit is 128 KiB. 2**31 - 1 is the
    # most that it takes on Windows.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with TextIOWrapper(open_input(path), "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=DELIMITERS[file_type_of(path)])
        names = _csv_header(path, reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(line, None, BrokenRow(f"not CSV: {error}"))
                continue
            if cells:  # an empty line has none, and is passed over
                yield _csv_row(line, names, cells)


def _csv_row(line: int, names: list[str], cells: list[str]) -> Row:
    if not _is_utf8(cells):
        return Row(line, None, BrokenRow(_NOT_UTF8))
    if len(cells) != len(names):
        return Row(line, None, BrokenRow(f"has {len(cells)} cells, the header {len(names)}"))
    return Row(line, dict(zip(names, map(_cell, cells), strict=True)))


def _csv_header(path: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}, line 1: {error}") from None
    if not names:
        raise InputError(
            f"{path} should begin with the names of its columns, but its first line is empty"
        )
    if not _is_utf8(names):
        raise InputError(f"{path}, line 1: {_NOT_UTF8}")
    if len(names) == 1:
        for delimiter in (";", "\t"):  # "image;caption" is read as one long name
            if delimiter in names[0]:
                raise InputError(
                    f"{path} has {delimiter!r} between its columns: save it with commas, or"
                    " as .tsv with tabs"
                )
    names = [text_of(name) for name in names]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path}, line 1: two columns are called {name!r}")
    return names


def _is_utf8(cells: list[str]) -> bool:
    """Whether the bytes were UTF-8; `surrogateescape` turns others into U+DC80 to U+DCFF."""
    not_ascii = [cell for cell in cells if not cell.isascii()]
    return not any(map(_ESCAPED_BYTE.search, not_ascii))


def _cell(text: str) -> Any:
    if text[:1] in ("[", "{"):
        with suppress(BrokenRow):
            return parse_value(text)
    return text_of(text)


def write_csv(path: str, rows: Iterable[Mapping[str, object]], delimiter: str) -> None:
    cells = ({cell_of(name): cell_of(value) for name, value in row.items()} for row in rows)
    frame = to_dataframe(cells)
    frame.to_csv(path, sep=delimiter, index=False, lineterminator="\r\n", errors="backslashreplace")


def cell_of(value: Any) -> Any:
    """Return a value as a cell; what a spreadsheet might execute gets an apostrophe before it."""
    if isinstance(value, (list, dict)):
        return dump_text(value)
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def text_of(cell: str) -> str:
    if cell[:1] == "'" and _FORMULA.match(cell):
        return cell[1:]
    return cell


def read_parquet(path: str) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1."""
    for number, item in enumerate(parquet_rows(path, PARQUET_ROWS), 1):
        yield Row(number, plain_row(item))


def write_parquet(path: str, rows: Iterable[JsonObject], shown: str) -> None:
    """Write a Parquet file; InputError, which calls it `shown`, for rows that it can't hold."""
    try:
        to_dataframe(map(encodable, rows)).to_parquet(path, index=False)
    except ImportError:
        raise MissingExtra("Parquet", "parquet") from None
    except Exception as error:
        # pyarrow's errors, and what it lets through: for columns of several types, and objects
        # without keys.
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{shown}: Parquet can't hold these rows ({reason}): use cache_type jsonl"
        ) from None


def encodable(value: Any) -> Any:
    """Return a value with halves of surrogate pairs, which Parquet can't hold, as `\\ud800`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [encodable(item) for item in value]
    if isinstance(value, dict):
        return {encodable(name): encodable(item) for name, item in value.items()}
    return value


def parquet_rows(path: str, at_once: int) -> Iterator[Update]:
    """Yield the rows of a Parquet file, at most `at_once` of them in memory."""
    with parquet_file(path) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        mean_sizes = [group.total_byte_size // max(1, group.num_rows) for group in groups]
        rows_that_fit = ROWS_BYTES // max([1, *mean_sizes])
        for batch in file.iter_batches(batch_size=max(1, min(at_once, rows_that_fit))):
            yield from batch.to_pylist()


@contextmanager
def parquet_file(path: str) -> Iterator[Any]:
    """Open a Parquet file with pyarrow, so that it is never in memory as a whole."""
    with needs_extra("Parquet", "parquet"):
        import pyarrow.parquet
    try:
        with open_input(path) as source:
            # read in pieces of 1 MiB, each when it is needed
            yield pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
    except MemoryError:
        raise InputError(f"can't read {path}: {NO_MEMORY}") from None
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None


def holds_bytes(path: str) -> bool:
    """Whether a Parquet file has a column with bytes in it, as `{bytes, path}` for pictures."""
    with errors_as(InputError, f"can't read {path}"), parquet_file(path) as file:
        return any("binary" in str(column_type) for column_type in file.schema_arrow.types)
