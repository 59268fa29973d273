"""What text formats with one label file per image have in common."""

import codecs
from collections.abc import Iterator
from typing import Any, TypeAlias

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.records import is_number

Labelled: TypeAlias = dict[str, Any]  # A region: `bbox` ([x1, y1, x2, y2] in pixels), `type`, perhaps `score`


NOT_UTF8 = "\ufffd"  # what stands for a line that can't be decoded


def label_lines(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line with fields is ("file, line n") and the fields; one that is not UTF-8 has NOT_UTF8.

    Raises OSError.
    """
    with open(path, "rb") as file:
        lines = file.read().removeprefix(codecs.BOM_UTF8).split(b"\n")
    text = "\n".join(map(_decoded, lines))
    for number, line_text in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        fields = line_text.split()
        if fields:
            yield f"{path}, line {number}", fields


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8


def number_of(text: str, where: str) -> float:
    """Return a finite number, whole ones as int, so that it is written back as it was. Raises BrokenRow."""
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        value = float("nan")
    if not is_number(value) or "_" in text:
        raise BrokenRow(f"{where}: {text[:40]!r} is not a number")
    return value


def score_of(fields: list[str], count: int, where: str) -> dict[str, float]:
    """The score at the end of a label of `count` fields, if it is one, in [0, 1]. Raises BrokenRow."""
    score = number_of(fields[-1], where) if len(fields) == count else -1
    return {"score": score} if 0 <= score <= 1 else {}
