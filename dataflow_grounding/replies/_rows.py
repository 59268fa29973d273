"""The details of boxes in rows and lines where no words stand before a box on its line."""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._beside import UNCLEAR, details_behind, label_of_words
from dataflow_grounding.replies._plain_text import label_before, label_in
from dataflow_grounding.replies._talk import thing_behind
from dataflow_grounding.replies.reading import NO_DETAILS, Details, details_of_label
from dataflow_grounding.replies.vocabulary import (
    BOX_KEYS,
    ID_KEYS,
    LABEL_KEYS,
    SCORE_KEYS,
    pattern,
    words,
)

# A word of two letters, or of one that stands alone.
_WORD = lazy_pattern(r"[^\W\d_]{2,}|[^\W\d_](?![^\W_])")
# A tag that begins a row, or the end of a sentence: both count as new lines.
_NEW_ROW = lazy_pattern(r"</?(?:tr|li|p|br|div)\b[^<>]{0,200}>|\.\s{1,3}(?=[A-Z])", re.IGNORECASE)
_TAG = lazy_pattern(r"<[^<>]{0,200}>")
_FENCE = lazy_pattern(r"```[a-z]{0,10}")
_COMMENT = lazy_pattern(r"^[\s,\]})\"']{0,20}(?://|#|/\*)")  # the mark of one right behind a box
_CELL_END = lazy_pattern(r"[|\t]")
_STATED = pattern("labelled")  # "label: a cat"; the group is the label
# Words that name no thing: those of talk, names of keys and columns, and which of several things is
# meant.
_NEUTRAL = words("filler").union(words("which"), BOX_KEYS, LABEL_KEYS, ID_KEYS, SCORE_KEYS)
_SCORES = frozenset([*SCORE_KEYS, "score", "confidence", "conf", "probability"])  # names of scores
_LONGEST_LINE = 1000  # characters of a line in which a label may stand
_MOST_BELOW = 3  # lines below the last box in which its label may stand
_MOST_WORDS = 6  # of a label on a line of its own
_MOST = 2000  # characters of the words between two boxes that are looked at, from either end


def details_in_rows(gaps: list[str]) -> list[Details]:
    """Return the details of each box from the words behind it, on its line or on lines below.

    Which of the two it is, is decided once for all boxes: if words stand behind any box on its
    line, those count. A heading above all boxes is then a further label of each.

    Args:
        gaps: The words before the first box, between boxes, and behind the last box.

    Returns:
        The details of each box; [] where two boxes stand on a line, where words stand before a box
        on its line, or where labels stand above their boxes.

    Raises:
        UnreadableReply: Labels stand between boxes, and it is unclear to which of them they belong.
    """
    rows = [_lines(gap) for gap in gaps]
    between = rows[1:-1]
    have_two_on_a_line = any(len(lines) == 1 for lines in between)
    have_words_before = any(names_anything(lines[-1]) for lines in rows[:-1])
    if have_two_on_a_line or have_words_before:
        return []
    heading = label_before(gaps[0]) if _any_named(rows[0]) else None
    behind = [_details_on_line(lines[0]) for lines in rows[1:]]
    if any(details != NO_DETAILS for details in behind):
        return _with_heading(behind, heading, several=bool(between))
    all_in_heading = heading is not None and not any(_any_named(lines) for lines in between)
    if all_in_heading and any(_WORD.search(lines[0]) for lines in rows[1:]):
        # "left one" behind a box of "Cats:"
        return [details_of_label(heading)] * len(behind)
    return _details_below(rows, heading)


def _with_heading(behind: list[Details], heading: str | None, *, several: bool) -> list[Details]:
    """Return the details behind each box on its line, with the heading as a further label.

    Words under a heading may say no more than which of its things a box is, such as "left one".

    Args:
        behind: The details of each box from the words behind it.
        heading: The label above all boxes, if there is one.
        several: Whether there are several boxes.

    Returns:
        The details of each box; [] for a single box without a label behind it.

    Raises:
        UnreadableReply: A box has neither words nor a heading.
    """
    if not several and not behind[0].labels:
        return []
    heading_labels = () if heading is None else (heading,)
    with_heading: list[Details] = []
    for details in behind:
        if details == NO_DETAILS and not heading_labels:
            raise UnreadableReply(UNCLEAR)
        with_heading.append(Details(details.labels + heading_labels, talk=details.talk))
    return with_heading


def _details_below(rows: list[list[str]], heading: str | None) -> list[Details]:
    """Return the details of each box from the label on a line below it.

    Args:
        rows: The lines before the first box, between boxes, and behind the last box.
        heading: The label above all boxes, if there is one.

    Returns:
        The details of each box; [] where the labels stand above their boxes, or there are none.

    Raises:
        UnreadableReply: It is unclear whether the labels stand above or below.
    """
    between = rows[1:-1]
    behind_last = rows[-1][1:]
    label_of_last = _label_among(behind_last[:_MOST_BELOW])
    if not between:  # there is one box
        if label_of_last and not _any_named(rows[0]):
            return [details_of_label(label_of_last)]
        return []
    labels = [_label_among(lines[1:-1]) for lines in between]
    if not any(labels) or _stand_above(rows, label_of_last):
        return []
    labels.append(label_of_last)
    has_label_above = heading is not None or _label_among(rows[0][:-1]) is not None
    if not all(labels) or (has_label_above and not _surely_below(between, behind_last)):
        raise UnreadableReply(UNCLEAR)
    return [details_of_label(label) for label in labels]


def _surely_below(between: list[list[str]], behind_last: list[str]) -> bool:
    """Whether labels surely stand below their boxes.

    They do where words between boxes are nearer to the box before them, or where the first words
    behind the last box say that they are a label.
    """
    if all(_nearer(lines) == "box before" for lines in between):
        return True
    return _STATED.fullmatch(_first_naming(behind_last)) is not None


def _stand_above(rows: list[list[str]], label_of_last: str | None) -> bool:
    """Whether labels on lines of their own stand above their boxes, and not below.

    They do where the words before the first box say that they are a label; where these name
    anything and the last box has no label behind it; or where all words are nearer to the box
    behind them.
    """
    if any(_STATED.fullmatch(line) for line in rows[0]):
        return True
    if label_of_last is None and _any_named(rows[0]):
        return True
    return all(_nearer(lines) == "box behind" for lines in rows[1:-1])


def _lines(gap: str) -> list[str]:
    """Return the lines of the words between two boxes.

    The first line is behind the one box, the last line before the other. Of a long text, both ends
    are returned, without what is between.
    """
    if len(gap) > 2 * _MOST:
        gap = gap[:_MOST] + "\n" + gap[-_MOST:]
    return _FENCE.sub("", _TAG.sub(" ", _NEW_ROW.sub("\n", gap))).split("\n")


def _nearer(lines: list[str]) -> str:
    """Return to which of two boxes the words between them are nearer.

    Empty lines around the words tell. The answer is "box before", "box behind" or "neither".
    """
    lines_with_names = [i for i, line in enumerate(lines) if names_anything(line)]
    if not lines_with_names:
        return "neither"
    before = lines_with_names[0]
    after = len(lines) - 1 - lines_with_names[-1]
    if before == after:
        return "neither"
    return "box before" if before < after else "box behind"


def _details_on_line(line: str) -> Details:
    """Return the details of a box from the rest of its line or row.

    The first cell counts that names anything and isn't a score. NO_DETAILS for none.
    """
    line = _COMMENT.sub(" ", line[:_LONGEST_LINE])
    stated = _STATED.fullmatch(line)
    if stated is not None:
        return details_of_label(label_in(stated[1]))
    for cell in _CELL_END.split(line):
        if names_anything(cell) and _first_word(cell) not in _SCORES:
            details = details_behind(cell)
            if details == NO_DETAILS:  # a sentence or a part of one, as "car that is parked"
                details = details_of_label(None, talk=thing_behind(cell))
            return details
    return NO_DETAILS


def _label_among(lines: list[str]) -> str | None:
    """Return the label on the first of the lines that names anything.

    A line such as `label: a cat` goes first. None for talk, a score, or where no line names
    anything.
    """
    for line in lines:
        stated = _STATED.fullmatch(line[:_LONGEST_LINE])
        if stated is not None:
            return label_in(stated[1])
    first = _first_naming(lines)
    if not first or _first_word(first) in _SCORES:
        return None
    if first.rstrip().endswith(".") or re.search("[:：]", first):
        return None
    if len(first.split()) > _MOST_WORDS:
        return None
    return label_of_words(_COMMENT.sub(" ", first))


def _first_naming(lines: list[str]) -> str:
    """Return the first of the lines that names anything; "" for none."""
    for line in lines:
        if names_anything(line):
            return line[:_LONGEST_LINE]
    return ""


def _any_named(lines: list[str]) -> bool:
    """Whether any of the lines names anything."""
    return any(names_anything(line) for line in lines)


def names_anything(line: str) -> bool:
    """Whether a line has a word that may name a thing.

    Words of talk, names of keys, and those that tell which of several things is meant, such as
    "left", don't.
    """
    return any(word.lower() not in _NEUTRAL for word in _WORD.findall(line[-_MOST:]))


def _first_word(line: str) -> str:
    """Return the first word of a line in lower case; "" for none."""
    word = _WORD.search(line)
    return word[0].lower() if word else ""
