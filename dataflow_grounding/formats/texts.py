"""Formats of one line per picture, in which boxes are text, written with it or read out of it."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from dataflow_grounding.formats.base import Format, Sample
from dataflow_grounding.formats.data_lines import broken, picture_size, read_lines, united
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.pictures_ahead import Pictures
from dataflow_grounding.geometry import Bbox, Size

Line: TypeAlias = dict[str, Any]
Boxes: TypeAlias = dict[str, list[Bbox]]  # of each phrase, in pixels; equal phrases are one


class Texts(Format):
    """What they have in common."""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        self.length = 0
        with out.lines(self.data_file) as put:
            for self.length, sample in enumerate(samples, 1):
                asked: Boxes = {}
                for phrase in sample.phrases:
                    asked.setdefault(phrase.text, []).extend(phrase.boxes)
                put(self.line(sample, asked))

    def read(self, path: str, image_root: str) -> Iterator[Line]:
        pictures = Pictures((image_root,))
        for where, line in pictures.ahead(read_lines(path, self.data_file), lambda row: _picture_of(row[1])):
            with broken(where):
                name = _picture_of(line)
                if name is None:  # text alone, as mixtures have it
                    continue
                size = picture_size(pictures, name, where)
                said = list(self.said(line, size))
                if not all(text for text, _ in said):
                    raise ValueError("an answer without a phrase")
                each = ((text, [{"bbox": list(box)} for box in boxes]) for text, boxes in said)
                facts = {"image_path": name, "caption": self.caption(line), "width": size[0], "height": size[1]}
                yield {**facts, "expressions": united((text, {"text": text, "instances": i}) for text, i in each)}

    @abstractmethod
    def line(self, sample: Sample, asked: Boxes) -> Line:
        """A sample's line."""

    @abstractmethod
    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """A line's phrases with their boxes. Raises KeyError, ValueError, UnreadableReply."""

    def caption(self, line: Line) -> str | None:
        """The caption, of formats that carry it."""
        return None


def _picture_of(line: Line) -> Any:
    of_text = "conversations" in line or "messages" in line
    given = line.get("image") or line.get("images") or ([None] if of_text else line["image"])
    pictures = given if isinstance(given, list) else [given]
    if len(pictures) > 1:
        raise ValueError("several pictures, and it isn't said in which its boxes are")
    return pictures[0]["path"] if isinstance(pictures[0], Mapping) else pictures[0]
