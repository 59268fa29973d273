"""What a scan found in a text, each array or object with the words around it."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._beside import with_names_from_attributes
from dataflow_grounding.replies._conventions import LEGEND
from dataflow_grounding.replies._json_shapes import is_pair
from dataflow_grounding.replies._rows import names_anything
from dataflow_grounding.replies.json_values import JsonItem, Scan, nested_values
from dataflow_grounding.replies.vocabulary import pattern

_COMMENT = lazy_pattern(r"(?://|#\s|/\*)([^\n]{1,200})")  # "// cat"; the group is its text
_INNERMOST = lazy_pattern(r"\[[^\[\]]*\]")  # a list with no list in it
# A word: of one character where it is of no Latin letter, as "猫".
_LETTERS = lazy_pattern(r"[^\W\d_]{2,}|[^\W\d_a-zA-Z]")
# A line that is a heading in brackets, "[cats]". Groups: the line's beginning, the heading.
_SECTION = lazy_pattern(r"(^|\n)[ \t]{0,20}\[([^\[\]\d\n]{1,80})\][ \t]{0,20}(?=\n)")
_AND = lazy_pattern(r"\s*,?\s*and\s*", re.IGNORECASE)  # all that joins two points
# "The cats are at (1, 2) and (3, 4)" are two points, but "its corners are at" these two are one
# box.
_ARE_AT = lazy_pattern(
    r"^(?!.*(?:corner|box|bound|coord)).*\b(?:are|were)\s(?:\w+\s)?(?:at|near)\s*$",
    re.IGNORECASE | re.DOTALL,
)
# All that stands between the two corners of a box: ", " or "to the bottom right corner at ".
_BETWEEN_PAIRS = pattern("between_pairs")
_LONGEST_LINE = 400  # characters before a list in which its line may begin
_LONGEST_BETWEEN = 60  # characters between two corners that are looked at
_LONGEST_BEFORE = 80  # characters before a pair that may say that it is a point


class ItemInTalk(NamedTuple):
    """An array or object of a text, with the words around it.

    Attributes:
        json: The array or object.
        between: The text between it and the item before it, or the text's beginning.
        before: `between` without legends; for the first item, if that is blank, the words before
            the text.
        behind: The text behind it, up to the next one or the text's end.
    """

    json: JsonItem
    between: str
    before: str
    behind: str


def items_with_talk(scan: Scan, words_before: str) -> Iterator[ItemInTalk]:
    """Yield the arrays and objects of a text, each with the words around it.

    Args:
        scan: The arrays and objects of the text.
        words_before: The words before the text; they stand before the first item if no others do.
    """
    items = _items_of(scan)
    for i, item in enumerate(items):
        start = items[i - 1].end if i > 0 else 0
        end = items[i + 1].start if i + 1 < len(items) else len(scan.text)
        as_headings = _SECTION.sub(r"\1\2:", scan.text[start : item.start])
        between = with_names_from_attributes(as_headings)
        before = words_before if i == 0 and not between.strip() else between
        yield ItemInTalk(item, between, LEGEND.sub(" ", before), scan.text[item.end : end])


def _items_of(scan: Scan) -> list[JsonItem]:
    """Return the arrays and objects of a text that may be or hold boxes.

    Legends are left out, and so are words in brackets where there is anything else. Two pairs that
    make a box are one item, and lists with a comment beside each are items of their own.

    Raises:
        UnreadableReply: It is unclear which list a comment is beside.
    """
    items: list[JsonItem] = []
    for item in _join_pairs(scan):
        if not LEGEND.fullmatch(scan.text, item.start, item.end):
            items.append(item)
    without_words = [item for item in items if not _is_words(item.value)]
    parts: list[JsonItem] = []
    for item in without_words or items:
        parts += _split_at_comments(scan.text, item)
    return parts


def _is_words(value: Any) -> bool:
    """Whether a value is a list of words, as `[dog]` is in `[dog] [1, 2, 3, 4]`.

    The name of a part of TOML, such as `[[boxes]]`, is one too.
    """
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, str) and _LETTERS.search(item) for item in value)


def _split_at_comments(text: str, item: JsonItem) -> list[JsonItem]:
    """Split a list of lists that have comments beside them, as a comment may be a label.

    Any other item is returned as it is, and so is one behind words on its line that name anything:
    they label all of its lists.

    Raises:
        UnreadableReply: It is unclear which list a comment is beside.
    """
    line_before = text[max(0, item.start - _LONGEST_LINE) : item.start].rpartition("\n")[2]
    if names_anything(line_before):
        return [item]
    if not _is_list_of_plain_lists(item.value) or not _has_naming_comment(text, item):
        return [item]
    innermost = [*_INNERMOST.finditer(text, item.start + 1, item.end)]
    if len(innermost) != len(item.value):
        raise UnreadableReply(
            "there are comments in a list of boxes, and it is unclear what they say"
        )
    parts: list[JsonItem] = []
    for value, match in zip(item.value, innermost, strict=True):
        parts.append(JsonItem(value, match.start(), match.end()))
    return parts


def _is_list_of_plain_lists(value: Any) -> bool:
    """Whether a value is a list of several lists, with no array or object in these."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(inner, list) and not nested_values(inner) for inner in value)


def _has_naming_comment(text: str, item: JsonItem) -> bool:
    """Whether a comment within an item may be a label."""
    comments = _COMMENT.finditer(text, item.start, item.end)
    return any(names_anything(match[1]) for match in comments)


def _join_pairs(scan: Scan) -> list[JsonItem]:
    """Return the arrays and objects of a text, with two pairs that make a box joined to one.

    Such pairs follow one another, as in `(1, 2), (3, 4)`.
    """
    joined: list[JsonItem] = []
    for item in scan.items:
        if joined and _are_corners(scan.text, joined[-1], item):
            first = joined[-1]
            joined[-1] = JsonItem([*first.value, *item.value], first.start, item.end)
        else:
            joined.append(item)
    return joined


def _are_corners(text: str, first: JsonItem, second: JsonItem) -> bool:
    """Whether two items are pairs of numbers, and what stands between makes them one box.

    Behind "are at", two pairs that "and" joins are two points.
    """
    if not is_pair(second.value) or not is_pair(first.value):
        return False
    between = text[first.end : second.start][:_LONGEST_BETWEEN]
    if _BETWEEN_PAIRS.fullmatch(between) is None:
        return False
    before = text[max(0, first.start - _LONGEST_BEFORE) : first.start]
    are_points = _AND.fullmatch(between) is not None and _ARE_AT.search(before) is not None
    return not are_points
