"""Formats of detectors that have a file for each picture, called as the picture is."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import portable
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import name_within
from dataflow_grounding.formats.class_tables import Classes, Numbers
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

    def words_of(self, expression: Mapping[str, Any]) -> str:
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
        """Write a file for each picture; further records of a picture are added to its file."""
        pictures = Numbers()  # the pictures whose file is written; their numbers aren't used
        for sample in samples:
            # at the first record of its picture, the file mustn't exist yet
            _, is_new = pictures.number_of(sample.file_name)
            own_lines = [*self.lines(sample, is_new)]
            name = self.file_of(sample.file_name)
            path = out.place(name)
            if is_new:
                self._count_of_pictures += 1
                if "/" in name.removeprefix(f"{self.data_file}/"):
                    self._count_in_subfolders += 1
                lines = own_lines
            else:
                lines = self.with_further(self._lines_in(path), own_lines)
            try:
                self._write_lines(path, lines, is_new)
            except FileExistsError:  # another picture has the file, as for a.jpg and a.png
                raise InputError(self.why_shared(sample.file_name, pictures)) from None

    def _write_lines(self, path: str, lines: Sequence[str], is_new: bool) -> None:
        """Write a file; FileExistsError where one that should be new is there."""
        content = "".join(f"{line}\n" for line in lines) + self.last_line
        mode = "xb" if is_new else "wb"
        with open(path, mode, buffering=0) as file:
            file.write(content.encode())

    def _lines_in(self, path: str) -> list[str]:
        """Return the lines of an earlier record of the picture, without the last line."""
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        return text.removesuffix(self.last_line).split("\n")[:-1]  # "" follows the last newline

    def lines(self, sample: Sample, is_new: bool) -> Iterator[str]:
        """Yield the lines of a sample's file; if it isn't new, the lines that are added to it."""
        for phrase in sample.phrases:
            for number in range(len(phrase.boxes)):
                yield self.line_of(phrase, number, sample.size)

    @abstractmethod
    def line_of(self, phrase: Phrase, number: int, size: Size) -> str:
        """Return the line of a phrase's box of that number, from 0."""

    def with_further(self, earlier: list[str], further: list[str]) -> list[str]:
        """Return the lines of a picture's file, to which a further record adds some."""
        return [*earlier, *further]

    def file_of(self, file_name: str) -> str:
        stem = name_within(file_name.removeprefix(f"{FOLDER}/"), None)
        return portable(f"{self.data_file}/{stem}{self.ending}")

    def why_shared(self, file_name: str, pictures: Numbers) -> str:
        """Return the message on a picture whose file is that of one of the earlier `pictures`."""
        name = os.path.basename(self.file_of(file_name))
        return f"{file_name} and another picture would share {name}: rename one"
