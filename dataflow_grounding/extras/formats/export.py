"""Records on their way into a format.

What is wanted of them, what the format can say, what is lost, and the export's README.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError, RecordError, told_as
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.geometry import Size, area, box_of, clamp
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    has_id,
    image_id_of,
    is_score,
    read_annotations,
)
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.extras.formats.base import EXACT, Carries, Format, Phrase, Sample, stands
from dataflow_grounding.extras.formats.export_folder import MARK, README, ExportFolder, is_alone
from dataflow_grounding.extras.formats.export_pictures import ExportPictures, Images

Rows: TypeAlias = Iterable[Mapping[str, Any]]
_ENDINGS = (".json", ".jsonl", ".xml", ".yaml", ".txt", ".parquet", ".tar")  # of a file alone
_REASONS_KEPT = 3
_WITHOUT_PHRASE = "pictures without a phrase to write"
_SECTION = "\n## "  # begins a format's part of training.md


@dataclass(frozen=True)
class Selection:
    """What is asked of an expression, and of each of its boxes.

    Args:
        min_score: Boxes with a lower score are left out, and those without a score, of which
            nothing is known. An expression that loses all of its boxes so is left out: that doesn't
            make it one that isn't there.
        verified_only: Expressions that a check confirmed (`verified: true`).
        reviewed_only: Expressions that a person looked at (`reviewed_by`, of the expression or its
            record).
        statuses: Of `records.STATUSES`.
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
    verified_only: bool = False
    reviewed_only: bool = False
    statuses: tuple[str, ...] = STATUSES
    keep_rejected: bool = False

    def of(
        self, record: Mapping[str, Any], expression: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The expression with the boxes that are wanted; None where it isn't."""
        unchecked = self.verified_only and expression.get("verified") is not True
        reviewer = expression.get("reviewed_by") or record.get("reviewed_by")
        unseen = self.reviewed_only and not reviewer
        if unchecked or unseen or status_of(expression) not in self.statuses:
            return None
        boxes = expression["instances"]
        kept = boxes if self.keep_rejected else not_rejected(expression)
        if kept is None:
            return None
        if self.min_score is not None:
            kept = [box for box in kept if _has_score(box, self.min_score)]
        if len(kept) == len(boxes):
            return expression
        if not kept:
            return None
        return {**expression, "instances": kept}


def _has_score(box: Mapping[str, Any], least: float) -> bool:
    return box.get("score") is not None and box["score"] >= least


def not_rejected(expression: Mapping[str, Any]) -> list[Any] | None:
    """The boxes of an expression that no person found wrong; None where nothing is left of it.

    Each box has a verdict of its own where a person gave one; without any, that of the expression
    is meant of all.
    """
    boxes: list[Any] = expression["instances"]
    if any("verified" in box for box in boxes):
        kept = [box for box in boxes if not _is_rejected(box)]
        return kept or None
    return None if _is_rejected(expression) else boxes


def _is_rejected(item: Mapping[str, Any]) -> bool:
    """Whether a person found an expression, or a box, wrong."""
    return item.get("verified") is False and bool(item.get("reviewed_by"))


def status_of(expression: Mapping[str, Any]) -> str:
    """The expression's status.

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
        path: The folder, or the one file.
        written: Counts of `records`, `phrases`, `boxes`.
        lost: What the format can't say, in words → how often.
        left_out: Records that could not be written; `reasons` has the first few.
        remarks: What else is good to know, in lines.
    """

    path: str
    written: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    reasons: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def losses(self) -> str:
        """What is lost, in a line; empty where nothing is."""
        return ", ".join(f"{what} ({count})" for what, count in self.lost.items())


def export(
    rows: Rows,
    to: Format,
    path: str,
    images: Images | None,
    folders: Sequence[str],
    select: Selection,
    strict: bool,
) -> Exported:
    """What `formats.write` does, with the format as an object."""
    alone = is_alone(path, to.data_file)
    if alone and images in ("copy", "link"):
        raise InputError(f"{path} is one file: to {images} the pictures, name a folder")
    if alone and os.path.lexists(path):
        raise InputError(f"{path} is there already: remove it, or choose another name")
    if not alone and path.endswith(_ENDINGS) and not os.path.isdir(path):
        raise InputError(
            f"{path} is no name for {to.name}'s {to.data_file}: end it so, or name a folder"
        )
    done = Exported(path)
    only = to.data_file if alone else None
    with told_as(InputError, f"can't write {path}"), ExportFolder(path, only) as out:
        way = images or ("reference" if alone else "copy")
        pictures = ExportPictures(out, way, folders, to.packs)
        to.write(_SampleMaker(to, pictures, select, done).samples(rows), out)
        _refuse_losses(to, done, strict)
        with out.file(README) as file:
            file.write(_card(to, done, pictures, out))
    return done


def _refuse_losses(to: Format, done: Exported, strict: bool) -> None:
    """Raises InputError where nothing was written, or with `strict` where anything is lost."""
    if done.written and not strict:
        return
    reasons = [done.losses(), *done.reasons]
    if not done.written:
        reasons += done.remarks
    why = "; ".join(filter(None, reasons))
    if why:
        whose = f"{to.name} would lose" if done.written else "no record is left"
        raise InputError(f"nothing is written, because {whose}: {why}")


class _SampleMaker:
    """Makes samples of records, and counts what is lost on the way."""

    def __init__(
        self, format: Format, pictures: ExportPictures, select: Selection, done: Exported
    ) -> None:
        self._format = format
        self._pictures = pictures
        self._select = select
        self._done = done
        self._changed_texts = 0
        self._doubtful = 0
        self._unwanted = 0
        self._wrong_spans = 0
        self._rejected_boxes = 0
        self._rows_of_image = NumberTable()  # by the hash of an image_id, of rows that need ids

    def samples(self, records: Rows) -> Iterator[Sample]:
        """The records that the format can say something of, with their pictures in place."""
        for number, record in enumerate(self._pictures.ahead(records), 1):
            try:
                sample = self._sample(record)
            except RecordError as error:
                self._done.left_out += 1
                if len(self._done.reasons) < _REASONS_KEPT:
                    self._done.reasons.append(f"record {number}: {error}")
                continue
            if sample is not None:
                boxes = sum(len(phrase.boxes) for phrase in sample.phrases)
                self._done.written.update(records=1, phrases=len(sample.phrases), boxes=boxes)
                yield sample
        self._add_remarks()

    def _add_remarks(self) -> None:
        counts = {
            f"texts changed, as {self._format.name} can't have them as they are": (
                self._changed_texts
            ),
            "phrases that weren't asked for, by status, score, check or review": self._unwanted,
            "boxes that a reviewer rejected": self._rejected_boxes,
            "spans that don't hold their phrase, which was looked for in its caption": (
                self._wrong_spans
            ),
            "records marked doubtful, of whose replies a part was of no use": self._doubtful,
            "pictures that aren't there, and may be turned by their EXIF": self._pictures.missing,
        }
        self._done.remarks += [f"{what}: {count}" for what, count in counts.items() if count]

    def _sample(self, record: Mapping[str, Any]) -> Sample | None:
        """The record as the format writes it; None where there is nothing to write."""
        carries = self._format.carries
        caption = str(record.get("cleaned_caption") or record.get("caption") or "")
        expressions = self._expressions(record, caption)
        wanted = self._wanted(record, expressions)
        empty = carries.empty and self._is_empty(record, expressions)
        if not wanted and not empty:
            self._done.lost[_WITHOUT_PHRASE] += 1
            return None
        picture = self._pictures.find(record)
        phrases = []
        for expression in wanted:
            phrase = self._phrase(expression, picture.size)
            if phrase is not None:
                phrases.append(phrase)
        if not phrases and not empty:
            self._done.lost[_WITHOUT_PHRASE] += 1
            return None
        if record.get("doubtful") is True:
            self._doubtful += 1
        self._done.lost += _lost_of(record, caption, phrases, carries)
        if carries.captions:
            caption = self._safe(caption)
        data = self._pictures.data(picture) if self._format.packs else b""
        return Sample(self._pictures.put(picture), picture.size, caption, phrases, record, data)

    def _is_empty(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Whether nothing is in the picture, by what is asked for.

        So it is where nothing of all that was looked for was there, or where a record without
        expressions says so.
        """
        if not expressions and (
            self._format.whole or record.get("background") is True or record.get("reviewed_by")
        ):
            expressions = [{"status": "none", "instances": []}]
        for expression in expressions:
            if status_of(expression) != "none" or self._select.of(record, expression) is None:
                return False
        return bool(expressions)

    def _expressions(self, record: Mapping[str, Any], caption: str) -> list[dict[str, Any]]:
        """The record's expressions, with ids and spans also where its tool states none.

        Raises BrokenRow.
        """
        if record.get("suspect_boxes") is True:
            raise BrokenRow("its boxes may be in another format (suspect_boxes)")
        row = Record(record, image_id=image_id_of(record, "image_path"))
        if not _have_ids(row.get("expressions")):
            key = hash(row.image_id)
            row.occurrence = self._rows_of_image.get(key) or 0
            self._rows_of_image.set(key, row.occurrence + 1)
        expressions = read_annotations(row)
        for expression in expressions:
            status = status_of(expression)
            if status not in STATUSES and status != "pending":
                raise BrokenRow(f"the status {status!r} is not one of {', '.join(STATUSES)}")
            for box in expression["instances"]:
                if not is_score(box["score"]):
                    box["score"] = None
                    self._done.lost["scores that aren't numbers from 0 to 1"] += 1
        self._set_spans(expressions, caption)
        return expressions

    def _set_spans(self, expressions: list[dict[str, Any]], caption: str) -> None:
        """Gives spans, where no expression has any, or where one doesn't hold its phrase."""
        wrong = []
        for number, expression in enumerate(expressions):
            span = expression.get("char_span")
            if span and not stands(expression["text"], span, caption):
                wrong.append(number)
        self._wrong_spans += len(wrong)
        if not any("char_span" in expression for expression in expressions):
            wrong = list(range(len(expressions)))
        if not wrong:
            return
        spans = find_spans([expression["text"] for expression in expressions], caption)
        for number in wrong:
            span = spans[number]
            expressions[number]["char_span"] = list(span) if span else None

    def _wanted(
        self, record: Mapping[str, Any], expressions: Iterable[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """The expressions that are asked for and that the format can say."""
        wanted = []
        for expression in expressions:
            if not self._select.keep_rejected:
                kept = not_rejected(expression) or ()
                self._rejected_boxes += len(expression["instances"]) - len(kept)
            selected = self._select.of(record, expression)
            if selected is None:
                self._unwanted += 1
                continue
            why = self._format.carries.why_not(status_of(selected), selected.get("char_span"))
            if why:
                self._done.lost[why] += 1
            else:
                wanted.append(selected)
        return wanted

    def _phrase(self, expression: Mapping[str, Any], size: Size) -> Phrase | None:
        """The expression with what of its boxes is inside a picture of this size.

        None where it loses all of them, or all of its words.
        """
        instances = []
        for instance in expression["instances"]:
            stated = box_of(instance["bbox"])
            box = clamp(stated, size)
            if area(box) <= 0:
                self._done.lost["boxes without an area in their picture"] += 1
                continue
            if math.dist(box, stated) > EXACT:
                self._done.lost["parts of boxes outside of their picture"] += 1
            instances.append(instance if box == stated else {**instance, "bbox": [*box]})
        status = status_of(expression)
        text = self._safe(expression["text"])
        if not text.strip():
            self._done.lost["phrases left without a word"] += 1
            return None
        if status == "grounded" and not instances:
            # Without its boxes it isn't one that isn't there.
            self._done.lost["phrases left without a box"] += 1
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
            self._changed_texts += 1
        return safe


def _have_ids(expressions: Any) -> bool:
    """Whether it is a list of expressions that all have ids of their own."""
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
    """How much of a record the format can't say, in words."""
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
    if carries.numbers:
        boxes = sum(len(phrase.boxes) for phrase in phrases)
        lost[f"exact numbers of boxes: {carries.numbers}"] = boxes
    return lost


def _has_own_ids(record: Mapping[str, Any], phrases: Sequence[Phrase]) -> bool:
    """Whether the record has ids that are not made from its picture's path.

    Those that are made may have a number behind it.
    """
    made = image_id_of({**record, "image_id": None}, "image_path") or "record"
    ids = [record.get("image_id")]
    ids += [phrase.expression["expression_id"] for phrase in phrases]
    for own_id in ids:
        if own_id is None:
            continue
        text = str(own_id)
        if not text.startswith(made) or text[len(made) :][:1] not in ("", "@", "#"):
            return True
    return False


def _card(format: Format, done: Exported, pictures: ExportPictures, out: ExportFolder) -> str:
    """The README, in Markdown; for JSON lines with their types as `datasets` wants them."""
    counts = ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing"
    where = "The pictures are in it." if format.packs else pictures.described()
    training = ["## Training", _training_of(format.name), format.training()]
    parts = [f"# {format.name}: {format.about}", f"{MARK} {__version__}: {counts}. {where}"]
    if done.lost:
        parts.append(f"Lost, because the format can't say it: {done.losses()}.")
    if done.left_out:
        parts.append(f"Left out: {done.left_out} records ({'; '.join(done.reasons)}).")
    parts.append("\n".join(f"- {remark}" for remark in done.remarks))
    parts.append("\n\n".join(filter(None, training)))
    parts.append(out.named())
    return out.front_matter(format.data_file) + "\n\n".join(filter(None, parts)) + "\n"


def _training_of(name: str) -> str:
    """What training.md says of a format, in the section of its name; empty where it has none."""
    text = files(__package__).joinpath("training.md").read_text("utf-8")
    for section in f"\n{text}".split(_SECTION):
        title, _, body = section.partition("\n")
        if title == name:
            return body.strip()
    return ""
