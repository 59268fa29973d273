"""Records on their way into a format: what is wanted of them, what the format can say, and what is lost."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding.errors import BrokenRow, InputError, RecordError
from dataflow_grounding.formats.base import Carries, Format, Phrase, Sample
from dataflow_grounding.formats.export_card import card
from dataflow_grounding.formats.export_folder import README, ExportFolder
from dataflow_grounding.formats.export_pictures import ExportPictures, Images
from dataflow_grounding.formats.selection import Selection, status_of
from dataflow_grounding.geometry import Bbox
from dataflow_grounding.records import Record, image_id_of, read_annotations
from dataflow_grounding.spans import find_spans

_SHOWN = 3  # reasons that are kept


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
    records: Iterable[Mapping[str, Any]],
    format: Format,
    path: str,
    images: Images | None = None,
    folders: Sequence[str] = (),
    select: Selection | None = None,
    strict: bool = False,
) -> Exported:
    """What `formats.write` does, with the format as an object."""
    ending = os.path.splitext(format.data_file)[1]
    alone = bool(ending) and path.endswith(ending)
    if alone and images in ("copy", "link"):
        raise InputError(f"{path} is one file: to {images} the pictures, name a folder")
    if alone and os.path.lexists(path):
        raise InputError(f"{path} is there already: remove it, or choose another name")
    done = Exported(path)
    try:
        with ExportFolder(path, format.data_file if alone else None) as out:
            pictures = ExportPictures(out, images or ("reference" if alone else "copy"), folders)
            way = _Way(format, pictures, select or Selection(), done)
            format.write(way.samples(records), out)
            way.close()
            if strict and (done.lost or done.left_out):
                why = "; ".join([*filter(None, [done.losses()]), *done.reasons])
                raise InputError(f"nothing is written, because {format.name} would lose: {why}")
            with out.file(README) as file:
                file.write(card(format, done, pictures, out.line))
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}") from None
    return done


class _Way:
    """Makes samples of records, and counts."""

    def __init__(self, format: Format, pictures: ExportPictures, select: Selection, done: Exported) -> None:
        self._format, self._pictures, self._select, self._done = format, pictures, select, done
        self._changed = self._doubtful = 0

    def samples(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
        """The records that the format can say something of, with their pictures in place."""
        for number, record in enumerate(records, 1):
            try:
                sample = self._sample(record)
            except RecordError as error:
                self._done.left_out += 1
                if len(self._done.reasons) < _SHOWN:
                    self._done.reasons.append(f"record {number}: {error}")
                continue
            if sample is not None:
                written = self._done.written
                written["records"] += 1
                written["phrases"] += len(sample.phrases)
                written["boxes"] += sum(len(phrase.boxes) for phrase in sample.phrases)
                yield sample

    def close(self) -> None:
        """Add what is known at the end."""
        if self._changed:
            self._done.remarks.append(
                f"texts changed, as {self._format.name} can't have them as they are: {self._changed}"
            )
        if self._doubtful:
            self._done.remarks.append(
                f"records marked doubtful, of whose replies a part was of no use: {self._doubtful}"
            )
        if missing := self._pictures.missing:
            self._done.remarks.append(f"pictures that aren't there, and may be turned by their EXIF: {missing}")

    def _sample(self, record: Mapping[str, Any]) -> Sample | None:
        carries, lost = self._format.carries, self._done.lost
        if record.get("suspect_boxes") is True:
            raise BrokenRow("its boxes may be in another format (suspect_boxes)")
        caption = str(record.get("cleaned_caption") or record.get("caption") or "")
        expressions = _expressions(record, caption)
        said = self._said(record, expressions)
        if not said and not (carries.empty and all(status_of(one) == "none" for one in expressions)):
            lost["pictures without a phrase to write"] += 1
            return None
        file_name, size = self._pictures.put(record)
        self._doubtful += record.get("doubtful") is True
        phrases = [self._phrase(one) for one in said]
        for phrase in phrases:
            lost.update(_lost_of(phrase, carries))
        lost.update({"captions": 1} if caption and not carries.captions else {})
        lost.update({"records' own ids": 1} if not carries.ids and _has_own_ids(record, phrases) else {})
        return Sample(file_name, size, self._safe(caption) if carries.captions else caption, phrases, record)

    def _said(self, record: Mapping[str, Any], expressions: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The expressions that are wanted and that the format can say."""
        said = []
        for expression in expressions:
            wanted = self._select.of(record, expression)
            if wanted is None:
                continue
            if why := self._format.carries.why_not(status_of(wanted), wanted.get("char_span")):
                self._done.lost[why] += 1
            else:
                said.append(wanted)
        return said

    def _phrase(self, expression: Mapping[str, Any]) -> Phrase:
        instances = expression["instances"]
        boxes: list[Bbox] = [tuple(map(float, instance["bbox"])) for instance in instances]  # type: ignore[misc]
        span = expression.get("char_span")
        return Phrase(
            self._safe(expression["text"]),
            (span[0], span[1]) if span else None,
            status_of(expression),
            boxes,
            [instance["score"] for instance in instances],
            expression,
        )

    def _safe(self, text: str) -> str:
        safe = self._format.safe(text)
        self._changed += safe != text
        return safe


def _expressions(record: Mapping[str, Any], caption: str) -> list[dict[str, Any]]:
    """The record's expressions, with spans also where it is of a tool that states none. Raises BrokenRow."""
    expressions = read_annotations(Record(record, image_id=image_id_of(record, "image_path")))
    if not any("char_span" in one for one in expressions):
        spans = find_spans([one["text"] for one in expressions], caption)
        return [{**one, "char_span": span} for one, span in zip(expressions, spans, strict=True)]
    return expressions


def _lost_of(phrase: Phrase, carries: Carries) -> dict[str, int]:
    """What is lost of a phrase that is written, and how often."""
    facts = (
        ("spans", carries.spans, phrase.span is not None),
        ("further boxes of a phrase", carries.several_boxes, len(phrase.boxes) - 1),
        ("scores", carries.scores, sum(score is not None for score in phrase.scores)),
        ("verdicts of checks", carries.verified, phrase.expression.get("verified") is not None),
        (f"exact numbers of boxes: {carries.numbers}", not carries.numbers, len(phrase.boxes)),
    )
    return {what: int(count) for what, carried, count in facts if count > 0 and not carried}


def _has_own_ids(record: Mapping[str, Any], phrases: Sequence[Phrase]) -> bool:
    """Whether the record has ids that are not made from its picture's path."""
    made = image_id_of({**record, "image_id": None}, "image_path") or "record"
    given = [record.get("image_id"), *(phrase.expression["expression_id"] for phrase in phrases)]
    return not all(one is None or _is_made(str(one), made) for one in given)


def _is_made(given: str, made: str) -> bool:
    """Whether an id is a picture's, with the number of its row or expression behind it, or without."""
    return given.startswith(made) and given[len(made) : len(made) + 1] in ("", "@", "#")
