"""Write records in a format: select what is wanted, count what is lost, write the README."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError, RecordError, told_as
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.terminal import counted
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp
from dataflow_grounding.boxes.matching import each_thing_once
from dataflow_grounding.data.classes import class_key, class_of
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    doubt_of_reply,
    has_id,
    image_id_of,
    is_score,
    path_of,
    read_any_expressions,
)
from dataflow_grounding.data.rejected import (
    MISSED,
    Rejections,
    is_missed,
    not_rejected,
    rejections_in,
    twins_rejected,
)
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.engine.source import identify
from dataflow_grounding.formats import FORMATS, WRITTEN
from dataflow_grounding.formats.export_folder import (
    MARK,
    README,
    ExportFolder,
    is_data_file,
)
from dataflow_grounding.formats.export_pictures import ExportPictures, Images
from dataflow_grounding.formats.format import (
    EXACT,
    NOT_IN_CAPTION,
    Carries,
    Format,
    Phrase,
    Sample,
    stands,
)
from dataflow_grounding.formats.imported import ReturningFormat

Rows: TypeAlias = Iterable[Mapping[str, Any]]
# A path that ends so is meant as one file; a new folder of such a name would be a mistake.
_FILE_ENDINGS = (".json", ".jsonl", ".xml", ".yaml", ".txt", ".parquet", ".tar")
_MAX_REASONS = 3  # examples of why records were left out; all of them may be millions
# What is told of such pictures where the format has no place for them.
_WITHOUT_PHRASE = "pictures without a phrase to write"
# Why a detector's picture is left out: a box that nobody has verified or looked at; a thing that a
# person says is there, without a box; a class of which it couldn't be told whether it is there.
_UNVERIFIED = "unverified"
_MISSED_BOX = "missed"
_UNDECIDED_CLASS = "undecided"
# What is told of the records in the end, with how often: by what is counted, in the order of lines.
_CHANGED = "changed texts"  # captions and phrases
_UNSELECTED = "unselected phrases"
_REJECTED = "rejected boxes"
_ONLY_REJECTED = "pictures of rejected boxes alone"
_MAYBE_THERE = "pictures of something"
_NOT_KNOWN_EMPTY = "pictures of nothing known"
_REPEATED = "repeated boxes"
_OF_SAME_THING = "boxes of the same thing"
_WRONG_SPAN = "wrong spans"
_DOUBTFUL = "doubtful records"
_REMARKS = {
    _CHANGED: "texts changed, as {name} can't have them as they are",
    _UNSELECTED: "phrases left out, by their status or score, or as an option or a reviewer says",
    _REJECTED: "boxes that a reviewer rejected",
    _UNVERIFIED: "pictures left out, as boxes that nobody has verified or looked at would be"
    " background there (--partly-verified keeps them)",
    _MISSED_BOX: "pictures left out, as a reviewer says that something is there, which has no box"
    " and would be background (--partly-verified keeps them)",
    _UNDECIDED_CLASS: "pictures left out, as it is undecided whether a class is there, which would"
    " be background (--partly-verified keeps them)",
    _ONLY_REJECTED: "pictures left out, as all boxes of a phrase were rejected and nobody said that"
    " nothing is there (m in the review says so: the picture is then a background)",
    _MAYBE_THERE: "pictures left out, as something may be there without a box (background: false),"
    " as where all boxes of a phrase were rejected (m in the review says that nothing is)",
    _NOT_KNOWN_EMPTY: "pictures left out, as nothing says what is there, or that nothing is",
    _REPEATED: "boxes that stand there already under the same words, written once",
    _OF_SAME_THING: "boxes on a thing that another phrase of the same class has boxed, written"
    " once",
    _WRONG_SPAN: "spans that don't hold their phrase, which was looked for in its caption",
    _DOUBTFUL: "records marked doubtful, of whose replies a part was of no use",
}
_SECTION = "\n## "  # begins a format's part of training.md, before the format's name


@dataclass(frozen=True)
class Selection:
    """What is asked of an expression, and of each of its boxes.

    Args:
        min_score: Boxes with a lower score are left out, and those without a score, of which
            nothing is known. An expression that loses all of its boxes so is left out: that doesn't
            make it one that isn't there.
        min_scores: Other lowest scores, by class. `unmet` has the classes among them of which no
            expression was.
        verified_only: Boxes that a check or a person confirmed (`verified: true`); one without a
            word of its own has that of its expression, as has an expression without boxes.
        reviewed_only: Expressions that a person looked at (`reviewed_by`, of the expression or its
            record).
        statuses: Of `records.STATUSES`.
        partly_verified: Also pictures of which a detector would learn something as background that
            may be there: a class that is undecided, a box that a person missed, and with
            `verified_only` other boxes.
        keep_rejected: Also boxes that a person found wrong, and phrases of which nothing else is
            left. A phrase that loses all of its boxes is left out, as with `min_score`.

    Example:
        >>> sure = {"bbox": [0, 0, 9, 9], "score": 0.9}
        >>> unsure = {"bbox": [5, 5, 9, 9], "score": 0.2}
        >>> both = {"instances": [sure, unsure]}
        >>> [box["score"] for box in Selection(min_score=0.5).of({}, both)["instances"]]
        [0.9]
    """

    min_score: float | None = None
    min_scores: Mapping[str, float] = field(default_factory=dict)
    verified_only: bool = False
    reviewed_only: bool = False
    statuses: tuple[str, ...] = STATUSES
    keep_rejected: bool = False
    partly_verified: bool = False
    unmet: set[str] = field(default_factory=set, init=False, compare=False)
    _by_key: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Note which classes have a lowest score of their own."""
        for name, score in self.min_scores.items():
            self._by_key[class_key(name)] = score
        self.unmet.update(self._by_key)

    def _lowest_score(self, expression: Mapping[str, Any]) -> float | None:
        if not self._by_key:
            return self.min_score
        key = class_key(class_of(expression))
        self.unmet.discard(key)
        return self._by_key.get(key, self.min_score)

    def of(
        self, record: Mapping[str, Any], expression: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the expression with the boxes that are wanted; None where it isn't wanted.

        Nor is one wanted that had boxes and loses all of them. An expression that loses no box is
        returned itself, another one as a copy.
        """
        if self.reviewed_only and not reviewer_of(record, expression):
            return None
        if status_of(expression) not in self.statuses:
            return None
        boxes = expression["instances"]
        kept = boxes if self.keep_rejected else not_rejected(expression)
        if self.verified_only:
            kept = verified_boxes(expression, kept)
        if kept is None:
            return None
        lowest = self._lowest_score(expression)
        if lowest is not None:
            scored = [box for box in kept if box.get("score") is not None]
            kept = [box for box in scored if box["score"] >= lowest]
        if len(kept) == len(boxes):
            return expression
        if not kept:
            return None
        return {**expression, "instances": kept}


def reviewer_of(record: Mapping[str, Any], expression: Mapping[str, Any]) -> Any:
    """Return the person who looked at an expression, or at all of its record; None without one."""
    return expression.get("reviewed_by") or record.get("reviewed_by")


def verified_boxes(expression: Mapping[str, Any], boxes: list[Any] | None) -> list[Any] | None:
    """Return those of an expression's `boxes` that are verified; None where none is.

    A box without a verdict of its own has that of its expression. For an expression that never had
    boxes and is itself verified, so that nothing is there, the list is empty. `boxes` are its boxes
    that are left; None counts as none.
    """
    verdict = expression.get("verified")
    kept = [box for box in boxes or () if box.get("verified", verdict) is True]
    is_confirmed_absent = not expression["instances"] and verdict is True
    return kept if kept or is_confirmed_absent else None


def status_of(expression: Mapping[str, Any]) -> str:
    """Return the expression's status.

    Where none is stated it is `grounded` with boxes, else `pending`: not looked for yet.
    """
    status = expression.get("status")
    if not status:
        status = "grounded" if expression.get("instances") else "pending"
    return str(status)


@dataclass
class Exported:
    """What an export wrote, and what it could not.

    Args:
        path: The folder, or the one file; of a part of a split, the part's name.
        written: Counts of `records`, `phrases`, `boxes`; empty where nothing was written.
        lost: What the format can't say, in words → how often.
        left_out: Records that could not be written; `reasons` has the first few.
        remarks: What else is good to know, in lines.
        parts: Counts as in `written` of each part of a split, by its name.
    """

    path: str
    written: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    reasons: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    parts: dict[str, Counter[str]] = field(default_factory=dict)

    def losses(self) -> str:
        """Return what is lost, in a line, `scores (2), spans (1)`; empty where nothing is."""
        return ", ".join(f"{what} ({count})" for what, count in self.lost.items())


def export(
    records: Rows | Mapping[str, Rows],
    format: Format,
    path: str,
    images: Images | None,
    folders: Sequence[str],
    select: Selection,
    strict: bool,
) -> Exported:
    """Write records in a format: a folder with pictures and README, or the data file alone.

    It is put at `path` as a whole, at the end; where anything is raised, nothing is.

    Args:
        records: The records, each read once; or those of each part of a split, by the part's name:
            each part goes into a folder of its name, with one README for all.
        format: What writes them.
        path: A folder, which replaces an earlier export; or a new file, with the ending of the
            format's data file.
        images: `copy`, `link` or `reference`; None copies into a folder, and references from a
            file alone.
        folders: Where relative paths of pictures are looked for, in this order.
        select: Which expressions and boxes are wanted.
        strict: Raise where anything is lost or a record is left out.

    Raises:
        InputError: `path` is taken, can't be written, or is one file and pictures or parts should
            go with it; of all records none is left to be written, `strict` or not; with `strict`,
            anything is lost. Without any records an empty export is written, but for a part.
    """
    is_split = isinstance(records, Mapping)
    parts: Mapping[str, Rows] = records if isinstance(records, Mapping) else {"": records}
    is_one_file = is_data_file(path, format.data_file)
    if is_one_file:
        _refuse_one_file(path, images, [*parts] if is_split else [])
    elif path.endswith(_FILE_ENDINGS) and not os.path.isdir(path):
        raise InputError(
            f"{path} is no name for {format.name}'s {format.data_file}: end it so, or name a folder"
        )
    images = images or ("reference" if is_one_file else "copy")
    exported = Exported(path)
    out = ExportFolder(
        path, format.data_file if is_one_file else None, parts=[*parts] if is_split else []
    )
    with told_as(InputError, f"can't write {path}"), out:
        with format.shared(out):
            for name, rows in parts.items():
                folder = out.part(name) if is_split else out
                done = Exported(name) if is_split else exported
                pictures = ExportPictures(folder, images, folders, format.packs, format.flat)
                format.write(_SampleMaker(format, pictures, select, done).samples(rows), folder)
                if is_split:
                    _add_part(exported, done)
        # the pictures of all parts are treated alike
        _finish(format, exported, pictures, out, strict)
    return exported


def _refuse_one_file(path: str, images: Images | None, parts: Sequence[str]) -> None:
    if parts:
        raise InputError(
            f"{path} is one file, and {len(parts)} parts are to be written: name a folder"
        )
    if images in ("copy", "link"):
        raise InputError(f"{path} is one file: to {images} the pictures, name a folder")
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: remove it, or choose another name")


def _add_part(whole: Exported, part: Exported) -> None:
    if not part.written:
        reasons = "; ".join(filter(None, _why_nothing(part)))
        raise InputError(f"nothing is written, because no record of {part.path} is left: {reasons}")
    whole.parts[part.path] = part.written
    whole.written += part.written
    whole.lost += part.lost
    whole.left_out += part.left_out
    whole.reasons += [f"{part.path}, {reason}" for reason in part.reasons]
    whole.remarks += [f"{part.path}: {remark}" for remark in part.remarks]


def _finish(
    format: Format, exported: Exported, pictures: ExportPictures, out: ExportFolder, strict: bool
) -> None:
    reasons: list[str] = []
    if not exported.written:
        reasons = _why_nothing(exported)
    elif strict:
        reasons = [exported.losses(), *exported.reasons]
    why = "; ".join(filter(None, reasons))
    if why:  # empty where there were no records at all
        problem = f"{format.name} would lose" if exported.written else "no record is left"
        raise InputError(f"nothing is written, because {problem}: {why}")
    exported.remarks += format.remarks
    with out.file(README) as file:  # of a file alone it is thrown away with the folder
        file.write(_readme(format, exported, pictures, out))


def _why_nothing(exported: Exported) -> list[str]:
    reasons = [exported.losses(), *exported.reasons, *exported.remarks]
    if NOT_IN_CAPTION in exported.lost:
        # Detectors are trained on these, and they need no captions.
        names = ", ".join(name for name in WRITTEN if "classes" in FORMATS[name]["says"])
        reasons.append(f"classes and phrases of no caption go into {names}, say")
    return reasons


class _SampleMaker:
    """Makes samples of records, and counts in an `Exported` what is written and what is lost."""

    def __init__(
        self, format: Format, pictures: ExportPictures, select: Selection, exported: Exported
    ) -> None:
        self._format = format
        self._pictures = pictures
        self._select = select
        # Filled while samples are made; its remarks after the last one, from the counts below.
        self._exported = exported
        self._counts = Counter[str]()  # of what _REMARKS tells
        # by class, in how many records it was looked for, and in how many it is undecided
        self._records_of_class = Counter[str]()
        self._undecided_of_class = Counter[str]()
        # by picture, why a detector would learn as background what may be a thing
        self._false_backgrounds: dict[str, str] = {}
        # by picture, for detectors: what a person rejected in any of its rows
        self._rejections: dict[str, Rejections] = {}
        # hash of an image_id → how many rows of that picture came before, so that the ids that are
        # made for their expressions differ; only rows with expressions that lack ids are counted
        self._rows_of_image = NumberTable()
        self._without_picture = 0  # rows so far that name none

    def samples(self, records: Rows) -> Iterator[Sample]:
        """Yield a sample of each record that the format can say something of.

        Its picture is put into the export. A record that raises RecordError is counted in
        `left_out` and passed over. At the end, remarks are added. For detectors `records` are read
        twice: what one row of a picture leaves open holds for all of its rows.
        """
        if self._format.detects:
            if iter(records) is records:  # an iterator, which can be gone through once
                records = list(records)
            self._note_what_holds_for_pictures(records)
            self._counts.update(self._false_backgrounds.values())
        for number, record in enumerate(records, 1):
            try:
                sample = self._sample(record)
            except RecordError as error:
                self._exported.left_out += 1
                if len(self._exported.reasons) < _MAX_REASONS:
                    self._exported.reasons.append(f"record {number}: {error}")
                continue
            if sample is not None:
                boxes = sum(len(phrase.boxes) for phrase in sample.phrases)
                self._exported.written.update(records=1, phrases=len(sample.phrases), boxes=boxes)
                yield sample
        self._add_remarks()

    def _add_remarks(self) -> None:
        remarks = self._exported.remarks
        for what, text in _REMARKS.items():
            if self._counts[what]:
                remarks.append(f"{text.format(name=self._format.name)}: {self._counts[what]}")
        if self._pictures.missing:
            remarks.append(
                "pictures that aren't there, and may be turned by their EXIF:"
                f" {self._pictures.missing}"
            )
        if self._counts[_UNDECIDED_CLASS]:
            remarks += self._remarks_on_undecided_classes()

    def _sample(self, record: Mapping[str, Any]) -> Sample | None:
        # What is lost of it is counted, and its picture is put into the export.
        carries = self._format.carries
        caption = str(record.get("cleaned_caption") or record.get("caption") or "")
        expressions = self._expressions(record, caption)
        selected = self._selected(record, expressions)
        if self._false_backgrounds and self._pictures.name_of(record) in self._false_backgrounds:
            return None
        may_be_empty = carries.empty and self._shows_nothing(record, expressions)
        if not selected and not may_be_empty:
            self._count_without_phrase(record, expressions)
            return None
        picture = self._pictures.find(record)
        phrases = self._phrases(selected, picture.size)
        if not phrases and not may_be_empty:
            self._count_without_phrase(record, expressions)
            return None
        if not self._format.repeats and not self._format.whole:
            phrases = self._without_repeats(phrases)
        if doubt_of_reply(record):
            self._counts[_DOUBTFUL] += 1
        self._exported.lost += _lost_of(record, caption, phrases, carries)  # this drops zeros
        if carries.captions:
            caption = self._safe(caption)
        data = self._pictures.data(picture) if self._format.packs else b""
        return Sample(self._pictures.put(picture), picture.size, caption, phrases, record, data)

    def _count_without_phrase(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> None:
        if not self._format.carries.empty:
            self._exported.lost[_WITHOUT_PHRASE] += 1
        elif not self._select.keep_rejected and any(map(_is_all_rejected, expressions)):
            self._counts[_ONLY_REJECTED] += 1
        elif record.get("background") is False:  # as of a split, which leaves out such phrases
            self._counts[_MAYBE_THERE] += 1
        else:
            self._counts[_NOT_KNOWN_EMPTY] += 1

    def _phrases(self, expressions: Iterable[Mapping[str, Any]], size: Size) -> list[Phrase]:
        phrases = []
        for expression in expressions:
            phrase = self._phrase(expression, size)
            if phrase is not None:
                phrases.append(phrase)
        return phrases

    def _note_what_holds_for_pictures(self, records: Rows) -> None:
        # What a person rejected in one row of a picture, and why a detector would learn a thing in
        # it as background, holds for the picture's other rows, too. Records that can't be read are
        # passed over: what is wrong with them is told when they are written.
        # Another maker, so that nothing is counted twice when the records are written.
        reader = _SampleMaker(self._format, self._pictures, self._select, Exported(""))
        for record in records:
            try:
                caption = str(record.get("cleaned_caption") or record.get("caption") or "")
                expressions = reader._expressions(record, caption)
                name = self._pictures.name_of(record)
            except RecordError:
                continue
            rejections = rejections_in(expressions)
            if rejections:
                self._rejections.setdefault(name, {}).update(rejections)
            self._records_of_class.update(_stated_classes(expressions))
            self._undecided_of_class.update(_undecided_classes(expressions))
            why = self._why_false_background(record, expressions)
            if why and not self._select.partly_verified:
                self._false_backgrounds.setdefault(name, why)

    def _remarks_on_undecided_classes(self) -> list[str]:
        # An empty list without such classes. The first _MAX_REASONS are named, by the alphabet.
        always = []  # what is told of each
        for name, count in sorted(self._undecided_of_class.items()):
            of_all = self._records_of_class[name]
            if count == of_all:
                always.append(f"{name}: undecided in {count} of {of_all} pictures")
        if not always:
            return []
        if len(always) > _MAX_REASONS:
            always[_MAX_REASONS:] = [f"and {len(always) - _MAX_REASONS} more"]
        return [
            f"{', '.join(always)} (ambiguous or unsupported: neither there nor absent); take such a"
            " class out of data.classes, or have another model look for it"
        ]

    def _why_false_background(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> str:
        # Return why a detector would learn a thing in a record's picture as background. It is one
        # of _UNVERIFIED, _MISSED_BOX and _UNDECIDED_CLASS, the first that holds; "" where it
        # wouldn't.
        if self._leaves_out_boxes(record, expressions):
            return _UNVERIFIED
        if record.get(MISSED) or any(map(is_missed, expressions)):
            return _MISSED_BOX
        return _UNDECIDED_CLASS if _undecided_classes(expressions) else ""

    def _leaves_out_boxes(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> bool:
        if not self._select.verified_only and not self._select.reviewed_only:
            return False
        # Boxes as their phrase and their numbers, so that equal boxes of one phrase count as one.
        not_wrong: set[tuple[str, tuple[float, ...]]] = set()
        wanted: set[tuple[str, tuple[float, ...]]] = set()
        for expression in expressions:
            thing = class_key(str(expression["text"]))
            boxes = not_rejected(expression) or []
            not_wrong.update((thing, tuple(box["bbox"])) for box in boxes)
            if self._select.verified_only:
                boxes = verified_boxes(expression, boxes) or []
            if not self._select.reviewed_only or reviewer_of(record, expression):
                wanted.update((thing, tuple(box["bbox"])) for box in boxes)
        return wanted < not_wrong  # what is wanted is among them, so that some is left out

    def _shows_nothing(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> bool:
        # - Marked `background: false`: no. - With expressions: if each has the status `none` and is
        # selected. - Without expressions: if it is marked `background`, or a person reviewed it, or
        # the format writes whole records (`Format.whole`); and an expression that wasn't found
        # would be selected.
        if isinstance(self._format, ReturningFormat):
            nothing_left = all(map(_is_rejected_or_absent, expressions))
            if self._format.goes_back_empty(record, nothing_left):
                return True
        if record.get("background") is False:  # something is there that it doesn't say
            return False
        if not expressions:
            is_known_empty = record.get("background") is True or record.get("reviewed_by")
            if not self._format.whole and not is_known_empty:
                return False
            expressions = [{"status": "none", "instances": []}]
        for expression in expressions:
            if status_of(expression) != "none" or self._select.of(record, expression) is None:
                return False
        return True

    def _expressions(self, record: Mapping[str, Any], caption: str) -> list[dict[str, Any]]:
        # A score that isn't a number from 0 to 1 becomes None, and is counted as lost.
        if record.get("suspect_boxes") is True:
            raise BrokenRow("its boxes may be in another format (suspect_boxes)")
        row = Record(record)
        if not _have_ids(row.get("expressions")):
            identify(row, "image_path", None, self._rows_of_image)
            if row.image_id is None:
                row.occurrence = self._without_picture
                self._without_picture += 1
        expressions = read_any_expressions(row)
        for expression in expressions:
            status = status_of(expression)
            if status not in STATUSES and status != "pending":
                raise BrokenRow(f"the status {status!r} is not one of {', '.join(STATUSES)}")
            for box in expression["instances"]:
                if not is_score(box["score"]):
                    box["score"] = None
                    self._exported.lost["scores that aren't numbers from 0 to 1"] += 1
        self._set_spans(expressions, caption)
        if self._select.keep_rejected:
            return expressions
        others = None
        if self._rejections:
            others = self._rejections.get(self._pictures.name_of(record))
        return twins_rejected(expressions, others)

    def _set_spans(self, expressions: list[dict[str, Any]], caption: str) -> None:
        # Set `char_span` of expressions in place, to where the phrase is found in the caption. It
        # is set of those whose span doesn't hold their phrase, which are counted, and of all where
        # none states one; to None where the phrase isn't found.
        unset = []  # indices of the expressions that get a span
        for index, expression in enumerate(expressions):
            span = expression.get("char_span")
            if span and not stands(expression["text"], span, caption):
                unset.append(index)
        self._counts[_WRONG_SPAN] += len(unset)
        if not any("char_span" in expression for expression in expressions):
            unset = list(range(len(expressions)))
        if not unset:
            return
        # All are looked for, as they take their places in the caption from each other.
        spans = find_spans([expression["text"] for expression in expressions], caption)
        for index in unset:
            span = spans[index]
            expressions[index]["char_span"] = list(span) if span else None

    def _selected(
        self, record: Mapping[str, Any], expressions: Iterable[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        # Return the expressions that are selected and that the format can say. They have only the
        # boxes that are selected. Expressions that are left out are counted, and so are boxes that
        # a person rejected, unless they are kept.
        wanted = []
        for expression in expressions:
            if not self._select.keep_rejected:
                kept = not_rejected(expression) or ()
                self._counts[_REJECTED] += len(expression["instances"]) - len(kept)
            selected = self._select.of(record, expression)
            if selected is None:
                self._counts[_UNSELECTED] += 1
                continue
            why_lost = self._format.carries.why_lost(status_of(selected), selected.get("char_span"))
            if why_lost:
                self._exported.lost[why_lost] += 1
            else:
                wanted.append(selected)
        return wanted

    def _without_repeats(self, phrases: Sequence[Phrase]) -> list[Phrase]:
        # A detector would take a box that comes twice for two things, and a model that is tuned on
        # such conversations learns to repeat itself. A phrase that loses all of its boxes so is
        # left out.
        if self._format.detects:
            return self._each_thing_once(phrases)
        kept: list[Phrase] = []
        boxes_of_thing: dict[str, set[Bbox]] = {}
        for phrase in phrases:
            seen = boxes_of_thing.setdefault(self._format.thing(phrase), set())
            new = _indices_of_new(phrase.boxes, seen)
            seen.update(phrase.boxes)
            self._counts[_REPEATED] += len(phrase.boxes) - len(new)
            if len(new) < len(phrase.boxes):
                phrase = phrase.with_boxes(new)
            if phrase.boxes or phrase.status != "grounded":
                kept.append(phrase)
        return kept

    def _each_thing_once(self, phrases: Sequence[Phrase]) -> list[Phrase]:
        # Phrases of one class, as "a person" and "a human", have each thing with a box of its own.
        places_of_class: dict[str, list[int]] = {}
        for place, phrase in enumerate(phrases):
            places_of_class.setdefault(self._format.thing(phrase), []).append(place)
        kept = list(phrases)
        for places in places_of_class.values():
            boxes = [box for place in places for box in phrases[place].boxes]
            repeated = len(boxes) - len(set(boxes))
            self._counts[_REPEATED] += repeated
            self._counts[_OF_SAME_THING] -= repeated
            instances = [_as_instances(phrases[place]) for place in places]
            for place, staying in zip(places, each_thing_once(instances), strict=True):
                phrase = phrases[place]
                self._counts[_OF_SAME_THING] += len(phrase.boxes) - len(staying)
                if len(staying) < len(phrase.boxes):
                    kept[place] = phrase.with_boxes(staying)
        return [phrase for phrase in kept if phrase.boxes or phrase.status != "grounded"]

    def _phrase(self, expression: Mapping[str, Any], size: Size) -> Phrase | None:
        # Boxes outside are dropped. None where a `grounded` phrase has no box left, or the words of
        # any phrase are blank once the format made them safe. What is lost so is counted.
        instances = []
        for instance in expression["instances"]:
            stated = box_of(instance["bbox"])
            box = clamp(stated, size)
            if area(box) <= 0:
                self._exported.lost["boxes without an area in their picture"] += 1
                continue
            if math.dist(box, stated) > EXACT:
                self._exported.lost["parts of boxes outside of their picture"] += 1
            instances.append(instance if box == stated else {**instance, "bbox": [*box]})
        status = status_of(expression)
        text = self._safe(self._format.words_of(expression))
        if not text.strip():
            self._exported.lost["phrases left without a word"] += 1
            return None
        if status == "grounded" and not instances:
            # Written without boxes it would say that nothing is there.
            self._exported.lost["phrases left without a box"] += 1
            return None
        span = expression.get("char_span")
        return Phrase(
            text=text,
            span=(span[0], span[1]) if span else None,
            status=status,
            boxes=[box_of([*map(float, instance["bbox"])]) for instance in instances],
            scores=[_score_of(instance) for instance in instances],
            expression={**expression, "instances": instances},
        )

    def _safe(self, text: str) -> str:
        safe = self._format.safe(text)
        if safe != text:
            self._counts[_CHANGED] += 1
        return safe


def _is_all_rejected(expression: Mapping[str, Any]) -> bool:
    # Whether an expression has boxes, and a person rejected each of them. That doesn't say that its
    # thing is nowhere in the picture.
    kept_boxes = not_rejected(expression) or []
    return bool(expression["instances"]) and len(kept_boxes) == 0


def _is_rejected_or_absent(expression: Mapping[str, Any]) -> bool:
    return _is_all_rejected(expression) or status_of(expression) == "none"


def _stated_classes(expressions: Sequence[Mapping[str, Any]]) -> set[str]:
    names = [expression.get("class") for expression in expressions]
    return {class_key(name) for name in names if isinstance(name, str)}


def _undecided_classes(expressions: Sequence[Mapping[str, Any]]) -> set[str]:
    # A class that has a box in any of the expressions isn't one of them. Expressions without a
    # class, as those of captions, don't count: nobody looks for them in other pictures either.
    undecided = set()
    boxed = set()
    for expression in expressions:
        name = expression.get("class")
        if not isinstance(name, str):
            continue
        if expression["instances"]:
            boxed.add(class_key(name))
        elif status_of(expression) in ("ambiguous", "unsupported"):
            undecided.add(class_key(name))
    return undecided - boxed


def _indices_of_new(boxes: Sequence[Bbox], seen: Set[Bbox]) -> list[int]:
    index_of_box: dict[Bbox, int] = {}
    for index, box in enumerate(boxes):
        if box not in seen:
            index_of_box.setdefault(box, index)
    return list(index_of_box.values())


def _as_instances(phrase: Phrase) -> list[dict[str, Any]]:
    scored = zip(phrase.boxes, phrase.scores, strict=True)
    return [{"bbox": box, "score": score} for box, score in scored]


def _have_ids(expressions: Any) -> bool:
    if type(expressions) is not list:
        return False
    return all(
        type(expression) is dict and has_id(expression.get("expression_id"))
        for expression in expressions
    )


def _score_of(instance: Mapping[str, Any]) -> float | None:
    score = instance["score"]
    return None if score is None else float(score)


def _lost_of(
    record: Mapping[str, Any], caption: str, phrases: Sequence[Phrase], carries: Carries
) -> Counter[str]:
    # Counts may be 0. `caption` is the record's, `phrases` are those that are written of it.
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
        verdicts = [phrase.expression.get("verified") for phrase in phrases]
        lost["verdicts of checks"] = sum(verdict is not None for verdict in verdicts)
    if not carries.classes:
        classes = [phrase.expression.get("class") for phrase in phrases]
        lost["classes of phrases"] = sum(
            isinstance(name, str) and class_key(name) != class_key(phrase.text)
            for name, phrase in zip(classes, phrases, strict=True)
        )
    if carries.numbers:
        boxes = sum(len(phrase.boxes) for phrase in phrases)
        lost[f"exact numbers of boxes: {carries.numbers}"] = boxes
    return lost


def _has_own_ids(record: Mapping[str, Any], phrases: Sequence[Phrase]) -> bool:
    # Ours are the path (`record` without one), with or without its ending, alone or followed by
    # `@2` and the like or `#0` and the like; they are made again on reading, so that they needn't
    # be carried.
    made_id = image_id_of({**record, "image_id": None}, "image_path") or "record"
    ending = os.path.splitext(path_of(record))[1]
    ids = [record.get("image_id")]
    ids += [phrase.expression["expression_id"] for phrase in phrases]
    for own_id in ids:
        if own_id is None:
            continue
        if not str(own_id).startswith(made_id):
            return True
        behind = str(own_id).removeprefix(made_id).removeprefix(ending)
        if behind[:1] not in ("", "@", "#"):
            return True
    return False


def _readme(format: Format, exported: Exported, pictures: ExportPictures, out: ExportFolder) -> str:
    counts = ", ".join(f"{count:,} {what}" for what, count in exported.written.items())
    where = pictures.described(list(exported.parts))
    if format.packs:
        where = "The pictures are in it."
    training = ["## Training", _training_section(format.name), format.training()]
    parts = [
        f"# {format.name}: {format.about}",
        f"{MARK} {__version__}: {counts or 'nothing'}. {where}",
    ]
    if exported.lost:
        parts.append(f"Lost, because the format can't say it: {exported.losses()}.")
    if exported.left_out:
        parts.append(
            f"Left out: {counted(exported.left_out, 'record')} ({'; '.join(exported.reasons)})."
        )
    parts.append("\n".join(f"- {remark}" for remark in exported.remarks))
    parts.append("\n\n".join(filter(None, training)))
    parts.append(out.named())  # the last line, by which an export is known to be ours
    return out.front_matter(format.data_file) + "\n\n".join(filter(None, parts)) + "\n"


def _training_section(name: str) -> str:
    text = files(__package__).joinpath("training.md").read_text("utf-8")
    for section in f"\n{text}".split(_SECTION):
        title, _, body = section.partition("\n")
        if title == name:
            return body.strip()
    return ""
