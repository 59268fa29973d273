"""Seed records from images and their labels: label folders or files, in order of the
images' paths.
"""

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError, MachineBusy, RecordError, told_as
from dataflow_grounding._util.paths import is_elsewhere, joined, kind_of, state_of
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.data.records import Record
from dataflow_grounding.extras.formats.coco import CROWDS, STRAYS, CocoFile
from dataflow_grounding.extras.formats.label_files import (
    Labelled,
    of_kitti,
    of_yolo,
    read_labels,
    read_names,
)
from dataflow_grounding.extras.formats.reading import ENDINGS, files_under
from dataflow_grounding.extras.formats.tao_records import SOURCE
from dataflow_grounding.images.image import open_image

BEYOND = "boxes reach beyond their image and are kept as they are"
UNREAD = "labels that can't be read are left out"
ROUNDING = 0.5  # px
# The regions of an image of a size (None when that isn't known); why others are left out is added.
# Raises BrokenRow.
ReadLabels: TypeAlias = Callable[[str, Size | None, list[str]], list[Labelled]]


def counted_items(what: str, items: list[str]) -> list[str]:
    """One line that says how many there are and shows the first; none where there are none."""
    first = "; ".join([*items[:3], *(["..."] if len(items) > 3 else [])])
    return [f"{what}: {len(items)} ({first})"] if items else []


class Seeds(ABC):
    """Seed records of some `origin`, as people call it; `files` are the user's own, `folders` those
    of the images.

    `found` has what was found on the way, in words, and where; `without` is what there is no box
    in, if there is none.
    """

    found: dict[str, list[str]]
    shown = 20  # places that a report lists
    # changes where the same files give other records: seeds that were written before are then
    # written anew
    reading = 4

    def __init__(
        self, origin: str, files: list[str], folders: tuple[str, ...], boxless: bool, without: str
    ) -> None:
        self.origin, self.files, self.folders, self._boxless, self._without = (
            origin,
            files,
            folders,
            boxless,
            without,
        )
        self._forget()

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per image or row; one that can't be had as a whole says why, and fails.

        Raises:
            InputError: At the end, if there was no box at all and the steps need some. Records that
                fail for another reason tell that.
        """
        self._forget()
        some, count = self._boxless, 0
        for count, record in enumerate(self._records(), 1):  # noqa: B007
            fails = SEED_ERROR in record or "width" not in record  # it, or its image, can't be read
            some = some or fails or bool(record.get("regions"))
            yield record
        if count and not some:
            why = "; ".join([self._without, *self.found.get(UNREAD, [])[:1]])
            raise InputError(f"none of the {count} images has a box: {why}")

    @abstractmethod
    def _forget(self) -> None:
        """Sets `found` to what is known before any record is made."""

    @abstractmethod
    def _records(self) -> Iterator[dict[str, Any]]: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that the records depend on."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """Counts, and the first of what was found."""

    def remarks(self) -> list[str]:
        """The same in words."""
        return [line for what, items in self.found.items() for line in counted_items(what, items)]


class LabelSeeds(Seeds):
    """From images and their labels: sorted by image path, `image_path` relative to the folder of
    images.

    `images` are relative to `image_dir`, `of_image` has what `read` finds the label of each by,
    that has one, `labels` the files that are read.
    """

    def __init__(
        self,
        image_dir: str,
        origin: str,
        images: list[str],
        of_image: Mapping[str, str],
        read: ReadLabels,
        without_image: list[str],
        labels: list[str],
        boxless: bool,
        crowds: int = 0,
    ) -> None:
        self._images, self._of_image, self._read, self._labels, self._crowds = (
            images,
            of_image,
            read,
            labels,
            crowds,
        )
        self._unmatched = [image for image in images if image not in of_image], without_image
        files = [] if kind_of(origin) == "folder" else [origin]
        both = f"{image_dir} with {origin}"
        super().__init__(both, files, (image_dir,), boxless, both)

    def _forget(self) -> None:
        images, labels = self._unmatched
        self.found = {
            "images without a label": images,
            "labels without an image": labels,
            UNREAD: [],
            BEYOND: [],
        }

    def _records(self) -> Iterator[dict[str, Any]]:
        for record, left_out, outside in side_by_side(self._record, self._images, lambda _: True):
            self.found[UNREAD] += left_out
            self.found[BEYOND] += outside
            yield record

    def _record(self, path: str) -> tuple[dict[str, Any], list[str], list[str]]:
        """An image's record, which of its labels are left out, and which of its boxes reach beyond
        it.
        """
        size, left_out = size_of(path, self.folders), list[str]()
        record = {
            "image_id": os.path.splitext(path)[0],
            "image_path": path,
            **sides(size),
            "source": SOURCE,
        }
        try:
            regions = (
                self._read(self._of_image[path], size, left_out) if path in self._of_image else []
            )
        except BrokenRow as error:
            return {**record, "regions": [], SEED_ERROR: str(error)}, [], []
        record["regions"] = [region for region in regions if area(box_of(region["bbox"])) > 0]
        flat = (region["bbox"] for region in regions if region not in record["regions"])
        left_out += [f"{path}: the box {box} has no area" for box in flat]
        return record, left_out, beyond(record["regions"], size, path) if size is not None else []

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{__version__} {self.reading}".encode())
        paths = itertools.chain(
            (joined(self.folders[0], image) for image in self._images), self._labels
        )
        for state in side_by_side(lambda path: (path, state_of(path)), paths, is_elsewhere):
            digest.update(json.dumps(state).encode())
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        names = (
            "images_without_label",
            "labels_without_image",
            "labels_left_out",
            "boxes_beyond_their_image",
        )
        named = zip(names, self.found.values(), strict=True)
        counts = {
            n: {"count": len(items), "first": items[: self.shown]}
            for n, items in named
            if items or n in names[:2]
        }
        crowds = {"crowd_regions_left_out": self._crowds} if self._crowds else {}
        return {"images": len(self._images), **counts, **crowds}

    def remarks(self) -> list[str]:
        return super().remarks() + (
            [f"{self._crowds} crowd regions are left out"] if self._crowds else []
        )


def from_label_folder(
    image_dir: str, label_dir: str, key: str, names_file: str | None, boxless: bool
) -> LabelSeeds:
    """With KITTI or (with class names) YOLO label files. Raises InputError where none fit."""
    files = [] if names_file is None else [names_file or joined(label_dir, "classes.txt")]
    if files and not names_file and not kind_of(files[0]):
        names_key = f"{key.rpartition('.')[0]}.yolo_names"
        raise InputError(
            f"{names_key}: name the file with the class names (there is no {files[0]} either)"
        )
    names = read_names(files[0]) if files else None
    images = files_under(image_dir, ENDINGS, "data.image_dir")
    labels = set(files_under(label_dir, (".txt",), key)) - ({"classes.txt"} if files else set())
    label_of = {image: os.path.splitext(image)[0] + ".txt" for image in images}
    if labels.isdisjoint(label_of.values()):
        none = f"no label in {label_dir} belongs to an image in {image_dir}"
        raise InputError(f"{none}: the label of sub/a.jpg is sub/a.txt")

    def read(path: str, size: Size | None, left_out: list[str]) -> list[Labelled]:
        with told_as(BrokenRow, f"can't read {path}"):
            if names is None:
                regions = read_labels(path, of_kitti, left_out)
            else:
                regions = read_labels(path, partial(of_yolo, *names, size)) if size else []
        return [{"bbox": region["bbox"], "type": region["type"]} for region in regions]

    of_image = {
        image: joined(label_dir, label) for image, label in label_of.items() if label in labels
    }
    without_image, files = (
        sorted(labels.difference(label_of.values())),
        [*of_image.values(), *files],
    )
    return LabelSeeds(image_dir, label_dir, images, of_image, read, without_image, files, boxless)


def from_coco(image_dir: str, path: str, boxless: bool) -> LabelSeeds:
    """With a COCO file, also of images that it doesn't name. Raises InputError."""
    coco = CocoFile(path)
    left_out = coco.left_out()
    images = files_under(image_dir, ENDINGS, "data.image_dir")
    named = {os.path.normpath(name).replace(os.sep, "/"): image for image, name, _ in coco.images()}
    if named.keys().isdisjoint(images):
        raise InputError(
            f"no image of {path} is in {image_dir}: its file_name should be relative to"
            " data.image_dir"
        )
    strays = [f"{left_out[STRAYS]} annotations of no image"] * bool(left_out[STRAYS])
    without_image = sorted(named.keys() - {*images}) + strays
    return LabelSeeds(
        image_dir,
        path,
        images,
        named,
        lambda image, *_: coco.regions(image),
        without_image,
        [path],
        boxless,
        left_out[CROWDS],
    )


def beyond(regions: Iterable[Mapping[str, Any]], size: Size, where: str) -> list[str]:
    """Which boxes reach out of an image of `size` (width, height), and where they stand; half a
    pixel is rounding.
    """
    boxes = [region["bbox"] for region in regions]
    out = [
        b
        for b in boxes
        if min(b[:2]) < -ROUNDING or b[2] > size[0] + ROUNDING or b[3] > size[1] + ROUNDING
    ]
    return [f"{where}: {box} in {size[0]} x {size[1]} px" for box in out]


def sides(size: Size | None) -> dict[str, Any]:
    """A record's columns of its image's size, as far as it is known."""
    return dict(zip(("width", "height"), size or (), strict=False))


def size_of(path: Any, folders: tuple[str, ...]) -> Size | None:
    """Width and height of the upright image; None if it can't be opened: its record will fail.
    Raises MachineBusy.
    """
    try:
        return open_image(Record({"image_path": path}, folders), "image_path").size
    except MachineBusy:
        raise
    except RecordError:
        return None
