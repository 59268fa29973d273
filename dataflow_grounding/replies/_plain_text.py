"""Boxes and points without JSON or tokens: lines such as `red mug: 10, 20, 30, 40`, and tables with
named columns.
"""

import re
from itertools import pairwise
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._conventions import LEGEND
from dataflow_grounding.replies._json_shapes import take_corners
from dataflow_grounding.replies._talk import named_before
from dataflow_grounding.replies.json_values import number
from dataflow_grounding.replies.reading import ParsedReply, RawBox, named
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
TALK, _BOX_WORD, _CORNER, _LABELED = map(
    pattern, ("no_label", "box_word", "corner_label", "labelled")
)
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}")
_CLAUSES = lazy_pattern(r"[。！？]|;\s+(?=[^\W\d_])")
_HEADING = lazy_pattern(r"(?:[-*•#]|\d{1,3}[.)])\s.*|.*(?:[:：]|\*\*)\s*")
_TAG = lazy_pattern(r"</?\|?[A-Za-z][\w:.-]{0,40}\|?>")
MARKUP = " \t\r*\"'`“”|,;.:：=→–—->([{<"
_COLUMN_ENDS = "|\t;,"
_RULE = lazy_pattern(r"[\s|:+=-]+")
_CELL_MARKUP = " *`\"'_"


def read_plain(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the box or point of each line that ends in four numbers, names coordinates,
    or is a table row.
    """
    table: _Table | None = None
    lines = _STACKED.sub(_in_one_line, text.rstrip()).splitlines()
    box_lines: list[int] = []
    for i, line in enumerate(lines, start=1):
        if (begun := _table_of(line)) is not None:
            table = begun
        elif table is None or not table.take_row(line, parsed):
            table = None
            _read_line(line, parsed, last=i == len(lines))
        box_lines += [i] * (len(parsed.boxes) - len(box_lines))
    if not any(raw.said.labels for raw in parsed.boxes):
        _take_stated_labels(lines, box_lines, parsed)


def _in_one_line(stacked: re.Match[str]) -> str:
    return ", ".join(stacked[0].split("\n")[:4]) + "\n"


def _take_stated_labels(lines: list[str], box_lines: list[int], parsed: ParsedReply) -> None:
    """Give boxes the labels on lines such as `label: a cat` above or below them. Raises
    UnreadableReply if unclear.
    """
    stated = _stated_labels(lines, {*box_lines}) if box_lines else {}
    if not stated:
        return
    labels = [(label,) for label in stated.values()]
    if len(stated) == 1 and min(stated) < box_lines[0]:  # what all of them are
        labels *= len(box_lines)
    else:
        kinds = [line in stated for line in sorted([*stated, *box_lines])]
        if len(stated) != len(box_lines) or any(
            kind == following for kind, following in pairwise(kinds)
        ):
            raise UnreadableReply("it is unclear which of the stated labels belong to which boxes")
    parsed.say(0, "labels", labels)


def _stated_labels(lines: list[str], box_lines: set[int]) -> dict[int, str]:
    """Return the labels on lines that say that they are one and have no box, by the number of the
    line.
    """
    stated: dict[int, str] = {}
    for i, line in enumerate(lines, start=1):
        match = _LABELED.fullmatch(line[:400]) if i not in box_lines else None
        if match is not None:
            stated[i] = label_in(match[1]) or match[1].strip()
    return stated


def _read_line(line: str, parsed: ParsedReply, *, last: bool) -> None:
    stated = {plain_key(key): float(value) for key, value in _NAMED.findall(line[:2000])}
    before = line[: match.start()] if (match := _NAMED.search(line)) else ""
    if take_corners(parsed, stated, named(label_before(before), named_before(before))):
        return
    four = _FOUR.search(line[-200:])
    if four is not None:
        before = line[: len(line) - len(line[-200:]) + four.start()]
        if last and any(line.count(one) > line.count(other) for one, other in ("()", "[]", "{}")):
            parsed.truncated = True
            parsed.drop("a box that is cut off", named(label_before(before), named_before(before)))
        elif _A_FIFTH.search(before[-20:]):
            parsed.drop(f"more than four numbers: {line.strip()[-60:]!r}")
        else:
            _take_four(list(four.groups()), LEGEND.sub(" ", before), parsed)
    elif "x" in stated and "y" in stated:
        parsed.put(RawBox("point", (stated["x"], stated["y"]), order="xyxy"))


def _take_four(numbers: list[str], before: str, parsed: ParsedReply) -> None:
    few_words = len(before.split()) <= 4 and not TALK.search(before)
    label = label_before(before) or (label_in(before) if few_words else None)
    if label or not _LETTERS.search(before) or _BOX_WORD.search(before):
        # else it only counts something
        parsed.add(numbers, named(label, named_before(before)))


def label_before(text: str) -> str | None:
    """Return the label that `text` ends with, before brackets or a colon, or in a heading above;
    None for talk.
    """
    *above, line = text[-400:].split("\n")
    tied = bool(line) and (not line[-1].isspace() or line.rstrip()[-1:] in MARKUP)
    if (
        (tied or line.strip(MARKUP + "-"))
        and plain_key(line) not in BOX_KEYS
        and not TALK.search(line)
    ):
        return label_in(line) if tied else None
    for other in reversed([other for other in above if other.strip()][-2:]):
        stated = _LABELED.fullmatch(other)
        if stated is not None:
            return label_in(stated[1])
        if _HEADING.fullmatch(other.strip()):
            return None if TALK.search(other) else label_in(other)
    return None


def label_in(line: str) -> str | None:
    """Return the label that a line is, without marks around it; None where it has too many words
    for one, or none.
    """
    line = _CLAUSES.split(line)[-1]
    without_tags = _TAG.sub(" ", line)
    # a tag alone is a label: <cat>[1, 2, 3, 4]</cat>
    line = without_tags if _LETTERS.search(without_tags) else line
    label = re.sub(r"^\d{1,3}[.)]\s+", "", line.strip(MARKUP + "-•#")).strip(MARKUP + "])}")
    letter = re.search(r"[^\W\d]", label)
    if (
        letter is None
        or _CORNER.fullmatch(label)
        or re.search(r"[=({]", label)
        or len(label.split()) > 8
    ):
        return None
    return label


class _Table(NamedTuple):
    """A table with coordinates: the names of its columns, as keys are compared, and that of the
    column of labels.
    """

    separator: str
    names: list[str]
    label: str

    def take_row(self, line: str, parsed: ParsedReply) -> bool:
        """Add the box of one row to `parsed`; False if the line is not one of the table's."""
        cells = _cells(line, self.separator)
        if _RULE.fullmatch(line):
            return True
        if len(cells) != len(self.names):
            unfit = sum(number(cell) is not None for cell in cells) >= 4
            if unfit:
                parsed.drop(f"a row that doesn't fit its table: {line.strip()[:60]!r}")
            return unfit
        # the first of two columns of one name counts
        row = dict(zip(self.names[::-1], cells[::-1], strict=True))
        return take_corners(parsed, row, named(row.get(self.label)))


def _table_of(line: str) -> _Table | None:
    for separator in _COLUMN_ENDS if len(line) > 6 else "":
        names = [plain_key(cell) for cell in _cells(line[:1000], separator)]
        for corners, _ in CORNERS:
            if all(names.count(corner) == 1 for corner in corners):
                others = [name for name in names if name and name not in corners]
                return _Table(
                    separator,
                    names,
                    next((key for key in (*LABEL_KEYS, *others) if key in names), ""),
                )
    return None


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip(_CELL_MARKUP) for cell in line.split(separator)]
