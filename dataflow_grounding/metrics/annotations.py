"""What a file of records says, as arrays: its phrases one after the other, and their boxes, the surest first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.records import Record, has_id, is_number, read_expressions
from dataflow_grounding.rows import read_rows

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Annotations"

_OF_RECORD = ("image_path", "image", "image_id", "caption", "cleaned_caption", "model")


class Boxes(NamedTuple):
    """Phrase n has `corners[starts[n] : starts[n + 1]]`, x1, y1, x2, y2 in pixels; `scores` are NaN where unstated."""

    starts: np.ndarray
    corners: np.ndarray
    scores: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many boxes each phrase has."""
        return np.diff(self.starts)


@dataclass
class Annotations:
    """Records, `name` in messages, and their phrases: of record r those from place `first[r]` to `first[r + 1]`.

    Both have the columns that figures need, a phrase also its `record`, `id` and text up to case and spacing (`plain`).
    """

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    phrases: list[dict[str, Any]] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    boxes: Boxes = field(init=False)

    def phrases_of(self, record: int) -> range:
        """The places of a record's phrases; none for record -1."""
        return range(self.first[record], self.first[record + 1]) if record >= 0 else range(0)


def read_annotations(source: Source) -> Annotations:
    """Read records with `expressions` and their `instances`: of a results folder, a data file, or as they are.

    Raises:
        InputError: Something can't be read, with the file and line (or the record) where it stands.
    """
    if isinstance(source, Annotations):
        return source
    found = Annotations(os.fspath(source) if isinstance(source, (str, os.PathLike)) else "records")
    counts, corners, scores = [0], [], []
    for where, row in _rows(source):
        try:
            expressions = read_expressions(Record(row), "expressions") if row.get("expressions") else []
            for given, expression in zip(row.get("expressions") or [], expressions, strict=True):
                found.phrases.append(_phrase(row, given, expression) | {"record": len(found.records)})
                boxes = sorted(map(_box, expression["instances"]), key=lambda box: 1.0 if box[1] != box[1] else -box[1])
                counts.append(len(boxes))
                for box, score in boxes:
                    corners += box
                    scores.append(score)
        except BrokenRow as error:
            raise InputError(f"{where}: {error}") from None
        sides = {name: row.get(name) if is_number(row.get(name)) else None for name in ("width", "height")}
        found.records.append({**{name: row.get(name) for name in _OF_RECORD}, **sides})
        found.first.append(len(found.phrases))
    found.boxes = Boxes(np.cumsum(counts), np.array(corners, float).reshape(-1, 4), np.array(scores, float))
    return found


def _rows(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(source, (str, os.PathLike)):
        yield from ((f"record {number}", row) for number, row in enumerate(source, 1))
        return
    path = os.path.join(source, "annotations.jsonl") if os.path.isdir(source) else os.fspath(source)
    if not os.path.exists(path):
        raise InputError(f"no {path}: give a data file, or the results_dir of a finished run")
    for row in read_rows(path):
        if row.data is None:
            raise InputError(f"{path}, line {row.line}: {row.error}")
        yield f"{path}, line {row.line}", row.data


def _phrase(row: Mapping[str, Any], given: Any, expression: Mapping[str, Any]) -> dict[str, Any]:
    text, span = expression["text"], expression.get("char_span")
    caption = row.get("cleaned_caption") or row.get("caption")
    if span is not None:
        whole = isinstance(span, (list, tuple)) and len(span) == 2 and all(type(n) is int for n in span)
        if not (whole and 0 <= span[0] < span[1] <= (len(caption) if isinstance(caption, str) else 10**6)):
            raise BrokenRow(
                f"expression {text!r}: 'char_span' should be [start, end] in the caption, or null: {span!r}"
            )
    own_id = given.get("expression_id") if isinstance(given, Mapping) else None
    kept = {name: expression.get(name) for name in ("text", "type", "status", "verified")}
    kept |= {"id": str(own_id) if has_id(own_id) else None, "char_span": None if span is None else list(span)}
    return {**kept, "plain": " ".join(text.split()).casefold()}


def _box(instance: Mapping[str, Any]) -> tuple[list[float], float]:
    score = instance["score"]
    if score is not None and not (is_number(score) and 0 <= score <= 1):
        raise BrokenRow(f"a 'score' should be a number from 0 to 1 or null, not {score!r}")
    return instance["bbox"], float("nan") if score is None else float(score)
