"""Seed records from a folder of images and their labels, in order of the images' paths.

Labels are a folder of files, one for each image, or one file for all.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError, MachineBusy, RecordError
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.data.bad_entries import SKIPPED, BadEntries
from dataflow_grounding.data.records import Record, stated_size
from dataflow_grounding.formats.coco import (
    CROWDS,
    NO_LISTED_CATEGORY,
    STRAYS,
    WITHOUT_BOX,
    CocoFile,
)
from dataflow_grounding.formats.label_files import (
    Label,
    Names,
    read_kitti,
    read_names,
    read_yolo,
)
from dataflow_grounding.formats.label_folders import label_folder
from dataflow_grounding.formats.reading import files_under, reaches_beyond
from dataflow_grounding.formats.seeds import Found, Seeds
from dataflow_grounding.formats.tao_records import SOURCE
from dataflow_grounding.images.files import ENDINGS
from dataflow_grounding.images.image import open_image, waits

_NO_LABEL = Label([], [], [])
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
    """Images of a folder, and where their labels are.

    Args:
        image_dir: The folder of images, from which a record's `image_path` starts.
        images: The images' paths in `image_dir`, in order.
        keys: By an image's path, what `label_of` finds its label by: the path of the label file, or
            the image's id in the COCO file. An image without a label has none.
        label_of: Returns the label of such a key. It also takes the image's size, None if that
            isn't known. Raises BrokenRow.
        stated_sizes: Of images, the width and height that the labels say their boxes are in.
        unread: Why labels of no image can't be read.
    """

    image_dir: str
    images: list[str]
    keys: Mapping[str, str]
    label_of: Callable[[str, Size | None], Label]
    stated_sizes: Mapping[str, Size] = field(default_factory=dict)
    unread: Sequence[str] = ()

    def seeds(
        self,
        origin: str,
        files_read: list[str],
        of_no_image: list[str],
        boxless: bool,
        crowds: int = 0,
    ) -> Seeds:
        """Return the seeds of these labels.

        Args:
            origin: The file or folder of the labels.
            files_read: All files that they are read from, each file in a folder of labels, too.
            of_no_image: Labels without an image, or words on them.
            boxless: Whether the steps do without regions.
            crowds: How many crowd regions of a COCO file are left out.
        """
        images_and_labels = f"{self.image_dir} with {origin}"
        is_one_file = kind_of(origin) != "folder"
        return Seeds(
            origin=images_and_labels,
            files=[origin] if is_one_file else [],  # what a run must not write over
            folders=(self.image_dir,),
            boxless=boxless,
            without=images_and_labels,
            read=self._records,
            depends_on=partial(self._states, files_read),
            found_before=self._found_before(of_no_image, crowds),
        )

    def _found_before(self, of_no_image: list[str], crowds: int) -> Found:
        without_label = [image for image in self.images if image not in self.keys]
        found = Found(
            places={"images_without_label": without_label, "labels_without_image": of_no_image},
            counts={"images": len(self.images)},
        )
        if crowds:
            found.counts["crowd_regions_left_out"] = crowds
        return found

    def _states(self, files: list[str]) -> Iterator[Any]:
        # Yields each file that the records depend on, with its state, such as its size and time.
        # Threads look at files in a store, which take a while.
        images = (joined(self.image_dir, image) for image in self.images)
        paths = itertools.chain(images, files)
        return side_by_side(lambda path: (path, state_of(path)), paths, waits)

    def _records(self, found: Found) -> Iterator[dict[str, Any]]:
        # Yields a record for each image. What can't be read has a record with SEED_ERROR, which
        # fails in the run as other records do. Where too few entries can be read, `bad` raises an
        # error.
        bad = BadEntries()
        taken: set[str] = set()  # stems that are an image's id: of a.jpg and a.png the first is "a"
        # Each image is opened, so that all go through the threads that may wait.
        for labelled in side_by_side(self._read, self.images, lambda _: True):
            stem = os.path.splitext(labelled.path)[0]
            image_id = labelled.path if stem in taken else stem
            taken.add(stem)
            record = self._record_of(labelled, image_id, found)
            unread = labelled.label.unread
            region_count = len(record["regions"])
            # `bad` compares the entries that can be read with those that can't.
            if labelled.error:
                bad.note(labelled.error)
            elif region_count == 0 and not unread:  # that nothing is there is an entry, too
                bad.read(1)
            else:
                bad.read(region_count)  # the unread ones are noted below
            yield record
            yield from _records_of_unread(unread, labelled.path, bad)
        yield from _records_of_unread(self.unread, None, bad)
        bad.finish()

    def _record_of(self, labelled: _Labelled, image_id: str, found: Found) -> dict[str, Any]:
        record: dict[str, Any] = {
            "image_id": image_id,
            "image_path": labelled.path,
            **size_columns(labelled.size),
            "source": SOURCE,
        }
        if labelled.error:
            return {**record, "regions": [], SEED_ERROR: labelled.error}
        return record | self._columns_of(labelled.label, labelled.path, labelled.size, found)

    def _columns_of(
        self, label: Label, path: str, size: Size | None, found: Found
    ) -> dict[str, Any]:
        # What a label says of its image, as columns of the record. What of it is left out or looks
        # wrong is added to `found`.
        columns: dict[str, Any] = {}
        if label.unread:
            columns[SKIPPED] = len(label.unread)
        regions = [*_regions_of_area(label, path, found)]
        columns["regions"] = regions
        if size is not None:
            found.add("boxes_beyond_their_image", boxes_beyond(regions, size, path))
        is_opened = size is not None  # an image that can't be opened fails for that
        if is_opened and regions:
            # The size that the labels state replaces the image's own. Where the two differ, the
            # boxes are of another picture, and the record fails in the run: `check_stated_size`.
            columns |= size_columns(self.stated_sizes.get(path))
        for what, words in _LEFT_OUT.items():
            found.count(what, label.left_out[words])
        return columns

    def _read(self, path: str) -> _Labelled:
        # The image at a path in `image_dir`, with its label; an empty one where it has none.
        size = upright_size(path, (self.image_dir,))
        label = _NO_LABEL
        try:
            if path in self.keys:
                label = self.label_of(self.keys[path], size)
        except BrokenRow as error:
            return _Labelled(path, size, label, str(error))
        return _Labelled(path, size, label)


def _records_of_unread(
    reasons: Iterable[str], path: str | None, bad: BadEntries
) -> Iterator[dict[str, Any]]:
    # A record that fails for each entry that can't be read: of the image at `path`, or of none.
    for why in reasons:
        bad.note(why)
        yield {"image_path": path, "regions": [], SEED_ERROR: why}


def _regions_of_area(label: Label, path: str, found: Found) -> Iterator[dict[str, Any]]:
    # The regions that have an area, as a record has them: without score and place in the file.
    # Those without one are added to `found`.
    for region in label.regions:
        box = region["bbox"]
        if area(box_of(box)) > 0:
            yield {"bbox": box, "type": region["type"]}
        else:
            found.add("boxes_without_an_area", [f"{path}: the box {box} has no area"])


def from_label_folder(
    image_dir: str, label_dir: str, key: str, names_file: str | None, boxless: bool
) -> Seeds:
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
    label_of: Callable[[str, Size | None], Label]
    other_files: list[str] = []  # in the folder of labels, that aren't labels
    files_of_names: list[str] = []
    if names_file is None:
        label_of = _label_of_kitti
    else:
        path_of_names = names_file or _names_file_of(label_dir, key)
        label_of = partial(_label_of_yolo, read_names(path_of_names))
        other_files = ["classes.txt"]
        files_of_names = [path_of_names]
    settings = (setting("data.image_dir"), setting(key))
    folder = label_folder(image_dir, label_dir, settings, other_files)
    if not folder.files:
        none = f"no label in {label_dir} belongs to an image in {image_dir}"
        raise InputError(f"{none}: the label of sub/a.jpg is sub/a.txt")
    labels = _Labels(image_dir, folder.pictures, keys=folder.files, label_of=label_of)
    files_read = [*folder.files.values(), *files_of_names]
    return labels.seeds(label_dir, files_read, folder.of_no_picture, boxless)


def _label_of_kitti(path: str, size: Size | None) -> Label:
    return read_kitti(path)


def _label_of_yolo(names: Names, path: str, size: Size | None) -> Label:
    # Where the size isn't known, the image can't be opened, and its record fails for that.
    return _NO_LABEL if size is None else read_yolo(path, names, size)


def _names_file_of(label_dir: str, key: str) -> str:
    # The classes.txt among the labels. Raises InputError where there is none.
    file = joined(label_dir, "classes.txt")
    if not kind_of(file):
        names_key = setting(f"{key.rpartition('.')[0]}.yolo_names")
        raise InputError(
            f"{names_key}: name the file with the class names (there is no {file} either)"
        )
    return file


def from_coco(image_dir: str, path: str, boxless: bool) -> Seeds:
    """Return seeds from a COCO file, also of images in `image_dir` that it doesn't name.

    Raises InputError where the file can't be read, or names no image of the folder, or one twice.
    """
    coco = CocoFile(path)
    left_out = coco.left_out()
    images = files_under(image_dir, ENDINGS, setting("data.image_dir"))
    id_of_name, size_of_id = _images_of(coco)
    _refuse_other_folder(coco, id_of_name, image_dir, images)
    of_no_image = sorted(id_of_name.keys() - {*images})
    if left_out[STRAYS]:
        of_no_image.append(f"{left_out[STRAYS]} annotations of no image")
    stated_sizes = {
        name: size_of_id[image_id]
        for name, image_id in id_of_name.items()
        if image_id in size_of_id
    }
    labels = _Labels(
        image_dir,
        images,
        keys=id_of_name,
        label_of=partial(_label_of_coco, coco, size_of_id),
        stated_sizes=stated_sizes,
        unread=coco.of_no_image,
    )
    return labels.seeds(path, [path], of_no_image, boxless, crowds=left_out[CROWDS])


def _refuse_other_folder(
    coco: CocoFile, id_of_name: Mapping[str, str], image_dir: str, images: Iterable[str]
) -> None:
    # Raises InputError where no image of the file is in the folder.
    if coco.of_no_image and not id_of_name:  # why an image can't be read says more than the next
        raise InputError(coco.of_no_image[0])
    if id_of_name.keys().isdisjoint(images):
        raise InputError(
            f"no image of {coco.path} is in {image_dir}: its file_name should be relative to"
            f" {setting('data.image_dir')}"
        )


def _label_of_coco(
    coco: CocoFile, size_of_id: Mapping[str, Size], image_id: str, own_size: Size | None
) -> Label:
    # The boxes are in a picture of the size that the file states: the image's own doesn't count.
    return coco.label(image_id, size_of_id.get(image_id))


def _images_of(coco: CocoFile) -> tuple[dict[str, str], dict[str, Size]]:
    # Two tables of the file's images: their ids by their paths in the folder of images, and the
    # sizes that the file states by their ids.
    id_of_name: dict[str, str] = {}
    size_of_id: dict[str, Size] = {}
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
            size_of_id[image_id] = size
    return id_of_name, size_of_id


def boxes_beyond(regions: Iterable[Mapping[str, Any]], size: Size, where: str) -> list[str]:
    """Return a line for each box that reaches out of an image of `size` (width, height).

    A line begins with `where`. A box that reaches out by ROUNDING or less has none. Corners are
    taken in their order: x1 and y1 may reach out to the left and above, x2 and y2 to the right and
    below.
    """
    boxes = [region["bbox"] for region in regions if reaches_beyond(region["bbox"], size)]
    return [f"{where}: {box} in {size[0]} x {size[1]} px" for box in boxes]


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
