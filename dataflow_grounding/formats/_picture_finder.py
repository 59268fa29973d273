"""Find the pictures that rows name, and read their headers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import Header, read_header
from dataflow_grounding.images.image import find_image


class FoundPicture(NamedTuple):
    """Where a picture is, and its header."""

    path: str
    header: Header


class PictureFinder:
    """Finds pictures: relative paths in `folders`, in this order; absolute ones where they are."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)

    def find(self, name: Any, key: str) -> FoundPicture:
        """Return where a picture is, with its header.

        Args:
            name: What a row calls the picture: a path, or an address of storage that rows may name.
            key: The row's column that has the name, for the error.

        Raises:
            RecordError: The picture isn't there, or its header can't be read.
        """
        path = find_image(Record({key: name}, self._folders), key).path
        return FoundPicture(path, read_header(path))
