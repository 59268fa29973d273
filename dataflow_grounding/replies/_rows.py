"""What the rows and lines of a reply say of its boxes where no words stand before a box on its
line.
"""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._beside import UNCLEAR, label_of_words, said_behind
from dataflow_grounding.replies._plain_text import label_before, label_in
from dataflow_grounding.replies.reading import NOTHING_SAID, Said, named
from dataflow_grounding.replies.vocabulary import (
    BOX_KEYS,
    ID_KEYS,
    LABEL_KEYS,
    SCORE_KEYS,
    pattern,
    words,
)

_WORD = lazy_pattern(r"[^\W\d_]{2,}|[^\W\d_](?![^\W_])")
_NEW_ROW = lazy_pattern(r"</?(?:tr|li|p|br|div)\b[^<>]{0,200}>|\.\s{1,3}(?=[A-Z])", re.IGNORECASE)
_TAG = lazy_pattern(r"<[^<>]{0,200}>")
_FENCE = lazy_pattern(r"```[a-z]{0,10}")
_COMMENT = lazy_pattern(r"^[\s,\]})\"']{0,20}(?://|#|/\*)")
_CELL_END = lazy_pattern(r"[|\t]")
_STATED = pattern("labelled")
# Words that name no thing: those of talk, names of keys and columns, and which of several things is
# meant.
_NEUTRAL = words("filler") | BOX_KEYS | {*LABEL_KEYS, *ID_KEYS, *SCORE_KEYS} | words("which")
_SCORES = frozenset([*SCORE_KEYS, "score", "confidence", "conf", "probability"])
_MOST = 2000  # characters of the words between two boxes that are looked at, from either end


def said_in_rows(gaps: list[str]) -> list[Said]:
    """Return what the words behind each box on its line, or on the line below, say of it; [] where
    they aren't there.

    `gaps` are the words before the first of the boxes, between them and behind the last one. Side
    is decided once, for all boxes. Raises UnreadableReply where labels stand between boxes and it
    is unclear to which of them they belong.
    """
    rows = [_lines(gap) for gap in gaps]
    between = rows[1:-1]
    if any(len(lines) == 1 for lines in between) or any(
        names_anything(lines[-1]) for lines in rows[:-1]
    ):
        return []
    heading = label_before(gaps[0]) if any(names_anything(line) for line in rows[0]) else None
    behind = [_said_on(lines[0]) for lines in rows[1:]]
    if any(said != NOTHING_SAID for said in behind):
        return _behind_on_lines(behind, heading, several=bool(between))
    in_heading = heading is not None and not any(map(_named_in, between))
    if in_heading and any(_WORD.search(lines[0]) for lines in rows[1:]):
        # "left one" behind a box of "Cats:"
        return [named(heading)] * len(behind)
    return _below(rows, heading)


def _behind_on_lines(behind: list[Said], heading: str | None, *, several: bool) -> list[Said]:
    if not several and not behind[0].labels:
        return []
    if heading is None and behind[-1] == NOTHING_SAID:
        raise UnreadableReply(UNCLEAR)
    # Words under a heading may say no more than which of its things a box is.
    above = () if heading is None else (heading,)
    filled: list[Said] = []
    for said in behind:
        labels = (*said.labels, *above)
        if said == NOTHING_SAID and not above:
            raise UnreadableReply(UNCLEAR)
        filled.append(Said(labels, talk=said.talk))
    return filled


def _below(rows: list[list[str]], heading: str | None) -> list[Said]:
    """Return the labels on the lines below the boxes; [] where they stand above. Raises
    UnreadableReply if unclear.
    """
    between, last = rows[1:-1], rows[-1][1:]
    below = [_label_among(lines[1:-1]) for lines in between] + [_label_among(last[:3])]
    if not between:
        return [named(below[0])] if below[0] and not _named_in(rows[0]) else []
    if not any(below[:-1]) or _stand_above(rows, below[-1]):
        return []
    label_above = heading is not None or _label_among(rows[0][:-1]) is not None
    surely_below = {*map(_nearer, between)} == {"box before"} or _STATED.fullmatch(
        _first(last)
    ) is not None
    if not all(below) or (label_above and not surely_below):
        raise UnreadableReply(UNCLEAR)
    return [*map(named, below)]


def _stand_above(rows: list[list[str]], below_last: str | None) -> bool:
    """Whether labels on lines of their own stand above their boxes, and not below."""
    if any(_STATED.fullmatch(line) for line in rows[0]) or (
        below_last is None and _named_in(rows[0])
    ):
        return True
    return {*map(_nearer, rows[1:-1])} == {"box behind"}


def _lines(gap: str) -> list[str]:
    """Return the lines of the words between two boxes: the first is behind the one, the last before
    the other.
    """
    if len(gap) > 2 * _MOST:
        gap = gap[:_MOST] + "\n" + gap[-_MOST:]
    return _FENCE.sub("", _TAG.sub(" ", _NEW_ROW.sub("\n", gap))).split("\n")


def _nearer(lines: list[str]) -> str:
    """Return to which box the words between two are nearer, by the empty lines around them."""
    named_lines = [i for i, line in enumerate(lines) if names_anything(line)]
    if not named_lines:
        return "neither"
    before, after = named_lines[0], len(lines) - 1 - named_lines[-1]
    return "neither" if before == after else "box before" if before < after else "box behind"


def _said_on(line: str) -> Said:
    """Return what the rest of a line or row behind a box says of it."""
    line = _COMMENT.sub(" ", line[:1000])
    stated = _STATED.fullmatch(line)
    if stated is not None:
        return named(label_in(stated[1]))
    for cell in _CELL_END.split(line):
        if names_anything(cell) and _first_word(cell) not in _SCORES:
            return said_behind(cell)
    return NOTHING_SAID


def _label_among(lines: list[str]) -> str | None:
    """Return the label on the first of the lines that names anything, or on the one that says that
    it is a label.
    """
    for line in lines:
        stated = _STATED.fullmatch(line[:1000])
        if stated is not None:
            return label_in(stated[1])
    first = _first(lines)
    if (
        not first
        or _first_word(first) in _SCORES
        or first.rstrip().endswith(".")
        or re.search("[:：]", first)
    ):
        return None
    return label_of_words(_COMMENT.sub(" ", first)) if len(first.split()) <= 6 else None


def _first(lines: list[str]) -> str:
    return next((line[:1000] for line in lines if names_anything(line)), "")


def _named_in(lines: list[str]) -> bool:
    return any(map(names_anything, lines))


def names_anything(line: str) -> bool:
    """Whether words are more than talk, names of keys and columns, and which of several things is
    meant.
    """
    return any(word.lower() not in _NEUTRAL for word in _WORD.findall(line[-_MOST:]))


def _first_word(line: str) -> str:
    word = _WORD.search(line)
    return word[0].lower() if word else ""
