"""KITTI and YOLO: classes, and for each picture a text file with a line per object.

The folder `labels/` mirrors `images/`. KITTI (devkit of the KITTI object benchmark,
cvlibs.net/datasets/kitti): type, truncated, occluded, alpha, x1, y1, x2, y2 in pixels, then size,
place and angle in space (7 numbers), and in detections a score. What follows the box is not used:
lines that end with it, or have one more number, are read, too. YOLO: class, cx, cy, width, height
in parts of the image's sides, perhaps a score; or class and an outline, x and y of three corners or
more, whose box is the one around it; or, if the data set's YAML has `kpt_shape`, a box and
keypoints, which are not used; or a box and the number of a track (see YoloRows). Further sources:
TAO's KITTI to COCO converter; ultralytics' data/utils.py.
"""

import codecs
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.errors import BrokenRow, InputError, errors_as
from dataflow_grounding._util.paths import open_input
from dataflow_grounding._util.terminal import counted, counted_items
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.bad_entries import ImportRefused
from dataflow_grounding.data.class_files import Names, read_names
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import JsonObject, Update, dump_text, is_number, read_object
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.class_tables import Numbers, read_texts, remarks_on_shared_names
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Phrase
from dataflow_grounding.formats.imported import COLUMN
from dataflow_grounding.formats.label_folders import (
    LabelFolder,
    find_label_folders,
    label_of,
)
from dataflow_grounding.formats.named_pictures import NamedPictures, named_pictures
from dataflow_grounding.formats.picture_files import PictureFiles
from dataflow_grounding.formats.reading import (
    KeyedExpression,
    entry_errors,
    picture_header,
    unite,
)
from dataflow_grounding.formats.stated_twice import Comparison


class Labelled(NamedTuple):
    """A box that a label says, in pixels."""

    type: str
    bbox: list[float]
    outline: list[float] | None = None
    score: float | None = None
    lost: Sequence[str] = ()  # keys of values that a record has no place for


class Label(NamedTuple):
    """What labels say of a picture."""

    regions: list[Labelled]
    others: int = 0  # how many further objects are in the picture, such as DontCare
    left_out: Counter[str] = Counter()  # by words, what else isn't taken as it is
    compared: Sequence[Comparison] = ()  # what is stated twice


LEFT_OUT = "dontcare"  # the type, in lower case, of KITTI's regions that aren't judged
# Of pixels that are read: far below what six decimals of a side can tell, so that they come out
# again.
DECIMALS = 4
DECIMALS_OF_POINTS = 6  # which eight decimals of a side tell
_MOST_ALPHA = 3.15  # pi, rounded up
TRACKS = "tracks, of which the boxes are read"
SLACK = 1e-3  # of a side: rounding may push a box this far over the edge
_NO_VAL = (
    "data.yaml has no val, which trainers want: `dataflowgrounding split --ratios 0.8/0.2` makes"
    " one, and `export` of the parts' folder writes all of them with one data.yaml"
)


def read_label_file(path: str, region_of: Callable[[list[str]], Labelled | None]) -> Label:
    """Return what is in a label file; `region_of` makes a line's fields a region, or none.

    Raises BrokenRow, which names the first line that can't be read.
    """
    regions: list[Labelled] = []
    others = 0
    left_out = Counter[str]()
    for number, fields in _lines_of(path):
        try:
            region = region_of(fields)
        except BrokenRow as error:
            raise BrokenRow(f"{path}, line {number}: {error}") from None
        if region is None:
            others += 1
        else:
            regions.append(region)
            left_out.update(f"values of {name!r}" for name in region.lost)
    return Label(regions, others, left_out)


def _lines_of(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that isn't blank. Raises BrokenRow."""
    with errors_as(BrokenRow, f"can't read {path}"), open_input(path) as file:
        data = file.read()
    data = data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            fields = line.decode().split()
        except UnicodeDecodeError:
            raise BrokenRow(f"{path}, line {number}: is not UTF-8") from None
        if fields:
            yield number, fields


def read_kitti(path: str) -> Label:
    return read_label_file(path, _kitti_region)


class YoloRows:
    """What the rows of a data set are, where one row alone doesn't tell.

    `yolo track save_txt` writes the number of a track after a box, or after its score
    (ultralytics/ultralytics issues 1357, 1781, 22256), and a pose looks like an outline
    (HumanSignal/label-studio issue 6502). So all rows of a set decide.
    """

    def __init__(self, files: Iterable[str], names: Names) -> None:
        self._counts: Counter[int] = Counter()  # of rows, by how many fields they have
        self._names = names
        self._sixths: list[str] = []  # what isn't 0 or 1 of the sixth columns, one of each kind
        self._are_sixths_whole = True
        self._are_sevenths_whole = True
        self._outline_lengths: set[int] = set()
        self._may_be_poses = True
        if names.keypoints:  # then each row is a box and its keypoints
            return
        for path in files:
            with suppress(BrokenRow):  # the file is read again, and reported then
                for _, fields in _lines_of(path):
                    self._look_at(fields)

    def _look_at(self, fields: list[str]) -> None:
        self._counts[len(fields)] += 1
        if len(fields) == 6:
            is_whole = fields[5].isdecimal()
            self._are_sixths_whole = self._are_sixths_whole and is_whole
            if fields[5] not in ("0", "1") and not self._sixths:
                self._sixths.append(fields[5])
        elif len(fields) == 7:
            self._are_sevenths_whole = self._are_sevenths_whole and fields[6].isdecimal()
        elif len(fields) > 7:
            self._outline_lengths.add(len(fields))
            self._may_be_poses = self._may_be_poses and _may_be_pose(fields)

    @property
    def _are_refused_as_poses(self) -> bool:
        return len(self._outline_lengths) == 1 and self._may_be_poses

    @property
    def _are_tracks(self) -> bool:
        return self._are_sixths_whole and bool(self._sixths)

    def region(self, fields: list[str], size: Size) -> Labelled:
        """Return the row's region in pixels: a box, perhaps with keypoints, or an outline."""
        class_name = class_in(fields[0], self._names)
        numbers = [*map(number_in, fields[1:])]
        if self._names.keypoints:
            count = 5 + self._names.keypoints
            if len(fields) != count:
                raise BrokenRow(
                    f"has {len(fields)} fields, a YOLO label of this kpt_shape has {count}"
                )
            return self._box(class_name, numbers[:4], size)
        if len(fields) == 5:
            return self._box(class_name, numbers, size)
        if len(fields) == 6:
            if self._are_tracks:
                return self._box(class_name, numbers[:4], size)
            return self._box(class_name, numbers[:4], size, score_among(numbers[4:]))
        if len(fields) == 7 and self._are_sevenths_whole:
            return self._box(class_name, numbers[:4], size, score_among(numbers[4:5]))
        if len(fields) > 7 and self._are_refused_as_poses:
            raise BrokenRow(
                "may be a pose, which is a box and its keypoints, or an outline: state kpt_shape in"
                " data.yaml for poses, or read rotated boxes with --format yolo-obb"
            )
        if len(fields) < 7 or len(fields) % 2 == 0:
            raise BrokenRow(
                f"has {len(fields)} fields, a YOLO label has 5 or 6 (class cx cy width height)"
            )
        _check_parts(numbers, fields)
        bbox = in_pixels(outlines.bounds(numbers), size, DECIMALS)
        return Labelled(class_name, bbox, in_pixels(numbers, size, DECIMALS_OF_POINTS))

    def _box(
        self, class_name: str, parts: list[float], size: Size, score: float | None = None
    ) -> Labelled:
        _check_parts(parts, [*map(str, ("", *parts))])
        bbox = in_pixels(_centred_corners(parts), size, DECIMALS)
        return Labelled(class_name, bbox, score=score)

    def read_as(self) -> dict[str, int]:
        """Return how many rows are read as what, in words; {} where all are boxes."""
        with_score_and_track = self._counts[7] if self._are_sevenths_whole else 0
        tracks = with_score_and_track + (self._counts[6] if self._are_tracks else 0)
        outline_count = self._counts[7] - with_score_and_track
        if not self._are_refused_as_poses:
            for length, count in self._counts.items():
                if length > 7 and length % 2:
                    outline_count += count
        if not tracks and not outline_count:
            return {}
        boxes = self._counts[5] + self._counts[6] + with_score_and_track
        counts = {"boxes": boxes, "outlines": outline_count, TRACKS: tracks}
        return {what: count for what, count in counts.items() if count}


def _check_parts(parts: Sequence[float], fields: Sequence[str]) -> None:
    if min(parts) < -SLACK or max(parts) > 1 + SLACK:
        raise BrokenRow(
            f"{' '.join(fields[1:5])} should be parts of the image's sides, from 0 to 1"
        )


def _may_be_pose(fields: Sequence[str]) -> bool:
    """Whether the first four numbers are a box in the picture that holds the points after them."""
    try:
        numbers = [*map(number_in, fields[1:])]
    except BrokenRow:
        return False
    x1, y1, x2, y2 = _centred_corners(numbers[:4])
    is_in_picture = min(x1, y1) >= -SLACK and max(x2, y2) <= 1 + SLACK
    if not is_in_picture:
        return False
    return any(_are_in_box(numbers[4:], step, (x1, y1, x2, y2)) for step in (2, 3))


def _are_in_box(numbers: Sequence[float], step: int, box: Bbox) -> bool:
    """Whether numbers are points in a box: x and y, and with a `step` of 3 if it is seen."""
    if len(numbers) % step:
        return False
    x1, y1, x2, y2 = box
    for start in range(0, len(numbers), step):
        x, y, *seen = numbers[start : start + step]
        if not set(seen) <= {0, 1, 2}:
            return False
        is_placed = (x, y) != (0, 0)  # a keypoint that isn't labelled is at 0, 0
        is_inside = x1 - SLACK <= x <= x2 + SLACK and y1 - SLACK <= y <= y2 + SLACK
        if is_placed and not is_inside:
            return False
    return True


def read_yolo(path: str, rows: YoloRows, size: Size) -> Label:
    return read_label_file(path, lambda fields: rows.region(fields, size))


def _kitti_region(fields: list[str]) -> Labelled | None:
    """Return the line's region, whose box may have no area; None for a DontCare line."""
    if fields[0].lower() == LEFT_OUT:
        return None
    # 8 fields end with the box, 15 are a whole label, the 16th is a score; some lines have 17.
    if not 8 <= len(fields) <= 17:
        raise BrokenRow(f"has {len(fields)} fields, a KITTI label has 8 to 17")
    numbers = [number_in(field) for field in fields[1:]]
    _check_kitti_fields(fields, *numbers[:3])
    bbox = numbers[3:7]  # after truncated, occluded and alpha
    x1, y1, x2, y2 = bbox
    if x2 < x1 or y2 < y1:
        raise BrokenRow(
            f"the box {' '.join(fields[4:8])} ends before it begins (x1 y1 x2 y2 is expected)"
        )
    score = score_among(numbers[14:])  # after the 7 numbers on the object in space
    lost = []  # what records have no place for, and isn't 0 or not known
    for name, value in zip(("truncated", "occluded"), numbers, strict=False):
        if value not in (0, -1):
            lost.append(name)
    return Labelled(fields[0], bbox, score=score, lost=lost)


def _check_kitti_fields(
    fields: Sequence[str], truncated: float, occluded: float, alpha: float
) -> None:
    """Raise BrokenRow where a line has something else than KITTI's fields, such as a tracker's."""
    if fields[0].count(".") == 1 and fields[0].replace(".", "").isdecimal():
        raise BrokenRow(f"begins with {fields[0]!r:.40}, a KITTI label begins with its class")
    if truncated != -1 and not 0 <= truncated <= 1:
        raise BrokenRow(f"{fields[1]!r:.40} should be how much is truncated, from 0 to 1, or -1")
    if occluded not in (-1, 0, 1, 2, 3):
        raise BrokenRow(f"{fields[2]!r:.40} should be how occluded it is, 0 to 3, or -1")
    if alpha != -10 and abs(alpha) > _MOST_ALPHA:
        raise BrokenRow(f"{fields[3]!r:.40} should be the angle alpha, from -pi to pi, or -10")


def in_pixels(parts: Sequence[float], size: Size, decimals: int) -> list[float]:
    """Return parts of a picture's sides, x and y in turn, as pixels."""
    return [round(part * size[i % 2], decimals) for i, part in enumerate(parts)]


def class_in(field: str, names: Names) -> str:
    """Return the class whose number a field is."""
    number = number_in(field)
    if number not in range(len(names.classes)):  # a range has 0.0 too, as NumPy writes it
        raise BrokenRow(f"class {field[:40]!r} is not one of the {len(names.classes)} names")
    return names.classes[int(number)]


def _centred_corners(parts: list[float]) -> Bbox:
    cx, cy, width, height = parts
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def number_in(text: str) -> float:
    is_whole = text.lstrip("+-").isdecimal()
    try:
        # A whole number is an int, so that it comes out as it was written.
        value = int(text) if is_whole else float(text)
    except ValueError:
        value = float("nan")  # which is refused below
    if not is_number(value) or "_" in text:  # Python takes 1_0.5 for a number
        raise BrokenRow(f"{text[:40]!r} is not a number")
    return value


def score_among(further: list[float]) -> float | None:
    """Return the score, if it is all that is left of a line after the numbers of each label."""
    is_score = len(further) == 1 and 0 <= further[0] <= 1
    return further[0] if is_score else None


class LabelFormat(PictureFiles):
    """Base of KITTI, YOLO, and their kin."""

    # what the file with the names of classes is called: the first is written, all are looked for
    names_files: ClassVar[tuple[str, ...]]
    names_of: ClassVar[Any]  # reads such a file by its path
    named_by: ClassVar[Any] = staticmethod(lambda file: NamedPictures())  # what pictures it names
    # pairs of what sibling folders of pictures and of their labels are called
    folders: ClassVar[Sequence[tuple[str, str]]] = ((FOLDER, "labels"), ("image_2", "label_2"))
    ending = ".txt"

    def head(self, pictures: Mapping[str, str]) -> str:
        """Return the beginning of the file of names; `pictures` has each part's folder."""
        return ""

    @abstractmethod
    def classes_of(self, names: Any) -> list[str]:
        """Return the classes that a file with their names has, in its order."""

    @abstractmethod
    def entry(self, number: int, name: str) -> str:
        """Return the line of the names' file for a class; `number` counts from 1."""

    @abstractmethod
    def line(self, number: int, phrase: Phrase, index: int, size: Size) -> str:
        """Return the line of a phrase's box of that index; `number` is its class's, from 1."""

    def begin(self, names: Any, files: Sequence[str]) -> None:
        """Take in the names of classes, None where no file has them, and all files of labels."""

    @abstractmethod
    def label(self, file: str, size: Size, names: Any) -> Label:
        """Return what is in a label file."""

    @contextmanager
    def shared(self, out: ExportFolder) -> Iterator[None]:
        """Write the names of classes once for all parts; a class has one number in all of them."""
        pictures = {part: f"{part}/{FOLDER}" for part in out.parts} or {"train": FOLDER}
        with super().shared(out), out.file(self.names_files[0]) as names_file:

            def write_entry(number: int, name: str) -> None:
                names_file.write(self.entry(number, name) + "\n")

            names_file.write(self.head(pictures))
            numbers = Numbers(write_entry)  # which is called for each name that gets a number
            self._write_names_back(numbers, write_entry)
            for name in self._classes.fixed:
                numbers.number_of(name)  # this writes its entry
            count_before_labels = numbers.count
            self._numbers = numbers  # from which the lines of boxes take theirs
            yield  # the label files are written, and classes that are new get numbers
            if not numbers.count:
                names_file.write("  {}\n")  # no class has come: an empty mapping, in YAML
            new_class_count = numbers.count - count_before_labels
            # The fixed classes are counted by their names: several numbers may share one of these.
            class_count = len(self._classes.fixed) + new_class_count
            self.remarks += self._classes.remarks_on_numbers(class_count)

    def _write_names_back(self, numbers: Numbers, write_entry: Callable[[int, str], None]) -> None:
        names_back = self.names_back()
        self._classes.as_they_are.update(names_back)
        for number, name in enumerate(names_back, 1):
            # `number_of` would give one number to several classes that share a name, or have none.
            write_entry(number, name)
            is_blank = not name.strip()  # `_written` would make "object" of it
            numbers.reserve("" if is_blank else self._written(name))

    def names_back(self) -> Sequence[str]:
        """Return the names of classes, as they were, of the source that goes back; here none."""
        return ()

    def _written(self, name: str) -> str:
        return self._classes.written_class_of(Expression(name, class_name=name))

    def why_shared(self, file_name: str, pictures: set[str]) -> str:
        """Return the message on a picture whose label file is that of an earlier one."""
        stem, _ = os.path.splitext(file_name)
        same = (name for name in pictures if os.path.splitext(name)[0] == stem)
        earlier = next(same, "another picture")
        return (
            f"{earlier} and {file_name} would share {self.file_of(file_name)}: rename one, in the"
            " run's input too, and run generate again, which asks for nothing that is stored"
        )

    def line_of(self, phrase: Phrase, number: int, size: Size) -> str:
        # it also writes a new name into the names' file
        return self.line(self._numbers.number_of(phrase.text), phrase, number, size)

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each picture, sorted in each folder, with or without a label file."""
        if is_remote(path):
            raise InputError(f"{path}: {self.name} is read from this machine alone: copy it here")
        top = path if os.path.isdir(path) else os.path.dirname(path) or "."
        names_file = self._names_file(path, top)
        names = None  # as the file has them: with their keypoints, or by the words of labels
        named = NamedPictures()
        if names_file is not None:
            names = self.names_of(names_file)
            self.class_names = self.classes_of(names)
            self._compare_with_notes(names_file)
            named = self.named_by(names_file)
        folders = find_label_folders(top, image_root, self.folders, named, self.names_files)
        self._tell_doubts(folders, named.lines_on_missing(), top, image_root)
        self.begin(names, [file for folder in folders for file in folder.files.values()])
        for folder in folders:
            self.passed_over["label files without a picture"] += len(folder.of_no_picture)
            self.passed_over["pictures that the data set's lists leave out"] += folder.unlisted
            for image in folder.pictures:
                file = folder.files.get(image)  # None for a picture without a label
                where = file or os.path.join(folder.label_dir, label_of(image))
                with entry_errors(where, self.bad):  # at an error the picture is left out
                    header = picture_header(folder.image_dir, image, where)
                    if file is not None and header.stored_size != header.size:
                        self.passed_over["labels of turned pictures, read as upright"] += 1
                    image_path = os.path.relpath(folder.path_of(image), image_root)
                    yield self._row(image_path, header.size, file, names)
        self.finish()

    def _compare_with_notes(self, names_file: str) -> None:
        """Refuse names that differ from those of notes.json, which Label Studio writes next to them
        (HumanSignal/label-studio issue 6416).
        """
        notes = read_object(os.path.join(os.path.dirname(names_file), "notes.json"))
        categories = notes.get("categories")
        if not isinstance(categories, list):
            return
        try:
            names = [str(each["name"]) for each in sorted(categories, key=lambda each: each["id"])]
        except (LookupError, TypeError):
            return
        if names != list(self.class_names):
            raise InputError(
                f"{names_file} and notes.json next to it name other classes, or in another order:"
                " which are those of the labels? Leave one of the two"
            )

    def _tell_doubts(
        self, folders: Sequence[LabelFolder], missing: list[str], top: str, image_root: str
    ) -> None:
        """Add doubts to `remarks`, or with `strict` refuse them; refuse a lack of pictures."""
        if not any(folder.pictures for folder in folders):
            where = " and ".join(dict.fromkeys(folder.image_dir for folder in folders))
            why = f"no picture in {where}: name the image root"
            raise InputError("; ".join([why, *missing]))
        doubts = _doubts_on_backgrounds(folders, top)
        # A user who has named an image root knows that the pictures are in another place. CVAT, for
        # one, exports labels without pictures, with lists of them.
        is_root_named = os.path.abspath(image_root) != os.path.abspath(top)
        if not is_root_named:
            doubts += missing
        if doubts and self.strict:
            raise InputError("; ".join(doubts))
        self.remarks += doubts

    def _row(self, image_path: str, size: Size, file: str | None, names: Any) -> Update:
        row: Update = {"image_path": image_path, "width": size[0], "height": size[1]}
        if file is None:
            row["expressions"] = []
        else:
            row |= self._columns_of(file, size, names)
        return row

    def _names_file(self, path: str, top: str) -> str | None:
        """Return the file with the names of classes: `path`, or one in the data set's folder."""
        files = [path]
        if top == path:
            files = [os.path.join(top, name) for name in self.names_files]
        for file in files:
            if os.path.isfile(file):
                return file
        return None

    def _columns_of(self, file: str, size: Size, names: Any) -> Update:
        """Return the columns of a label file's record; regions of one class are one expression."""
        try:
            label = self.label(file, size, names)
        except (BrokenRow, OSError) as error:
            raise InputError(str(error)) from None  # it names file and line
        self.passed_over.add_all(label.left_out)
        columns: dict[str, Any] = {}
        if not label.regions and label.others:
            columns["background"] = False  # so an export doesn't take the picture for an empty one
        columns["expressions"] = unite(map(_keyed_expression, label.regions))
        return columns

    def finish(self) -> None:
        """Add remarks on what was read."""


def _doubts_on_backgrounds(folders: Sequence[LabelFolder], top: str) -> list[str]:
    """Return lines on the pictures that are read as backgrounds, without a label file."""
    without_label = []
    for folder in folders:
        names = [image for image in folder.pictures if image not in folder.files]
        without_label += [os.path.relpath(folder.path_of(name), top) for name in names]
    picture_count = sum(len(folder.pictures) for folder in folders)
    has_any_label = len(without_label) < picture_count
    if has_any_label:
        return counted_items("pictures without a label file, read as backgrounds", without_label)
    backgrounds = f"{counted(picture_count, 'picture')} read as backgrounds, without a box"
    return [f"no label file in {top}: {backgrounds}. Name the folder that holds the labels"]


def _keyed_expression(region: Labelled) -> KeyedExpression:
    instance: dict[str, Any] = {"bbox": region.bbox}
    if region.outline is not None:
        instance[outlines.KEY] = region.outline
    if region.score is not None:
        instance["score"] = region.score
    if region.outline is not None:  # one whose box is moved later is no outline of it
        instance[COLUMN] = {"bbox": region.bbox}
    return region.type, {"text": region.type, "instances": [instance]}


class NamedLabels(LabelFormat):
    """Base of KITTI and DOTA, whose labels have words for classes; classes.yaml explains them."""

    names_files = ("classes.yaml",)
    names_of = staticmethod(read_texts)

    def classes_of(self, names: Mapping[str, str]) -> list[str]:
        """Return the names of classes.yaml, which has them by the words that labels use."""
        return list(names.values())

    def entry(self, number: int, name: str) -> str:
        """Return the line of classes.yaml for a class: `"traffic_light": "traffic light"`."""
        return f"{dump_text(self.word_of(name))}: {dump_text(name)}"

    def word_of(self, name: str) -> str:
        return name.replace(" ", self.joint)

    def named(self, label: Label, names: Mapping[str, str] | None) -> Label:
        """Set the regions' types to their names in classes.yaml, where they have one."""
        name_of_type = names or {}
        regions = [
            region._replace(type=name_of_type.get(region.type, region.type))
            for region in label.regions
        ]
        return label._replace(regions=regions)


class Kitti(NamedLabels):
    """KITTI. A label with a score has 16 fields, else 15."""

    joint = "_"

    def line(self, number: int, phrase: Phrase, index: int, size: Size) -> str:
        """Return KITTI's line: the class's name, corners in pixels, zeros for what isn't known."""
        corners = " ".join(f"{value:.3f}" for value in phrase.boxes[index])
        score = phrase.scores[index]
        score_field = "" if score is None else f" {score:.6g}"
        name = self.word_of(phrase.text)
        return f"{name} 0.00 0 0.00 {corners}{' 0.00' * 7}{score_field}"

    def label(self, file: str, size: Size, names: Any) -> Label:
        """Return what is in a label file, with the names of classes.yaml for types."""
        label = read_kitti(file)
        self.passed_over["DontCare lines"] += label.others
        return self.named(label, names)


@dataclass
class Yolo(LabelFormat):
    """YOLO: parts of the sides, in eight decimals; data.yaml has the classes, from 0."""

    preamble: JsonObject = field(default_factory=dict)  # `names` of a source that goes back

    names_files = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
    joint = "/"  # between words for one thing
    names_of = staticmethod(read_names)
    named_by = staticmethod(named_pictures)

    def head(self, pictures: Mapping[str, str]) -> str:
        """Return the folders of all parts' pictures; a remark tells that there is no `val`."""
        if "val" not in pictures:
            self.remarks.append(_NO_VAL)
        folders = "".join(f"{name}: {folder}\n" for name, folder in pictures.items())
        return f"{folders}names:\n"

    def classes_of(self, names: Names) -> list[str]:
        """Return the names of classes, from class 0; a remark tells which names are shared."""
        self.preamble = {"names": names.classes}
        self.remarks += remarks_on_shared_names(enumerate(names.classes), self.name)
        return names.classes

    def entry(self, number: int, name: str) -> str:
        """Return the line of data.yaml for a class, numbered from 0: `  0: "cat"`."""
        return f"  {number - 1}: {dump_text(name)}"

    def line(self, number: int, phrase: Phrase, index: int, size: Size) -> str:
        """Return class from 0, centre, width and height, or the points of an outline; no score."""
        x1, y1, x2, y2 = phrase.boxes[index]
        centred = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        return yolo_line(number, phrase.outline(index) or centred, size)

    def names_back(self) -> Sequence[str]:
        """Return the names of the imported data.yaml, unless the export has others."""
        if self.classes != "class":  # the user wants others, such as the head nouns of phrases
            return ()
        names = self.preamble.get("names")
        if not isinstance(names, list):  # no data set of YOLO's goes back
            return ()
        if not all(isinstance(name, str) for name in names):  # run.json may be damaged
            return ()
        if not self.class_list:
            return names
        # `fixed` are the classes that the user lists. The imported ones may have a name twice.
        distinct = dict.fromkeys(self._written(name) for name in names if name.strip())
        is_same_order = [*distinct] == self._classes.fixed
        return names if is_same_order else ()

    def why_outlines_lost(self, phrases: Sequence[Phrase], size: Size) -> str:
        """Return the report where a box has no outline of its size: all become boxes then."""
        boxes = [box for phrase in phrases for box in phrase.expression.instances]
        if all(box.outline is None for box in boxes):
            return ""
        if all(_is_around_outline(box, size) for box in boxes):
            return ""
        return "outlines in pictures with a box that has no outline of its size"

    def begin(self, names: Names | None, files: Sequence[str]) -> None:
        if names is None and files:
            raise ImportRefused(
                f"{files[0]}: no {' or '.join(self.names_files)} with the names of classes in the"
                " data set: name the file that has them in place of the folder"
            )
        self._rows = YoloRows(files, names or Names([]))

    def label(self, file: str, size: Size, names: Names) -> Label:
        label = read_yolo(file, self._rows, size)
        if names.keypoints:
            self.passed_over["keypoints of boxes"] += len(label.regions)
        return label

    def finish(self) -> None:
        counts = [f"{count:,} {what}" for what, count in self._rows.read_as().items()]
        if counts:
            self.remarks.append(f"rows of labels were read as {', '.join(counts)}")


def yolo_line(number: int, pixels: Sequence[float], size: Size) -> str:
    """Return a line of YOLO's: a class, counted from 1, and numbers of pixels, x and y in turn."""
    parts = [pixel / size[i % 2] for i, pixel in enumerate(pixels)]
    return f"{number - 1} {' '.join(f'{part:.8f}' for part in parts)}"


def _is_around_outline(instance: Instance, size: Size) -> bool:
    outline = instance.outline
    return outline is not None and outlines.is_around(instance.bbox, outline, size)
