"""KITTI and YOLO: classes, and for each picture a text file with a line per object; `labels/`
mirrors `images/`.

KITTI (devkit of the KITTI object benchmark, cvlibs.net/datasets/kitti): type, truncated, occluded,
alpha, x1, y1, x2, y2 in pixels, then size, place and angle in space (7 numbers), and in detections
a score. What stands after the box is not used: lines that end with it, or with a number more, are
read too. YOLO: class, cx, cy, width, height in parts of the image's sides, perhaps a score; or
class and an outline, x and y of three corners or more, which is read as the box around it, as
ultralytics does; or, where the data set's YAML has `kpt_shape`, a box and keypoints, which are not
used. Further sources: TAO's KITTI to COCO converter; ultralytics' data/utils.py.
"""

import codecs
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.files import portable
from dataflow_grounding._util.paths import open_file
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import dump_text, is_number, name_within
from dataflow_grounding.extras.formats._classes import Classes, Numbers, read_texts
from dataflow_grounding.extras.formats._pictures_ahead import Pictures
from dataflow_grounding.extras.formats.base import Format, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.export_pictures import FOLDER
from dataflow_grounding.extras.formats.reading import ENDINGS, files_under, picture_size, united

# A region: `bbox` ([x1, y1, x2, y2] in pixels), `type`, perhaps `score`
Labelled: TypeAlias = dict[str, Any]
# Those of YOLO's classes, and how many numbers of keypoints follow a box
Names: TypeAlias = tuple[list[str], int]
OfLine: TypeAlias = Callable[[list[str]], list[Labelled]]
LEFT_OUT = "dontcare"
# 1/10,000 px: far below what six decimals of a side can tell, so that they come out again.
DECIMALS = 4
SLACK = 1e-3  # of a side: rounding may push a box this far over the edge
_FOLDERS = ((FOLDER, "labels"), ("image_2", "label_2"))


def read_labels(path: str, of_line: OfLine, left_out: list[str] | None = None) -> list[Labelled]:
    """The regions of a label file, by what `of_line` makes of the fields of a line; why lines are
    bad: in `left_out`.

    Raises OSError; BrokenRow for a bad line, where there is no `left_out`.
    """
    regions: list[Labelled] = []
    with open_file(path) as file:
        data = (
            file.read().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        )
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            if fields := line.decode().split():
                regions += of_line(fields)
        except (BrokenRow, UnicodeDecodeError) as error:
            why = error if isinstance(error, BrokenRow) else "is not UTF-8"
            broken = BrokenRow(f"{path}, line {number}: {why}")
            if left_out is None:
                raise broken from None
            left_out.append(str(broken))
    return regions


def of_kitti(fields: list[str]) -> list[Labelled]:
    """The region of a KITTI line, with its own numbers; none of a DontCare line.
    Raises BrokenRow.
    """
    if fields[0].lower() == LEFT_OUT:
        return []
    if not 8 <= len(fields) <= 17:
        raise BrokenRow(f"has {len(fields)} fields, a KITTI label has 8 to 17")
    numbers = [*map(_number, fields[1:])]
    x1, y1, x2, y2 = bbox = numbers[3:7]
    if x2 < x1 or y2 < y1:
        raise BrokenRow(
            f"the box {' '.join(fields[4:8])} ends before it begins (x1 y1 x2 y2 is expected)"
        )
    return [{"bbox": bbox, "type": fields[0], **_score(numbers[14:])}]


def of_yolo(names: list[str], keypoints: int, size: Size, fields: list[str]) -> list[Labelled]:
    """The region of a YOLO line, of an image of `size` (width, height) in px. Raises BrokenRow."""
    if keypoints and len(fields) != 5 + keypoints:
        raise BrokenRow(
            f"has {len(fields)} fields, a YOLO label of this kpt_shape has {5 + keypoints}"
        )
    fields = fields[:5] if keypoints else fields
    outline = len(fields) > 6 and len(fields) % 2 == 1
    if len(fields) not in (5, 6) and not outline:
        raise BrokenRow(
            f"has {len(fields)} fields, a YOLO label has 5 or 6 (class cx cy width height)"
        )
    number, *numbers = map(_number, fields)
    if number not in range(len(names)):  # 0.0, as NumPy writes it, is
        raise BrokenRow(f"class {fields[0][:40]!r} is not one of the {len(names)} names")
    cx, cy, width, height, *_ = parts = numbers if outline else numbers[:4]
    if min(parts) < -SLACK or max(parts) > 1 + SLACK:
        raise BrokenRow(
            f"{' '.join(fields[1:5])} should be parts of the image's sides, from 0 to 1"
        )
    corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    if outline:
        corners = (min(parts[::2]), min(parts[1::2]), max(parts[::2]), max(parts[1::2]))
    bbox = [round(corner * size[n % 2], DECIMALS) for n, corner in enumerate(corners)]
    return [{"bbox": bbox, "type": names[int(number)], **_score([] if outline else numbers[4:])}]


def _number(text: str) -> float:
    """A finite number, whole ones as int, so that it is written back as it was.
    Raises BrokenRow.
    """
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        value = float("nan")
    if not is_number(value) or "_" in text:
        raise BrokenRow(f"{text[:40]!r} is not a number")
    return value


def _score(last: list[float]) -> dict[str, float]:
    """What stands alone behind a label's other numbers, if it is a score."""
    return {"score": last[0]} if len(last) == 1 and 0 <= last[0] <= 1 else {}


def read_names(path: str) -> Names:
    """One name per line, or a data set's YAML with `names` (list or mapping), and `kpt_shape`.
    Raises InputError.
    """
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the class names in {path}: {error}") from None
    if os.path.splitext(path)[1].lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()], 0
    import yaml

    try:
        data = yaml.safe_load(text)
        names, (count, numbers) = data["names"], data.get("kpt_shape") or (0, 0)
        return [str(names[key]) for key in range(len(names))], int(count) * int(numbers)
    except Exception:  # PyYAML lets through what its constructors raise
        raise InputError(
            f"{path} has no 'names' of classes 0, 1, 2 ..., or no kpt_shape such as [17, 3]"
        ) from None


@dataclass
class _LabelFormat(Format):
    """What both share. Pictures that would have one label file are refused."""

    classes: str = "phrase"
    names_files: ClassVar[tuple[str, ...]]  # the first is written
    head: ClassVar[str] = ""
    joint: ClassVar[str]
    names_of: ClassVar[Any]

    def __post_init__(self) -> None:
        self._classes = Classes(self.classes, self.joint)

    def safe(self, text: str) -> str:
        """The phrase's class: these formats have no other words."""
        return self._classes.of(text)

    @abstractmethod
    def entry(self, number: int, name: str) -> str: ...

    @abstractmethod
    def line(self, number: int, name: str, box: Bbox, score: float | None, size: Size) -> str: ...

    @abstractmethod
    def regions(self, label: str, size: Size, names: Any) -> list[Labelled]:
        """What is in a label file; `names` are None where there is no file with them. Raises
        BrokenRow, InputError.
        """

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        pictures = Numbers()
        with out.file(self.names_files[0]) as names:
            classes = Numbers(lambda number, name: names.write(self.entry(number, name) + "\n"))
            names.write(self.head)
            for name in self._classes.fixed:
                classes.of(name)
            for sample in samples:
                label = portable(
                    f"labels/{name_within(sample.file_name.removeprefix(f'{FOLDER}/'), None)}.txt"
                )
                lines = ""
                for phrase in sample.phrases:
                    number, _ = classes.of(phrase.text)
                    for box, score in zip(phrase.boxes, phrase.scores, strict=True):
                        lines += self.line(number, phrase.text, box, score, sample.size) + "\n"
                try:
                    with open(
                        out.place(label), "xb" if pictures.of(sample.file_name)[1] else "ab", 0
                    ) as file:
                        file.write(lines.encode())
                except FileExistsError:
                    both = f"{sample.file_name} and another picture"
                    raise InputError(f"{both} would share {label}: rename one") from None
            names.write("" if len(classes) else "  {}\n")

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        top = path if os.path.isdir(path) else os.path.dirname(path) or "."
        files = [path] if top != path else [os.path.join(top, name) for name in self.names_files]
        names = next((type(self).names_of(file) for file in files if os.path.isfile(file)), None)
        for pictures, labels in _folders(top, image_root):
            images = files_under(pictures, ENDINGS, "pictures")
            wanted = set(map(_label_of, images))
            there = set(files_under(labels, (".txt",), "labels")) - {*self.names_files}
            if there and there.isdisjoint(wanted):
                where = os.path.join(labels, min(there))
                raise InputError(f"{where}: no such picture in {pictures}: name the image root")
            self.passed_over["label files without a picture"] += len(there - wanted)
            finder = Pictures((pictures,))
            for image in finder.ahead(images, str):
                label, picture = (
                    _label_of(image),
                    os.path.relpath(os.path.join(pictures, image), image_root),
                )
                size = picture_size(finder, image, file := os.path.join(labels, label))
                said = self._said(file, size, names) if label in there else {"expressions": []}
                yield {"image_path": picture, "width": size[0], "height": size[1], **said}

    def _said(self, file: str, size: Size, names: Any) -> dict[str, Any]:
        """What a label file says of its picture, by column. Raises InputError."""
        try:
            regions, is_empty = self.regions(file, size, names), os.path.getsize(file) == 0
        except (BrokenRow, OSError) as error:
            raise InputError(f"can't read a label: {error}") from None
        expressions = united(
            (one["type"], {"text": one.pop("type"), "instances": [one]}) for one in regions
        )
        unsaid = {} if regions or is_empty else {"background": False}  # of DontCare alone, say
        return {**unsaid, "expressions": expressions}


class Kitti(_LabelFormat):
    """KITTI: classes are words without blanks, told in classes.yaml; a label with a score has 16
    fields, else 15.
    """

    names_files = ("classes.yaml",)
    joint = "_"
    names_of = staticmethod(read_texts)

    def entry(self, number: int, name: str) -> str:
        return f"{dump_text(name.replace(' ', '_'))}: {dump_text(name)}"

    def line(self, number: int, name: str, box: Bbox, score: float | None, size: Size) -> str:
        corners = " ".join(f"{value:.3f}" for value in box)
        score_field = "" if score is None else f" {score:.6g}"
        return f"{name.replace(' ', '_')} 0.00 0 0.00 {corners}{' 0.00' * 7}{score_field}"

    def regions(self, label: str, size: Size, names: Any) -> list[Labelled]:
        classes = names or {}
        return [
            {**one, "type": classes.get(one["type"], one["type"])}
            for one in read_labels(label, of_kitti)
        ]


class Yolo(_LabelFormat):
    """YOLO: parts of the sides, in eight decimals; data.yaml has the classes, from 0."""

    names_files = ("data.yaml", "dataset.yaml", "classes.txt")
    head = f"train: {FOLDER}\nval: {FOLDER}\nnames:\n"
    joint = "/"  # between words for one thing
    names_of = staticmethod(read_names)

    def entry(self, number: int, name: str) -> str:
        return f"  {number - 1}: {dump_text(name)}"

    def line(self, number: int, name: str, box: Bbox, score: float | None, size: Size) -> str:
        (width, height), (x1, y1, x2, y2) = size, box
        parts = (
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        )
        return f"{number - 1} {' '.join(f'{part:.8f}' for part in parts)}"

    def regions(self, label: str, size: Size, names: Names | None) -> list[Labelled]:
        if names is None:
            raise InputError(
                f"{label}: no {' or '.join(self.names_files)} with the names of classes in the"
                " data set"
            )
        return read_labels(label, partial(of_yolo, *names, size))


def _label_of(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"


def _folders(top: str, image_root: str) -> list[tuple[str, str]]:
    """Folders of pictures and of their labels, as YOLO, Roboflow and KITTI lay them out; else the
    two themselves.
    """
    tops = [top, *sorted(entry.path for entry in os.scandir(top) if entry.is_dir())]
    pairs = [(os.path.join(one, a), os.path.join(one, b)) for one in tops for a, b in _FOLDERS]
    found = [(a if os.path.isdir(a) else image_root, b) for a, b in pairs if os.path.isdir(b)]
    return found or [(image_root, top)]
