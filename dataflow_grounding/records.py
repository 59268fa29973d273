"""The record: one image with its caption and annotations, as a JSON object; its ids, and strict writing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

from dataflow_grounding.errors import BrokenRow

Update: TypeAlias = dict[str, Any]
"""What an operator adds to a record: column name → JSON value."""

STATUSES = ("grounded", "none", "ambiguous", "unsupported")


class Record(dict[str, Any]):
    """One row of a data set, and where it came from.

    `folders` are looked through, in order, for a relative image path. `occurrence` counts the earlier rows of the data
    set with the same `image_id`, so that ids made from it stay unique.
    """

    __slots__ = ("folders", "occurrence")

    def __init__(self, row: Mapping[str, Any], folders: tuple[str, ...] = (), occurrence: int = 0) -> None:
        super().__init__(row)
        self.folders = folders
        self.occurrence = occurrence

    def updated(self, update: Mapping[str, Any]) -> Record:
        """A copy with the columns of `update` set."""
        return Record({**self, **update}, self.folders, self.occurrence)

    @property
    def unique_id(self) -> str:
        """`image_id`, told apart from earlier rows of the same image."""
        image_id = str(self.get("image_id", "record"))
        return image_id if not self.occurrence else f"{image_id}@{self.occurrence + 1}"


def image_id_of(row: Mapping[str, Any], image_key: str, image_root: str | None = None) -> str | None:
    """The row's own `image_id`, else its image path, relative to `image_root` where it lies inside, without ending."""
    given = row.get("image_id")
    if given is not None and given != "":
        return str(given)
    path = row.get(image_key)
    if not isinstance(path, str) or not path:
        return None
    if image_root and os.path.isabs(path):
        inside = os.path.relpath(path, os.path.abspath(image_root))
        path = path if inside.startswith("..") else inside
    return PurePath(os.path.normpath(path)).with_suffix("").as_posix().lstrip("/")


def expression_id(record: Record, number: int) -> str:
    """Id of the record's expression `number` (from 0); unique in the data set, the same on every run."""
    return f"{record.unique_id}#{number}"


def read_expressions(record: Record, key: str) -> list[dict[str, Any]]:
    """The record's expressions as objects with `text` and `expression_id`, whoever wrote them.

    Takes bare strings, `bbox_score` for `score`, and a missing id. Raises BrokenRow for anything that is no expression.
    """
    value = record.get(key)
    if not isinstance(value, list):
        raise BrokenRow(f"column {key!r} should be a list of expressions, not {_kind(value)}")
    expressions = []
    for number, item in enumerate(value):
        expression = {"text": item} if isinstance(item, str) else item
        if not isinstance(expression, dict) or not isinstance(expression.get("text"), str):
            raise BrokenRow(f"column {key!r}, expression {number}: no 'text' in it")
        expressions.append(
            {
                **expression,
                "expression_id": str(expression.get("expression_id") or expression_id(record, number)),
                "instances": [_read_instance(i, key, number) for i in expression.get("instances") or []],
            }
        )
    return expressions


def _read_instance(item: Any, key: str, number: int) -> dict[str, Any]:
    bbox = item.get("bbox") if isinstance(item, dict) else None
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(is_number(n) for n in bbox)):
        raise BrokenRow(f"column {key!r}, expression {number}: an instance needs 'bbox': [x1, y1, x2, y2]")
    instance = {name: value for name, value in item.items() if name != "bbox_score"}
    instance.setdefault("score", item.get("bbox_score"))
    return instance


def is_number(value: Any) -> bool:
    """A finite int or float; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_text(record: Mapping[str, Any], key: str) -> str:
    """The text in column `key`. Raises BrokenRow when it is missing, empty or no text."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BrokenRow(f"column {key!r} should be a text, not {_kind(value)}")
    return value


def dump_line(value: Mapping[str, Any]) -> str:
    """`value` as one line of strict JSON (no NaN), non-ASCII text as it is; ends with a newline."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 can't hold: write it escaped, as it came
            line = json.dumps(value, allow_nan=False)
    return line + "\n"


def parse_line(line: str | bytes) -> dict[str, Any]:
    """One JSON object from a line. Raises BrokenRow with the reason; NaN, Infinity and numbers beyond a double are none."""
    try:
        row = json.loads(line, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"no JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(row, dict):
        raise BrokenRow(f"should be a JSON object, not {_kind(row)}")
    return row


def count_statuses(records: Iterable[Mapping[str, Any]], key: str = "expressions") -> dict[str, int]:
    """How many expressions stand in each status; `expressions` is their total."""
    counts = dict.fromkeys(("expressions", *STATUSES), 0)
    for record in records:
        for expression in record.get(key) or []:
            counts["expressions"] += 1
            status = expression.get("status")
            if status in counts:
                counts[status] += 1
    return counts


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _kind(value: Any) -> str:
    names = {type(None): "missing", str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    if value == "":
        return "empty"
    return names.get(type(value), "a number")
