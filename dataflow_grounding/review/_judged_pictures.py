"""Which pictures were decided on, by their content, and which of them a row shows.

A decision keeps the first digits of its picture's SHA-256. Where the content isn't known, as the
file isn't on this machine, the path that the row states tells the picture.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.errors import GroundingError, RecordError
from dataflow_grounding.data.records import Record, path_of
from dataflow_grounding.images.files import read_file
from dataflow_grounding.images.image import ImageFile, file_at
from dataflow_grounding.review._record_view import path_of_picture


class JudgedPicture(NamedTuple):
    """A picture as it was when somebody decided on it; None for what isn't known.

    Attributes:
        file: Its file's name, without folders.
        path: A digest of the path that its row states, as a path may have a key in it.
        digest: The first digits of its SHA-256.
        size: Its bytes.
    """

    file: str | None = None
    path: str | None = None
    digest: str | None = None
    size: int | None = None

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "JudgedPicture":
        """Return what a line of the file of decisions says; what it says wrongly is None."""
        stated = line.get("picture")
        if not isinstance(stated, dict):
            return cls()
        kinds = {"file": str, "path": str, "digest": str, "size": int}
        return cls(
            **{
                name: stated[name]
                for name, kind in kinds.items()
                if isinstance(stated.get(name), kind)
            }
        )

    @classmethod
    def of_record(cls, record: Record) -> "JudgedPicture":
        """Return what a decision on a record keeps of its picture."""
        stated = path_of(record)
        if not stated:
            return cls()
        picture = cls(file_name(stated), short_digest(stated))
        file = _file_of(record)
        if file is None:
            return picture
        with suppress(RecordError):
            picture = picture._replace(digest=file_digest(file), size=file.file_bytes)
        return picture

    def stated(self, key: str) -> str:
        """Return what the row of the record `key` calls the picture."""
        if self.path is not None:
            return f"path {self.path}"
        if self.file is not None:  # earlier versions didn't keep the path
            return f"file {key} {self.file}"
        return f"record {key}"  # nor the picture

    def to_json(self) -> dict[str, Any]:
        """Return what a line of the file of decisions has, under `picture`."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class DecidedPictures:
    """The pictures that decisions are of."""

    def __init__(self) -> None:
        # By what a row may call a picture: the names under which decisions on it are kept.
        self._names = defaultdict[str, dict[str, None]](dict)
        self._sizes: set[int] = set()

    def take(self, key: str, picture: JudgedPicture) -> str:
        """Add the picture of a decision on the record `key`; return the name of the picture.

        The name is made of the content where that is known.
        """
        stated = picture.stated(key)
        name = stated if picture.digest is None else _by_content(picture.digest)
        self._names[stated][name] = None
        if picture.size is not None:
            self._sizes.add(picture.size)
        return name

    def names_of(self, record: Record, key: str) -> list[str]:
        """Return the names under which decisions on a record's picture may be kept.

        Its content tells. A file is read only if a picture of its size was decided on.
        """
        path = path_of(record)
        called = [f"record {key}"]
        if path:
            called = [f"path {short_digest(path)}", f"file {key} {file_name(path)}", *called]
        stated = [name for call in called for name in self._names.get(call, ())]
        file = _file_of(record) if stated or self._sizes else None
        if file is None:
            return stated
        content_unknown = [name for name in stated if not name.startswith(_by_content(""))]
        if file.file_bytes in self._sizes:
            with suppress(RecordError):
                return [_by_content(file_digest(file)), *content_unknown]
        return content_unknown


def _by_content(digest: str) -> str:
    return f"sha256 {digest}"


def _file_of(record: Record) -> ImageFile | None:
    if any(map(is_remote, (path_of(record), *record.folders))):
        return None
    try:
        return file_at(path_of_picture(record))
    except (GroundingError, OSError):
        return None


@lru_cache(1 << 16)
def file_digest(file: ImageFile) -> str:
    """Return 16 digits of the SHA-256 of a picture's file in this state.

    Raises ImageBroken, ImageMissing, MachineBusy: also for what is no file, and may have no end.
    """
    return hashlib.sha256(read_file(file.path)).hexdigest()[:16]


def whole_digest(path: str) -> str:
    """Return the SHA-256 of a file's bytes in hex. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_digest(text: str) -> str:
    """Return the first 16 digits of a text's SHA-256, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_name(path: str) -> str:
    """Return the name of a picture's file, without folders."""
    return path.replace("\\", "/").rpartition("/")[2]
