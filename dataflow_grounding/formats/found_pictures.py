"""Finds the pictures of other tools' files, which may name them a little differently."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.paths import joined
from dataflow_grounding._util.stores import files_in
from dataflow_grounding.data.records import Update, path_of
from dataflow_grounding.formats.imported import COLUMN
from dataflow_grounding.formats.stated_twice import CountedPlaces
from dataflow_grounding.images.files import ENDINGS

# Where tools put the pictures of their file: next to it; supervision and CVAT in images/ (CVAT's
# COCO in that of its subset), FiftyOne in data/, VOC's devkit in JPEGImages/.
_FOLDERS = ("", "images", "images/default", "data", "JPEGImages")
_RENAMED = "pictures whose names differ in the case of letters or Unicode's form"
_OF_FILES = "annotations"  # a folder for files alone: the pictures' is next to it, not in it


class PictureFinder:
    """Finds pictures in the image root, in the folder of the file, and where tools put them."""

    def __init__(self, image_root: str, folder: str = "") -> None:
        self._image_root = image_root
        # Labels of this machine are read without the store that their pictures are in.
        self._in_stores = bool(folder) and is_remote(folder)
        self._names_of_folder: dict[str, set[str]] = {}  # of folders in stores
        self._subfolders = _subfolders_of(image_root)  # all of them from the image root
        # From an image root in a store, no path leads to this machine, nor the other way round.
        if folder and is_remote(folder) == is_remote(image_root):
            from_root = os.path.relpath(folder, image_root)
            if from_root != os.curdir:
                own = [os.path.join(from_root, name) for name in _subfolders_of(folder)]
                self._subfolders += own

    def find(self, *names: str) -> str:
        """Return the path from the image root of the first of these names that has a picture.

        A name may have / for \\, as Windows writes paths, and lack its ending. If none is there, a
        picture is taken whose name differs only in the case of letters or in Unicode's form, unless
        there are several. "" if none is found.
        """
        for name in names:
            for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
                for subfolder in self._subfolders:
                    found = self._at(os.path.join(subfolder, spelling))
                    if found:
                        return found
        for name in names:
            for subfolder in self._subfolders:
                path = os.path.join(subfolder, name.replace("\\", "/"))
                parent, last = os.path.split(path)
                alike = _names_byname_key(joined(self._image_root, parent)).get(name_key(last), [])
                if len(alike) == 1:
                    return os.path.join(parent, alike[0])
        return ""

    def shortest(self, *names: str) -> str:
        """Return what `find` does, without `..` that leads back into the image root."""
        found = self.find(*names)
        if not found or os.path.isabs(found):
            return found
        return os.path.relpath(os.path.join(self._image_root, found), self._image_root)

    def _at(self, path: str) -> str:
        """Return a path that has a picture, or the one with an ending, which it may lack."""
        if self._has(joined(self._image_root, path)):
            return path
        if path.lower().endswith(ENDINGS):
            return ""
        paths = [path + ending for ending in ENDINGS]
        found = [each for each in paths if self._has(joined(self._image_root, each))]
        return found[0] if len(found) == 1 else ""  # of several, nothing says which one is meant

    def _has(self, path: str) -> bool:
        if not is_remote(path):
            return os.path.isfile(path)
        if not self._in_stores:
            return False
        folder, _, name = path.rpartition("/")
        folder = joined(folder, "")  # without `..`, which stores don't follow
        if folder not in self._names_of_folder:
            self._names_of_folder[folder] = files_in(folder)
        return name in self._names_of_folder[folder]


def with_found_pictures(
    rows: Iterable[Update], folder: str, remarks: list[str]
) -> Iterator[Update]:
    """Yield rows with the paths at which their pictures are, from `folder`."""
    finder = PictureFinder(folder)
    renamed = CountedPlaces()
    for row in rows:
        stated = path_of(row)
        is_here = bool(stated) and "://" not in stated and not is_remote(folder)
        found = finder.find(stated) if is_here else ""
        if found and found != stated:
            _set_path(row, stated, found)
            # `in`, because the stated path may be Windows': "a\\b.jpg" has the name "b.jpg" in it.
            name = os.path.basename(found)
            if not stated.lower().endswith(ENDINGS):  # it lacks its ending
                name, _ = os.path.splitext(name)
            if name not in stated:
                renamed.add(_RENAMED, f"{stated}, which is {found}")
        yield row
    remarks += renamed.remarks()


def _subfolders_of(folder: str) -> list[str]:
    """Return where pictures may be, relative to `folder`; those of this machine that exist."""
    subfolders = list(_FOLDERS)
    if os.path.basename(os.path.abspath(folder)).lower() == _OF_FILES:
        subfolders += [f"../{name}" for name in _FOLDERS if name]
    if is_remote(folder):
        return subfolders
    return [name for name in subfolders if os.path.isdir(joined(folder, name))]


def _set_path(row: Update, stated: str, found: str) -> None:
    for key in ("image_path", "image"):
        if row.get(key) == stated:
            row[key] = found
    own = row.get(COLUMN)
    # An export compares this path with the record's, to see whether the picture has a new name.
    if isinstance(own, Mapping) and own.get("picture") == stated:
        row[COLUMN] = {**own, "picture": found}


@lru_cache(maxsize=8)
def _names_byname_key(folder: str) -> dict[str, list[str]]:
    """Return the names in a folder, by their key: "a.jpg" and "A.JPG" have the same."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # the latter for a name that no folder can have
        return {}
    names_by_key: dict[str, list[str]] = {}
    for name in names:
        names_by_key.setdefault(name_key(name), []).append(name)
    return names_by_key


def name_key(name: str) -> str:
    """Return what two names have in common that differ in the case of letters or Unicode's form."""
    return unicodedata.normalize("NFC", name).lower()
