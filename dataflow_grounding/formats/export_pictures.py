"""The pictures of an export: copied upright, linked, or left where they are.

Many trainers ignore the orientation that EXIF states: a picture that is turned goes out upright or not at all.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from dataflow_grounding.elsewhere import is_elsewhere
from dataflow_grounding.errors import BrokenRow, ImageMissing
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.pictures_ahead import Pictures
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import Header, decode, read_file
from dataflow_grounding.records import name_within, path_of, stated_size

Images: TypeAlias = Literal["copy", "link", "reference"]
FOLDER = "images"
_QUALITY = 95


class Picture(NamedTuple):
    """A picture as its record names it, its upright width and height; path and header where it isn't left there."""

    given: str
    size: Size
    path: str = ""
    header: Header | None = None


class ExportPictures:
    """Puts the pictures of records into an export's folder, or says where they are.

    Args:
        out: The folder.
        images: `copy` copies each picture, upright; `link` links to it, and copies those that EXIF turns; `reference`
            leaves it where it is and refuses those.
        folders: Where relative paths are looked for, in this order.

    `missing` counts the pictures that are referenced though they aren't there.
    """

    def __init__(self, out: ExportFolder, images: Images, folders: Sequence[str]) -> None:
        self._out, self._images, self._folders = out, images, tuple(folders)
        self._pictures = Pictures(folders)
        self._paths: dict[int, int] = {}  # name → path, as hashes: there may be millions
        self.missing = 0

    def ahead(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The records, whose pictures are looked for before they come."""
        return self._pictures.ahead(records, path_of)

    def find(self, record: Mapping[str, object]) -> Picture:
        """The record's picture. Raises RecordError: it isn't there, is broken or turned, or is of another size."""
        given, stated = path_of(record), stated_size(record)
        try:
            path, header = self._pictures.find(given, "image_path")
        except ImageMissing:
            if self._images != "reference" or stated is None:
                raise
            self.missing += 1
            return Picture(given, stated)
        if stated not in (None, header.size):
            raise BrokenRow(f"{given!r} has {header.size} pixels, but the record is about a picture of {stated}")
        if self._images == "reference":
            if header.orientation != 1:
                raise BrokenRow(f"{given!r} is turned by its EXIF, which trainers ignore: copy the pictures")
            return Picture(given, header.size)
        return Picture(given, header.size, path, header)

    def put(self, picture: Picture) -> str:
        """The picture's file name in the export, where it now is, the same in every export. Raises OSError."""
        given, _, path, header = picture
        if header is None:
            return given
        ending = os.path.splitext(given)[1]
        stem = name_within(given, self._folders[0] if self._folders else None).removeprefix(f"{FOLDER}/")
        name, number = f"{FOLDER}/{stem}{ending}", 1
        while self._paths.setdefault(hash(name), hash(given)) != hash(given):  # each path has a name of its own
            number += 1
            name = f"{FOLDER}/{stem}~{number}{ending}"
        target = self._out.place(name)
        if os.path.lexists(target):
            return name
        if header.orientation != 1:
            options = {"quality": _QUALITY, "subsampling": 0} if header.media_type == "image/jpeg" else {}
            decode(path).save(target, header.media_type.partition("/")[2], **options)
        elif is_elsewhere(path):
            with open(target, "wb") as file:
                file.write(read_file(path))
        elif self._images == "link":
            os.symlink(os.path.abspath(path), target)
        else:
            shutil.copyfile(path, target)
        return name

    def described(self) -> str:
        """Where the pictures are, in a sentence."""
        if self._images == "reference":
            return f"Paths of pictures are relative to {self._folders[0] if self._folders else 'where they were'}."
        return f"Pictures are in {FOLDER}/, upright{', most of them links' * (self._images == 'link')}."
