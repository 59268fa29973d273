"""Formats of one line per picture, in which boxes are text: what they share, and those of prefix
and suffix.

These are what PaliGemma and Florence-2 are tuned on: what is asked, and the answer, in which boxes
are location tokens, in parts of the picture's own sides. Sources: google-research/big_vision,
paligemma segmentation.py; transformers, processing_paligemma.py and processing_florence2.py;
roboflow/maestro, datasets/jsonl.py.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.extras.formats._pictures_ahead import Pictures
from dataflow_grounding.extras.formats.base import Format, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.reading import broken, picture_size, read_lines, united

Line: TypeAlias = dict[str, Any]
Boxes: TypeAlias = dict[str, list[Bbox]]  # of each phrase, in pixels; equal phrases are one
_OF_BOXES = "OD|DENSE_REGION_CAPTION|OPEN_VOCABULARY_DETECTION|CAPTION_TO_PHRASE_GROUNDING"
_OTHER = re.compile(rf"\s*(<(?!(?:{_OF_BOXES})>)[A-Z_]+>)(?=.*<loc_)|.*(<poly>)", re.DOTALL)


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
        for where, line in pictures.ahead(
            read_lines(path, self.data_file), lambda row: _picture_of(row[1])
        ):
            with broken(where):
                name = _picture_of(line)
                if name is None:  # text alone, as mixtures have it
                    continue
                size = picture_size(pictures, name, where)
                said = list(self.said(line, size))
                if not all(text for text, _ in said):
                    raise ValueError("an answer without a phrase")
                each = ((text, [{"bbox": list(box)} for box in boxes]) for text, boxes in said)
                facts = {
                    "image_path": name,
                    "caption": self.caption(line),
                    "width": size[0],
                    "height": size[1],
                }
                yield {
                    **facts,
                    "expressions": united(
                        (text, {"text": text, "instances": i}) for text, i in each
                    ),
                }

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


class _PrefixSuffix(Texts):
    task: ClassVar[str]  # how a prefix begins
    boxes: ClassVar[BoxFormat]
    token: ClassVar[str]
    answer: ClassVar[re.Pattern[str]]  # a phrase with its location tokens

    def line(self, sample: Sample, asked: Boxes) -> Line:
        tokens: dict[str, list[str]] = {}
        for text, boxes in asked.items():
            numbers = (self.boxes.from_pixels(box, original=sample.size) for box in boxes)
            tokens[text] = ["".join(map(self.token.format, four)) for four in numbers]
        prefix, suffix = self.texts(sample.caption, tokens)
        return {"image": sample.file_name, "prefix": self.task + prefix, "suffix": suffix}

    @abstractmethod
    def texts(self, caption: str, tokens: Mapping[str, list[str]]) -> tuple[str, str]:
        """Prefix, behind the task, and suffix, of phrases with their boxes as tokens."""

    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        asked = re.sub(rf"^\s*({self.task}|<[A-Z_]+>)", "", line["prefix"]).strip()
        for found in self.answer.finditer(line["suffix"]):
            numbers = [float(number) for number in re.findall(r"\d+", found["tokens"])]
            if len(numbers) % 4 or max(numbers) > self.boxes.limits(size)[0]:
                raise ValueError(f"{found['tokens'][:60]!r} is not a box of {self.name}")
            for at in range(0, len(numbers), 4):
                yield (
                    found["text"].strip() or asked,
                    [self.boxes.to_pixels(numbers[at : at + 4], original=size)],
                )


class PaliGemma(_PrefixSuffix):
    """`detect a ; b` and `<loc0048><loc0020><loc0717><loc0320> a ; …`, y before x."""

    breaking = ("<", ">", ";", "\n")
    task = "detect "
    # known_formats has how replies are read: 1024
    boxes = BoxFormat("paligemma-training", "box_2d", "yxyx", 1023)
    token = "<loc{:04d}>"
    answer = re.compile(r"(?P<tokens>(?:<loc\d{4}>)+)(?:<seg\d{3}>)*(?P<text>[^;<]*)")

    def texts(self, caption: str, tokens: Mapping[str, list[str]]) -> tuple[str, str]:
        return " ; ".join(tokens), " ; ".join(
            f"{box} {text}" for text, boxes in tokens.items() for box in boxes
        )


class Florence(_PrefixSuffix):
    """`<CAPTION_TO_PHRASE_GROUNDING>caption` and `a<loc_19><loc_47><loc_312><loc_700>b…`, x before
    y.
    """

    breaking = ("<", ">")
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    boxes = known_formats()["florence-2"]
    token = "<loc_{}>"
    answer = re.compile(r"(?P<text>[^<>]*)(?P<tokens>(?:<loc_\d+>)+)")

    def texts(self, caption: str, tokens: Mapping[str, list[str]]) -> tuple[str, str]:
        return caption, "".join(text + "".join(boxes) for text, boxes in tokens.items())

    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        if other := _OTHER.match(f"{line['prefix']}\n{line['suffix']}"):
            self.passed_over[
                f"answers with {other[1] or other[2]}, of outlines or single regions"
            ] += 1
        return iter(()) if other else super().said(line, size)

    def caption(self, line: Line) -> str | None:
        prefix: str = line["prefix"]
        return prefix.removeprefix(self.task) if prefix.startswith(self.task) else None
