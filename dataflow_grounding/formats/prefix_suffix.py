"""Prefix and suffix, the JSON lines that PaliGemma and Florence-2 are tuned on: what is asked, and the answer.

Boxes are location tokens, in parts of the picture's own sides. Sources: google-research/big_vision, paligemma
segmentation.py; transformers, processing_paligemma.py and processing_florence2.py; roboflow/maestro, datasets/jsonl.py.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from dataflow_grounding.box_formats import known_formats
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.formats.base import Sample
from dataflow_grounding.formats.texts import Boxes, Line, Texts
from dataflow_grounding.geometry import Bbox, Size

_OF_BOXES = "OD|DENSE_REGION_CAPTION|OPEN_VOCABULARY_DETECTION|CAPTION_TO_PHRASE_GROUNDING"
_OTHER = re.compile(rf"\s*(<(?!(?:{_OF_BOXES})>)[A-Z_]+>)(?=.*<loc_)|.*(<poly>)", re.DOTALL)


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
                yield found["text"].strip() or asked, [self.boxes.to_pixels(numbers[at : at + 4], original=size)]


class PaliGemma(_PrefixSuffix):
    """`detect a ; b` and `<loc0048><loc0020><loc0717><loc0320> a ; …`, y before x."""

    breaking = ("<", ">", ";", "\n")
    task = "detect "
    boxes = BoxFormat("paligemma-training", "box_2d", "yxyx", 1023)  # known_formats has how replies are read: 1024
    token = "<loc{:04d}>"
    answer = re.compile(r"(?P<tokens>(?:<loc\d{4}>)+)(?:<seg\d{3}>)*(?P<text>[^;<]*)")

    def texts(self, caption: str, tokens: Mapping[str, list[str]]) -> tuple[str, str]:
        return " ; ".join(tokens), " ; ".join(f"{box} {text}" for text, boxes in tokens.items() for box in boxes)


class Florence(_PrefixSuffix):
    """`<CAPTION_TO_PHRASE_GROUNDING>caption` and `a<loc_19><loc_47><loc_312><loc_700>b…`, x before y."""

    breaking = ("<", ">")
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    boxes = known_formats()["florence-2"]
    token = "<loc_{}>"
    answer = re.compile(r"(?P<text>[^<>]*)(?P<tokens>(?:<loc_\d+>)+)")

    def texts(self, caption: str, tokens: Mapping[str, list[str]]) -> tuple[str, str]:
        return caption, "".join(text + "".join(boxes) for text, boxes in tokens.items())

    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        if other := _OTHER.match(f"{line['prefix']}\n{line['suffix']}"):
            self.passed_over[f"answers with {other[1] or other[2]}, of outlines or single regions"] += 1
        return iter(()) if other else super().said(line, size)

    def caption(self, line: Line) -> str | None:
        prefix: str = line["prefix"]
        return prefix.removeprefix(self.task) if prefix.startswith(self.task) else None
