"""The record: one image with its caption and annotations, as a JSON object.

Here are also readers that refuse columns of a wrong shape, and JSON, read and written strictly: no
NaN, no fractions beyond a double.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.paths import is_absolute, open_input, path_within

Update: TypeAlias = dict[str, Any]  # what an operator adds to a record: column name → JSON value
JsonObject: TypeAlias = Mapping[str, Any]
"""An object of JSON that isn't a record: a question, a schema, settings."""

ROW_OF_IMAGE = "row_of_image"
"""The column of an image's second and later rows that says which of its rows it is, from 1. With
it, ids stay the same where earlier rows of the image have failed.
"""

BROKEN_ROW = "_broken_row"
"""The column of a row in place of one that can't be read: it says why."""

_NUMBERS = frozenset([int, float])
# One encoder for all lines: `json.dumps` would make one each time.
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

NEGATIVE = "negative"
"""The `source` of expressions that were made up to be absent from their image."""

STATUSES = ("grounded", "none", "ambiguous", "unsupported")
"""What may have been found of an expression: boxes, that its thing isn't there, or neither."""
REGIONS = "regions"  # the column of a record with its regions
DOUBT = "doubt"
"""The column that says in words why a record's replies are doubtful."""
REMARK = "remark"
"""The column with what replies say next to their answers, where that may matter."""
VERDICTS = ("verified", "not verified", "undecided", "not checked")
"""What a check may have said of an expression, in words; see `Expression.verdict`."""


class Record(dict[str, Any]):
    """One row of a data set, a dict, and where it came from.

    Attributes:
        folders: The folders that are searched, in order, for a relative image path.
        image_id: The row's own id of its image, or one made from the image's path; None without
            either.
        occurrence: How many earlier rows have the same `image_id`, so that ids stay unique.
        place: The row's number in its file, from 0.
        images: The `Image` of each of its pictures, by path. All steps have the same one, even if
            the file changes meanwhile: copies of a record share them.
    """

    __slots__ = ("folders", "image_id", "images", "occurrence", "place")

    def __init__(
        self,
        row: Mapping[str, object],
        folders: tuple[str, ...] = (),
        occurrence: int = 0,
        image_id: str | None = None,
        place: int = 0,
    ) -> None:
        super().__init__(row)
        self.folders = folders
        self.occurrence = occurrence
        self.place = place
        self.images: dict[str, Any] = {}
        own_id = row.get("image_id")
        self.image_id = str(own_id) if has_id(own_id) else image_id

    def updated(self, update: Mapping[str, object]) -> "Record":
        """Return a copy with the columns of `update` set."""
        row = {**self, **update}
        record = Record(row, self.folders, self.occurrence, self.image_id, self.place)
        record.images = self.images
        return record

    @property
    def unique_id(self) -> str:
        """`image_id`, with `@2`, `@3` … for the second, third … row of the same image.

        Without an `image_id` it begins with `record`.
        """
        image_id = "record" if self.image_id is None else self.image_id
        if self.occurrence:
            return f"{image_id}@{self.occurrence + 1}"
        return image_id


def image_id_of(
    row: Mapping[str, object], image_key: str, image_root: str | None = None
) -> str | None:
    """Return the row's own `image_id`, else its image's `name_within`; None without either."""
    own_id = row.get("image_id")
    if has_id(own_id):
        return str(own_id)
    path = row.get(image_key)
    if isinstance(path, str) and path:
        return name_within(path, image_root)
    return None


def path_of(record: Mapping[str, object]) -> str:
    """Return the path of a record's picture, `image_path` or else `image`; "" without one."""
    path = record.get("image_path") or record.get("image")
    return path if isinstance(path, str) else ""


def caption_of_spans(record: Mapping[str, object]) -> str:
    """Return the caption that a record's `char_span`s are of: the cleaned one, else the caption."""
    for key in ("cleaned_caption", "caption"):
        text = record.get(key)
        if isinstance(text, str) and text:
            return text
    return ""


def stated_size(record: Mapping[str, object]) -> tuple[int, int] | None:
    """Return the width and height that a record states, in pixels; None if unusable."""
    width = whole_number(record.get("width"))
    height = whole_number(record.get("height"))
    if width is None or height is None or min(width, height) <= 0:
        return None
    return (width, height)


def whole_number(value: Any) -> int | None:
    """Return a value as an int if it is a whole number, also 640.0 or a text; else None."""
    if isinstance(value, bool):
        return None
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if number.is_integer():
            return int(number)
    return None


def name_within(path: str, root: str | None) -> str:
    """Return an image's name in ids and in files about it: its path from `root`, without ending. It
    is the same on every machine, has `/`, and doesn't lead out of a folder: each `..` becomes `_`.
    Of an absolute path that isn't within `root` only the file's name is left.
    """
    if is_absolute(path):
        path = path_within(path, root) or os.path.basename(path)
    stem, _ = os.path.splitext(os.path.normpath(path))
    parts = stem.split(os.sep)  # "../a/b.jpg" gives "_/a/b"
    return "/".join("_" if part == os.pardir else part for part in parts)


def has_id(own_id: Any) -> bool:
    """Return whether a user's id counts as one: 0 does, an empty text doesn't."""
    return own_id is not None and own_id != ""


def expression_id(record: "Record", number: int) -> str:
    """Return the id of a record's expression, by its number from 0.

    The id is unique in the data set, and the same on every run.
    """
    return f"{record.unique_id}#{number}"


def annotated_column(record: Mapping[str, object]) -> str:
    """Return the first of three columns that says what is in the picture; "" without any."""
    for key in ("expressions", "region_captions", "regions"):
        if record.get(key) is not None:
            return key
    return ""


def is_box(value: Any) -> bool:
    """Whether a value is four finite numbers, in a list or a tuple."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return False
    if not _NUMBERS.issuperset(map(type, value)):  # a bool, say, or NumPy's
        return all(map(is_number, value))
    try:
        return all(map(math.isfinite, value))
    except OverflowError:
        return False


def without_numpy(value: Any) -> Any:
    """Return a number, or a list of numbers, of Python's."""
    if isinstance(value, (list, tuple)):
        return [*map(without_numpy, value)]
    return value.tolist() if hasattr(value, "tolist") else value


def is_score(value: Any) -> bool:
    """Whether a value is a box's score: a number from 0 to 1, or None for one without."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def doubt_of_reply(record: Mapping[str, object]) -> str:
    """Return why a reply about a record is doubtful, in words; "" if none is.

    A record is marked `doubtful` for one of two reasons. Either a reply is doubtful: then `doubt`
    says why. Or a check couldn't decide on a phrase, which is marked as well: then no reply is.
    """
    if record.get("doubtful") is not True:
        return ""
    doubt = record.get(DOUBT)
    if doubt and isinstance(doubt, str):
        return doubt
    if _has_doubtful_phrase(record):  # the record is marked because of it
        return ""
    return "it is marked as doubtful, without a reason"


def _has_doubtful_phrase(record: Mapping[str, object]) -> bool:
    phrases = record.get(annotated_column(record))
    if not isinstance(phrases, list):
        return False
    return any(isinstance(phrase, dict) and phrase.get("doubtful") is True for phrase in phrases)


def in_one_schema(record: Mapping[str, object], update: Mapping[str, object]) -> Update:
    """Return a step's update with the keys that records of every pipeline have: expressions get
    `verified`, null where nobody checked, and a record without regions gets an empty list.
    """
    completed = dict(update)
    for column in ("expressions", "region_captions"):
        expressions = update.get(column)
        if isinstance(expressions, list):
            completed[column] = [_with_verdict(expression) for expression in expressions]
    if REGIONS not in record and REGIONS not in update:
        completed[REGIONS] = []
    return completed


def _with_verdict(expression: Any) -> Any:
    if not isinstance(expression, dict) or "verified" in expression:
        return expression
    return {**expression, "verified": None}


def is_number(value: Any) -> bool:
    """Return whether a value is a finite int or float that a double can hold; a bool is not."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def read_text(record: Mapping[str, object], key: str) -> str:
    """Return the text in column `key`. Raises BrokenRow if it is missing, empty or no text."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BrokenRow(f"column {key!r} should be a text, not {type_name(value)}")
    return value


def dump_line(value: Mapping[str, object]) -> str:
    """Return `value` as one line of strict JSON, as `dump_text` writes it; it ends in a newline."""
    return dump_text(value) + "\n"


def dump_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as strict JSON (no NaN) that UTF-8 can hold: half of a surrogate pair is
    escaped. Raises TypeError or ValueError for what JSON can't hold.
    """
    encoder = _STRICT
    if indent is not None:
        encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=indent)
    text = encoder.encode(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which UTF-8 can't hold: write it escaped, as it came.
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def as_json(value: Mapping[str, object]) -> Update:
    """Return a copy of `value` as it reads back from a file: NumPy's values become Python's, typed
    ones objects.
    """
    return dict(json.loads(_OF_OPERATORS.encode(value)))


def json_value(value: Any) -> Any:
    """Return a value of NumPy's, or an expression, a box or a region, as JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_json"):
        return value.to_json()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


# Encodes what operators make, in which there may be NumPy's values and typed ones.
_OF_OPERATORS = json.JSONEncoder(allow_nan=False, default=json_value)


def parse_line(line: str | bytes) -> JsonObject:
    """Return a line's JSON object. Raises BrokenRow with the reason, also for NaN, Infinity, and
    numbers beyond a double that are written with a point or an exponent.
    """
    row = parse_value(line)
    if not isinstance(row, dict):
        raise BrokenRow(f"should be a JSON object, not {type_name(row)}")
    return row


def parse_value(text: str | bytes) -> Any:
    """Return any JSON value from its text, as strictly as `parse_line`. Raises BrokenRow."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"not JSON: {str(error).splitlines()[0]}") from None


def read_object(path: str) -> JsonObject:
    """Return the JSON object in a file of the package's own; {} if it is missing or damaged."""
    with suppress(OSError, BrokenRow), open_input(path) as file:
        return parse_line(file.read())
    return {}


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def type_name(value: Any) -> str:
    """Return what comes after "not" in "should be a list of expressions, not a text"."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return "a text" if value.strip() else "empty"
    names = {list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), "a number")  # JSON has no other types
