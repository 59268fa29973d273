"""Which picture was decided on, by its content, and whether a row shows it.

A decision keeps the first digits of its picture's SHA-256. Where the content isn't known, as the
file isn't on this machine, the path that the row states tells the picture.
"""

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import GroundingError, RecordError
from dataflow_grounding.data.records import Record, path_of
from dataflow_grounding.images.files import read_file
from dataflow_grounding.images.image import ImageFile, waits
from dataflow_grounding.review._record_view import file_of_picture


class JudgedPicture(NamedTuple):
    """A picture as it was when somebody decided on it; None for what isn't known."""

    path: str | None = None  # a digest of the path that its row states, which may have a key in it
    digest: str | None = None
    size: int | None = None

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "JudgedPicture":
        """Return what a line of the file of decisions says; what it says wrongly is None."""
        stated = line.get("picture")
        if not isinstance(stated, dict):
            return cls()
        # A stranger may have written the line: values of other types are left out.
        type_of_field = {"path": str, "digest": str, "size": int}
        well_typed: dict[str, Any] = {}
        for name, expected in type_of_field.items():
            if isinstance(stated.get(name), expected):
                well_typed[name] = stated[name]
        return cls(**well_typed)

    @classmethod
    def of_record(cls, record: Record) -> "JudgedPicture":
        stated = path_of(record)
        if not stated:
            return cls()
        picture = cls(short_digest(stated))
        file = _file_of(record)
        if file is None:
            return picture
        with suppress(RecordError):
            picture = picture._replace(digest=file_digest(file), size=file.file_bytes)
        return picture

    def name(self, key: str) -> str:
        """Return what tells pictures apart: the content, else the path, else the record's key."""
        if self.digest is not None:
            return f"sha256 {self.digest}"
        if self.path is not None:
            return f"path {self.path}"
        return f"record {key}"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


def names_of(record: Record, key: str, judged_sizes: Collection[int | None]) -> list[str]:
    """Return names that a picture may have by `JudgedPicture.name`, the surest first."""
    path = path_of(record)
    name_without_content = f"path {short_digest(path)}" if path else f"record {key}"
    file = _file_of(record)
    # Reading takes time. Only if a picture of as many bytes was judged can it have this content.
    if file is not None and file.file_bytes in judged_sizes:
        with suppress(RecordError):
            return [f"sha256 {file_digest(file)}", name_without_content]
    return [name_without_content]


def _file_of(record: Record) -> ImageFile | None:
    if waits(path_of(record), record.folders):  # it isn't on this machine: a store would be asked
        return None
    try:
        return file_of_picture(record)
    except GroundingError:
        return None


@lru_cache(1 << 16)
def file_digest(file: ImageFile) -> str:
    """Return 16 digits of the SHA-256 of a picture's file in this state. Raises RecordError."""
    return hashlib.sha256(read_file(file.path)).hexdigest()[:16]


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
