"""The pictures of an export: copied upright, linked, or left where they are.

Many trainers ignore the orientation that EXIF states: a picture that is turned goes out upright or
not at all.
"""

import io
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, ImageMissing, InputError
from dataflow_grounding._util.files import new_file, portable
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import name_within, path_of, stated_size
from dataflow_grounding.extras.formats._pictures_ahead import Pictures
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.images.files import Header, decode

Images: TypeAlias = Literal["copy", "link", "reference"]
FOLDER = "images"
_SAVED: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True},
}


class Picture(NamedTuple):
    """A picture as its record names it, its upright width and height; path and header where it
    isn't left there.
    """

    given: str
    size: Size
    path: str = ""
    header: Header | None = None


class ExportPictures:
    """Puts the pictures of records into an export's folder, or says where they are.

    Args:
        out: The folder.
        images: `copy` copies each picture, upright; `link` links to it, and copies those that EXIF
            turns; `reference` leaves it where it is and refuses those.
        folders: Where relative paths are looked for, in this order.
        packs: Whether the format puts them into its own files, so that none is needed in the
            folder.

    `missing` counts the pictures that are referenced though they aren't there. Raises InputError
    where pictures that the format packs are only referenced.
    """

    def __init__(
        self, out: ExportFolder, images: Images, folders: Sequence[str], packs: bool
    ) -> None:
        if packs and images == "reference":
            raise InputError("the pictures are in this format's files: copy or link them")
        self._out, self._images, self._folders, self._packs = out, images, tuple(folders), packs
        self._pictures = Pictures(folders, packs)
        self._goes = (
            f"{out.path}{os.sep}"
            if images != "copy" and not packs and os.path.isdir(out.path)
            else ""
        )
        self._paths: dict[int, int] = {}  # name → path, as hashes: there may be millions
        self.missing = 0

    def ahead(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The records, whose pictures are looked for before they come."""
        return self._pictures.ahead(records, path_of)

    def find(self, record: Mapping[str, object]) -> Picture:
        """The record's picture. Raises RecordError: it isn't there, is broken or turned, or is of
        another size; InputError: it would go with the export that is replaced.
        """
        given, stated = path_of(record), stated_size(record)
        try:
            path, header = self._pictures.find(given, "image_path")
        except ImageMissing:
            if self._images != "reference" or stated is None:
                raise
            self.missing += 1
            return Picture(given, stated)
        if stated not in (None, header.size):
            raise BrokenRow(
                f"{given!r} has {header.size} pixels, but the record is about a picture of {stated}"
            )
        if self._goes and not is_elsewhere(path):
            folder = os.path.dirname(path)  # a link that goes is lost too, wherever it leads
            if any(
                one.startswith(self._goes)
                for one in (os.path.realpath(folder) + os.sep, os.path.realpath(path))
            ):
                raise InputError(
                    f"{given!r} is in the export that would be replaced: copy it, or name another"
                    " place"
                )
        if self._images == "reference":
            if header.orientation != 1:
                raise BrokenRow(
                    f"{given!r} is turned by its EXIF, which trainers ignore: copy the pictures"
                )
            return Picture(given, header.size)
        return Picture(given, header.size, path, header)

    def put(self, picture: Picture) -> str:
        """The picture's file name in the export, where it now is, the same in every export. Raises
        as `data`.
        """
        given, _, path, header = picture
        if header is None:
            return given
        ending = os.path.splitext(given)[1]
        stem = name_within(given, self._folders[0] if self._folders else None).removeprefix(
            f"{FOLDER}/"
        )
        name, number = portable(f"{FOLDER}/{stem}{ending}"), 1
        while self._paths.setdefault(hash(_as_one(name)), hash(given)) != hash(given):
            # each path has its own name
            number += 1
            name = portable(f"{FOLDER}/{stem}~{number}{ending}")
        if self._packs or os.path.lexists(target := self._out.place(name)):
            return name
        if header.orientation != 1 or is_elsewhere(path):
            with new_file(target) as file:
                file.write(self.data(picture))
        elif self._images == "link":
            os.symlink(os.path.abspath(path), target)
        else:
            with new_file(target) as file, open(path, "rb") as given_file:
                shutil.copyfileobj(given_file, file, 2**20)
        return name

    def data(self, picture: Picture) -> bytes:
        """What is in the picture's file, or would be if it were upright. Raises RecordError,
        OSError.
        """
        if picture.header is None or picture.header.orientation == 1:
            return self._pictures.read(picture.path)
        kind, upright = picture.header.media_type.partition("/")[2], io.BytesIO()
        decode(picture.path).save(upright, kind, **_SAVED.get(kind, {}))
        return upright.getvalue()

    def described(self) -> str:
        """Where the pictures are, in a sentence."""
        if self._images == "reference":
            return (
                "Paths of pictures are relative to"
                f" {self._folders[0] if self._folders else 'where they were'}."
            )
        return (
            f"Pictures are in {FOLDER}/,"
            f" upright{', most of them links' * (self._images == 'link')}."
        )


def _as_one(name: str) -> str:
    """What names have alike that are one file on some system: A.jpg and a.jpg, and an é of one sign
    and of two.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
