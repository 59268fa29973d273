"""Folders of pictures with the folders of their labels, as YOLO, KITTI and DOTA have them."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import joined, path_within
from dataflow_grounding.formats.found_pictures import name_key
from dataflow_grounding.formats.named_pictures import NamedPictures
from dataflow_grounding.formats.reading import files_under
from dataflow_grounding.images.files import ENDINGS


class LabelFolder(NamedTuple):
    """A folder of pictures with its folder of labels: the label of sub/a.jpg is sub/a.txt."""

    image_dir: str
    label_dir: str
    pictures: list[str]  # paths in `image_dir`, in order
    files: dict[str, str]  # the label files of the pictures that have one, by the picture's path
    of_no_picture: list[str]  # labels' paths in `label_dir`, sorted
    unlisted: int = 0  # how many pictures of the folder the data set's lists leave out

    def kept(self, pictures: list[str], unlisted: int = 0) -> "LabelFolder":
        """Return the folder with only these of its pictures."""
        files = {image: self.files[image] for image in pictures if image in self.files}
        return self._replace(pictures=pictures, files=files, unlisted=unlisted)

    def path_of(self, image: str) -> str:
        return os.path.join(self.image_dir, image)


def label_folder(
    pictures: str, labels: str, keys: tuple[str, str], names_files: Iterable[str] = ()
) -> LabelFolder:
    """Find the labels of pictures; `keys` are what messages call the two folders."""
    images = files_under(pictures, ENDINGS, keys[0])
    label_files = set(files_under(labels, (".txt",), keys[1])).difference(names_files)
    of_no_picture = label_files.difference(map(label_of, images))
    label_of_image = {image: label_of(image) for image in images if label_of(image) in label_files}
    # A label's name may differ from its picture's in the case of letters or in Unicode's form.
    without_label = _by_name_key(image for image in images if image not in label_of_image)
    for key, alike in _by_name_key(of_no_picture).items():
        same = without_label.get(key, [])
        if len(alike) == len(same) == 1:  # of several, nothing says which one is meant
            label_of_image[same[0]] = alike[0]
            of_no_picture.discard(alike[0])
    file_of_image = {}
    for image in images:
        if image in label_of_image:
            file_of_image[image] = joined(labels, label_of_image[image])
    return LabelFolder(pictures, labels, images, file_of_image, sorted(of_no_picture))


def _by_name_key(names: Iterable[str]) -> dict[str, list[str]]:
    names_by_key: dict[str, list[str]] = {}
    for name in names:
        names_by_key.setdefault(name_key(os.path.splitext(name)[0]), []).append(name)
    return names_by_key


def label_of(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"


def find_label_folders(
    top: str,
    image_root: str,
    folder_names: Sequence[tuple[str, str]],
    named: NamedPictures,
    other_files: Iterable[str],
) -> list[LabelFolder]:
    """Return the folders of a data set, in which each picture is once.

    They are in `top` and the folders directly in it, as YOLO, Roboflow and KITTI lay them out, and
    where the data set's file names pictures (`named`).
    """
    pairs = _pairs_in(top, folder_names)
    laid_out = [pair.absolute for pair in pairs]
    for pictures, labels in named.pictures_of_pair:
        if (pictures, labels) not in laid_out:
            pairs.append(_Pair(pictures, labels, is_only_named=True))
    folders = []
    if not pairs:  # no folder has such a name: the labels are in `top` itself
        pairs = [_Pair(image_root, top)]
    for pair in pairs:
        in_order = _picture_folders(pair.pictures, top, image_root)
        folders.append(_folder_of(pair, in_order, named, other_files))
    return folders if len(folders) == 1 else _each_picture_once(folders)


class _Pair(NamedTuple):
    """A folder of pictures, which may be missing, and the folder of their labels."""

    pictures: str
    labels: str
    # The two aren't called as such folders usually are: the data set's file names pictures there.
    is_only_named: bool = False

    @property
    def absolute(self) -> tuple[str, str]:
        return os.path.abspath(self.pictures), os.path.abspath(self.labels)


def _pairs_in(top: str, folder_names: Sequence[tuple[str, str]]) -> list[_Pair]:
    tops = [top, *sorted(entry.path for entry in os.scandir(top) if entry.is_dir())]
    pairs = []
    for folder in tops:
        for pictures_name, labels_name in folder_names:
            labels = os.path.join(folder, labels_name)
            if os.path.isdir(labels):
                pairs.append(_Pair(os.path.join(folder, pictures_name), labels))
    return pairs


def _folder_of(
    pair: _Pair, in_order: list[str], named: NamedPictures, other_files: Iterable[str]
) -> LabelFolder:
    """Return a pair's pictures that belong to the data set, sought in the folders `in_order`."""
    # A list of pictures, such as train.txt, may be among the labels, and is no label.
    lists = [os.path.relpath(file, os.path.abspath(pair.labels)) for file in named.lists]
    folder = _folder_of_labels(in_order, pair.labels, [*other_files, *lists])
    if pair.is_only_named and pair.pictures == pair.labels:
        # Pictures and labels share a folder that only the data set's file names. A text in it may
        # be anything: it isn't taken for a label without a picture.
        folder = folder._replace(of_no_picture=[])
    no_label_has_picture = bool(folder.of_no_picture) and not folder.files
    if no_label_has_picture:
        where = os.path.join(pair.labels, folder.of_no_picture[0])
        why = f"{where}: no such picture in {' or '.join(in_order)}: name the image root"
        raise InputError("; ".join([why, *named.lines_on_missing()]))
    is_in_root = folder.image_dir != pair.pictures
    if is_in_root and os.path.isdir(pair.pictures):
        # The pictures were found in the image root, which may have those of other data sets, too.
        # Those that have a label, or are in the pair's own folder, are of this one.
        own = set(files_under(pair.pictures, ENDINGS, "pictures"))
        if own:
            kept = [image for image in folder.pictures if image in own or image in folder.files]
            folder = folder.kept(kept)
    if named.are_listed or pair.is_only_named:
        # The data set's files name its pictures: others in the folder are of no concern.
        folder = _of_named(folder, pair.absolute, named)
    return folder


def _picture_folders(pictures: str, top: str, image_root: str) -> list[str]:
    """Return where the pictures of a pair may be, the best first.

    - The user has named no image root: only the pair's own folder, if it exists.
    - The root is inside the own folder, or around it: the own folder, then the root and its
      folders, because the root may only say what paths start from.
    - The root is apart from the own folder: only the root and its folders.
    """
    own_path = os.path.abspath(pictures)
    root = os.path.abspath(image_root)
    is_root_named = root != os.path.abspath(top)
    is_apart = not (path_within(own_path, root) or path_within(root, own_path))
    is_in_root_instead = is_root_named and is_apart
    folders = []
    if os.path.isdir(pictures) and not is_in_root_instead:
        folders.append(pictures)
        if not is_root_named:
            return folders
    folders.append(image_root)
    # Where the own folder is train/images of the data set, the root may have train/images, or only
    # train.
    own_in_data_set = path_within(own_path, os.path.abspath(top))
    for path in (own_in_data_set, os.path.dirname(own_in_data_set)):
        if path and os.path.isdir(os.path.join(image_root, path)):
            folders.append(os.path.join(image_root, path))
    return folders


def _folder_of_labels(in_order: list[str], labels: str, other_files: list[str]) -> LabelFolder:
    """Return the first folder that has a picture of one of the labels, else the first of all."""
    keys = ("pictures", "labels")  # what messages call the two
    folders = []
    for pictures in in_order:
        folder = label_folder(pictures, labels, keys, other_files)
        if folder.files:
            return folder
        folders.append(folder)
    return folders[0]


def _of_named(folder: LabelFolder, pair: tuple[str, str], named: NamedPictures) -> LabelFolder:
    """Keep the pictures that the data set names; count those that its lists leave out."""
    wanted = named.pictures_of_pair.get(pair, set())
    kept = []
    for image in folder.pictures:
        if os.path.normpath(os.path.join(pair[0], image)) in wanted:
            kept.append(image)
    unlisted = len(folder.pictures) - len(kept) if named.are_listed else 0
    return folder.kept(kept, unlisted)


def _each_picture_once(folders: list[LabelFolder]) -> list[LabelFolder]:
    """Keep a picture with each of its label files, or without any in the first folder."""
    labelled: set[str] = set()
    for folder in folders:
        labelled.update(os.path.abspath(folder.path_of(image)) for image in folder.files)
    seen: set[tuple[str, str]] = set()  # pictures with their label files
    all_kept = []
    for folder in folders:
        kept = []
        for image in folder.pictures:
            path = os.path.abspath(folder.path_of(image))
            file = os.path.abspath(folder.files.get(image, ""))
            has_other_label = image not in folder.files and path in labelled
            if not has_other_label and (path, file) not in seen:
                seen.add((path, file))
                kept.append(image)
        all_kept.append(folder.kept(kept, folder.unlisted))
    return all_kept
