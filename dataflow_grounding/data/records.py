"""The record: one image with its caption and annotations, as a JSON object; its ids, and strict
writing.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.files import whole_file
from dataflow_grounding._util.paths import (
    absolute,
    is_absolute,
    is_elsewhere,
    open_file,
    plain_path,
)

Update: TypeAlias = dict[str, Any]  # what an operator adds to a record: column name → JSON value

ROW_OF_IMAGE = "row_of_image"
"""Column of an image's second and later rows: which it is, from 1. Rows that fail before it don't
change its ids.
"""

BROKEN_ROW = "_broken_row"
"""Column of a row that stands for one that can't be read: why it can't."""

# `json.dumps` makes one anew each time
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

STATUSES = ("grounded", "none", "ambiguous", "unsupported")
VERDICTS = {True: "verified", False: "not verified", None: "not checked"}
"""An expression's `verified`, in words."""


class Record(dict[str, Any]):
    """One row of a data set, and where it came from.

    `folders` are searched in order for a relative image path. `image_id` is the row's own, or made
    from its path. `occurrence` counts earlier rows of the same `image_id`, so that ids stay unique.
    `place`: in its file, from 0.
    """

    __slots__ = ("folders", "image_id", "occurrence", "place")

    def __init__(
        self,
        row: Mapping[str, Any],
        folders: tuple[str, ...] = (),
        occurrence: int = 0,
        image_id: str | None = None,
        place: int = 0,
    ) -> None:
        super().__init__(row)
        self.folders, self.occurrence, self.place = folders, occurrence, place
        given = row.get("image_id")
        self.image_id = str(given) if has_id(given) else image_id

    def updated(self, update: Mapping[str, Any]) -> "Record":
        """A copy with the columns of `update` set."""
        return Record({**self, **update}, self.folders, self.occurrence, self.image_id, self.place)

    @property
    def unique_id(self) -> str:
        """`image_id`, told apart from earlier rows of the same image."""
        image_id = "record" if self.image_id is None else self.image_id
        return image_id if not self.occurrence else f"{image_id}@{self.occurrence + 1}"


def image_id_of(
    row: Mapping[str, Any], image_key: str, image_root: str | None = None
) -> str | None:
    """The row's own `image_id`, else what its image path is called within `image_root`."""
    given, path = row.get("image_id"), row.get(image_key)
    if has_id(given):
        return str(given)
    return name_within(path, image_root) if isinstance(path, str) and path else None


def path_of(record: Mapping[str, Any]) -> str:
    """The path of a record's picture, as the record has it; empty where it has none."""
    path = record.get("image_path") or record.get("image")
    return path if isinstance(path, str) else ""


def stated_size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """The width and height that a record says its picture has, in pixels; None where not both are
    above 0.
    """
    width, height = whole_number(record.get("width")), whole_number(record.get("height"))
    return (width, height) if width and height and min(width, height) > 0 else None


def whole_number(value: Any) -> int | None:
    """A whole number, also one that is written as 640.0, as a text or as NumPy's; None for anything
    else.
    """
    with suppress(TypeError, ValueError, OverflowError):
        return (
            int(float(value)) if not isinstance(value, bool) and float(value).is_integer() else None
        )
    return None


def name_within(path: str, root: str | None) -> str:
    """What an image is called in ids and in files about it: its path without ending, the same on
    every machine.

    Args:
        path: As the row states it.
        root: The folder that paths start from. An absolute path within it counts from there; of any
            other only the file's name is left.

    Returns:
        A relative path with `/` that stays where it is put: each `..` becomes `_`.

    Example:
        >>> paths = ("/data/a/x.jpg", "/elsewhere/x.jpg", "../x.jpg")
        >>> [name_within(path, "/data") for path in paths]
        ['a/x', 'x', '_/x']
    """
    if is_absolute(path):
        same = root and is_elsewhere(path) == is_elsewhere(root)
        inside = os.path.relpath(plain_path(path), absolute(str(root))) if same else os.pardir
        path = os.path.basename(path) if inside.split(os.sep)[0] == os.pardir else inside
    parts = os.path.splitext(os.path.normpath(path))[0].split(os.sep)
    return "/".join("_" if part == os.pardir else part for part in parts)


def has_id(given: Any) -> bool:
    """Return whether a user's id counts as one: 0 does, an empty text doesn't."""
    return given is not None and given != ""


def expression_id(record: "Record", number: int) -> str:
    """Id of the record's expression `number` (from 0); unique in the data set, the same on every
    run.
    """
    return f"{record.unique_id}#{number}"


def read_expressions(record: "Record", key: str) -> list[dict[str, Any]]:
    """The record's expressions as objects with `text` and `expression_id`. Raises BrokenRow for
    anything else.
    """
    value = record.get(key)
    if not isinstance(value, (list, tuple)):
        raise BrokenRow(f"column {key!r} should be a list of expressions, not {_kind(value)}")
    expressions = []
    for number, item in enumerate(value):
        expression, where = (
            {"text": item} if isinstance(item, str) else item,
            f"column {key!r}, expression {number}",
        )
        text = expression.get("text") if isinstance(expression, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise BrokenRow(f"{where}: no 'text' in it")
        given_id, instances = expression.get("expression_id"), expression.get("instances") or []
        if not isinstance(instances, (list, tuple)):
            raise BrokenRow(f"{where}: 'instances' should be a list, not {_kind(instances)}")
        own_id = given_id if has_id(given_id) else expression_id(record, number)
        read = [_read_instance(item, where) for item in instances]
        expressions.append({**expression, "expression_id": own_id, "instances": read})
    return expressions


def read_annotations(record: "Record") -> list[dict[str, Any]]:
    """The record's expressions, else its region captions, else its regions, as `read_expressions`
    gives them.

    A region is an expression with its own box. Raises BrokenRow.
    """
    key = annotated_column(record)
    if not key:
        raise BrokenRow("no column 'expressions', 'region_captions' or 'regions'")
    said = record if key == "expressions" else Record({**record, key: _as_expressions(record[key])})
    return read_expressions(said, key)


def annotated_column(record: Mapping[str, Any]) -> str:
    """The column that says what is in the picture; empty where there is none."""
    return next(
        (
            key
            for key in ("expressions", "region_captions", "regions")
            if record.get(key) is not None
        ),
        "",
    )


def _as_expressions(given: Any) -> Any:
    rows = list(given) if isinstance(given, list) else given
    for number, item in enumerate(rows if isinstance(given, list) else ()):
        if isinstance(item, Mapping):
            text = (
                item.get("text")
                or item.get("description")
                or item.get("type")
                or f"region {number + 1}"
            )
            rows[number] = {"text": text, "instances": [{"bbox": item.get("bbox")}]}
    return rows


def _read_instance(item: Any, where: str) -> dict[str, Any]:
    given = item if isinstance(item, dict) else {}
    if not is_box(bbox := given.get("bbox")) and not is_box(bbox := _without_numpy(bbox)):
        raise BrokenRow(f"{where}: an instance needs 'bbox': [x1, y1, x2, y2]")
    instance = {name: value for name, value in given.items() if name != "bbox_score"}
    score = given.get("bbox_score") if given.get("score") is None else given["score"]
    return {**instance, "bbox": bbox, "score": score if score is None else _without_numpy(score)}


def is_box(value: Any) -> bool:
    """Whether a value is four finite numbers, in a list or a tuple."""
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_number, value))


def _without_numpy(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [*map(_without_numpy, value)]
    return value.tolist() if hasattr(value, "tolist") else value


def is_score(value: Any) -> bool:
    """Whether a value is a box's score: a number from 0 to 1, or None for one without."""
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    )


def is_settled(expression: Mapping[str, Any]) -> bool:
    """Whether a person found its boxes right, or that there is nothing: no later step or run
    changes that.
    """
    answered = expression.get("instances") or expression.get("status") == "none"
    return bool(expression.get("reviewed_by") and expression.get("verified") is True and answered)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite int or float that a double can hold; a bool is not."""
    try:
        return (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def read_text(record: Mapping[str, Any], key: str) -> str:
    """The text in column `key`. Raises BrokenRow if it is missing, empty or not a text."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BrokenRow(f"column {key!r} should be a text, not {_kind(value)}")
    return value


def dump_line(value: Mapping[str, Any]) -> str:
    """`value` as one line of strict JSON (no NaN), non-ASCII text as it is; ends with a newline."""
    return dump_text(value) + "\n"


def dump_text(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON that UTF-8 can hold."""
    strict = (
        _STRICT
        if indent is None
        else json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=indent)
    )
    text = strict.encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            # half of a surrogate pair, which UTF-8 can't hold: write it escaped, as it came
            return json.dumps(value, allow_nan=False, indent=indent)
    return text


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `value` as it reads back from a file. Raises TypeError or ValueError for what JSON
    can't hold.
    """
    return dict(json.loads(_OF_OPERATORS.encode(value)))


def _of_numpy(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


_OF_OPERATORS = json.JSONEncoder(allow_nan=False, default=_of_numpy)


def parse_line(line: str | bytes) -> dict[str, Any]:
    """A line's JSON object. Raises BrokenRow with the reason, also for NaN, Infinity and numbers
    beyond a double.
    """
    row = parse_value(line)
    if not isinstance(row, dict):
        raise BrokenRow(f"should be a JSON object, not {_kind(row)}")
    return row


def parse_value(text: str | bytes) -> Any:
    """Any JSON value from its text, as strictly as `parse_line`."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"not JSON: {str(error).splitlines()[0]}") from None


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a file of the package's own; an empty one if it is missing, damaged or not
    an object.
    """
    with suppress(OSError, BrokenRow), open_file(path) as file:
        return parse_line(file.read())
    return {}


def write_bytes(path: str, data: bytes, *, alone: bool = True) -> None:
    """Write a file whole or not at all; where this is not `alone`, others may write it meanwhile.
    Raises OSError.
    """
    with whole_file(path, alone=alone) as file:
        file.write(data)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _kind(value: Any) -> str:
    names = {
        type(None): "missing",
        str: "a text",
        list: "a list",
        dict: "an object",
        bool: "true or false",
    }
    return (
        "empty"
        if isinstance(value, str) and not value.strip()
        else names.get(type(value), "a number")
    )
