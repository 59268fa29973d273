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
from typing import Any, TypeAlias

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
