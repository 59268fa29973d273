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
from dataflow_grounding.replies._talk import NO_THINGS, thing_before
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
# Four numbers at the end of a line, perhaps with a bracket behind them: a group for each.
_FOUR = lazy_pattern(
    rf"(?<![\d.])({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER})[\s.;|>)\]]*$"
)
_A_FIFTH = lazy_pattern(r"\d[\s,;_|/]*$")  # right before these: a further number
# A number with its name: "x1=10", "left: 20". Groups: the name, the number.
_NAMED = lazy_pattern(
    rf"\b([A-Za-z][A-Za-z_]{{0,11}}\d?)\s{{0,3}}[=:]\s{{0,3}}({_NUMBER})(?![\d.]*\w)"
)
# Four named coordinates on a line each.
_STACKED = lazy_pattern(
    rf"(?:^[ \t]{{0,9}}[-*]?[ \t]{{0,3}}{COORDINATE}[ \t]{{0,3}}[=:][ \t]{{0,3}}{_NUMBER}["
    r" \t]{0,9}(?:\n|\Z)){4}",
    re.M | re.I,
)
# The name of a coordinate in Markdown, with its colon: "**xmin**:", "`left`:", "**top:**".
_NAME_IN_MARKUP = lazy_pattern(
    rf"(\*\*|__|`)({COORDINATE})(?:\1[ \t]{{0,3}}[:=]|[ \t]{{0,3}}[:=]\1)", re.IGNORECASE
)
TALK = pattern("no_label")  # a word that no label has: "coordinates", "located", "is"
_BOX_WORD = pattern("box_word")  # a word that four numbers of a box may stand behind: "box", "at"
_CORNER = pattern("corner_label")  # all of a text that names a corner: "top-left corner"
_LABELED = pattern("labelled")  # "label: a cat"; the group is the label
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}")  # a word
_ANY_LETTERS = lazy_pattern(r"[^\W\d_]+")
# The end of a clause, behind which a label may begin.
_CLAUSES = lazy_pattern(r"[。！？]|;\s+(?=[^\W\d_])")
# A line that is an item of a list or a heading: "- cat", "## cat", "2. cat", "Cats:", "**cat**".
_HEADING = lazy_pattern(r"(?:[-*•]|#{1,6}|\d{1,3}[.)])\s.*|.*(?:[:：]|\*\*)\s*")
_TAG = lazy_pattern(r"</?\|?[A-Za-z][\w:.-]{0,40}\|?>")
MARKUP = " \t\r*\"'`“”|,;.:：=→–—->([{<"  # characters around a label
_SEPARATORS = "|\t;,"  # of a table's cells
_RULE = lazy_pattern(r"[\s|:+=-]+")  # a line of a table without text: "|---|---|"
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_CELL_MARKUP = " *`\"'_"  # characters around a cell's text
_LONGEST_TAIL = 200  # characters at a line's end in which four numbers may stand
_LONGEST_LINE = 2000  # characters of a line in which named coordinates are looked for
_LONGEST_STATED = 400  # characters of a line that may state a label
_LONGEST_BEFORE = 400  # characters before a box in which its label may stand
_LONGEST_HEAD = 1000  # characters of a line that may name a table's columns
_MOST_WORDS = 8  # of a label
_MOST_WORDS_BARE = 4  # of a label that nothing but a blank parts from four numbers
_SHORTEST_HEAD = 7  # characters of a line that names four columns: "x,y,w,h"


def read_plain(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the box or point of each line of a text.

    A line has a box or point where it ends in four numbers, names coordinates, or is a table's row.
    Where no box of `parsed` has a label, lines such as `label: a cat` label the boxes.

    Raises:
        UnreadableReply: It is unclear to which boxes such lines belong.
    """
    table: _Table | None = None
    text = _NAME_IN_MARKUP.sub(r"\2:", text.rstrip())
    lines = _STACKED.sub(_in_one_line, text).splitlines()
    box_lines: list[int] = []  # the number of the line of each box
    heading = ""  # the last line with words and no box
    for i, line in enumerate(lines, start=1):
        head_of_table = _table_of(line)
        if head_of_table is not None:
            table = head_of_table
        elif table is None or not table.add_row(line, parsed):
            table = None
            _read_line(line, parsed, heading, last=i == len(lines))
        if len(box_lines) == len(parsed.boxes) and line.strip():
            heading = label_in(line) or ""
        while len(box_lines) < len(parsed.boxes):
            box_lines.append(i)
    if box_lines and not _names_stand_above(lines, box_lines, parsed):
        parsed.set_details(0, "heading", [""] * len(parsed.boxes))
    if not any(raw.details.labels for raw in parsed.boxes):
        _set_stated_labels(lines, box_lines, parsed)


def _in_one_line(stacked: re.Match[str]) -> str:
    """Return four coordinates on a line each as one line."""
    return ", ".join(stacked[0].split("\n")[:4]) + "\n"


def _names_stand_above(lines: list[str], box_lines: list[int], parsed: ParsedReply) -> bool:
    """Whether lines that name boxes stand above these, and not below.

    They do where one stands above the first box, and none that may be a name below the last.
    """
    below = [line for line in lines[box_lines[-1] :] if line.strip()]
    may_be_below = bool(below) and not below[0].rstrip().endswith((".", ":", "!"))
    if may_be_below and _may_name(below[0]) and len(below[0].split()) <= _MOST_WORDS:
        return False
    return _may_name(parsed.boxes[0].details.heading)


def _may_name(heading: str) -> bool:
    """Whether a line above a box has a word that may name it, as "Box 1" and "Second one" don't."""
    return any(word.lower() not in NO_THINGS for word in _ANY_LETTERS.findall(heading))


def _set_stated_labels(lines: list[str], box_lines: list[int], parsed: ParsedReply) -> None:
    """Set the labels of boxes to those on lines such as `label: a cat` above or below them.

    A single one above all boxes is that of each. Else there is one for each box, all of them above
    their boxes or all below. Without any such line, nothing is set.

    Args:
        lines: The lines of the text.
        box_lines: The number of the line of each box, from 1.
        parsed: The reply with these boxes and no others.

    Raises:
        UnreadableReply: It is unclear to which boxes they belong.
    """
    if not box_lines:
        return
    stated = _stated_labels(lines, set(box_lines))
    if not stated:
        return
    labels = [(label,) for label in stated.values()]
    if len(stated) == 1 and min(stated) < box_lines[0]:
        labels *= len(box_lines)
    elif not _alternate(stated, box_lines):
        raise UnreadableReply("it is unclear which of the stated labels belong to which boxes")
    parsed.set_details(0, "labels", labels)


def _alternate(stated: Mapping[int, str], box_lines: list[int]) -> bool:
    """Whether there is a stated label for each box, and lines of labels and boxes take turns.

    `stated` has the labels by the numbers of their lines, `box_lines` the numbers of boxes' lines.
    """
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
        match = _LABELED.fullmatch(line[:_LONGEST_STATED])
        if match is not None:
            stated[i] = label_in(match[1]) or match[1].strip()
    return stated


def _read_line(line: str, parsed: ParsedReply, heading: str, *, last: bool) -> None:
    """Add to `parsed` the box or point of a line, if it has one.

    That is a box with named coordinates, `x1=10, y1=20, x2=30, y2=40`; else four numbers at the
    line's end; else a point, `x: 10, y: 20`. What stands before a box may be its label. Four
    numbers behind a fifth are dropped, and so are those of the last line if it leaves a bracket
    open: then the reply is cut off.

    Args:
        line: The line.
        parsed: What was read so far.
        heading: The line above that may name its box, without marks; "" for none.
        last: Whether it is the text's last line, which may be cut off.
    """
    by_name = {plain_key(key): float(value) for key, value in _NAMED.findall(line[:_LONGEST_LINE])}
    first = _NAMED.search(line)
    before = "" if first is None else line[: first.start()]
    details = details_of_label(label_before(before), thing_before(before), heading)
    if add_corners(parsed, by_name, details):
        return
    tail = line[-_LONGEST_TAIL:]
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
            _add_four_numbers(list(four.groups()), LEGEND.sub(" ", before), parsed, heading)
    elif "x" in by_name and "y" in by_name:
        parsed.add_raw_box(RawBox("point", (by_name["x"], by_name["y"]), order="xyxy"))


def _leaves_bracket_open(line: str) -> bool:
    """Whether a line has more opening than closing brackets of a kind."""
    return any(line.count(opening) > line.count(closing) for opening, closing in _BRACKETS)


def _add_four_numbers(numbers: list[str], before: str, parsed: ParsedReply, heading: str) -> None:
    """Add to `parsed` the four numbers that a line ends in, if the words before them allow a box.

    They do if they are a label, have no word at all, or have one such as "box" or "at".
    """
    label = label_before(before)
    if not label and len(before.split()) <= _MOST_WORDS_BARE and not TALK.search(before):
        label = label_in(before)
    if label or not _LETTERS.search(before) or _BOX_WORD.search(before):
        parsed.add_numbers(numbers, details_of_label(label, thing_before(before), heading))


def label_before(text: str) -> str | None:
    """Return the label of a box from the words before it; None for none.

    It is the last line, if it goes up to the box or ends with a mark such as ":", as in "cat: ".
    Where that line has nothing but marks, is a key for a box or has talk, it is a heading above.
    """
    *above, line = text[-_LONGEST_BEFORE:].split("\n")
    touches_box = bool(line) and (not line[-1].isspace() or line.rstrip()[-1:] in MARKUP)
    is_blank = not touches_box and not line.strip(MARKUP + "-")
    if is_blank or plain_key(line) in BOX_KEYS or TALK.search(line):
        return _label_above(above)
    return label_in(line) if touches_box else None


def heading_above(text: str) -> str:
    """Return the heading that stands alone above a box, from the words before it; "" for none.

    It is the last line with words, a heading or an item of a list that may name a thing. Below
    another such line it is an item of a list of things, and below a line without an end the end of
    a sentence.
    """
    lines = [line.strip() for line in text[-_LONGEST_BEFORE:].split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    lines = [line for line in lines if not line.startswith("```")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not _HEADING.fullmatch(lines[-1]) or not _may_name(lines[-1]):
        return ""
    *above, heading = lines
    if above and above[-1] and above[-1][-1] not in ".!?。":
        return ""
    if any(_HEADING.fullmatch(line) and _may_name(line) for line in above):
        return ""
    return label_in(heading) or ""


def _label_above(lines: list[str]) -> str | None:
    """Return the label in the nearest of the last two lines with text that states one.

    A line such as `label: a cat` does, and a heading or an item of a list. None where neither line
    is one, or the nearest that is one has talk.
    """
    with_words = [line for line in lines if line.strip()]
    for line in reversed(with_words[-2:]):
        stated = _LABELED.fullmatch(line)
        if stated is not None:
            return label_in(stated[1])
        if _HEADING.fullmatch(line.strip()):
            return None if TALK.search(line) else label_in(line)
    return None


def label_in(line: str) -> str | None:
    """Return the label that a line is, without marks, a number or earlier clauses before it.

    None where it has no letters, names a corner, has a sign such as "=", or more words than a
    label.
    """
    line = _CLAUSES.split(line)[-1]
    without_tags = _TAG.sub(" ", line)
    # a tag alone is a label: <cat>[1, 2, 3, 4]</cat>
    line = without_tags if _LETTERS.search(without_tags) else line
    label = re.sub(r"^\d{1,3}[.)]\s+", "", line.strip(MARKUP + "-•#")).strip(MARKUP + "])}")
    if re.search(r"[^\W\d]", label) is None or _CORNER.fullmatch(label):
        return None
    if re.search(r"[=({]", label) or len(label.split()) > _MOST_WORDS:
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
        """Add to `parsed` the box of a line, and return whether the line belongs to the table.

        A rule such as "|---|" does, and has no box. A line with another number of cells does if it
        has four numbers or more, and is dropped.
        """
        if _RULE.fullmatch(line):
            return True
        cells = _cells(line, self.separator)
        if len(cells) == len(self.names):
            # reversed: the first of two columns of one name counts
            fields = dict(zip(reversed(self.names), reversed(cells), strict=True))
            return add_corners(parsed, fields, details_of_label(fields.get(self.label)))
        count_of_numbers = sum(number(cell) is not None for cell in cells)
        if count_of_numbers < 4:
            return False
        parsed.drop(f"a row that doesn't fit its table: {line.strip()[:60]!r}")
        return True


def _table_of(line: str) -> _Table | None:
    """Return the table that a line of column names begins; None for any other line.

    Four of the columns must be the coordinates of a box, each once.
    """
    if len(line) < _SHORTEST_HEAD:
        return None
    for separator in _SEPARATORS:
        names = [plain_key(cell) for cell in _cells(line[:_LONGEST_HEAD], separator)]
        for corners, _ in CORNERS:
            if all(names.count(corner) == 1 for corner in corners):
                return _Table(separator, names, _label_column(names, corners))
    return None


def _label_column(names: list[str], corners: tuple[str, ...]) -> str:
    """Return the column for a label, else the first with a name and no coordinate, else ""."""
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
