"""Seed records from a folder of images and their labels, in order of the images' paths.

Labels are a folder of files, one for each image, or one file for all.
"""

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError, MachineBusy, RecordError
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.data.bad_entries import BadEntries
from dataflow_grounding.data.class_files import Names, read_names
from dataflow_grounding.data.expressions import SEED_ERROR
from dataflow_grounding.data.records import JsonObject, Record, Update, stated_size
from dataflow_grounding.formats.coco import (
    CROWDS,
    NO_LISTED_CATEGORY,
    STRAYS,
    WITHOUT_BOX,
    CocoFile,
)
from dataflow_grounding.formats.label_files import (
    Label,
    YoloRows,
    read_kitti,
    read_yolo,
)
from dataflow_grounding.formats.label_folders import label_folder
from dataflow_grounding.formats.reading import files_under, reaches_beyond
from dataflow_grounding.formats.seeds import Found, Seeds
from dataflow_grounding.formats.stated_twice import StatedTwice
from dataflow_grounding.formats.tao_records import SOURCE
from dataflow_grounding.images.files import ENDINGS
from dataflow_grounding.images.image import open_image, waits

_NO_LABEL = Label([])
# A key of `run.json` → how a label calls it.
_LEFT_OUT = {
    "annotations_without_a_box": WITHOUT_BOX,
    "annotations_without_a_category": NO_LISTED_CATEGORY,
}


class _Labelled(NamedTuple):
    """An image and its label; `error` says why none of the label can be read."""

    path: str
    size: Size | None
    label: Label
    error: str = ""


@dataclass
class _Labels:
    """Images of a folder, and how to read their labels."""

    image_dir: str
    images: list[str]  # paths in `image_dir`, in order
    labelled: Collection[str]  # those that have a label
    # Takes a labelled image, and its size where that is known. Raises BrokenRow.
    label_of: Callable[[str, Size | None], Label]
    # Of images, the size that the labels say their boxes are in.
    stated_sizes: Mapping[str, Size] = field(default_factory=dict)
    unread: Sequence[str] = ()  # why labels of no image can't be read

    def seeds(
        self,
        origin: str,
        files_read: list[str],
        of_no_image: list[str],
        boxless: bool,
        crowds: int = 0,
    ) -> Seeds:
        """Return the seeds; `of_no_image` are labels without an image, or words on them."""
        images_and_labels = f"{self.image_dir} with {origin}"
        is_one_file = kind_of(origin) != "folder"
        without_label = [image for image in self.images if image not in self.labelled]
        found = Found(
            places={"images_without_label": without_label, "labels_without_image": of_no_image},
            counts={"images": len(self.images)},
        )
        found.count("crowd_regions_left_out", crowds)
        return Seeds(
            origin=images_and_labels,
            files=[origin] if is_one_file else [],  # what a run must not write over
            folders=(self.image_dir,),
            boxless=boxless,
            without=images_and_labels,
            read=self._records,
            depends_on=partial(self._states, files_read),
            found_before=found,
        )

    def _states(self, files: list[str]) -> Iterator[Any]:
        images = (joined(self.image_dir, image) for image in self.images)
        paths = itertools.chain(images, files)
        # Threads look at files in a store, which take a while.
        return side_by_side(lambda path: (path, state_of(path)), paths, waits)

    def _records(self, found: Found) -> Iterator[Update]:
        """Yield a record for each image; what can't be read has a record with SEED_ERROR."""
        bad = BadEntries()  # it raises an error where too few entries can be read
        stated_twice = StatedTwice()  # the same, where most of it contradicts itself
        taken: set[str] = set()  # stems that are an image's id: of a.jpg and a.png the first is "a"
        # Each image is opened, so that all go through the threads that may wait.
        for labelled in side_by_side(self._read, self.images, lambda _: True):
            stem = os.path.splitext(labelled.path)[0]
            image_id = labelled.path if stem in taken else stem
            taken.add(stem)
            for comparison in labelled.label.compared:
                stated_twice.add(comparison)
            record = self._record_of(labelled, image_id, found)
            if labelled.error:
                bad.note(labelled.error)
            else:
                bad.read()
            yield record
        for why in self.unread:
            bad.note(why)
            yield {"image_path": None, "regions": [], SEED_ERROR: why}
        bad.finish()
        found.add("stated_twice", stated_twice.remarks())

    def _read(self, path: str) -> _Labelled:
        size = upright_size(path, (self.image_dir,))
        if path not in self.labelled:
            return _Labelled(path, size, _NO_LABEL)
        try:
            return _Labelled(path, size, self.label_of(path, size))
        except BrokenRow as error:
            return _Labelled(path, size, _NO_LABEL, str(error))

    def _record_of(self, labelled: _Labelled, image_id: str, found: Found) -> Update:
        path, size, label, error = labelled
        record: Update = {
            "image_id": image_id,
            "image_path": path,
            **size_columns(size),
            "source": SOURCE,
        }
        if error:
            return {**record, "regions": [], SEED_ERROR: error}
        regions = []
        for region in label.regions:
            if area(box_of(region.bbox)) > 0:
                regions.append({"bbox": region.bbox, "type": region.type})
            else:
                found.add("boxes_without_an_area", [f"{path}: the box {region.bbox} has no area"])
        record["regions"] = regions
        if size is not None:
            found.add("boxes_beyond_their_image", boxes_beyond(regions, size, path))
        # An image that can't be opened fails for that.
        if size is not None and regions:
            # The size that the labels state replaces the image's own. Where the two differ, the
            # boxes are of another picture, and the record fails in the run: `check_stated_size`.
            record |= size_columns(self.stated_sizes.get(path))
        for what, words in _LEFT_OUT.items():
            found.count(what, label.left_out[words])
        return record


def from_label_folder(
    image_dir: str, label_dir: str, key: str, names_file: str | None, boxless: bool
) -> Seeds:
    """Return seeds from a folder of KITTI's label files, or of YOLO's.

    The label of the image sub/a.jpg is sub/a.txt in `label_dir`, which the setting `key` names.
    `names_file` is None for KITTI. For YOLO it has the names of classes; if it is empty, the
    classes.txt in `label_dir` has them. Raises InputError where a folder or the names are missing,
    or no label belongs to an image.
    """
    names: Names | None = None
    other_files: list[str] = []  # in the folder of labels, that aren't labels
    files_of_names: list[str] = []
    if names_file is not None:
        path_of_names = names_file or joined(label_dir, "classes.txt")
        if not names_file and not kind_of(path_of_names):
            names_key = setting(f"{key.rpartition('.')[0]}.yolo_names")
            raise InputError(
                f"{names_key}: name the file with the class names (there is no {path_of_names}"
                " either)"
            )
        names = read_names(path_of_names)
        other_files = ["classes.txt"]
        files_of_names = [path_of_names]
    settings = (setting("data.image_dir"), setting(key))
    folder = label_folder(image_dir, label_dir, settings, other_files)
    if not folder.files:
        none = f"no label in {label_dir} belongs to an image in {image_dir}"
        raise InputError(f"{none}: the label of sub/a.jpg is sub/a.txt")

    rows = None if names is None else YoloRows(folder.files.values(), names)

    def label_of(image: str, size: Size | None) -> Label:
        if rows is None:
            return read_kitti(folder.files[image])
        if size is None:  # the image can't be opened, and its record fails for that
            return _NO_LABEL
        return read_yolo(folder.files[image], rows, size)

    labels = _Labels(image_dir, folder.pictures, labelled=folder.files, label_of=label_of)
    files_read = [*folder.files.values(), *files_of_names]
    seeds = labels.seeds(label_dir, files_read, folder.of_no_picture, boxless)
    for what, count in ({} if rows is None else rows.read_as()).items():
        seeds.found_before.count(f"rows_read_as_{what.partition(',')[0]}", count)
    return seeds


def from_coco(image_dir: str, path: str, boxless: bool) -> Seeds:
    """Return seeds from a COCO file, also of images in `image_dir` that it doesn't name.

    Raises InputError where the file can't be read, or names no image of the folder, or one twice.
    """
    coco = CocoFile(path)
    left_out = coco.left_out()
    images = files_under(image_dir, ENDINGS, setting("data.image_dir"))
    id_of_name, stated_sizes = _images_of(coco)
    if coco.of_no_image and not id_of_name:  # why an image can't be read says more than the next
        raise InputError(coco.of_no_image[0])
    if id_of_name.keys().isdisjoint(images):
        raise InputError(
            f"no image of {path} is in {image_dir}: its file_name should be relative to"
            f" {setting('data.image_dir')}"
        )
    of_no_image = sorted(id_of_name.keys() - {*images})
    if left_out[STRAYS]:
        of_no_image.append(f"{left_out[STRAYS]} annotations of no image")

    def label_of(image: str, own_size: Size | None) -> Label:
        # The boxes are in a picture of the stated size: the image's own doesn't count.
        return coco.label(id_of_name[image], stated_sizes.get(image))

    labels = _Labels(
        image_dir,
        images,
        labelled=id_of_name,
        label_of=label_of,
        stated_sizes=stated_sizes,
        unread=coco.of_no_image,
    )
    return labels.seeds(path, [path], of_no_image, boxless, crowds=left_out[CROWDS])


def _images_of(coco: CocoFile) -> tuple[dict[str, str], dict[str, Size]]:
    """Return images' ids, and the sizes that the file states, by paths in the folder of images."""
    id_of_name: dict[str, str] = {}
    stated_sizes: dict[str, Size] = {}
    for image_id, name, image in coco.images():
        path_in_folder = os.path.normpath(name).replace(os.sep, "/")
        earlier_id = id_of_name.setdefault(path_in_folder, image_id)
        if earlier_id != image_id:
            raise InputError(
                f"{coco.path}: the images {earlier_id} and {image_id} have one file_name, {name!r}:"
                " give all of its annotations one image_id, and leave one of the two images"
            )
        size = stated_size(image)
        if size is not None:
            stated_sizes[path_in_folder] = size
    return id_of_name, stated_sizes


def boxes_beyond(regions: Iterable[JsonObject], size: Size, where: str) -> list[str]:
    """Return a line, which begins with `where`, for each box that reaches out of an image."""
    boxes = [region["bbox"] for region in regions if reaches_beyond(region["bbox"], size)]
    return [f"{where}: {box} in {size[0]} x {size[1]} px" for box in boxes]


def size_columns(size: Size | None) -> Update:
    return {} if size is None else {"width": size[0], "height": size[1]}


def upright_size(path: Any, folders: tuple[str, ...]) -> Size | None:
    try:
        return open_image(Record({"image_path": path}, folders), "image_path").size
    except MachineBusy:
        raise
    except RecordError:
        return None
