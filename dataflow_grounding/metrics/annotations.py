"""What a file of records says, as arrays: its phrases one after the other, and their boxes, the surest first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.records import Record, is_number, read_expressions
from dataflow_grounding.rows import read_rows

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Annotations"

_OF_RECORD = ("image_path", "image", "image_id", "caption", "cleaned_caption", "model")
_OF_PHRASE = ("text", "type", "status", "verified", "char_span")
_PLACE = re.compile(r"#[0-9]+$")  # ends an id of ours, which says the place alone: elsewhere it may be another phrase


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
    """Records, `name` in messages, and their phrases, each with its `record`, with the columns that figures need."""

    name: str
    records: list[dict[str, Any]]
    phrases: list[dict[str, Any]]
    boxes: Boxes


def read_annotations(source: Source) -> Annotations:
    """Read records with `expressions` and their `instances`: of a results folder, a data file, or as they are.

    Raises:
        InputError: Something can't be read, with the file and line (or the record) where it stands.
    """
    if isinstance(source, Annotations):
        return source
    records, phrases = [], []
    counts, corners, scores = [0], list[list[float]](), list[float]()
    for where, row in _rows(source):
        try:
            for expression in read_expressions(Record(row), "expressions") if row.get("expressions") else []:
                boxes = sorted(
                    map(_box, expression["instances"]), key=lambda box: -np.inf if box[1] is None else -box[1]
                )
                phrases.append(_phrase(row, expression) | {"record": len(records)})
                counts.append(len(boxes))
                corners += [box for box, _ in boxes]
                scores += [score for _, score in boxes]
        except BrokenRow as error:
            raise InputError(f"{where}: {error}") from None
        records.append({name: row.get(name) for name in _OF_RECORD})
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "records"
    boxes = Boxes(np.cumsum(counts), np.array(corners, float).reshape(-1, 4), np.array(scores, float))
    return Annotations(name, records, phrases, boxes)


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


def _phrase(row: Mapping[str, Any], expression: Mapping[str, Any]) -> dict[str, Any]:
    text, span, own_id = expression["text"], expression.get("char_span"), str(expression["expression_id"])
    caption = row.get("cleaned_caption") or row.get("caption")
    end = len(caption) if isinstance(caption, str) else 10**6
    match span:
        case None:
            pass
        case [int(first), int(last)] if 0 <= first < last <= end:
            pass
        case _:
            raise BrokenRow(
                f"expression {text!r}: 'char_span' should be [start, end] in the caption, or null: {span!r}"
            )
    plain = " ".join(text.split()).casefold()
    kept = {name: expression.get(name) for name in _OF_PHRASE}
    return {**kept, "plain": plain, "id": (own_id, plain) if _PLACE.search(own_id) else own_id}


def _box(instance: Mapping[str, Any]) -> tuple[list[float], float]:
    score = instance["score"]
    if score is not None and not (is_number(score) and 0 <= score <= 1):
        raise BrokenRow(f"a 'score' should be a number from 0 to 1 or null, not {score!r}")
    return instance["bbox"], score
