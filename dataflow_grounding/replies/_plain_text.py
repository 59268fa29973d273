"""Boxes and points without JSON or tokens, in lines and in tables with named columns.

A line is such as `red mug: 10, 20, 30, 40`.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._conventions import LEGEND
from dataflow_grounding.replies._json_shapes import add_corners
from dataflow_grounding.replies._talk import thing_before
from dataflow_grounding.replies.json_values import number
from dataflow_grounding.replies.reading import ParsedReply, RawBox, details_of_label
from dataflow_grounding.replies.vocabulary import (
    BOX_KEYS,
    COORDINATE,
    CORNERS,
    LABEL_KEYS,
    pattern,
    plain_key,
)

_NUMBER = r"[-+]?(?:\d{1,9}(?:\.\d{1,20})?|\.\d{1,20})"
_SEPARATOR = r"\s{0,3}[,;_|/\s]\s{0,3}"
_FOUR = lazy_pattern(
    rf"(?<![\d.])({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER})[\s.;|>)\]]*$"
)
_A_FIFTH = lazy_pattern(r"\d[\s,;_|/]*$")
_NAMED = lazy_pattern(
    rf"\b([A-Za-z][A-Za-z_]{{0,11}}\d?)\s{{0,3}}[=:]\s{{0,3}}({_NUMBER})(?![\d.]*\w)"
)
# Coordinates on a line each.
_STACKED = lazy_pattern(
    rf"(?:^[ \t]{{0,9}}[-*]?[ \t]{{0,3}}{COORDINATE}[ \t]{{0,3}}[=:][ \t]{{0,3}}{_NUMBER}["
    r" \t]{0,9}(?:\n|\Z)){4}",
    re.M | re.I,
)
TALK = pattern("no_label")
_BOX_WORD = pattern("box_word")
_CORNER = pattern("corner_label")
_LABELED = pattern("labelled")
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}")
_CLAUSES = lazy_pattern(r"[。！？]|;\s+(?=[^\W\d_])")
_HEADING = lazy_pattern(r"(?:[-*•#]|\d{1,3}[.)])\s.*|.*(?:[:：]|\*\*)\s*")
_TAG = lazy_pattern(r"</?\|?[A-Za-z][\w:.-]{0,40}\|?>")
MARKUP = " \t\r*\"'`“”|,;.:：=→–—->([{<"
_COLUMN_ENDS = "|\t;,"
_RULE = lazy_pattern(r"[\s|:+=-]+")
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_CELL_MARKUP = " *`\"'_"


def read_plain(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the box or point of each line of a text.

    A line has a box or point where it ends in four numbers, names coordinates, or is a table's row.
    """
    table: _Table | None = None
    lines = _STACKED.sub(_in_one_line, text.rstrip()).splitlines()
    box_lines: list[int] = []  # the number of the line of each box
    for i, line in enumerate(lines, start=1):
        heading = _table_of(line)
        if heading is not None:
            table = heading
        elif table is None or not table.add_row(line, parsed):
            table = None
            _read_line(line, parsed, last=i == len(lines))
        while len(box_lines) < len(parsed.boxes):
            box_lines.append(i)
    if not any(raw.details.labels for raw in parsed.boxes):
        _set_stated_labels(lines, box_lines, parsed)


def _in_one_line(stacked: re.Match[str]) -> str:
    """Return four coordinates on a line each as one line."""
    return ", ".join(stacked[0].split("\n")[:4]) + "\n"


def _set_stated_labels(lines: list[str], box_lines: list[int], parsed: ParsedReply) -> None:
    """Set the labels of boxes to those on lines such as `label: a cat` above or below them.

    Args:
        lines: The lines of the text.
        box_lines: The number of the line of each box, from 1.
        parsed: The reply with the boxes.

    Raises:
        UnreadableReply: It is unclear to which boxes they belong.
    """
    if not box_lines:
        return
    stated = _stated_labels(lines, set(box_lines))
    if not stated:
        return
    labels = [(label,) for label in stated.values()]
    if len(stated) == 1 and min(stated) < box_lines[0]:  # what all of them are
        labels *= len(box_lines)
    elif not _alternate(stated, box_lines):
        raise UnreadableReply("it is unclear which of the stated labels belong to which boxes")
    parsed.set_details(0, "labels", labels)


def _alternate(stated: Mapping[int, str], box_lines: list[int]) -> bool:
    """Whether there is a stated label for each box, and lines of labels and boxes take turns."""
    if len(stated) != len(box_lines):
        return False
    are_labels = [line in stated for line in sorted([*stated, *box_lines])]
    return all(first != second for first, second in pairwise(are_labels))


def _stated_labels(lines: list[str], box_lines: set[int]) -> dict[int, str]:
    """Return the labels on lines such as `label: a cat` that have no box, by line number."""
    stated: dict[int, str] = {}
    for i, line in enumerate(lines, start=1):
        if i in box_lines:
            continue
        match = _LABELED.fullmatch(line[:400])
        if match is not None:
            stated[i] = label_in(match[1]) or match[1].strip()
    return stated


def _read_line(line: str, parsed: ParsedReply, *, last: bool) -> None:
    """Add to `parsed` the box or point of a line, if it has one.

    That is a box with named coordinates, `x1=10, y1=20, x2=30, y2=40`; else four numbers at the
    line's end; else a point, `x: 10, y: 20`. What stands before it may be its label.

    Args:
        line: The line.
        parsed: What was read so far.
        last: Whether it is the text's last line, which may be cut off.
    """
    by_name = {plain_key(key): float(value) for key, value in _NAMED.findall(line[:2000])}
    first = _NAMED.search(line)
    before = "" if first is None else line[: first.start()]
    if add_corners(parsed, by_name, details_of_label(label_before(before), thing_before(before))):
        return
    tail = line[-200:]  # four numbers are no longer, and searching long lines takes long
    four = _FOUR.search(tail)
    if four is not None:
        before = line[: len(line) - len(tail) + four.start()]
        if last and _leaves_bracket_open(line):
            parsed.truncated = True
            parsed.drop(
                "a box that is cut off",
                details_of_label(label_before(before), thing_before(before)),
            )
        elif _A_FIFTH.search(before[-20:]):
            parsed.drop(f"more than four numbers: {line.strip()[-60:]!r}")
        else:
            _add_four_numbers(list(four.groups()), LEGEND.sub(" ", before), parsed)
    elif "x" in by_name and "y" in by_name:
        parsed.add_raw_box(RawBox("point", (by_name["x"], by_name["y"]), order="xyxy"))


def _leaves_bracket_open(line: str) -> bool:
    """Whether a line has more opening than closing brackets of a kind."""
    return any(line.count(opening) > line.count(closing) for opening, closing in _BRACKETS)


def _add_four_numbers(numbers: list[str], before: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the four numbers that a line ends in, if the words before allow a box.

    They do if they are a label, have no letters, or have a word for a box.
    """
    label = label_before(before)
    if not label and len(before.split()) <= 4 and not TALK.search(before):
        label = label_in(before)
    if label or not _LETTERS.search(before) or _BOX_WORD.search(before):
        parsed.add_numbers(numbers, details_of_label(label, thing_before(before)))


def label_before(text: str) -> str | None:
    """Return the label that a text ends with, before a bracket or colon, or in a heading above.

    None where it ends with talk.
    """
    *above, line = text[-400:].split("\n")
    # A label touches its box, or has a mark such as ":" behind it.
    touches_box = bool(line) and (not line[-1].isspace() or line.rstrip()[-1:] in MARKUP)
    is_blank = not touches_box and not line.strip(MARKUP + "-")
    if is_blank or plain_key(line) in BOX_KEYS or TALK.search(line):
        return _label_above(above)
    return label_in(line) if touches_box else None


def _label_above(lines: list[str]) -> str | None:
    """Return the label in the last or last but one of the lines above that has any words."""
    with_words = [line for line in lines if line.strip()]
    for line in reversed(with_words[-2:]):
        stated = _LABELED.fullmatch(line)
        if stated is not None:
            return label_in(stated[1])
        if _HEADING.fullmatch(line.strip()):
            return None if TALK.search(line) else label_in(line)
    return None


def label_in(line: str) -> str | None:
    """Return the label that a line is, without marks around it.

    None where it has no words, or more words than a label.
    """
    line = _CLAUSES.split(line)[-1]
    without_tags = _TAG.sub(" ", line)
    # a tag alone is a label: <cat>[1, 2, 3, 4]</cat>
    line = without_tags if _LETTERS.search(without_tags) else line
    label = re.sub(r"^\d{1,3}[.)]\s+", "", line.strip(MARKUP + "-•#")).strip(MARKUP + "])}")
    if re.search(r"[^\W\d]", label) is None or _CORNER.fullmatch(label):
        return None
    if re.search(r"[=({]", label) or len(label.split()) > 8:
        return None
    return label


class _Table(NamedTuple):
    """A table with coordinates.

    Attributes:
        separator: What stands between cells.
        names: The names of its columns, as keys are compared.
        label: The name of the column of labels; "" for none.
    """

    separator: str
    names: list[str]
    label: str

    def add_row(self, line: str, parsed: ParsedReply) -> bool:
        """Add to `parsed` the box of a line, and return whether the line belongs to the table."""
        if _RULE.fullmatch(line):
            return True
        cells = _cells(line, self.separator)
        if len(cells) == len(self.names):
            # reversed: the first of two columns of one name counts
            row = dict(zip(reversed(self.names), reversed(cells), strict=True))
            return add_corners(parsed, row, details_of_label(row.get(self.label)))
        if sum(number(cell) is not None for cell in cells) < 4:
            return False
        parsed.drop(f"a row that doesn't fit its table: {line.strip()[:60]!r}")
        return True


def _table_of(line: str) -> _Table | None:
    """Return the table that a line of column names begins; None for any other line."""
    if len(line) <= 6:
        return None
    for separator in _COLUMN_ENDS:
        names = [plain_key(cell) for cell in _cells(line[:1000], separator)]
        for corners, _ in CORNERS:
            if all(names.count(corner) == 1 for corner in corners):
                return _Table(separator, names, _label_column(names, corners))
    return None


def _label_column(names: list[str], corners: tuple[str, ...]) -> str:
    """Return the column for a label, or else the first with a name and no coordinate."""
    for key in LABEL_KEYS:
        if key in names:
            return key
    for name in names:
        if name and name not in corners:
            return name
    return ""


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of a table's row, without marks around them."""
    return [cell.strip(_CELL_MARKUP) for cell in line.split(separator)]
