"""Where the boxes of images come from: label folders or files, in order of the images' paths."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.coco import read_coco
from dataflow_grounding.formats.kitti import read_kitti
from dataflow_grounding.formats.label_lines import Labelled
from dataflow_grounding.formats.yolo import read_names, read_yolo
from dataflow_grounding.geometry import Size

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SHOWN = 20  # names that a report lists
ROUNDING = 0.5  # px

ReadLabels: TypeAlias = Callable[[str, Size | None], tuple[list[dict[str, Any]], list[str]]]
"""The regions of an image, by its path, of this size (None when that isn't known), and why others are left out.
Raises BrokenRow."""


@dataclass
class LabelSource:
    """Images under a folder, what reads their labels, and what was found on the way."""

    image_dir: str
    images: list[str]  # paths relative to the folder, sorted
    read: ReadLabels
    label_of: Callable[[str], str] | None = None  # the label file of an image, where each has its own
    without_label: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)  # labels for which there is no image
    crowds: int = 0  # crowd regions of a COCO file, which are left out
    left_out: list[str] = field(default_factory=list)  # labels that can't be read, each with its file, line and why
    beyond: list[str] = field(default_factory=list)  # boxes that reach beyond their image
    files: list[str] = field(default_factory=list)  # files that the regions of all images are read from

    def report(self) -> dict[str, Any]:
        """Return counts and the first names."""
        found: dict[str, Any] = {"images": len(self.images)}
        for name, items in (("images_without_label", self.without_label), ("labels_without_image", self.without_image)):
            found[name] = {"count": len(items), "first": items[:SHOWN]}
        for name, items in (("labels_left_out", self.left_out), ("boxes_beyond_their_image", self.beyond)):
            found |= {name: {"count": len(items), "first": items[:SHOWN]}} if items else {}
        return {**found, "crowd_regions_left_out": self.crowds} if self.crowds else found

    def remarks(self) -> list[str]:
        """Return the report in words."""
        listed = {
            "images without a label": self.without_label,
            "labels without an image": self.without_image,
            "labels that can't be read are left out": self.left_out,
            "boxes reach beyond their image and are kept as they are": self.beyond,
        }
        lines = [line for what, items in listed.items() for line in counted_items(what, items)]
        return [*lines, f"{self.crowds} crowd regions are left out"] if self.crowds else lines


def counted_items(what: str, items: list[str]) -> list[str]:
    """One line that says how many there are and shows the first; none where there are none."""
    first = "; ".join([*items[:3], *(["..."] if len(items) > 3 else [])])
    return [f"{what}: {len(items)} ({first})"] if items else []


def beyond(regions: Iterable[Mapping[str, Any]], size: Size, where: str) -> list[str]:
    """Which boxes reach out of an image of `size` (width, height), and where they stand; half a pixel is rounding."""
    limits = (-ROUNDING, -ROUNDING, size[0] + ROUNDING, size[1] + ROUNDING)
    boxes = [region["bbox"] for region in regions]
    out = [b for b in boxes if b[0] < limits[0] or b[1] < limits[1] or b[2] > limits[2] or b[3] > limits[3]]
    return [f"{where}: {box} in {size[0]} x {size[1]} px" for box in out]


def from_label_folder(image_dir: str, label_dir: str, key: str, names_file: str | None = None) -> LabelSource:
    """Find images and their KITTI or (with class names) YOLO label files. Raises InputError where none fit."""
    names_path = None
    if names_file is not None:
        names_path = names_file or _beside(label_dir, "classes.txt", f"{key.rpartition('.')[0]}.yolo_names")
    names = read_names(names_path) if names_path else None
    images = files_under(image_dir, ENDINGS, "data.image_dir")
    labels = set(files_under(label_dir, (".txt",), key)) - ({"classes.txt"} if names else set())

    def read(image: str, size: Size | None) -> tuple[list[dict[str, Any]], list[str]]:
        path = os.path.join(label_dir, _label_name(image))
        if _label_name(image) not in labels:
            return [], []
        try:
            if names is None:
                return _without_scores(*read_kitti(path))
            return _without_scores(read_yolo(path, names, size) if size else [], [])
        except OSError as error:
            raise BrokenRow(f"can't read {path}: {error.strerror or error}") from None

    source = LabelSource(image_dir, images, read, lambda image: os.path.join(label_dir, _label_name(image)))
    source.files = [names_path] if names_path else []
    used = {_label_name(image) for image in images} & labels
    source.without_label = [image for image in images if _label_name(image) not in labels]
    source.without_image = sorted(labels - used)
    if not used:
        none = f"no label in {label_dir} belongs to an image in {image_dir}"
        raise InputError(f"{none}: the label of sub/a.jpg is sub/a.txt")
    return source


def from_coco(image_dir: str, path: str) -> LabelSource:
    """Find the images of a COCO file, and those of the folder that it doesn't name. Raises InputError."""
    images, crowds, strays = read_coco(path)
    there = set(files_under(image_dir, ENDINGS, "data.image_dir"))
    named = {os.path.normpath(image.file_name).replace(os.sep, "/"): image for image in images}
    if not there & set(named):
        raise InputError(f"no image of {path} is in {image_dir}: its file_name should be relative to data.image_dir")

    def read(image: str, size: Size | None) -> tuple[list[dict[str, Any]], list[str]]:
        known = named.get(image)
        if known is not None and known.error is not None:
            raise known.error
        return (known.regions if known is not None else []), []

    source = LabelSource(image_dir, sorted(there), read, crowds=crowds, files=[path])
    source.without_label = sorted(there - set(named))
    source.without_image = sorted(set(named) - there) + [f"{strays} annotations of no image"] * bool(strays)
    return source


def _without_scores(regions: list[Labelled], left_out: list[str]) -> tuple[list[Labelled], list[str]]:
    return [{"bbox": region["bbox"], "type": region["type"]} for region in regions], left_out


def _label_name(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"


def _beside(folder: str, name: str, key: str) -> str:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise InputError(f"{key}: name the file with the class names (there is no {path} either)")
    return path


def files_under(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """The files under a folder with these endings, relative to it, sorted. Raises InputError if it is not a folder."""
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


def states(source: LabelSource) -> Iterator[list[Any]]:
    """Yield path, size and time of every image and label: what the regions depend on."""
    for image in source.images:
        yield _state(os.path.join(source.image_dir, image))
        if source.label_of is not None:
            yield _state(source.label_of(image))
    yield from map(_state, source.files)


def _state(path: str) -> list[Any]:
    try:
        found = os.stat(path)
    except OSError:
        return [path]
    return [path, found.st_size, found.st_mtime_ns]
