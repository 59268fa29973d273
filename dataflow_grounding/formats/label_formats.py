"""KITTI and YOLO data sets: phrases as classes, and a label file for each picture: `labels/` mirrors `images/`.

Sources: the devkit of the KITTI object benchmark; TAO's KITTI to COCO converter; ultralytics' data/utils.py.
"""

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.base import Format, Sample
from dataflow_grounding.formats.classes import Classes, Numbers, read_texts
from dataflow_grounding.formats.data_lines import picture_size, united
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.label_files import ENDINGS, Labelled, files_under, read_kitti, read_names, read_yolo
from dataflow_grounding.formats.pictures_ahead import Pictures
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.records import dump_text, name_within

_FOLDERS = ((FOLDER, "labels"), ("image_2", "label_2"))


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
        """What is in a label file; `names` are None where there is no file with them. Raises BrokenRow, InputError."""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        pictures = Numbers()
        with out.file(self.names_files[0]) as names:
            classes = Numbers(lambda number, name: names.write(self.entry(number, name) + "\n"))
            names.write(self.head)
            for name in self._classes.fixed:
                classes.of(name)
            for sample in samples:
                label = f"labels/{name_within(sample.file_name.removeprefix(f'{FOLDER}/'), None)}.txt"
                lines = ""
                for phrase in sample.phrases:
                    number, _ = classes.of(phrase.text)
                    for box, score in zip(phrase.boxes, phrase.scores, strict=True):
                        lines += self.line(number, phrase.text, box, score, sample.size) + "\n"
                try:
                    with open(out.place(label), "xb" if pictures.of(sample.file_name)[1] else "ab", 0) as file:
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
                label, picture = _label_of(image), os.path.relpath(os.path.join(pictures, image), image_root)
                size = picture_size(finder, image, file := os.path.join(labels, label))
                said = self._said(file, size, names) if label in there else {"expressions": []}
                yield {"image_path": picture, "width": size[0], "height": size[1], **said}

    def _said(self, file: str, size: Size, names: Any) -> dict[str, Any]:
        """What a label file says of its picture, by column. Raises InputError."""
        try:
            regions, is_empty = self.regions(file, size, names), os.path.getsize(file) == 0
        except (BrokenRow, OSError) as error:
            raise InputError(f"can't read a label: {error}") from None
        expressions = united((one["type"], {"text": one.pop("type"), "instances": [one]}) for one in regions)
        unsaid = {} if regions or is_empty else {"background": False}  # of DontCare alone, say
        return {**unsaid, "expressions": expressions}


class Kitti(_LabelFormat):
    """KITTI: classes are words without blanks, told in classes.yaml; a label with a score has 16 fields, else 15."""

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
        return [{**one, "type": classes.get(one["type"], one["type"])} for one in read_kitti(label)]


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
        parts = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        return f"{number - 1} {' '.join(f'{part:.8f}' for part in parts)}"

    def regions(self, label: str, size: Size, names: Any) -> list[Labelled]:
        if names is None:
            raise InputError(f"{label}: no {' or '.join(self.names_files)} with the names of classes in the data set")
        return read_yolo(label, names, size)


def _label_of(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"


def _folders(top: str, image_root: str) -> list[tuple[str, str]]:
    """Folders of pictures and of their labels, as YOLO, Roboflow and KITTI lay them out; else the two themselves."""
    tops = [top, *sorted(entry.path for entry in os.scandir(top) if entry.is_dir())]
    pairs = [(os.path.join(one, a), os.path.join(one, b)) for one in tops for a, b in _FOLDERS]
    found = [(a if os.path.isdir(a) else image_root, b) for a, b in pairs if os.path.isdir(b)]
    return found or [(image_root, top)]
