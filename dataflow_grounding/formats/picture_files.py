"""Formats of detectors that have a file for each picture, called as the picture is."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import portable
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.records import name_within
from dataflow_grounding.formats.class_tables import Classes
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Format, Phrase, Sample

_IN_SUBFOLDERS = (
    "pictures in subfolders, which supervision and other readers of a single folder leave out"
    " without a word: {} of {} (--flat puts all pictures into one folder)"
)


@dataclass
class PictureFiles(Format):
    """Base of KITTI, YOLO and Pascal VOC. Names of boxes are classes.

    `classes` and `class_list` are those of `class_tables.Classes`; `flat` puts all pictures into
    one folder, for readers that don't look into others.
    """

    classes: str = "class"
    class_list: Sequence[str] = ()
    flat: bool = False
    ending: ClassVar[str]  # of the files
    last_line: ClassVar[str] = ""  # of each file
    joint: ClassVar[str] = " "  # a character that no class's name has
    detects = True

    def __post_init__(self) -> None:
        self._classes = Classes(self.classes, self.joint, self.class_list)

    def words_of(self, expression: Expression) -> str:
        return self._classes.written_class_of(expression)

    @contextmanager
    def shared(self, out: ExportFolder) -> Iterator[None]:
        """Reset the counts before all parts are written, and add one remark on subfolders after."""
        self._count_of_pictures = 0
        self._count_in_subfolders = 0
        yield
        if self._count_in_subfolders:
            counts = (f"{self._count_in_subfolders:,}", f"{self._count_of_pictures:,}")
            self.remarks.append(_IN_SUBFOLDERS.format(*counts))

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write a file for each picture."""
        pictures: set[str] = set()  # whose file is written
        for sample in samples:
            name = self.file_of(sample.file_name)
            self._count_of_pictures += 1
            if "/" in name.removeprefix(f"{self.data_file}/"):
                self._count_in_subfolders += 1
            try:
                self._write_lines(out.place(name), [*self.lines(sample)])
            except FileExistsError:  # another picture has the file, as for a.jpg and a.png
                raise InputError(self.why_shared(sample.file_name, pictures)) from None
            pictures.add(sample.file_name)

    def _write_lines(self, path: str, lines: Sequence[str]) -> None:
        content = "".join(f"{line}\n" for line in lines) + self.last_line
        with open(path, "xb", buffering=0) as file:
            file.write(content.encode())

    def lines(self, sample: Sample) -> Iterator[str]:
        """Yield the lines of a sample's file."""
        for phrase in sample.phrases:
            for number in range(len(phrase.boxes)):
                yield self.line_of(phrase, number, sample.size)

    @abstractmethod
    def line_of(self, phrase: Phrase, number: int, size: Size) -> str:
        """Return the line of a phrase's box of that number, from 0."""

    def file_of(self, file_name: str) -> str:
        stem = name_within(file_name.removeprefix(f"{FOLDER}/"), None)
        return portable(f"{self.data_file}/{stem}{self.ending}")

    def why_shared(self, file_name: str, pictures: set[str]) -> str:
        """Return the message on a picture whose file is that of one of the earlier `pictures`."""
        name = os.path.basename(self.file_of(file_name))
        return f"{file_name} and another picture would share {name}: rename one"
