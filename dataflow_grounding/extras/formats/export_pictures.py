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
    """A picture as its record names it, with its upright width and height.

    Path and header are those of its file, where it isn't left there.
    """

    name: str
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

    `missing` counts the pictures that are referenced though they aren't there.

    Raises:
        InputError: Pictures that the format packs are only referenced.
    """

    def __init__(
        self, out: ExportFolder, images: Images, folders: Sequence[str], packs: bool
    ) -> None:
        if packs and images == "reference":
            raise InputError("the pictures are in this format's files: copy or link them")
        self._out = out
        self._images = images
        self._folders = tuple(folders)
        self._packs = packs
        self._pictures = Pictures(folders, packs)
        self._replaced = ""  # the folder whose pictures would go with the export that was there
        if images != "copy" and not packs and os.path.isdir(out.path):
            self._replaced = f"{out.path}{os.sep}"
        self._paths: dict[int, int] = {}  # name → path, as hashes: there may be millions
        self.missing = 0

    def ahead(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The records, whose pictures are looked for before they come."""
        return self._pictures.ahead(records, path_of)

    def find(self, record: Mapping[str, object]) -> Picture:
        """The record's picture.

        Raises RecordError: it isn't there, is broken or turned, or is of another size; InputError:
        it would go with the export that is replaced.
        """
        name = path_of(record)
        stated = stated_size(record)
        try:
            path, header = self._pictures.find(name, "image_path")
        except ImageMissing:
            if self._images != "reference" or stated is None:
                raise
            self.missing += 1
            return Picture(name, stated)
        if stated not in (None, header.size):
            raise BrokenRow(
                f"{name!r} has {header.size} pixels, but the record is about a picture of {stated}"
            )
        if self._is_replaced(path):
            raise InputError(
                f"{name!r} is in the export that would be replaced: copy it, or name another place"
            )
        if self._images != "reference":
            return Picture(name, header.size, path, header)
        if header.orientation != 1:
            raise BrokenRow(
                f"{name!r} is turned by its EXIF, which trainers ignore: copy the pictures"
            )
        return Picture(name, header.size)

    def _is_replaced(self, path: str) -> bool:
        """Whether a picture would go with the export that is replaced."""
        if not self._replaced or is_elsewhere(path):
            return False
        # A link that goes is lost too, wherever it leads: the folder that it is in counts as well.
        folder = os.path.realpath(os.path.dirname(path)) + os.sep
        return folder.startswith(self._replaced) or os.path.realpath(path).startswith(
            self._replaced
        )

    def put(self, picture: Picture) -> str:
        """The picture's file name in the export, where it now is, the same in every export.

        Raises as `data`.
        """
        header = picture.header
        if header is None:
            return picture.name
        name = self._name_in_export(picture.name)
        if self._packs:
            return name
        target = self._out.place(name)
        if os.path.lexists(target):
            return name
        if header.orientation != 1 or is_elsewhere(picture.path):
            with new_file(target) as file:
                file.write(self.data(picture))
        elif self._images == "link":
            os.symlink(os.path.abspath(picture.path), target)
        else:
            with new_file(target) as file, open(picture.path, "rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        return name

    def _name_in_export(self, path: str) -> str:
        """A name for the picture at a path, as its record has it: each path has its own."""
        ending = os.path.splitext(path)[1]
        folder = self._folders[0] if self._folders else None
        stem = name_within(path, folder).removeprefix(f"{FOLDER}/")
        name = portable(f"{FOLDER}/{stem}{ending}")
        number = 1
        while self._paths.setdefault(hash(_same_file(name)), hash(path)) != hash(path):
            number += 1
            name = portable(f"{FOLDER}/{stem}~{number}{ending}")
        return name

    def data(self, picture: Picture) -> bytes:
        """What is in the picture's file, or would be if it were upright.

        Raises RecordError, OSError.
        """
        if picture.header is None or picture.header.orientation == 1:
            return self._pictures.read(picture.path)
        file_type = picture.header.media_type.partition("/")[2]
        upright = io.BytesIO()
        decode(picture.path).save(upright, file_type, **_SAVED.get(file_type, {}))
        return upright.getvalue()

    def described(self) -> str:
        """Where the pictures are, in a sentence."""
        if self._images == "reference":
            start = self._folders[0] if self._folders else "where they were"
            return f"Paths of pictures are relative to {start}."
        links = ", most of them links" if self._images == "link" else ""
        return f"Pictures are in {FOLDER}/, upright{links}."


def _same_file(name: str) -> str:
    """What names have in common that are one file on some system.

    So are A.jpg and a.jpg, and an é of one sign and of two.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
