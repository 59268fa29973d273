"""Finds the pictures of other tools' files where these name them a little differently."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.paths import joined
from dataflow_grounding._util.stores import files_in
from dataflow_grounding.data.records import path_of
from dataflow_grounding.formats.imported import COLUMN
from dataflow_grounding.formats.stated_twice import CountedPlaces

# Where tools put the pictures of their file: next to it; supervision and CVAT in images/ (CVAT's
# COCO in that of its subset), FiftyOne in data/, VOC's devkit in JPEGImages/.
_FOLDERS = ("", "images", "images/default", "data", "JPEGImages")
_RENAMED = "pictures whose names differ in the case of letters or Unicode's form"
_OF_FILES = "annotations"  # a folder for files alone: the pictures' is next to it, not in it


class PictureFolders:
    """Looks pictures up; a folder in a store is listed once, or not at all unless `in_stores`."""

    def __init__(self, in_stores: bool) -> None:
        self._in_stores = in_stores
        self._names_of_folder: dict[str, set[str]] = {}  # of folders in stores

    def has(self, path: str) -> bool:
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
    rows: Iterable[dict[str, Any]], folder: str, remarks: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield rows with the paths at which their pictures are, from `folder`.

    A picture that isn't at its path is looked for with / for \\, as Windows writes paths, and in
    the folders in which tools put pictures. If it is in none, a file is taken whose name differs
    only in the case of letters or in Unicode's form, unless there are several.
    """
    subfolders = _subfolders_of_pictures(folder)
    renamed = CountedPlaces()
    for row in rows:
        stated = path_of(row)
        found = _found(folder, subfolders, stated)
        if found != stated:
            _set_path(row, stated, found)
            # `in`, because the stated path may be Windows': "a\\b.jpg" has the name "b.jpg" in it.
            has_other_name = os.path.basename(found) not in stated
            if has_other_name:
                renamed.add(_RENAMED, f"{stated}, which is {found}")
        yield row
    remarks += renamed.remarks()


def _subfolders_of_pictures(folder: str) -> list[str]:
    """Return those that exist, relative to `folder`, which is the first: ""."""
    subfolders = list(_FOLDERS)
    if os.path.basename(os.path.abspath(folder)).lower() == _OF_FILES:
        subfolders += [f"../{name}" for name in _FOLDERS if name]
    return [name for name in subfolders if os.path.isdir(joined(folder, name))]


def _set_path(row: dict[str, Any], stated: str, found: str) -> None:
    for key in ("image_path", "image"):
        if row.get(key) == stated:
            row[key] = found
    own = row.get(COLUMN)
    # An export compares this path with the record's, to see whether the picture has a new name.
    if isinstance(own, Mapping) and own.get("picture") == stated:
        row[COLUMN] = {**own, "picture": found}


def _found(folder: str, subfolders: Sequence[str], stated: str) -> str:
    """Return the picture's path from `folder`; the stated one if it is in no subfolder."""
    if not stated or "://" in stated:
        return stated
    with_slashes = stated.replace("\\", "/")
    for name in dict.fromkeys((stated, with_slashes)):
        for subfolder in subfolders:
            path = os.path.join(subfolder, name)
            if os.path.isfile(joined(folder, path)):
                return path
    for subfolder in subfolders:  # now by a name that differs in case or Unicode's form
        path = os.path.join(subfolder, with_slashes)
        parent, name = os.path.split(path)
        names = _names_by_key(joined(folder, parent)).get(_key(name), [])
        if len(names) == 1:
            return os.path.join(parent, names[0])
    return stated


@lru_cache(maxsize=8)
def _names_by_key(folder: str) -> dict[str, list[str]]:
    """Return the names in a folder, by their key: "a.jpg" and "A.JPG" have the same."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # the latter for a name that no folder can have
        return {}
    names_by_key: dict[str, list[str]] = {}
    for name in names:
        names_by_key.setdefault(_key(name), []).append(name)
    return names_by_key


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()
