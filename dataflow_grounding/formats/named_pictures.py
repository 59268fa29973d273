"""The pictures that YOLO's data.yaml names, as Ultralytics finds them.

`train`, `val`, `test` and `minival` each name one or several entries in the folder `path`. An entry
is a folder of pictures, or a file that lists pictures. The labels of pictures below images/ are
below labels/; the labels of other pictures are next to them. Darknet's obj.data names lists in the
same way.

Sources: ultralytics' data/utils.py
(check_det_dataset, img2label_paths) and data/base.py (get_img_files); CVAT's
formats/format-yolo-ultralytics, whose lists are relative to their own folder; datumaro's
yolo/exporter.py, whose lists begin each path with data/.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.paths import names_in
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.data.class_files import text_of, yaml_of
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.images.files import ENDINGS

_PARTS = ("train", "val", "valid", "test", "minival")
_NOTHING = ("", "null", "~")  # as YAML says that there is none


@dataclass
class NamedPictures:
    """What a file names."""

    # the absolute paths of pictures, by a folder of pictures and that of their labels
    pictures_of_pair: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)  # absolute paths of lists of pictures
    are_listed: bool = False  # a list names a picture that is there: the data set has no others
    missing: list[str] = field(default_factory=list)  # such as `train: images/train`

    def add(self, picture: str, top: str) -> None:
        """Take in a picture below `top`: a folder of data.yaml, or its own if a list names it."""
        self.pictures_of_pair.setdefault(_pair_of(picture, top), set()).add(picture)

    def lines_on_missing(self) -> list[str]:
        return counted_items("named by the data set, but not there", self.missing)


def named_pictures(file: str) -> NamedPictures:
    """Return what data.yaml, or obj.data next to obj.names, names; other files name nothing."""
    named = NamedPictures()
    stem, ending = os.path.splitext(os.path.abspath(file))
    settings: JsonObject = {}
    if ending.lower() in (".yaml", ".yml"):
        settings = yaml_of(file, text_of(file))  # a mapping, whose names of classes were read
    elif ending == ".names" and os.path.isfile(f"{stem}.data"):
        settings = _of_darknet(text_of(f"{stem}.data"))
    folders = _folders(os.path.dirname(stem), settings.get("path"))
    for part in _PARTS:
        stated = settings.get(part)
        entries = stated if isinstance(stated, list) else [stated]
        for entry in entries:
            if isinstance(entry, str) and entry not in _NOTHING:
                _add_entry(named, part, entry, folders)
    return named


def _of_darknet(text: str) -> JsonObject:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _folders(own_folder: str, path: Any) -> list[str]:
    """Return where an entry such as `train: images/train` is looked for, in this order."""
    if not isinstance(path, str) or path in _NOTHING:
        return [own_folder]
    path = path.replace("\\", "/")
    # Ultralytics takes a relative `path` from the current folder. The file's own folder is for a
    # `path` of another machine, such as a notebook's.
    return [os.path.join(own_folder, path), os.path.abspath(path), own_folder]


def _add_entry(named: NamedPictures, part: str, entry: str, folders: list[str]) -> None:
    found = _found(entry, folders)
    if not found:
        named.missing.append(f"{part}: {entry}")
    elif os.path.isdir(found):
        for name in names_in(found):
            if name.lower().endswith(ENDINGS):
                named.add(os.path.normpath(os.path.join(found, name)), found)
    else:
        _add_list(named, entry, found, folders)


def _add_list(named: NamedPictures, entry: str, file: str, folders: list[str]) -> None:
    named.lists.append(file)
    for line in text_of(file).splitlines():
        stated = line.strip()
        if not stated:
            continue
        picture = _found(stated, [os.path.dirname(file), *folders, os.getcwd()])
        if picture:
            named.add(picture, os.path.dirname(picture))
            named.are_listed = True
        else:
            named.missing.append(f"{stated} of {entry}")


def _found(stated: str, folders: list[str]) -> str:
    """Return the absolute path of what is in one of the folders; "" if it is in none."""
    stated = stated.replace("\\", "/")
    # Roboflow's data.yaml says ../train/images for the train/images next to it, and datumaro's
    # lists say data/a.jpg for a.jpg.
    spellings = (stated, stated.removeprefix("../"), stated.removeprefix("data/"))
    for folder in folders:
        for path in spellings:
            full_path = os.path.normpath(os.path.join(folder, path))
            if os.path.exists(full_path):
                return full_path
    return ""


def _pair_of(picture: str, top: str) -> tuple[str, str]:
    """Return a picture's folder and its labels': a/images and a/labels for a/images/b/x.jpg."""
    above, images, _ = picture.rpartition(f"{os.sep}images{os.sep}")
    labels = os.path.join(above, "labels")
    if images and os.path.isdir(labels):
        return os.path.join(above, "images"), labels
    return top, top  # without such a labels/, the labels are next to the pictures
