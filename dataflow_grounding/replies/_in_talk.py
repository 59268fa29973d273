"""What a scan found in a text, each array or object with the words around it."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._beside import with_attributes_said
from dataflow_grounding.replies._conventions import LEGEND
from dataflow_grounding.replies._json_shapes import is_pair
from dataflow_grounding.replies._rows import names_anything
from dataflow_grounding.replies.json_values import FoundJson, Scan, nested
from dataflow_grounding.replies.vocabulary import pattern

_COMMENT = lazy_pattern(r"(?://|#\s|/\*)([^\n]{1,200})")
_INNERMOST = lazy_pattern(r"\[[^\[\]]*\]")
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}")
_SECTION = lazy_pattern(r"(^|\n)[ \t]{0,20}\[([^\[\]\d\n]{1,80})\][ \t]{0,20}(?=\n)")
_AND = lazy_pattern(r"\s*,?\s*and\s*", re.IGNORECASE)
# "The cats are at (1, 2) and (3, 4)" are two points, but "its corners are at" these two are one
# box.
_ARE_AT = lazy_pattern(
    r"^(?!.*(?:corner|box|bound|coord)).*\b(?:are|were)\s(?:\w+\s)?(?:at|near)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_BETWEEN_PAIRS = pattern("between_pairs")


class InTalk(NamedTuple):
    """What a scan found, the text `between` it and what is before it, the words `before` it, the
    text `behind` it.
    """

    item: FoundJson
    between: str
    before: str
    behind: str


def with_talk(scan: Scan, lead: str) -> Iterator[InTalk]:
    """Yield what was found, with the text around it up to what is next to it; `lead` are words
    before the text.
    """
    items = [
        item
        for item in _joined_pairs(scan)
        if not LEGEND.fullmatch(scan.text, item.start, item.end)
    ]
    items = [item for item in items if not _is_words(item.value)] or items
    items = [part for item in items for part in _commented_parts(scan.text, item)]
    starts = [0, *(item.end for item in items)]
    ends = [*(item.start for item in items[1:]), len(scan.text)]
    for item, start, end in zip(items, starts, ends, strict=False):
        between = with_attributes_said(_SECTION.sub(r"\1\2:", scan.text[start : item.start]))
        before = lead if item is items[0] and not between.strip() else between
        yield InTalk(item, between, LEGEND.sub(" ", before), scan.text[item.end : end])


def _is_words(value: Any) -> bool:
    """Whether a value is a list of words, as in `[dog] [1, 2, 3, 4]`, or the name of a part of
    TOML: `[[boxes]]`.
    """
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, str) and _LETTERS.search(item) for item in value)
    )


def _commented_parts(text: str, item: FoundJson) -> list[FoundJson]:
    """Return the lists in a list with a comment beside each, which may be its label; any other item
    as it is.
    """
    if names_anything(text[max(0, item.start - 400) : item.start].rpartition("\n")[2]):
        # what all of them are
        return [item]
    lists = (
        item.value
        if isinstance(item.value, list) and all(isinstance(inner, list) for inner in item.value)
        else []
    )
    comments = (match[1] for match in _COMMENT.finditer(text, item.start, item.end))
    if len(lists) < 2 or any(map(nested, lists)) or not any(map(names_anything, comments)):
        return [item]
    inside = [*_INNERMOST.finditer(text, item.start + 1, item.end)]
    if len(inside) != len(lists):
        raise UnreadableReply(
            "there are comments in a list of boxes, and it is unclear what they say"
        )
    return [
        FoundJson(value, match.start(), match.end())
        for value, match in zip(lists, inside, strict=True)
    ]


def _joined_pairs(scan: Scan) -> list[FoundJson]:
    """Return what was found, with two pairs of numbers that follow one another, as in
    `(1, 2), (3, 4)`, as one box.
    """
    joined: list[FoundJson] = []
    for item in scan.found:
        last = joined[-1] if joined and is_pair(item.value) and is_pair(joined[-1].value) else None
        if last is not None and _are_corners(scan.text, last.end, item.start, last.start):
            joined[-1] = FoundJson([*last.value, *item.value], last.start, item.end)
        else:
            joined.append(item)
    return joined


def _are_corners(text: str, end: int, start: int, begin: int) -> bool:
    """Whether what stands between two pairs, from `end` to `start`, makes them a box; the first
    begins at `begin`.
    """
    between = text[end:start][:60]
    points = (
        _AND.fullmatch(between) is not None
        and _ARE_AT.search(text[max(0, begin - 80) : begin]) is not None
    )
    return _BETWEEN_PAIRS.fullmatch(between) is not None and not points
