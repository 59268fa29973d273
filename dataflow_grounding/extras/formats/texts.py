"""Formats of one line per picture, in which boxes are text.

Here is their base class, and the formats of a prefix and a suffix, on which PaliGemma and
Florence-2 are tuned. The prefix is what is asked; the suffix is the answer, in which boxes are
location tokens, in parts of the picture's own sides. Sources: google-research/big_vision, paligemma
segmentation.py; transformers, processing_paligemma.py and processing_florence2.py;
roboflow/maestro, datasets/jsonl.py.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.extras.formats._picture_finder import PictureFinder
from dataflow_grounding.extras.formats.base import Format, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.reading import entry_errors, picture_size, read_lines, unite

Line: TypeAlias = dict[str, Any]
Boxes: TypeAlias = dict[str, list[Bbox]]
"""The boxes of each phrase of a picture, in pixels, by the phrase's text."""
# Florence-2's tasks whose answers are phrases with boxes.
_BOX_TASKS = "OD|DENSE_REGION_CAPTION|OPEN_VOCABULARY_DETECTION|CAPTION_TO_PHRASE_GROUNDING"
# Matches a prefix and suffix of Florence-2 in which locations aren't boxes of phrases: in group 1
# another task, as <REGION_TO_CATEGORY>; in group 2 the mark of an outline, <poly>.
_NO_BOX_TASK = re.compile(rf"\s*(<(?!(?:{_BOX_TASKS})>)[A-Z_]+>)(?=.*<loc_)|.*(<poly>)", re.DOTALL)


class Texts(Format):
    """Base of the formats of one JSON line per picture, with boxes in its text.

    A subclass makes a line of a sample, and finds phrases and boxes in a line. `length` is how many
    lines `write` has written.
    """

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write a line for each sample; boxes of equal phrases come together."""
        self.length = 0
        with out.lines(self.data_file) as put:
            for sample in samples:
                self.length += 1
                boxes_of: Boxes = {}
                for phrase in sample.phrases:
                    boxes_of.setdefault(phrase.text, []).extend(phrase.boxes)
                put(self.line(sample, boxes_of))

    def read(self, path: str, image_root: str) -> Iterator[Line]:
        """Yield a record for each line with a picture; conversations without one are passed over.

        Each picture's header is read, as numbers are parts of its sides, or of what it is resized
        to. Raises InputError where a picture isn't there.
        """
        finder = PictureFinder((image_root,))
        for where, line in read_lines(path, self.data_file):
            with entry_errors(where):
                name = _picture_of(line)
                if name is None:
                    continue
                size = picture_size(finder, name, where)
                yield self._record(line, name, size)

    def _record(self, line: Line, name: Any, size: Size) -> Line:
        """Return the record of a line, about a picture of that name and size.

        Boxes of equal phrases are one expression's. Raises KeyError, ValueError or UnreadableReply
        for a line that isn't of the format.
        """
        answers = list(self.answers(line, size))
        if not all(phrase for phrase, _ in answers):
            raise ValueError("an answer without a phrase")
        keyed = []
        for phrase, boxes in answers:
            instances = [{"bbox": list(box)} for box in boxes]
            keyed.append((phrase, {"text": phrase, "instances": instances}))
        return {
            "image_path": name,
            "caption": self.caption(line),
            "width": size[0],
            "height": size[1],
            "expressions": unite(keyed),
        }

    @abstractmethod
    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample, whose phrases have these boxes."""

    @abstractmethod
    def answers(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """Return a line's phrases with their boxes; a phrase may come several times.

        `size` is the picture's. Raises KeyError, ValueError, UnreadableReply.
        """

    def caption(self, line: Line) -> str | None:
        """Return the caption of a line; None of a format that doesn't carry it."""
        return None


def _picture_of(line: Line) -> Any:
    """Return the picture that a line names; None for a conversation without one.

    A picture that is an object with a `path` is that path. Raises KeyError where a line of another
    kind has no `image`; ValueError where a line names several.
    """
    pictures = line.get("image") or line.get("images")
    if not pictures and ("conversations" in line or "messages" in line):
        return None  # of text alone, as mixtures of data have it
    if not pictures:
        pictures = line["image"]  # raises KeyError where it isn't there
    if not isinstance(pictures, list):
        pictures = [pictures]
    if len(pictures) > 1:
        raise ValueError("several pictures, and it isn't said in which its boxes are")
    picture = pictures[0]
    return picture["path"] if isinstance(picture, Mapping) else picture


class _PrefixSuffix(Texts):
    """Base of PaliGemma's and Florence-2's lines."""

    task: ClassVar[str]  # how a prefix begins
    boxes: ClassVar[BoxFormat]
    token: ClassVar[str]  # a location token, to be formatted with its number
    answer: ClassVar[re.Pattern[str]]  # a phrase, group `text`, with its location `tokens`

    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample: what is asked, and the answer with boxes as tokens."""
        tokens_of: dict[str, list[str]] = {}
        for text, boxes in boxes_of.items():
            tokens_of[text] = []
            for box in boxes:
                numbers = self.boxes.from_pixels(box, original=sample.size)
                tokens_of[text].append("".join(map(self.token.format, numbers)))
        prefix, suffix = self.texts(sample.caption, tokens_of)
        return {"image": sample.file_name, "prefix": self.task + prefix, "suffix": suffix}

    @abstractmethod
    def texts(self, caption: str, tokens_of: Mapping[str, list[str]]) -> tuple[str, str]:
        """Return the prefix, without the task, and the suffix.

        `tokens_of` has each phrase with its boxes, each as its four tokens.
        """

    def answers(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """Yield the phrases of the suffix, one box at a time.

        A box without a phrase beside it is of what the prefix asks for. Raises KeyError for a line
        without prefix or suffix; ValueError for tokens that aren't whole boxes.
        """
        # The prefix without its task, which may be another one of Florence-2's: <OD>.
        asked = re.sub(rf"^\s*({self.task}|<[A-Z_]+>)", "", line["prefix"]).strip()
        for answer in self.answer.finditer(line["suffix"]):
            numbers = [float(number) for number in re.findall(r"\d+", answer["tokens"])]
            if len(numbers) % 4 or max(numbers) > self.boxes.limits(size)[0]:
                raise ValueError(f"{answer['tokens'][:60]!r} is not a box of {self.name}")
            phrase = answer["text"].strip() or asked
            for start in range(0, len(numbers), 4):
                yield phrase, [self.boxes.to_pixels(numbers[start : start + 4], original=size)]


class PaliGemma(_PrefixSuffix):
    """`detect a ; b` and `<loc0048><loc0020><loc0717><loc0320> a ; …`, y before x."""

    breaking = ("<", ">", ";", "\n")
    task = "detect "
    # Not of known_formats: replies are read with 1024 for a side, data is written with 1023.
    boxes = BoxFormat("paligemma-training", "box_2d", "yxyx", 1023)
    token = "<loc{:04d}>"
    answer = re.compile(r"(?P<tokens>(?:<loc\d{4}>)+)(?:<seg\d{3}>)*(?P<text>[^;<]*)")

    def texts(self, caption: str, tokens_of: Mapping[str, list[str]]) -> tuple[str, str]:
        """Return the phrases, and each of their boxes before its phrase, both joined by ` ; `."""
        answers = []
        for text, boxes in tokens_of.items():
            answers += [f"{box} {text}" for box in boxes]
        return " ; ".join(tokens_of), " ; ".join(answers)


class Florence(_PrefixSuffix):
    """`<CAPTION_TO_PHRASE_GROUNDING>caption` and `a<loc_19><loc_47><loc_312><loc_700>b…`.

    In a box, x comes before y.
    """

    breaking = ("<", ">")
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    boxes = known_formats()["florence-2"]
    token = "<loc_{}>"
    answer = re.compile(r"(?P<text>[^<>]*)(?P<tokens>(?:<loc_\d+>)+)")

    def texts(self, caption: str, tokens_of: Mapping[str, list[str]]) -> tuple[str, str]:
        """Return the caption, and each phrase with the tokens of all its boxes behind it."""
        return caption, "".join(text + "".join(boxes) for text, boxes in tokens_of.items())

    def answers(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """Return the phrases of the suffix; none of outlines or other tasks, which are counted."""
        other_task = _NO_BOX_TASK.match(f"{line['prefix']}\n{line['suffix']}")
        if other_task:
            mark = other_task[1] or other_task[2]
            self.passed_over[f"answers with {mark}, of outlines or single regions"] += 1
            return iter(())
        return super().answers(line, size)

    def caption(self, line: Line) -> str | None:
        """Return the caption that the prefix asks about; None of another task."""
        prefix: str = line["prefix"]
        return prefix.removeprefix(self.task) if prefix.startswith(self.task) else None
