"""What a decision calls its picture: its content, and where that isn't known the path as stated.

A decision keeps the first digits of its picture's SHA-256, so that it holds wherever the picture
is. With its phrase, or its phrase and corners, that names a phrase or a box.
"""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.errors import GroundingError
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
    def of_record(
        cls, record: Record, sizes: Collection[int | None] | None = None
    ) -> "PictureName":
        """Return what is known of a record's picture.

        Reading takes time: with `sizes`, in bytes, a file of any other isn't read.
        """
        path = path_of(record)
        picture = cls(_short_digest(path or str(record.image_id or "")))
        if not path or waits(path, record.folders):  # not on this machine: a store would be asked
            return picture
        with suppress(GroundingError):
            file = file_of_picture(record)
            if sizes is None or file.file_bytes in sizes:
                return picture._replace(digest=_file_digest(file), size=file.file_bytes)
        return picture

    @property
    def names(self) -> list[str]:
        """What decisions may call it."""
        names = [f"path {self.path}"]
        if self.digest is not None:
            names.append(f"sha256 {self.digest}")
        return names

    @property
    def name(self) -> str:
        return self.names[-1]

    def to_json(self) -> dict[str, str | int]:
        return {name: value for name, value in self._asdict().items() if value is not None}


@lru_cache(1 << 16)
def _file_digest(file: ImageFile) -> str:
    """Return 16 digits of the SHA-256 of a picture's file in this state. Raises RecordError."""
    return hashlib.sha256(read_file(file.path)).hexdigest()[:16]


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
