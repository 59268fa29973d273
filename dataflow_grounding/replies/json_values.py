"""Values as replies write them: JSON's arrays and objects, numbers and units."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern

# An escape in a string: "\u00e9", whose four digits are the first group, or "\n".
_ESCAPE = lazy_pattern(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
# Character behind a backslash → what the two stand for; a line that is continued is one line.
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
# A coordinate in a string: "12", ".5", "1e3".
_NUMBER = lazy_pattern(
    r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?"
)
# A coordinate with its unit: "12px", "5.5 %".
_MEASURE = lazy_pattern(r"\s*([-+.\d]{1,20})\s*(px|pixels?|%)\s*")
LARGEST = 10**9  # that a coordinate may be, without its sign


class JsonArray(list[Any]):
    """An array as read.

    Attributes:
        cut: Whether the text ended inside of it.
    """

    cut = False


class JsonObject(dict[str, Any]):
    """An object as read; the last of repeated keys wins.

    Attributes:
        cut: Whether the text ended inside of it.
        parts: Where a key is repeated, the objects that make this one: the first goes up to that
            key, the second from there to the next one that it repeats itself, and so on. Else none.
        loose: The values without a key.
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
        """Set a key; where it is in the last part already, a new part of the object begins."""
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
class JsonItem:
    """One array or object and where it is: `text[start:end]` of the scan's text."""

    value: Any
    start: int
    end: int


@dataclass
class Scan:
    """What a text holds: arrays and objects in order.

    Attributes:
        text: The text; see `json_text.find_json`.
        items: The outermost arrays and objects in it.
        repaired: Whether some of it is not quite JSON.
        broken: Whether brackets or strings don't fit, so that things may be missing or misplaced.
        truncated: Whether the text ends inside an array or object.
        boxes_in_comments: The boxes in comments within an array or object, each as "1, 2, 3, 4".
        names_in_comments: The comments there that are the name of a coordinate: "y1".
    """

    text: str
    items: list[JsonItem] = field(default_factory=list)
    repaired: bool = False
    broken: bool = False
    truncated: bool = False
    boxes_in_comments: list[str] = field(default_factory=list)
    names_in_comments: list[str] = field(default_factory=list)


def nested_values(value: Any) -> list[Any]:
    """Return the arrays and objects that are items or values of an array or object itself."""
    values = value.values() if isinstance(value, dict) else value
    return [inner for inner in values if isinstance(inner, (dict, list))]


def unescape(raw: str) -> str:
    """Return what a string between its quotation marks says, with its escapes resolved."""
    if "\\" not in raw:
        return raw
    text = _ESCAPE.sub(_character_of_escape, raw)
    # Pairs of surrogates become one character; a lone one is nothing that can be written to a file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character_of_escape(match: re.Match[str]) -> str:
    """Return the character that an escape stands for; one that is not known as it is written."""
    if match[1]:
        return chr(int(match[1], 16))
    return _ESCAPES.get(match[2], "\\" + match[2])


def number(value: Any) -> float | None:
    """Return a coordinate as a number, also from a string such as "12.5".

    None for anything else, also for a bool, NaN, and what is larger than LARGEST.
    """
    if isinstance(value, str):
        value = value.strip()
        if _NUMBER.fullmatch(value) is None:
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # compared as it is: no float holds an integer of 309 digits
    return value if abs(value) <= LARGEST else None


def split_off_unit(values: list[Any]) -> tuple[list[Any], str | None]:
    """Return texts such as "12px" without their unit, and that unit, "px" or "%".

    Where not all values are texts with the same unit, they are returned as they are, and None.
    """
    numbers: list[str] = []
    units: set[str] = set()
    for value in values:
        if not isinstance(value, str):
            return values, None
        match = _MEASURE.fullmatch(value)
        if match is None:
            return values, None
        numbers.append(match[1])
        units.add("%" if match[2] == "%" else "px")
    if len(units) != 1:
        return values, None
    return numbers, units.pop()


def hull(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box around corners given as x, y, x, y, …"""
    xs = corners[0::2]
    ys = corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def score_of(value: Any) -> float | None:
    """Return a score from 0 to 1, also from a text, "0.9" or "90%"; None for anything else."""
    if isinstance(value, str) and value.strip().endswith("%"):
        per_cent = number(value.strip().rstrip("%"))
        score = None if per_cent is None else per_cent / 100
    else:
        score = number(value)
    if score is None or not 0 <= score <= 1:
        return None
    return score
