"""Rows and tables.

DataFrames in and out, the tables that pandas writes, Parquet a few rows at a time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import (
    NO_MEMORY,
    BrokenRow,
    InputError,
    MissingExtra,
    needs_extra,
    told_as,
)
from dataflow_grounding._util.paths import is_elsewhere, open_file, plain_path, system_errors
from dataflow_grounding.data.records import dump_text, is_number

# Also with marks of ours before it, so that each text has a cell of its own.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
ROWS_BYTES = 2**26  # of a Parquet file's rows that are read together, on the average
REPEATED_BYTES = 2**30  # the same, if each had all of the largest column's dictionary


def plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row as JSON has it.

    Raises InputError for anything but a mapping, BrokenRow for one that JSON can't hold.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"a row should be a dict, not {type(row).__name__}")
    plain: dict[str, Any] = {}
    try:
        for name, value in row.items():
            plain[str(name)] = plain_value(value)
    except RecursionError:
        raise BrokenRow(
            f"column {str(name)!r} is nested too deeply, or holds itself: leave it out"
        ) from None
    return plain


def plain_value(value: Any) -> Any:
    """A value as JSON has it.

    NaN and other marks for a missing value become null, bytes too; dates become text.
    """
    if isinstance(value, float):
        return value if is_number(value) else None
    if isinstance(value, dict):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, bytes) or str(value) in ("NaT", "<NA>"):
        return None
    if getattr(getattr(value, "dtype", None), "kind", "-") in "mM":
        # NumPy's dates, which tolist() makes numbers
        return str(value)
    tolist = getattr(value, "tolist", None)  # a NumPy array, or one of its numbers
    return plain_value(tolist()) if callable(tolist) else str(value)


def from_dataframe(frame: Any) -> list[dict[str, Any]]:
    """The rows of a pandas DataFrame, as JSON has them."""
    return [plain_row(row) for row in frame.to_dict("records")]


def to_dataframe(records: Iterable[Mapping[str, Any]]) -> Any:
    """The records as a pandas DataFrame, every value as it is.

    Left to pandas, 2**53 + 1 beside null would be 2**53.
    """
    import pandas

    rows = [dict(record) for record in records]
    names = dict.fromkeys(chain.from_iterable(rows))
    columns = {}
    for name in names:
        columns[name] = pandas.Series([row.get(name) for row in rows], dtype=object)
    return pandas.DataFrame(columns)


def write_csv(path: str, rows: Iterable[Mapping[str, Any]], delimiter: str) -> None:
    """Write a CSV or TSV file.

    Lists and objects stand in their cells as JSON, formulas as `cell_of` has them.
    """
    frame = to_dataframe(map(_cells_of, rows))
    frame.to_csv(path, sep=delimiter, index=False, lineterminator="\r\n", errors="backslashreplace")


def _cells_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {cell_of(name): cell_of(value) for name, value in row.items()}


def cell_of(value: Any) -> Any:
    """A value as it stands in a cell.

    A text that a spreadsheet would take for a formula, and might act on, has a `'` before it, as
    one types it there; `text_of` takes it off.

    Example:
        >>> [cell_of(value) for value in ("=1+1", "-2.5", "'=1", "a = b", [1, 2], -3)]
        ["'=1+1", '-2.5', "''=1", 'a = b', '[1, 2]', -3]
    """
    if isinstance(value, (list, dict)):
        return dump_text(value)
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def text_of(cell: str) -> str:
    """The text that a cell stands for."""
    if cell[:1] == "'" and _FORMULA.match(cell):
        return cell[1:]
    return cell


def write_parquet(path: str, rows: Iterable[dict[str, Any]], shown: str) -> None:
    """Write a Parquet file, which errors call `shown`.

    Raises MissingExtra; InputError for rows that it can't hold.
    """
    try:
        to_dataframe(map(encodable, rows)).to_parquet(path, index=False)
    except ImportError:
        raise MissingExtra("Parquet", "parquet") from None
    except Exception as error:
        # pyarrow's, and what it lets through: columns of several types, objects without keys
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{shown}: Parquet can't hold these rows ({reason}): use cache_type jsonl"
        ) from None


def encodable(value: Any) -> Any:
    """`value` with halves of surrogate pairs, which Parquet can't hold, written as text."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [encodable(item) for item in value]
    if isinstance(value, dict):
        return {encodable(name): encodable(item) for name, item in value.items()}
    return value


def parquet_rows(path: str, at_once: int) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as they are there, `at_once` in memory, or fewer.

    Raises InputError, MissingExtra, OSError.
    """
    with parquet_file(path) as file:
        batch_size = min(at_once, _rows_that_fit(file.metadata))
        for batch in file.iter_batches(batch_size=max(1, batch_size)):
            yield from batch.to_pylist()


def _rows_that_fit(metadata: Any) -> int:
    """How many rows a file's sizes say that there is room for in memory.

    A text that stands in a dictionary may be in each of them.
    """
    row_bytes = 0
    dictionary_bytes = 0
    for group_number in range(metadata.num_row_groups):
        group = metadata.row_group(group_number)
        row_bytes = max(row_bytes, group.total_byte_size // max(1, group.num_rows))
        for column_number in range(group.num_columns):
            column = group.column(column_number)
            if column.has_dictionary_page:
                dictionary_bytes = max(dictionary_bytes, column.total_uncompressed_size)
    return min(ROWS_BYTES // max(1, row_bytes), REPEATED_BYTES // max(1, dictionary_bytes))


@contextmanager
def parquet_file(path: str) -> Iterator[Any]:
    """A Parquet file, opened so that it is never in memory as a whole.

    Raises InputError, MissingExtra, OSError.
    """
    with needs_extra("Parquet", "parquet"):
        import pyarrow.parquet
    try:
        with system_errors(path), _parquet_source(path) as source:
            yield pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
    except MemoryError:
        raise InputError(f"can't read {path}: {NO_MEMORY}") from None
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None


def _parquet_source(path: str) -> AbstractContextManager[Any]:
    """What pyarrow opens: a path, or a file that is read from elsewhere."""
    if is_elsewhere(path):
        return open_file(path)
    return nullcontext(plain_path(path))


def holds_bytes(path: str) -> bool:
    """Whether a Parquet file has a column of bytes, or of `{bytes, path}`.

    Raises InputError, MissingExtra.
    """
    with told_as(InputError, f"can't read {path}"), parquet_file(path) as file:
        return any("binary" in str(column_type) for column_type in file.schema_arrow.types)
