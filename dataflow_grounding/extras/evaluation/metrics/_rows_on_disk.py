"""Rows in a temporary file, read back one by one: for what goes over two files of records by
picture.
"""

import pickle
import tempfile
from array import array
from collections.abc import Iterator
from typing import Any

from dataflow_grounding._util.errors import InputError, told_as

_IN_MEMORY = 8 * 2**20  # bytes: fewer never reach the disk


class RowsOnDisk:
    """Rows by their number, from 0. The file has no name, and is gone with this object or the
    process.

    Raises InputError where the temporary folder has no room.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed with this object
        self._begins = array("Q", [0])

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        data = pickle.dumps(row, pickle.HIGHEST_PROTOCOL)
        with told_as(
            InputError, f"can't write to {tempfile.gettempdir()} (TMPDIR names another folder)"
        ):
            self._file.seek(self._begins[-1])
            self._file.write(data)
        self._begins.append(self._begins[-1] + len(data))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        begin, end = self._begins[number], self._begins[number + 1]
        with told_as(InputError, f"can't read from {tempfile.gettempdir()}"):
            self._file.seek(begin)
            row: dict[str, Any] = pickle.loads(self._file.read(end - begin))
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))
