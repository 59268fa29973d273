"""Reading Parquet files a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataflow_grounding.errors import InputError, MissingExtra


def parquet_rows(path: str, at_once: int) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as they are there, `at_once` in memory. Raises InputError, MissingExtra, OSError."""
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=at_once):
            yield from batch.to_pylist()


@contextmanager
def parquet_file(path: str) -> Iterator[Any]:
    """A Parquet file, opened so that it is never in memory as a whole. Raises InputError, MissingExtra, OSError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("Parquet", "parquet") from None
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None
