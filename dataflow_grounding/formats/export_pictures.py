"""The pictures of an export: copied upright, linked, or left where they are.

Many trainers ignore the orientation that EXIF states: a picture that is turned goes out upright or
not at all. Labelling tools show it upright: they get it as it is, too, where it is.
"""

import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import BrokenRow, ImageMissing, InputError
from dataflow_grounding._util.files import new_file, portable
from dataflow_grounding._util.paths import is_absolute, path_within
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.regions import labels_as_stored, without_tag
from dataflow_grounding.data.records import (
    name_within,
    path_of,
    stated_size,
)
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.images.files import Header, decode, read_file, read_header
from dataflow_grounding.images.image import find_file

Images: TypeAlias = Literal["copy", "link", "reference"]
FOLDER = "images"  # of an export, with its pictures
_SAVE_SETTINGS: dict[str, dict[str, Any]] = {  # Pillow's, by file type, to lose next to nothing
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True},
}


class Picture(NamedTuple):
    """A picture as its record names it, with its width and height as it is upright."""

    name: str
    size: Size
    path: str = ""  # of the file to copy, link or pack; "" for a picture that is only referenced
    header: Header | None = None


def _other_size(name: str, stated: Size, header: Header, file: str) -> BrokenRow:
    """Return the error for a record that states another size than its picture's."""
    if stated == header.stored_size:  # that is before EXIF turns it
        return BrokenRow(f"{labels_as_stored(name, stated)}: {without_tag(file)}")
    return BrokenRow(
        f"{name!r} has {header.size} pixels, but the record is about a picture of {stated}"
    )


class ExportPictures:
    """Puts the pictures of records into an export's folder, or says where they are.

    `images` says how:

    - `copy`: each picture is copied, upright
    - `link`: it is linked to; a picture that EXIF turns is copied
    - `reference`: it stays where it is; one that EXIF turns is refused, unless `shows_upright` says
      that the export's readers turn pictures upright

    With `packs` the format puts pictures into its own files. With `flat` all of them are in one
    folder, and a/x.jpg is called a_x.jpg there.
    """

    def __init__(
        self,
        out: ExportFolder,
        images: Images,
        folders: Sequence[str],
        packs: bool,
        flat: bool = False,
        shows_upright: bool = False,
    ) -> None:
        if packs and images == "reference":
            raise InputError("the pictures are in this format's files: copy or link them")
        self._out = out
        self._images = images
        self._folders = tuple(folders)
        self._packs = packs
        self._flat = flat
        self._shows_upright = shows_upright
        # The folder of an earlier export, which will be removed: pictures in it can't be linked or
        # referenced. It ends in a separator. "" where there is none, or pictures are copied.
        self._replaced_folder = ""
        are_copied = images == "copy" or packs
        if not are_copied and os.path.isdir(out.path):
            self._replaced_folder = f"{out.path}{os.sep}"
        # name in the export → path in the records, as hashes: there may be millions
        self._path_of_name: dict[int, int] = {}
        self.missing = 0  # referenced pictures that aren't there

    def find(self, record: Mapping[str, object]) -> Picture:
        """Return the record's picture; one that is only referenced may be `missing`."""
        name = self.name_of(record)
        stated = stated_size(record)
        try:
            path = find_file(path_of(record), self._folders, "image_path").path
            header = read_header(path)
        except ImageMissing:
            # A reference needs no file if the record states the size.
            if self._images == "reference" and stated is not None:
                self.missing += 1
                return Picture(name, stated)
            raise
        if stated is not None and stated != header.size:
            raise _other_size(name, stated, header, path)
        self._refuse_replaced(name, path)
        if self._images != "reference":
            return Picture(name, header.size, path, header)
        if header.orientation != 1 and not self._shows_upright:
            raise BrokenRow(
                f"{name!r} is turned by its EXIF, which trainers ignore: copy the pictures"
            )
        return Picture(name, header.size)

    def name_of(self, record: Mapping[str, object]) -> str:
        """Return the picture's path in the first folder that it is in, else as it is."""
        path = path_of(record)
        if is_web(path):
            return path
        if not is_absolute(path):
            return os.path.normpath(path)
        for folder in self._folders:
            inside = path_within(path, folder or os.curdir)
            if inside:
                return inside
        return path

    def _refuse_replaced(self, name: str, path: str) -> None:
        """Raise InputError for a picture, or a link, in the export that will be replaced."""
        if not self._replaced_folder or not os.path.lexists(path):
            return
        own_folder = os.path.realpath(os.path.dirname(path)) + os.sep
        path_of_target = os.path.realpath(path)  # where `path` leads, if it is a link
        if any(place.startswith(self._replaced_folder) for place in (own_folder, path_of_target)):
            raise InputError(
                f"{name!r} is in the export that would be replaced: copy it, or name another place"
            )

    def put(self, picture: Picture) -> str:
        """Copy or link a picture into the export, if it isn't there; return its file name there.

        The name is the same in every export of the same records.
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
        is_upright = header.orientation == 1  # a turned picture is copied even for `link`
        is_on_disk = os.path.exists(picture.path)  # and not in a store, to which no link leads
        if self._images == "link" and is_upright and is_on_disk:
            os.symlink(os.path.abspath(picture.path), target)
        else:
            with new_file(target) as file:
                file.write(self.data(picture))
        return name

    def name_in_folder(self, file_name: str) -> str:
        """Return a file name of `put` relative to the folder of pictures, if there is one."""
        return file_name if self._images == "reference" else file_name.removeprefix(f"{FOLDER}/")

    def _name_in_export(self, path: str) -> str:
        """Return images/a/x.jpg for /data/images/a/x.jpg of the folder /data; `flat` makes a_x.jpg.

        Where another path has that name, `~2` and so on comes before the ending.
        """
        ending = os.path.splitext(path)[1]
        folder = self._folders[0] if self._folders else None
        stem = name_within(path, folder).removeprefix(f"{FOLDER}/")  # a/x, without the ending
        if self._flat:
            stem = stem.replace("/", "_")
        name = portable(f"{FOLDER}/{stem}{ending}")
        number = 1
        while not self._claim(name, path):
            number += 1
            name = portable(f"{FOLDER}/{stem}~{number}{ending}")
        return name

    def _claim(self, name: str, path: str) -> bool:
        """Give a name in the export to a path; return False where another path has it.

        Names count as the same if they are one file for some systems: A.jpg and a.jpg, or an é of
        one code point and of two.
        """
        in_lower_case = unicodedata.normalize("NFC", name).casefold()
        key = hash(unicodedata.normalize("NFC", in_lower_case))  # casefold may take letters apart
        owner = self._path_of_name.setdefault(key, hash(path))
        return owner == hash(path)

    def data(self, picture: Picture) -> bytes:
        """Return the bytes of the picture's file, saved upright if EXIF turns it."""
        if picture.header is None or picture.header.orientation == 1:
            return read_file(picture.path)
        file_type = picture.header.media_type.partition("/")[2]
        upright = io.BytesIO()
        decode(picture.path).save(upright, file_type, **_SAVE_SETTINGS.get(file_type, {}))
        return upright.getvalue()

    def described(self, parts: Sequence[str] = ()) -> str:
        if self._images == "reference":
            start = self._folders[0] if self._folders else "where they were"
            return f"Paths of pictures are relative to {start}."
        links = ", most of them links" if self._images == "link" else ""
        folders = [f"{part}/{FOLDER}/" for part in parts] or [f"{FOLDER}/"]
        return f"Pictures are in {', '.join(folders)}, upright{links}."
