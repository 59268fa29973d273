"""Records with their phrases and boxes, read and checked for figures; what a picture and a phrase
are called there.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import lru_cache
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.data.records import (
    Record,
    annotated_column,
    has_id,
    is_score,
    is_settled,
    path_of,
    read_expressions,
)
from dataflow_grounding.data.results_folder import annotations_of, records_of
from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded.noun_phrases import read_noun_phrase, tokenize
from dataflow_grounding.extras.evaluation.metrics._rows_on_disk import RowsOnDisk

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Annotations"

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

    Those of a file are kept on disk, and made anew each time they are asked for.

    Attributes:
        name: What they are called in messages.
        phrase_count: How many phrases all records have.
        reviewed: Whether a person has reviewed a phrase.
        states_spans: Whether a phrase states where it stands in its caption.
    """

    def __init__(self, name: str = "what was given", *, on_disk: bool = False) -> None:
        self.name = name
        self.phrase_count = 0
        self.reviewed = self.states_spans = False
        self._rows: list[dict[str, Any]] | RowsOnDisk = RowsOnDisk() if on_disk else []
        self._settled_alone = False

    def add(self, record: dict[str, Any]) -> None:
        """Add a record."""
        self._rows.append(record)
        self.phrase_count += len(record["expressions"])
        for phrase in record["expressions"]:
            self.reviewed |= bool(phrase.get("reviewed_by"))
            self.states_spans |= bool(phrase.get("char_span"))

    def settled(self) -> "Annotations":
        """The same records, where what a person hasn't found right is open."""
        view = copy(self)
        view._settled_alone = True
        return view

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        record = self._rows[number]
        if not self._settled_alone:
            return record
        open_one = {"instances": [], "status": "pending"}
        phrases = [row if is_settled(row) else {**row, **open_one} for row in record["expressions"]]
        return {**record, "expressions": phrases}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    @property
    def phrases(self) -> Iterator[dict[str, Any]]:
        """Those of all records."""
        return (phrase for record in self for phrase in record["expressions"])


def read_annotations(source: Source) -> Annotations:
    """Read records with `expressions` and their `instances`: of a results folder, a data file, or
    as they are.

    Raises:
        InputError: Something can't be read, with the file and line (or the record) where it stands;
            or there are regions, but no expressions.
    """
    if isinstance(source, Annotations):
        return source
    columns = set[str]()
    if isinstance(source, (str, os.PathLike)):
        found = Annotations(os.fspath(source), on_disk=True)
        rows, where = records_of(found.name), f"{annotations_of(found.name)}, line"
    else:
        found, rows, where = Annotations(), _records(source), "record"
    for row in rows:
        columns.add(annotated_column(row))
        try:
            expressions = read_expressions(row, "expressions") if row.get("expressions") else []
            for given, expression in zip(row.get("expressions") or [], expressions, strict=True):
                stated = {} if isinstance(given, str) else given
                # what is made of a place says nothing
                expression["expression_id"] = stated.get("expression_id", "")
                if stated.get("instances") is None:
                    expression["status"] = expression.get("status") or "pending"
                _check(expression, row.get("cleaned_caption") or row.get("caption"))
                expression["instances"].sort(
                    key=lambda box: 1 if box["score"] is None else -box["score"]
                )
        except BrokenRow as error:
            raise InputError(f"{where} {row.place + 1}: {error}") from None
        found.add({**{name: row.get(name) for name in _OF_RECORD}, "expressions": expressions})
    if (column := min(columns - {""}, default="expressions")) != "expressions":
        # by name the first of the three
        does = "compared are `expressions` and their `instances`: write each region as one of these"
        raise InputError(f"{found.name} has no `expressions`, but `{column}`; {does}")
    return found


def _records(source: Iterable[Any]) -> Iterator[Record]:
    for place, row in enumerate(source):
        if not isinstance(row, Mapping):
            raise InputError(
                f"record {place + 1} should be an object, not {row!r}: give a path or a list of"
                " records"
            )
        yield Record(row, place=place)


def as_gold(truth: Annotations) -> Annotations:
    """Of a file that was reviewed in part, what a person found right; the rest is open. Any other
    as it is.
    """
    return truth.settled() if truth.reviewed else truth


def _check(expression: Mapping[str, Any], caption: Any) -> None:
    span, end = expression.get("char_span"), len(caption) if isinstance(caption, str) else 10**6
    if span is not None and not is_span(span, end):
        wrong = f"'char_span' should be [start, end] in the caption, or null: {span!r}"
        raise BrokenRow(f"expression {expression['text']!r}: {wrong}")
    for score in (instance["score"] for instance in expression["instances"]):
        if not is_score(score):
            raise BrokenRow(f"a 'score' should be a number from 0 to 1 or null, not {score!r}")


def is_span(value: Any, end: int) -> bool:
    """Whether a value is `[start, end]` in a caption of so many characters."""
    whole = isinstance(value, (list, tuple)) and [*map(type, value)] == [int, int]
    return whole and 0 <= value[0] < value[1] <= end


def names_of(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """What a record's picture is called: its path, else its id; and the id that it states, or an
    empty text.

    Raises InputError where it states neither.

    Example:
        >>> names_of({"image_path": None, "image": "./a//x.jpg", "image_id": 7.0}, "record 1")
        ('a/x.jpg', '7')
    """
    path, given = path_of(record), record.get("image_id")
    # as pandas writes whole numbers
    given = int(given) if isinstance(given, float) and given.is_integer() else given
    own = str(given) if has_id(given) else ""
    if not path and not own:
        raise InputError(
            f"{where} names no picture: `dataflowgrounding import` makes other formats' files"
            " records"
        )
    return unicodedata.normalize("NFC", os.path.normpath(path)) if path else own, own


@lru_cache(maxsize=65536)
def head_of(phrase: str) -> str:
    """What a phrase names, in the singular."""
    from dataflow_grounding.replies.labels import head_word

    tokens = tokenize(phrase[:400])
    read = read_noun_phrase(tokens, 0, is_label=True) if tokens else None
    return (
        words.singular(tokens[read.head]) if read and read.head < len(tokens) else head_word(phrase)
    )
