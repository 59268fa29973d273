"""Whether a row's picture is the one that a decision was made on.

A decision keeps the name of the picture's file and, of a picture on this machine, its content. An
id doesn't tell: `a.png` may have been called `a` before there was an `a.jpg`, and a camera gives
its names again.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from dataflow_grounding._util.addresses import is_elsewhere
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.data.records import Record, path_of
from dataflow_grounding.images.image import find_image

DIGITS = 16  # of a picture's SHA-256 that are kept, as many as of a row's
T = TypeVar("T")


def value_of(line: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """Return what a line of the file of decisions says under a name; None if it isn't a `kind`."""
    value = line.get(name)
    return value if isinstance(value, kind) else None


class JudgedPicture(NamedTuple):
    """A picture as it was when somebody decided on it; None for what isn't known.

    Attributes:
        file: Its file's name, without folders.
        digest: The first digits of its SHA-256.
        size: Its bytes.
        changed: When it was changed last, in nanoseconds, as the file system says.
    """

    file: str | None = None
    digest: str | None = None
    size: int | None = None
    changed: int | None = None

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "JudgedPicture":
        """Return what a line of the file of decisions says; what it says wrongly is None."""
        stated = line.get("picture")
        if not isinstance(stated, dict):
            return cls()
        return cls(
            value_of(stated, "file", str),
            value_of(stated, "digest", str),
            value_of(stated, "size", int),
            value_of(stated, "changed", int),
        )

    @classmethod
    def of_record(cls, record: Record, column: str) -> "JudgedPicture":
        """Return what a decision on a record keeps of its picture, whose path is in a column.

        That is the file's name alone where the file isn't on this machine or can't be read.
        """
        file = file_name(path_of(record))
        path = path_here(path_of(record), record.folders, column)
        if path is not None:
            with suppress(OSError):
                status = os.stat(path)
                return cls(file, file_digest(path)[:DIGITS], status.st_size, status.st_mtime_ns)
        return cls(file)

    def to_json(self) -> dict[str, Any]:
        """Return what a line of the file of decisions has, under `picture`."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def may_be(self, name: str, path: str | None) -> bool:
        """Return whether a picture may be this one.

        Where the contents of both are known, they decide. Else a picture of another ending is
        another one, and any of the same ending may be this one, under a new name.

        Args:
            name: The path of the picture, as its row states it.
            path: Where its file is on this machine; None where it isn't.
        """
        has_this_content = None
        if path is not None and self.digest is not None:
            has_this_content = self._is_content_of(path)
        if has_this_content is not None:
            return has_this_content
        return self.file is None or _ending(self.file) == _ending(name)

    def _is_content_of(self, path: str) -> bool | None:
        """Return whether a file has this content, by its size, then its time or its digest.

        None where it can't be read.
        """
        try:
            status = os.stat(path)
            if status.st_size != self.size:
                return False
            # A file that nobody changed since isn't read again.
            return status.st_mtime_ns == self.changed or file_digest(path)[:DIGITS] == self.digest
        except OSError:
            return None


def path_here(name: str, folders: Sequence[str], column: str) -> str | None:
    """Return the path of a picture's file on this machine; None where it isn't there, or elsewhere.

    None, too, where one of the folders is elsewhere.

    Args:
        name: The picture's path, as its row states it.
        folders: Where a relative path is looked for.
        column: The row's column that has it.
    """
    if not name or is_elsewhere(name) or any(is_elsewhere(folder) for folder in folders):
        return None
    with suppress(GroundingError):
        return find_image(Record({column: name}, tuple(folders)), column).path
    return None


def file_name(path: str) -> str:
    """Return the name of a picture's file, without folders."""
    return path.replace("\\", "/").rpartition("/")[2]


def _ending(path: str) -> str:
    """Return the ending of a file's name in lower case, with its dot; "" without one."""
    return os.path.splitext(path)[1].lower()


def file_digest(path: str) -> str:
    """Return the SHA-256 of a file's bytes in hex. Raises OSError."""
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
