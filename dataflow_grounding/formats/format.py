"""The base class of formats of annotated pictures, and what passes between it and an export."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.bad_entries import BadEntries, PassedOver
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import JsonObject, Record, Update
from dataflow_grounding.english.spans import Span, clean_caption, find_spans
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.rotated import rotated_box_of

if TYPE_CHECKING:
    from dataflow_grounding.formats.export_folder import ExportFolder
    from dataflow_grounding.formats.stated_twice import StatedTwice

EXACT = 0.01  # px: numbers that come back closer than this are the same
# What readers may take for something else than text, such as <image>, </ref>, <|box_start|>; group
# 1 is its name: image, ref, box_start.
TOKEN = re.compile(r"<[|/]*([^\s<>|]+)\|?>")
NOT_IN_CAPTION = "phrases that aren't in their caption"
# A place in a caption may be longer than its text: there may be invisible characters, gaps or a
# link's address in it. It isn't longer than this. Without a limit, a file with many phrases, each
# at the whole of a long caption, would take very long to read.
_MOST_TIMES_AS_LONG = 20
_MOST_LONGER = 2000
_REPLACEMENTS = {" . ": ", ", ";": ","}  # the other breaking words become a blank


def is_at_span(text: str, span: Any, caption: Any) -> bool:
    """Whether a caption has a text at `[start, end)`. False for a span that is no such pair.

    Case, blanks and the like don't count, as in `find_spans`.
    """
    try:  # several times as quick as suppress(): a million records have millions of phrases
        start, end = span
        if not 0 <= start < end <= len(caption):
            return False
        if end - start > _MOST_TIMES_AS_LONG * len(text) + _MOST_LONGER:
            return False
        words = caption[start:end]
        if words == text:
            return True
        return find_spans([text], words) == [(0, end - start)]  # the text is all of the words
    except (TypeError, ValueError):
        return False


def place_of_parts(text: str, spans: Sequence[Any], caption: Any) -> list[Any] | None:
    """Return where a phrase is whose words may have a span each: from the first to the last.

    For [[0, 5], [6, 9]], "small" and "dog" in "small dog", it is [0, 9]. It is None where other
    words of the caption are between them, as in "small brown dog". Raises IndexError where there
    are no spans.
    """
    place = [spans[0][0], spans[-1][1]]  # from the start of the first to the end of the last
    if len(spans) == 1 or is_at_span(text, place, caption):
        return place
    # If the parts alone are the text, other words are between them. Else the place is wrong: it
    # stays, and an export counts and mends it.
    parts = " ".join(caption[start:end] for start, end in spans)
    are_words_between = is_at_span(text, [0, len(parts)], parts)
    return None if are_words_between else place


@dataclass(frozen=True)
class Carries:
    """What a format can say of a record. The rest is lost in writing, which is counted and told.

    Args:
        captions: The caption.
        spans: The place of each phrase in the caption.
        unplaced: A phrase that isn't in the caption.
        several_boxes: More than one box of a phrase.
        nothing_there: A phrase that was looked for and isn't in the picture.
        doubtful: A phrase that is ambiguous or unsupported.
        empty: A picture without any phrase to write.
        scores: The score of each box.
        ids: The data's own ids of pictures, phrases and boxes.
        verified: Whether a phrase's boxes were checked.
        classes: The class of a phrase that is called otherwise.
        outlines: The outline of each box.
        rotated: An outline that is a rotated box as such, also beyond its picture.
        columns: All columns of a record: one without phrases doesn't say that nothing is there.
        numbers: How box numbers are rounded; empty where they come back within EXACT.
    """

    captions: bool = False
    spans: bool = False
    unplaced: bool = False
    several_boxes: bool = False
    nothing_there: bool = False
    doubtful: bool = False
    empty: bool = False
    scores: bool = False
    ids: bool = False
    verified: bool = False
    classes: bool = False
    outlines: bool = False
    rotated: bool = False
    columns: bool = False
    numbers: str = ""

    def why_lost(self, status: str, span: object) -> str:
        """Return why the format can't say a phrase, in words to count it under; "" if it can.

        Args:
            status: The phrase's.
            span: Its place in its caption; empty or None if it has none.
        """
        if status == "none" and not self.nothing_there:
            return "phrases that aren't in their picture"
        if status not in ("grounded", "none") and not self.doubtful:
            return f"{status} phrases"
        if not span and not self.unplaced:
            return NOT_IN_CAPTION
        return ""


@dataclass(slots=True)
class Phrase:
    """An expression as formats write it.

    Args:
        text: Its words, made safe for the format.
        span: `[start, end)` in the caption, in code points; None where it isn't in there.
        status: One of `records.STATUSES`.
        boxes: `[x1, y1, x2, y2]` each, in pixels of the upright picture; none unless it is
            `grounded`.
        scores: One for each box, in [0, 1], or None.
        expression: The record's own, with everything else in it.
    """

    text: str
    span: Span | None
    status: str
    boxes: list[Bbox]
    scores: list[float | None]
    expression: Expression

    def with_boxes(self, indices: Sequence[int]) -> "Phrase":
        """Return a copy with only the boxes of these indices, and what belongs to them."""
        instances = self.expression.instances
        return replace(
            self,
            boxes=[self.boxes[index] for index in indices],
            scores=[self.scores[index] for index in indices],
            expression=self._with_instances([instances[index] for index in indices]),
        )

    def outline(self, index: int) -> Sequence[float] | None:
        """Return the outline of the box of that index, None for none."""
        return self.expression.instances[index].outline

    def without_outlines(self) -> "Phrase":
        instances = [instance.without(outlines.KEY) for instance in self.expression.instances]
        return replace(self, expression=self._with_instances(instances))

    def _with_instances(self, instances: list[Instance]) -> Expression:
        expression = self.expression.copy()
        expression.instances = instances
        return expression


@dataclass(slots=True)
class Sample:
    """A record as formats write it.

    Args:
        file_name: Of the picture: relative to the export's folder, or as the record has it where it
            is referenced.
        size: Width and height in pixels of the upright picture.
        caption: What spans refer to, made safe for the format.
        phrases: Those that are asked for and that the format can say.
        record: The record itself, with everything else in it.
        data: What is in the picture's file, upright, for a format that packs it.
        name: Of the picture: relative to the export's folder of pictures, or as the record has it
            where it is referenced.
    """

    file_name: str
    size: Size
    caption: str
    phrases: list[Phrase]
    record: Record
    data: bytes = b""
    name: str = ""


class Shape(NamedTuple):
    """An outline as a format writes it, None for none; `lost` says what of it isn't written."""

    outline: Sequence[float] | None
    lost: str = ""


class Format:
    """A format: `write` is the way out, `read` the way in. One of the two is enough.

    Its options are the fields of its class, if that is a dataclass.

    Attributes:
        name: As in formats.yaml, like the next three; or of a user's own.
        about: What it is, in a few words.
        carries: What it can say.
        data_file: What a trainer is pointed at, relative to the export's folder.
        passed_over: Counts of what `read` leaves out, in words. `find_format` sets this and the
            next three, empty.
        remarks: Lines on what was read or written that a user should know, filled by `read` and
            `write`.
        class_names: The classes that the data lists, in the order of their numbers, set by `read`.
        strict: Whether `read` ends with an InputError where it would only remark on a doubt.
        bad: Takes the entries that can't be read; of a new object it stops at the first one.
        stated_twice: Takes what the data say twice, such as a box and its outline.
        preamble: What else the data says of all pictures, as JSON: set by `read`, and given to
            `write` where it is an option.
    """

    name: str
    about: str
    carries: Carries = Carries()
    data_file: str
    passed_over: PassedOver
    remarks: list[str]
    class_names: Sequence[str]
    strict: bool = False
    bad: BadEntries
    stated_twice: "StatedTwice"
    preamble: JsonObject = MappingProxyType({})
    pictures: str = ""
    """The folder in whose `pictures/` `read` puts pictures that are in the data itself.

    Paths of these pictures start from it. Empty: they are left in the data.
    """
    breaking: ClassVar[tuple[str, ...]] = ()
    """Words that its readers take for something else than text."""
    packs: ClassVar[bool] = False
    """Whether it puts the pictures, each sample's `data`, into its own files."""
    detects: ClassVar[bool] = False
    """Whether its readers learn what has no box in a picture as background."""
    shows_upright: ClassVar[bool] = False
    """Whether its readers turn pictures upright by their EXIF, as labelling tools do."""

    def training(self) -> str:
        """Return a paragraph of the export's README, in Markdown, on training with the data.

        It comes under the heading Training, after the format's section of training.md. By default
        it is "", for none.
        """
        return ""

    def write(self, samples: Iterator[Sample], out: "ExportFolder") -> None:
        """Write the samples into the folder, of the export or of a part of it.

        They come one at a time, and can be gone through once. Raises OSError; InputError where the
        format can only be read.
        """
        raise InputError(f"{self.name} can be read, but not written: choose another format")

    def shared(self, out: "ExportFolder") -> AbstractContextManager[None]:
        """Return a context in which the export's folder `out` is written: by one `write`, or one
        for each part of a split.

        What the parts share is opened in it, and finished at its end. Here they share nothing.
        """
        return nullcontext()

    def words_of(self, expression: Expression) -> str:
        """Return the words that are written for an expression: here its text."""
        return expression.text

    def outline_of(self, outline: Sequence[float], box: Bbox, size: Size) -> Shape:
        """Return the outline of a box, of a picture of that size, as it is written.

        Here its points beyond the picture are put to the edge. A rotated box stays as it is where
        the format can say it.
        """
        if self.carries.rotated and rotated_box_of(outline) is not None:
            return Shape(outline)
        return Shape(outlines.inside(outline, size))

    def why_outlines_lost(self, phrases: Sequence[Phrase], size: Size) -> str:
        """Return why no outline of these phrases of a picture can be written, in words to count
        them under; "", as here, if each can.
        """
        return ""

    def class_of(self, expression: Expression) -> str:
        """Return a key of the name that an export gives to an expression's boxes."""
        return class_key(self.words_of(expression))

    def thing(self, phrase: Phrase) -> str:
        """Return what a phrase calls its boxes, here its words in lower case.

        Equal boxes with the same name are written once; to formats that give back what came, and to
        detectors, all boxes on one thing. With "" each is written.
        """
        return clean_caption(phrase.text).casefold()

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield the records of a file or folder of this format, in its order.

        Args:
            path: The data file, or the folder with it.
            image_root: Where relative paths of pictures start; for formats whose numbers are parts
                of sides.

        Yields rows with `image_path`, and as far as the format says them `caption`, `width`,
        `height`, `image_id`, `expressions`: each with `text`, `instances` (`bbox` in pixels,
        `score`), and what else it carries.

        Raises:
            InputError: It can't be read, or is not of this format: names file, and line or entry.
                Also where the format can only be written.
        """
        raise InputError(f"{self.name} can be written, but not read: choose another format")

    def safe(self, text: str) -> str:
        """Return the text without what would break a reader of the format, its `breaking` words.

        ` . ` and `;` become a comma, all others a blank. In a text with any of them, each token
        such as `<image>`, `</ref>`, `<|box_start|>` becomes its name between blanks. Then blanks
        are made single. A text without any of them stays as it is.
        """
        if not any(word in text for word in self.breaking):
            return text
        text = TOKEN.sub(r" \1 ", text)
        for word in self.breaking:
            text = text.replace(word, _REPLACEMENTS.get(word, " "))
        return re.sub(" +", " ", text).strip()
