"""What a decision calls its picture: its content, and where that isn't known the path as stated.

A decision keeps the first digits of its picture's SHA-256, so that it holds wherever the picture
is. With its phrase, or its phrase and corners, that names a phrase or a box.
"""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.errors import GroundingError, RecordError
from dataflow_grounding.data.records import JsonObject, Record, path_of
from dataflow_grounding.images.files import read_file
from dataflow_grounding.images.image import ImageFile, waits
from dataflow_grounding.review._record_view import file_of_picture


class PictureName(NamedTuple):
    """What is known of a picture when somebody decides on it; None for what isn't known."""

    path: str | None = None  # a digest of the path that its row states, which may have a key in it
    digest: str | None = None
    size: int | None = None

    @classmethod
    def of_line(cls, line: JsonObject) -> "PictureName":
        """Return what a line of the file of decisions says; what it says wrongly is None."""
        stated = line.get("picture")
        if not isinstance(stated, dict):
            return cls()
        path, digest, size = stated.get("path"), stated.get("digest"), stated.get("size")
        return cls(
            path if isinstance(path, str) else None,
            digest if isinstance(digest, str) else None,
            size if isinstance(size, int) else None,
        )

    @classmethod
    def of_record(cls, record: Record) -> "PictureName":
        stated = path_of(record) or str(record.image_id or "")
        picture = cls(short_digest(stated))
        file = _file_of(record)
        if file is not None:
            with suppress(RecordError):
                picture = picture._replace(digest=file_digest(file), size=file.file_bytes)
        return picture

    @property
    def name(self) -> str:
        return f"path {self.path}" if self.digest is None else f"sha256 {self.digest}"

    def to_json(self) -> dict[str, str | int]:
        return {name: value for name, value in self._asdict().items() if value is not None}


def names_of(record: Record, sizes: Collection[int | None]) -> list[str]:
    """Return the names that decisions may have for a record's picture; `sizes` are of theirs."""
    names = [PictureName(short_digest(path_of(record) or str(record.image_id or ""))).name]
    file = _file_of(record)
    # Reading takes time. Only if a picture of as many bytes was decided on can it be this one.
    if file is not None and file.file_bytes in sizes:
        with suppress(RecordError):
            names.append(PictureName(digest=file_digest(file)).name)
    return names


def _file_of(record: Record) -> ImageFile | None:
    path = path_of(record)
    if not path or waits(path, record.folders):  # not on this machine: a store would be asked
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
