"""Records with their phrases and boxes, read and checked for figures.

Also what figures call a picture (`names_of`).
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.rows_on_disk import RowsOnDisk
from dataflow_grounding.data.classes import classes_of
from dataflow_grounding.data.records import (
    Record,
    annotated_column,
    expression_rows,
    has_id,
    is_score,
    is_settled,
    path_of,
)
from dataflow_grounding.data.rejected import WithoutRejected, not_rejected
from dataflow_grounding.data.results import records_of
from dataflow_grounding.data.results_folder import annotations_of

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Annotations"

# the columns of a record that are kept, besides `expressions`
_OF_RECORD = (
    "image_path",
    "image",
    "image_id",
    "caption",
    "cleaned_caption",
    "model",
    "width",
    "height",
)


class Annotations:
    """Records with the columns that figures need; each phrase has its boxes the surest first.

    With `on_disk` records are kept in a temporary file, and each that is asked for is a new object.
    """

    def __init__(self, name: str = "what was given", *, on_disk: bool = False) -> None:
        self.name = name
        self.phrase_count = 0
        self.reviewed = False
        self.states_spans = False
        self.states_classes = False
        self.classes: Sequence[str] = ()
        self.rejected = 0  # boxes that were left out because a reviewer rejected them
        # Phrases with such a box that no person has found right since then: as gold they are open,
        # which means that nothing is right or wrong for them.
        self.not_mended = 0
        self._rows: list[dict[str, Any]] | RowsOnDisk = RowsOnDisk() if on_disk else []
        # True in the view of `settled()`: phrases that no person found right are open in it.
        self._only_settled = False

    def add(self, record: dict[str, Any]) -> None:
        """Add a checked record, and take in what its phrases tell of the whole."""
        self._rows.append(record)
        self.phrase_count += len(record["expressions"])
        for phrase in record["expressions"]:
            reviewable = (phrase, *phrase["instances"])  # a box may have been reviewed for itself
            self.reviewed |= any(item.get("reviewed_by") for item in reviewable)
            self.states_spans |= bool(phrase.get("char_span"))
            self.states_classes |= isinstance(phrase.get("class"), str)
            boxes_not_rejected = not_rejected(phrase) or []  # None where the phrase is rejected
            has_rejected_box = len(boxes_not_rejected) < len(phrase["instances"])
            if has_rejected_box and not is_settled(phrase):
                self.not_mended += 1

    def settled(self) -> "Annotations":
        """Return a view of these records in which a phrase that no person found right is open."""
        view = copy(self)
        view._only_settled = True
        return view

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._rows[index]
        if not self._only_settled:
            return record
        phrases = []
        for phrase in record["expressions"]:
            if is_settled(phrase):
                # A confirmed phrase may still have single boxes that were rejected.
                phrases.append({**phrase, "instances": not_rejected(phrase) or []})
            else:
                # open: nothing is right or wrong for it
                phrases.append({**phrase, "instances": [], "status": "pending"})
        return {**record, "expressions": phrases}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self)):
            yield self[index]


def read_annotations(
    source: Source,
    *,
    keep_rejected: bool = True,
) -> Annotations:
    """Read and check records with `expressions`: of a results folder, a data file, or as given.

    An `Annotations` comes back as it is. Raises InputError with the line or the record where
    something can't be read, or where there are regions, but no expressions.
    """
    if isinstance(source, Annotations):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        annotations = Annotations(path, on_disk=True)
        where = f"{annotations_of(path)}, line"
        annotations.classes = classes_of(path)
        records = records_of(path, keep_rejected=keep_rejected)
        _read_into(annotations, records, where)
        annotations.rejected = records.rejected
    else:
        annotations = Annotations()
        without_rejected = WithoutRejected(keep_rejected)
        _read_into(annotations, without_rejected(_records(source)), "record")
        annotations.rejected = without_rejected.boxes
    return annotations


def _read_into(annotations: Annotations, rows: Iterable[Record], where: str) -> None:
    """Add the rows. `where` is what a row is called in messages, before its number: "record"."""
    annotated_columns = set[str]()  # that say what is in a picture, such as `regions`
    for row in rows:
        annotated_columns.add(annotated_column(row))
        try:
            expressions = _checked_expressions(row)
        except BrokenRow as error:
            raise InputError(f"{where} {row.place + 1}: {error}") from None
        record = {name: row.get(name) for name in _OF_RECORD}
        annotations.add({**record, "expressions": expressions})
    stated = annotated_columns - {""}  # "" is of records that say nothing
    if stated and "expressions" not in stated:
        raise InputError(
            f"{annotations.name} has no `expressions`, but `{min(stated)}`; compared are"
            " `expressions` and their `instances`: write each region as one of these"
        )


def _checked_expressions(row: Record) -> list[dict[str, Any]]:
    """Return a record's expressions as `Annotations` has them. Raises BrokenRow."""
    stated = row.get("expressions")
    if not stated:
        return []
    expressions = expression_rows(row, "expressions")
    caption = row.get("cleaned_caption") or row.get("caption")
    for as_stated, expression in zip(stated, expressions, strict=True):
        # An expression may be stated as its text alone.
        columns = {} if isinstance(as_stated, str) else as_stated
        # An id that isn't stated is made up by the reader, and can't match another file's: "" is
        # for none.
        expression["expression_id"] = columns.get("expression_id", "")
        if columns.get("instances") is None:  # nobody looked for it yet
            expression["status"] = expression.get("status") or "pending"
        _check_span_and_scores(expression, caption)
        expression["instances"].sort(key=by_score)
    return expressions


def by_score(box: Mapping[str, Any]) -> float:
    """Return a key to sort boxes by: high scores come first, boxes without a score last."""
    return 1 if box["score"] is None else -box["score"]


def _records(source: Iterable[Any]) -> Iterator[Record]:
    for place, row in enumerate(source):
        if not isinstance(row, Mapping):
            raise InputError(
                f"record {place + 1} should be an object, not {row!r}: give a path or a list of"
                " records"
            )
        yield Record(row, place=place)


def as_gold(truth: Annotations) -> Annotations:
    """Return what counts as gold: all of it, or in a reviewed file what a person found right."""
    # A file counts as reviewed from its first reviewed phrase or box on.
    return truth.settled() if truth.reviewed else truth


def _check_span_and_scores(expression: Mapping[str, Any], caption: Any) -> None:
    span = expression.get("char_span")
    # Without a caption its length isn't known: any span up to 10**6 is accepted.
    end = len(caption) if isinstance(caption, str) else 10**6
    if span is not None and not is_span(span, end):
        raise BrokenRow(
            f"expression {expression['text']!r}:"
            f" 'char_span' should be [start, end] in the caption, or null: {span!r}"
        )
    for instance in expression["instances"]:
        score = instance["score"]
        if not is_score(score):
            raise BrokenRow(f"a 'score' should be a number from 0 to 1 or null, not {score!r}")


def is_span(value: Any, end: int) -> bool:
    """Return whether a value is a span `[start, end)`, not empty, in a caption of `end` letters."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    # `type`, not `isinstance`, as true and false are integers too.
    if any(type(number) is not int for number in value):
        return False
    start, stop = value
    return bool(0 <= start < stop <= end)


def names_of(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return a record's picture's name and its id, such as ("a.jpg", "7"); the id may be "".

    The name is the path, or the id if no path is stated. Raises InputError for a record that states
    neither; its message begins with `where`, such as "record 3 of gold.jsonl".
    """
    path = path_of(record)
    image_id = record.get("image_id")
    if isinstance(image_id, float) and image_id.is_integer():
        # pandas writes a column of whole numbers with gaps as floats.
        image_id = int(image_id)
    own_id = str(image_id) if has_id(image_id) else ""  # 0 is an id, None and "" are none
    if not path and not own_id:
        raise InputError(
            f"{where} names no picture: `dataflowgrounding import` makes other formats' files"
            " records"
        )
    if not path:
        return own_id, own_id
    # comparable: without `.` and double slashes
    return unicodedata.normalize("NFC", os.path.normpath(path)), own_id
