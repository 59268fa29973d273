"""Records with their phrases and boxes, read and checked for figures.

Also what figures call a picture (`names_of`).
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.rows_on_disk import RowsOnDisk
from dataflow_grounding.data.classes import classes_of
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import (
    JsonObject,
    Record,
    Update,
    annotated_column,
    has_id,
    is_score,
    path_of,
    type_name,
)
from dataflow_grounding.data.rejected import WithoutRejected, boxes_not_rejected
from dataflow_grounding.data.results import RecordsOf
from dataflow_grounding.data.results_folder import annotations_of

Source: TypeAlias = "str | os.PathLike[str] | Iterable[JsonObject] | Annotations"

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


@dataclass(frozen=True)
class Annotated:
    """A record of a picture: its columns, but for `expressions`, and its phrases."""

    columns: JsonObject
    phrases: list[Expression]


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
        self._rows: list[Update] | RowsOnDisk = RowsOnDisk() if on_disk else []
        # True in the view of `settled()`: phrases that no person found right are open in it.
        self._only_settled = False

    def add(self, record: Record) -> None:
        """Add a record, and take in what its phrases tell of the whole. Raises BrokenRow."""
        phrases = _checked_expressions(record)
        columns: Update = {name: record.get(name) for name in _OF_RECORD}
        self._rows.append({**columns, "expressions": record.get("expressions") or []})
        self.phrase_count += len(phrases)
        for phrase in phrases:
            # a box may have been reviewed for itself
            reviewers = (phrase.reviewed_by, *(box.reviewed_by for box in phrase.instances))
            self.reviewed |= any(reviewers)
            self.states_spans |= phrase.char_span is not None
            self.states_classes |= phrase.class_name is not None
            if phrase.is_settled:
                continue
            self.not_mended += len(boxes_not_rejected(phrase)) < len(phrase.instances)

    def settled(self) -> "Annotations":
        """Return a view of these records in which a phrase that no person found right is open."""
        view = copy(self)
        view._only_settled = True
        return view

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Annotated:
        columns = {**self._rows[index]}
        phrases = [_expression_of(item) for item in columns.pop("expressions")]
        for phrase in phrases if self._only_settled else ():
            if phrase.is_settled:
                # A confirmed phrase may still have single boxes that were rejected.
                phrase.instances = boxes_not_rejected(phrase)
            else:
                # open: nothing is right or wrong for it
                phrase.instances, phrase.status = [], "pending"
        return Annotated(columns, phrases)

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the id of each record's picture."""
        for number, row in enumerate(self._rows, 1):
            yield names_of(row, f"record {number} of {self.name}")


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
        records = RecordsOf(path, keep_rejected=keep_rejected)
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
            annotations.add(row)
        except BrokenRow as error:
            raise InputError(f"{where} {row.place + 1}: {error}") from None
    stated = annotated_columns - {""}  # "" is of records that say nothing
    if stated and "expressions" not in stated:
        raise InputError(
            f"{annotations.name} has no `expressions`, but `{min(stated)}`; compared are"
            " `expressions` and their `instances`: write each region as one of these"
        )


def _checked_expressions(row: Record) -> list[Expression]:
    """Return a record's expressions as `Annotations` has them. Raises BrokenRow."""
    items = row.get("expressions") or []
    if not isinstance(items, (list, tuple)):
        raise BrokenRow(
            f"column 'expressions' should be a list of expressions, not {type_name(items)}"
        )
    caption = row.get("cleaned_caption") or row.get("caption")
    # Without a caption its length isn't known: any span up to 10**6 is accepted.
    end = len(caption) if isinstance(caption, str) else 10**6
    expressions = []
    for number, item in enumerate(items):
        expression = _expression_of(item, f"column 'expressions', expression {number}")
        span = expression.stated("char_span")
        if span is not None and not is_span(span, end):
            raise BrokenRow(
                f"expression {expression.text!r}:"
                f" 'char_span' should be [start, end] in the caption, or null: {span!r}"
            )
        for instance in expression.instances:
            score = instance.stated("score")
            if not is_score(score):
                raise BrokenRow(f"a 'score' should be a number from 0 to 1 or null, not {score!r}")
        expressions.append(expression)
    return expressions


def _expression_of(item: Any, where: str = "") -> Expression:
    """Read an expression. An id that it doesn't state can't match another file's: it has none."""
    expression = Expression.from_json(item, where)
    if isinstance(item, str) or item.get("instances") is None:  # nobody looked for it yet
        expression.status = expression.status or "pending"
    expression.instances.sort(key=by_score)
    return expression


def by_score(box: Instance) -> float:
    """Return a key to sort boxes by: high scores come first, boxes without a score last."""
    return 1 if box.score is None else -box.score


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


def is_span(value: Any, end: int) -> bool:
    """Return whether a value is a span `[start, end)`, not empty, in a caption of `end` letters."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    # `type`, not `isinstance`, as true and false are integers too.
    if any(type(number) is not int for number in value):
        return False
    start, stop = value
    return bool(0 <= start < stop <= end)


def names_of(record: JsonObject, where: str) -> tuple[str, str]:
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
