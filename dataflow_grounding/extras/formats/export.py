"""Records on their way into a format: what is wanted of them, what the format can say, what is
lost; its README.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
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
_SHOWN = 3  # reasons that are kept


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
        unseen = self.reviewed_only and not (
            expression.get("reviewed_by") or record.get("reviewed_by")
        )
        if unchecked or unseen or status_of(expression) not in self.statuses:
            return None
        boxes = expression["instances"]
        kept = boxes if self.keep_rejected else not_rejected(expression)
        if kept is None:
            return None
        if self.min_score is not None:
            kept = [
                box
                for box in kept
                if box.get("score") is not None and box["score"] >= self.min_score
            ]
        if len(kept) == len(boxes):
            return expression
        return {**expression, "instances": kept} if kept else None


def not_rejected(expression: Mapping[str, Any]) -> list[Any] | None:
    """The boxes of an expression that no person found wrong; None where the expression itself was,
    or all of them were.

    Each box has a verdict of its own where a person gave one; without any, that of the expression
    is meant of all.
    """
    boxes: list[Any] = expression["instances"]
    judged = any("verified" in box for box in boxes)
    if not judged:
        is_rejected = expression.get("verified") is False and bool(expression.get("reviewed_by"))
        return None if is_rejected else boxes
    kept = [box for box in boxes if not (box.get("verified") is False and box.get("reviewed_by"))]
    return kept or None


def status_of(expression: Mapping[str, Any]) -> str:
    """The expression's status; where none is stated, `grounded` with boxes, else `pending`: not
    looked for yet.
    """
    return str(
        expression.get("status") or ("grounded" if expression.get("instances") else "pending")
    )


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
    if alone := is_alone(path, to.data_file):
        if images in ("copy", "link"):
            raise InputError(f"{path} is one file: to {images} the pictures, name a folder")
        if os.path.lexists(path):
            raise InputError(f"{path} is there already: remove it, or choose another name")
    elif path.endswith(_ENDINGS) and not os.path.isdir(path):
        raise InputError(
            f"{path} is no name for {to.name}'s {to.data_file}: end it so, or name a folder"
        )
    done = Exported(path)
    with (
        told_as(InputError, f"can't write {path}"),
        ExportFolder(path, to.data_file if alone else None) as out,
    ):
        pictures = ExportPictures(
            out, images or ("reference" if alone else "copy"), folders, to.packs
        )
        to.write(_Way(to, pictures, select, done).samples(rows), out)
        why = "; ".join(
            filter(None, [done.losses(), *done.reasons, *(() if done.written else done.remarks)])
        )
        if why and (strict or not done.written):
            whose = f"{to.name} would lose" if done.written else "no record is left"
            raise InputError(f"nothing is written, because {whose}: {why}")
        with out.file(README) as file:
            file.write(_card(to, done, pictures, out))
    return done


class _Way:
    """Makes samples of records, and counts."""

    def __init__(
        self, format: Format, pictures: ExportPictures, select: Selection, done: Exported
    ) -> None:
        self._format, self._pictures, self._select, self._done = format, pictures, select, done
        self._changed = self._doubtful = self._unwanted = self._off = self._rejected = 0
        self._seen = NumberTable()  # hash of an image_id → records without ids of their expressions

    def samples(self, records: Rows) -> Iterator[Sample]:
        """The records that the format can say something of, with their pictures in place."""
        for number, record in enumerate(self._pictures.ahead(records), 1):
            try:
                sample = self._sample(record)
            except RecordError as error:
                self._done.left_out += 1
                if len(self._done.reasons) < _SHOWN:
                    self._done.reasons.append(f"record {number}: {error}")
                continue
            if sample is not None:
                boxes = sum(len(phrase.boxes) for phrase in sample.phrases)
                self._done.written.update(records=1, phrases=len(sample.phrases), boxes=boxes)
                yield sample
        counts = {
            f"texts changed, as {self._format.name} can't have them as they are": self._changed,
            "phrases that weren't asked for, by status, score, check or review": self._unwanted,
            "boxes that a reviewer rejected": self._rejected,
            "spans that don't hold their phrase, which was looked for in its caption": self._off,
            "records marked doubtful, of whose replies a part was of no use": self._doubtful,
            "pictures that aren't there, and may be turned by their EXIF": self._pictures.missing,
        }
        self._done.remarks += [f"{what}: {count}" for what, count in counts.items() if count]

    def _sample(self, record: Mapping[str, Any]) -> Sample | None:
        carries = self._format.carries
        caption = str(record.get("cleaned_caption") or record.get("caption") or "")
        expressions = self._expressions(record, caption)
        said = self._said(record, expressions)
        empty = carries.empty and self._is_empty(record, expressions)
        picture = self._pictures.find(record) if said or empty else None
        phrases = list(filter(None, (self._phrase(one, picture.size) for one in said if picture)))
        if picture is None or not (phrases or empty):
            self._done.lost["pictures without a phrase to write"] += 1
            return None
        self._doubtful += record.get("doubtful") is True
        self._done.lost += Counter(_lost_of(record, caption, phrases, carries))
        caption = self._safe(caption) if carries.captions else caption
        data = self._pictures.data(picture) if self._format.packs else b""
        return Sample(self._pictures.put(picture), picture.size, caption, phrases, record, data)

    def _is_empty(
        self, record: Mapping[str, Any], expressions: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Whether nothing is in the picture, by what is asked for: all that was looked for, or who
        says so of it.
        """
        if not expressions and (
            self._format.whole or record.get("background") is True or record.get("reviewed_by")
        ):
            expressions = [{"status": "none", "instances": []}]
        wanted = (
            status_of(one) == "none" and self._select.of(record, one) is not None
            for one in expressions
        )
        return bool(expressions) and all(wanted)

    def _expressions(self, record: Mapping[str, Any], caption: str) -> list[dict[str, Any]]:
        """The record's expressions, with ids and spans also where its tool states none. Raises
        BrokenRow.
        """
        if record.get("suspect_boxes") is True:
            raise BrokenRow("its boxes may be in another format (suspect_boxes)")
        row = Record(record, image_id=image_id_of(record, "image_path"))
        given = row.get("expressions")
        if not (
            type(given) is list
            and all(type(one) is dict and has_id(one.get("expression_id")) for one in given)
        ):
            row.occurrence = self._seen.get(hash(row.image_id)) or 0
            self._seen.set(hash(row.image_id), row.occurrence + 1)
        expressions = read_annotations(row)
        for one in expressions:
            if (status := status_of(one)) not in STATUSES and status != "pending":
                raise BrokenRow(f"the status {status!r} is not one of {', '.join(STATUSES)}")
            for box in one["instances"]:
                if not is_score(box["score"]):
                    box["score"] = None
                    self._done.lost["scores that aren't numbers from 0 to 1"] += 1
        self._place(expressions, caption)
        return expressions

    def _place(self, expressions: list[dict[str, Any]], caption: str) -> None:
        """Gives them spans, where none has any, or where they don't hold their phrase."""
        off = [
            one
            for one in expressions
            if (s := one.get("char_span")) and not stands(one["text"], s, caption)
        ]
        self._off += len(off)
        if wrong := set(
            map(id, off if any("char_span" in one for one in expressions) else expressions)
        ):
            found = find_spans([one["text"] for one in expressions], caption)
            for one, span in zip(expressions, found, strict=True):
                one |= {"char_span": list(span) if span else None} if id(one) in wrong else {}

    def _said(
        self, record: Mapping[str, Any], expressions: Iterable[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        said = []
        for expression in expressions:
            if not self._select.keep_rejected:
                self._rejected += len(expression["instances"]) - len(not_rejected(expression) or ())
            wanted = self._select.of(record, expression)
            if wanted is None:
                self._unwanted += 1
            elif why := self._format.carries.why_not(status_of(wanted), wanted.get("char_span")):
                self._done.lost[why] += 1
            else:
                said.append(wanted)
        return said

    def _phrase(self, expression: Mapping[str, Any], size: Size) -> Phrase | None:
        """The expression with what of its boxes is inside a picture of this size; None where it
        loses all.
        """
        instances = []
        for instance in expression["instances"]:
            given = box_of(instance["bbox"])
            box = clamp(given, size)
            if area(box) <= 0:
                self._done.lost["boxes without an area in their picture"] += 1
                continue
            if math.dist(box, given) > EXACT:
                self._done.lost["parts of boxes outside of their picture"] += 1
            instances.append(instance if box == given else {**instance, "bbox": [*box]})
        status, span = status_of(expression), expression.get("char_span")
        text = self._safe(expression["text"])
        if not text.strip() or (status == "grounded" and not instances):
            # that doesn't make it one that isn't there
            self._done.lost["phrases left without a " + ("box" if text.strip() else "word")] += 1
            return None
        place = (span[0], span[1]) if span else None
        boxes = [box_of([*map(float, instance["bbox"])]) for instance in instances]
        scores = [
            None if (score := instance["score"]) is None else float(score) for instance in instances
        ]
        return Phrase(text, place, status, boxes, scores, {**expression, "instances": instances})

    def _safe(self, text: str) -> str:
        safe = self._format.safe(text)
        self._changed += safe != text
        return safe


def _lost_of(
    record: Mapping[str, Any], caption: str, phrases: Sequence[Phrase], carries: Carries
) -> dict[str, int]:
    return {
        "captions": not carries.captions and bool(caption),
        "records' own ids": not carries.ids and _has_own_ids(record, phrases),
        "spans": not carries.spans and sum(one.span is not None for one in phrases),
        "further boxes of a phrase": (
            not carries.several_boxes and sum(len(one.boxes[1:]) for one in phrases)
        ),
        "scores": (
            not carries.scores and sum(score is not None for one in phrases for score in one.scores)
        ),
        "verdicts of checks": (
            not carries.verified
            and sum(one.expression.get("verified") is not None for one in phrases)
        ),
        f"exact numbers of boxes: {carries.numbers}": (
            bool(carries.numbers) and sum(len(one.boxes) for one in phrases)
        ),
    }


def _has_own_ids(record: Mapping[str, Any], phrases: Sequence[Phrase]) -> bool:
    """Whether the record has ids that are not made from its picture's path, with a number behind it
    or without.
    """
    made = image_id_of({**record, "image_id": None}, "image_path") or "record"
    given = [record.get("image_id"), *(phrase.expression["expression_id"] for phrase in phrases)]
    own = [str(one) for one in given if one is not None]
    return not all(one.startswith(made) and one[len(made) :][:1] in ("", "@", "#") for one in own)


def _card(format: Format, done: Exported, pictures: ExportPictures, out: ExportFolder) -> str:
    """The text, in Markdown; for JSON lines with their types as `datasets` wants them."""
    counts = ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing"
    text = files(__package__).joinpath("training.md").read_text("utf-8")
    training = (
        dict(part.partition("\n")[::2] for part in f"\n{text}".split("\n## "))
        .get(format.name, "")
        .strip()
    )
    parts = [
        f"# {format.name}: {format.about}",
        (
            f"{MARK} {__version__}: {counts}."
            f" {'The pictures are in it.' if format.packs else pictures.described()}"
        ),
        f"Lost, because the format can't say it: {done.losses()}." if done.lost else "",
        f"Left out: {done.left_out} records ({'; '.join(done.reasons)})." if done.left_out else "",
        "\n".join(f"- {remark}" for remark in done.remarks),
        "\n\n".join(filter(None, ["## Training", training, format.training()])),
        out.named(),
    ]
    return out.front_matter(format.data_file) + "\n\n".join(filter(None, parts)) + "\n"
