"""Values as replies write them: JSON arrays and objects, what had to be repaired to read them,
numbers and units.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern

_ESCAPE = lazy_pattern(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    "\n": "",
}
_NUMBER = lazy_pattern(
    r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?"
)
_MEASURE = lazy_pattern(r"\s*([-+.\d]{1,20})\s*(px|pixels?|%)\s*")
_LARGEST = 10**9


class JsonArray(list[Any]):
    """An array as read; `cut`: the text ended inside of it."""

    cut = False


class JsonObject(dict[str, Any]):
    """An object as read: the last of repeated keys wins; `parts` has all of them, `loose` the
    values without a key.
    """

    __slots__ = ("cut", "loose", "parts")

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.cut = False
        self.parts: list[JsonObject] = []
        self.loose: list[Any] = []
        for key, value in pairs:
            self.put(key, value)

    def put(self, key: str, value: Any) -> None:
        """Set `key`, and begin a new part where it is already there."""
        if key in self and not self.parts:
            first = JsonObject()
            first.update(self)
            self.parts.append(first)
        if self.parts:
            if key in self.parts[-1]:
                self.parts.append(JsonObject())
            self.parts[-1][key] = value
        self[key] = value


@dataclass
class FoundJson:
    """One array or object and where it is: `text[start:end]`."""

    value: Any
    start: int
    end: int


@dataclass
class Scan:
    """What a text holds: arrays and objects in order.

    `repaired`: some of it is not quite JSON. `broken`: brackets or strings don't fit, so that
    things may be missing or misplaced. `truncated`: the text ends inside an array or object.
    `commented`: the numbers of boxes in comments within an array or object, which are not read.
    """

    text: str
    found: list[FoundJson] = field(default_factory=list)
    repaired: bool = False
    broken: bool = False
    truncated: bool = False
    commented: list[str] = field(default_factory=list)


def nested(value: Any) -> list[Any]:
    """Return the arrays and objects in an array or object."""
    values = value.values() if isinstance(value, dict) else value
    return [inner for inner in values if isinstance(inner, (dict, list))]


def unescaped(raw: str) -> str:
    """Return what a string between its quotation marks says, with its escapes resolved."""
    if "\\" not in raw:
        return raw
    text = _ESCAPE.sub(
        lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPES.get(m[2], "\\" + m[2]), raw
    )
    # Pairs of surrogates become one character; a lone one is nothing that can be written to a file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number(value: Any) -> float | None:
    """Return a coordinate as a number, also from a string; None for anything else, NaN and the like
    included.
    """
    if isinstance(value, str):
        value = value.strip()
        if _NUMBER.fullmatch(value) is None:
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # compared as it is: no float holds an integer of 309 digits
    return value if abs(value) <= _LARGEST else None


def measured(values: list[Any]) -> tuple[list[Any], str | None]:
    """Return values without the unit that all of them have, and that unit, "px" or "%"; None for
    none.
    """
    if not values or not isinstance(values[0], str):
        return values, None
    matches = [_MEASURE.fullmatch(value) for value in values if isinstance(value, str)]
    units = {match and match[2][0] for match in matches}
    if len(matches) < len(values) or len(units) != 1 or None in units:
        return values, None
    return [match[1] for match in matches if match], "%" if units == {"%"} else "px"


def hull(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box around corners given as x, y, x, y, …"""
    xs, ys = corners[0::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def score_of(value: Any) -> float | None:
    """Return a score from 0 to 1, also from a percentage; None for anything else."""
    per_cent = isinstance(value, str) and value.strip().endswith("%")
    score = number(value.strip().rstrip("%") if per_cent else value)
    if score is not None and per_cent:
        score /= 100
    return score if score is not None and 0 <= score <= 1 else None
