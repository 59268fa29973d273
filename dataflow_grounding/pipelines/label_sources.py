"""Where the boxes of images come from: label folders or files, each image with its regions, in order of the images' paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.coco import read_coco
from dataflow_grounding.formats.kitti import read_kitti
from dataflow_grounding.formats.yolo import read_names, read_yolo
from dataflow_grounding.geometry import Size

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SHOWN = 20  # names that a report lists

ReadLabels: TypeAlias = Callable[[Size | None], list[dict[str, Any]]]
"""The regions of an image of this size; None when it isn't known. Raises BrokenRow."""


@dataclass
class LabelSource:
    """Images under a folder with what reads their labels, and what was found on the way."""

    image_dir: str
    images: list[tuple[str, ReadLabels]]
    """Path relative to the folder, and its reader."""
    without_label: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    """Labels for which there is no image."""
    crowds: int = 0
    """Crowd regions of a COCO file, which are left out."""
    files: list[str] = field(default_factory=list)
    """All that the regions are read from."""

    def report(self) -> dict[str, Any]:
        """Counts, and the first names."""
        found: dict[str, Any] = {"images": len(self.images)}
        for name, items in (("images_without_label", self.without_label), ("labels_without_image", self.without_image)):
            found[name] = {"count": len(items), "first": items[:SHOWN]}
        return {**found, "crowd_regions_left_out": self.crowds} if self.crowds else found

    def remarks(self) -> list[str]:
        """The report in words."""
        lines = []
        for what, items in (
            ("images without a label", self.without_label),
            ("labels without an image", self.without_image),
        ):
            if items:
                lines.append(f"{what}: {len(items)} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})")
        return [*lines, f"{self.crowds} crowd regions are left out"] if self.crowds else lines


def from_label_folder(image_dir: str, label_dir: str, key: str, names_file: str | None = None) -> LabelSource:
    """Images, and a label file of the same relative path for each: KITTI's, or YOLO's with a file of class names.

    Raises InputError when a folder is missing or nothing in them belongs together.
    """
    names = None
    if names_file is not None:
        names = read_names(names_file or _beside(label_dir, "classes.txt", f"{key.rpartition('.')[0]}.yolo_names"))
    images = _files(image_dir, ENDINGS, "data.image_dir")
    left_out = {"classes.txt"} if names is not None else set()
    labels = set(_files(label_dir, (".txt",), key)) - left_out
    source = LabelSource(image_dir, [])
    used = set()
    for image in images:
        label = os.path.splitext(image)[0] + ".txt"
        path = os.path.join(label_dir, label)
        if label in labels:
            used.add(label)
            source.files.append(path)
        else:
            source.without_label.append(image)
        source.images.append((image, _reader(path, names) if label in labels else _no_regions))
    source.without_image = sorted(labels - used)
    if not used:
        raise InputError(
            f"no label in {label_dir} belongs to an image in {image_dir}: the label of sub/a.jpg is sub/a.txt"
        )
    return source


def from_coco(image_dir: str, path: str) -> LabelSource:
    """The images of a COCO file, and those of the folder that it doesn't name. Raises InputError."""
    images, crowds, strays = read_coco(path)
    there = set(_files(image_dir, ENDINGS, "data.image_dir"))
    named = {}
    for image in images:
        named[os.path.normpath(image.file_name).replace(os.sep, "/")] = image
    source = LabelSource(image_dir, [], crowds=crowds, files=[path])
    source.without_label = sorted(there - set(named))
    source.without_image = sorted(set(named) - there) + [f"{strays} annotations of no image"] * bool(strays)
    if not there & set(named):
        raise InputError(f"no image of {path} is in {image_dir}: its file_name should be relative to data.image_dir")
    for name in sorted(there):
        known = named.get(name)
        source.images.append((name, _no_regions if known is None else _given(known.regions, known.error)))
    return source


def _beside(folder: str, name: str, key: str) -> str:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise InputError(f"{key}: name the file with the class names (there is no {path} either)")
    return path


def _files(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """Files under a folder, relative to it, with these endings, sorted. Raises InputError when it is no folder."""
    if not os.path.isdir(folder):
        raise InputError(f"{key}: no folder {folder}")
    found = []
    seen: set[str] = set()
    for top, names, files in os.walk(folder, followlinks=True):
        names[:] = [name for name in names if not name.startswith(".")]
        real = os.path.realpath(top)
        if real in seen:  # a link that leads back
            names[:] = []
            continue
        seen.add(real)
        inside = os.path.relpath(top, folder)
        for name in files:
            if name.lower().endswith(endings) and not name.startswith("."):
                path = name if inside == "." else os.path.join(inside, name)
                found.append(path.replace(os.sep, "/"))
    return sorted(found)


def _reader(path: str, names: list[str] | None) -> ReadLabels:
    def read(size: Size | None) -> list[dict[str, Any]]:
        try:
            if names is None:
                return read_kitti(path)
            return read_yolo(path, names, size) if size else []
        except OSError as error:
            raise BrokenRow(f"can't read {path}: {error.strerror or error}") from None

    return read


def _no_regions(size: Size | None) -> list[dict[str, Any]]:
    return []


def _given(regions: list[dict[str, Any]], error: BrokenRow | None) -> ReadLabels:
    def read(size: Size | None) -> list[dict[str, Any]]:
        if error is not None:
            raise error
        return regions

    return read


def states(source: LabelSource) -> Iterator[list[Any]]:
    """Path, size and time of every image and label: what the regions depend on."""
    for path in [*(os.path.join(source.image_dir, name) for name, _ in source.images), *source.files]:
        try:
            found = os.stat(path)
            yield [path, found.st_size, found.st_mtime_ns]
        except OSError:
            yield [path]
