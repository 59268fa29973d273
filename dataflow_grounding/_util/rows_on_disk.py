"""Rows in a temporary file, read back one by one."""

import marshal
import tempfile
import threading
from array import array
from collections.abc import Iterator
from typing import Any

from dataflow_grounding._util.errors import InputError, errors_as

_IN_MEMORY = 8 * 2**20  # bytes: fewer never reach the disk


class RowsOnDisk:
    """A list of rows, of JSON's types, in a nameless temporary file; any thread may read it."""

    def __init__(self) -> None:
        # In memory until it is larger than that.
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed with this object
        self._reading = threading.Lock()  # reading moves the file's position
        # the offset at which each row begins, and the end of the last
        self._begins = array("Q", [0])

    def append(self, row: dict[str, Any]) -> None:
        data = marshal.dumps(row)  # it nests deeper than `pickle`; JSON's types are enough
        folder = tempfile.gettempdir()
        with errors_as(InputError, f"can't write to {folder} (TMPDIR names another folder)"):
            self._file.seek(self._begins[-1])
            self._file.write(data)
        self._begins.append(self._begins[-1] + len(data))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        begin = self._begins[index]
        end = self._begins[index + 1]
        with self._reading, errors_as(InputError, f"can't read from {tempfile.gettempdir()}"):
            self._file.seek(begin)
            row: dict[str, Any] = marshal.loads(self._file.read(end - begin))
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self)):
            yield self[index]
