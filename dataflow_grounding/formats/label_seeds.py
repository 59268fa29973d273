"""Seed records from a folder of images and their labels, in order of the images' paths.

Labels are a folder of files, one for each image, or one file for all.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.errors import (
    BrokenRow,
    InputError,
    MachineBusy,
    RecordError,
    errors_as,
)
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.boxes.seeds import Seeds
from dataflow_grounding.data.bad_entries import SKIPPED, BadEntries
from dataflow_grounding.data.records import Record, stated_size
from dataflow_grounding.formats.coco import CROWDS, STRAYS, CocoFile
from dataflow_grounding.formats.label_files import (
    Labelled,
    Names,
    kitti_regions,
    read_labels,
    read_names,
    yolo_regions,
)
from dataflow_grounding.formats.reading import files_under, reaches_beyond
from dataflow_grounding.formats.tao_records import SOURCE
from dataflow_grounding.images.files import ENDINGS
from dataflow_grounding.images.image import open_image

BEYOND = "boxes reach beyond their image and are kept as they are"  # the report on such boxes
NO_AREA = "boxes without an area are left out"


class _Found(NamedTuple):
    """What was read of an image.

    Attributes:
        record: Its record.
        unread: Why labels of it can't be read.
        flat: Its boxes without an area, in words.
        beyond: Those that reach beyond it, in words.
    """

    record: dict[str, Any]
    unread: list[str]
    flat: list[str]
    beyond: list[str]


ReadLabels: TypeAlias = Callable[[str, Size | None, list[str]], list[Labelled]]
"""Returns the regions of an image.

Its arguments are what the image's label is found by; the image's size, None if it isn't known; and
a list, to which it adds why regions can't be read. Raises BrokenRow.
"""


class LabelSeeds(Seeds):
    """Seeds from images and their labels: a record for each image, with or without a label.

    Args:
        image_dir: The folder of images, from which a record's `image_path` starts.
        origin: The labels, as people call them: their folder or file.
        images: The images' paths in `image_dir`, in order.
        label_of_image: Of each image that has a label, what `read` finds the label by.
        read: Reads an image's label.
        without_image: Labels of no image.
        files: All files that are read for labels.
        boxless: Whether the steps do without regions.
        crowds: How many crowd regions are left out.
        stated_sizes: Of images, the width and height that the labels say their boxes are in.
    """

    def __init__(
        self,
        image_dir: str,
        origin: str,
        images: list[str],
        label_of_image: Mapping[str, str],
        read: ReadLabels,
        without_image: list[str],
        files: list[str],
        boxless: bool,
        crowds: int = 0,
        stated_sizes: Mapping[str, Size] | None = None,
    ) -> None:
        self._stated_sizes = stated_sizes or {}
        self._images = images
        self._first_of_stem: dict[str, str] = {}
        for image in images:
            self._first_of_stem.setdefault(os.path.splitext(image)[0], image)
        self._label_of_image = label_of_image
        self._read = read
        self._files = files
        self._crowds = crowds
        self._without_label = [image for image in images if image not in label_of_image]
        self._without_image = without_image
        own_files = [] if kind_of(origin) == "folder" else [origin]
        source = f"{image_dir} with {origin}"
        super().__init__(source, own_files, (image_dir,), boxless, without=source)

    def _reset_found(self) -> None:
        # What the names of files alone tell, known since the object was made, stays.
        self.found = {
            "images without a label": self._without_label,
            "labels without an image": self._without_image,
            NO_AREA: [],
            BEYOND: [],
        }

    def _records(self) -> Iterator[dict[str, Any]]:
        bad = BadEntries()
        for found in side_by_side(self._record, self._images, lambda _: True):
            record = found.record
            self.found[NO_AREA] += found.flat
            self.found[BEYOND] += found.beyond
            if SEED_ERROR in record:
                bad.note(record[SEED_ERROR])
            else:
                bad.read(len(record["regions"]) or int(not found.unread))
            yield record
            yield from _failing(found.unread, record["image_path"], bad)
        bad.finish()

    def _id_of(self, path: str) -> str:
        stem = os.path.splitext(path)[0]
        return stem if self._first_of_stem[stem] == path else path

    def _record(self, path: str) -> _Found:
        size = upright_size(path, self.folders)
        # Where its label is broken, the record says so and has no regions.
        unread: list[str] = []
        record = {
            "image_id": self._id_of(path),
            "image_path": path,
            **size_columns(size),
            "source": SOURCE,
        }
        labelled: list[Labelled] = []
        if path in self._label_of_image:
            try:
                labelled = self._read(self._label_of_image[path], size, unread)
            except BrokenRow as error:
                failed = {**record, "regions": [], SEED_ERROR: str(error)}
                return _Found(failed, [], [], [])
        if unread:
            record[SKIPPED] = len(unread)
        regions = []
        flat: list[str] = []
        for region in labelled:
            box = region["bbox"]
            if area(box_of(box)) > 0:
                regions.append(region)
            else:
                flat.append(f"{path}: the box {box} has no area")
        record["regions"] = regions
        if regions and size is not None and path in self._stated_sizes:
            # Where it is another size than the image's, the record fails: `check_stated_size`.
            record |= size_columns(self._stated_sizes[path])
        beyond = [] if size is None else boxes_beyond(regions, size, path)
        return _Found(record, unread, flat, beyond)

    def fingerprint(self) -> str:
        """Return a digest of the images' and labels' paths, sizes and times; they aren't read."""
        digest = hashlib.sha256(f"{__version__} {self.reading}".encode())
        images = (joined(self.folders[0], image) for image in self._images)
        paths = itertools.chain(images, self._files)
        for state in side_by_side(lambda path: (path, state_of(path)), paths, is_remote):
            digest.update(json.dumps(state).encode())
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """Return counts and the first items of what was found.

        Boxes without an area or beyond their image, and crowds, are in it only if there are any.
        """
        report: dict[str, Any] = {
            "images": len(self._images),
            "images_without_label": self._counted(self._without_label),
            "labels_without_image": self._counted(self._without_image),
        }
        if self.found[NO_AREA]:
            report["boxes_without_an_area"] = self._counted(self.found[NO_AREA])
        if self.found[BEYOND]:
            report["boxes_beyond_their_image"] = self._counted(self.found[BEYOND])
        if self._crowds:
            report["crowd_regions_left_out"] = self._crowds
        return report

    def _counted(self, items: list[str]) -> dict[str, Any]:
        return {"count": len(items), "first": items[: self.shown]}

    def remarks(self) -> list[str]:
        """Return also how many crowd regions are left out."""
        lines = super().remarks()
        if self._crowds:
            lines.append(f"{self._crowds} crowd regions are left out")
        return lines


def _failing(reasons: Iterable[str], path: str, bad: BadEntries) -> Iterator[dict[str, Any]]:
    # Yield the records of entries that can't be read, of the image at that path: they fail.
    for why in reasons:
        bad.note(why)
        yield {"image_path": path, "regions": [], SEED_ERROR: why}


def from_label_folder(
    image_dir: str,
    label_dir: str,
    key: str,
    names_file: str | None,
    boxless: bool,
) -> LabelSeeds:
    """Return seeds from a folder of KITTI's label files, or of YOLO's.

    Args:
        image_dir: The folder of images.
        label_dir: The folder of labels: of the image sub/a.jpg it is sub/a.txt.
        key: The setting that names `label_dir`, for messages.
        names_file: None for KITTI. For YOLO the file with the names of classes; empty for the
            classes.txt in `label_dir`.
        boxless: Whether the steps do without regions.

    Raises:
        InputError: A folder or YOLO's names are missing, or no label belongs to an image.
    """
    names = None  # of KITTI
    names_files: list[str] = []
    if names_file is not None:
        names_files = [names_file or _names_file_of(label_dir, key)]
        names = read_names(names_files[0])
    images = files_under(image_dir, ENDINGS, setting("data.image_dir"))
    labels = set(files_under(label_dir, (".txt",), setting(key)))
    if names is not None:
        labels.discard("classes.txt")
    wanted_labels = {image: os.path.splitext(image)[0] + ".txt" for image in images}
    if labels.isdisjoint(wanted_labels.values()):
        none = f"no label in {label_dir} belongs to an image in {image_dir}"
        raise InputError(f"{none}: the label of sub/a.jpg is sub/a.txt")

    label_of_image: dict[str, str] = {}
    for image, label in wanted_labels.items():
        if label in labels:
            label_of_image[image] = joined(label_dir, label)
    without_image = sorted(labels.difference(wanted_labels.values()))
    files = [*label_of_image.values(), *names_files]
    read: ReadLabels = _read_kitti
    if names is not None:
        read = partial(_read_yolo, names)
    return LabelSeeds(
        image_dir,
        label_dir,
        images,
        label_of_image,
        read,
        without_image,
        files,
        boxless,
    )


def _read_kitti(path: str, size: Size | None, left_out: list[str]) -> list[Labelled]:
    with errors_as(BrokenRow, f"can't read {path}"):
        return _without_scores(read_labels(path, kitti_regions, left_out))


def _read_yolo(names: Names, path: str, size: Size | None, left_out: list[str]) -> list[Labelled]:
    # There are none where the size isn't known: the image can't be opened, and its record fails for
    # that.
    if size is None:
        return []
    of_line = partial(yolo_regions, names.classes, names.keypoints, size)
    with errors_as(BrokenRow, f"can't read {path}"):
        return _without_scores(read_labels(path, of_line, left_out))


def _without_scores(regions: Iterable[Labelled]) -> list[Labelled]:
    return [{"bbox": region["bbox"], "type": region["type"]} for region in regions]


def _names_file_of(label_dir: str, key: str) -> str:
    file = joined(label_dir, "classes.txt")
    if not kind_of(file):
        names_key = setting(f"{key.rpartition('.')[0]}.yolo_names")
        raise InputError(
            f"{names_key}: name the file with the class names (there is no {file} either)"
        )
    return file


def from_coco(image_dir: str, path: str, boxless: bool) -> LabelSeeds:
    """Return seeds from a COCO file, also of images in `image_dir` that it doesn't name.

    Raises InputError: the file can't be read, names no image of the folder, or one twice.
    """
    coco = CocoFile(path)
    if coco.of_no_image:
        raise InputError(coco.of_no_image[0])
    left_out = coco.left_out()
    images = files_under(image_dir, ENDINGS, setting("data.image_dir"))
    id_of_name: dict[str, str] = {}
    stated_sizes: dict[str, Size] = {}
    for image_id, name, image in coco.images():
        path_in_folder = os.path.normpath(name).replace(os.sep, "/")
        earlier_id = id_of_name.setdefault(path_in_folder, image_id)
        if earlier_id != image_id:
            raise InputError(
                f"{path}: the images {earlier_id} and {image_id} have one file_name, {name!r}: give"
                " all of its annotations one image_id, and leave one of the two images"
            )
        stated = stated_size(image)
        if stated is not None:
            stated_sizes[path_in_folder] = stated
    if id_of_name.keys().isdisjoint(images):
        raise InputError(
            f"no image of {path} is in {image_dir}: its file_name should be relative to"
            f" {setting('data.image_dir')}"
        )
    without_image = sorted(id_of_name.keys() - {*images})
    if left_out[STRAYS]:
        without_image.append(f"{left_out[STRAYS]} annotations of no image")
    return LabelSeeds(
        image_dir,
        path,
        images,
        id_of_name,
        lambda image_id, _, left_out: coco.regions(image_id, left_out),
        without_image,
        [path],
        boxless,
        left_out[CROWDS],
        stated_sizes,
    )


def boxes_beyond(regions: Iterable[Mapping[str, Any]], size: Size, where: str) -> list[str]:
    """Return a line for each box that reaches out of an image of `size` (width, height).

    A line begins with `where`. A box that reaches out by ROUNDING or less has none. Corners are
    taken in their order: x1 and y1 may reach out to the left and above, x2 and y2 to the right and
    below.
    """
    beyond = [region["bbox"] for region in regions if reaches_beyond(region["bbox"], size)]
    return [f"{where}: {box} in {size[0]} x {size[1]} px" for box in beyond]


def size_columns(size: Size | None) -> dict[str, Any]:
    """Return a record's `width` and `height`; neither where the size isn't known."""
    return {} if size is None else {"width": size[0], "height": size[1]}


def upright_size(path: Any, folders: tuple[str, ...]) -> Size | None:
    """Return the width and height of an image as it is upright; None if it can't be opened.

    Raises MachineBusy, where it may be opened later.
    """
    try:
        return open_image(Record({"image_path": path}, folders), "image_path").size
    except MachineBusy:
        raise
    except RecordError:
        return None
