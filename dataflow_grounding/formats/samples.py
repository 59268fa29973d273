"""Make samples of records for an export, and count what is lost and left out."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from dataflow_grounding._util.errors import BrokenRow, RecordError
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp
from dataflow_grounding.boxes.matching import ScoredBox, things_of
from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance, read_any_expressions
from dataflow_grounding.data.pictures import pictures
from dataflow_grounding.data.records import (
    STATUSES,
    JsonObject,
    Record,
    doubt_of_reply,
    has_id,
    image_id_of,
    is_score,
    path_of,
)
from dataflow_grounding.data.rejected import WithoutRejected
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.engine.source import RowsOfImage, identify
from dataflow_grounding.english.spans import Span, find_spans
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_pictures import ExportPictures, Picture
from dataflow_grounding.formats.format import (
    EXACT,
    Carries,
    Format,
    Phrase,
    Sample,
    Shape,
)
from dataflow_grounding.formats.imported import (
    ReturningFormat,
    has_right_outline,
    item_of,
    kept_of,
)
from dataflow_grounding.formats.selection import Selection
from dataflow_grounding.formats.whole_pictures import (
    MISSED_BOX,
    SKIPPED_OBJECT,
    UNDECIDED_CLASS,
    UNVERIFIED,
    WholePictures,
)

Rows: TypeAlias = Iterable[JsonObject]
_MAX_REASONS = 3  # examples of why records were left out; all of them may be millions
# Reports on such pictures if the format has no place for them.
_WITHOUT_PHRASE = "pictures without a phrase to write"
_SKIPPED_MARKS = "marks of pictures of which an import passed over shapes"
# Reports on the records at the end, with counts: by what is counted, in the order of lines.
_CHANGED = "changed texts"  # captions and phrases
_UNSELECTED = "unselected phrases"
_REJECTED = "rejected boxes"
_MAYBE_THERE = "pictures of something"
_NOT_KNOWN_EMPTY = "pictures of nothing known"
_REPEATED = "repeated boxes"
_OF_SAME_THING = "boxes of the same thing"
_DOUBTFUL = "doubtful records"
_REMARKS = {
    _CHANGED: "texts changed, as {name} can't have them as they are",
    _UNSELECTED: "phrases left out, by their status or score, or as an option says",
    _REJECTED: "boxes that a reviewer rejected",
    UNVERIFIED: "pictures left out, as boxes that nobody has verified or looked at would be"
    " background there (--partly-verified keeps them)",
    MISSED_BOX: "pictures left out, as a reviewer says that something is there, which has no box"
    " and would be background (--partly-verified keeps them)",
    SKIPPED_OBJECT: "pictures left out, as an import passed over shapes of theirs, which would be"
    " background there (--partly-verified keeps them)",
    UNDECIDED_CLASS: "pictures left out, as it is undecided whether a class is there, which would"
    " be background (--partly-verified keeps them)",
    _MAYBE_THERE: "pictures left out, as something may be there without a box (background: false),"
    " as where all boxes of a phrase were rejected (m in the review says that nothing is)",
    _NOT_KNOWN_EMPTY: "pictures left out, as nothing says what is there, or that nothing is",
    _REPEATED: "boxes that are there already under the same words, written once",
    _OF_SAME_THING: "boxes on a thing that another phrase of the same class has boxed, written"
    " once",
    _DOUBTFUL: "records marked doubtful, of whose replies a part was of no use, or says that a box"
    " may be of something else",
}


@dataclass
class Exported:
    """What an export wrote, and what it could not."""

    path: str  # the folder, or the one file; of a part of a split, the part's name
    # counts of `records`, `phrases`, `boxes`; empty where nothing was written
    written: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # what the format can't say → how often
    left_out: int = 0  # records that could not be written
    reasons: list[str] = field(default_factory=list)  # of the first few that were left out
    noted: Counter[str] = field(default_factory=Counter)  # what happened to samples → how often
    remarks: list[str] = field(default_factory=list)
    parts: dict[str, Counter[str]] = field(default_factory=dict)  # `written` of parts of a split
    # What replies say next to their answers, of all records. A rare remark counts where the record
    # was written, and has a phrase that no person decided on.
    said: Remarks = field(default_factory=Remarks)

    def losses(self) -> str:
        """Return what is lost in a line, `scores (2), spans (1)`; empty if nothing is lost."""
        return ", ".join(f"{what} ({count})" for what, count in self.lost.items())

    def counted(self) -> list[str]:
        """Return a line for each thing of `noted`."""
        return [f"{what}: {count}" for what, count in self.noted.items()]


class SampleMaker:
    """Makes a sample, what a format writes, of each record that is wanted in an export.

    A detector is a format whose readers learn as background what has no box in a picture: a picture
    with a thing that has no box is a false background, and is left out.
    """

    def __init__(
        self, format: Format, pictures: ExportPictures, select: Selection, exported: Exported
    ) -> None:
        self._format = format
        self._pictures = pictures
        self._select = select
        # This is filled while samples are made. Its remarks are added after the last sample, from
        # the counts below.
        self._exported = exported
        self._counts = Counter[str]()  # of what _REMARKS tells
        # Stays empty for formats that don't detect: to them a picture without a box says nothing.
        self._whole_pictures = WholePictures(select, format)
        # Expressions without ids get some that are made of the picture's path. This counts the rows
        # of each picture, by the hash of its image_id, so that ids of several rows differ.
        self._rows_of_image: RowsOfImage = {}
        self.last_record = Record({})
        """The record of the sample that was made last."""

    def samples(self, records: Rows) -> Iterator[Sample]:
        """Yield a sample of each record that the format can say something of; count the others."""
        # A detector's picture is one, with all that any caption of it says.
        if self._format.detects:
            records = pictures(records, self._name_of, apart=self._format.name)
            self._look_at_whole_pictures(records)
        without_rejected = WithoutRejected(self._select.keep_rejected)
        for number, row in enumerate(records, 1):
            record = Record({**row, **without_rejected.of(row)})
            sample: Sample | None = None
            try:
                sample = self._sample(record)
            except RecordError as error:
                self._exported.left_out += 1
                if len(self._exported.reasons) < _MAX_REASONS:
                    self._exported.reasons.append(f"record {number}: {error}")
            # A model may say something next to its answers. What it says of most records is
            # usual, so this is counted over all records. What it says of few is a warning: it is
            # watched for on written records that no person has decided on.
            is_undecided = sample is not None and not _is_reviewed(record)
            self._exported.said.add(record, watched=is_undecided)
            if sample is not None:
                written = self._exported.written
                box_count = sum(len(phrase.boxes) for phrase in sample.phrases)
                written.update(records=1, phrases=len(sample.phrases), boxes=box_count)
                self.last_record = sample.record
                yield sample
        self._counts[_REJECTED] = without_rejected.boxes
        self._add_remarks()

    def _name_of(self, record: JsonObject) -> str:
        try:
            return self._pictures.name_of(record)
        except RecordError:  # it is reported when the record is written
            return ""

    def _add_remarks(self) -> None:
        noted = self._exported.noted
        for what, text in _REMARKS.items():
            if self._counts[what]:
                noted[text.format(name=self._format.name)] = self._counts[what]
        if self._pictures.missing:
            what = "pictures that aren't there, and may be turned by their EXIF"
            noted[what] = self._pictures.missing
        if self._counts[UNDECIDED_CLASS]:
            self._exported.remarks += self._whole_pictures.remarks()

    def _sample(self, record: Record) -> Sample | None:
        """Return the sample of a record; None where there is nothing to write, which is counted."""
        if record.get(SKIPPED) and not self._format.carries.columns:
            self._exported.lost[_SKIPPED_MARKS] += 1
        caption = _caption_of(record)
        expressions = self._expressions(record, caption)
        selected = self._selected(expressions)
        false_backgrounds = self._whole_pictures.false_backgrounds  # stays empty but for detectors
        if false_backgrounds and self._pictures.name_of(record) in false_backgrounds:
            return None  # `_look_at_whole_pictures` has counted it
        # The format has a place for pictures without phrases, and this one shows nothing.
        may_be_empty = self._format.carries.empty and self._shows_nothing(record, expressions)
        if not selected and not may_be_empty:
            self._count_picture_without_phrase(record)
            return None  # before the picture is looked for: it may be missing
        picture = self._pictures.find(record)
        phrases = []
        for expression in selected:
            phrase = self._phrase(expression, picture.size)
            if phrase is not None:
                phrases.append(phrase)
        # It may have lost phrases by that, such as those whose boxes are all outside of the
        # picture.
        if not phrases and not may_be_empty:
            self._count_picture_without_phrase(record)
            return None
        phrases = self._without_repeats(phrases, record)
        phrases = self._without_lost_outlines(phrases, picture.size)
        return self._sample_of(record, caption, picture, phrases)

    def _sample_of(
        self, record: Record, caption: str, picture: Picture, phrases: list[Phrase]
    ) -> Sample:
        """Put the picture into the export, and count what the format can't say of the record."""
        if doubt_of_reply(record):  # a part of the model's reply was of no use, or was unsure
            self._counts[_DOUBTFUL] += 1
        carries = self._format.carries
        # `+=` of a Counter drops counts of 0
        self._exported.lost += _lost_of(record, caption, phrases, carries)
        if carries.captions:
            caption = self._safe(caption)
        # A format that packs has the pictures in its own files.
        data = self._pictures.data(picture) if self._format.packs else b""
        file_name = self._pictures.put(picture)
        name = self._pictures.name_in_folder(file_name)
        return Sample(file_name, picture.size, caption, phrases, record, data, name)

    def _without_lost_outlines(self, phrases: list[Phrase], size: Size) -> list[Phrase]:
        """Drop the outlines where one box without costs all, as in YOLO's files."""
        why_lost = self._format.why_outlines_lost(phrases, size)
        if not why_lost:
            return phrases
        boxes = [box for phrase in phrases for box in phrase.expression.instances]
        self._exported.lost[why_lost] += sum(box.outline is not None for box in boxes)
        return [phrase.without_outlines() for phrase in phrases]

    def _count_picture_without_phrase(self, record: Record) -> None:
        if not self._format.carries.empty:  # it can't say a picture without a phrase
            self._exported.lost[_WITHOUT_PHRASE] += 1
        elif record.get("background") is False:  # also where its only phrase was rejected
            self._counts[_MAYBE_THERE] += 1
        else:
            self._counts[_NOT_KNOWN_EMPTY] += 1

    def _look_at_whole_pictures(self, records: Rows) -> None:
        """Find the false backgrounds, which are counted."""
        # `_expressions` counts what it finds, and is called again when a record is written. So a
        # second maker reads here, and its counts are thrown away.
        reader = SampleMaker(self._format, self._pictures, self._select, Exported(path=""))
        without_rejected = WithoutRejected(self._select.keep_rejected)
        for row in records:
            record = Record({**row, **without_rejected.of(row)})
            try:
                expressions = reader._expressions(record, _caption_of(record))
                name = self._pictures.name_of(record)
            except RecordError:  # it is reported when the record is written
                continue
            self._whole_pictures.note(name, record, expressions)
        self._whole_pictures.end()
        for why_left_out in self._whole_pictures.false_backgrounds.values():
            self._counts[why_left_out] += 1

    def _shows_nothing(self, record: Record, expressions: Sequence[Expression]) -> bool:
        """Whether a record says that its picture shows nothing, so that it is written alone."""
        if record.get(SKIPPED):  # an import passed over a shape of it
            return False
        if self._goes_back_empty(record, expressions):
            return True
        if record.get("background") is False:  # something is there that it doesn't say
            return False
        if expressions:
            return all(map(self._is_wanted_absence, expressions))
        is_known_empty = record.get("background") is True or bool(record.get("reviewed_by"))
        # A format of whole records takes one that doesn't say whether its picture is empty.
        if not is_known_empty and not self._format.carries.columns:
            return False
        # The selection may want only what is verified. It judges expressions, so it is asked about
        # a made-up one, which says that its thing isn't there and isn't verified.
        return self._is_wanted_absence(Expression("", status="none"))

    def _goes_back_empty(self, record: Record, expressions: Sequence[Expression]) -> bool:
        """Whether the picture came from a file of this format and goes back there without a box."""
        if not isinstance(self._format, ReturningFormat):
            return False
        is_without_boxes = all(expression.shown_status == "none" for expression in expressions)
        return self._format.goes_back_empty(record, is_without_boxes)

    def _is_wanted_absence(self, expression: Expression) -> bool:
        """Whether an expression says that its thing isn't there, and the selection takes that."""
        is_absent = expression.shown_status == "none"
        return is_absent and self._select.of(expression) is not None

    def _expressions(self, record: Record, caption: str) -> list[Expression]:
        """Return the expressions with ids and spans."""
        if record.get("suspect_boxes") is True:
            raise BrokenRow("its boxes may be in another format (suspect_boxes)")
        self._identify(record)
        expressions = read_any_expressions(record)
        for expression in expressions:
            status = expression.extra.get("status") or expression.shown_status
            if status not in STATUSES and status != "pending":
                raise BrokenRow(f"the status {status!r} is not one of {', '.join(STATUSES)}")
            for box in expression.instances:
                if not is_score(box.score) or box.extra.get("score") is not None:
                    box.score = None
                    box.extra.pop("score", None)
                    self._exported.lost["scores that aren't numbers from 0 to 1"] += 1
        if not any("char_span" in expression.keys for expression in expressions):
            spans = find_spans([expression.text for expression in expressions], caption)
            for expression, span in zip(expressions, spans, strict=True):
                expression.char_span = span
        return expressions

    def _identify(self, record: Record) -> None:
        """Give a record what ids of its expressions are made of, as an import does."""
        if not _have_ids(record.get("expressions")):
            identify(record, "image_path", image_root=None, rows_of_image=self._rows_of_image)

    def _selected(self, expressions: Iterable[Expression]) -> list[Expression]:
        """Return what is wanted and can be said, with its wanted boxes; the rest is counted."""
        wanted = []
        for expression in expressions:
            selected = self._select.of(expression)
            if selected is None:
                self._counts[_UNSELECTED] += 1
                continue
            why_lost = self._format.carries.why_lost(selected.shown_status, _stated_span(selected))
            if why_lost:
                self._exported.lost[why_lost] += 1
            else:
                wanted.append(selected)
        return wanted

    def _without_repeats(self, phrases: Sequence[Phrase], record: Record) -> list[Phrase]:
        """Leave out boxes that come twice, and the phrases that have no others.

        A detector would take such a box for two things, and a model that is tuned on such
        conversations learns to repeat itself.
        """
        if self._format.carries.columns:  # it keeps what records have
            return list(phrases)
        # A record that was imported from this format goes back to it, and keeps equal boxes that
        # were two in its file. `items` are the numbers of the file's boxes, such as COCO's
        # annotations. It is empty for any other record, of which each box is written once.
        items = {*kept_of(record, self._format.name).get("read", ())}
        if self._format.detects or isinstance(self._format, ReturningFormat):
            return self._each_thing_once(phrases, items)
        return self._each_box_once(phrases, items)

    def _each_box_once(self, phrases: Sequence[Phrase], items: Set[int]) -> list[Phrase]:
        """Leave out boxes that came before under the same words."""
        phrases_once: list[Phrase] = []
        # By what a phrase calls its boxes: the boxes so far, each with its items of the source.
        seen_of_name: dict[str, dict[Bbox, set[int]]] = {}
        for phrase in phrases:
            seen = seen_of_name.setdefault(self._format.thing(phrase), {})
            new = _indices_of_new_boxes(phrase, items, seen)  # which adds to `seen`
            self._counts[_REPEATED] += len(phrase.boxes) - len(new)
            if len(new) < len(phrase.boxes):
                phrase = phrase.with_boxes(new)
            if not _has_lost_all_boxes(phrase):
                phrases_once.append(phrase)
        return phrases_once

    def _each_thing_once(self, phrases: Sequence[Phrase], items: Set[int]) -> list[Phrase]:
        """Keep one box for each thing, which "a person" and "a human" may both have."""
        numbers_of_class: dict[str, list[int]] = {}  # of the phrases of each class
        for number, phrase in enumerate(phrases):
            name = self._format.thing(phrase)
            if name:
                numbers_of_class.setdefault(name, []).append(number)
        phrases_once = list(phrases)
        for numbers in numbers_of_class.values():
            phrases_of_class = [phrases[number] for number in numbers]
            staying = self._indices_of_staying_boxes(phrases_of_class, items)
            for number, indices in zip(numbers, staying, strict=True):
                if len(indices) < len(phrases[number].boxes):
                    phrases_once[number] = phrases[number].with_boxes(sorted(indices))
        return [phrase for phrase in phrases_once if not _has_lost_all_boxes(phrase)]

    def _indices_of_staying_boxes(
        self, phrases: Sequence[Phrase], items: Set[int]
    ) -> list[list[int]]:
        """Return the indices of the boxes that stay, for each of these phrases of one class."""
        staying: list[list[int]] = [[] for _ in phrases]
        for thing in things_of([_scored_boxes_of(phrase) for phrase in phrases]):
            staying_boxes = _staying_boxes_of_thing(phrases, thing, items)
            for number, index in staying_boxes:
                staying[number].append(index)
            # Of a thing's boxes A, A, B one A stays. B is counted as a different box of the same
            # thing, and the other A as a repeated box.
            distinct = {phrases[number].boxes[index] for number, index in thing}
            # `min`: A and B may both stay, where the file that they are from had both.
            left_out_count = len(thing) - len(staying_boxes)
            different_count = min(left_out_count, len(distinct) - 1)
            self._counts[_OF_SAME_THING] += different_count
            self._counts[_REPEATED] += left_out_count - different_count
        return staying

    def _phrase(self, expression: Expression, size: Size) -> Phrase | None:
        """Return an expression as the format has it; None if nothing is left, which is counted."""
        instances = []
        for stated in expression.instances:
            instance = self._instance_in_picture(stated, size)
            if instance is not None:
                instances.append(instance)
        status = expression.shown_status
        text = self._safe(self._format.words_of(expression))
        if not text.strip():
            self._exported.lost["phrases left without a word"] += 1
            return None
        if status == "grounded" and not instances:
            # If it were written without boxes, it would say that nothing is there.
            self._exported.lost["phrases left without a box"] += 1
            return None
        in_picture = expression.copy()
        in_picture.instances = instances
        return Phrase(
            text=text,
            span=_checked_span(expression),
            status=status,
            boxes=[box_of([*map(float, instance.bbox)]) for instance in instances],
            scores=[None if box.score is None else float(box.score) for box in instances],
            expression=in_picture,
        )

    def _instance_in_picture(self, instance: Instance, size: Size) -> Instance | None:
        """Return an instance cut to its picture; None where it is outside."""
        stated = instance.bbox
        box = clamp(stated, size)
        if area(box) <= 0:
            self._exported.lost["boxes without an area in their picture"] += 1
            return None
        if instance.outline is not None:
            instance = self._with_outline(instance, box, size)
        elif instance.extra.get(outlines.KEY) is not None:  # no list of numbers
            self._exported.lost[outlines.STALE] += 1
            instance = instance.without(outlines.KEY)
        # An outline beyond the picture still says where the parts are that are cut off.
        is_cut = math.dist(box, stated) > EXACT
        if is_cut and not _is_outlined(instance, stated):
            self._exported.lost["parts of boxes outside of their picture"] += 1
        if box != stated:
            instance = instance.copy()
            instance.bbox = box
        return instance

    def _with_outline(self, instance: Instance, box: Bbox, size: Size) -> Instance:
        """Return the instance with its outline as the format writes it, if it fits the box."""
        outline = instance.outline
        assert outline is not None
        if not has_right_outline(instance, size):
            shape = Shape(None, outlines.STALE)
        elif not self._format.carries.outlines:
            shape = Shape(None, "outlines")
        else:
            shape = self._format.outline_of(outline, box, size)
        if shape.lost:
            self._exported.lost[shape.lost] += 1
        if shape.outline is None:
            return instance.without(outlines.KEY)
        outlined = instance.copy()
        outlined.outline = shape.outline
        return outlined

    def _safe(self, text: str) -> str:
        safe = self._format.safe(text)
        if safe != text:
            self._counts[_CHANGED] += 1
        return safe


def _caption_of(record: Record) -> str:
    return str(record.get("cleaned_caption") or record.get("caption") or "")


def _is_reviewed(record: Record) -> bool:
    """Whether a person decided on all of a record."""
    if record.get("reviewed_by"):
        return True
    expressions = record.get("expressions")
    if not isinstance(expressions, list) or not expressions:
        return False
    return all(map(_is_decided, expressions))


def _is_decided(expression: object) -> bool:
    """Whether a person decided on all of an expression, or on each of its boxes."""
    if not isinstance(expression, Mapping):
        return False
    if expression.get("reviewed_by"):
        return True
    boxes = expression.get("instances")
    if not isinstance(boxes, list) or not boxes:
        return False
    return all(isinstance(box, Mapping) and box.get("reviewed_by") for box in boxes)


def _has_lost_all_boxes(phrase: Phrase) -> bool:
    """Whether a phrase that had boxes, as its status says, has none."""
    return phrase.status == "grounded" and not phrase.boxes


def _indices_of_new_boxes(phrase: Phrase, items: Set[int], seen: dict[Bbox, set[int]]) -> list[int]:
    """Return the indices of boxes that aren't in `seen`, where all are added with their items.

    A box that was seen is new all the same if it is a further item of the source.
    """
    new = []
    for index, box in enumerate(phrase.boxes):
        item = item_of(phrase.expression.instances[index], items)
        is_first = box not in seen
        items_of_box = seen.setdefault(box, set())
        if is_first or _is_further_item(item, items_of_box):
            new.append(index)
        if item is not None:
            items_of_box.add(item)
    return new


def _staying_boxes_of_thing(
    phrases: Sequence[Phrase], thing: Sequence[tuple[int, int]], items: Set[int]
) -> list[tuple[int, int]]:
    """Return a thing's best box, and if it is from the imported file, its others there.

    Boxes are (the phrase's number, the box's index), the best first.
    """
    staying: list[tuple[int, int]] = []
    items_of_thing: set[int] = set()
    for number, index in thing:
        item = item_of(phrases[number].expression.instances[index], items)
        if not staying or _is_further_item(item, items_of_thing):
            staying.append((number, index))
            if item is not None:
                items_of_thing.add(item)
    return staying


def _is_further_item(item: int | None, items_before: Set[int]) -> bool:
    """Whether a box that repeats others stays, because the imported file had both.

    `item` is None for a box that isn't from the file; so `items_before` is empty where somebody has
    added the other boxes.
    """
    return item is not None and len(items_before) > 0 and item not in items_before


def _scored_boxes_of(phrase: Phrase) -> list[ScoredBox]:
    return list(zip(phrase.boxes, phrase.scores, strict=True))


def _have_ids(expressions: object) -> bool:
    if type(expressions) is not list:
        return False
    for expression in expressions:
        if type(expression) is not dict or not has_id(expression.get("expression_id")):
            return False
    return True


def _is_outlined(instance: Instance, box: Bbox) -> bool:
    """Whether an outline says all of a box, also beyond its picture: nothing of it is lost then."""
    outline = instance.outline
    return outline is not None and math.dist(outlines.bounds(outline), box) <= EXACT


def _stated_span(expression: Expression) -> object:
    """Return the place that is stated, which may be no place."""
    return expression.char_span or expression.extra.get("char_span")


def _checked_span(expression: Expression) -> Span | None:
    """Return the place that is stated, on trust: `lint` finds one where other words are."""
    stated = _stated_span(expression)
    if not stated:
        return None
    span = expression.char_span
    if span is None or not 0 <= span[0] < span[1]:
        place = list(span or ()) or stated
        raise BrokenRow(f"'char_span' of {expression.text!r:.60} should be [start, end]: {place}")
    return span


def _lost_of(
    record: Record, caption: str, phrases: Sequence[Phrase], carries: Carries
) -> Counter[str]:
    """Count what of a record the format can't say, by words for it."""
    lost: Counter[str] = Counter()
    if not carries.captions:
        lost["captions"] = int(bool(caption))
    if not carries.ids:
        lost["records' own ids"] = int(_has_own_ids(record, phrases))
    if not carries.spans:
        lost["spans"] = sum(phrase.span is not None for phrase in phrases)
    if not carries.several_boxes:
        lost["further boxes of a phrase"] = sum(len(phrase.boxes[1:]) for phrase in phrases)
    if not carries.scores:
        scores = chain.from_iterable(phrase.scores for phrase in phrases)
        lost["scores"] = sum(score is not None for score in scores)
    if not carries.verified:
        verdicts = [phrase.expression.verified for phrase in phrases]
        lost["verdicts of checks"] = sum(verdict is not None for verdict in verdicts)
    if not carries.classes:
        lost["classes of phrases"] = sum(map(_has_other_class, phrases))
    if carries.numbers:
        boxes = sum(len(phrase.boxes) for phrase in phrases)
        lost[f"exact numbers of boxes: {carries.numbers}"] = boxes
    return lost


def _has_other_class(phrase: Phrase) -> bool:
    name = phrase.expression.class_name
    return name is not None and class_key(name) != class_key(phrase.text)


def _has_own_ids(record: Record, phrases: Sequence[Phrase]) -> bool:
    """Whether an id is lost where a format has no place for ids.

    One that this package has made isn't, because reading makes it again: a/b, a/b#0, a/b.png@2#0
    for the picture a/b.png, and record, record@2#0 without a path.
    """
    made_id = image_id_of({**record, "image_id": None}, "image_path") or "record"  # a/b
    ending = os.path.splitext(path_of(record))[1]  # .png
    ids = [record.get("image_id")]
    ids += [phrase.expression.expression_id for phrase in phrases]
    for stated_id in ids:
        if stated_id is None:
            continue
        text = str(stated_id)
        after_path = text.removeprefix(made_id).removeprefix(ending)  # @2#0
        is_made = text.startswith(made_id) and after_path[:1] in ("", "@", "#")
        if not is_made:
            return True
    return False
