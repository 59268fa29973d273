"""What text formats with one label file per image have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.records import is_number

Labelled: TypeAlias = dict[str, Any]  # A region: `bbox` ([x1, y1, x2, y2] in pixels) and `type`


def label_lines(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line with fields is ("file, line n") and the fields. Raises BrokenRow, OSError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BrokenRow(f"{path}, line {line}: is not UTF-8") from None
    for number, line_text in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        fields = line_text.split()
        if fields:
            yield f"{path}, line {number}", fields


def number_of(text: str, where: str) -> float:
    """Return a finite number, whole ones as int, so that it is written back as it was. Raises BrokenRow."""
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        value = float("nan")
    if not is_number(value) or "_" in text:
        raise BrokenRow(f"{where}: {text[:40]!r} is not a number")
    return value
